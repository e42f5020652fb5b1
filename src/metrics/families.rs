//! Every metric there is: its name, its labels and what it says. `docs/metrics.md` tells the same at
//! more length, and a test holds the two together.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. No label holds an id, an
//! account or an address: every label is one of a few words.

/// A metric with all its series.
#[derive(Debug)]
pub struct Family {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Where its numbers come from.
    pub source: Source,
    /// One sentence for people.
    pub help: &'static str,
}

/// What the numbers of a family are.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value of now.
    Gauge,
    /// How often something took how long; the upper bounds of its buckets, growing.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Where the numbers of a family come from, and so which processes can tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Counted by every process and summed up in the database: whoever is asked tells the sum over
    /// all processes, those that are gone included.
    Totals,
    /// Read from the tables when it is asked for: whoever is asked tells the same.
    Tables,
    /// Of the process that is asked.
    Process,
}

impl Source {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Totals => "totals",
            Self::Tables => "tables",
            Self::Process => "process",
        }
    }
}

/// Seconds of a run: from one with nothing new to a first one under Google's quota.
const RUN_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0,
];
/// Seconds of work on a batch.
const BATCH_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Seconds of a call to a service, up to its deadline.
const CALL_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Seconds of a request to the API, up to its deadline.
const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Runs that ended.
pub const SYNC_RUNS: Family = Family {
    name: "nucleus_sync_runs_total",
    kind: Kind::Counter,
    labels: &["service", "kind", "trigger", "outcome"],
    source: Source::Totals,
    help: "Runs that ended, by how they ended",
};

/// How long runs took.
pub const SYNC_RUN_DURATION: Family = Family {
    name: "nucleus_sync_run_duration_seconds",
    kind: Kind::Histogram(RUN_SECONDS),
    labels: &["service", "outcome"],
    source: Source::Totals,
    help: "Time from the first time a worker took a run to its end",
};

/// What became of items.
pub const SYNC_ITEMS: Family = Family {
    name: "nucleus_sync_items_total",
    kind: Kind::Counter,
    labels: &["service", "outcome"],
    source: Source::Totals,
    help: "Outcomes of items, counted with the batch that makes them true",
};

/// How long batches take.
pub const BATCH_DURATION: Family = Family {
    name: "nucleus_batch_duration_seconds",
    kind: Kind::Histogram(BATCH_SECONDS),
    labels: &["service", "step"],
    source: Source::Totals,
    help: "Time to understand up to 16 items, and to write a batch in its transaction",
};

/// Calls to services.
pub const PROVIDER_CALLS: Family = Family {
    name: "nucleus_provider_calls_total",
    kind: Kind::Counter,
    labels: &["service", "method", "outcome"],
    source: Source::Totals,
    help: "Calls to services, each attempt for itself, by what came of it",
};

/// How long calls to services take.
pub const PROVIDER_CALL_DURATION: Family = Family {
    name: "nucleus_provider_call_duration_seconds",
    kind: Kind::Histogram(CALL_SECONDS),
    labels: &["service", "method"],
    source: Source::Totals,
    help: "Time from the beginning of an attempt to its whole answer or its failure",
};

/// Quota units.
pub const QUOTA_UNITS: Family = Family {
    name: "nucleus_quota_units_total",
    kind: Kind::Counter,
    labels: &["service", "method"],
    source: Source::Totals,
    help: "Quota units of the calls made, by the configured table; refused calls count too",
};

/// Waiting for the quota.
pub const QUOTA_WAIT: Family = Family {
    name: "nucleus_quota_wait_seconds_total",
    kind: Kind::Counter,
    labels: &["service"],
    source: Source::Totals,
    help: "Time that calls waited for quota before they were made, summed over calls",
};

/// Refreshes of access tokens.
pub const TOKEN_REFRESHES: Family = Family {
    name: "nucleus_token_refreshes_total",
    kind: Kind::Counter,
    labels: &["service", "outcome"],
    source: Source::Totals,
    help: "Refreshes of access tokens, by what came of them",
};

/// DNA-analysis events.
pub const DNA_EVENTS: Family = Family {
    name: "nucleus_dna_events_total",
    kind: Kind::Counter,
    labels: &[],
    source: Source::Tables,
    help: "DNA-analysis events emitted since the database was made",
};

/// Whether the database answers.
pub const DATABASE_UP: Family = Family {
    name: "nucleus_database_up",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Process,
    help: "1 if the database answered this scrape; if not, what it would tell is absent",
};

/// Runs that have not ended.
pub const SYNC_RUNS_ACTIVE: Family = Family {
    name: "nucleus_sync_runs_active",
    kind: Kind::Gauge,
    labels: &["status"],
    source: Source::Tables,
    help: "Runs that wait for a worker or are under way",
};

/// Runs whose worker is gone.
pub const SYNC_RUNS_ABANDONED: Family = Family {
    name: "nucleus_sync_runs_abandoned",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Tables,
    help: "Runs under way whose lease is over; the sweep queues them again",
};

/// Messages in the outbox.
pub const OUTBOX_MESSAGES: Family = Family {
    name: "nucleus_outbox_messages",
    kind: Kind::Gauge,
    labels: &["topic", "state"],
    source: Source::Tables,
    help: "Messages that are due, wait for their time, or are held by a worker; counted up to 100000",
};

