//! PostgreSQL packs mail with lz4, which costs a fraction of its own method's time, where the server was
//! built with it. Rows that are there already stay as they are.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, Statement},
};

use crate::{is_postgres, register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if is_postgres(manager) && has_lz4(manager).await? {
            pack_with(manager, "lz4").await?;
        }
        register(manager, "013", "compression of mail").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if is_postgres(manager) {
            pack_with(manager, "default").await?;
        }
        unregister(manager, "013").await
    }
}

async fn has_lz4(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    let conn = manager.get_connection();
    let statement = Statement::from_string(
        conn.get_database_backend(),
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'",
    );
    match conn.query_one_raw(statement).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(false),
    }
}

async fn pack_with(manager: &SchemaManager<'_>, method: &str) -> Result<(), DbErr> {
    run(
        manager,
        &format!(
            "ALTER TABLE raw_data ALTER COLUMN data_content SET COMPRESSION {method},
                ALTER COLUMN meta_data SET COMPRESSION {method}"
        ),
    )
    .await
}
