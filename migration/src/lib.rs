//! The database schema, one file a change, the same for PostgreSQL and SQLite.
//!
//! Tables carry no schema name: in PostgreSQL the connection's search path is `dna`, and only the
//! platform's own `public.migrations` is named in full. Every change adds its row there. A change
//! adds; it never drops what this program did not make, and going down restores what was before.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

pub use sea_orm_migration::MigratorTrait;

mod m001_baseline;
mod m002_entity_integrations;
mod m003_raw_data;
mod m004_sync;
mod m005_outbox;
mod m006_keys;
mod m007_oauth_sessions;
mod m008_idempotency_keys;
mod m009_metrics;
mod m010_imports;
mod m011_traces;
mod m012_dead_letters;
mod m013_compression;
mod m014_outbox_requests;
mod m015_refreshes;
mod m016_accounts;
mod m017_key_scopes;
mod m018_audit;
mod m019_disconnections;
mod m020_endings;
mod m021_audit_heads;
mod m022_records_of_entities;
mod m023_unscheduled;

/// All changes, in order.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m001_baseline::Migration),
            Box::new(m002_entity_integrations::Migration),
            Box::new(m003_raw_data::Migration),
            Box::new(m004_sync::Migration),
            Box::new(m005_outbox::Migration),
            Box::new(m006_keys::Migration),
            Box::new(m007_oauth_sessions::Migration),
            Box::new(m008_idempotency_keys::Migration),
            Box::new(m009_metrics::Migration),
            Box::new(m010_imports::Migration),
            Box::new(m011_traces::Migration),
            Box::new(m012_dead_letters::Migration),
            Box::new(m013_compression::Migration),
            Box::new(m014_outbox_requests::Migration),
            Box::new(m015_refreshes::Migration),
            Box::new(m016_accounts::Migration),
            Box::new(m017_key_scopes::Migration),
            Box::new(m018_audit::Migration),
            Box::new(m019_disconnections::Migration),
            Box::new(m020_endings::Migration),
            Box::new(m021_audit_heads::Migration),
            Box::new(m022_records_of_entities::Migration),
            Box::new(m023_unscheduled::Migration),
        ]
    }
}

/// The column types that the two databases name differently. SQLite's are those that SeaORM
/// reads back; it keeps UUIDs as 16 bytes and times as RFC 3339 text.
struct Types {
    uuid: &'static str,
    time: &'static str,
    json: &'static str,
}

fn types(manager: &SchemaManager<'_>) -> Types {
    match manager.get_database_backend() {
        DbBackend::Postgres => Types {
            uuid: "uuid",
            time: "timestamptz",
            json: "jsonb",
        },
        _ => Types {
            uuid: "uuid_text",
            time: "timestamp_with_timezone_text",
            json: "jsonb_text",
        },
    }
}

fn is_postgres(manager: &SchemaManager<'_>) -> bool {
    manager.get_database_backend() == DbBackend::Postgres
}

/// The platform's table of applied changes.
fn migrations_table(manager: &SchemaManager<'_>) -> &'static str {
    if is_postgres(manager) {
        "public.migrations"
    } else {
        "migrations"
    }
}

async fn run(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    manager
        .get_connection()
        .execute_unprepared(sql)
        .await
        .map(drop)
}

/// Adds the platform's row for `version`.
async fn register(
    manager: &SchemaManager<'_>,
    version: &str,
    description: &str,
) -> Result<(), DbErr> {
    let table = migrations_table(manager);
    run(
        manager,
        &format!(
            "INSERT INTO {table} (version, description) VALUES ('{version}', '{description}') \
             ON CONFLICT (version) DO NOTHING"
        ),
    )
    .await
}

async fn unregister(manager: &SchemaManager<'_>, version: &str) -> Result<(), DbErr> {
    let table = migrations_table(manager);
    run(
        manager,
        &format!("DELETE FROM {table} WHERE version = '{version}'"),
    )
    .await
}
