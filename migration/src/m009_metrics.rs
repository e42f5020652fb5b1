//! What an operator watches: sums over all processes, and indexes for what is counted at each look.

use sea_orm_migration::prelude::*;

use crate::{register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "CREATE TABLE metric_totals (
                metric varchar(100) NOT NULL,
                labels varchar(255) NOT NULL,
                part varchar(30) NOT NULL,
                total double precision NOT NULL,
                PRIMARY KEY (metric, labels, part)
            );
            CREATE INDEX sync_gaps_open ON sync_gaps (integration_id) WHERE given_up = false;
            CREATE INDEX entity_integrations_standing
                ON entity_integrations (service_name, status, last_sync_status)",
        )
        .await?;
        register(manager, "009", "metric totals").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP INDEX entity_integrations_standing;
             DROP INDEX sync_gaps_open;
             DROP TABLE metric_totals",
        )
        .await?;
        unregister(manager, "009").await
    }
}
