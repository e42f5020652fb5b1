//! OAuth flows under way: from the start to the account's confirmation, for minutes.

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
                "CREATE TABLE oauth_sessions (
                    id {uuid} PRIMARY KEY,
                    entity_id {uuid} NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
                    service_name varchar(100) NOT NULL,
                    state_hash varchar(64) NOT NULL UNIQUE,
                    pkce_salt varchar(64) NOT NULL,
                    browser_hash varchar(64),
                    redirect_uri text NOT NULL,
                    return_to text,
                    created_by varchar(100),
                    status varchar(20) NOT NULL,
                    account text,
                    scopes {json},
                    secret_path varchar(255),
                    secret_intent_id {uuid},
                    token_expires_at {time},
                    integration_id {uuid},
                    created_at {time} NOT NULL,
                    expires_at {time} NOT NULL
                );
                CREATE INDEX oauth_sessions_entity_id ON oauth_sessions (entity_id);
                CREATE INDEX oauth_sessions_expires_at ON oauth_sessions (expires_at)",
                uuid = t.uuid,
                time = t.time,
                json = t.json,
            ),
        )
        .await?;
        register(manager, "007", "oauth sessions").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP TABLE oauth_sessions").await?;
        unregister(manager, "007").await
    }
}
