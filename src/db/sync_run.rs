//! `sync_runs`: the truth about every run. A message only wakes a worker up.
//!
//! A running run is held by a lease on the database's clock and numbered by a fence: a worker that
//! was stopped past its lease finds another fence and can write nothing.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};

use super::{Db, DbError, Slice, Slicing, Sql, Tx, now_ms};
use crate::domain::{
    EntityId, IntegrationId, RunId,
    ids::Id,
    sync::{Counts, EndedRun, Mode, Run, RunError, RunKind, RunStatus, Scope, Trigger},
};

/// How long a run is held without being heard of, in milliseconds.
pub const LEASE_MS: i64 = 30_000;

/// A worker process.
pub type WorkerId = Id<kind::Worker>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::WorkerId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Worker {}
}

#[derive(FromQueryResult)]
struct Row {
    id: RunId,
    integration_id: IntegrationId,
    entity_id: EntityId,
    service_name: String,
    kind: String,
    triggered_by: String,
    mode: String,
    status: String,
    counts: JsonValue,
    quota_units: i64,
    events: i64,
    requested_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    error_code: Option<String>,
    error_detail: Option<String>,
}

impl Row {
    fn into_run(self) -> Result<Run, DbError> {
        Ok(Run {
            run_id: self.id,
            integration_id: self.integration_id,
            entity_id: self.entity_id,
            service_name: self.service_name,
            kind: self.kind,
            trigger: self.triggered_by,
            mode: self.mode,
            status: self.status,
            counts: counts(self.counts)?,
            quota_units: self.quota_units,
            events: self.events,
            requested_at: self.requested_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            error: self.error_code.map(|code| RunError {
                code,
                detail: self.error_detail.unwrap_or_default(),
            }),
        })
    }
}

fn counts(value: JsonValue) -> Result<Counts, DbError> {
    serde_json::from_value(value)
        .map_err(|error| DbError::Schema(format!("sync_runs.counts: {error}")))
}

/// A run that is to be made.
#[derive(Debug)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// Whose.
    pub entity_id: EntityId,
    /// Of which service.
    pub service_name: String,
    /// Who asked.
    pub trigger: Trigger,
    /// What it starts as; the runner may find that more is needed.
    pub mode: Mode,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// Whether the operator confirmed that many records may be erased at once.
    pub confirm_mass_deletion: bool,
    /// The trace of the request, as W3C's `traceparent`, where traces are sent.
    pub traceparent: Option<String>,
}

/// Adds a queued run; if the integration has an active one it is a [`DbError::Conflict`], and the
/// transaction may go on: it sees that run now.
pub async fn insert(tx: &Tx, run: &NewRun) -> Result<(), DbError> {
    let inserted = Sql::new(
        "INSERT INTO sync_runs (id, integration_id, entity_id, service_name, kind, triggered_by,
            mode, status, counts, requested_at, confirm_mass_deletion, traceparent) VALUES ",
        [],
    )
    .tuple([
        Value::from(run.id),
        run.integration_id.into(),
        run.entity_id.into(),
        run.service_name.clone().into(),
        RunKind::Sync.as_str().into(),
        run.trigger.as_str().into(),
        run.mode.as_str().into(),
        RunStatus::Queued.as_str().into(),
        serde_json::json!(Counts::default()).into(),
        run.requested_at.into(),
        run.confirm_mass_deletion.into(),
        run.traceparent.clone().into(),
    ])
    // A statement that fails would end the transaction in PostgreSQL.
    .push(" ON CONFLICT (integration_id) WHERE status IN ('queued', 'running') DO NOTHING")
    .execute(&tx.inner)
    .await?;
    if inserted == 0 {
        Err(DbError::Conflict)
    } else {
        Ok(())
    }
}

/// The queued or running run of an integration.
pub async fn active(tx: &Tx, integration: IntegrationId) -> Result<Option<Run>, DbError> {
    let row: Option<Row> = Sql::new(
        "SELECT * FROM sync_runs WHERE integration_id = $1 AND status IN ('queued', 'running')",
        [integration.into()],
    )
    .one(&tx.inner)
    .await?;
    row.map(Row::into_run).transpose()
}

