//! `former_integrations`: what a removed integration leaves behind, so that its records can be adopted
//! when the same entity connects the same account again.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{DbError, Sql, Tx, integration::Integration};
use crate::domain::IntegrationId;

/// Remembers a removed integration by its account, so that its records can be adopted.
pub async fn insert(
    tx: &Tx,
    row: &Integration,
    account: &str,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO former_integrations (id, entity_id, service_name, account, removed_at)
         VALUES ($1, $2, $3, $4, $5)",
        [
            row.id.into(),
            row.entity_id.into(),
            row.service_name.clone().into(),
            account.into(),
            now.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Removed integrations of the same entity, service and account.
pub async fn of_account(
    tx: &Tx,
    row: &Integration,
    account: &str,
) -> Result<Vec<IntegrationId>, DbError> {
    let rows: Vec<Former> = Sql::new(
        "SELECT id FROM former_integrations
         WHERE entity_id = $1 AND service_name = $2 AND account = $3 ORDER BY id",
        [
            row.entity_id.into(),
            row.service_name.clone().into(),
            account.into(),
        ],
    )
    .all(&tx.inner)
    .await?;
    Ok(rows.into_iter().map(|former| former.id).collect())
}

/// The service of a removed integration; `None` where its account was never known, or its records were
/// adopted, and its removal is forgotten too.
pub async fn service_of(tx: &Tx, id: IntegrationId) -> Result<Option<String>, DbError> {
    Sql::new(
        "SELECT service_name FROM former_integrations WHERE id = $1
         UNION ALL SELECT service_name FROM disconnections WHERE integration_id = $1 LIMIT 1",
        [id.into()],
    )
    .optional(&tx.inner)
    .await
}

/// Its records are adopted; nothing is left to remember.
pub async fn delete(tx: &Tx, id: IntegrationId) -> Result<(), DbError> {
    Sql::new("DELETE FROM former_integrations WHERE id = $1", [id.into()])
        .execute(&tx.inner)
        .await
        .map(drop)
}

#[derive(FromQueryResult)]
struct Former {
    id: IntegrationId,
}
