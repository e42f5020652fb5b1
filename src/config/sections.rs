//! What each section means: its types, limits and the defaults that depend on other settings.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use tracing_subscriber::EnvFilter;
use url::Url;
use zeroize::Zeroizing;

use super::{
    Config, Database, Events, LogFormat, Queue, QueueKind, Secrets, SecretsKind, Service, Sync,
    Telemetry,
    http::http,
    reader::{Noted, Reader},
};
use crate::{
    domain::{MAX_FETCH_CONCURRENCY, QuotaTable, ServiceName, address::is_loopback},
    providers,
};

/// The replication of a secret whose places Google chooses.
const AUTOMATIC: &str = "automatic";

/// Reads every section, so that the problems of all are noted, and gives them if all are right.
pub(super) fn config(reader: &mut Reader, data_dir: Option<PathBuf>) -> Result<Config, Noted> {
    let data_dir = self::data_dir(reader, data_dir);
    let http = http(reader);
    let database = database(reader, data_dir.as_ref().ok());
    let queue = queue(reader);
    let secrets = secrets(reader);
    let mut services = BTreeMap::new();
    let mut all_services = Ok(());
    for name in ServiceName::ALL {
        match service(reader, name) {
            Ok(service) => {
                services.insert(name, service);
            }
            Err(noted) => all_services = Err(noted),
        }
    }
    let sync = sync(reader);
    let retention_days = reader.value("events.retention_days", |text| between(text, 1, 3650));
    let telemetry = telemetry(reader);
    all_services?;
    Ok(Config {
        data_dir: data_dir?,
        http: http?,
        database: database?,
        queue: queue?,
        secrets: secrets?,
        services,
        sync: sync?,
        events: Events {
            retention_days: retention_days?,
        },
        telemetry: telemetry?,
    })
}

fn data_dir(reader: &mut Reader, wanted: Option<PathBuf>) -> Result<PathBuf, Noted> {
    let given = reader.optional("data_dir", |text| {
        if text == "~" || text.starts_with("~/") {
            return Err("begins with ~, which only a shell understands: write the path out");
        }
        Ok(PathBuf::from(text))
    })?;
    if let Some(folder) = wanted.or(given) {
        return Ok(folder);
    }
    // The XDG base directory specification says to ignore relative paths:
    // <https://specifications.freedesktop.org/basedir-spec/latest/>
    let shared = reader.platform("XDG_DATA_HOME").map(PathBuf::from);
    if let Some(folder) = shared.filter(|folder| folder.is_absolute()) {
        return Ok(folder.join("nucleus"));
    }
    let home = reader.platform("HOME").map(PathBuf::from);
    match home.filter(|folder| folder.is_absolute()) {
        Some(folder) => Ok(folder.join(".local/share/nucleus")),
        None => Ok(PathBuf::from("nucleus-data")),
    }
}

fn database(reader: &mut Reader, data_dir: Option<&PathBuf>) -> Result<Database, Noted> {
    let given = reader.optional("database.url", database_url);
    let max_connections = reader.value("database.max_connections", |text| between(text, 1, 1000));
    let mut seconds = |name: &str, most: u64| {
        let read = |text: &str| between(text, 1, most).map(Duration::from_secs);
        reader.value(&format!("database.{name}_seconds"), read)
    };
    let acquire_timeout = seconds("acquire", 300);
    let statement_timeout = seconds("statement", 3600);
    let lock_timeout = seconds("lock", 300);
    let idle_in_transaction_timeout = seconds("idle_in_transaction", 300);
    if let Ok(Some(url)) = &given
        && is_readable_on_the_way(url.expose_secret())
    {
        reader.warn(
            "NUCLEUS_DATABASE__URL names another machine without sslmode: what is read and written \
             may go there in the clear; `?sslmode=verify-full` refuses that, with the server's own \
             authority by `&sslrootcert=FILE`"
                .to_owned(),
        );
    }
    let url = match given? {
        Some(url) => url,
        None => {
            let file = data_dir.ok_or(Noted)?.join("nucleus.db");
            let Some(path) = file.to_str() else {
                let problem = "is not valid UTF-8, which the database's URL cannot carry";
                return Err(reader.refuse_setting("data_dir", problem));
            };
            // The database's driver decodes percent signs and cuts at the question mark.
            let path = path.replace('%', "%25").replace('?', "%3F");
            SecretString::from(format!("sqlite:{path}"))
        }
    };
    Ok(Database {
        url,
        max_connections: max_connections?,
        acquire_timeout: acquire_timeout?,
        statement_timeout: statement_timeout?,
        lock_timeout: lock_timeout?,
        idle_in_transaction_timeout: idle_in_transaction_timeout?,
    })
}

