//! What an API key may do, and when it was last used.

use sea_orm_migration::prelude::*;

use crate::{register, run, types, unregister};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let time = types(manager).time;
        // A key that was made before scopes may go on doing everything.
        run(
            manager,
            &format!(
                "ALTER TABLE api_keys ADD COLUMN scope varchar(5) NOT NULL DEFAULT 'write';
                 ALTER TABLE api_keys ADD COLUMN last_used_at {time};
                 CREATE INDEX api_keys_entity_id ON api_keys (entity_id)"
            ),
        )
        .await?;
        register(manager, "017", "scopes and uses of api keys").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            "DROP INDEX api_keys_entity_id;
             ALTER TABLE api_keys DROP COLUMN last_used_at;
             ALTER TABLE api_keys DROP COLUMN scope",
        )
        .await?;
        unregister(manager, "017").await
    }
}
