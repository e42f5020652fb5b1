//! `raw_data`: what was ingested, one row an item. The table is the platform's own, with columns
//! of ours.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Db, DbError, MAX_LIST, Slice, Slicing, Sql, Tx, sync_listing::split_labels};
use crate::domain::{
    EntityId, IntegrationId, RecordId, RunId,
    record::{Change, ChangedRecord, TRUST},
    sync::Scope,
    time,
};

/// One ingested item.
#[derive(Debug, Clone, FromQueryResult, Serialize, ToSchema)]
#[schema(as = Record)]
pub struct RawData {
    /// Its id.
    pub id: RecordId,
    /// The owner.
    pub entity_id: EntityId,
    /// The integration it came by; null once that was removed.
    pub integration_id: Option<IntegrationId>,
    /// The service's id of the item.
    pub external_id: Option<String>,
    /// What kind of item, for instance `email`.
    pub data_type: String,
    /// The readable text, without what the sender hid in it; null once erased.
    pub data_content: Option<String>,
    /// Everything else that is known; for an `email` for instance `subject`, `from`, `to`, `date`,
    /// `thread_id`, `labels`, `attachments`, `html` (sanitised) and `warnings`. It comes from outside
    /// and is marked so: `trust` is `untrusted_external`.
    #[schema(value_type = Option<Object>)]
    pub meta_data: Option<JsonValue>,
    /// Lower-case hex SHA-256 of text and metadata, without labels.
    pub content_hash: Option<String>,
    /// When it was first stored.
    #[serde(serialize_with = "time::serialize")]
    pub ingested_at: DateTime<Utc>,
    /// When it last changed.
    #[serde(serialize_with = "time::serialize_option")]
    pub updated_at: Option<DateTime<Utc>>,
    /// When it was erased, because the service no longer has it.
    #[serde(serialize_with = "time::serialize_option")]
    pub deleted_at: Option<DateTime<Utc>>,
}

const SHOWN: &str = "id, entity_id, integration_id, external_id, data_type, data_content, \
                     meta_data, content_hash, ingested_at, updated_at, deleted_at";

/// A row to be written.
#[derive(Debug)]
pub struct NewRow {
    /// Its id, unless the item has a row already.
    pub id: RecordId,
    /// The service's id of the item.
    pub external_id: String,
    /// What kind of item.
    pub data_type: &'static str,
    /// The readable text.
    pub data_content: String,
    /// Everything else, labels included.
    pub meta_data: JsonValue,
    /// See [`RawData::content_hash`].
    pub content_hash: String,
    /// What tells other copies of the item, where it is an e-mail.
    pub message_key: Option<String>,
    /// Whether the service itself has not shown the item.
    pub imported: bool,
    /// Names of labels whose ids are not known yet.
    pub label_names: Vec<String>,
}

/// What is stored of an item.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The row.
    pub id: RecordId,
    /// What kind of item.
    pub data_type: String,
    /// Its hash.
    pub content_hash: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether it was erased.
    pub deleted: bool,
}

impl Stored {
    /// The row as an event names it.
    pub fn changed(&self, external_id: &str, change: Change) -> ChangedRecord {
        ChangedRecord {
            id: self.id,
            external_id: external_id.to_owned(),
            data_type: self.data_type.clone(),
            change,
            content_hash: self.content_hash.clone(),
        }
    }
}

#[derive(FromQueryResult)]
pub(super) struct StoredRow {
    id: RecordId,
    external_id: String,
    data_type: String,
    content_hash: Option<String>,
    labels: Option<JsonValue>,
    deleted_at: Option<DateTime<Utc>>,
}

impl StoredRow {
    pub(super) fn into_stored(self) -> (String, Stored) {
        let labels = self
            .labels
            .and_then(|labels| serde_json::from_value(labels).ok());
        let stored = Stored {
            id: self.id,
            data_type: self.data_type,
            content_hash: self.content_hash.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            deleted: self.deleted_at.is_some(),
        };
        (self.external_id, stored)
    }
}

