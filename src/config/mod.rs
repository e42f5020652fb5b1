//! The configuration, and the only reader of the environment.
//!
//! Defaults, then `nucleus.toml`, then `NUCLEUS_*` variables with `__` between levels. Each value is
//! parsed by its field's type and every mistake is reported at once, by name, before anything
//! starts. It must not open, connect or create anything.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{SecretBox, SecretString};
use url::Url;

use crate::domain::{QuotaTable, ServiceName};

mod http;
mod keys;
mod reader;
mod sections;

pub use keys::{KEYS, Key};
use reader::Reader;

/// Read from the working folder where no other file is named.
pub const DEFAULT_FILE: &str = "nucleus.toml";
/// Shortest operator key, in characters.
pub const OPERATOR_KEY_MIN_CHARS: usize = 32;

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// Folder for the database, the vault and the lock.
    pub data_dir: PathBuf,
    /// The API.
    pub http: Http,
    /// The database.
    pub database: Database,
    /// Where messages go.
    pub queue: Queue,
    /// Where credentials are kept.
    pub secrets: Secrets,
    /// What is known of each service; every service has an entry.
    pub services: BTreeMap<ServiceName, Service>,
    /// How sync runs are executed.
    pub sync: Sync,
    /// How long events are kept.
    pub events: Events,
    /// What is logged, and how.
    pub telemetry: Telemetry,
}

/// The API's settings.
#[derive(Debug)]
pub struct Http {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How browsers reach the API, where it was given.
    pub public_url: Option<Url>,
    /// The operator's key, at least [`OPERATOR_KEY_MIN_CHARS`] characters.
    pub operator_key: Option<SecretString>,
    /// Origins (`https://app.example`) to which an OAuth flow may send the browser back.
    pub return_to: Vec<String>,
    /// Longest request body, in bytes.
    pub body_limit_bytes: usize,
    /// How many requests who may send.
    pub rate_limits: RateLimits,
    /// Proxies in front of the API that add the address of their client to `X-Forwarded-For`.
    pub trusted_proxies: usize,
}

/// Requests a minute; none where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// With one key of an entity.
    pub per_key: Option<NonZeroU32>,
    /// Without a key, from one address.
    pub per_address: Option<NonZeroU32>,
    /// With a key that is none, from one address.
    pub failures_per_address: Option<NonZeroU32>,
}

impl Http {
    /// How browsers reach the API, without a slash at the end; `bound` is the address that was
    /// bound, which differs from `listen` where that asked for a free port.
    pub fn public_url_at(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{bound}"),
        }
    }
}

/// The database's settings.
#[derive(Debug)]
pub struct Database {
    /// `sqlite:…` or `postgres://…`; secret because of the password in the latter.
    pub url: SecretString,
    /// Connections of one process.
    pub max_connections: u32,
    /// How long a connection is waited for.
    pub acquire_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long another's lock is waited for.
    pub lock_timeout: Duration,
    /// How long a transaction may stand still.
    pub idle_in_transaction_timeout: Duration,
}

/// The queue's settings.
#[derive(Debug)]
pub struct Queue {
    /// Which queue.
    pub kind: QueueKind,
}

/// The queues that this build has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueKind {
    /// The outbox table itself.
    Embedded,
    /// Google Cloud Pub/Sub.
    PubSub {
        /// The project of the topics and subscriptions.
        project_id: String,
        /// `http://host:port` of an emulator, which asks for no credentials; absent for Google's own.
        emulator: Option<String>,
    },
}

/// The secret store's settings.
#[derive(Debug)]
pub struct Secrets {
    /// Which secret store.
    pub kind: SecretsKind,
    /// The vault's key, decoded.
    pub vault_key: Option<SecretBox<[u8; 32]>>,
    /// The key before it, while the vault is given another.
    pub previous_vault_key: Option<SecretBox<[u8; 32]>>,
}

/// The secret stores that this build has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsKind {
    /// A folder of sealed files.
    Vault,
    /// Google Cloud Secret Manager.
    Gcp {
        /// The project of the secrets.
        project_id: String,
        /// In place of Google's own endpoint; plain http on this machine only.
        endpoint: Option<Url>,
        /// The regions of a new secret's copies; none leaves the choice to Google.
        locations: Vec<String>,
    },
}

/// What is known of one service: the registered client and the endpoints.
#[derive(Debug, Clone)]
pub struct Service {
    /// The OAuth client registered with the service.
    pub client_id: Option<String>,
    /// Its secret; public clients have none.
    pub client_secret: Option<SecretString>,
    /// The authorization endpoint.
    pub authorize_url: Url,
    /// The token endpoint.
    pub token_url: Url,
    /// The revocation endpoint, where the service has one.
    pub revoke_url: Option<Url>,
    /// What stands before the vendor's own API paths.
    pub api_url: Url,
    /// Gmail's quota table; of no meaning for the others.
    pub quota: QuotaTable,
}

/// How sync runs are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sync {
    /// Runs that one worker executes at the same time.
    pub max_concurrent_runs: usize,
    /// Messages of one mailbox that are fetched at the same time, up to
    /// [`MAX_FETCH_CONCURRENCY`](crate::domain::MAX_FETCH_CONCURRENCY).
    pub fetch_concurrency: usize,
    /// Failures of the worker after which a run is parked.
    pub max_attempts: u32,
}

/// How long events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// In days.
    pub retention_days: u32,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The shape of a line.
    pub format: LogFormat,
    /// What is logged, in the syntax of tracing's `EnvFilter`; checked.
    pub filter: String,
    /// Where traces are sent, in OTLP over HTTP; without it there are none.
    pub otlp_endpoint: Option<Url>,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For Cloud Logging.
    Json,
}

/// One mistake, under the name a person has to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `NUCLEUS_HTTP__LISTEN`, or `http.listen in nucleus.toml`.
    pub name: String,
    /// What is wrong and how to mend it; never a secret's value.
    pub problem: String,
}

/// Every mistake in the configuration; at least one.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<Problem>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        for Problem { name, problem } in &self.0 {
            write!(f, "\n  {name} {problem}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads `file`, if any, and the variables in `environment`, which win; `data_dir` wins over
    /// both. Gives the warnings too: they are for the log once that is set up.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        data_dir: Option<PathBuf>,
    ) -> Result<(Self, Vec<String>), ConfigErrors> {
        let mut reader = Reader::new(file, environment);
        let config = sections::config(&mut reader, data_dir);
        reader.finish(config)
    }

    /// Reads the process's environment and `file`, or [`DEFAULT_FILE`] where that is in the working
    /// folder.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_environment(
        file: Option<&Path>,
        data_dir: Option<PathBuf>,
    ) -> Result<(Self, Vec<String>), ConfigErrors> {
        let default_file = Path::new(DEFAULT_FILE);
        let file = match file {
            None if default_file.exists() => Some(default_file),
            given => given,
        };
        Self::load(file, std::env::vars_os(), data_dir)
    }
}

#[cfg(test)]
mod tests;
