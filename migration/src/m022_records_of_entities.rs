//! An entity's records are found by index when it is removed. The platform's own database may have an index that
//! does it.

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
        if !has_index(manager).await? {
            run(
                manager,
                "CREATE INDEX raw_data_of_entity ON raw_data (entity_id)",
            )
            .await?;
        }
        register(manager, "022", "records of an entity").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP INDEX IF EXISTS raw_data_of_entity").await?;
        unregister(manager, "022").await
    }
}

/// Whether an index of the platform's begins with the column; SQLite's table is always made here.
async fn has_index(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    if !is_postgres(manager) {
        return Ok(false);
    }
    let conn = manager.get_connection();
    let statement = Statement::from_string(
        conn.get_database_backend(),
        "SELECT 1 FROM pg_index AS i
            JOIN pg_class AS c ON c.oid = i.indexrelid
            JOIN pg_am AS m ON m.oid = c.relam
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = 'raw_data'::regclass AND a.attname = 'entity_id' AND m.amname = 'btree'
            AND i.indisvalid AND i.indpred IS NULL",
    );
    Ok(conn.query_one_raw(statement).await?.is_some())
}
