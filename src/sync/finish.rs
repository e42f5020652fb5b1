//! How a run ends, or is put back into the queue: the one place where errors become the status of a
//! run and of its integration.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use fail::fail_point;
use tokio_util::sync::CancellationToken;

use super::{
    Engine, SyncSettings, follow,
    resync::UNCONFIRMED,
    runner::{Active, Ended, Stop},
    wake_up,
};
use crate::{
    connectors::ConnectorError,
    db::{
        DbError, Tx, dead_letter,
        dead_letter::DeadLetter,
        gap, integration,
        integration::Integration,
        outbox, quota_window,
        standing::{self, RunResult},
        sync_run,
        sync_run::{Claim, Held},
    },
    domain::{
        EventId, errors,
        event::{SYNC_REQUESTED_V1, SYNC_REQUESTS},
        sync::{EndedRun, IntegrationStatus, RunError, RunStatus, Scope, SkipReason, Trigger},
    },
};

/// A run that failed for a passing reason waits this long, doubled for each failure in a row,
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// but no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The pages came to their end. Either the run is finished, or another pass was wanted meanwhile
/// and `None` says that it begins.
pub(super) async fn finished(active: &mut Active<'_>) -> Result<Option<Ended>, DbError> {
    let engine = active.engine;
    let tx = engine.db.begin().await?;
    active.held = sync_run::fence(&tx, active.claim.run_id, active.claim.fence).await?;
    // What was confirmed after the listing was drawn up is done by another one.
    let may_go_on = active.partial.is_none() || active.held.confirm_mass_deletion;
    if active.held.again_at.is_some() && !active.held.cancel_requested && may_go_on {
        sync_run::begin_again(&tx, active.claim.run_id).await?;
        tx.commit().await?;
        active.partial = None;
        return Ok(None);
    }
    let postponed = SkipReason::Postponed.as_str();
    let postponed = active.counts.skipped.get(postponed).copied().unwrap_or(0);
    let open_gaps = gap::count_open(&tx, active.claim.integration_id).await?;
    let (status, error) = if !active.counts.add_up() {
        let detail = format!("listed and accounted for differ: {:?}", active.counts);
        (
            RunStatus::Failed,
            Some(run_error("counts_do_not_add_up", detail)),
        )
    } else if active.partial == Some(UNCONFIRMED) {
        let detail = "a full listing lacks more of the stored records than may be erased without \
                      confirmation; those that no earlier listing lacked stay: sync again to confirm \
                      by a second listing, or let the operator sync with confirm_mass_deletion";
        (
            RunStatus::Partial,
            Some(run_error(UNCONFIRMED, detail.to_owned())),
        )
    } else if open_gaps > 0 {
        let detail =
            format!("{open_gaps} items could not be fetched; later runs try them again by id");
        (RunStatus::Partial, Some(run_error("gaps_open", detail)))
    } else if postponed > 0 {
        let detail = format!("{postponed} lists could not be had; later runs ask for them again");
        (
            RunStatus::Partial,
            Some(run_error("lists_postponed", detail)),
        )
    } else {
        (RunStatus::Success, None)
    };
    let integration_status = (status != RunStatus::Failed).then_some(IntegrationStatus::Active);
    end(active, tx, status, error, integration_status)
        .await
        .map(Some)
}

