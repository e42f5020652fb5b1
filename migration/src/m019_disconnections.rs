//! Accounts whose access was ended, what the service answered, and what a death left undone of it; and
//! consents by their end.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let t = types(manager);
        let (uuid, time) = (t.uuid, t.time);
        // They outlive what they name, so they refer to nothing.
        run(
            manager,
            &format!(
                "CREATE TABLE disconnections (
                    id {uuid} PRIMARY KEY,
                    integration_id {uuid} NOT NULL,
                    entity_id {uuid} NOT NULL,
                    service_name varchar(100) NOT NULL,
                    records varchar(10) CHECK (records IN ('keep', 'delete')),
                    requested_at {time} NOT NULL,
                    outcome varchar(20),
                    detail text,
                    answered_at {time},
                    record_count bigint,
                    finished_at {time},
                    lease_until bigint
                );
                CREATE UNIQUE INDEX disconnections_unfinished ON disconnections (integration_id)
                    WHERE finished_at IS NULL;
                CREATE INDEX disconnections_integration ON disconnections (integration_id);
                CREATE INDEX disconnections_leases ON disconnections (lease_until)
                    WHERE finished_at IS NULL;
                CREATE INDEX disconnections_finished ON disconnections (finished_at);
                CREATE INDEX disconnections_failed ON disconnections (requested_at)
                    WHERE outcome = 'failed';
                CREATE INDEX entity_integrations_consents ON entity_integrations (consent_expires_at)
                    WHERE consent_expires_at IS NOT NULL;
                CREATE TABLE entity_removals (
                    entity_id {uuid} PRIMARY KEY,
                    requested_at {time} NOT NULL,
                    lease_until bigint NOT NULL
                )"
            ),
        )
        .await?;
        register(manager, "019", "disconnections").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP TABLE entity_removals; DROP INDEX entity_integrations_consents;
             DROP TABLE disconnections",
        )
        .await?;
        unregister(manager, "019").await
    }
}
