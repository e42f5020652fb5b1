//! Every head of the audit log is logged each hour, whether it has moved or not: those that have are looked for no
//! more. The column stays for the version before.

use sea_orm_migration::prelude::*;

use crate::{register, run, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP INDEX audit_heads_unlogged").await?;
        register(manager, "021", "heads of the audit log").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "CREATE INDEX audit_heads_unlogged ON audit_heads (chain)
                WHERE position > logged_position",
        )
        .await?;
        unregister(manager, "021").await
    }
}
