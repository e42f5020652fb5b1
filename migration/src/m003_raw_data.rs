//! What `raw_data` needs so that an item is stored once and can be changed and erased.
//!
//! `integration_id` has no foreign key: SQLite could not drop such a column again, and the rows of
//! a removed connection are let go or deleted before it goes.

use sea_orm_migration::prelude::*;

use crate::{is_postgres, register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Added columns. `missing_since`: a listing did not show the item; `former_integration_id`: the
/// removed connection whose rows wait to be adopted.
fn columns(manager: &SchemaManager<'_>) -> [(&'static str, &'static str); 7] {
    let t = types(manager);
    [
        ("integration_id", t.uuid),
        ("external_id", "text"),
        ("content_hash", "varchar(64)"),
        ("updated_at", t.time),
        ("deleted_at", t.time),
        ("missing_since", t.time),
        ("former_integration_id", t.uuid),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, data_type) in columns(manager) {
            run(
                manager,
                &format!("ALTER TABLE raw_data ADD COLUMN {name} {data_type}"),
            )
            .await?;
        }
        if is_postgres(manager) {
            run(
                manager,
                "ALTER TABLE raw_data ALTER COLUMN data_content DROP NOT NULL",
            )
            .await?;
        }
        run(
            manager,
            "CREATE UNIQUE INDEX raw_data_external_id ON raw_data (integration_id, external_id);
             CREATE INDEX raw_data_integration_id ON raw_data (integration_id, id);
             CREATE INDEX raw_data_former_integration_id ON raw_data (former_integration_id)
                WHERE former_integration_id IS NOT NULL",
        )
        .await?;
        register(
            manager,
            "003",
            "raw_data: where a record comes from, its hash, its deletion",
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP INDEX raw_data_former_integration_id;
             DROP INDEX raw_data_integration_id;
             DROP INDEX raw_data_external_id",
        )
        .await?;
        if is_postgres(manager) {
            // Erased rows have no content; the column they return to insists on some.
            run(
                manager,
                "UPDATE raw_data SET data_content = '' WHERE data_content IS NULL;
                 ALTER TABLE raw_data ALTER COLUMN data_content SET NOT NULL",
            )
            .await?;
        }
        for (name, _) in columns(manager) {
            run(manager, &format!("ALTER TABLE raw_data DROP COLUMN {name}")).await?;
        }
        unregister(manager, "003").await
    }
}
