//! Runs and what they keep between batches: cursors, seen ids, gaps, spent quota.

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
                "CREATE TABLE sync_runs (
                    id {uuid} PRIMARY KEY,
                    integration_id {uuid} NOT NULL
                        REFERENCES entity_integrations (id) ON DELETE CASCADE,
                    entity_id {uuid} NOT NULL,
                    service_name varchar(100) NOT NULL,
                    kind varchar(20) NOT NULL,
                    triggered_by varchar(20) NOT NULL,
                    mode varchar(20) NOT NULL,
                    status varchar(20) NOT NULL,
                    counts {json} NOT NULL,
                    quota_units bigint NOT NULL DEFAULT 0,
                    events bigint NOT NULL DEFAULT 0,
                    requested_at {time} NOT NULL,
                    started_at {time},
                    finished_at {time},
                    again_at {time},
                    error_code varchar(100),
                    error_detail text,
                    fence bigint NOT NULL DEFAULT 0,
                    lease_until bigint,
                    lease_owner {uuid},
                    attempts integer NOT NULL DEFAULT 0,
                    cancel_requested boolean NOT NULL DEFAULT false,
                    confirm_mass_deletion boolean NOT NULL DEFAULT false
                );
                CREATE UNIQUE INDEX sync_runs_one_active ON sync_runs (integration_id)
                    WHERE status IN ('queued', 'running');
                CREATE INDEX sync_runs_integration_id ON sync_runs (integration_id, id);
                CREATE INDEX sync_runs_lease_until ON sync_runs (lease_until)
                    WHERE status = 'running';
                CREATE TABLE sync_cursors (
                    integration_id {uuid} NOT NULL
                        REFERENCES entity_integrations (id) ON DELETE CASCADE,
                    stream varchar(100) NOT NULL,
                    cursor_value {json} NOT NULL,
                    listing_run_id {uuid},
                    updated_at {time} NOT NULL,
                    PRIMARY KEY (integration_id, stream)
                );
                CREATE TABLE sync_listing (
                    run_id {uuid} NOT NULL,
                    external_id text NOT NULL,
                    outcome varchar(40) NOT NULL,
                    labels text,
                    seen boolean NOT NULL DEFAULT true,
                    PRIMARY KEY (run_id, external_id)
                );
                CREATE TABLE sync_gaps (
                    integration_id {uuid} NOT NULL
                        REFERENCES entity_integrations (id) ON DELETE CASCADE,
                    external_id text NOT NULL,
                    reason varchar(100) NOT NULL,
                    detail text NOT NULL,
                    attempts integer NOT NULL,
                    given_up boolean NOT NULL,
                    run_id {uuid} NOT NULL,
                    first_failed_at {time} NOT NULL,
                    last_failed_at {time} NOT NULL,
                    PRIMARY KEY (integration_id, external_id)
                );
                CREATE TABLE quota_windows (
                    integration_id {uuid} PRIMARY KEY
                        REFERENCES entity_integrations (id) ON DELETE CASCADE,
                    spending {json} NOT NULL
                )",
                uuid = t.uuid,
                time = t.time,
                json = t.json,
            ),
        )
        .await?;
        register(
            manager,
            "004",
            "sync runs, cursors, listings, gaps, quota windows",
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP TABLE quota_windows; DROP TABLE sync_gaps; DROP TABLE sync_listing;
             DROP TABLE sync_cursors; DROP TABLE sync_runs",
        )
        .await?;
        unregister(manager, "004").await
    }
}
