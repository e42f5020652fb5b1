//! What the program counts, for whoever operates it. There is no global recorder: the composition
//! root makes one [`Metrics`] and hands it down.
//!
//! A worker by itself binds no port, so nobody can ask it. What processes do for integrations is
//! therefore added up in the database: each process counts in memory and moves what it has counted
//! there every few seconds ([`Source::Totals`]), and whoever answers `/metrics` tells the sum.

mod families;
mod process;
mod values;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

pub use families::*;
pub use values::{CONTENT_TYPE, Label, Total, Values};

use crate::domain::{
    ServiceName,
    sync::{EndedRun, Outcome, RunStatus, Trigger},
};

/// How a refresh of an access token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// There is a new access token.
    Success,
    /// The consent ran out.
    Expired,
    /// The consent was withdrawn.
    Revoked,
    /// The authorization server does not take the client.
    ClientRefused,
    /// The stored credentials cannot be read, or are not there.
    Credentials,
    /// Network, time-out, or an authorization server in trouble.
    Unavailable,
}

impl RefreshOutcome {
    /// The word in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::ClientRefused => "client_refused",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
        }
    }

    const ALL: [Self; 6] = [
        Self::Success,
        Self::Expired,
        Self::Revoked,
        Self::ClientRefused,
        Self::Credentials,
        Self::Unavailable,
    ];
}

/// What came of one attempt of a call to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// A whole answer.
    Ok,
    /// Refused for its rate: 429, or a 403 that says so.
    RateLimited,
    /// The access token was not taken.
    Unauthorized,
    /// What was asked for is not there.
    NotFound,
    /// Refused for another reason, or larger than what is taken.
    Rejected,
    /// The answer is large and another large one is in memory: it is asked for again after that.
    Postponed,
    /// Network, time-out, 5xx, or an answer that was cut.
    Unavailable,
}

impl CallOutcome {
    /// The word in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Postponed => "postponed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Which work on a batch was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Turning raw items into records.
    Understand,
    /// The transaction.
    Write,
}

/// What this process counts.
#[derive(Debug)]
pub struct Metrics {
    started_at: DateTime<Utc>,
    counted: Mutex<Counted>,
    saving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Since the process started; it stays here.
    own: Values,
    /// Since it was last moved to the database.
    unsaved: Values,
}

impl Metrics {
    /// Of a process that started at `started_at` and can sync `services`. What may be watched for its
    /// first occurrence is there from the beginning, as a zero: Prometheus sees no step from absent
    /// to one.
    pub fn new(started_at: DateTime<Utc>, services: impl IntoIterator<Item = ServiceName>) -> Self {
        let mut unsaved = Values::default();
        for service in services {
            let service = Label::Borrowed(service.as_str());
            for outcome in RefreshOutcome::ALL {
                let labels = [service.clone(), outcome.as_str().into()];
                unsaved.add(&TOKEN_REFRESHES, &labels, 0.0);
            }
            for trigger in [Trigger::Manual, Trigger::Schedule, Trigger::Connected] {
                for outcome in RunStatus::ENDS {
                    let labels = [
                        service.clone(),
                        "sync".into(),
                        trigger.as_str().into(),
                        outcome.as_str().into(),
                    ];
                    unsaved.add(&SYNC_RUNS, &labels, 0.0);
                }
            }
        }
        Self {
            started_at,
            counted: Mutex::new(Counted {
                own: Values::default(),
                unsaved,
            }),
            saving: tokio::sync::Mutex::default(),
        }
    }

    /// A run ended.
    pub fn run_ended(&self, run: EndedRun) {
        let service: Label = run.service_name.into();
        let outcome: Label = run.status.as_str().into();
        let labels = [
            service.clone(),
            run.kind.into(),
            run.trigger.into(),
            outcome.clone(),
        ];
        let unsaved = &mut self.counted().unsaved;
        unsaved.add(&SYNC_RUNS, &labels, 1.0);
        if let Some(seconds) = run.seconds {
            unsaved.observe(&SYNC_RUN_DURATION, &[service, outcome], seconds.max(0.0));
        }
    }

