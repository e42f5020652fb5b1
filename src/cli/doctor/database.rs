//! The database: whether it answers, keeps what it commits, has the schema, and holds credentials and
//! keys that can be used.

use std::{fs::OpenOptions, sync::Arc};

use chrono::TimeDelta;
use futures_util::{StreamExt, future, stream};
use secrecy::ExposeSecret;
use tokio_util::task::TaskTracker;

use super::{
    answered,
    report::{Check, Report},
};
use crate::{
    audit::{AuditedStore, is_not_written},
    config::Config,
    db::{
        Db, DbError, Slicing, api_key,
        inspection::{self, Facts},
        integration::{self, Filter, Integration},
        schema,
    },
    domain::{Clock, IntegrationId, SystemClock, errors, sync::Scope},
    secrets::{Credentials, InvalidSecretText, SecretError, SecretStore},
};

const NAME: &str = "database";
/// Why nothing else is said of a database that does not answer.
const UNUSABLE: &str = "the database cannot be used";
/// SQLite's `FULL`: a commit is on the disk when it is reported.
const FULL: i32 = 2;
/// A larger file takes minutes to be read.
const CHECKED_BYTES: u64 = 1024 * 1024 * 1024;
/// Integrations whose credentials are read.
const CREDENTIALS: u64 = 1000;
/// Credentials that are read at the same time: Secret Manager is far away.
const AT_ONCE: usize = 16;
/// How lost credentials come back to the vault.
const COPY: &str = "put the vault's files and its key back from a copy";
/// Findings that are told one by one.
const SHOWN: usize = 5;
/// A clock that is off by more is wrong.
pub(super) const SKEW: TimeDelta = TimeDelta::seconds(60);

/// The database, or why what is in it cannot be looked at; and what is found on the way.
pub(super) async fn open(report: &mut Report, config: &Config) -> Result<Db, &'static str> {
    let (db, facts, check) = connect(config).await;
    report.add(check);
    report.add(match facts {
        Some(Facts::Postgres(facts)) => connections(&facts, config.database.max_connections),
        Some(Facts::Sqlite(_)) => Check::ok("connections", "SQLite counts none"),
        None => Check::skip("connections", UNUSABLE),
    });
    db
}

async fn connect(config: &Config) -> (Result<Db, &'static str>, Option<Facts>, Check) {
    let url = config.database.url.expose_secret();
    let file = inspection::sqlite_file(url);
    if let Some(file) = &file {
        let shown = file.display();
        if !file.exists() {
            let detail = format!("{shown} is made by the first `nucleus up`");
            let check = Check::skip(NAME, detail);
            return (Err("there is no database yet"), None, check);
        }
        if let Err(error) = OpenOptions::new().read(true).write(true).open(file) {
            let mend = format!("make {shown} and its folder writable for this user");
            let check = Check::fail(NAME, format!("{shown}: {error}"), mend);
            return (Err(UNUSABLE), None, check);
        }
    }
    let found = answered(async {
        let db = Db::connect_to_look(url).await?;
        let facts = inspection::facts(&db).await?;
        Ok((db, facts))
    });
    let (db, facts) = match found.await {
        Ok(found) => found,
        Err(reason) => {
            let mend = match file {
                Some(_) => {
                    "look whether the file is a database and its disk is well; otherwise put a copy back"
                }
                None => "start the server, or correct NUCLEUS_DATABASE__URL",
            };
            return (Err(UNUSABLE), None, Check::fail(NAME, reason, mend));
        }
    };
    let check = match answered(inspection::can_begin(&db)).await {
        Ok(()) => match &facts {
            Facts::Sqlite(facts) => sqlite(facts),
            Facts::Postgres(facts) => postgres(facts),
        },
        Err(reason) => Check::fail(
            NAME,
            format!("no transaction can begin: {reason}"),
            "find the process that keeps the database locked, and end it",
        ),
    };
    (Ok(db), Some(facts), check)
}