/// The pages were left before their end: the run fails, or another attempt is made later.
pub(super) async fn stopped(active: Active<'_>, stop: Stop) -> Result<Ended, DbError> {
    match stop {
        Stop::Db(error) => Err(error),
        Stop::Shutdown | Stop::HandOver => requeue(active, Duration::ZERO, 0).await,
        Stop::Cancelled => {
            let engine = active.engine;
            let tx = engine.db.begin().await?;
            let held = sync_run::fence(&tx, active.claim.run_id, active.claim.fence).await?;
            save_spending(&active, &tx).await?;
            let (units, now) = (active.quota_units(), engine.clock.now());
            let ended = sync_run::finish(
                &tx,
                active.claim.run_id,
                RunStatus::Cancelled,
                units,
                None,
                now,
            )
            .await?;
            follow_if_asked(&tx, &active.claim, &held, now).await?;
            tx.commit().await?;
            count(engine, ended);
            tracing::info!("the run was cancelled");
            Ok(Ended::Finished(RunStatus::Cancelled))
        }
        Stop::Connector(ConnectorError::RateLimited { retry_after }) => {
            tracing::info!(
                retry_after_ms = retry_after.as_millis() as u64,
                "the service asks for patience; the run waits in the queue"
            );
            requeue(active, retry_after, 0).await
        }
        Stop::Connector(ConnectorError::Unavailable(detail)) => {
            let (before, now) = match active.progressed {
                true => (0, 0),
                false => (active.claim.attempts - 1, active.claim.attempts),
            };
            if now >= active.engine.limits.max_attempts {
                return fail(active, run_error("unavailable", detail), None).await;
            }
            let wait = (FIRST_WAIT * (1 << before.clamp(0, 10))).min(LONGEST_WAIT);
            tracing::warn!(
                error = detail,
                wait_ms = wait.as_millis() as u64,
                "the service is unavailable; the run waits in the queue"
            );
            requeue(active, wait, now).await
        }
        Stop::Connector(ConnectorError::Expired(detail)) => {
            fail(
                active,
                run_error("consent_expired", detail),
                Some(IntegrationStatus::Expired),
            )
            .await
        }
        Stop::Connector(ConnectorError::Revoked(detail)) => {
            fail(
                active,
                run_error("access_revoked", detail),
                Some(IntegrationStatus::Revoked),
            )
            .await
        }
        Stop::Connector(ConnectorError::Rejected { code, detail }) => {
            fail(
                active,
                run_error(code, detail),
                Some(IntegrationStatus::Error),
            )
            .await
        }
        Stop::Connector(ConnectorError::CursorExpired) => {
            let detail = "the service refuses every cursor, even one it gave just now".to_owned();
            fail(
                active,
                run_error("cursor_refused", detail),
                Some(IntegrationStatus::Error),
            )
            .await
        }
    }
}

fn run_error(code: &str, detail: String) -> RunError {
    RunError {
        code: code.to_owned(),
        detail,
    }
}

async fn fail(
    mut active: Active<'_>,
    error: RunError,
    status: Option<IntegrationStatus>,
) -> Result<Ended, DbError> {
    fail_point!("standing.judged");
    let tx = active.engine.db.begin().await?;
    active.held = sync_run::fence(&tx, active.claim.run_id, active.claim.fence).await?;
    if status.is_some() && !standing::has_same_credentials(&tx, &active.integration).await? {
        drop(tx);
        // What was said of the credentials before says nothing of those that the owner has given since.
        tracing::info!(
            error.code = error.code,
            error = error.detail,
            "the credentials were replaced; the run begins again with the new ones"
        );
        return requeue(active, Duration::ZERO, 0).await;
    }
    end(&active, tx, RunStatus::Failed, Some(error), status).await
}

async fn end(
    active: &Active<'_>,
    tx: Tx,
    status: RunStatus,
    error: Option<RunError>,
    integration_status: Option<IntegrationStatus>,
) -> Result<Ended, DbError> {
    let conclusion = Conclusion {
        status,
        error,
        integration_status,
        quota_units: active.quota_units(),
        has_connector: true,
        now: active.engine.clock.now(),
    };
    let ended = conclude(&tx, &active.claim, &active.held, &conclusion).await?;
    save_spending(active, &tx).await?;
    fail_point!("run.end");
    tx.commit().await?;
    count(active.engine, ended);
    fail_point!("run.ended");
    let counts = &active.counts;
    match &conclusion.error {
        None => tracing::info!(
            listed = counts.listed,
            stored = counts.stored,
            updated = counts.updated,
            deleted = counts.deleted,
            quota_units = conclusion.quota_units,
            "the run is done"
        ),
        Some(error) => tracing::warn!(
            status = status.as_str(),
            error.code = error.code,
            error = error.detail,
            "the run ended without being a success"
        ),
    }
    Ok(Ended::Finished(status))
}

