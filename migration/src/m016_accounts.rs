//! What people know an account by, beside what names it for good; and when its consent ends.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

const TABLES: [&str; 2] = ["entity_integrations", "oauth_sessions"];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let time = types(manager).time;
        for table in TABLES {
            run(
                manager,
                &format!(
                    "ALTER TABLE {table} ADD COLUMN account_name text;
                     ALTER TABLE {table} ADD COLUMN consent_expires_at {time}"
                ),
            )
            .await?;
        }
        register(manager, "016", "names of accounts, ends of consents").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            run(
                manager,
                &format!(
                    "ALTER TABLE {table} DROP COLUMN account_name;
                     ALTER TABLE {table} DROP COLUMN consent_expires_at"
                ),
            )
            .await?;
        }
        unregister(manager, "016").await
    }
}
