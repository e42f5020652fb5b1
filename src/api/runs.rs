//! `/integrations/{id}/sync` and `/runs`: asking for syncs and looking at them.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    List,
    error::ApiError,
    extract::{Body, Caller, NoFields, PathId, Query, encode_id},
    to_the_end,
};
use crate::{
    app::App,
    db::{integration, sync_run},
    domain::{
        IntegrationId, RunId,
        ids::kind,
        sync::{Run, RunStatus, Trigger},
        time,
    },
    sync::{self, Request},
};

/// The body of a request to sync.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncBody {
    /// The operator agrees that many records may be erased at once.
    #[serde(default)]
    confirm_mass_deletion: bool,
}

/// What a request to sync is answered with.
#[derive(Serialize)]
pub(super) struct Requested {
    run_id: RunId,
    integration_id: IntegrationId,
    service_name: String,
    status: String,
    #[serde(serialize_with = "time::serialize")]
    requested_at: DateTime<Utc>,
}

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

pub(super) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Run>,
) -> Result<Json<Run>, ApiError> {
    Ok(Json(
        sync_run::find(&app.engine.db, caller.scope, id).await?,
    ))
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Run>,
    Body(NoFields {}): Body<NoFields>,
) -> Result<(StatusCode, Json<Run>), ApiError> {
    let cancelling = Arc::clone(&app);
    let scope = caller.scope;
    let before = to_the_end(&app, async move {
        let tx = cancelling.engine.db.begin().await?;
        let before = sync_run::cancel(&tx, scope, id, cancelling.now()).await?;
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