/// The run has ended. What was asked for since and it has not done is another run's to do.
async fn follow_if_asked(
    tx: &Tx,
    claim: &Claim,
    held: &Held,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    if held.again_at.is_some() {
        follow(tx, claim.integration_id, held.confirm_mass_deletion, now).await?;
    }
    Ok(())
}

/// A run ended, and that is committed.
fn count(engine: &Engine, ended: Option<EndedRun>) {
    if let Some(ended) = ended {
        engine.metrics.run_ended(ended);
    }
}

/// Leaves to the next run what was spent, to the unit.
async fn save_spending(active: &Active<'_>, tx: &Tx) -> Result<(), DbError> {
    let spending = serde_json::json!(active.access.governor.spending(0));
    quota_window::save(tx, active.claim.integration_id, spending).await
}

/// How a run ends, and what that says of its integration.
struct Conclusion {
    status: RunStatus,
    error: Option<RunError>,
    /// Absent where the integration stays as it is.
    integration_status: Option<IntegrationStatus>,
    quota_units: i64,
    /// Whether there is anything to sync with, and so a next time.
    has_connector: bool,
    now: DateTime<Utc>,
}

/// Ends the run, leaves its result on the integration, as it stands now and not as it stood when the run
/// began, and asks for the run that follows; gives what is counted after the commit.
async fn conclude(
    tx: &Tx,
    claim: &Claim,
    held: &Held,
    conclusion: &Conclusion,
) -> Result<Option<EndedRun>, DbError> {
    let Conclusion {
        status,
        error,
        integration_status,
        quota_units,
        has_connector,
        now,
    } = conclusion;
    let ended = sync_run::finish(
        tx,
        claim.run_id,
        *status,
        *quota_units,
        error.as_ref(),
        *now,
    )
    .await?;
    let found = integration::find_in(tx, Scope::Operator, claim.integration_id).await?;
    let failures = if *status == RunStatus::Failed {
        found.sync_failures + 1
    } else {
        0
    };
    let settings = SyncSettings::parse(&found.sync_settings).unwrap_or_default();
    let result = RunResult {
        last_sync_status: status.as_str(),
        message: error.as_ref().map(|error| error.detail.as_str()),
        status: *integration_status,
        next_sync_at: has_connector
            .then(|| settings.next_sync(*now, failures, claim.integration_id)),
        failures,
        now: *now,
    };
    standing::set_run_result(tx, claim.integration_id, result).await?;
    follow_if_asked(tx, claim, held, *now).await?;
    Ok(ended)
}

/// Puts the run back into the queue, to be taken after `wait`, as one that has failed in so many `attempts`.
async fn requeue(active: Active<'_>, wait: Duration, attempts: i32) -> Result<Ended, DbError> {
    let engine = active.engine;
    let now = engine.clock.now();
    let available_at = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(1));
    let tx = engine.db.begin().await?;
    sync_run::fence(&tx, active.claim.run_id, active.claim.fence).await?;
    let units = active.quota_units();
    sync_run::requeue(&tx, active.claim.run_id, Some(units), Some(attempts)).await?;
    let message = wake_up(
        &active.integration,
        active.claim.run_id,
        Trigger::Schedule,
        now,
    )?;
    let traceparent = active.claim.traceparent.as_deref();
    outbox::append_sync_request(&tx, &message, traceparent, available_at, now).await?;
    save_spending(&active, &tx).await?;
    tx.commit().await?;
    Ok(Ended::Requeued)
}

