//! `raw_data`, as far as imports from files are concerned: copies of a message, rows that only an
//! import has brought, and labels of which only the names are known.

use std::collections::HashMap;

use sea_orm::{FromQueryResult, JsonValue};

use super::{
    Db, DbError, MAX_LIST, Sql, Tx,
    raw_data::{Stored, StoredRow},
};
use crate::domain::{IntegrationId, RecordId, message_key};

/// Whether the integration has a row that only an import has brought.
pub async fn has_any(db: &Db, integration: IntegrationId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT 1 FROM raw_data WHERE integration_id = $1 AND imported = true LIMIT 1",
        [integration.into()],
    )
    .optional::<i32>(db.reader())
    .await
    .map(|found| found.is_some())
}

/// A row that has a certain key.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The id the row has now.
    pub external_id: String,
    /// The row.
    pub stored: Stored,
}

#[derive(FromQueryResult)]
struct Key {
    message_key: String,
}

/// The rows with these keys, by key, erased ones included.
pub async fn copies(
    tx: &Tx,
    integration: IntegrationId,
    keys: &[String],
) -> Result<HashMap<String, Vec<Copy>>, DbError> {
    let mut found: HashMap<String, Vec<Copy>> = HashMap::new();
    for chunk in keys.chunks(MAX_LIST) {
        let rows = Sql::new(
            "SELECT id, external_id, data_type, content_hash, meta_data -> 'labels' AS labels,
                deleted_at, message_key
             FROM raw_data WHERE integration_id = $1 AND message_key IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .all::<Both<StoredRow, Key>>(&tx.inner)
        .await?;
        for Both(row, key) in rows {
            let (external_id, stored) = row.into_stored();
            found.entry(key.message_key).or_default().push(Copy {
                external_id,
                stored,
            });
        }
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Size {
    external_id: String,
    size_bytes: Option<i64>,
}

/// How many bytes those of these messages have that only an import has brought and that are not erased.
pub async fn sizes(
    tx: &Tx,
    integration: IntegrationId,
    ids: &[String],
) -> Result<HashMap<String, i64>, DbError> {
    let mut sizes = HashMap::new();
    for chunk in ids.chunks(MAX_LIST) {
        let rows: Vec<Size> = Sql::new(
            "SELECT external_id, CAST(meta_data ->> 'size_bytes' AS bigint) AS size_bytes
             FROM raw_data
             WHERE integration_id = $1 AND imported = true AND deleted_at IS NULL AND external_id IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .all(&tx.inner)
        .await?;
        let rows = rows.into_iter();
        sizes.extend(rows.filter_map(|row| Some((row.external_id, row.size_bytes?))));
    }
    Ok(sizes)
}

/// Deletes the rows with these ids or keys that only an import has brought, and says which had content.
pub async fn displace(
    tx: &Tx,
    integration: IntegrationId,
    external_ids: &[String],
    keys: &[String],
) -> Result<Vec<(String, Stored)>, DbError> {
    let mut displaced = Vec::new();
    for (column, values) in [("external_id", external_ids), ("message_key", keys)] {
        for chunk in values.chunks(MAX_LIST) {
            let rows: Vec<StoredRow> = Sql::new(
                format!(
                    "DELETE FROM raw_data
                     WHERE integration_id = $1 AND imported = true AND {column} IN "
                ),
                [integration.into()],
            )
            .tuple(chunk.iter().cloned())
            .push(" RETURNING id, external_id, data_type, content_hash, NULL AS labels, deleted_at")
            .all(&tx.inner)
            .await?;
            let rows = rows.into_iter().map(StoredRow::into_stored);
            displaced.extend(rows.filter(|(_, stored)| !stored.deleted));
        }
    }
    Ok(displaced)
}

/// Gives a row the id that the service has for its item.
pub async fn rename(tx: &Tx, id: RecordId, external_id: &str) -> Result<(), DbError> {
    Sql::new(
        "UPDATE raw_data SET external_id = $2 WHERE id = $1",
        [id.into(), external_id.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Remembers that the service itself has shown these items.
pub async fn mark_shown(
    tx: &Tx,
    integration: IntegrationId,
    ids: &[String],
) -> Result<(), DbError> {
    for chunk in ids.chunks(MAX_LIST) {
        Sql::new(
            "UPDATE raw_data SET imported = false
             WHERE integration_id = $1 AND imported = true AND external_id IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// Whether the integration has a row with labels of which only the names are known.
pub async fn has_label_names(db: &Db, integration: IntegrationId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT 1 FROM raw_data WHERE integration_id = $1 AND label_names IS NOT NULL LIMIT 1",
        [integration.into()],
    )
    .optional::<i32>(db.reader())
    .await
    .map(|found| found.is_some())
}

/// A row with labels of which only the names are known.
#[derive(Debug)]
pub struct Named {
    /// The service's id of the item.
    pub external_id: String,
    /// The row.
    pub stored: Stored,
    /// The names.
    pub names: Vec<String>,
}

#[derive(FromQueryResult)]
struct Names {
    label_names: JsonValue,
}

/// Up to `limit` rows with labels of which only the names are known.
pub async fn with_label_names(
    tx: &Tx,
    integration: IntegrationId,
    limit: u64,
) -> Result<Vec<Named>, DbError> {
    let rows = Sql::new(
        "SELECT id, external_id, data_type, content_hash, meta_data -> 'labels' AS labels,
            deleted_at, label_names
         FROM raw_data WHERE integration_id = $1 AND label_names IS NOT NULL LIMIT $2",
        [integration.into(), (limit as i64).into()],
    )
    .all::<Both<StoredRow, Names>>(&tx.inner)
    .await?;
    let named = rows.into_iter().map(|Both(row, names)| {
        let (external_id, stored) = row.into_stored();
        let names = serde_json::from_value(names.label_names)
            .map_err(|error| DbError::Schema(format!("raw_data.label_names: {error}")))?;
        Ok(Named {
            external_id,
            stored,
            names,
        })
    });
    named.collect()
}

/// Forgets the names of labels that these rows turned out to have already, or not to have.
pub async fn forget_label_names(tx: &Tx, ids: &[RecordId]) -> Result<(), DbError> {
    for chunk in ids.chunks(MAX_LIST) {
        Sql::new("UPDATE raw_data SET label_names = NULL WHERE id IN ", [])
            .tuple(chunk.iter().copied())
            .execute(&tx.inner)
            .await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Keyless {
    id: RecordId,
    data_content: String,
    meta_data: Option<JsonValue>,
}

/// Gives up to `limit` e-mails a key that an older version stored without one; says how many.
pub async fn fill_message_keys(
    tx: &Tx,
    integration: IntegrationId,
    limit: u64,
) -> Result<u64, DbError> {
    let rows: Vec<Keyless> = Sql::new(
        "SELECT id, data_content, meta_data FROM raw_data
         WHERE integration_id = $1 AND message_key IS NULL AND data_type = 'email'
           AND data_content IS NOT NULL
         ORDER BY id LIMIT $2",
        [integration.into(), (limit as i64).into()],
    )
    .all(&tx.inner)
    .await?;
    for row in &rows {
        let meta_data = row.meta_data.as_ref().unwrap_or(&JsonValue::Null);
        let key = message_key::message_key(meta_data, &row.data_content);
        Sql::new(
            "UPDATE raw_data SET message_key = $2 WHERE id = $1",
            [row.id.into(), key.into()],
        )
        .execute(&tx.inner)
        .await?;
    }
    Ok(rows.len() as u64)
}

/// Two readings of one row.
pub(super) struct Both<A, B>(pub(super) A, pub(super) B);

impl<A: FromQueryResult, B: FromQueryResult> FromQueryResult for Both<A, B> {
    fn from_query_result(row: &sea_orm::QueryResult, prefix: &str) -> Result<Self, sea_orm::DbErr> {
        Ok(Self(
            A::from_query_result(row, prefix)?,
            B::from_query_result(row, prefix)?,
        ))
    }
}