/// Whether one more process with a pool of `pool` connections is taken in.
fn connections(facts: &inspection::Postgres, pool: u32) -> Check {
    const NAME: &str = "connections";
    let (room, open) = (facts.connections, facts.connected);
    let detail =
        format!("{open} of {room} that the server takes are open; a process opens up to {pool}");
    let mend = "raise max_connections of the server, or lower NUCLEUS_DATABASE__MAX_CONNECTIONS: \
                processes times it must fit";
    let pool = i32::try_from(pool).unwrap_or(i32::MAX);
    if pool > room {
        return Check::fail(NAME, detail, mend);
    }
    // The one that asks is closed when it is done.
    if open - 1 > room - pool {
        return Check::warn(NAME, detail, mend);
    }
    Check::ok(NAME, detail)
}

fn sqlite(facts: &inspection::Sqlite) -> Check {
    let synchronous = match facts.synchronous {
        FULL.. => "full",
        _ => "not full",
    };
    let detail = format!(
        "SQLite {}, journal {}, synchronous {synchronous}, {} KiB",
        facts.version,
        facts.journal_mode,
        facts.bytes / 1024
    );
    if facts.synchronous < FULL {
        let mend = "remove `synchronous` from NUCLEUS_DATABASE__URL";
        return Check::fail(NAME, detail, mend);
    }
    if facts.journal_mode != "wal" {
        let mend =
            "keep it on a local disk and start `nucleus up`, which turns the write-ahead log on";
        return Check::warn(NAME, detail, mend);
    }
    Check::ok(NAME, detail)
}

fn postgres(facts: &inspection::Postgres) -> Check {
    let detail = format!(
        "PostgreSQL {}, synchronous_commit {}, fsync {}",
        facts.version, facts.synchronous_commit, facts.fsync
    );
    if let Some(problem) = facts.problem() {
        let detail = format!("{detail}; {}", problem.what);
        // As at every start: the one is refused, the other said aloud.
        return match problem.refused {
            true => Check::fail(NAME, detail, problem.mend),
            false => Check::warn(NAME, detail, problem.mend),
        };
    }
    Check::ok(NAME, detail)
}

/// Adds how schema and file are; gives the database if what is in it can be read, or why not.
pub(super) async fn schema<'a>(report: &mut Report, db: &'a Db) -> Result<&'a Db, &'static str> {
    const NAME: &str = "schema";
    let (usable, check) = match answered(schema::status(db)).await {
        Err(reason) => {
            let mend = "look whether the database is nucleus' own; otherwise put a copy back";
            (Err(UNUSABLE), Check::fail(NAME, reason, mend))
        }
        Ok(status) => match status.check() {
            Ok(()) => {
                let newest = status.applied.last().map_or("", String::as_str);
                (Ok(db), Check::ok(NAME, format!("current, {newest}")))
            }
            Err(error) => (
                Err("the schema is another"),
                Check::fail_as_told(NAME, &error.to_string()),
            ),
        },
    };
    report.add(check);
    report.add(integrity(db).await);
    usable
}

async fn integrity(db: &Db) -> Check {
    const NAME: &str = "integrity";
    let bytes = match answered(inspection::facts(db)).await {
        Ok(Facts::Sqlite(facts)) => u64::try_from(facts.bytes).unwrap_or_default(),
        Ok(Facts::Postgres(_)) => return Check::skip(NAME, "PostgreSQL looks after its own"),
        Err(reason) => return Check::skip(NAME, reason),
    };
    if bytes > CHECKED_BYTES {
        let detail =
            "the file is larger than 1 GiB: `PRAGMA quick_check` of `sqlite3` reads it all";
        return Check::skip(NAME, detail);
    }
    let mend = "stop nucleus and put a copy of the database back";
    match answered(inspection::quick_check(db)).await {
        Ok(findings) if findings.is_empty() => Check::ok(NAME, "quick_check finds nothing"),
        Ok(findings) => Check::fail(NAME, findings.join("; "), mend),
        Err(reason) => Check::fail(NAME, reason, mend),
    }
}

