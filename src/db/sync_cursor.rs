//! `sync_cursors`: where the next fetch of an integration's stream starts.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};

use super::{Db, DbError, Sql, Tx};
use crate::domain::{IntegrationId, RunId};

/// The one stream of connectors that have one.
const STREAM: &str = "main";

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct SyncCursor {
    /// Opaque outside its connector.
    pub cursor_value: JsonValue,
    /// The run whose listing the cursor is in the middle of. Another run cannot go on with it,
    /// because what was listed is remembered by run.
    pub listing_run_id: Option<RunId>,
}

/// The cursor, if there is one.
pub async fn load(db: &Db, integration: IntegrationId) -> Result<Option<SyncCursor>, DbError> {
    Sql::new(
        "SELECT cursor_value, listing_run_id FROM sync_cursors
         WHERE integration_id = $1 AND stream = $2",
        [integration.into(), STREAM.into()],
    )
    .one(db.reader())
    .await
}

/// Whether there is one.
pub async fn exists(tx: &Tx, integration: IntegrationId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT count(*) FROM sync_cursors WHERE integration_id = $1 AND stream = $2",
        [integration.into(), STREAM.into()],
    )
    .scalar::<i64>(&tx.inner)
    .await
    .map(|count| count > 0)
}

/// Sets the cursor.
pub async fn save(
    tx: &Tx,
    integration: IntegrationId,
    cursor: &SyncCursor,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO sync_cursors (integration_id, stream, cursor_value, listing_run_id, updated_at)
         VALUES ",
        [],
    )
    .tuple([
        Value::from(integration),
        STREAM.into(),
        cursor.cursor_value.clone().into(),
        cursor.listing_run_id.map(|id| id.0).into(),
        now.into(),
    ])
    .push(
        " ON CONFLICT (integration_id, stream) DO UPDATE SET
            cursor_value = excluded.cursor_value, listing_run_id = excluded.listing_run_id,
            updated_at = excluded.updated_at",
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Forgets the cursor: everything has to be listed again.
pub async fn clear(tx: &Tx, integration: IntegrationId) -> Result<(), DbError> {
    Sql::new(
        "DELETE FROM sync_cursors WHERE integration_id = $1",
        [integration.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}
