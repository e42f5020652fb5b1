//! `outbox`: every message leaves through here, in the transaction that made it true.
//!
//! Embedded, a DNA-analysis event counts as published when it commits, and a sync request is leased
//! from here by a worker. With a broker a relay publishes both ([`super::relay`]). Rows are claimed by
//! state, never by being newer than the last one seen.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};
use serde::Deserialize;
use serde_json::json;

use super::{
    Db, DbError, Sql, Tx,
    dead_letter::{self, DeadLetter},
    now_ms,
    sync_run::{LEASE_MS, WorkerId},
};
use crate::domain::{
    EntityId, EventId, IntegrationId, RunId,
    event::{
        CloudEvent, DNA_ANALYSIS, DNA_ANALYSIS_REQUESTED_V1, DnaAnalysisRequested,
        RECORDS_PER_EVENT, SYNC_REQUESTED_V1, SYNC_REQUESTS,
    },
    record::{ChangedRecord, TRUST},
    sync::{Scope, SyncRequested},
};

/// Whose changes an event tells of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The owner.
    pub entity_id: EntityId,
    /// The connected account.
    pub integration_id: IntegrationId,
    /// The service.
    pub service_name: String,
    /// The run that found them, if one did.
    pub run_id: Option<RunId>,
    /// The trace that the events belong to, as W3C's `traceparent`, where traces are sent.
    pub traceparent: Option<String>,
}

/// Appends a request to sync, to be taken no earlier than `available_at`.
pub async fn append_sync_request(
    tx: &Tx,
    request: &SyncRequested,
    traceparent: Option<&str>,
    available_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    insert()
        .tuple([
            Value::from(EventId::new()),
            SYNC_REQUESTS.into(),
            SYNC_REQUESTED_V1.into(),
            request.entity_id.into(),
            request.integration_id.into(),
            request.service_name.as_str().into(),
            json!(request).into(),
            now.into(),
            "pending".into(),
            available_at.timestamp_millis().into(),
            None::<DateTime<Utc>>.into(),
            None::<i64>.into(),
            traceparent.into(),
        ])
        .execute(&tx.inner)
        .await
        .map(drop)
}

/// Appends DNA-analysis events for these records, and says how many. Where they are published by this,
/// their positions come from a counter that the transaction holds until it commits, so they become
/// visible in order: append late in the transaction. A relay numbers them when they are published.
pub async fn append_dna_events(
    tx: &Tx,
    source: &Source,
    records: Vec<ChangedRecord>,
    now: DateTime<Utc>,
) -> Result<i64, DbError> {
    let events = records.len().div_ceil(RECORDS_PER_EVENT) as i64;
    if events == 0 {
        return Ok(0);
    }
    let before = match tx.is_relayed {
        true => None,
        false => Some(take_positions(tx, events).await?),
    };
    let state = if tx.is_relayed {
        "pending"
    } else {
        "published"
    };
    let published_at = (!tx.is_relayed).then_some(now);
    for (index, chunk) in records.chunks(RECORDS_PER_EVENT).enumerate() {
        let position = before.map(|before| before + 1 + index as i64);
        let data = DnaAnalysisRequested {
            entity_id: source.entity_id,
            integration_id: source.integration_id,
            run_id: source.run_id,
            trust: TRUST.to_owned(),
            records: chunk.to_vec(),
        };
        insert()
            .tuple([
                Value::from(EventId::new()),
                DNA_ANALYSIS.into(),
                DNA_ANALYSIS_REQUESTED_V1.into(),
                source.entity_id.into(),
                source.integration_id.into(),
                source.service_name.clone().into(),
                json!(data).into(),
                now.into(),
                state.into(),
                now.timestamp_millis().into(),
                published_at.into(),
                position.into(),
                source.traceparent.clone().into(),
            ])
            .execute(&tx.inner)
            .await?;
    }
    Ok(events)
}

/// Takes so many positions, which follow each other, and gives the one before the first. Whoever else
/// wants some waits for the end of this transaction.
pub(super) async fn take_positions(tx: &Tx, count: i64) -> Result<i64, DbError> {
    let last: i64 = Sql::new(
        "UPDATE event_position SET position = position + $1 WHERE id = 1 RETURNING position",
        [count.into()],
    )
    .scalar(&tx.inner)
    .await?;
    Ok(last - count)
}

fn insert() -> Sql {
    Sql::new(
        "INSERT INTO outbox (id, topic, event_type, entity_id, integration_id, service_name, data,
            created_at, state, available_at, published_at, position, traceparent) VALUES ",
        [],
    )
}

/// A sync request that a worker holds.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The row, and the event.
    pub id: EventId,
    /// What is asked for.
    pub request: SyncRequested,
}

#[derive(FromQueryResult)]
struct LeasedRow {
    id: EventId,
    event_type: String,
    entity_id: EntityId,
    integration_id: IntegrationId,
    data: JsonValue,
}

