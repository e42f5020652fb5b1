//! The outbox, through which every message leaves, and where a message ends that no worker could
//! carry out.

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
                "CREATE TABLE outbox (
                    id {uuid} PRIMARY KEY,
                    topic varchar(100) NOT NULL,
                    event_type varchar(100) NOT NULL,
                    entity_id {uuid} NOT NULL,
                    integration_id {uuid} NOT NULL,
                    service_name varchar(100) NOT NULL,
                    data {json} NOT NULL,
                    created_at {time} NOT NULL,
                    state varchar(20) NOT NULL,
                    available_at bigint NOT NULL,
                    lease_owner {uuid},
                    lease_until bigint,
                    published_at {time},
                    position bigint
                );
                CREATE INDEX outbox_pending ON outbox (topic, available_at) WHERE state = 'pending';
                CREATE INDEX outbox_leased ON outbox (lease_until) WHERE state = 'leased';
                CREATE INDEX outbox_published ON outbox (published_at) WHERE state = 'published';
                CREATE UNIQUE INDEX outbox_position ON outbox (position);
                CREATE TABLE event_position (
                    id integer PRIMARY KEY,
                    position bigint NOT NULL,
                    horizon bigint NOT NULL
                );
                INSERT INTO event_position (id, position, horizon) VALUES (1, 0, 0);
                CREATE TABLE dead_letters (
                    id {uuid} PRIMARY KEY,
                    topic varchar(100) NOT NULL,
                    event_type varchar(100) NOT NULL,
                    entity_id {uuid} NOT NULL,
                    integration_id {uuid} NOT NULL,
                    run_id {uuid} NOT NULL,
                    data {json} NOT NULL,
                    attempts integer NOT NULL,
                    reason text NOT NULL,
                    parked_at {time} NOT NULL
                )",
                uuid = t.uuid,
                time = t.time,
                json = t.json,
            ),
        )
        .await?;
        register(manager, "005", "outbox, event positions, dead letters").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP TABLE dead_letters; DROP TABLE event_position; DROP TABLE outbox",
        )
        .await?;
        unregister(manager, "005").await
    }
}