/// Whether the credentials that rows name can be read; that they are is written down.
pub(super) async fn credentials(db: &Db, secrets: Option<Arc<dyn SecretStore>>) -> Check {
    const NAME: &str = "credentials";
    let slicing = Slicing {
        after: None,
        limit: CREDENTIALS,
    };
    let filter = Filter::default();
    let found = match answered(integration::list(db, Scope::Operator, &filter, slicing)).await {
        Ok(found) => found,
        Err(reason) => return Check::skip(NAME, reason),
    };
    let rows = found.items.len();
    let Some(secrets) = secrets else {
        return match rows {
            0 => Check::skip(NAME, "nothing is connected"),
            _ => Check::fail(
                NAME,
                format!("{rows} integrations name credentials in a store that cannot be read"),
                format!("{COPY}, make Secret Manager answer, or connect the accounts again"),
            ),
        };
    };
    let tasks = TaskTracker::new();
    let secrets = AuditedStore::new(secrets, db.clone(), Arc::new(SystemClock), tasks);
    let reading = found.items.iter().map(async |row| {
        let error = readable(db, &secrets, row).await.err()?;
        Some((row.id, error))
    });
    let failed: Vec<(IntegrationId, SecretError)> = stream::iter(reading)
        .buffered(AT_ONCE)
        .filter_map(future::ready)
        .collect()
        .await;
    if let Some((_, error)) = failed.iter().find(|(_, error)| is_not_written(error)) {
        let detail = format!(
            "without a row in the audit log none are read: {}",
            errors::chain(error)
        );
        return Check::skip(NAME, detail);
    }
    let mut unreadable: Vec<String> = failed
        .iter()
        .map(|(id, error)| format!("those of integration {id}: {}", error.outline()))
        .collect();
    let more = match found.more {
        true => ", of more",
        false => "",
    };
    if unreadable.is_empty() {
        return Check::ok(
            NAME,
            format!("those of {rows} integrations can be read{more}"),
        );
    }
    let count = unreadable.len();
    unreadable.truncate(SHOWN);
    Check::fail(
        NAME,
        format!(
            "{count} of {rows} cannot be read{more}; {}",
            unreadable.join("; ")
        ),
        format!("{COPY}, or connect the accounts again"),
    )
}

async fn readable(
    db: &Db,
    secrets: &dyn SecretStore,
    row: &Integration,
) -> Result<(), SecretError> {
    match read(secrets, row).await {
        // A refresh may have pinned another version since the row was read.
        Err(SecretError::Missing(_)) => {
            match integration::find(db, Scope::Operator, row.id).await {
                Ok(again) => read(secrets, &again).await,
                Err(DbError::NotFound) => Ok(()),
                Err(error) => Err(SecretError::Unavailable {
                    doing: "reading the integration again".to_owned(),
                    source: Box::new(error),
                }),
            }
        }
        result => result,
    }
}

async fn read(secrets: &dyn SecretStore, row: &Integration) -> Result<(), SecretError> {
    let Some(path) = &row.secret_path else {
        return Ok(());
    };
    let path = path
        .parse()
        .map_err(|error: InvalidSecretText| SecretError::from(error))?;
    Credentials::open(&secrets.get(&path).await?).map(drop)
}

/// Whether the operator can call the API.
pub(super) async fn operator_key(db: &Db, config: &Config) -> Check {
    const NAME: &str = "operator_key";
    if config.http.operator_key.is_some() {
        return Check::ok(NAME, "NUCLEUS_HTTP__OPERATOR_KEY is set");
    }
    match answered(api_key::has_operator_key(db)).await {
        Ok(true) => Check::ok(NAME, "there is one"),
        Ok(false) => Check::warn(
            NAME,
            "there is none, and `serve` does not start without",
            "run `nucleus key create --operator`; `nucleus up` makes one when it starts",
        ),
        Err(reason) => Check::skip(NAME, reason),
    }
}

/// Whether the database's clock, by which leases run, is this machine's. SQLite has no other.
pub(super) async fn clock(db: &Db) -> Check {
    if !db.is_postgres() {
        return Check::skip("clock", "SQLite has this machine's");
    }
    match answered(inspection::clock(db)).await {
        Ok(theirs) => skew("the database", theirs - SystemClock.now()),
        Err(reason) => Check::skip("clock", reason),
    }
}

/// How a clock that is `ahead` of this machine's is judged.
pub(super) fn skew(whose: &str, ahead: TimeDelta) -> Check {
    let seconds = ahead.num_seconds();
    if ahead.abs() <= SKEW {
        return Check::ok("clock", format!("{seconds} s off that of {whose}"));
    }
    let word = match seconds > 0 {
        true => "behind",
        false => "ahead of",
    };
    Check::warn(
        "clock",
        format!("{} s {word} that of {whose}", seconds.abs()),
        "let the machine set its clock by the network, for instance with `timedatectl set-ntp true`",
    )
}
