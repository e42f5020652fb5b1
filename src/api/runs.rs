//! `/integrations/{id}/sync` and `/runs`: asking for syncs and looking at them.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    List,
    caller::Caller,
    error::ApiError,
    extract::{Body, NoFields, Paging, PathId, Query, encode_id},
    to_the_end,
};
use crate::{
    app::App,
    db::{
        audit_log::{self, Act},
        integration, sync_run,
    },
    domain::{
        IntegrationId, RunId, ServiceName,
        audit::Action,
        ids::kind,
        sync::{Run, RunStatus, Trigger},
        time,
    },
    sync::{self, Request},
};

/// How to sync.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SyncRequest)]
pub(super) struct SyncBody {
    /// Agrees that more than max(50, 5 %) of the stored records may be erased at once, after a
    /// listing that lacks them. The operator's.
    #[serde(default)]
    confirm_mass_deletion: bool,
}

/// A sync that was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = RequestedSync)]
pub(super) struct Requested {
    /// The run that carries it out.
    run_id: RunId,
    /// The integration.
    integration_id: IntegrationId,
    /// The service.
    #[schema(value_type = ServiceName)]
    service_name: String,
    /// Where the run stands: `queued`, or `running` where one was under way.
    #[schema(value_type = RunStatus)]
    status: String,
    /// When the run was asked for first.
    #[serde(serialize_with = "time::serialize")]
    requested_at: DateTime<Utc>,
}

/// Ask for a sync
///
/// A queued run is answered as it is; a running one makes another pass when it is done. A running import,
/// and a sync that is being cancelled, are followed by a sync of its own. An integration in the status `error` may sync.
#[utoipa::path(post, path = "/integrations/{id}/sync", operation_id = "sync_integration",
    tag = "Runs",
    params(("id" = IntegrationId, Path, description = "The integration's id.")),
    request_body = SyncBody,
    responses(
        (status = 202, description = "The run that carries it out.", body = Requested),
        (status = 403, description = "forbidden"),
        (status = 409, description = "no_connector, integration_inactive, integration_expired, \
                                      integration_revoked, conflict")))]
pub(super) async fn request(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    Body(body): Body<SyncBody>,
) -> Result<(StatusCode, Json<Requested>), ApiError> {
    if body.confirm_mass_deletion {
        caller.require_operator()?;
    }
    let found = integration::find(&app.engine.db, caller.scope, id).await?;
    if !app.engine.services.contains_key(&found.service()?) {
        return Err(ApiError::Conflict(
            "no_connector",
            format!(
                "{} can be connected, but not be synced yet",
                found.service_name
            ),
        ));
    }
    let requesting = Arc::clone(&app);
    let run = to_the_end(&app, async move {
        let request = Request {
            trigger: Trigger::Manual,
            confirm_mass_deletion: body.confirm_mass_deletion,
        };
        let engine = &requesting.engine;
        let run = sync::request(&engine.db, &*engine.clock, caller.scope, id, request).await?;
        requesting.wake.notify_one();
        Ok(run)
    })
    .await?;
    let requested = Requested {
        run_id: run.run_id,
        integration_id: run.integration_id,
        service_name: run.service_name,
        status: run.status,
        requested_at: run.requested_at,
    };
    Ok((StatusCode::ACCEPTED, Json(requested)))
}

/// List an integration's runs
///
/// Newest first.
#[utoipa::path(get, path = "/integrations/{id}/runs", operation_id = "list_runs", tag = "Runs",
    params(("id" = IntegrationId, Path, description = "The integration's id."), Paging),
    responses((status = 200, description = "A page of runs.", body = List<Run>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    mut query: Query,
) -> Result<Json<List<Run>>, ApiError> {
    let slicing = query.slicing()?;
    query.finish()?;
    integration::find(&app.engine.db, caller.scope, id).await?;
    let slice = sync_run::list(&app.engine.db, caller.scope, id, slicing).await?;
    Ok(Json(List::of(slice, |run| encode_id(run.run_id.0))))
}

/// Read a run
#[utoipa::path(get, path = "/runs/{id}", operation_id = "get_run", tag = "Runs",
    params(("id" = RunId, Path, description = "The run's id.")),
    responses((status = 200, description = "The run.", body = Run)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Run>,
) -> Result<Json<Run>, ApiError> {
    Ok(Json(
        sync_run::find(&app.engine.db, caller.scope, id).await?,
    ))
}

/// Cancel a run
///
/// A queued run ends at once, a running one after the batch that it is writing, and without the other pass
/// that it was asked for. What it stored stays, and the next run goes on from there.
#[utoipa::path(post, path = "/runs/{id}/cancel", operation_id = "cancel_run", tag = "Runs",
    params(("id" = RunId, Path, description = "The run's id.")),
    request_body = NoFields,
    responses(
        (status = 202, description = "The run as it stands now.", body = Run),
        (status = 409, description = "run_finished")))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Run>,
    Body(NoFields {}): Body<NoFields>,
) -> Result<(StatusCode, Json<Run>), ApiError> {
    let cancelling = Arc::clone(&app);
    let scope = caller.scope;
    let run = sync_run::find(&app.engine.db, scope, id).await?;
    let before = to_the_end(&app, async move {
        let tx = cancelling.engine.db.begin().await?;
        let before = sync_run::cancel(&tx, scope, id, cancelling.now()).await?;
        if !RunStatus::is_finished(&before) {
            let target = id.to_string();
            let act = Act::done(run.entity_id, Action::RunCancel, &target);
            audit_log::append(&tx, &act, cancelling.now()).await?;
        }
        tx.commit().await?;
        if before == RunStatus::Queued.as_str() {
            let run = sync_run::find(&cancelling.engine.db, scope, id).await?;
            cancelling
                .engine
                .metrics
                .run_ended(run.ended(RunStatus::Cancelled));
        }
        Ok(before)
    })
    .await?;
    if RunStatus::is_finished(&before) {
        return Err(ApiError::Conflict(
            "run_finished",
            format!("the run is over: {before}"),
        ));
    }
    let run = sync_run::find(&app.engine.db, scope, id).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}
