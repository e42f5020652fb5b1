//! `/records` and `/events`: what was ingested and what is told of it, read-only.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    List,
    caller::Caller,
    error::ApiError,
    extract::{Deleted, Paging, PathId, Query, encode_id},
};
use crate::{
    app::App,
    db::{integration, outbox, outbox::FollowError, raw_data, raw_data::RawData},
    domain::{
        IntegrationId, RecordId,
        event::{CloudEvent, decode_position, encode_position},
        ids::kind,
    },
};

/// List an integration's records
///
/// What was ingested, newest first, with its text.
#[utoipa::path(get, path = "/integrations/{id}/records", operation_id = "list_records",
    tag = "Records",
    params(("id" = IntegrationId, Path, description = "The integration's id."), Deleted, Paging),
    responses((status = 200, description = "A page of records.", body = List<RawData>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    mut query: Query,
) -> Result<Json<List<RawData>>, ApiError> {
    let deleted = query.flag("deleted", "include");
    let slicing = query.slicing()?;
    query.finish()?;
    integration::find(&app.engine.db, caller.scope, id).await?;
    let slice = raw_data::list(&app.engine.db, caller.scope, id, deleted, slicing).await?;
    Ok(Json(List::of(slice, |record| encode_id(record.id.0))))
}

/// Read a record
#[utoipa::path(get, path = "/records/{id}", operation_id = "get_record", tag = "Records",
    params(("id" = RecordId, Path, description = "The record's id."), Deleted),
    responses((status = 200, description = "The record.", body = RawData)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Record>,
    mut query: Query,
) -> Result<Json<RawData>, ApiError> {
    let deleted = query.flag("deleted", "include");
    query.finish()?;
    Ok(Json(
        raw_data::find(&app.engine.db, caller.scope, id, deleted).await?,
    ))
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The events, oldest first.
    items: Vec<CloudEvent>,
    /// Where the next page starts, if there is one now.
    next_cursor: Option<String>,
    /// Where to go on later, whether or not there is more now.
    resume_cursor: String,
}

/// Read DNA-analysis events
///
/// What syncs changed, oldest first, as CloudEvents: each names records by id and hash, never their
/// content. To follow them, ask again with the last `resume_cursor`, whether or not there was a
/// `next_cursor`. Without a cursor the list starts with the oldest event that is still kept.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "Events",
    params(Paging),
    responses(
        (status = 200, description = "A page of events.", body = Events),
        (status = 410, description = "cursor_expired")))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Events>, ApiError> {
    let cursor = query.cursor();
    let limit = query.limit();
    query.finish()?;
    let given = match cursor {
        Some(text) => Some(decode_position(&text).ok_or(ApiError::InvalidCursor)?),
        None => None,
    };
    let followed = outbox::follow(&app.engine.db, caller.scope, given, limit).await;
    let found = followed.map_err(|error| match error {
        FollowError::Expired => ApiError::CursorExpired,
        FollowError::Beyond => ApiError::InvalidCursor,
        FollowError::Db(error) => error.into(),
    })?;
    let resume_cursor = encode_position(found.resume);
    Ok(Json(Events {
        items: found.events.into_iter().map(|event| event.event).collect(),
        next_cursor: found.more.then(|| resume_cursor.clone()),
        resume_cursor,
    }))
}