/// A database's URL as its driver reads it. PostgreSQL's own tools take one without a host, and so do
/// Cloud SQL's examples; a URL with a user needs one, which `host=` in the query then replaces.
fn database_url(text: &str) -> Result<SecretString, &'static str> {
    // The rest may hold a password, so it is not shown.
    let problem = "is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST/NAME";
    let (scheme, rest) = text.split_once(':').ok_or(problem)?;
    match scheme {
        "sqlite" if !rest.is_empty() => return Ok(SecretString::from(text)),
        "postgres" | "postgresql" => {}
        _ => return Err(problem),
    }
    let rest = rest.strip_prefix("//").ok_or(problem)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.is_empty() || authority.ends_with('@') {
        true => "localhost",
        false => "",
    };
    let url = format!("postgres://{authority}{host}{path}");
    match Url::parse(&url) {
        Ok(_) => Ok(SecretString::from(url)),
        Err(_) => Err(problem),
    }
}

/// Whether a PostgreSQL server is another machine that is spoken to without saying how.
fn is_readable_on_the_way(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let named = |wanted: &str| {
        let mut pairs = url.query_pairs();
        let pair = pairs.find(|(name, _)| name == wanted);
        pair.map(|(_, value)| value.into_owned())
    };
    let host = named("host").or_else(|| url.host_str().map(str::to_owned));
    let Some(host) = host.filter(|_| url.scheme() == "postgres") else {
        return false;
    };
    let is_socket = host.starts_with('/') || host.starts_with("%2F");
    let is_loopback = matches!(host.as_str(), "localhost" | "::1" | "[::1]");
    let is_here = is_socket || is_loopback || host.starts_with("127.");
    !is_here && named("sslmode").is_none() && named("ssl-mode").is_none()
}

fn queue(reader: &mut Reader) -> Result<Queue, Noted> {
    let is_pubsub = reader.value("queue.kind", |text| {
        one_of(text, &[("embedded", false), ("pubsub", true)])
    });
    let project_id = reader.optional("queue.project_id", project_id);
    let emulator = reader.platform("PUBSUB_EMULATOR_HOST").map(str::to_owned);
    let (is_pubsub, project_id) = (is_pubsub?, project_id?);
    if !is_pubsub {
        return Ok(Queue {
            kind: QueueKind::Embedded,
        });
    }
    let Some(project_id) = project_id else {
        let problem = "is not set: `pubsub` needs the id of the Google Cloud project";
        return Err(reader.refuse_setting("queue.project_id", problem));
    };
    let emulator = match emulator {
        Some(host) => Some(emulator_url(reader, &host)?),
        None => None,
    };
    Ok(Queue {
        kind: QueueKind::PubSub {
            project_id,
            emulator,
        },
    })
}

/// An id of a project, as Google makes them:
/// <https://cloud.google.com/resource-manager/docs/creating-managing-projects>
fn project_id(text: &str) -> Result<String, String> {
    let well_formed = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !(6..=30).contains(&text.len()) || !well_formed {
        return Err(format!(
            "is {text:?}, not the id of a project: 6 to 30 lower-case letters, digits and hyphens"
        ));
    }
    Ok(text.to_owned())
}

/// The emulator's address from the `host:port` that Google's own tools take.
fn emulator_url(reader: &mut Reader, host: &str) -> Result<String, Noted> {
    let url = format!("http://{host}");
    let parsed = Url::parse(&url).ok();
    if parsed.is_some_and(|url| url.has_host() && url.path() == "/" && url.port().is_some()) {
        return Ok(url);
    }
    let problem = format!("is {host:?}, not host:port such as 127.0.0.1:8085");
    Err(reader.refuse("PUBSUB_EMULATOR_HOST", problem))
}

