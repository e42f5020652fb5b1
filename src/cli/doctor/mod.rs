//! `nucleus doctor`: whether each part is well, and how what is not is mended. It works beside a running
//! `up` and changes nothing: no folder, key or schema is made, no grant is touched, and of rows only those
//! in the audit log are made that say which credentials were read. With `--create` it makes the broker's
//! topics and subscriptions that are missing, which is written down too.

mod broker;
mod database;
mod folder;
mod reachable;
mod report;
mod secrets;
mod service;
mod stuck;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use crate::{
    config::{Config, ConfigErrors, Problem},
    connectors::ApiClient,
    db::DbError,
    domain::errors,
    oauth::endpoint::TokenEndpoint,
    telemetry,
};
pub use report::PARTS;
use report::{Check, Report};

/// A part that has not answered after so long does not.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where people learn what can be set.
const CONFIGURE: &str = "correct it: the README's section Configuration names every setting";

/// How to look.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Make the topics and subscriptions that are missing.
    #[arg(long)]
    create: bool,
}

/// Looks at everything. An error if something does not work.
pub async fn doctor(
    file: Option<&Path>,
    data_dir: Option<PathBuf>,
    args: DoctorArgs,
) -> anyhow::Result<()> {
    let mut report = Report::new(args.json);
    let (config, warnings) = match Config::from_environment(file, data_dir) {
        Ok(read) => read,
        Err(mistakes) => return Err(unusable(report, mistakes)),
    };
    telemetry::init(&config.telemetry, None)?;
    if warnings.is_empty() {
        report.add(Check::ok("configuration", "valid"));
    }
    for warning in warnings {
        report.add(Check::warn("configuration", warning, CONFIGURE));
    }
    report.add(folder::data_dir(&config.data_dir));
    report.add(folder::disk(&config));
    let (is_locked, lock) = folder::lock(&config.data_dir);
    report.add(lock);

    let db = database::open(&mut report, &config).await;
    let usable = match &db {
        Ok(db) => database::schema(&mut report, db).await,
        Err(reason) => {
            skip_all(&mut report, &["schema", "integrity"], reason);
            Err(*reason)
        }
    };
    let (secrets, check) = secrets::look(&config).await;
    report.add(check);
    match usable {
        Ok(db) => {
            report.add(database::credentials(db, secrets).await);
            report.add(database::operator_key(db, &config).await);
        }
        Err(reason) => skip_all(&mut report, &["credentials", "operator_key"], reason),
    }

    let create = args.create.then_some(usable);
    broker::all(&mut report, &config.queue.kind, create).await;
    report.add(reachable::collector(config.telemetry.otlp_endpoint.as_ref()).await);
    let client = ApiClient::new()?;
    report.add(reachable::api(&client, &config, is_locked).await);
    report.add(reachable::public_url(&client, &config).await);
    match usable {
        Ok(db) => stuck::all(&mut report, db, is_locked).await,
        Err(reason) => skip_all(&mut report, stuck::NAMES, reason),
    }

    let look = service::Look {
        client: &client,
        endpoint: TokenEndpoint::new().map_err(|error| errors::chain(&error)),
        public_url: config.http.public_url_at(config.http.listen),
        is_any_configured: reachable::is_any_configured(&config),
    };
    for (&name, service) in &config.services {
        look.at(&mut report, name, service).await;
    }
    if let Ok(db) = usable {
        report.add(database::clock(db).await);
    }
    if let Ok(db) = db {
        // SQLite removes the files it keeps beside an open database.
        let _left_to_the_next = answered(db.close()).await;
    }
    report.finish()
}

/// The mistakes, in the object too; people read them where every command tells them.
fn unusable(mut report: Report, mistakes: ConfigErrors) -> anyhow::Error {
    if report.is_json() {
        for Problem { name, problem } in &mistakes.0 {
            let detail = format!("{name} {problem}");
            report.add(Check::fail("configuration", detail, CONFIGURE));
        }
        // What it says is said by the mistakes.
        let _failed = report.finish();
    }
    mistakes.into()
}

fn skip_all(report: &mut Report, names: &[&'static str], reason: &str) {
    for name in names {
        report.add(Check::skip(name, reason));
    }
}

/// The answer of a database in time, or why there is none.
async fn answered<T>(work: impl Future<Output = Result<T, DbError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(|error| errors::chain(&error)),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}
