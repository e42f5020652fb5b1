//! Rows of the outbox on their way to a broker: claimed under a lease, published, and marked.
//!
//! Several relays may work at once. One that dies leaves a lease behind; what it had published and not
//! marked is published again, as the same event.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, JsonValue};

use super::{
    Db, DbError, Sql, Tx, now_ms, outbox,
    sync_run::{LEASE_MS, WorkerId},
};
use crate::domain::{
    EntityId, EventId, IntegrationId,
    event::{DNA_ANALYSIS, SYNC_REQUESTS},
};

/// A sync request that the broker has is published again if no worker is done with it after this long, in
/// milliseconds: a broker may lose a message, or bring it to a reader that is gone, and the run would wait for
/// ever. After that whenever it is twice as old, so that a backlog grows by a few messages a request and no more.
const RESEND_MS: i64 = 60_000;
/// But not later than this, in milliseconds.
const LONGEST_RESEND_MS: i64 = 3_600_000;

/// Names the lock under which relays claim; any number that nothing else in the database locks.
const CLAIMING: i64 = 0x6e75_636c_6575_7302;

/// A message that a relay holds.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Outgoing {
    /// The row, and the event.
    pub id: EventId,
    /// Where it goes.
    pub topic: String,
    /// Its CloudEvents type.
    pub event_type: String,
    /// Whose it is.
    pub entity_id: EntityId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// Of which service.
    pub service_name: String,
    /// The body.
    pub data: JsonValue,
    /// When it became true.
    pub created_at: DateTime<Utc>,
    /// The trace it belongs to, as W3C's `traceparent`.
    pub traceparent: Option<String>,
}

/// Takes up to `limit` messages of a topic that are due, those first that have been due longest; none
/// if there are none.
pub async fn claim(
    db: &Db,
    topic: &str,
    owner: WorkerId,
    now: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Outgoing>, DbError> {
    // As for a lease: a look first, and another whenever somebody else was faster.
    while outbox::is_due(db, topic, now).await? {
        let mut claimed = try_claim(db, topic, owner, now, limit).await?;
        if !claimed.is_empty() {
            claimed.sort_unstable_by_key(|row| row.id);
            return Ok(claimed);
        }
    }
    Ok(Vec::new())
}

async fn try_claim(
    db: &Db,
    topic: &str,
    owner: WorkerId,
    now: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Outgoing>, DbError> {
    let tx = db.begin().await?;
    one_at_a_time(&tx).await?;
    let clock = now_ms(&tx.inner);
    let rows = Sql::new(
        format!(
            "UPDATE outbox SET state = 'leased', lease_owner = $1, lease_until = {clock} + $2
             WHERE state = 'pending' AND id IN (
                SELECT id FROM outbox
                WHERE topic = $3 AND state = 'pending' AND available_at <= $4
                ORDER BY available_at, id LIMIT $5)
             RETURNING id, topic, event_type, entity_id, integration_id, service_name, data,
                created_at, traceparent"
        ),
        [
            owner.into(),
            LEASE_MS.into(),
            topic.into(),
            now.timestamp_millis().into(),
            (limit as i64).into(),
        ],
    )
    .all(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(rows)
}

/// Two relays that lock the same rows, each in its own order, would wait for each other for ever, so only one
/// claims at a time. On SQLite only one writes at a time anyway.
async fn one_at_a_time(tx: &Tx) -> Result<(), DbError> {
    if tx.inner.get_database_backend() == DbBackend::Postgres {
        Sql::new("SELECT pg_advisory_xact_lock($1)", [CLAIMING.into()])
            .execute(&tx.inner)
            .await?;
    }
    Ok(())
}

/// Gives messages back that could not be published.
pub async fn release(db: &Db, owner: WorkerId, ids: &[EventId]) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    let tx = db.begin().await?;
    held_by(
        "UPDATE outbox SET state = 'pending', lease_owner = NULL, lease_until = NULL",
        owner,
        ids,
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// The broker has these. An event gets its position and becomes visible; a sync request stays until a
/// worker is done with it. Rows that are not this relay's any more are left to whose they are.
pub async fn mark_published(
    db: &Db,
    owner: WorkerId,
    topic: &str,
    ids: &[EventId],
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    let tx = db.begin().await?;
    if topic == DNA_ANALYSIS {
        number(&tx, owner, ids, now).await?;
    } else {
        let clock = now_ms(&tx.inner);
        let age = format!("({} - available_at)", now.timestamp_millis());
        let handed_over = format!(
            "UPDATE outbox SET lease_owner = NULL, lease_until = {clock} + CASE
                WHEN {age} < {RESEND_MS} THEN {RESEND_MS}
                WHEN {age} > {LONGEST_RESEND_MS} THEN {LONGEST_RESEND_MS}
                ELSE {age} END"
        );
        held_by(&handed_over, owner, ids).execute(&tx.inner).await?;
    }
    tx.commit().await
}

#[derive(FromQueryResult)]
struct Marked {
    id: EventId,
}

/// Marks events as published and numbers them. The counter is taken last, and held until the commit,
/// so that positions become visible in their order.
async fn number(
    tx: &Tx,
    owner: WorkerId,
    ids: &[EventId],
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let marked: Vec<Marked> = held_by(
        "UPDATE outbox SET state = 'published', lease_owner = NULL, lease_until = NULL",
        owner,
        ids,
    )
    .push(" RETURNING id")
    .all(&tx.inner)
    .await?;
    if marked.is_empty() {
        return Ok(());
    }
    let before = outbox::take_positions(tx, marked.len() as i64).await?;
    Sql::new(
        "UPDATE outbox SET published_at = $1, position = $2 + numbered.place
         FROM (SELECT id AS marked_id, row_number() OVER (ORDER BY id) AS place
               FROM outbox WHERE id IN ",
        [now.into(), before.into()],
    )
    .tuple(marked.into_iter().map(|row| row.id))
    .push(") AS numbered WHERE outbox.id = numbered.marked_id")
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// `statement` for those of the rows that `owner` holds.
fn held_by(statement: &str, owner: WorkerId, ids: &[EventId]) -> Sql {
    Sql::new(
        format!("{statement} WHERE state = 'leased' AND lease_owner = $1 AND id IN "),
        [owner.into()],
    )
    .tuple(ids.iter().copied())
}

/// A worker is done with a sync request, whoever has it: it goes.
pub async fn done(db: &Db, id: EventId) -> Result<(), DbError> {
    let tx = db.begin().await?;
    Sql::new(
        "DELETE FROM outbox WHERE id = $1 AND topic = $2",
        [id.into(), SYNC_REQUESTS.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// Sync requests that the broker has, or is being given, and no worker is done with.
pub async fn count_handed_over(db: &Db) -> Result<i64, DbError> {
    Sql::new(
        "SELECT count(*) FROM outbox WHERE topic = $1 AND state = 'leased'",
        [SYNC_REQUESTS.into()],
    )
    .scalar(db.reader())
    .await
}
