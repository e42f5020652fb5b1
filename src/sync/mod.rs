//! Syncing: asking for a run, and carrying it out.
//!
//! [`request()`] is the one way to ask. It writes the run and the message that wakes a worker up in one
//! transaction; the worker hands the run to [`Engine::run`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tracing::Span;
use url::Url;

use crate::{
    connectors::{ApiClient, Connector},
    db::{
        Db, DbError, Tx,
        audit_log::{self, Act},
        import_run, integration,
        integration::Integration,
        outbox, sync_cursor, sync_run,
    },
    domain::{
        Clock, IntegrationId, RunId, ServiceName,
        audit::Action,
        sync::{
            IntegrationStatus, Mode, Run, RunError, RunKind, RunStatus, Scope, SyncRequested,
            Trigger,
        },
    },
    metrics::Metrics,
    oauth::tokens::TokenService,
    traces,
};

mod access;
pub(crate) mod batch;
mod finish;
pub(crate) mod hold;
mod labels;
mod outage;
mod pages;
pub mod redrive;
mod resync;
pub mod runner;
pub mod settings;

pub use access::access;
pub use runner::Ended;
pub use settings::SyncSettings;

/// A service that can be synced.
#[derive(Clone)]
pub struct Service {
    /// Its code.
    pub connector: Arc<dyn Connector>,
    /// What stands before its own paths.
    pub api_url: Url,
}

/// How runs are carried out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A run that has got nowhere in so many attempts is parked.
    pub max_attempts: i32,
    /// A worker lets go of a run after this long and asks for it again.
    pub max_hold: Duration,
}

