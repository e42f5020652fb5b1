//! Refreshes that were sent and whose end is not known: a service that rotates refresh tokens may have
//! taken the stored one in.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let time = types(manager).time;
        run(
            manager,
            &format!("ALTER TABLE entity_integrations ADD COLUMN refresh_sent_at {time}"),
        )
        .await?;
        register(manager, "015", "refreshes whose end is not known").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "ALTER TABLE entity_integrations DROP COLUMN refresh_sent_at",
        )
        .await?;
        unregister(manager, "015").await
    }
}
