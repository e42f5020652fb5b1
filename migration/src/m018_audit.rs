//! The audit log: a chain of rows for each entity and one for the operator, and where each chain ends.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let t = types(manager);
        // No reference to entities: what was done to one is known after it is gone.
        run(
            manager,
            &format!(
                "CREATE TABLE audit_log (
                    id {uuid} PRIMARY KEY,
                    chain varchar(36) NOT NULL,
                    position bigint NOT NULL,
                    previous_hash varchar(64) NOT NULL,
                    hash varchar(64) NOT NULL,
                    at {time} NOT NULL,
                    actor varchar(10) NOT NULL,
                    key_id {uuid},
                    entity_id {uuid},
                    action varchar(50) NOT NULL,
                    target varchar(255) NOT NULL,
                    outcome varchar(10) NOT NULL,
                    attempt_id {uuid},
                    request_id varchar(64),
                    interface varchar(10) NOT NULL,
                    address varchar(45),
                    UNIQUE (chain, position)
                );
                CREATE INDEX audit_log_entity_id ON audit_log (entity_id, id);
                CREATE INDEX audit_log_attempt_id ON audit_log (attempt_id);
                CREATE TABLE audit_heads (
                    chain varchar(36) PRIMARY KEY,
                    position bigint NOT NULL,
                    hash varchar(64) NOT NULL,
                    logged_position bigint NOT NULL DEFAULT 0,
                    logged_at {time}
                );
                CREATE INDEX audit_heads_unlogged ON audit_heads (chain)
                    WHERE position > logged_position",
                uuid = t.uuid,
                time = t.time,
            ),
        )
        .await?;
        register(manager, "018", "audit log").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP TABLE audit_heads; DROP TABLE audit_log").await?;
        unregister(manager, "018").await
    }
}
