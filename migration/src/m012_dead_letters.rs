//! Dead letters also of messages that name no run, and what became of each.

use sea_orm_migration::prelude::*;

use crate::{is_postgres, register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The columns as the change before made them.
const BEFORE: &str = "id, topic, event_type, entity_id, integration_id, run_id, data, attempts,
    reason, parked_at";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let t = types(manager);
        let (uuid, time, json) = (t.uuid, t.time, t.json);
        if is_postgres(manager) {
            run(
                manager,
                &format!(
                    "ALTER TABLE dead_letters
                        ALTER COLUMN entity_id DROP NOT NULL,
                        ALTER COLUMN integration_id DROP NOT NULL,
                        ALTER COLUMN run_id DROP NOT NULL,
                        ADD COLUMN attributes {json},
                        ADD COLUMN redriven_at {time},
                        ADD COLUMN redriven_run_id {uuid};
                     CREATE INDEX dead_letters_open ON dead_letters (id) WHERE redriven_at IS NULL"
                ),
            )
            .await?;
        } else {
            // SQLite cannot change what a column may hold.
            run(
                manager,
                &format!(
                    "CREATE TABLE dead_letters_wider (
                        id {uuid} PRIMARY KEY,
                        topic varchar(100) NOT NULL,
                        event_type varchar(100) NOT NULL,
                        entity_id {uuid},
                        integration_id {uuid},
                        run_id {uuid},
                        data {json} NOT NULL,
                        attempts integer NOT NULL,
                        reason text NOT NULL,
                        parked_at {time} NOT NULL,
                        attributes {json},
                        redriven_at {time},
                        redriven_run_id {uuid}
                    );
                    INSERT INTO dead_letters_wider ({BEFORE}) SELECT {BEFORE} FROM dead_letters;
                    DROP TABLE dead_letters;
                    ALTER TABLE dead_letters_wider RENAME TO dead_letters;
                    CREATE INDEX dead_letters_open ON dead_letters (id) WHERE redriven_at IS NULL"
                ),
            )
            .await?;
        }
        register(manager, "012", "dead letters of any message").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let named = "entity_id IS NOT NULL AND integration_id IS NOT NULL AND run_id IS NOT NULL";
        if is_postgres(manager) {
            run(
                manager,
                &format!(
                    "DROP INDEX dead_letters_open;
                     DELETE FROM dead_letters WHERE NOT ({named});
                     ALTER TABLE dead_letters
                        DROP COLUMN attributes,
                        DROP COLUMN redriven_at,
                        DROP COLUMN redriven_run_id,
                        ALTER COLUMN entity_id SET NOT NULL,
                        ALTER COLUMN integration_id SET NOT NULL,
                        ALTER COLUMN run_id SET NOT NULL"
                ),
            )
            .await?;
        } else {
            let t = types(manager);
            let (uuid, time, json) = (t.uuid, t.time, t.json);
            run(
                manager,
                &format!(
                    "CREATE TABLE dead_letters_narrower (
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
                    );
                    INSERT INTO dead_letters_narrower ({BEFORE})
                        SELECT {BEFORE} FROM dead_letters WHERE {named};
                    DROP TABLE dead_letters;
                    ALTER TABLE dead_letters_narrower RENAME TO dead_letters"
                ),
            )
            .await?;
        }
        unregister(manager, "012").await
    }
}
