//! What tells present credentials from earlier ones, that the operator ended an access, and when a
//! connection that no sync asks about is looked at again.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let time = types(manager).time;
        // What is connected without a connector is looked at for the first time at once.
        run(
            manager,
            &format!(
                "ALTER TABLE entity_integrations
                    ADD COLUMN credentials_generation bigint NOT NULL DEFAULT 0;
                 ALTER TABLE entity_integrations ADD COLUMN access_ended_at {time};
                 ALTER TABLE entity_integrations ADD COLUMN next_check_at {time};
                 UPDATE entity_integrations SET next_check_at = created_at
                    WHERE next_sync_at IS NULL AND secret_path IS NOT NULL
                        AND status IN ('active', 'error');
                 CREATE INDEX entity_integrations_checks ON entity_integrations (next_check_at)
                    WHERE next_check_at IS NOT NULL"
            ),
        )
        .await?;
        register(manager, "020", "ends of accesses, checks of connections").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP INDEX entity_integrations_checks;
             ALTER TABLE entity_integrations DROP COLUMN next_check_at;
             ALTER TABLE entity_integrations DROP COLUMN access_ended_at;
             ALTER TABLE entity_integrations DROP COLUMN credentials_generation",
        )
        .await?;
        unregister(manager, "020").await
    }
}
