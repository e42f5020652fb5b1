//! `idempotency_keys`: POST requests that were made under a key of the client's, and how they were
//! answered.
//!
//! A row is made when a request is taken, and leased to whoever carries it out. Its id is made once
//! and stays: what the request makes gets it, so that carrying the request out again, after a process
//! died in the middle, finds what is there instead of making another. What a row keeps of a request
//! and of its answer is worth nothing without the caller's API key.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{Db, DbError, Sql, now_ms};

/// How long an answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// A request under a key.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// Who calls: `operator`, or the id of an API key.
    pub caller: String,
    /// The method.
    pub method: String,
    /// The path, at most 255 bytes.
    pub path: String,
    /// The client's key, at most 255 bytes.
    pub key: String,
    /// Tells bodies apart; at most 64 characters.
    pub fingerprint: String,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body's type.
    pub content_type: String,
    /// The body, sealed.
    pub body: Vec<u8>,
}

/// How a request under a key stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody carries it out: it is new, or was freed, or whoever did is gone.
    Free,
    /// Somebody carries it out.
    InFlight,
    /// The key was used with another body.
    OtherBody,
    /// It was answered; the id is that of its row.
    Answered(Uuid, Answer),
}

/// The right to carry a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromQueryResult)]
pub struct Claim {
    /// The same for every claim of the request.
    pub id: Uuid,
    /// Grows with each.
    pub fence: i64,
}

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    fingerprint: String,
    is_freed: i32,
    lease_ms: i64,
    status: Option<i32>,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
}

/// Looks how a request stands.
pub async fn look(db: &Db, keyed: &Keyed, now: DateTime<Utc>) -> Result<Standing, DbError> {
    let clock = now_ms(db.reader());
    let row: Option<Row> = Sql::new(
        format!(
            "SELECT id, fingerprint, CASE lease_until WHEN 0 THEN 1 ELSE 0 END AS is_freed,
                lease_until - {clock} AS lease_ms, status, content_type, body
             FROM idempotency_keys
             WHERE caller = $1 AND method = $2 AND path = $3 AND idempotency_key = $4
                AND created_at > $5"
        ),
        [
            keyed.caller.clone().into(),
            keyed.method.clone().into(),
            keyed.path.clone().into(),
            keyed.key.clone().into(),
            (now - KEPT).into(),
        ],
    )
    .one(db.reader())
    .await?;
    let Some(row) = row else {
        return Ok(Standing::Free);
    };
    let is_same = row.fingerprint == keyed.fingerprint;
    let answer = match (row.status, row.content_type, row.body) {
        (Some(status), Some(content_type), Some(body)) => Some(Answer {
            status: u16::try_from(status).map_err(|_| {
                DbError::Schema(format!("idempotency_keys.status is {status}, no status"))
            })?,
            content_type,
            body,
        }),
        _ => None,
    };
    Ok(match answer {
        None if row.is_freed == 1 => Standing::Free,
        _ if !is_same => Standing::OtherBody,
        Some(answer) => Standing::Answered(row.id, answer),
        None if row.lease_ms > 0 => Standing::InFlight,
        None => Standing::Free,
    })
}

/// Takes a request that is [`Standing::Free`], for as long as the lease; `None` where another was
/// faster. What is answered then is kept for its full time, however old earlier attempts are.
pub async fn claim(
    db: &Db,
    keyed: &Keyed,
    now: DateTime<Utc>,
    lease: Duration,
) -> Result<Option<Claim>, DbError> {
    let tx = db.begin().await?;
    // What is past its time is forgotten; and after a failure the key is free for any body, which
    // must not get the id of what the other one may have made.
    Sql::new(
        "DELETE FROM idempotency_keys
         WHERE caller = $1 AND method = $2 AND path = $3 AND idempotency_key = $4
            AND (created_at <= $5 OR status IS NULL AND lease_until = 0 AND fingerprint <> $6)",
        [
            keyed.caller.clone().into(),
            keyed.method.clone().into(),
            keyed.path.clone().into(),
            keyed.key.clone().into(),
            (now - KEPT).into(),
            keyed.fingerprint.clone().into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    let clock = now_ms(&tx.inner);
    let claim = Sql::new(
        format!(
            "INSERT INTO idempotency_keys AS kept (id, caller, method, path, idempotency_key,
                fingerprint, fence, lease_until, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, 1, {clock} + $7, $8)
             ON CONFLICT (caller, method, path, idempotency_key) DO UPDATE
             SET fence = kept.fence + 1, lease_until = excluded.lease_until,
                created_at = excluded.created_at
             WHERE kept.status IS NULL AND kept.lease_until <= {clock}
                AND kept.fingerprint = excluded.fingerprint
             RETURNING id, fence"
        ),
        [
            Uuid::now_v7().into(),
            keyed.caller.clone().into(),
            keyed.method.clone().into(),
            keyed.path.clone().into(),
            keyed.key.clone().into(),
            keyed.fingerprint.clone().into(),
            milliseconds(lease).into(),
            now.into(),
        ],
    )
    .one(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(claim)
}

/// Goes on with a request; false where another has taken it meanwhile.
pub async fn renew(db: &Db, claim: Claim, lease: Duration) -> Result<bool, DbError> {
    let tx = db.begin().await?;
    let clock = now_ms(&tx.inner);
    let sql = format!(
        "UPDATE idempotency_keys SET lease_until = {clock} + $3
         WHERE id = $1 AND fence = $2 AND status IS NULL"
    );
    let lease = milliseconds(lease);
    let renewed = Sql::new(sql, [claim.id.into(), claim.fence.into(), lease.into()])
        .execute(&tx.inner)
        .await?;
    tx.commit().await?;
    Ok(renewed == 1)
}

/// Keeps the answer; false where another has taken the request meanwhile.
pub async fn finish(db: &Db, claim: Claim, answer: Answer) -> Result<bool, DbError> {
    let tx = db.begin().await?;
    let finished = Sql::new(
        "UPDATE idempotency_keys SET status = $3, content_type = $4, body = $5
         WHERE id = $1 AND fence = $2 AND status IS NULL",
        [
            claim.id.into(),
            claim.fence.into(),
            i32::from(answer.status).into(),
            answer.content_type.into(),
            answer.body.into(),
        ],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(finished == 1)
}

/// Frees the key: the next request under it is carried out.
pub async fn free(db: &Db, claim: Claim) -> Result<(), DbError> {
    let tx = db.begin().await?;
    Sql::new(
        "UPDATE idempotency_keys SET lease_until = 0
         WHERE id = $1 AND fence = $2 AND status IS NULL",
        [claim.id.into(), claim.fence.into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// Ends every lease, for a process that knows itself to be the only one: whoever held them is dead.
pub async fn end_leases(db: &Db) -> Result<(), DbError> {
    let tx = db.begin().await?;
    Sql::new(
        "UPDATE idempotency_keys SET lease_until = 1 WHERE status IS NULL AND lease_until > 1",
        [],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await
}

/// Forgets requests that were taken last more than [`KEPT`] before `now`, at most `limit`; says how many.
pub async fn purge(db: &Db, now: DateTime<Utc>, limit: u64) -> Result<u64, DbError> {
    let tx = db.begin().await?;
    let deleted = Sql::new(
        "DELETE FROM idempotency_keys WHERE id IN (
            SELECT id FROM idempotency_keys WHERE created_at <= $1
            ORDER BY created_at LIMIT $2)",
        [(now - KEPT).into(), (limit as i64).into()],
    )
    .execute(&tx.inner)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
