//! How connections are made: how many, how long what is waited for, and what a PostgreSQL server
//! must be like to be used.
//!
//! Every bound of a PostgreSQL connection travels with its start-up, so that none is without.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{Db, DbError, Sql, inspection};

/// A file that others are just setting up is tried so often,
const BUSY_TRIES: u32 = 40;
/// this far apart.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// Pages that a SQLite connection keeps, in KiB (a negative number, as SQLite wants it).
const CACHE_KIBIBYTES: &str = "-1024";

/// Connections of one process, and how long each thing is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the pool.
    pub max_connections: u32,
    /// For a connection, and on SQLite for a lock that another process holds.
    pub acquire_timeout: Duration,
    /// For one statement; PostgreSQL's.
    pub statement_timeout: Duration,
    /// For a lock that another transaction holds; PostgreSQL's.
    pub lock_timeout: Duration,
    /// Between two statements of a transaction, after which the server ends the connection; PostgreSQL's.
    pub idle_in_transaction_timeout: Duration,
}

impl Limits {
    /// So many connections, and what is waited for by default.
    pub const fn of(max_connections: u32) -> Self {
        Self {
            max_connections,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// Looks whether a PostgreSQL server keeps what it commits, and makes schema `dna` where there is none.
pub(super) async fn prepare_postgres(url: &str) -> Result<(), DbError> {
    let conn = Database::connect(options(url, Limits::of(1))).await?;
    let facts = inspection::postgres_facts(&conn).await?;
    if let Some(problem) = facts.problem() {
        if problem.refused {
            return Err(DbError::Unfit(format!(
                "{}: {}",
                problem.what, problem.mend
            )));
        }
        tracing::warn!("{}: {}", problem.what, problem.mend);
    }
    create_schema(&conn).await?;
    let path: String = Sql::new("SELECT current_setting('search_path')", [])
        .scalar(&conn)
        .await?;
    if path != "dna" {
        return Err(DbError::Unfit(format!(
            "tables would be looked for in {path} in place of dna: what stands between nucleus and \
             the server drops the connection's options, so run `ALTER ROLE {} SET search_path = dna`",
            facts.role
        )));
    }
    Ok(conn.close().await?)
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
    let grant: Option<String> = Sql::new(
        "SELECT 'GRANT CREATE ON DATABASE ' || quote_ident(current_database()) || ' TO '
            || quote_ident(current_user)
         WHERE NOT has_database_privilege(current_database(), 'CREATE')",
        [],
    )
    .optional(conn)
    .await?;
    if let Some(grant) = grant {
        return Err(DbError::Unfit(format!(
            "there is no schema dna, and this role may not make it: run `{grant}` as the database's \
             owner"
        )));
    }
    let created = conn
        .execute_unprepared("CREATE SCHEMA IF NOT EXISTS dna")
        .await;
    match created.map_err(DbError::from) {
        Ok(_) | Err(DbError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a SQLite file for writing. Turning a new file over to its write-ahead log needs it alone, and
/// SQLite does not wait for that as it waits for other locks.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's lock is waited for on the machine's clock"
)]
pub(super) async fn open_sqlite(url: &str, limits: Limits) -> Result<DatabaseConnection, DbError> {
    if let Some(file) = inspection::sqlite_file(url) {
        make_private(&file);
    }
    let one = Limits {
        max_connections: 1,
        ..limits
    };
    let mut tries = 0;
    loop {
        match Database::connect(options(url, one))
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

/// Makes the file of a new database for this user alone, as SQLite then makes those beside it; without
/// this, it is as the umask lets it be. What cannot be made is for SQLite to tell, which knows why.
fn make_private(file: &Path) {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        tracing::debug!(file = %file.display(), error = %error, "the database file was not made");
    }
}

impl Db {
    /// Connects to a database as it is. What is not there is an error.
    pub async fn connect_to_look(url: &str) -> Result<Self, DbError> {
        // One for what reads and one for `inspection::can_begin`.
        let mut options = options(url, Limits::of(2));
        options.map_sqlx_sqlite_opts(|sqlite| {
            sqlite_options(sqlite, Limits::of(2).acquire_timeout).create_if_missing(false)
        });
        let pool = Database::connect(options).await?;
        Ok(Self {
            readers: pool.clone(),
            writers: pool,
            is_relayed: false,
        })
    }
}

/// For every connection there is, but for [`Db::connect_to_look`]'s to a SQLite file.
pub(super) fn options(url: &str, limits: Limits) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(limits.max_connections)
        .acquire_timeout(limits.acquire_timeout)
        .connect_timeout(limits.acquire_timeout)
        // sqlx 0.9 tends old connections by a task that counts idle ones. The count can be taken while
        // it is below zero for a moment, and then the task never ends and holds a thread. A connection
        // is asked whether it lives before it is lent, so none has to be tended.
        .idle_timeout(None)
        .max_lifetime(None)
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |postgres| {
            let milliseconds = |timeout: Duration| timeout.as_millis().to_string();
            postgres.options([
                ("search_path", "dna".to_owned()),
                ("statement_timeout", milliseconds(limits.statement_timeout)),
                ("lock_timeout", milliseconds(limits.lock_timeout)),
                (
                    "idle_in_transaction_session_timeout",
                    milliseconds(limits.idle_in_transaction_timeout),
                ),
            ])
        })
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite_options(sqlite, limits.acquire_timeout)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
        })
        .map_sqlx_sqlite_pool_opts(|pool| {
            pool.before_acquire(|conn, _| {
                Box::pin(async move { Ok(is_between_transactions(conn)) })
            })
        });
    options
}

/// Whether the driver believes what SQLite knows. Where the disk fails a commit, SQLite has taken the
/// transaction back by itself, and sqlx 0.9 goes on to count it as open: whatever is begun later would
/// be a part of it, reported as committed and never written. Such a connection is closed.
fn is_between_transactions(conn: &SqliteConnection) -> bool {
    !conn.is_in_transaction()
}

/// What is a connection's own; it changes nothing of the file.
fn sqlite_options(sqlite: SqliteConnectOptions, busy_timeout: Duration) -> SqliteConnectOptions {
    sqlite
        .foreign_keys(true)
        // NORMAL may lose the last commits of a machine that loses power.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout)
        // The operating system keeps the file's pages anyway.
        .pragma("cache_size", CACHE_KIBIBYTES)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_new_database_file_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("nucleus.db").display());
        let conn = open_sqlite(&url, Limits::of(1)).await.unwrap();
        conn.execute_unprepared("CREATE TABLE mail (id INTEGER)")
            .await
            .unwrap();
        let mut modes = Vec::new();
        for entry in folder.path().read_dir().unwrap() {
            modes.push(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777);
        }
        // With the log and its index.
        assert_eq!(modes, [0o600; 3]);
        conn.close().await.unwrap();
    }
}
