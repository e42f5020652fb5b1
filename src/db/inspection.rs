//! What is asked of a database by somebody who looks whether it is well. Nothing is changed: no file,
//! schema or journal is made, and no row is written.

use std::{path::PathBuf, str::FromStr};

use chrono::{DateTime, Utc};
use sea_orm::{Database, FromQueryResult};
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, DbError, Sql, now_ms, options, sqlite_options};

/// One for what reads and one for [`can_begin`].
const CONNECTIONS: u32 = 2;
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
}

#[derive(FromQueryResult)]
struct Finding {
    quick_check: String,
}

impl Db {
    /// Connects to a database as it is. What is not there is an error.
    pub async fn connect_to_look(url: &str) -> Result<Self, DbError> {
        let mut options = options(url, CONNECTIONS);
        options.map_sqlx_sqlite_opts(|sqlite| sqlite_options(sqlite).create_if_missing(false));
        let pool = Database::connect(options).await?;
        Ok(Self {
            readers: pool.clone(),
            writers: pool,
            is_relayed: false,
        })
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
    let statement = match db.is_postgres() {
        true => {
            "SELECT current_setting('server_version') AS version,
                current_setting('server_version_num')::int AS version_number,
                current_setting('synchronous_commit') AS synchronous_commit,
                current_setting('fsync') AS fsync,
                current_setting('transaction_read_only') AS transaction_read_only"
        }
        false => {
            "SELECT sqlite_version() AS version, journal_mode, synchronous,
                page_count * page_size AS bytes
             FROM pragma_journal_mode, pragma_synchronous, pragma_page_count, pragma_page_size"
        }
    };
    let statement = Sql::new(statement, []);
    let conn = db.reader();
    Ok(match db.is_postgres() {
        true => Facts::Postgres(statement.one(conn).await?.ok_or(DbError::NotFound)?),
        false => Facts::Sqlite(statement.one(conn).await?.ok_or(DbError::NotFound)?),
    })
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