/// Asks a running run for one more pass after it, and one that is to end for a run that follows it; and
/// passes the operator's confirmation on. A run that has ended meanwhile is [`DbError::NotFound`]: what
/// was asked for needs a new run.
pub async fn ask_again(
    tx: &Tx,
    id: RunId,
    now: DateTime<Utc>,
    confirm_mass_deletion: bool,
) -> Result<(), DbError> {
    let asked = Sql::new(
        "UPDATE sync_runs SET
            again_at = CASE WHEN status = 'running' OR cancel_requested THEN $2
                ELSE again_at END,
            confirm_mass_deletion = (confirm_mass_deletion OR $3)
         WHERE id = $1 AND status IN ('queued', 'running')",
        [id.into(), now.into(), confirm_mass_deletion.into()],
    )
    .execute(&tx.inner)
    .await?;
    if asked == 0 {
        Err(DbError::NotFound)
    } else {
        Ok(())
    }
}

/// The run, if `scope` may see it.
pub async fn find(db: &Db, scope: Scope, id: RunId) -> Result<Run, DbError> {
    let row: Option<Row> = Sql::new("SELECT * FROM sync_runs WHERE id = $1", [id.into()])
        .owned_by(scope)
        .one(db.reader())
        .await?;
    row.ok_or(DbError::NotFound)?.into_run()
}

/// An integration's runs, newest first.
pub async fn list(
    db: &Db,
    scope: Scope,
    integration: IntegrationId,
    slicing: Slicing,
) -> Result<Slice<Run>, DbError> {
    let rows: Slice<Row> = Sql::new(
        "SELECT * FROM sync_runs WHERE integration_id = $1",
        [integration.into()],
    )
    .owned_by(scope)
    .slice(slicing, db.reader())
    .await?;
    let items = rows.items.into_iter().map(Row::into_run);
    Ok(Slice {
        items: items.collect::<Result<_, _>>()?,
        more: rows.more,
    })
}

/// A run that this worker holds.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The run.
    pub run_id: RunId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// Whose.
    pub entity_id: EntityId,
    /// Its number, which every write is checked against.
    pub fence: i64,
    /// How often it was claimed without getting anywhere, this time included.
    pub attempts: i32,
    /// What it has done before.
    pub counts: Counts,
    /// What it has spent before.
    pub quota_units: i64,
    /// See [`Mode`].
    pub mode: String,
    /// The trace of the request that asked for it, as W3C's `traceparent`, where traces are sent.
    pub traceparent: Option<String>,
}

#[derive(FromQueryResult)]
pub(super) struct ClaimRow {
    id: RunId,
    integration_id: IntegrationId,
    entity_id: EntityId,
    fence: i64,
    attempts: i32,
    counts: JsonValue,
    quota_units: i64,
    mode: String,
    traceparent: Option<String>,
}

impl ClaimRow {
    pub(super) fn into_claim(self) -> Result<Claim, DbError> {
        Ok(Claim {
            run_id: self.id,
            integration_id: self.integration_id,
            entity_id: self.entity_id,
            fence: self.fence,
            attempts: self.attempts,
            counts: counts(self.counts)?,
            quota_units: self.quota_units,
            mode: self.mode,
            traceparent: self.traceparent,
        })
    }
}

/// Takes the run, if it is queued or its holder is silent past its lease. An import is nobody's but
/// its process's.
pub async fn claim(
    db: &Db,
    id: RunId,
    owner: WorkerId,
    now: DateTime<Utc>,
) -> Result<Option<Claim>, DbError> {
    let tx = db.begin().await?;
    let clock = now_ms(&tx.inner);
    let row: Option<ClaimRow> = Sql::new(
        format!(
            "UPDATE sync_runs SET status = 'running', fence = fence + 1, attempts = attempts + 1,
                lease_owner = $2, lease_until = {clock} + $3,
                started_at = coalesce(started_at, $4)
             WHERE id = $1 AND kind = 'sync'
               AND (status = 'queued' OR (status = 'running' AND lease_until < {clock}))
             RETURNING id, integration_id, entity_id, fence, attempts, counts, quota_units, mode,
                traceparent"
        ),
        [id.into(), owner.into(), LEASE_MS.into(), now.into()],
    )
    .one(&tx.inner)
    .await?;
    tx.commit().await?;
    row.map(ClaimRow::into_claim).transpose()
}

