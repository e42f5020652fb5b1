//! `sync_cursors`: where the next fetch of an integration's stream starts, and how far each file that
//! is being imported has come.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};
use serde::{Deserialize, Serialize};

use super::{Db, DbError, Sql, Tx};
use crate::domain::{IntegrationId, RunId};

/// Before the fingerprint of a file, in the name of its stream.
const FILE: &str = "import:";

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct SyncCursor {
    /// Opaque outside its connector.
    pub cursor_value: JsonValue,
    /// The run whose listing the cursor is in the middle of. Another run cannot go on with it,
    /// because what was listed is remembered by run.
    pub listing_run_id: Option<RunId>,
}

#[derive(FromQueryResult)]
struct InListing {
    stream: String,
    cursor_value: JsonValue,
}

/// The cursor of a stream, if there is one.
pub async fn load(
    db: &Db,
    integration: IntegrationId,
    stream: &str,
) -> Result<Option<SyncCursor>, DbError> {
    Sql::new(
        "SELECT cursor_value, listing_run_id FROM sync_cursors
         WHERE integration_id = $1 AND stream = $2",
        [integration.into(), stream.into()],
    )
    .one(db.reader())
    .await
}

/// Whether there is one of any stream.
pub async fn exists(tx: &Tx, integration: IntegrationId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT count(*) FROM sync_cursors WHERE integration_id = $1 AND stream NOT LIKE $2",
        [integration.into(), format!("{FILE}%").into()],
    )
    .scalar::<i64>(&tx.inner)
    .await
    .map(|count| count > 0)
}

/// Sets the cursor of a stream.
pub async fn save(
    tx: &Tx,
    integration: IntegrationId,
    stream: &str,
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
        stream.into(),
        cursor.cursor_value.clone().into(),
        cursor.listing_run_id.map(|id| id.0).into(),
        now.into(),
    ])
    .push(REPLACE)
    .execute(&tx.inner)
    .await
    .map(drop)
}

const REPLACE: &str = " ON CONFLICT (integration_id, stream) DO UPDATE SET
    cursor_value = excluded.cursor_value, listing_run_id = excluded.listing_run_id,
    updated_at = excluded.updated_at";

/// Forgets the cursor of a stream: all of it has to be listed again.
pub async fn clear(tx: &Tx, integration: IntegrationId, stream: &str) -> Result<(), DbError> {
    Sql::new(
        "DELETE FROM sync_cursors WHERE integration_id = $1 AND stream = $2",
        [integration.into(), stream.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The other streams, with their cursors, that are in the middle of a listing of `run`.
pub async fn other_listings(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    stream: &str,
) -> Result<Vec<(String, JsonValue)>, DbError> {
    let found: Vec<InListing> = Sql::new(
        "SELECT stream, cursor_value FROM sync_cursors
         WHERE integration_id = $1 AND listing_run_id = $2 AND stream <> $3",
        [integration.into(), run.into(), stream.into()],
    )
    .all(&tx.inner)
    .await?;
    let pairs = found.into_iter().map(|row| (row.stream, row.cursor_value));
    Ok(pairs.collect())
}

/// How far a file that is being imported has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// Bytes of the unpacked file that are imported.
    pub offset: u64,
    /// Lower-case hex SHA-256 of the messages in them: tells whether it is still the same file.
    pub digest: String,
}

/// How far the file with this fingerprint has come, if an import of it did not end.
pub async fn load_file(
    db: &Db,
    integration: IntegrationId,
    fingerprint: &str,
) -> Result<Option<FilePosition>, DbError> {
    let value: Option<JsonValue> = Sql::new(
        "SELECT cursor_value FROM sync_cursors WHERE integration_id = $1 AND stream = $2",
        [integration.into(), format!("{FILE}{fingerprint}").into()],
    )
    .optional(db.reader())
    .await?;
    // What another version wrote costs that the file is read from its beginning.
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// Sets how far a file has come; `None` where it is done.
pub async fn save_file(
    tx: &Tx,
    integration: IntegrationId,
    fingerprint: &str,
    position: Option<&FilePosition>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let stream = format!("{FILE}{fingerprint}");
    let Some(position) = position else {
        return clear(tx, integration, &stream).await;
    };
    Sql::new(
        "INSERT INTO sync_cursors (integration_id, stream, cursor_value, listing_run_id, updated_at)
         VALUES ",
        [],
    )
    .tuple([
        Value::from(integration),
        stream.into(),
        serde_json::json!(position).into(),
        None::<uuid::Uuid>.into(),
        now.into(),
    ])
    .push(REPLACE)
    .execute(&tx.inner)
    .await
    .map(drop)
}
