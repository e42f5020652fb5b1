//! What happens by the clock: due syncs, abandoned runs, and what is kept only for a time.
//!
//! Every step is idempotent and safe in several processes at once.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::relay;
use crate::{
    app::{App, Queue},
    connect,
    db::{
        DbError,
        audit_log::{self, Head},
        disconnection, idempotency_key, outbox, standing, sync_listing,
    },
    domain::{
        audit::{Interface, Origin},
        errors,
        sync::{Scope, Trigger},
    },
    sync::{self, Request, RequestError, SyncSettings},
    telemetry::AUDIT_HEADS,
};

/// Time between two passes.
const EVERY: Duration = Duration::from_secs(5);
/// Housekeeping is done in one pass of so many.
const HOUSEKEEPING_EVERY: u32 = 12;
/// Due integrations read at once.
const DUE: u64 = 100;
/// Rows removed in one transaction.
const SWEEP: u64 = 2_000;
/// What asks services and the secret store does not keep a single pass for longer.
const LONGEST_CLEANING: Duration = Duration::from_secs(30);
/// What services answered when they were asked to revoke is kept so long.
const DISCONNECTIONS_KEPT: TimeDelta = TimeDelta::days(365);

/// The head of each chain is logged each hour: at every pass, where passes are an hour apart.
const LOG_HEADS_EVERY: TimeDelta = TimeDelta::minutes(55);
/// Heads logged at once.
const HEADS: u64 = 500;

/// What a pass did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Syncs asked for.
    pub requested: usize,
    /// Runs put back into the queue because their worker was gone.
    pub freed: usize,
}

