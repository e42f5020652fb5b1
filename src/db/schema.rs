//! Bringing the schema up to date, and saying whether it is.

use migration::{Migrator, MigratorTrait};
use sea_orm::Database;

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

/// Applies what is missing. `url` is that of `db`: changes are made on a connection of their own,
/// because one that has prepared statements would go on with a stale picture of the schema.
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
    if db.is_postgres() {
        Sql::new("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK.into()])
            .execute(&conn)
            .await?;
    }
    // The lock goes with the connection, whatever happened.
    let result = Migrator::up(&conn, None).await;
    conn.close().await?;
    Ok(result?)
}

/// Takes every change back, newest first.
pub async fn migrate_down(url: &str) -> Result<(), DbError> {
    let conn = Database::connect(options(url, 1)).await?;
    let result = Migrator::down(&conn, None).await;
    conn.close().await?;
    Ok(result?)
}

#[derive(sea_orm::FromQueryResult)]
struct Applied {
    version: String,
}