fn secrets(reader: &mut Reader) -> Result<Secrets, Noted> {
    let is_gcp = reader.value("secrets.kind", |text| {
        one_of(text, &[("vault", false), ("gcp", true)])
    });
    let project_id = reader.optional("secrets.project_id", project_id);
    let endpoint = endpoint(reader, "secrets.endpoint", None);
    let locations = reader.list("secrets.replication", location);
    let vault_key = reader.optional("secrets.vault_key", self::vault_key);
    let previous_vault_key = reader.optional("secrets.previous_vault_key", self::vault_key);
    let (is_gcp, project_id, endpoint) = (is_gcp?, project_id?, endpoint?);
    let (locations, vault_key) = (locations?, vault_key?);
    let previous_vault_key = previous_vault_key?;
    if previous_vault_key.is_some() && vault_key.is_none() {
        let key = super::keys::variable("secrets.vault_key");
        let problem = format!("is given without the key that takes its place: set {key} too");
        return Err(reader.refuse_setting("secrets.previous_vault_key", problem));
    }
    if !is_gcp {
        // Credentials would lie on a disk that goes with its container.
        for name in ["project_id", "endpoint", "replication"].map(|name| format!("secrets.{name}"))
        {
            if reader.is_given(&name) {
                let kind = super::keys::variable("secrets.kind");
                let problem = format!("is for `gcp` alone: set {kind} to gcp, or leave it out");
                return Err(reader.refuse_setting(&name, problem));
            }
        }
        return Ok(Secrets {
            kind: SecretsKind::Vault,
            vault_key,
            previous_vault_key,
        });
    }
    if vault_key.is_some() {
        reader.warn(
            "NUCLEUS_SECRETS__VAULT_KEY is not used: credentials are kept in Secret Manager"
                .to_owned(),
        );
    }
    let Some(project_id) = project_id else {
        let problem = "is not set: `gcp` needs the id of the Google Cloud project";
        return Err(reader.refuse_setting("secrets.project_id", problem));
    };
    let kind = SecretsKind::Gcp {
        project_id,
        endpoint,
        locations: replication(reader, locations)?,
    };
    Ok(Secrets {
        kind,
        vault_key,
        previous_vault_key,
    })
}

/// The regions of `automatic,europe-west1` and the like, which is one or the other.
fn replication(reader: &mut Reader, mut given: Vec<String>) -> Result<Vec<String>, Noted> {
    let name = "secrets.replication";
    if given.iter().any(|place| place == AUTOMATIC) {
        if given.len() > 1 {
            let problem = "names regions beside `automatic`: give one or the other";
            return Err(reader.refuse_setting(name, problem));
        }
        return Ok(Vec::new());
    }
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    if given.len() < count {
        return Err(reader.refuse_setting(name, "names a region twice"));
    }
    Ok(given)
}

/// A region as Google names them, or `automatic`:
/// <https://cloud.google.com/secret-manager/docs/locations>
fn location(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_region = text.contains('-') && text.ends_with(|last: char| last.is_ascii_digit());
    if text.bytes().all(allowed) && (text == AUTOMATIC || is_region) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "names {text:?}, which is neither `{AUTOMATIC}` nor a region such as europe-west1"
    ))
}

fn vault_key(text: &str) -> Result<SecretBox<[u8; 32]>, &'static str> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let problem = "is not base64 of 32 bytes: `openssl rand -base64 32` makes one";
    let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(text.trim());
    let bytes = Zeroizing::new(decoded.map_err(|_| problem)?);
    let mut key = Box::new([0_u8; 32]);
    if bytes.len() != key.len() {
        return Err(problem);
    }
    key.copy_from_slice(&bytes);
    Ok(SecretBox::new(key))
}