/// Makes a pass every five seconds until `shutdown`.
#[expect(
    clippy::disallowed_methods,
    reason = "passes are on the machine's clock"
)]
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut passes = 0_u32;
    loop {
        let result = if passes.is_multiple_of(HOUSEKEEPING_EVERY) {
            keep_house(&app).await
        } else {
            pass(&app).await
        };
        if let Err(error) = result {
            tracing::error!(error = errors::chain(&error), "the scheduler's pass failed");
        }
        passes = passes.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One pass with everything that is done by the clock. What asks others comes last, and is left for the next
/// time where they take long.
pub async fn tick(app: &App) -> Result<Report, DbError> {
    let report = keep_house(app).await?;
    if tokio::time::timeout(LONGEST_CLEANING, clean_up(app))
        .await
        .is_err()
    {
        tracing::warn!("services or the secret store take long; the rest is done the next time");
    }
    Ok(report)
}

/// One pass with what is to be done in the database, where nobody waits for anybody outside.
pub async fn keep_house(app: &App) -> Result<Report, DbError> {
    let origin = Origin::system(Interface::Scheduler);
    origin.scope(pass_and_purge(app)).await
}

async fn pass_and_purge(app: &App) -> Result<Report, DbError> {
    // Before the pass, which asks for their syncs.
    schedule_forgotten(app).await?;
    let report = pass(app).await?;
    if let Queue::Embedded = app.queue {
        let told = relay::tell_without_broker(app).await?;
        if told > 0 {
            tracing::warn!(
                events = told,
                "events that waited for a broker are told without it"
            );
        }
    }
    while sync_listing::sweep(&app.engine.db, SWEEP).await? == SWEEP {}
    let old = app.now() - TimeDelta::days(i64::from(app.retention_days));
    while outbox::purge(&app.engine.db, old, SWEEP).await? == SWEEP {}
    while idempotency_key::purge(&app.engine.db, app.now(), SWEEP).await? == SWEEP {}
    let old = app.now() - DISCONNECTIONS_KEPT;
    while disconnection::purge(&app.engine.db, old, SWEEP).await? == SWEEP {}
    while log_audit_heads(app).await? == HEADS {}
    Ok(report)
}

/// Connections whose service has a connector by now get a schedule.
async fn schedule_forgotten(app: &App) -> Result<(), DbError> {
    let services = app.engine.services.keys().copied();
    let forgotten = standing::schedule_forgotten(&app.engine.db, services, app.now()).await?;
    if forgotten > 0 {
        tracing::info!(
            integrations = forgotten,
            "connections that can be synced by now are scheduled"
        );
    }
    Ok(())
}

/// Takes up what others left half done at services and in the secret store. A service that is slow keeps it
/// for minutes.
async fn clean_up(app: &App) {
    let cleaning = async {
        if let Err(error) = connect::sweep(&app.engine, &app.integrations).await {
            tracing::error!(
                error = errors::chain(&error),
                "OAuth flows that are over could not be swept"
            );
        }
        app.integrations.resume_disconnections().await;
        app.integrations.sweep_secrets().await;
    };
    Origin::system(Interface::Scheduler).scope(cleaning).await;
}

/// Once a minute takes up what others left half done at services and in the secret store, until `shutdown`.
/// Apart from the passes, so that no service keeps the syncs of others waiting.
#[expect(
    clippy::disallowed_methods,
    reason = "passes are on the machine's clock"
)]
pub async fn clean_up_each_minute(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = clean_up(&app) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY * HOUSEKEEPING_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Logs where the chains of the audit log end: what the log's keeper has tells of a chain that was made
/// anew. The idle ones too, so that a log of the last hours tells of every chain. What is marked as logged
/// was logged before.
async fn log_audit_heads(app: &App) -> Result<u64, DbError> {
    let now = app.now();
    let tx = app.engine.db.begin().await?;
    let heads = audit_log::take_unlogged(&tx, now - LOG_HEADS_EVERY, now, HEADS).await?;
    log_heads(&heads);
    tx.commit().await?;
    Ok(heads.len() as u64)
}

/// Logs the heads that have moved since they were logged: the last a program does that makes passes, so that
/// the log says of all that it wrote.
pub async fn log_last_audit_heads(app: Arc<App>) {
    let logged = async {
        while log_audit_heads(&app).await? == HEADS {}
        let tx = app.engine.db.begin().await?;
        log_heads(&audit_log::take_moved(&tx, app.now()).await?);
        tx.commit().await
    };
    if let Err(error) = logged.await {
        tracing::warn!(
            error = errors::chain(&error),
            "the last heads of the audit log were not logged"
        );
    }
}

fn log_heads(heads: &[Head]) {
    for head in heads {
        tracing::info!(
            target: AUDIT_HEADS,
            {
                audit.chain = head.chain,
                audit.position = head.position,
                audit.hash = head.hash,
            },
            "the audit log has come so far"
        );
    }
}

async fn pass(app: &App) -> Result<Report, DbError> {
    let freed = free_abandoned(app).await?;
    let requested = request_due(app).await?;
    if requested > 0 {
        app.wake.notify_one();
    }
    Ok(Report { requested, freed })
}

/// Asks for every sync that is due. Of several schedulers one moves `next_sync_at` on, and that one
/// asks, in the same transaction.
async fn request_due(app: &App) -> Result<usize, DbError> {
    let mut requested = 0;
    loop {
        let now = app.now();
        let due = standing::due(&app.engine.db, now, DUE).await?;
        let last_page = (due.len() as u64) < DUE;
        for found in due {
            let Some(before) = found.next_sync_at else {
                continue;
            };
            let settings = SyncSettings::parse(&found.sync_settings).unwrap_or_default();
            let next = settings.next_sync(now, found.sync_failures, found.id);
            let tx = app.engine.db.begin().await?;
            if !standing::move_next_sync(&tx, found.id, before, next).await? {
                continue;
            }
            let request = Request {
                trigger: Trigger::Schedule,
                confirm_mass_deletion: false,
            };
            match sync::request_in(&tx, now, Scope::Operator, found.id, request).await {
                Ok(_) => requested += 1,
                // Switched off since it was read.
                Err(RequestError::NotSyncable(_)) => {}
                Err(RequestError::Db(error)) => return Err(error),
            }
            tx.commit().await?;
        }
        if last_page {
            return Ok(requested);
        }
    }
}

/// Takes runs back from workers that are gone, every five seconds until `shutdown`: for a worker
/// without a scheduler beside it.
#[expect(
    clippy::disallowed_methods,
    reason = "passes are on the machine's clock"
)]
pub async fn sweep(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = free_abandoned(&app).await {
            tracing::error!(error = errors::chain(&error), "the sweep failed");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Asks services once a minute how the connections stand whose time has come, until `shutdown`.
#[expect(
    clippy::disallowed_methods,
    reason = "passes are on the machine's clock"
)]
pub async fn check_connections(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        let checked = tokio::select! {
            checked = app.integrations.check_due() => checked,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = checked {
            tracing::error!(
                error = errors::chain(&error),
                "connections could not be checked"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY * HOUSEKEEPING_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Moves what was counted, and when keys were used, to the database every five seconds until
/// `shutdown`, and once a minute lets go of access tokens that no connection has any more.
#[expect(
    clippy::disallowed_methods,
    reason = "passes are on the machine's clock"
)]
pub async fn save_totals(app: Arc<App>, shutdown: CancellationToken) {
    let mut passes = 0_u32;
    loop {
        if passes.is_multiple_of(HOUSEKEEPING_EVERY)
            && let Err(error) = app.engine.tokens.let_go().await
        {
            tracing::warn!(
                error = errors::chain(&error),
                "access tokens in memory are looked through later"
            );
        }
        passes = passes.wrapping_add(1);
        if let Err(error) = app.save_totals().await {
            tracing::warn!(
                error = errors::chain(&error),
                "what was counted is saved later"
            );
        }
        if let Err(error) = app.save_key_uses().await {
            let error = errors::chain(&error);
            tracing::warn!(error, "when keys were used is saved later");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn free_abandoned(app: &App) -> Result<usize, DbError> {
    let freed = sync::free_abandoned(&app.engine, false).await?;
    if freed > 0 {
        tracing::warn!(
            runs = freed,
            "runs were taken back from workers that are gone"
        );
        app.wake.notify_one();
    }
    Ok(freed)
}
