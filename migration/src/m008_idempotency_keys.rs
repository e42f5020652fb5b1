//! POST requests that were made under a key of the client's, with their answers, for a day.

use sea_orm_migration::prelude::*;

use crate::{is_postgres, register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let t = types(manager);
        let bytes = if is_postgres(manager) {
            "bytea"
        } else {
            "blob"
        };
        run(
            manager,
            &format!(
                "CREATE TABLE idempotency_keys (
                    id {uuid} PRIMARY KEY,
                    caller varchar(100) NOT NULL,
                    method varchar(10) NOT NULL,
                    path varchar(255) NOT NULL,
                    idempotency_key varchar(255) NOT NULL,
                    fingerprint varchar(64) NOT NULL,
                    fence bigint NOT NULL,
                    lease_until bigint NOT NULL,
                    status integer,
                    content_type varchar(100),
                    body {bytes},
                    created_at {time} NOT NULL,
                    UNIQUE (caller, method, path, idempotency_key)
                );
                CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at)",
                uuid = t.uuid,
                time = t.time,
            ),
        )
        .await?;
        register(manager, "008", "idempotency keys").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, "DROP TABLE idempotency_keys").await?;
        unregister(manager, "008").await
    }
}
