//! The trace that a run and a message belong to, as W3C's `traceparent` writes it; null where no traces
//! are sent.

use sea_orm_migration::prelude::*;

use crate::{register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "ALTER TABLE sync_runs ADD COLUMN traceparent varchar(55);
             ALTER TABLE outbox ADD COLUMN traceparent varchar(55)",
        )
        .await?;
        register(manager, "011", "traces of runs and messages").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "ALTER TABLE outbox DROP COLUMN traceparent;
             ALTER TABLE sync_runs DROP COLUMN traceparent",
        )
        .await?;
        unregister(manager, "011").await
    }
}
