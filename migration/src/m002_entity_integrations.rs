//! `entity_integrations`: a person's connected accounts, and what an account leaves behind when
//! its connection is removed and its records are kept.

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
                "CREATE TABLE entity_integrations (
                    id {uuid} PRIMARY KEY,
                    entity_id {uuid} NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
                    service_name varchar(100) NOT NULL,
                    service_type varchar(50),
                    display_name text,
                    description text,
                    secret_path varchar(255),
                    credential_type varchar(50) NOT NULL,
                    status varchar(20) NOT NULL,
                    account text,
                    account_verified boolean NOT NULL DEFAULT false,
                    last_sync_at {time},
                    last_sync_status varchar(20),
                    sync_error_message text,
                    sync_failures integer NOT NULL DEFAULT 0,
                    next_sync_at {time},
                    token_expires_at {time},
                    refresh_generation bigint NOT NULL DEFAULT 0,
                    refresh_lease_until bigint,
                    scopes {json} NOT NULL,
                    config {json} NOT NULL,
                    sync_settings {json} NOT NULL,
                    meta_data {json} NOT NULL,
                    created_at {time} NOT NULL,
                    updated_at {time} NOT NULL,
                    created_by text,
                    UNIQUE (entity_id, service_name)
                );
                CREATE INDEX entity_integrations_entity_id ON entity_integrations (entity_id);
                CREATE INDEX entity_integrations_service_name ON entity_integrations (service_name);
                CREATE INDEX entity_integrations_status ON entity_integrations (status);
                CREATE INDEX entity_integrations_next_sync_at ON entity_integrations (next_sync_at)
                    WHERE status = 'active';
                CREATE INDEX entity_integrations_next_retry_at ON entity_integrations (next_sync_at)
                    WHERE status = 'error';
                CREATE TABLE former_integrations (
                    id {uuid} PRIMARY KEY,
                    entity_id {uuid} NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
                    service_name varchar(100) NOT NULL,
                    account text NOT NULL,
                    removed_at {time} NOT NULL
                );
                CREATE INDEX former_integrations_account
                    ON former_integrations (entity_id, service_name, account)",
                uuid = t.uuid,
                time = t.time,
                json = t.json,
            ),
        )
        .await?;
        register(manager, "002", "entity_integrations").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP TABLE former_integrations; DROP TABLE entity_integrations",
        )
        .await?;
        unregister(manager, "002").await
    }
}
