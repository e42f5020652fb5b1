//! What is asked of a database by somebody who looks whether it is well. Nothing is changed: no file,
//! schema or journal is made, and no row is written.

use std::{path::PathBuf, str::FromStr};

use chrono::{DateTime, Utc};
use sea_orm::{DatabaseConnection, FromQueryResult};
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, DbError, Sql, now_ms};

/// The oldest PostgreSQL whose behaviour is tested.
const OLDEST: i32 = 15;
/// So many findings of [`quick_check`] are told.
const FINDINGS: u32 = 5;

/// How a database is set up.
#[derive(Debug)]
pub enum Facts {
    /// SQLite.
    Sqlite(Sqlite),
    /// PostgreSQL.
    Postgres(Postgres),
}

/// How SQLite is set up.
#[derive(Debug, FromQueryResult)]
pub struct Sqlite {
    /// Its version.
    pub version: String,
    /// How commits are kept; the file remembers it. `wal` lets others read while one writes.
    pub journal_mode: String,
    /// When commits reach the disk: 2 (`FULL`) and above, before they are reported.
    pub synchronous: i32,
    /// The size of the file, in bytes.
    pub bytes: i64,
}

/// How PostgreSQL is set up.
#[derive(Debug, FromQueryResult)]
pub struct Postgres {
    /// Its version, as people write it.
    pub version: String,
    /// Its version as a number: 150004 is 15.4.
    pub version_number: i32,
    /// Whether a commit is on the disk when it is reported.
    pub synchronous_commit: String,
    /// Whether the disk is waited for at all.
    pub fsync: String,
    /// Whether writing is refused: it is a standby, or set up so.
    pub transaction_read_only: String,
    /// Who is connected, as SQL writes it.
    pub role: String,
    /// Connections the server takes from programs.
    pub connections: i32,
    /// Connections that programs have open.
    pub connected: i32,
}

/// Why a server cannot be relied upon.
#[derive(Debug)]
pub struct Problem {
    /// What is so.
    pub what: String,
    /// What is to be done.
    pub mend: String,
    /// Whether nothing may be kept there, rather than said aloud.
    pub refused: bool,
}

#[derive(FromQueryResult)]
struct Finding {
    quick_check: String,
}

impl Postgres {
    /// What keeps this server from being one whose commits can be relied upon.
    pub fn problem(&self) -> Option<Problem> {
        let problem = |what: String, mend: String, refused| {
            Some(Problem {
                what,
                mend,
                refused,
            })
        };
        if self.version_number < OLDEST * 10_000 {
            let what = format!("PostgreSQL {} is too old", self.version);
            return problem(what, format!("use version {OLDEST} or newer"), true);
        }
        if self.transaction_read_only == "on" {
            return problem(
                "the database takes no writes".to_owned(),
                "point NUCLEUS_DATABASE__URL to the primary, or set default_transaction_read_only off"
                    .to_owned(),
                true,
            );
        }
        // Either may lose commits that were reported, and with them mail that Gmail does not list again.
        if self.synchronous_commit == "off" {
            return problem(
                "synchronous_commit is off, so that commits can be lost".to_owned(),
                format!("run `ALTER ROLE {} SET synchronous_commit = on`", self.role),
                true,
            );
        }
        if self.fsync == "off" {
            return problem(
                "fsync is off, so that all can be lost with the machine".to_owned(),
                "set `fsync = on` in the server's configuration".to_owned(),
                false,
            );
        }
        None
    }
}

/// The file of a SQLite database; `None` where it lies elsewhere.
pub fn sqlite_file(url: &str) -> Option<PathBuf> {
    if !url.starts_with("sqlite:") || url.contains(":memory:") {
        return None;
    }
    let options = SqliteConnectOptions::from_str(url).ok()?;
    Some(options.get_filename().to_owned())
}

/// How the database is set up.
pub async fn facts(db: &Db) -> Result<Facts, DbError> {
    let conn = db.reader();
    if db.is_postgres() {
        return Ok(Facts::Postgres(postgres_facts(conn).await?));
    }
    let facts = Sql::new(
        "SELECT sqlite_version() AS version, journal_mode, synchronous,
            page_count * page_size AS bytes
         FROM pragma_journal_mode, pragma_synchronous, pragma_page_count, pragma_page_size",
        [],
    );
    Ok(Facts::Sqlite(
        facts.one(conn).await?.ok_or(DbError::NotFound)?,
    ))
}

pub(super) async fn postgres_facts(conn: &DatabaseConnection) -> Result<Postgres, DbError> {
    Sql::new(
        "SELECT current_setting('server_version') AS version,
            current_setting('server_version_num')::int AS version_number,
            current_setting('synchronous_commit') AS synchronous_commit,
            current_setting('fsync') AS fsync,
            current_setting('transaction_read_only') AS transaction_read_only,
            quote_ident(current_user) AS role,
            current_setting('max_connections')::int
                - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections,
            (SELECT count(*)::int FROM pg_stat_activity
                WHERE backend_type = 'client backend') AS connected",
        [],
    )
    .one(conn)
    .await?
    .ok_or(DbError::NotFound)
}

/// Begins a writing transaction and takes it back, so that it is known that nobody keeps others from
/// writing.
pub async fn can_begin(db: &Db) -> Result<(), DbError> {
    db.begin().await.map(drop)
}

/// What SQLite finds wrong with its file, reading all of it; nothing where it is well.
pub async fn quick_check(db: &Db) -> Result<Vec<String>, DbError> {
    let findings: Vec<Finding> = Sql::new(format!("PRAGMA quick_check({FINDINGS})"), [])
        .all(db.reader())
        .await?;
    let findings = findings.into_iter().map(|finding| finding.quick_check);
    Ok(findings.filter(|finding| finding != "ok").collect())
}

/// The time on the database's clock, by which leases run.
pub async fn clock(db: &Db) -> Result<DateTime<Utc>, DbError> {
    let conn = db.reader();
    let now: i64 = Sql::new(format!("SELECT {}", now_ms(conn)), [])
        .scalar(conn)
        .await?;
    DateTime::from_timestamp_millis(now)
        .ok_or_else(|| DbError::Schema(format!("the database's clock says {now}")))
}
