//! Bringing the schema up to date, and saying whether it is.

use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use super::{Db, DbError, Limits, Sql, options};

/// Serialises migrations of several processes on PostgreSQL; any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6e75_636c_6575_7301;

/// A change of a large table takes its time, and one process waits for another that makes the same.
const PATIENT: Limits = Limits {
    statement_timeout: Duration::ZERO,
    lock_timeout: Duration::ZERO,
    ..Limits::of(1)
};

/// Rights that the changes need and the role lacks, as the statements that give them: to make tables in
/// `dna`, to keep the platform's list of changes, and to change the tables that the platform made.
const MISSING_RIGHTS: &str = "
    WITH platform AS (
        SELECT c.oid, c.relname, c.relowner, n.nspname
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname)
            IN (('dna', 'raw_data'), ('dna', 'entity'), ('public', 'migrations')))
    SELECT statement || quote_ident(current_user) AS statement FROM (
        SELECT 1 AS place, 'GRANT USAGE, CREATE ON SCHEMA dna TO ' AS statement
        WHERE NOT (has_schema_privilege('dna', 'USAGE') AND has_schema_privilege('dna', 'CREATE'))
        UNION ALL
        SELECT 2, 'GRANT CREATE ON SCHEMA public TO '
        WHERE NOT has_schema_privilege('public', 'CREATE')
            AND NOT EXISTS (SELECT FROM platform WHERE nspname = 'public')
        UNION ALL
        SELECT 3, 'GRANT SELECT, INSERT, DELETE ON public.migrations TO ' FROM platform
        WHERE nspname = 'public' AND NOT (has_table_privilege(oid, 'SELECT')
            AND has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'DELETE'))
        UNION ALL
        SELECT 4, 'ALTER TABLE dna.' || quote_ident(relname) || ' OWNER TO ' FROM platform
        WHERE nspname = 'dna' AND NOT pg_has_role(relowner, 'USAGE')) AS missing
    ORDER BY place, statement";

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
    if db.is_postgres() {
        check_rights(db).await?;
    }
    let conn = Database::connect(options(url, PATIENT)).await?;
    let tx = begin_alone(&conn).await?;
    let result = Migrator::up(&tx, None).await;
    end(conn, tx, result).await
}

/// Refuses where the role lacks a right that the changes need, with the statements that give them.
async fn check_rights(db: &Db) -> Result<(), DbError> {
    let missing: Vec<Missing> = Sql::new(MISSING_RIGHTS, []).all(db.reader()).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let statements: Vec<String> = missing.into_iter().map(|row| row.statement).collect();
    Err(DbError::Unfit(format!(
        "the role may not change the schema: as the owner of schema and tables run `{};`",
        statements.join("; ")
    )))
}

/// Takes every change back, newest first.
pub async fn migrate_down(url: &str) -> Result<(), DbError> {
    let conn = Database::connect(options(url, PATIENT)).await?;
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
        // Whoever comes after a change that waits for a table's lock waits as well.
        tx.execute_unprepared("SET LOCAL lock_timeout = '10s'")
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
struct Missing {
    statement: String,
}

#[derive(sea_orm::FromQueryResult)]
struct Applied {
    version: String,
}
