//! Runs of imports among `sync_runs`: begun by the process that has the file, and nobody else's to go on
//! with.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, Value};

use super::{
    DbError, Sql, Tx, now_ms,
    sync_run::{Claim, ClaimRow, LEASE_MS, NewRun, WorkerId},
};
use crate::domain::{
    IntegrationId, RunId,
    sync::{Counts, RunKind, RunStatus},
};

/// Adds an import that this process carries out from now on: it has the file. If the integration has
/// an active run it is a [`DbError::Conflict`], and the transaction may go on: it sees that run now.
pub async fn begin(
    tx: &Tx,
    run: &NewRun,
    owner: WorkerId,
    now: DateTime<Utc>,
) -> Result<Claim, DbError> {
    let clock = now_ms(&tx.inner);
    let row: Option<ClaimRow> = Sql::new(
        "INSERT INTO sync_runs (id, integration_id, entity_id, service_name, kind, triggered_by,
            mode, status, counts, requested_at, started_at, fence, attempts, lease_owner,
            lease_until) VALUES (",
        [],
    )
    .list([
        Value::from(run.id),
        run.integration_id.into(),
        run.entity_id.into(),
        run.service_name.clone().into(),
        RunKind::Import.as_str().into(),
        run.trigger.as_str().into(),
        run.mode.as_str().into(),
        RunStatus::Running.as_str().into(),
        serde_json::json!(Counts::default()).into(),
        run.requested_at.into(),
        now.into(),
        1_i64.into(),
        1_i32.into(),
        owner.into(),
    ])
    .push(&format!(
        ", {clock} + {LEASE_MS})
         ON CONFLICT (integration_id) WHERE status IN ('queued', 'running') DO NOTHING
         RETURNING id, integration_id, entity_id, fence, attempts, counts, quota_units, mode,
            traceparent"
    ))
    .one(&tx.inner)
    .await?;
    row.ok_or(DbError::Conflict)?.into_claim()
}

/// An import whose process is gone.
#[derive(Debug, FromQueryResult)]
pub struct Interrupted {
    /// The run.
    pub id: RunId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// A sync was asked for meanwhile.
    pub again_at: Option<DateTime<Utc>>,
    /// And the operator agreed that many records may be erased by it.
    pub confirm_mass_deletion: bool,
}

/// Imports whose lease is over. Nobody else has their file, so they cannot go on, and while the transaction
/// lasts they do not.
pub async fn interrupted(tx: &Tx) -> Result<Vec<Interrupted>, DbError> {
    let clock = now_ms(&tx.inner);
    Sql::new(
        format!(
            "UPDATE sync_runs SET lease_owner = NULL
             WHERE status = 'running' AND kind = 'import' AND lease_until < {clock}
             RETURNING id, integration_id, again_at, confirm_mass_deletion"
        ),
        [],
    )
    .all(&tx.inner)
    .await
}