fn service(reader: &mut Reader, name: ServiceName) -> Result<Service, Noted> {
    let key = |field: &str| format!("services.{name}.{field}");
    let client_id = reader.optional(&key("client_id"), |text| Ok::<_, String>(text.to_owned()));
    let client_secret = reader.optional(&key("client_secret"), |text| {
        Ok::<_, String>(SecretString::from(text))
    });
    let vendor = providers::of(name).endpoints;
    let authorize_url = endpoint(reader, &key("authorize_url"), Some(vendor.authorize));
    let token_url = endpoint(reader, &key("token_url"), Some(vendor.token));
    let revoke_url = endpoint(reader, &key("revoke_url"), vendor.revoke);
    let api_url = endpoint(reader, &key("api_url"), Some(vendor.api));
    let quota = match name {
        ServiceName::Gmail => reader.value(&key("quota"), QuotaTable::from_str),
        _ => Ok(QuotaTable::OFF),
    };
    let client_id = client_id?;
    let client_secret = client_secret?;
    if client_secret.is_some() && client_id.is_none() {
        let missing = super::keys::variable(&key("client_id"));
        let problem = format!("is given without its client: set {missing} too");
        return Err(reader.refuse_setting(&key("client_secret"), problem));
    }
    Ok(Service {
        client_id,
        client_secret,
        authorize_url: authorize_url?.ok_or(Noted)?,
        token_url: token_url?.ok_or(Noted)?,
        revoke_url: revoke_url?,
        api_url: api_url?.ok_or(Noted)?,
        quota: quota?,
    })
}

/// The URL given for a service's endpoint, else the vendor's.
fn endpoint(
    reader: &mut Reader,
    name: &str,
    vendor: Option<&'static str>,
) -> Result<Option<Url>, Noted> {
    let given = reader.optional(name, |text| {
        let url = web_url(text)?;
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err("is plain http to another machine: use https".to_owned());
        }
        Ok(url)
    })?;
    match (given, vendor) {
        (Some(url), _) => Ok(Some(url)),
        (None, None) => Ok(None),
        (None, Some(text)) => match Url::parse(text) {
            Ok(url) => Ok(Some(url)),
            Err(error) => Err(reader.refuse_setting(name, error)),
        },
    }
}

/// An http or https URL without user name, password, query and fragment.
pub(super) fn web_url(text: &str) -> Result<Url, String> {
    // What does not parse may hold a password, so it is not shown.
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "begins with {}:, not http: or https:",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("carries a user name or password: leave them out".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment: leave it out".to_owned());
    }
    Ok(url)
}

fn sync(reader: &mut Reader) -> Result<Sync, Noted> {
    let max_concurrent_runs = reader.value("sync.max_concurrent_runs", |text| between(text, 1, 64));
    let fetch_concurrency = reader.value("sync.fetch_concurrency", |text| {
        between(text, 1, MAX_FETCH_CONCURRENCY)
    });
    let max_attempts = reader.value("sync.max_attempts", |text| between(text, 1, 100));
    Ok(Sync {
        max_concurrent_runs: max_concurrent_runs?,
        fetch_concurrency: fetch_concurrency?,
        max_attempts: max_attempts?,
    })
}

fn telemetry(reader: &mut Reader) -> Result<Telemetry, Noted> {
    let format = reader.value("telemetry.format", |text| {
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ];
        one_of(text, &formats)
    });
    let filter = reader.value("telemetry.filter", |text| {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("is {text:?}, not a log filter: {error}")),
        }
    });
    let otlp_endpoint = otlp_endpoint(reader);
    Ok(Telemetry {
        format: format?,
        filter: filter?,
        otlp_endpoint: otlp_endpoint?,
    })
}

/// The program's own setting, or the variable that every OpenTelemetry exporter reads:
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
fn otlp_endpoint(reader: &mut Reader) -> Result<Option<Url>, Noted> {
    const STANDARD: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    if let Some(url) = reader.optional("telemetry.otlp_endpoint", web_url)? {
        return Ok(Some(url));
    }
    let Some(text) = reader.platform(STANDARD).map(str::to_owned) else {
        return Ok(None);
    };
    match web_url(&text) {
        Ok(url) => Ok(Some(url)),
        Err(problem) => Err(reader.refuse(STANDARD, problem)),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn between<T: FromStr + PartialOrd + Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    match text.trim().parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!(
            "is {text:?}, not a whole number from {least} to {most}"
        )),
    }
}

/// The value that goes with the word.
fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    for (word, value) in known {
        if *word == text {
            return Ok(*value);
        }
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let words = words.join(", ");
    Err(format!("is {text:?}; this build knows {words}"))
}
