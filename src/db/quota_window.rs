//! `quota_windows`: what an integration spent in the last minute, so that a restart does not make
//! the service refuse.

use sea_orm::JsonValue;

use super::{Db, DbError, Sql, Tx};
use crate::domain::IntegrationId;

/// The spending as it was saved.
pub async fn load(db: &Db, integration: IntegrationId) -> Result<Option<JsonValue>, DbError> {
    Sql::new(
        "SELECT spending FROM quota_windows WHERE integration_id = $1",
        [integration.into()],
    )
    .optional(db.reader())
    .await
}

/// Saves it.
pub async fn save(tx: &Tx, integration: IntegrationId, spending: JsonValue) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO quota_windows (integration_id, spending) VALUES ($1, $2)
         ON CONFLICT (integration_id) DO UPDATE SET spending = excluded.spending",
        [integration.into(), spending.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}