/// What the holder of a run is told by its fence.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Held {
    /// Somebody wants the run to end.
    pub cancel_requested: bool,
    /// Another pass is wanted; of a run that is to end, another run.
    pub again_at: Option<DateTime<Utc>>,
    /// The operator agreed that many records may be erased.
    pub confirm_mass_deletion: bool,
}

/// The first statement of every transaction of a run: renews the lease, and fails with
/// [`DbError::Fenced`] if the run is not this worker's any more.
pub async fn fence(tx: &Tx, run: RunId, fence: i64) -> Result<Held, DbError> {
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "UPDATE sync_runs SET lease_until = {clock} + $3
             WHERE id = $1 AND fence = $2 AND status = 'running'
             RETURNING cancel_requested, again_at, confirm_mass_deletion"
        ),
        [run.into(), fence.into(), LEASE_MS.into()],
    )
    .one(&tx.inner)
    .await?
    .ok_or(DbError::Fenced)
}

/// Whether the run went to another worker, was ended by somebody else, or is gone. One that its holder has
/// ended or put back has its number still.
pub async fn is_lost(db: &Db, run: RunId, fence: i64) -> Result<bool, DbError> {
    let now: Option<i64> = Sql::new("SELECT fence FROM sync_runs WHERE id = $1", [run.into()])
        .optional(db.reader())
        .await?;
    Ok(now != Some(fence))
}

/// Renews the lease in a transaction of its own.
pub async fn renew(db: &Db, run: RunId, fence_number: i64) -> Result<Held, DbError> {
    let tx = db.begin().await?;
    let held = fence(&tx, run, fence_number).await?;
    tx.commit().await?;
    Ok(held)
}

/// Whether somebody wants the run to end; a look that writes nothing.
pub async fn cancel_requested(db: &Db, run: RunId) -> Result<bool, DbError> {
    Sql::new(
        "SELECT cancel_requested FROM sync_runs WHERE id = $1",
        [run.into()],
    )
    .optional(db.reader())
    .await
    .map(|found| found.unwrap_or(true))
}

