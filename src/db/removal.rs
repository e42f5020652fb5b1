//! `raw_data`, as far as removals are concerned: rows that are let go or deleted with their integration or
//! their entity, some at a time, and rows that another integration adopts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{
    DbError, MAX_LIST, Sql, Tx,
    imported::{self, Both},
    raw_data::{Stored, StoredRow},
};
use crate::domain::{EntityId, IntegrationId, RecordId, message_key::KEYED};

/// Lets up to `limit` rows of an integration that is being removed go, and says how many. They can be
/// adopted once it is among the former ones.
pub async fn release_some(tx: &Tx, integration: IntegrationId, limit: u64) -> Result<u64, DbError> {
    Sql::new(
        "UPDATE raw_data SET former_integration_id = integration_id, integration_id = NULL
         WHERE id IN (SELECT id FROM raw_data WHERE integration_id = $1 LIMIT $2)",
        [integration.into(), (limit as i64).into()],
    )
    .execute(&tx.inner)
    .await
}

/// What one step of an adoption did.
#[derive(Debug)]
pub struct Adopted {
    /// Rows that came.
    pub rows: usize,
    /// Rows that went, because only an import had brought them and what came is the same item.
    pub displaced: Vec<(String, Stored)>,
}

/// Gives up to `limit` rows of a removed integration to another of the same account. Of one item that row
/// is kept, erased or not, and not the one that an import has brought before the adoption. Two removed
/// integrations may both have had a row of one item: the first is kept.
pub async fn adopt(
    tx: &Tx,
    former: IntegrationId,
    integration: IntegrationId,
    limit: u64,
) -> Result<Adopted, DbError> {
    let rows: Vec<Row> = Sql::new(
        "SELECT id, external_id, message_key, deleted_at FROM raw_data r
         WHERE former_integration_id = $1
           AND NOT EXISTS (SELECT 1 FROM raw_data o
                           WHERE o.integration_id = $2 AND o.external_id = r.external_id
                             AND o.imported = false)
         LIMIT $3",
        [former.into(), integration.into(), (limit as i64).into()],
    )
    .all(&tx.inner)
    .await?;
    let named = rows.iter().map(|row| row.external_id.clone());
    // As in an import, a copy that the service has not named is the same item.
    let keys = rows.iter().filter_map(|row| row.message_key.as_deref());
    let ids: Vec<String> = named
        .chain(keys.map(|key| format!("{KEYED}{key}")))
        .collect();
    let unnamed = rows
        .iter()
        .filter(|row| row.external_id.starts_with(KEYED) && row.deleted_at.is_none());
    let unnamed: Vec<String> = unnamed.filter_map(|row| row.message_key.clone()).collect();
    let displaced = imported::displace(tx, integration, &ids, &unnamed).await?;
    let set = match sea_orm::ConnectionTrait::get_database_backend(&tx.inner) {
        sea_orm::DbBackend::Postgres => {
            "jsonb_set(meta_data, '{integration_id}', to_jsonb($2::text))"
        }
        _ => "json_set(meta_data, '$.integration_id', $2)",
    };
    for chunk in rows.chunks(MAX_LIST) {
        Sql::new(
            format!(
                "UPDATE raw_data SET integration_id = $1, former_integration_id = NULL,
                    meta_data = {set} WHERE id IN "
            ),
            [integration.into(), integration.to_string().into()],
        )
        .tuple(chunk.iter().map(|row| row.id))
        .execute(&tx.inner)
        .await?;
    }
    Ok(Adopted {
        rows: rows.len(),
        displaced,
    })
}

#[derive(FromQueryResult)]
struct Row {
    id: RecordId,
    external_id: String,
    message_key: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
}

/// Deletes up to `limit` rows of an integration for good and says which: those too that were let go
/// before its owner changed their mind.
pub async fn delete_some(
    tx: &Tx,
    integration: IntegrationId,
    limit: u64,
) -> Result<Vec<(String, Stored)>, DbError> {
    let rows: Vec<StoredRow> = Sql::new(
        "DELETE FROM raw_data WHERE id IN (
            SELECT id FROM raw_data WHERE integration_id = $1
            UNION ALL SELECT id FROM raw_data WHERE former_integration_id = $1 LIMIT $2)
         RETURNING id, external_id, data_type, content_hash, NULL AS labels, deleted_at",
        [integration.into(), (limit as i64).into()],
    )
    .all(&tx.inner)
    .await?;
    Ok(rows.into_iter().map(StoredRow::into_stored).collect())
}

/// Rows of an entity that were deleted.
#[derive(Debug)]
pub struct Deleted {
    /// How many.
    pub count: usize,
    /// Those of them that removed integrations had let go.
    pub of_former: BTreeMap<IntegrationId, Vec<(String, Stored)>>,
}

#[derive(FromQueryResult)]
struct Former {
    former_integration_id: Option<IntegrationId>,
}

/// Deletes up to `limit` rows of an entity for good, whatever brought them.
pub async fn delete_of_entity(tx: &Tx, entity: EntityId, limit: u64) -> Result<Deleted, DbError> {
    // The platform's own rows have no id of a service's.
    let rows = Sql::new(
        "DELETE FROM raw_data WHERE id IN (SELECT id FROM raw_data WHERE entity_id = $1 LIMIT $2)
         RETURNING id, coalesce(external_id, '') AS external_id, data_type, content_hash,
            NULL AS labels, deleted_at, former_integration_id",
        [entity.into(), (limit as i64).into()],
    )
    .all::<Both<StoredRow, Former>>(&tx.inner)
    .await?;
    let count = rows.len();
    let mut of_former: BTreeMap<IntegrationId, Vec<(String, Stored)>> = BTreeMap::new();
    for Both(
        row,
        Former {
            former_integration_id,
        },
    ) in rows
    {
        if let Some(former) = former_integration_id {
            of_former.entry(former).or_default().push(row.into_stored());
        }
    }
    Ok(Deleted { count, of_former })
}
