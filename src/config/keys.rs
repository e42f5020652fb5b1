//! Every setting there is, once: its name, its default and what it means.
//!
//! The reader takes names and defaults from here and a test checks the README's table against it,
//! so this list must not describe a setting that nothing reads, nor leave one out.

use crate::domain::ServiceName;

/// One setting, as people meet it in `nucleus.toml`, as a variable and in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name in `nucleus.toml`; `<name>` stands for each service.
    pub name: &'static str,
    /// The text that is read where nothing is given; empty where the setting has no fixed default.
    pub default: &'static str,
    /// What it does, units and limits included.
    pub meaning: &'static str,
    /// Whether it may be given as `…_FILE` and is kept out of every text.
    pub secret: bool,
}

impl Key {
    /// The environment variable of this setting, for instance `NUCLEUS_HTTP__LISTEN`.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// The row of the README's table for this setting.
    pub fn readme_row(&self) -> String {
        let default = match self.default {
            "" => String::new(),
            text => format!("`{text}`"),
        };
        let variable = self.variable();
        format!("| `{variable}` | {default} | {} |", self.meaning)
    }
}

/// The variable of a setting that is called `name` in the file.
pub(super) fn variable(name: &str) -> String {
    format!("NUCLEUS_{}", name.to_uppercase().replace('.', "__"))
}

/// The names of all settings with each service's name put in, and whether each is a secret.
pub(super) fn all_names() -> Vec<(String, bool)> {
    let mut names = Vec::new();
    for key in KEYS {
        if !key.name.contains(SERVICE) {
            names.push((key.name.to_owned(), key.secret));
            continue;
        }
        for service in ServiceName::ALL {
            names.push((key.name.replace(SERVICE, service.as_str()), key.secret));
        }
    }
    names
}

/// The default text of the setting `name`, if it has one.
pub(super) fn default_text(name: &str) -> Option<&'static str> {
    let key = KEYS.iter().find(|key| key.name == name)?;
    Some(key.default).filter(|text| !text.is_empty())
}

/// Where a service's name stands in the name of a setting.
const SERVICE: &str = "<name>";

const fn open(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        default,
        meaning,
        secret: false,
    }
}

const fn secret(name: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        default: "",
        meaning,
        secret: true,
    }
}