    /// A batch was committed in which items got these outcomes, each so often.
    pub fn items(&self, service: ServiceName, outcomes: &[(Outcome, u64)]) {
        let unsaved = &mut self.counted().unsaved;
        for (outcome, count) in outcomes {
            let labels = [service.as_str().into(), outcome.to_string().into()];
            unsaved.add(&SYNC_ITEMS, &labels, *count as f64);
        }
    }

    /// Work on a batch took so long.
    pub fn batch(&self, service: ServiceName, step: Step, seconds: f64) {
        let step = match step {
            Step::Understand => "understand",
            Step::Write => "write",
        };
        let labels = [service.as_str().into(), step.into()];
        let unsaved = &mut self.counted().unsaved;
        unsaved.observe(&BATCH_DURATION, &labels, seconds);
    }

    /// A call waited so long for quota, and is made now.
    pub fn call_begins(&self, service: ServiceName, method: &'static str, units: u32, waited: f64) {
        let service = Label::Borrowed(service.as_str());
        let unsaved = &mut self.counted().unsaved;
        unsaved.add(
            &QUOTA_UNITS,
            &[service.clone(), method.into()],
            f64::from(units),
        );
        unsaved.add(&QUOTA_WAIT, &[service], waited.max(0.0));
    }

    /// An attempt of a call ended.
    pub fn call_ended(
        &self,
        service: ServiceName,
        method: &'static str,
        outcome: CallOutcome,
        seconds: f64,
    ) {
        let called = [Label::Borrowed(service.as_str()), method.into()];
        let [service, method] = called.clone();
        let unsaved = &mut self.counted().unsaved;
        unsaved.observe(&PROVIDER_CALL_DURATION, &called, seconds);
        let labels = [service, method, outcome.as_str().into()];
        unsaved.add(&PROVIDER_CALLS, &labels, 1.0);
    }

    /// A refresh of an access token ended.
    pub fn refreshed(&self, service: ServiceName, outcome: RefreshOutcome) {
        let labels = [service.as_str().into(), outcome.as_str().into()];
        self.counted().unsaved.add(&TOKEN_REFRESHES, &labels, 1.0);
    }

    /// The access to an account was ended. `outcome` is a word of the table of disconnections.
    pub fn revoked(&self, service: ServiceName, outcome: &'static str) {
        let labels = [service.as_str().into(), outcome.into()];
        self.counted().unsaved.add(&GRANT_REVOCATIONS, &labels, 1.0);
    }

    /// A request to the API was answered. `route` is a template, never a path.
    pub fn http_request(&self, method: &'static str, route: String, status: u16, seconds: f64) {
        let served = [Label::Borrowed(method), route.into()];
        let [method, route] = served.clone();
        let own = &mut self.counted().own;
        own.observe(&HTTP_REQUEST_DURATION, &served, seconds);
        own.add(
            &HTTP_REQUESTS,
            &[method, route, status.to_string().into()],
            1.0,
        );
    }

    /// Held while totals are moved to the database, and while they are read from there to be shown:
    /// what is neither here nor there yet would look like a counter that fell.
    pub async fn saving(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.saving.lock().await
    }

    /// Takes what the database does not have yet; the caller holds [`Metrics::saving`].
    pub fn take_unsaved(&self) -> Values {
        std::mem::take(&mut self.counted().unsaved)
    }

    /// Counts again what could not be saved.
    pub fn give_back(&self, values: Values) {
        self.counted().unsaved.extend(values);
    }

    /// What the database does not have yet; to be told only together with what it has.
    pub fn unsaved(&self) -> Values {
        self.counted().unsaved.clone()
    }

    /// What is this process's own.
    pub fn own(&self) -> Values {
        let mut values = Values::default();
        values.add(&BUILD_INFO, &[env!("CARGO_PKG_VERSION").into()], 1.0);
        let started = self.started_at.timestamp_micros() as f64 / 1e6;
        values.add(&PROCESS_START_TIME, &[], started);
        process::add_to(&mut values);
        values.extend(self.counted().own.clone());
        values
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
