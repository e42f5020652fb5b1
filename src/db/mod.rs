//! The database: SQLite or PostgreSQL behind one set of statements, one file a table.
//!
//! SeaORM and sqlx are used here and in the migrations, nowhere else. Work is claimed by conditional
//! updates and the number of rows they changed, never by row locks, which SQLite does not have.

use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqlErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use uuid::Uuid;

pub mod api_key;
pub mod audit_log;
mod connection;
pub mod dead_letter;
pub mod disconnection;
pub mod entity;
pub mod former_integration;
pub mod gap;
pub mod grant;
pub mod idempotency_key;
pub mod import_run;
pub mod imported;
pub mod inspection;
pub mod integration;
pub mod metric_total;
pub mod oauth_session;
pub mod outbox;
pub mod overview;
#[cfg(test)]
mod plans_tests;
pub mod quota_window;
pub mod raw_data;
pub mod refresh_lease;
pub mod relay;
pub mod removal;
pub mod schema;
pub mod secret_intent;
mod sql;
pub mod standing;
pub mod sync_cursor;
pub mod sync_listing;
pub mod sync_run;

pub use connection::Limits;

use connection::options;
use sql::Sql;

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
    /// The server, or what the role may do there, is not what this program needs; the text says how
    /// to mend it.
    #[error("{0}")]
    Unfit(String),
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

/// Whether a database's code for an error means that it is away, too busy or out of room: what may
/// be well a little later.
///
/// PostgreSQL (<https://www.postgresql.org/docs/15/errcodes-appendix.html>), always five characters:
/// class 08, connection exceptions; class 53, no disk, memory or connection left; 25P03, 40001, 40P01,
/// 55P03 and 57014, ended because something took too long or stood in another's way; 57P01 to 57P03,
/// shutting down or starting up; 58030, the disk. SQLite (<https://www.sqlite.org/rescode.html>), whose
/// last eight bits are the kind: 5, busy; 10, the disk; 13, full.
fn is_absence(code: &str) -> bool {
    const BUSY: i32 = 5;
    const IO_ERROR: i32 = 10;
    const FULL: i32 = 13;
    if code.len() == 5 {
        let absence = [
            "25P03", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "58030",
        ];
        return absence.contains(&code) || code.starts_with("08") || code.starts_with("53");
    }
    code.parse::<i32>()
        .is_ok_and(|code| matches!(code & 0xff, BUSY | IO_ERROR | FULL))
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
    /// PostgreSQL schema `dna` likewise, on a server that keeps what it commits.
    pub async fn connect(url: &str, limits: Limits) -> Result<Self, DbError> {
        if !url.starts_with("sqlite:") {
            connection::prepare_postgres(url).await?;
            let pool = Database::connect(options(url, limits)).await?;
            return Ok(Self {
                readers: pool.clone(),
                writers: pool,
                is_relayed: false,
            });
        }
        let writers = connection::open_sqlite(url, limits).await?;
        // Every connection to `sqlite::memory:` would be a database of its own.
        let readers = match url.contains(":memory:") {
            true => writers.clone(),
            false => Database::connect(options(url, limits)).await?,
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