impl LeasedRow {
    /// What is asked for, or why this program does not understand it.
    fn request(&self) -> Result<SyncRequested, String> {
        if self.event_type != SYNC_REQUESTED_V1 {
            return Err(format!(
                "this nucleus does not know messages of type {}: a newer one wrote it",
                self.event_type
            ));
        }
        SyncRequested::deserialize(&self.data)
            .map_err(|error| format!("this nucleus does not understand the message: {error}"))
    }
}

/// Leases the sync request that has been due longest; `None` where none is due.
pub async fn lease_sync_request(
    db: &Db,
    owner: WorkerId,
    now: DateTime<Utc>,
) -> Result<Option<Leased>, DbError> {
    // A look first: an idle worker must not take SQLite's write lock to learn that nothing is due.
    // And another look whenever somebody else was faster, which leaves fewer each time.
    while is_due(db, SYNC_REQUESTS, now).await? {
        let Some(row) = try_lease(db, owner, now).await? else {
            continue;
        };
        match row.request() {
            Ok(request) => {
                return Ok(Some(Leased {
                    id: row.id,
                    request,
                }));
            }
            Err(reason) => park(db, row, owner, reason, now).await?,
        }
    }
    Ok(None)
}

/// Moves a message that is not understood to the dead letters, where a newer program finds it.
async fn park(
    db: &Db,
    row: LeasedRow,
    owner: WorkerId,
    reason: String,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    tracing::error!(event.id = %row.id, integration.id = %row.integration_id, "parked: {reason}");
    let run_id = row.data.get("run_id").and_then(JsonValue::as_str);
    let letter = DeadLetter {
        id: row.id,
        topic: SYNC_REQUESTS.to_owned(),
        event_type: row.event_type,
        entity_id: Some(row.entity_id),
        integration_id: Some(row.integration_id),
        run_id: run_id.and_then(|text| text.parse().ok()),
        data: row.data,
        attributes: None,
        attempts: 0,
        reason,
        parked_at: now,
        redriven_at: None,
        redriven_run_id: None,
    };
    let tx = db.begin().await?;
    let taken = Sql::new(
        "DELETE FROM outbox WHERE id = $1 AND lease_owner = $2",
        [letter.id.into(), owner.into()],
    )
    .execute(&tx.inner)
    .await?;
    if taken == 1 {
        dead_letter::insert(&tx, &letter).await?;
    }
    tx.commit().await
}

/// Whether a message of the topic waits to be taken or published now.
pub(super) async fn is_due(db: &Db, topic: &str, now: DateTime<Utc>) -> Result<bool, DbError> {
    Sql::new(
        "SELECT 1 FROM outbox WHERE topic = $1 AND state = 'pending' AND available_at <= $2 LIMIT 1",
        [topic.into(), now.timestamp_millis().into()],
    )
    .optional::<i32>(db.reader())
    .await
    .map(|found| found.is_some())
}

