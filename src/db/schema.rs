//! Bringing the schema up to date, and saying whether it is.

use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use super::{Db, DbError, Sql, options};

/// Serialises migrations of several processes on PostgreSQL; any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6e75_636c_6575_7301;

/// How the schema stands.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Names of the changes that are applied, oldest first.
    pub applied: Vec<String>,
    /// Names of the changes that are not.
    pub pending: Vec<String>,
    /// Names of applied changes that this program does not know: it is older than the database.
    pub unknown: Vec<String>,
}

impl SchemaStatus {
    /// Nothing, or the reason why this program must not work on the database.
    pub fn check(&self) -> Result<(), DbError> {
        self.check_not_newer()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(DbError::Schema(format!(
            "the database lacks {}: run `nucleus migrate`",
            self.pending.join(", ")
        )))
    }

    fn check_not_newer(&self) -> Result<(), DbError> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        Err(DbError::Schema(format!(
            "the database was made by a newer nucleus ({} is unknown here): use that version, or \
             restore a copy from before the upgrade",
            self.unknown.join(", ")
        )))
    }
}

/// Compares the database with what this program knows.
pub async fn status(db: &Db) -> Result<SchemaStatus, DbError> {
    let known: Vec<String> = Migrator::migrations()
        .iter()
        .map(|change| change.name().to_owned())
        .collect();
    let has_table = if db.is_postgres() {
        "SELECT count(*) FROM information_schema.tables
         WHERE table_schema = 'dna' AND table_name = 'seaql_migrations'"
    } else {
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'"
    };
    let mut applied = Vec::new();
    if Sql::new(has_table, []).scalar::<i64>(db.reader()).await? > 0 {
        let rows: Vec<Applied> =
            Sql::new("SELECT version FROM seaql_migrations ORDER BY version", [])
                .all(db.reader())
                .await?;
        applied = rows.into_iter().map(|row| row.version).collect();
    }
    Ok(SchemaStatus {
        pending: known
            .iter()
            .filter(|name| !applied.contains(name))
            .cloned()
            .collect(),
        unknown: applied
            .iter()
            .filter(|name| !known.contains(name))
            .cloned()
            .collect(),
        applied,
    })
}

/// Applies what is missing, all or nothing. `url` is that of `db`: changes are made on a connection
/// of their own, because one that has prepared statements would go on with a stale picture of the
/// schema.
pub async fn migrate(db: &Db, url: &str) -> Result<(), DbError> {
    let found = status(db).await?;
    found.check_not_newer()?;
    if found.pending.is_empty() {
        return Ok(());
    }
    if url.contains(":memory:") {
        return Ok(Migrator::up(db.reader(), None).await?);
    }
    let conn = Database::connect(options(url, 1)).await?;
    let tx = begin_alone(&conn).await?;
    let result = Migrator::up(&tx, None).await;
    end(conn, tx, result).await
}

/// Takes every change back, newest first.
pub async fn migrate_down(url: &str) -> Result<(), DbError> {
    let conn = Database::connect(options(url, 1)).await?;
    let tx = begin_alone(&conn).await?;
    let result = Migrator::down(&tx, None).await;
    end(conn, tx, result).await
}

/// Begins a transaction that no other migration runs beside. SQLite has a lock for that, which
/// `IMMEDIATE` takes; PostgreSQL's is let go with the transaction, whatever happens.
async fn begin_alone(conn: &DatabaseConnection) -> Result<DatabaseTransaction, DbError> {
    let tx = conn
        .begin_with_options(TransactionOptions {
            isolation_level: None,
            access_mode: None,
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        })
        .await?;
    if tx.get_database_backend() == DbBackend::Postgres {
        Sql::new("SELECT pg_advisory_xact_lock($1)", [MIGRATION_LOCK.into()])
            .execute(&tx)
            .await?;
    }
    Ok(tx)
}

async fn end(
    conn: DatabaseConnection,
    tx: DatabaseTransaction,
    result: Result<(), DbErr>,
) -> Result<(), DbError> {
    match result {
        Ok(()) => tx.commit().await?,
        Err(error) => {
            tx.rollback().await?;
            return Err(error.into());
        }
    }
    Ok(conn.close().await?)
}

#[derive(sea_orm::FromQueryResult)]
struct Applied {
    version: String,
}