/// The database went away under the run: puts the run back into the queue as soon as it answers, so that
/// nobody has to wait for the end of the lease. Gives `error` back where that comes first, or the
/// process ends.
#[expect(
    clippy::disallowed_methods,
    reason = "leases are not on the program's clock"
)]
pub(super) async fn give_back(
    engine: &Engine,
    claim: &Claim,
    shutdown: &CancellationToken,
    error: DbError,
) -> Result<Ended, DbError> {
    for _ in 0..sync_run::LEASE_MS / 1000 {
        match try_give_back(engine, claim).await {
            Err(DbError::Unavailable(_)) => {}
            Err(DbError::Fenced) => return Ok(Ended::Lost),
            Err(_) => return Err(error),
            Ok(()) => {
                tracing::warn!(
                    error = errors::chain(&error),
                    "the database was away; the run waits in the queue"
                );
                return Ok(Ended::Requeued);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.cancelled() => return Err(error),
        }
    }
    Err(error)
}

async fn try_give_back(engine: &Engine, claim: &Claim) -> Result<(), DbError> {
    let found = integration::find(&engine.db, Scope::Operator, claim.integration_id).await?;
    let now = engine.clock.now();
    let tx = engine.db.begin().await?;
    sync_run::fence(&tx, claim.run_id, claim.fence).await?;
    // What was spent stands as the last batch has written it.
    sync_run::requeue(&tx, claim.run_id, None, None).await?;
    let message = wake_up(&found, claim.run_id, Trigger::Schedule, now)?;
    let traceparent = claim.traceparent.as_deref();
    outbox::append_sync_request(&tx, &message, traceparent, now, now).await?;
    tx.commit().await
}

/// Gives a run up that has got nowhere in too many attempts, and keeps its message with the reason.
pub(super) async fn park(engine: &Engine, claim: &Claim) -> Result<Ended, DbError> {
    let attempts = claim.attempts - 1;
    let reason = format!(
        "{attempts} attempts in a row ended without getting anywhere; the logs of sync_run.id {} \
         tell why",
        claim.run_id
    );
    let found = integration::find(&engine.db, Scope::Operator, claim.integration_id).await?;
    let conclusion = failure(
        engine,
        claim,
        run_error("attempts_exhausted", reason.clone()),
    );
    let message = wake_up(&found, claim.run_id, Trigger::Schedule, conclusion.now)?;
    let letter = DeadLetter {
        id: EventId::new(),
        topic: SYNC_REQUESTS.to_owned(),
        event_type: SYNC_REQUESTED_V1.to_owned(),
        entity_id: Some(claim.entity_id),
        integration_id: Some(claim.integration_id),
        run_id: Some(claim.run_id),
        data: serde_json::json!(message),
        attributes: None,
        attempts,
        reason: reason.clone(),
        parked_at: conclusion.now,
        redriven_at: None,
        redriven_run_id: None,
    };
    let tx = engine.db.begin().await?;
    let held = sync_run::fence(&tx, claim.run_id, claim.fence).await?;
    let ended = conclude(&tx, claim, &held, &conclusion).await?;
    dead_letter::insert(&tx, &letter).await?;
    tx.commit().await?;
    count(engine, ended);
    tracing::error!(attempts, "the run was parked: {reason}");
    Ok(Ended::Finished(RunStatus::Failed))
}

/// Ends a run of a service that this build has no connector for.
pub(super) async fn without_connector(
    engine: &Engine,
    claim: &Claim,
    found: &Integration,
) -> Result<Ended, DbError> {
    let detail = format!(
        "{} can be connected, but not be synced yet",
        found.service_name
    );
    tracing::warn!("{detail}");
    let conclusion = Conclusion {
        integration_status: None,
        has_connector: false,
        ..failure(engine, claim, run_error("no_connector", detail))
    };
    let tx = engine.db.begin().await?;
    let held = sync_run::fence(&tx, claim.run_id, claim.fence).await?;
    let ended = conclude(&tx, claim, &held, &conclusion).await?;
    tx.commit().await?;
    count(engine, ended);
    Ok(Ended::Finished(RunStatus::Failed))
}

/// A failure of a run that spent nothing in this attempt.
fn failure(engine: &Engine, claim: &Claim, error: RunError) -> Conclusion {
    Conclusion {
        status: RunStatus::Failed,
        error: Some(error),
        integration_status: Some(IntegrationStatus::Error),
        quota_units: claim.quota_units,
        has_connector: true,
        now: engine.clock.now(),
    }
}