/// Every setting there is, in the order of the README's table.
pub const KEYS: &[Key] = &[
    open(
        "data_dir",
        "",
        "Folder for the database, the vault and the lock; made where there is none. Default: `$XDG_DATA_HOME/nucleus`, else `~/.local/share/nucleus`, else `./nucleus-data`",
    ),
    open(
        "http.listen",
        "127.0.0.1:8080",
        "Address and port of the API. Where only `PORT` is set, as on Cloud Run: `0.0.0.0:$PORT`",
    ),
    open(
        "http.public_url",
        "",
        "How browsers reach the API; OAuth redirects go there. Default: `http://{listen}`",
    ),
    secret(
        "http.operator_key",
        "The operator's API key, at least 32 characters. Without it `up` makes one at first start, and `serve` refuses to start",
    ),
    open(
        "http.return_to",
        "",
        "Origins to which a finished OAuth flow may send the browser back, separated by commas (a list in the file)",
    ),
    open(
        "http.body_limit_bytes",
        "1048576",
        "Longest request body, 1024 to 67108864 bytes",
    ),
    open(
        "http.requests_per_key",
        "1200",
        "Requests a minute with one key of an entity, up to 1000000; 0 is no limit. What the operator's keys ask for is not limited",
    ),
    open(
        "http.requests_per_address",
        "300",
        "Requests a minute without a key from one address (of IPv6, one /64), up to 1000000; 0 is no limit",
    ),
    open(
        "http.failures_per_address",
        "60",
        "Requests a minute with a wrong key from one address that are told so, up to 1000000; past that no key is looked up for it but those that were valid within the hour; 0 is no limit",
    ),
    open(
        "http.trusted_proxies",
        "0",
        "Proxies in front of the API, 0 to 16, each of which adds its client's address to `X-Forwarded-For`: Cloud Run is 1, a load balancer before it another. With 0 the header is not believed",
    ),
    secret(
        "database.url",
        "`sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`, with `?sslmode=verify-full` and `&sslrootcert=FILE` for TLS, or `postgres://USER:PASSWORD@/NAME?host=/FOLDER` for a Unix socket. Default: `nucleus.db` in the data folder",
    ),
    open(
        "database.max_connections",
        "10",
        "Database connections of one process, 1 to 1000",
    ),
    open(
        "database.acquire_seconds",
        "10",
        "How long a connection is waited for, and SQLite's lock, 1 to 300",
    ),
    open(
        "database.statement_seconds",
        "30",
        "PostgreSQL: how long a statement may take, 1 to 3600; `migrate` takes the time it needs",
    ),
    open(
        "database.lock_seconds",
        "10",
        "PostgreSQL: how long another's lock is waited for, 1 to 300",
    ),
    open(
        "database.idle_in_transaction_seconds",
        "10",
        "PostgreSQL: how long a transaction may stand still, as that of a process that was stopped, until the server takes it back, 1 to 300",
    ),
    open(
        "queue.kind",
        "embedded",
        "Where messages go: `embedded` (the database) or `pubsub` (Google Cloud Pub/Sub)",
    ),
    open(
        "queue.project_id",
        "",
        "The Google Cloud project of the topics, for `pubsub`. Where `PUBSUB_EMULATOR_HOST` is set, as `host:port`, the emulator there is used, without credentials",
    ),
    open(
        "secrets.kind",
        "vault",
        "Where credentials are kept: `vault` (sealed files in the data folder) or `gcp` (Google Cloud Secret Manager)",
    ),
    open(
        "secrets.project_id",
        "",
        "The Google Cloud project of the secrets, for `gcp`. Credentials come from Application Default Credentials",
    ),
    open(
        "secrets.endpoint",
        "",
        "Secret Manager's endpoint. Default: `https://secretmanager.googleapis.com`; plain `http` for loopback hosts only, and without credentials",
    ),
    open(
        "secrets.replication",
        "automatic",
        "Where Secret Manager keeps the copies of a new secret: `automatic`, or regions such as `europe-west1,europe-west4` (a list in the file)",
    ),
    secret(
        "secrets.vault_key",
        "Key of the vault: base64 of 32 bytes. Without it a key file in the data folder is made at first start",
    ),
    secret(
        "secrets.previous_vault_key",
        "The key before that, in every process, until `nucleus vault rotate` has sealed everything with the new one",
    ),
    open(
        "services.<name>.client_id",
        "",
        "OAuth client registered with the service. `<NAME>` is GMAIL, GITHUB, GOOGLE_CALENDAR, NOTION, SLACK, GOOGLE_DRIVE, LINKEDIN, TWITTER or SPOTIFY",
    ),
    secret("services.<name>.client_secret", "That client's secret"),
    open(
        "services.<name>.authorize_url",
        "",
        "The service's authorization endpoint. Default of this and the next three: the vendor's own; plain `http` for loopback hosts only",
    ),
    open(
        "services.<name>.token_url",
        "",
        "The service's token endpoint",
    ),
    open(
        "services.<name>.revoke_url",
        "",
        "The service's revocation endpoint, where it has one",
    ),
    open(
        "services.<name>.api_url",
        "",
        "What stands before the vendor's own API paths, for instance `https://gmail.googleapis.com`",
    ),
    open(
        "services.gmail.quota",
        "2026",
        "Gmail's quota table: `2026`, `legacy`, `off` (no budget), or for instance `get=20,threads_get=40,list=5,history=2,profile=1,user_minute=6000`",
    ),
    open(
        "sync.max_concurrent_runs",
        "4",
        "Sync runs that one worker executes at the same time, 1 to 64",
    ),
    open(
        "sync.fetch_concurrency",
        "8",
        "Messages of one mailbox that are fetched at the same time, 1 to 10",
    ),
    open(
        "sync.max_attempts",
        "10",
        "Failures of the worker after which a run is parked in the dead letters, 1 to 100",
    ),
    open(
        "events.retention_days",
        "30",
        "Days for which DNA-analysis events are kept, 1 to 3650",
    ),
    open(
        "telemetry.format",
        "auto",
        "Log format: `text`, `json` (Cloud Logging), or `auto`: text on a terminal, else JSON",
    ),
    open(
        "telemetry.filter",
        "info",
        "What is logged, in the syntax of tracing's EnvFilter, for instance `info,nucleus::sync=debug`",
    ),
    open(
        "telemetry.otlp_endpoint",
        "",
        "OpenTelemetry collector that traces are sent to, in OTLP over HTTP, for instance `http://127.0.0.1:4318`. Default: `OTEL_EXPORTER_OTLP_ENDPOINT`; without either there are no traces",
    ),
];
