//! How connections stand, in `entity_integrations`: the status, what the last run left, and when a sync or
//! a check is due.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Db, DbError, Sql, Tx, integration::Integration};
use crate::domain::{IntegrationId, ServiceName, sync::IntegrationStatus};

/// A connection that no sync asks about is looked at so often: none without a connector, and one that
/// has ended, in case that the service was wrong.
pub const CHECK_EVERY: TimeDelta = TimeDelta::days(1);

/// The service said how the connection stands as it was `found`. One that its owner switched off stays
/// off, one whose access the operator ended stays ended, and other credentials are another connection:
/// `false` where it is so.
pub async fn set_status(
    tx: &Tx,
    found: &Integration,
    status: IntegrationStatus,
    message: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE entity_integrations SET status = $2, sync_error_message = $3, updated_at = $4,
            next_check_at = CASE WHEN $6 OR next_sync_at IS NULL THEN $7 END
         WHERE id = $1 AND status <> 'inactive' AND access_ended_at IS NULL
            AND credentials_generation = $5",
        [
            found.id.into(),
            status.as_str().into(),
            message.map(str::to_owned).into(),
            now.into(),
            found.credentials_generation.into(),
            status.is_ended().into(),
            (now + CHECK_EVERY).into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// Whether an integration still has the credentials that it was `found` with, or what was refreshed of
/// them. Until `tx` ends it has.
pub async fn has_same_credentials(tx: &Tx, found: &Integration) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE entity_integrations SET credentials_generation = credentials_generation
         WHERE id = $1 AND credentials_generation = $2",
        [found.id.into(), found.credentials_generation.into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// Connections that no sync asks about and whose time has come, the longest overdue first.
pub async fn due_checks(
    db: &Db,
    now: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Integration>, DbError> {
    Sql::new(
        "SELECT * FROM entity_integrations WHERE next_check_at <= $1
         ORDER BY next_check_at LIMIT $2",
        [now.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// Moves `next_check_at` on from what it was `found` with, or ends the checks: of several processes one
/// succeeds.
pub async fn move_next_check(
    tx: &Tx,
    found: &Integration,
    next: Option<DateTime<Utc>>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE entity_integrations SET next_check_at = $3 WHERE id = $1 AND next_check_at = $2",
        [found.id.into(), found.next_check_at.into(), next.into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// A run ended: what it leaves on the integration.
#[derive(Debug)]
pub struct RunResult<'a> {
    /// `success`, `partial` or `failed`.
    pub last_sync_status: &'a str,
    /// Why it failed.
    pub message: Option<&'a str>,
    /// The status it gives the integration; absent where it stays.
    pub status: Option<IntegrationStatus>,
    /// When the scheduler asks again; absent where there is no connector.
    pub next_sync_at: Option<DateTime<Utc>>,
    /// How many runs have failed in a row.
    pub failures: i32,
    /// The clock.
    pub now: DateTime<Utc>,
}

/// Writes how a run ended.
pub async fn set_run_result(
    tx: &Tx,
    id: IntegrationId,
    result: RunResult<'_>,
) -> Result<(), DbError> {
    let failed = result.last_sync_status == "failed";
    let mut sql = Sql::new(
        "UPDATE entity_integrations SET last_sync_status = $1, sync_error_message = $2,
            next_sync_at = $3, sync_failures = $4, updated_at = $5",
        [
            result.last_sync_status.into(),
            result.message.map(str::to_owned).into(),
            result.next_sync_at.into(),
            result.failures.into(),
            result.now.into(),
        ],
    );
    if !failed {
        sql = sql.push(", last_sync_at = ").bind(result.now);
    }
    if let Some(status) = result.status {
        // An owner who switched it off meanwhile is obeyed.
        sql = sql
            .push(", status = CASE WHEN status = 'inactive' THEN status ELSE ")
            .bind(status.as_str())
            .push(" END, next_check_at = CASE WHEN next_sync_at IS NULL OR ")
            .bind(status.is_ended())
            .push(" THEN ")
            .bind(result.now + CHECK_EVERY)
            .push(" END");
    }
    sql.push(" WHERE id = ")
        .bind(id)
        .execute(&tx.inner)
        .await
        .map(drop)
}

/// Integrations whose next run is due, the longest overdue first.
pub async fn due(db: &Db, now: DateTime<Utc>, limit: u64) -> Result<Vec<Integration>, DbError> {
    // Spelt out by status, because each has a partial index.
    Sql::new(
        "SELECT * FROM entity_integrations
         WHERE (status = 'active' AND next_sync_at <= $1)
            OR (status = 'error' AND next_sync_at <= $1)
         ORDER BY next_sync_at LIMIT $2",
        [now.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// Connections of these services that no schedule asks about are due now: they were made, or synced last, by
/// a program without the connector. Says how many.
pub async fn schedule_forgotten(
    db: &Db,
    services: impl ExactSizeIterator<Item = ServiceName>,
    now: DateTime<Utc>,
) -> Result<u64, DbError> {
    if services.len() == 0 {
        return Ok(0);
    }
    let tx = db.begin().await?;
    let scheduled = Sql::new(
        "UPDATE entity_integrations SET next_sync_at = $1, next_check_at = NULL
         WHERE next_sync_at IS NULL AND status IN ('active', 'error') AND service_name IN ",
        [now.into()],
    )
    .tuple(services.map(ServiceName::as_str))
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(scheduled)
}

/// Moves `next_sync_at` on, if it is still `before`: of several schedulers one succeeds.
pub async fn move_next_sync(
    tx: &Tx,
    id: IntegrationId,
    before: DateTime<Utc>,
    next: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE entity_integrations SET next_sync_at = $3 WHERE id = $1 AND next_sync_at = $2",
        [id.into(), before.into(), next.into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}
