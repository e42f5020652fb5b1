//! `disconnections`: accounts whose access was or is being ended, and what the service answered. A row
//! without an end is work that a death interrupted. It outlives integration and entity, and so names
//! neither account nor person.
//!
//! `entity_removals`: entities that are being removed, until they are.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, Tx, now_ms};
use crate::domain::{EntityId, IntegrationId, ids::Id};

/// A disconnection's id.
pub type DisconnectionId = Id<kind::Disconnection>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::DisconnectionId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Disconnection {}
}

/// Whoever carries one out has it to itself for so long; if it is not done by then, it is taken up
/// again. Longer than a service and a secret store are waited for.
const LEASE_MS: i64 = 60_000;

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Disconnection {
    /// Its id.
    pub id: DisconnectionId,
    /// The integration; of an account that was never connected, the flow.
    pub integration_id: IntegrationId,
    /// Its owner.
    pub entity_id: EntityId,
    /// The service.
    pub service_name: String,
    /// What becomes of the records, `keep` or `delete`, where the integration is removed; absent where
    /// it stays.
    pub records: Option<String>,
    /// When it began.
    pub requested_at: DateTime<Utc>,
    /// What became of the grant; absent until that is known.
    pub outcome: Option<String>,
    /// What the service said, where the grant was not revoked.
    pub detail: Option<String>,
    /// How many records were kept or deleted so far, where that has begun.
    pub record_count: Option<i64>,
}

