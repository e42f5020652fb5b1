//! The database: SQLite or PostgreSQL behind one set of statements, one file a table.
//!
//! SeaORM and sqlx are used here and in the migrations, nowhere else. Work is claimed by conditional
//! updates and the number of rows they changed, never by row locks, which SQLite does not have.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    DbErr, SqlErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use uuid::Uuid;

pub mod api_key;
pub mod dead_letter;
pub mod entity;
pub mod former_integration;
pub mod gap;
pub mod idempotency_key;
pub mod imported;
pub mod inspection;
pub mod integration;
pub mod metric_total;
pub mod oauth_session;
pub mod outbox;
pub mod overview;
pub mod quota_window;
pub mod raw_data;
pub mod relay;
pub mod schema;
pub mod secret_intent;
mod sql;
pub mod sync_cursor;
pub mod sync_listing;
pub mod sync_run;

use sql::Sql;

/// How long a connection may be waited for, and a lock that another process holds.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A file that others are just setting up is tried so often,
const BUSY_TRIES: u32 = 40;
/// this far apart.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// Pages that a SQLite connection keeps, in KiB (a negative number, as SQLite wants it).
const CACHE_KIBIBYTES: &str = "-1024";
/// SQLite allows 32,766 variables a statement and PostgreSQL 65,535; lists longer than this are cut
/// into several statements.
const MAX_LIST: usize = 500;

/// Why the database did not do what it was asked. Each variant is a decision for the caller.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no such row, or the caller may not see it.
    #[error("not found")]
    NotFound,
    /// A row with this key exists already.
    #[error("exists already")]
    Conflict,
    /// The run belongs to another worker by now; nothing was written.
    #[error("the run was taken over by another worker")]
    Fenced,
    /// The database does not answer.
    #[error("the database does not answer")]
    Unavailable(#[source] DbErr),
    /// The schema is not what this program needs; the text says how to mend it.
    #[error("{0}")]
    Schema(String),
    /// Anything else.
    #[error("the database refused a statement")]
    Other(#[source] DbErr),
}

impl DbError {
    /// Whether a transaction that ended so may have been committed all the same: nothing was heard
    /// of its end.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<DbErr> for DbError {
    fn from(error: DbErr) -> Self {
        if let Some(SqlErr::UniqueConstraintViolation(_)) = error.sql_err() {
            return Self::Conflict;
        }
        match error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Self::Unavailable(error),
            DbErr::Exec(sea_orm::RuntimeErr::SqlxError(ref cause))
            | DbErr::Query(sea_orm::RuntimeErr::SqlxError(ref cause))
                if is_connection_loss(cause) =>
            {
                Self::Unavailable(error)
            }
            other => Self::Other(other),
        }
    }
}

fn is_connection_loss(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_absence(&code)),
        _ => false,
    }
}

/// Whether a database's code for an error means that it is away or too busy. PostgreSQL: class 08,
/// connection exceptions; 57P01 to 57P03, shutting down or starting up; 53300, too many connections
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>). SQLite: 5, busy, and its extended
/// codes (<https://www.sqlite.org/rescode.html>).
fn is_absence(code: &str) -> bool {
    let absence = ["57P01", "57P02", "57P03", "53300", "5", "261", "517", "773"];
    absence.contains(&code) || (code.len() == 5 && code.starts_with("08"))
}

/// Connections to one database.
#[derive(Clone)]
pub struct Db {
    readers: DatabaseConnection,
    /// On SQLite one connection: it has one writer at a time, waiting for a connection is fair where
    /// waiting for SQLite's lock is not, and prepared statements are kept once. On PostgreSQL the
    /// same pool as the readers.
    writers: DatabaseConnection,
    /// Whether a relay publishes what is in the outbox, or an event counts as published when it commits.
    is_relayed: bool,
}

/// A writing transaction. Dropping it rolls it back.
pub struct Tx {
    inner: DatabaseTransaction,
    is_relayed: bool,
}

