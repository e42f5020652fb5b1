//! Connections that no schedule asks about are found by index, by their service.

use sea_orm_migration::prelude::*;

use crate::{register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "CREATE INDEX entity_integrations_unscheduled ON entity_integrations (service_name)
                WHERE next_sync_at IS NULL AND status IN ('active', 'error')",
        )
        .await?;
        register(manager, "023", "connections without a schedule").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP INDEX entity_integrations_unscheduled").await?;
        unregister(manager, "023").await
    }
}
