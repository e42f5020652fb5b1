//! What importing mail from files needs: a key by which two copies of a message are known, and which
//! rows only an import has brought.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Added columns. `message_key`: equal in all copies of a message; `imported`: the service itself has
/// not shown the item yet; `label_names`: labels of an export whose ids are not known yet.
fn columns(manager: &SchemaManager<'_>) -> [(&'static str, &'static str); 3] {
    [
        ("message_key", "varchar(64)"),
        ("imported", "boolean NOT NULL DEFAULT false"),
        ("label_names", types(manager).json),
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
        run(
            manager,
            "CREATE INDEX raw_data_message_key ON raw_data (integration_id, message_key)
                WHERE message_key IS NOT NULL;
             CREATE INDEX raw_data_without_message_key ON raw_data (integration_id, id)
                WHERE message_key IS NULL AND data_type = 'email' AND data_content IS NOT NULL;
             CREATE INDEX raw_data_imported ON raw_data (integration_id) WHERE imported = true;
             CREATE INDEX raw_data_label_names ON raw_data (integration_id)
                WHERE label_names IS NOT NULL",
        )
        .await?;
        register(manager, "010", "raw_data: imports from files").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP INDEX raw_data_label_names;
             DROP INDEX raw_data_imported;
             DROP INDEX raw_data_without_message_key;
             DROP INDEX raw_data_message_key",
        )
        .await?;
        for (name, _) in columns(manager) {
            run(manager, &format!("ALTER TABLE raw_data DROP COLUMN {name}")).await?;
        }
        unregister(manager, "010").await
    }
}