impl Db {
    /// Connects to `sqlite:…` or `postgres://…`. A SQLite file is made where there is none; the
    /// PostgreSQL schema `dna` likewise.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, DbError> {
        if !url.starts_with("sqlite:") {
            let setup = Database::connect(options(url, 1)).await?;
            create_schema(&setup).await?;
            setup.close().await?;
            let pool = Database::connect(options(url, max_connections)).await?;
            return Ok(Self {
                readers: pool.clone(),
                writers: pool,
                is_relayed: false,
            });
        }
        let writers = connect_sqlite(url).await?;
        // Every connection to `sqlite::memory:` would be a database of its own.
        let readers = match url.contains(":memory:") {
            true => writers.clone(),
            false => Database::connect(options(url, max_connections)).await?,
        };
        Ok(Self {
            readers,
            writers,
            is_relayed: false,
        })
    }

    /// The same database, whose outbox a relay publishes to a broker.
    pub fn relayed(self) -> Self {
        Self {
            is_relayed: true,
            ..self
        }
    }

    /// Begins a writing transaction. It must not be held across network calls or parsing.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        // A deferred transaction that reads first and then writes fails at once when another
        // connection has written meanwhile, whatever the timeout.
        let inner = self
            .writers
            .begin_with_options(TransactionOptions {
                isolation_level: None,
                access_mode: None,
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            })
            .await?;
        Ok(Tx {
            inner,
            is_relayed: self.is_relayed,
        })
    }

    /// For statements that only read.
    fn reader(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// Asks the database whether it is there.
    pub async fn ping(&self) -> Result<(), DbError> {
        Sql::new("SELECT 1", [])
            .execute(&self.readers)
            .await
            .map(drop)
    }

    /// Whether this is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.readers.get_database_backend() == DbBackend::Postgres
    }

    /// Closes every connection; what is under way is finished first.
    pub async fn close(self) -> Result<(), DbError> {
        self.writers.close().await?;
        Ok(self.readers.close().await?)
    }
}

impl Tx {
    /// Makes everything in this transaction true.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.inner.commit().await?)
    }
}

/// One page of a list that is read newest first.
#[derive(Debug)]
pub struct Slice<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Whether more follow after the last one.
    pub more: bool,
}

impl<T> Slice<T> {
    /// Makes a page of `limit` from up to `limit + 1` rows.
    fn cut(mut items: Vec<T>, limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

/// Where a page starts and how long it is.
#[derive(Debug, Clone, Copy)]
pub struct Slicing {
    /// The last id of the page before.
    pub after: Option<Uuid>,
    /// How many rows.
    pub limit: u64,
}

/// The database's own clock in integer milliseconds, as an expression. Leases are set and compared
/// by it alone, so that no machine's clock matters.
fn now_ms(conn: &impl ConnectionTrait) -> &'static str {
    match conn.get_database_backend() {
        DbBackend::Postgres => "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        _ => "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)",
    }
}

/// Opens a SQLite file for writing. Turning a new file over to its write-ahead log needs it alone, and
/// SQLite does not wait for that as it waits for other locks.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's lock is waited for on the machine's clock"
)]
async fn connect_sqlite(url: &str) -> Result<DatabaseConnection, DbError> {
    let mut tries = 0;
    loop {
        match Database::connect(options(url, 1))
            .await
            .map_err(DbError::from)
        {
            Err(DbError::Unavailable(error)) if tries < BUSY_TRIES => {
                tracing::debug!(error = %error, "the database file is busy");
                tries += 1;
                tokio::time::sleep(BUSY_WAIT).await;
            }
            result => return result,
        }
    }
}

/// Makes schema `dna` where there is none. PostgreSQL refuses even `IF NOT EXISTS` to a role that may
/// not make schemas, and fails one of two that make it at once.
async fn create_schema(conn: &DatabaseConnection) -> Result<(), DbError> {
    let found: Option<i32> = Sql::new("SELECT 1 FROM pg_namespace WHERE nspname = 'dna'", [])
        .optional(conn)
        .await?;
    if found.is_some() {
        return Ok(());
    }
    let created = conn
        .execute_unprepared("CREATE SCHEMA IF NOT EXISTS dna")
        .await;
    match created.map_err(DbError::from) {
        Ok(_) | Err(DbError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

fn options(url: &str, max_connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        // sqlx 0.9 tends old connections by a task that counts idle ones. The count can be taken while
        // it is below zero for a moment, and then the task never ends and holds a thread. A connection
        // is asked whether it lives before it is lent, so none has to be tended.
        .idle_timeout(None)
        .max_lifetime(None)
        .sqlx_logging(false)
        .set_schema_search_path("dna")
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite_options(sqlite)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
        });
    options
}

/// What is a connection's own; it changes nothing of the file.
fn sqlite_options(sqlite: SqliteConnectOptions) -> SqliteConnectOptions {
    sqlite
        .foreign_keys(true)
        // NORMAL may lose the last commits of a machine that loses power.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(ACQUIRE_TIMEOUT)
        // The operating system keeps the file's pages anyway.
        .pragma("cache_size", CACHE_KIBIBYTES)
}
