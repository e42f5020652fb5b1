//! API keys, of which only hashes are kept, and the intents that a secret's version is found by
//! when a process dies between writing it and pinning it.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let t = types(manager);
        run(
            manager,
            &format!(
                "CREATE TABLE api_keys (
                    id {uuid} PRIMARY KEY,
                    entity_id {uuid} REFERENCES entity (id) ON DELETE CASCADE,
                    hash varchar(64) NOT NULL UNIQUE,
                    created_at {time} NOT NULL,
                    revoked_at {time}
                );
                CREATE TABLE secret_intents (
                    id {uuid} PRIMARY KEY,
                    secret_name varchar(255) NOT NULL,
                    created_at {time} NOT NULL
                );
                CREATE INDEX secret_intents_secret_name ON secret_intents (secret_name)",
                uuid = t.uuid,
                time = t.time,
            ),
        )
        .await?;
        register(manager, "006", "api keys, secret intents").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP TABLE secret_intents; DROP TABLE api_keys").await?;
        unregister(manager, "006").await
    }
}