async fn try_lease(
    db: &Db,
    owner: WorkerId,
    now: DateTime<Utc>,
) -> Result<Option<LeasedRow>, DbError> {
    let tx = db.begin().await?;
    let clock = now_ms(&tx.inner);
    let row: Option<LeasedRow> = Sql::new(
        format!(
            "UPDATE outbox SET state = 'leased', lease_owner = $1, lease_until = {clock} + $2
             WHERE state = 'pending' AND id = (
                SELECT id FROM outbox
                WHERE topic = $3 AND state = 'pending' AND available_at <= $4
                ORDER BY available_at, id LIMIT 1)
             RETURNING id, event_type, entity_id, integration_id, data"
        ),
        [
            owner.into(),
            LEASE_MS.into(),
            SYNC_REQUESTS.into(),
            now.timestamp_millis().into(),
        ],
    )
    .one(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(row)
}

/// Keeps a leased request from being given to another worker.
pub async fn renew_lease(db: &Db, id: EventId, owner: WorkerId) -> Result<(), DbError> {
    let tx = db.begin().await?;
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "UPDATE outbox SET lease_until = {clock} + $3
             WHERE id = $1 AND lease_owner = $2 AND state = 'leased'"
        ),
        [id.into(), owner.into(), LEASE_MS.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// The request was carried out: it goes. If another worker holds it by now, it stays theirs.
pub async fn ack(db: &Db, id: EventId, owner: WorkerId) -> Result<(), DbError> {
    let tx = db.begin().await?;
    Sql::new(
        "DELETE FROM outbox WHERE id = $1 AND lease_owner = $2",
        [id.into(), owner.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// Makes leased messages available again whose lease is over, or every one (`all`); says how many.
pub async fn free_abandoned(tx: &Tx, all: bool) -> Result<u64, DbError> {
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "UPDATE outbox SET state = 'pending', lease_owner = NULL, lease_until = NULL
             WHERE state = 'leased' AND ($1 OR lease_until < {clock})"
        ),
        [all.into()],
    )
    .execute(&tx.inner)
    .await
}

/// Requests of an integration that is removed.
pub async fn delete_sync_requests(tx: &Tx, integration: IntegrationId) -> Result<(), DbError> {
    // Its index holds requests alone, which the statement has to say without a variable.
    Sql::new(
        format!("DELETE FROM outbox WHERE topic = '{SYNC_REQUESTS}' AND integration_id = $1"),
        [integration.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// An event and its place in the order in which events became true.
#[derive(Debug)]
pub struct PositionedEvent {
    /// The place; gaps do not occur, except by retention.
    pub position: i64,
    /// The event.
    pub event: CloudEvent,
}

#[derive(FromQueryResult)]
struct EventRow {
    id: EventId,
    event_type: String,
    integration_id: IntegrationId,
    service_name: String,
    data: JsonValue,
    created_at: DateTime<Utc>,
    position: i64,
    traceparent: Option<String>,
}

/// DNA-analysis events after `position`, oldest first.
pub async fn events_after(
    db: &Db,
    scope: Scope,
    position: i64,
    limit: u64,
) -> Result<Vec<PositionedEvent>, DbError> {
    let rows: Vec<EventRow> = Sql::new(
        "SELECT id, event_type, integration_id, service_name, data, created_at, position,
            traceparent
         FROM outbox WHERE position > $1",
        [position.into()],
    )
    .owned_by(scope)
    .push(" ORDER BY position LIMIT ")
    .bind(limit as i64)
    .all(db.reader())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| PositionedEvent {
            position: row.position,
            event: CloudEvent {
                specversion: "1.0",
                id: row.id,
                source: format!("nucleus/{}", row.service_name),
                event_type: row.event_type,
                subject: row.integration_id,
                time: row.created_at,
                datacontenttype: "application/json",
                traceparent: row.traceparent,
                data: row.data,
            },
        })
        .collect())
}

/// The ends of what [`events_after`] can tell.
#[derive(Debug, Clone, Copy, FromQueryResult)]
pub struct Positions {
    /// The newest position.
    pub position: i64,
    /// Events up to this position are past retention and gone.
    pub horizon: i64,
}

/// Events that follow each other.
#[derive(Debug)]
pub struct Followed {
    /// Oldest first.
    pub events: Vec<PositionedEvent>,
    /// Whether there is more now.
    pub more: bool,
    /// The position from which to go on.
    pub resume: i64,
}

/// Why events cannot be followed from a position.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Events after it are past retention and gone.
    #[error("events after this position are past retention and gone")]
    Expired,
    /// The newest event stands before it.
    #[error("no event has come so far")]
    Beyond,
    /// The store did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Up to `limit` events after a position, or from the oldest that is kept.
pub async fn follow(
    db: &Db,
    scope: Scope,
    position: Option<i64>,
    limit: u64,
) -> Result<Followed, FollowError> {
    let ends = positions(db).await?;
    let after = position.unwrap_or(ends.horizon);
    if after > ends.position {
        return Err(FollowError::Beyond);
    }
    let mut events = events_after(db, scope, after, limit + 1).await?;
    // Asked after the events were read: what retention took meanwhile must not be missed in silence.
    let horizon = positions(db).await?.horizon;
    if position.is_some_and(|position| position < horizon) {
        return Err(FollowError::Expired);
    }
    let more = events.len() as u64 > limit;
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let last = events.last().map_or(after, |event| event.position);
    // At the end it passes over the events of others too; where it stays behind them, a quiet
    // entity's cursor would expire by their retention.
    let resume = if more { last } else { last.max(ends.position) };
    Ok(Followed {
        events,
        more,
        resume,
    })
}

/// Where events begin and end.
pub async fn positions(db: &Db) -> Result<Positions, DbError> {
    Sql::new(
        "SELECT position, horizon FROM event_position WHERE id = 1",
        [],
    )
    .one(db.reader())
    .await?
    .ok_or(DbError::NotFound)
}

#[derive(FromQueryResult)]
struct Published {
    position: i64,
    published_at: DateTime<Utc>,
}

/// Removes up to `limit` events published before `time`, as far as none stands before them that was
/// published later; says how many.
pub async fn purge(db: &Db, time: DateTime<Utc>, limit: u64) -> Result<u64, DbError> {
    let tx = db.begin().await?;
    let oldest: Vec<Published> = Sql::new(
        "SELECT position, published_at FROM outbox WHERE position > 0 ORDER BY position LIMIT $1",
        [(limit as i64).into()],
    )
    .all(&tx.inner)
    .await?;
    // Positions grow, and times do but for a clock that was set back or stood behind: what is removed must
    // be a prefix, because its newest is the horizon.
    let old = oldest.iter().take_while(|event| event.published_at < time);
    let Some(newest) = old.last().map(|event| event.position) else {
        return Ok(0);
    };
    let deleted = Sql::new(
        "DELETE FROM outbox WHERE state = 'published' AND position <= $1",
        [newest.into()],
    )
    .execute(&tx.inner)
    .await?;
    Sql::new(
        "UPDATE event_position SET horizon = $1 WHERE id = 1",
        [newest.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}
