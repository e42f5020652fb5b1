//! `sync_gaps`: ids that were listed and could not be fetched. Later runs try them again by id.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, Value};

use super::{Db, DbError, MAX_LIST, Sql, Tx};
use crate::domain::{IntegrationId, RunId};

/// A message is tried in so many runs, and then given up.
pub const MAX_ATTEMPTS: i32 = 5;

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Gap {
    /// The service's id of the item.
    pub external_id: String,
    /// In how many runs it has failed.
    pub attempts: i32,
    /// Whether it is tried no more.
    pub given_up: bool,
}

/// Gaps that are still tried and that `run` has not tried itself, oldest first.
pub async fn open(
    db: &Db,
    integration: IntegrationId,
    run: RunId,
    limit: u64,
) -> Result<Vec<Gap>, DbError> {
    Sql::new(
        "SELECT external_id, attempts, given_up FROM sync_gaps
         WHERE integration_id = $1 AND given_up = false AND run_id <> $2
         ORDER BY first_failed_at, external_id LIMIT $3",
        [integration.into(), run.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// How many are still tried.
pub async fn count_open(tx: &Tx, integration: IntegrationId) -> Result<i64, DbError> {
    Sql::new(
        "SELECT count(*) FROM sync_gaps WHERE integration_id = $1 AND given_up = false",
        [integration.into()],
    )
    .scalar(&tx.inner)
    .await
}

/// Notes that `run` failed to get the item; says whether it is given up now. A second failure in
/// one run counts once.
pub async fn record(
    tx: &Tx,
    integration: IntegrationId,
    run: RunId,
    external_id: &str,
    detail: &str,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "INSERT INTO sync_gaps (integration_id, external_id, reason, detail, attempts, given_up,
            run_id, first_failed_at, last_failed_at) VALUES ",
        [],
    )
    .tuple([
        Value::from(integration),
        external_id.into(),
        "fetch_failed".into(),
        detail.into(),
        1.into(),
        false.into(),
        run.into(),
        now.into(),
        now.into(),
    ])
    .push(
        " ON CONFLICT (integration_id, external_id) DO UPDATE SET
            attempts = sync_gaps.attempts
                + CASE WHEN sync_gaps.run_id = excluded.run_id THEN 0 ELSE 1 END,
            given_up = (sync_gaps.attempts
                + CASE WHEN sync_gaps.run_id = excluded.run_id THEN 0 ELSE 1 END) >= ",
    )
    .bind(MAX_ATTEMPTS)
    .push(
        ", detail = excluded.detail, run_id = excluded.run_id,
            last_failed_at = excluded.last_failed_at
         RETURNING given_up",
    )
    .scalar(&tx.inner)
    .await
}

/// These are no longer missing.
pub async fn close(tx: &Tx, integration: IntegrationId, ids: &[String]) -> Result<(), DbError> {
    for chunk in ids.chunks(MAX_LIST) {
        Sql::new(
            "DELETE FROM sync_gaps WHERE integration_id = $1 AND external_id IN ",
            [integration.into()],
        )
        .tuple(chunk.iter().cloned())
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}