/// Adds the row, or takes up the one that the integration has without an end. A removal goes beyond a
/// disconnection that keeps the integration; where it is to do otherwise with the records than the one
/// before, they are counted anew.
pub async fn begin(tx: &Tx, row: &Disconnection) -> Result<Disconnection, DbError> {
    let now = now_ms(&tx.inner);
    let found = Sql::new(
        format!(
            "UPDATE disconnections SET records = coalesce($2, records),
                record_count = CASE WHEN records = coalesce($2, records) THEN record_count END,
                lease_until = {now} + {LEASE_MS}
             WHERE integration_id = $1 AND finished_at IS NULL RETURNING *"
        ),
        [row.integration_id.into(), row.records.clone().into()],
    )
    .one(&tx.inner)
    .await?;
    if let Some(found) = found {
        return Ok(found);
    }
    Sql::new(
        format!(
            "INSERT INTO disconnections (id, integration_id, entity_id, service_name, records,
                requested_at, lease_until)
             VALUES ($1, $2, $3, $4, $5, $6, {now} + {LEASE_MS})"
        ),
        [
            row.id.into(),
            row.integration_id.into(),
            row.entity_id.into(),
            row.service_name.clone().into(),
            row.records.clone().into(),
            row.requested_at.into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    Ok(row.clone())
}

/// The service answered; [`DbError::NotFound`] where somebody else has come to the end of it since.
pub async fn answered(
    tx: &Tx,
    id: DisconnectionId,
    outcome: &str,
    detail: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let changed = Sql::new(
        "UPDATE disconnections SET outcome = $2, detail = $3, answered_at = $4
         WHERE id = $1 AND finished_at IS NULL",
        [
            id.into(),
            outcome.into(),
            detail.map(str::to_owned).into(),
            now.into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    match changed {
        0 => Err(DbError::NotFound),
        _ => Ok(()),
    }
}

/// Goes on with it, which nobody else can before this transaction ends: its lease is renewed, and that of
/// its entity, where the whole entity is being removed. Gives the row, as a request that came since may have
/// changed it; [`DbError::NotFound`] where somebody else has come to its end.
pub async fn go_on(tx: &Tx, id: DisconnectionId) -> Result<Disconnection, DbError> {
    let now = now_ms(&tx.inner);
    let row: Disconnection = Sql::new(
        format!(
            "UPDATE disconnections SET lease_until = {now} + {LEASE_MS},
                record_count = CASE WHEN records IS NOT NULL THEN coalesce(record_count, 0) END
             WHERE id = $1 AND finished_at IS NULL RETURNING *"
        ),
        [id.into()],
    )
    .one(&tx.inner)
    .await?
    .ok_or(DbError::NotFound)?;
    go_on_with_entity(tx, row.entity_id).await?;
    Ok(row)
}

/// So many more records were kept or deleted.
pub async fn add_records(tx: &Tx, id: DisconnectionId, count: u64) -> Result<(), DbError> {
    Sql::new(
        "UPDATE disconnections SET record_count = record_count + $2 WHERE id = $1",
        [id.into(), (count as i64).into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// It is done as far as `row` says. `false` where somebody else has come to its end, and where a removal has
/// been asked for since, for which the row stays.
pub async fn finish(tx: &Tx, row: &Disconnection, now: DateTime<Utc>) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE disconnections SET finished_at = $2, lease_until = NULL
         WHERE id = $1 AND finished_at IS NULL AND (records IS NULL OR $3)",
        [row.id.into(), now.into(), row.records.is_some().into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}

/// Whether the access of the integration is being ended. Whoever gives it a new one asks after having
/// changed its row in the same transaction: a disconnection that begins meanwhile waits for that row, and
/// one that began before is seen.
pub async fn is_under_way(tx: &Tx, id: IntegrationId) -> Result<bool, DbError> {
    let found: Option<i32> = Sql::new(
        "SELECT 1 FROM disconnections WHERE integration_id = $1 AND finished_at IS NULL",
        [id.into()],
    )
    .optional(&tx.inner)
    .await?;
    Ok(found.is_some())
}

/// Takes the one whose carrier has been gone the longest. One at a time: what waits for its turn would lose
/// its lease meanwhile.
pub async fn take_abandoned(db: &Db) -> Result<Option<Disconnection>, DbError> {
    let tx = db.begin().await?;
    let now = now_ms(&tx.inner);
    let taken = Sql::new(
        format!(
            "UPDATE disconnections SET lease_until = {now} + {LEASE_MS}
             WHERE finished_at IS NULL AND lease_until < {now} AND id IN (
                SELECT id FROM disconnections WHERE finished_at IS NULL AND lease_until < {now}
                ORDER BY lease_until LIMIT 1)
             RETURNING *"
        ),
        [],
    )
    .one(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(taken)
}

/// Ends every lease, for a process that knows itself to be the only one: whoever held them is dead.
pub async fn end_leases(db: &Db) -> Result<(), DbError> {
    let tx = db.begin().await?;
    for statement in [
        "UPDATE disconnections SET lease_until = 1 WHERE finished_at IS NULL AND lease_until > 1",
        "UPDATE entity_removals SET lease_until = 1 WHERE lease_until > 1",
    ] {
        Sql::new(statement, []).execute(&tx.inner).await?;
    }
    tx.commit().await
}

/// Grants that services were asked to revoke since `since`, and did not, then or later; newest first.
pub async fn not_revoked(
    db: &Db,
    since: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Disconnection>, DbError> {
    Sql::new(
        "SELECT * FROM disconnections AS failed WHERE outcome = 'failed' AND requested_at >= $1
            AND NOT EXISTS (SELECT 1 FROM disconnections AS later
                WHERE later.integration_id = failed.integration_id
                    AND later.requested_at > failed.requested_at
                    AND later.outcome IN ('revoked', 'already_gone'))
         ORDER BY requested_at DESC LIMIT $2",
        [since.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// Forgets those that ended before `time`, at most `limit`; says how many.
pub async fn purge(db: &Db, time: DateTime<Utc>, limit: u64) -> Result<u64, DbError> {
    let tx = db.begin().await?;
    let deleted = Sql::new(
        "DELETE FROM disconnections WHERE id IN (
            SELECT id FROM disconnections WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)",
        [time.into(), (limit as i64).into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}

/// An entity is to be removed.
pub async fn begin_entity(tx: &Tx, id: EntityId, now: DateTime<Utc>) -> Result<(), DbError> {
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "INSERT INTO entity_removals (entity_id, requested_at, lease_until)
             VALUES ($1, $2, {clock} + {LEASE_MS})
             ON CONFLICT (entity_id) DO UPDATE SET lease_until = excluded.lease_until"
        ),
        [id.into(), now.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Goes on with the removal of an entity, if there is one: its lease is renewed, and nobody else can go on
/// before this transaction ends.
pub async fn go_on_with_entity(tx: &Tx, id: EntityId) -> Result<(), DbError> {
    let now = now_ms(&tx.inner);
    Sql::new(
        format!("UPDATE entity_removals SET lease_until = {now} + {LEASE_MS} WHERE entity_id = $1"),
        [id.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Nothing is left of the entity.
pub async fn finish_entity(tx: &Tx, id: EntityId) -> Result<(), DbError> {
    Sql::new(
        "DELETE FROM entity_removals WHERE entity_id = $1",
        [id.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Takes an entity whose removal nobody carries out any more.
pub async fn take_abandoned_entity(db: &Db) -> Result<Option<EntityId>, DbError> {
    let tx = db.begin().await?;
    let now = now_ms(&tx.inner);
    let taken = Sql::new(
        format!(
            "UPDATE entity_removals SET lease_until = {now} + {LEASE_MS}
             WHERE lease_until < {now} AND entity_id IN (
                SELECT entity_id FROM entity_removals WHERE lease_until < {now}
                ORDER BY lease_until LIMIT 1)
             RETURNING entity_id"
        ),
        [],
    )
    .optional(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(taken)
}