/// How long the oldest due message waits.
pub const OUTBOX_OLDEST_DUE_AGE: Family = Family {
    name: "nucleus_outbox_oldest_due_age_seconds",
    kind: Kind::Gauge,
    labels: &["topic"],
    source: Source::Tables,
    help: "How long the longest waiting message has been due; 0 if none is",
};

/// Open gaps.
pub const SYNC_GAPS_OPEN: Family = Family {
    name: "nucleus_sync_gaps_open",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Tables,
    help: "Listed items that could not be fetched and are still tried; counted up to 100000",
};

/// Dead letters.
pub const DEAD_LETTERS: Family = Family {
    name: "nucleus_dead_letters",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Tables,
    help: "Messages that no worker could carry out; counted up to 100000",
};

/// Integrations.
pub const INTEGRATIONS: Family = Family {
    name: "nucleus_integrations",
    kind: Kind::Gauge,
    labels: &["service", "status"],
    source: Source::Tables,
    help: "Connected accounts",
};

/// Integrations whose last run failed.
pub const INTEGRATIONS_FAILING: Family = Family {
    name: "nucleus_integrations_failing",
    kind: Kind::Gauge,
    labels: &["service"],
    source: Source::Tables,
    help: "Connected accounts that may sync and whose last run failed",
};

/// Integrations that are due.
pub const INTEGRATIONS_DUE: Family = Family {
    name: "nucleus_integrations_due",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Tables,
    help: "Integrations whose next sync is due and not yet asked for; counted up to 100000",
};

/// Integrations that are overdue.
pub const INTEGRATIONS_OVERDUE: Family = Family {
    name: "nucleus_integrations_overdue",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Tables,
    help: "Integrations that have been due for more than five minutes; counted up to 100000",
};

/// Consents that end soon.
pub const CONSENTS_ENDING: Family = Family {
    name: "nucleus_consents_ending",
    kind: Kind::Gauge,
    labels: &["service"],
    source: Source::Tables,
    help: "Connections that may sync and whose person has to consent again within 14 days",
};

/// Grants that services were asked to revoke.
pub const GRANT_REVOCATIONS: Family = Family {
    name: "nucleus_grant_revocations_total",
    kind: Kind::Counter,
    labels: &["service", "outcome"],
    source: Source::Totals,
    help: "Accounts whose access was ended, by what became of the grant at the service",
};

/// The program's version.
pub const BUILD_INFO: Family = Family {
    name: "nucleus_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    source: Source::Process,
    help: "1, with the version of the program",
};

/// Whether the loops run.
pub const LOOP_RUNNING: Family = Family {
    name: "nucleus_loop_running",
    kind: Kind::Gauge,
    labels: &["loop"],
    source: Source::Process,
    help: "1 if a loop that this process is to run does run",
};

/// Requests to the API.
pub const HTTP_REQUESTS: Family = Family {
    name: "nucleus_http_requests_total",
    kind: Kind::Counter,
    labels: &["method", "route", "status"],
    source: Source::Process,
    help: "Requests that were answered, by the route's template",
};

/// How long requests to the API take.
pub const HTTP_REQUEST_DURATION: Family = Family {
    name: "nucleus_http_request_duration_seconds",
    kind: Kind::Histogram(REQUEST_SECONDS),
    labels: &["method", "route"],
    source: Source::Process,
    help: "Time from a request's head to its answer's head",
};

/// When the process started.
pub const PROCESS_START_TIME: Family = Family {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Process,
    help: "When the process started, in seconds since 1970",
};

/// Time of the processor.
pub const PROCESS_CPU: Family = Family {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    source: Source::Process,
    help: "User and system time of the process (Linux)",
};

/// Memory.
pub const PROCESS_RESIDENT_MEMORY: Family = Family {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Process,
    help: "Memory of the process that is in RAM (Linux)",
};

/// Open files.
pub const PROCESS_OPEN_FDS: Family = Family {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Process,
    help: "Open file descriptors (Linux)",
};

/// How many files may be open.
pub const PROCESS_MAX_FDS: Family = Family {
    name: "process_max_fds",
    kind: Kind::Gauge,
    labels: &[],
    source: Source::Process,
    help: "File descriptors that may be open (Linux)",
};

/// All of them, in the order in which they are shown.
pub const FAMILIES: &[&Family] = &[
    &BUILD_INFO,
    &SYNC_RUNS,
    &SYNC_RUN_DURATION,
    &SYNC_ITEMS,
    &BATCH_DURATION,
    &PROVIDER_CALLS,
    &PROVIDER_CALL_DURATION,
    &QUOTA_UNITS,
    &QUOTA_WAIT,
    &TOKEN_REFRESHES,
    &GRANT_REVOCATIONS,
    &DNA_EVENTS,
    &DATABASE_UP,
    &SYNC_RUNS_ACTIVE,
    &SYNC_RUNS_ABANDONED,
    &OUTBOX_MESSAGES,
    &OUTBOX_OLDEST_DUE_AGE,
    &SYNC_GAPS_OPEN,
    &DEAD_LETTERS,
    &INTEGRATIONS,
    &INTEGRATIONS_FAILING,
    &INTEGRATIONS_DUE,
    &INTEGRATIONS_OVERDUE,
    &CONSENTS_ENDING,
    &LOOP_RUNNING,
    &HTTP_REQUESTS,
    &HTTP_REQUEST_DURATION,
    &PROCESS_START_TIME,
    &PROCESS_CPU,
    &PROCESS_RESIDENT_MEMORY,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
];