/// Which of these items have a row that is not erased.
pub async fn stored_ids(
    db: &Db,
    integration: IntegrationId,
    ids: &[String],
) -> Result<HashSet<String>, DbError> {
    let mut found = HashSet::with_capacity(ids.len());
    for chunk in ids.chunks(MAX_LIST) {
        let rows: Vec<Id> = Sql::new(
            "SELECT external_id FROM raw_data
             WHERE integration_id = $1 AND deleted_at IS NULL AND external_id IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .all(db.reader())
        .await?;
        found.extend(rows.into_iter().map(|row| row.external_id));
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Id {
    external_id: String,
}

/// Whether the integration has any row.
pub async fn has_any(db: &Db, integration: IntegrationId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT 1 FROM raw_data WHERE integration_id = $1 LIMIT 1",
        [integration.into()],
    )
    .optional::<i32>(db.reader())
    .await
    .map(|found| found.is_some())
}

/// Whether the integration has any row that the service itself has shown.
pub async fn has_shown(db: &Db, integration: IntegrationId) -> Result<bool, DbError> {
    // Both are counted in an index; whether one row is imported stands behind its content.
    Sql::new(
        "SELECT (SELECT count(*) FROM raw_data WHERE integration_id = $1)
              > (SELECT count(*) FROM raw_data WHERE integration_id = $1 AND imported = true)",
        [integration.into()],
    )
    .scalar(db.reader())
    .await
}

/// The item stored last that the service itself has shown and that is not erased.
pub async fn newest_id(db: &Db, integration: IntegrationId) -> Result<Option<String>, DbError> {
    Sql::new(
        "SELECT external_id FROM raw_data
         WHERE integration_id = $1 AND deleted_at IS NULL AND imported = false
         ORDER BY id DESC LIMIT 1",
        [integration.into()],
    )
    .optional(db.reader())
    .await
}

/// What is stored of these items, erased ones included.
pub async fn lookup(
    tx: &Tx,
    integration: IntegrationId,
    ids: &[String],
) -> Result<HashMap<String, Stored>, DbError> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(MAX_LIST) {
        let rows: Vec<StoredRow> = Sql::new(
            "SELECT id, external_id, data_type, content_hash, meta_data -> 'labels' AS labels,
                deleted_at
             FROM raw_data WHERE integration_id = $1 AND external_id IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .all(&tx.inner)
        .await?;
        found.extend(rows.into_iter().map(StoredRow::into_stored));
    }
    Ok(found)
}

/// Inserts rows, or rewrites those that exist.
pub async fn upsert(
    tx: &Tx,
    entity: EntityId,
    integration: IntegrationId,
    rows: Vec<NewRow>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "INSERT INTO raw_data (id, entity_id, integration_id, external_id, data_type, data_content,
            meta_data, content_hash, message_key, imported, label_names, ingested_at, updated_at)
         VALUES ",
        [],
    );
    let mut separator = "";
    for row in rows {
        let label_names = (!row.label_names.is_empty()).then(|| json!(row.label_names));
        sql = sql.push(separator).tuple([
            Value::from(row.id),
            entity.into(),
            integration.into(),
            row.external_id.into(),
            row.data_type.into(),
            row.data_content.into(),
            row.meta_data.into(),
            row.content_hash.into(),
            row.message_key.into(),
            row.imported.into(),
            label_names.into(),
            now.into(),
            now.into(),
        ]);
        separator = ", ";
    }
    sql.push(
        " ON CONFLICT (integration_id, external_id) DO UPDATE SET
            data_type = excluded.data_type, data_content = excluded.data_content,
            meta_data = excluded.meta_data, content_hash = excluded.content_hash,
            message_key = excluded.message_key, imported = excluded.imported,
            label_names = excluded.label_names, updated_at = excluded.updated_at, deleted_at = NULL, missing_since = NULL",
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Replaces the labels of a row; whatever names waited are known now.
pub async fn set_labels(
    tx: &Tx,
    id: RecordId,
    labels: &[String],
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let set = match sea_orm::ConnectionTrait::get_database_backend(&tx.inner) {
        sea_orm::DbBackend::Postgres => "jsonb_set(meta_data, '{labels}', $2)",
        _ => "json_set(meta_data, '$.labels', json($2))",
    };
    Sql::new(
        format!(
            "UPDATE raw_data SET meta_data = {set}, label_names = NULL, updated_at = $3
             WHERE id = $1"
        ),
        [id.into(), json!(labels).into(), now.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Erases content and personal fields; ids and the hash stay, as the proof that there was a row.
pub async fn erase(
    tx: &Tx,
    integration: IntegrationId,
    ids: &[RecordId],
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let left = json!({"integration_id": integration, "trust": TRUST, "labels": []});
    for chunk in ids.chunks(MAX_LIST) {
        Sql::new(
            "UPDATE raw_data SET data_content = NULL, meta_data = $1, updated_at = $2,
                deleted_at = $2, missing_since = NULL, label_names = NULL
             WHERE id IN ",
            [left.clone().into(), now.into()],
        )
        .tuple(chunk.iter().copied())
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// Rows of a type that the service has shown before and that the listing of `run` does not show.
const NOT_LISTED: &str = "FROM raw_data r
     WHERE r.integration_id = $1 AND r.data_type = $3 AND r.deleted_at IS NULL AND r.imported = false
       AND NOT EXISTS (SELECT 1 FROM sync_listing l
                       WHERE l.run_id = $2 AND l.external_id = r.external_id AND l.seen)";

/// And that no listing of an earlier run showed either: what one run lists twice, in the middle of one
/// disturbance perhaps, agrees with itself.
const CONFIRMED: &str = "AND r.missing_since <= (SELECT requested_at FROM sync_runs WHERE id = $2)";

/// What a finished listing leaves over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromQueryResult)]
pub struct Missing {
    /// Rows that are not erased and that the service has shown.
    pub stored: i64,
    /// Those of them that the listing did not show.
    pub missing: i64,
    /// Those of the missing that a listing of an earlier run did not show either.
    pub confirmed: i64,
}

/// Counts what of `data_type` the listing of `run` did not show.
pub async fn count_missing(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    data_type: &str,
) -> Result<Missing, DbError> {
    Sql::new(
        format!(
            "SELECT
                (SELECT count(*) FROM raw_data
                 WHERE integration_id = $1 AND data_type = $3 AND deleted_at IS NULL
                   AND imported = false) AS stored,
                (SELECT count(*) {NOT_LISTED}) AS missing,
                (SELECT count(*) {NOT_LISTED} {CONFIRMED}) AS confirmed"
        ),
        [integration.into(), run.into(), data_type.into()],
    )
    .one(&tx.inner)
    .await?
    .ok_or(DbError::NotFound)
}

/// Up to `limit` rows of `data_type` that the listing of `run` did not show; only those that
/// an earlier run's did not show either, if `confirmed_only`.
pub async fn missing(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    data_type: &str,
    confirmed_only: bool,
    limit: u64,
) -> Result<Vec<(String, Stored)>, DbError> {
    let condition = match confirmed_only {
        true => CONFIRMED,
        false => "",
    };
    let rows: Vec<StoredRow> = Sql::new(
        format!(
            "SELECT r.id, r.external_id, r.data_type, r.content_hash,
                r.meta_data -> 'labels' AS labels, r.deleted_at
             {NOT_LISTED} {condition} LIMIT $4"
        ),
        [
            integration.into(),
            run.into(),
            data_type.into(),
            (limit as i64).into(),
        ],
    )
    .all(&tx.inner)
    .await?;
    Ok(rows.into_iter().map(StoredRow::into_stored).collect())
}

/// Forgets of the rows that the listing of `run` did show that an earlier one did not.
pub async fn forget_missing(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
) -> Result<(), DbError> {
    Sql::new(
        "UPDATE raw_data SET missing_since = NULL
         WHERE integration_id = $1 AND missing_since IS NOT NULL
           AND EXISTS (SELECT 1 FROM sync_listing l
                       WHERE l.run_id = $2 AND l.external_id = raw_data.external_id
                         AND l.seen)",
        [integration.into(), run.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Remembers which rows of `data_type` the listing of `run` did not show.
pub async fn mark_missing(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    data_type: &str,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    Sql::new(
        format!(
            "UPDATE raw_data SET missing_since = coalesce(missing_since, $4)
             WHERE id IN (SELECT r.id {NOT_LISTED})"
        ),
        [integration.into(), run.into(), data_type.into(), now.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// A stored row beside the labels that a resync listed it with.
#[derive(Debug)]
pub struct Relabelled {
    /// The service's id of the item.
    pub external_id: String,
    /// What is stored.
    pub stored: Stored,
    /// What the listing said.
    pub listed: Vec<String>,
}

#[derive(FromQueryResult)]
struct RelabelledRow {
    id: RecordId,
    external_id: String,
    data_type: String,
    content_hash: Option<String>,
    labels: Option<JsonValue>,
    deleted_at: Option<DateTime<Utc>>,
    listed: Option<String>,
}

/// Up to `limit` stored rows that the listing of `run` shows, in order of their external id after
/// `after`, with both sets of labels.
pub async fn listed_labels(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    after: &str,
    limit: u64,
) -> Result<Vec<Relabelled>, DbError> {
    let rows: Vec<RelabelledRow> = Sql::new(
        "SELECT r.id, r.external_id, r.data_type, r.content_hash,
            r.meta_data -> 'labels' AS labels, r.deleted_at, l.labels AS listed
         FROM sync_listing l
         JOIN raw_data r ON r.integration_id = $1 AND r.external_id = l.external_id
         WHERE l.run_id = $2 AND l.seen AND l.external_id > $3 AND r.deleted_at IS NULL
         ORDER BY l.external_id LIMIT $4",
        [
            integration.into(),
            run.into(),
            after.into(),
            (limit as i64).into(),
        ],
    )
    .all(&tx.inner)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let listed = split_labels(row.listed.as_deref());
            let (external_id, stored) = StoredRow {
                id: row.id,
                external_id: row.external_id,
                data_type: row.data_type,
                content_hash: row.content_hash,
                labels: row.labels,
                deleted_at: row.deleted_at,
            }
            .into_stored();
            Relabelled {
                external_id,
                stored,
                listed,
            }
        })
        .collect())
}

/// One record, if `scope` may see it.
pub async fn find(db: &Db, scope: Scope, id: RecordId, deleted: bool) -> Result<RawData, DbError> {
    let mut sql = Sql::new(
        format!("SELECT {SHOWN} FROM raw_data WHERE id = $1"),
        [id.into()],
    )
    .owned_by(scope);
    if !deleted {
        sql = sql.push(" AND deleted_at IS NULL");
    }
    sql.one(db.reader()).await?.ok_or(DbError::NotFound)
}

/// Records of an integration, newest first.
pub async fn list(
    db: &Db,
    scope: Scope,
    integration: IntegrationId,
    deleted: bool,
    slicing: Slicing,
) -> Result<Slice<RawData>, DbError> {
    let mut sql = Sql::new(
        format!("SELECT {SHOWN} FROM raw_data WHERE integration_id = $1"),
        [integration.into()],
    )
    .owned_by(scope);
    if !deleted {
        sql = sql.push(" AND deleted_at IS NULL");
    }
    sql.slice(slicing, db.reader()).await
}