/// Writes how far the run has come. If it got somewhere, its failures count from 0 again.
pub async fn save_progress(
    tx: &Tx,
    run: RunId,
    mode: Mode,
    counts: &Counts,
    quota_units: i64,
    new_events: i64,
    got_somewhere: bool,
) -> Result<(), DbError> {
    Sql::new(
        "UPDATE sync_runs SET mode = $2, counts = $3, quota_units = $4, events = events + $5,
            attempts = CASE WHEN $6 THEN 0 ELSE attempts END
         WHERE id = $1",
        [
            run.into(),
            mode.as_str().into(),
            serde_json::json!(counts).into(),
            quota_units.into(),
            new_events.into(),
            got_somewhere.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Forgets that another pass was wanted: it begins now.
pub async fn begin_again(tx: &Tx, run: RunId) -> Result<(), DbError> {
    Sql::new(
        "UPDATE sync_runs SET again_at = NULL WHERE id = $1",
        [run.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

#[derive(FromQueryResult)]
struct EndedRow {
    service_name: String,
    kind: String,
    triggered_by: String,
    started_at: Option<DateTime<Utc>>,
}

impl EndedRow {
    fn ended(self, status: RunStatus, now: DateTime<Utc>) -> EndedRun {
        EndedRun {
            service_name: self.service_name,
            kind: self.kind,
            trigger: self.triggered_by,
            status,
            seconds: self
                .started_at
                .map(|started| (now - started).as_seconds_f64()),
        }
    }
}

/// Ends the run, for good, and says what ended, to be counted once that is committed. `None` where
/// it had ended.
pub async fn finish(
    tx: &Tx,
    run: RunId,
    status: RunStatus,
    quota_units: i64,
    error: Option<&RunError>,
    now: DateTime<Utc>,
) -> Result<Option<EndedRun>, DbError> {
    let row: Option<EndedRow> = Sql::new(
        "UPDATE sync_runs SET status = $2, finished_at = $3, lease_until = NULL,
            lease_owner = NULL, again_at = NULL, error_code = $4, error_detail = $5,
            quota_units = $6
         WHERE id = $1 AND status IN ('queued', 'running')
         RETURNING service_name, kind, triggered_by, started_at",
        [
            run.into(),
            status.as_str().into(),
            now.into(),
            error.map(|error| error.code.clone()).into(),
            error.map(|error| error.detail.clone()).into(),
            quota_units.into(),
        ],
    )
    .one(&tx.inner)
    .await?;
    Ok(row.map(|row| row.ended(status, now)))
}

/// Puts a running run back into the queue; the caller appends the message that wakes it. A run
/// that only ran out of time, or whose service asked for patience, has failed in no `attempts`. Without
/// these, or without `quota_units`, what is there stands as it is.
pub async fn requeue(
    tx: &Tx,
    run: RunId,
    quota_units: Option<i64>,
    attempts: Option<i32>,
) -> Result<(), DbError> {
    Sql::new(
        "UPDATE sync_runs SET status = 'queued', lease_until = NULL, lease_owner = NULL,
            quota_units = coalesce($2, quota_units), attempts = coalesce($3, attempts)
         WHERE id = $1",
        [run.into(), quota_units.into(), attempts.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Asks for the end of a run. A queued one ends at once; a running one by its holder. What a sync was
/// asked for until now ends with it; the sync that is to follow an import does not. Gives the status it
/// had.
pub async fn cancel(
    tx: &Tx,
    scope: Scope,
    id: RunId,
    now: DateTime<Utc>,
) -> Result<String, DbError> {
    // One statement, because a worker may claim the run between a look and a write.
    let status: Option<String> = Sql::new(
        "UPDATE sync_runs SET cancel_requested = true,
            again_at = CASE WHEN kind = 'sync' THEN NULL ELSE again_at END,
            confirm_mass_deletion = (confirm_mass_deletion AND kind = 'import'),
            status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
            finished_at = CASE WHEN status = 'queued' THEN $2 ELSE finished_at END
         WHERE id = $1 AND status IN ('queued', 'running')",
        [id.into(), now.into()],
    )
    .owned_by(scope)
    .push(" RETURNING status")
    .optional(&tx.inner)
    .await?;
    match status.as_deref() {
        Some("cancelled") => Ok("queued".to_owned()),
        Some(_) => Ok("running".to_owned()),
        None => {
            Sql::new("SELECT status FROM sync_runs WHERE id = $1", [id.into()])
                .owned_by(scope)
                .scalar(&tx.inner)
                .await
        }
    }
}

/// A run whose holder is gone.
#[derive(Debug, FromQueryResult)]
pub struct Abandoned {
    /// The run.
    pub id: RunId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// Puts syncs back into the queue whose lease is over, or every running one (`all`, for a process
/// that knows itself to be the only one that syncs); the caller appends their messages.
pub async fn free_abandoned(tx: &Tx, all: bool) -> Result<Vec<Abandoned>, DbError> {
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "UPDATE sync_runs SET status = 'queued', lease_until = NULL, lease_owner = NULL
             WHERE status = 'running' AND kind = 'sync' AND ($1 OR lease_until < {clock})
             RETURNING id, integration_id, traceparent"
        ),
        [all.into()],
    )
    .all(&tx.inner)
    .await
}

/// Cancels whatever an integration has queued or under way: its holder writes nothing more. Gives
/// what ended.
pub async fn cancel_all(
    tx: &Tx,
    integration: IntegrationId,
    reason: &RunError,
    now: DateTime<Utc>,
) -> Result<Vec<EndedRun>, DbError> {
    let RunError { code, detail } = reason.clone();
    let rows: Vec<EndedRow> = Sql::new(
        "UPDATE sync_runs SET status = 'cancelled', fence = fence + 1, finished_at = $2,
            lease_until = NULL, lease_owner = NULL, again_at = NULL, error_code = $3,
            error_detail = $4
         WHERE integration_id = $1 AND status IN ('queued', 'running')
         RETURNING service_name, kind, triggered_by, started_at",
        [integration.into(), now.into(), code.into(), detail.into()],
    )
    .all(&tx.inner)
    .await?;
    let ended = rows.into_iter();
    Ok(ended
        .map(|row| row.ended(RunStatus::Cancelled, now))
        .collect())
}

/// How many runs are in the queue and under way.
pub async fn count_active(db: &Db) -> Result<i64, DbError> {
    Sql::new(
        "SELECT count(*) FROM sync_runs WHERE status IN ('queued', 'running')",
        [],
    )
    .scalar(db.reader())
    .await
}
