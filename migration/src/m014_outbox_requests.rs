//! The requests of one integration, which go with it: without this a removal reads the whole outbox.

use sea_orm_migration::prelude::*;

use crate::{register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "CREATE INDEX outbox_requests ON outbox (integration_id)
                WHERE topic = 'nucleus-sync-requests'",
        )
        .await?;
        register(manager, "014", "requests of an integration").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP INDEX outbox_requests").await?;
        unregister(manager, "014").await
    }
}