impl Limits {
    /// Until when a worker that begins now holds a run.
    fn hold_until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let max_hold = TimeDelta::from_std(self.max_hold).unwrap_or(TimeDelta::MAX);
        now.checked_add_signed(max_hold)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// Everything a run needs.
pub struct Engine {
    /// The store.
    pub db: Db,
    /// The one source of time.
    pub clock: Arc<dyn Clock>,
    /// Access tokens.
    pub tokens: Arc<TokenService>,
    /// Makes the calls to services.
    pub client: ApiClient,
    /// The services that have a connector.
    pub services: BTreeMap<ServiceName, Service>,
    /// How runs are carried out.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The error code of an import whose process is gone.
const IMPORT_INTERRUPTED: &str = "import_interrupted";

/// Why a sync cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The integration does not stand so that it can sync.
    #[error("the integration is {}", .0.as_str())]
    NotSyncable(IntegrationStatus),
    /// The store did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What a request to sync says beside the integration.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Who asks.
    pub trigger: Trigger,
    /// Whether the operator agreed that many records may be erased at once.
    pub confirm_mass_deletion: bool,
}

/// Asks for a sync of an integration that `scope` may see. If one is queued it is that one; if one is
/// running it will make another pass, unless the schedule asks, or, where it ends without, be followed by
/// another. That many records may be erased is written down as agreed.
pub async fn request(
    db: &Db,
    clock: &dyn Clock,
    scope: Scope,
    id: IntegrationId,
    request: Request,
) -> Result<Run, RequestError> {
    let tx = db.begin().await?;
    let run = request_in(&tx, clock.now(), scope, id, request).await?;
    if request.confirm_mass_deletion {
        let target = id.to_string();
        let act = Act::done(run.entity_id, Action::MassDeletionConfirm, &target);
        audit_log::append(&tx, &act, clock.now()).await?;
    }
    tx.commit().await?;
    Ok(run)
}

/// As [`request()`], in the caller's transaction.
pub async fn request_in(
    tx: &Tx,
    now: DateTime<Utc>,
    scope: Scope,
    id: IntegrationId,
    request: Request,
) -> Result<Run, RequestError> {
    let found = integration::find_in(tx, scope, id).await?;
    let status = found.status()?;
    if !status.may_sync() {
        return Err(RequestError::NotSyncable(status));
    }
    let has_cursor = sync_cursor::exists(tx, id).await?;
    let run = sync_run::NewRun {
        id: RunId::new(),
        integration_id: id,
        entity_id: found.entity_id,
        service_name: found.service_name.clone(),
        trigger: request.trigger,
        mode: if has_cursor {
            Mode::Incremental
        } else {
            Mode::Full
        },
        requested_at: now,
        confirm_mass_deletion: request.confirm_mass_deletion,
        traceparent: traces::traceparent(&Span::current()),
    };
    loop {
        if let Some(active) = sync_run::active(tx, id).await? {
            // What the schedule wants is under way. Asked for another pass each time, a sync that takes longer
            // than its interval would never end.
            if request.trigger == Trigger::Schedule && active.kind == RunKind::Sync.as_str() {
                return Ok(active);
            }
            let confirm = request.confirm_mass_deletion;
            match sync_run::ask_again(tx, active.run_id, now, confirm).await {
                Ok(()) => return Ok(active),
                // It ended in between; a new one is made.
                Err(DbError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match sync_run::insert(tx, &run).await {
            Ok(()) => break,
            // Somebody else asked in between; theirs is the run.
            Err(DbError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let message = wake_up(&found, run.id, request.trigger, now)?;
    let traceparent = run.traceparent.as_deref();
    outbox::append_sync_request(tx, &message, traceparent, now, now).await?;
    Ok(sync_run::active(tx, id).await?.ok_or(DbError::NotFound)?)
}

/// Puts syncs whose worker is gone back into the queue, with their messages: those whose lease is
/// over, or all of them (`all`, for a process that knows itself to be the only one that syncs). Says
/// how many. Imports whose process is gone have failed.
pub async fn free_abandoned(engine: &Engine, all: bool) -> Result<usize, DbError> {
    let now = engine.clock.now();
    let tx = engine.db.begin().await?;
    let mut failed_imports = Vec::new();
    for import in import_run::interrupted(&tx).await? {
        let error = RunError {
            code: IMPORT_INTERRUPTED.to_owned(),
            detail: "the process that imported is gone; the same command goes on where it stopped"
                .to_owned(),
        };
        let failed = RunStatus::Failed;
        let ended = sync_run::finish(&tx, import.id, failed, 0, Some(&error), now).await?;
        let has_ended = ended.is_some();
        failed_imports.extend(ended);
        if has_ended && import.again_at.is_some() {
            let confirm = import.confirm_mass_deletion;
            follow(&tx, import.integration_id, confirm, now).await?;
        }
    }
    outbox::free_abandoned(&tx, all).await?;
    let runs = sync_run::free_abandoned(&tx, all).await?;
    for run in &runs {
        let found = integration::find_in(&tx, Scope::Operator, run.integration_id).await?;
        let message = wake_up(&found, run.id, Trigger::Schedule, now)?;
        let traceparent = run.traceparent.as_deref();
        outbox::append_sync_request(&tx, &message, traceparent, now, now).await?;
    }
    tx.commit().await?;
    failed_imports
        .into_iter()
        .for_each(|run| engine.metrics.run_ended(run));
    Ok(runs.len())
}

/// Asks for the sync that was asked for during a run that has ended just now without it: an import, or a
/// sync that failed or was cancelled.
pub(crate) async fn follow(
    tx: &Tx,
    id: IntegrationId,
    confirm_mass_deletion: bool,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let after = Request {
        trigger: Trigger::Schedule,
        confirm_mass_deletion,
    };
    match request_in(tx, now, Scope::Operator, id, after).await {
        // Switched off meanwhile.
        Ok(_) | Err(RequestError::NotSyncable(_)) => Ok(()),
        Err(RequestError::Db(error)) => Err(error),
    }
}

/// The message that wakes a worker up for a run.
fn wake_up(
    integration: &Integration,
    run_id: RunId,
    trigger: Trigger,
    requested_at: DateTime<Utc>,
) -> Result<SyncRequested, DbError> {
    Ok(SyncRequested {
        run_id,
        integration_id: integration.id,
        entity_id: integration.entity_id,
        service_name: integration.service()?,
        trigger,
        requested_at,
    })
}
