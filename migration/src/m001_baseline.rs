//! `entity` and `raw_data` as NUCLEUS's own first migration makes them.
//!
//! On a database that NUCLEUS prepared this changes nothing; whether it did is told by the
//! description of row '001', and going down drops only what was made here.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, Statement},
};

use crate::{is_postgres, migrations_table, register, run, types, unregister};

const MADE_HERE: &str = "entity and raw_data, made by nucleus";

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = migrations_table(manager);
        let t = types(manager);
        let (id, now, content) = if is_postgres(manager) {
            ("DEFAULT gen_random_uuid()", "now()", "text NOT NULL")
        } else {
            // SQLite cannot loosen a column later, so it starts as 003 leaves it elsewhere.
            ("", "(strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))", "text")
        };
        if !has_migrations_table(manager).await? {
            run(
                manager,
                &format!(
                    "CREATE TABLE {table} (
                        version varchar(10) PRIMARY KEY,
                        description text,
                        executed_at {time} DEFAULT {now}
                    )",
                    time = t.time,
                ),
            )
            .await?;
        }
        if is_registered(manager).await? {
            return Ok(());
        }
        run(
            manager,
            &format!(
                "CREATE TABLE entity (
                    id {uuid} PRIMARY KEY {id},
                    name varchar(255) NOT NULL,
                    created_at {time} DEFAULT {now},
                    updated_at {time} DEFAULT {now}
                );
                CREATE TABLE raw_data (
                    id {uuid} PRIMARY KEY {id},
                    entity_id {uuid} NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
                    data_type varchar(100) NOT NULL,
                    data_content {content},
                    meta_data {json},
                    ingested_at {time} DEFAULT {now}
                )",
                uuid = t.uuid,
                time = t.time,
                json = t.json,
            ),
        )
        .await?;
        register(manager, "001", MADE_HERE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = migrations_table(manager);
        let made_here = Statement::from_string(
            manager.get_database_backend(),
            format!("SELECT 1 FROM {table} WHERE version = '001' AND description = '{MADE_HERE}'"),
        );
        if manager
            .get_connection()
            .query_one_raw(made_here)
            .await?
            .is_none()
        {
            return Ok(());
        }
        run(manager, "DROP TABLE raw_data; DROP TABLE entity").await?;
        unregister(manager, "001").await
    }
}

/// Asked for, because PostgreSQL refuses even `CREATE TABLE IF NOT EXISTS` to a role that may not
/// make tables in `public`, which is the default.
async fn has_migrations_table(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    let sql = if is_postgres(manager) {
        "SELECT 1 WHERE to_regclass('public.migrations') IS NOT NULL"
    } else {
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
    };
    let row = Statement::from_string(manager.get_database_backend(), sql);
    Ok(manager.get_connection().query_one_raw(row).await?.is_some())
}

async fn is_registered(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    let table = migrations_table(manager);
    let row = Statement::from_string(
        manager.get_database_backend(),
        format!("SELECT 1 FROM {table} WHERE version = '001'"),
    );
    Ok(manager.get_connection().query_one_raw(row).await?.is_some())
}
