//! `/runs/{id}/stream`: a run as it goes, told by server-sent events.
//!
//! The run may be worked on by any process, so its row is what is looked at.
//! `progress` tells of the run as it is now and whenever its row has changed, `done` of its end, and
//! `gone` that it was removed with its integration. A stream that ends without one of the last two
//! was interrupted, and may be asked for again.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{caller::Caller, deadlines::Deadlines, error::ApiError, extract::PathId};
use crate::{
    app::App,
    db::{DbError, sync_run},
    domain::{
        RunId, errors,
        ids::kind,
        sync::{Run, RunStatus, Scope},
    },
};

/// How often the row is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row that the database may fail to answer.
const MAX_FAILED_LOOKS: u32 = 20;

/// Streams that are open at the same time: each looks at its run twice a second.
const MAX_STREAMS: usize = 100;
/// Those of one entity, so that no one takes them all.
const MAX_STREAMS_OF_AN_ENTITY: usize = 10;

/// Room for the streams that are open: how many whoever has.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Vec<Scope>>>);

/// Room for one stream, given back when it is dropped.
struct Place {
    places: Places,
    scope: Scope,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Vec<Scope>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a stream of whoever sees `scope`, if there is some.
    fn take(&self, scope: Scope) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.iter().filter(|other| **other == scope).count();
        let is_full = match scope {
            Scope::Entity(_) => own >= MAX_STREAMS_OF_AN_ENTITY,
            Scope::Operator => false,
        };
        if is_full || taken.len() >= MAX_STREAMS {
            return None;
        }
        taken.push(scope);
        Some(Place {
            places: self.clone(),
            scope,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let own = taken.iter().position(|scope| *scope == self.scope);
        if let Some(index) = own {
            taken.swap_remove(index);
        }
    }
}

/// Ends every stream when the server ends.
#[derive(Clone)]
pub(super) struct Leaving(pub(super) CancellationToken);

/// What a stream needs from look to look.
struct Watch {
    app: Arc<App>,
    scope: Scope,
    id: RunId,
    leaving: CancellationToken,
    _place: Place,
    /// The run as it was told last.
    told: Option<String>,
    /// What was found when the stream was asked for.
    first: Option<Run>,
    is_over: bool,
}

/// An event of a stream. What a stream of events is made of has no word in OpenAPI 3.1: the schema is
/// that of each event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what axum writes")]
pub(super) struct RunEvent {
    /// What happened.
    event: RunEventKind,
    /// The run, in JSON; with `gone` its `run_id`, a `code` and a `detail`.
    data: String,
}

/// What an event of a stream tells.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes what axum writes")]
enum RunEventKind {
    /// The run as it is now.
    Progress,
    /// Its end.
    Done,
    /// It was removed with its integration.
    Gone,
}

/// Follow a run
///
/// Server-sent events. `progress` tells of the run as it is now and whenever it has changed, `done`
/// of its end, and the stream ends; the data of both is the run. `gone` says that the run was removed
/// with its integration. A comment comes each 15 seconds. A stream that ends without `done` or `gone`
/// was interrupted, and may be asked for again. An entity may follow ten runs at a time.
#[utoipa::path(get, path = "/runs/{id}/stream", operation_id = "stream_run", tag = "Runs",
    params(("id" = RunId, Path, description = "The run's id.")),
    responses(
        (status = 200, description = "The events.", body = RunEvent,
         content_type = "text/event-stream"),
        (status = 429, description = "too_many")))]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Run>,
    Extension(Leaving(leaving)): Extension<Leaving>,
    Extension(places): Extension<Places>,
    Extension(deadlines): Extension<Deadlines>,
) -> Result<Response, ApiError> {
    let run = sync_run::find(&app.engine.db, caller.scope, id).await?;
    let place = places
        .take(caller.scope)
        .ok_or(ApiError::TooMany("streams"))?;
    let watch = Watch {
        app,
        scope: caller.scope,
        id,
        leaving,
        _place: place,
        told: None,
        first: Some(run),
        is_over: false,
    };
    let comments = KeepAlive::new()
        .interval(deadlines.comment)
        .text("still here");
    let mut response = Sse::new(events(watch)).keep_alive(comments).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather the events:
    // <https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering>
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

fn events(watch: Watch) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(watch, async |mut watch| {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    })
}

impl Watch {
    /// The next event, when there is one; `None` at the stream's end.
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        let mut failed_looks = 0;
        loop {
            let run = match self.look().await? {
                Ok(run) => run,
                Err(DbError::NotFound) => return Some(self.gone()),
                Err(error) => {
                    failed_looks += 1;
                    if failed_looks < MAX_FAILED_LOOKS {
                        continue;
                    }
                    let error = errors::chain(&error);
                    tracing::warn!(sync_run.id = %self.id, error, "a stream was interrupted");
                    return None;
                }
            };
            failed_looks = 0;
            let data = json!(run).to_string();
            if RunStatus::is_finished(&run.status) {
                self.is_over = true;
                return Some(Event::default().event("done").data(data));
            }
            if self.told.as_ref() != Some(&data) {
                let event = Event::default().event("progress").data(&data);
                self.told = Some(data);
                return Some(event);
            }
        }
    }

    /// Looks at the row: the first time at once, and then after a while. `None` where the server
    /// ends.
    async fn look(&mut self) -> Option<Result<Run, DbError>> {
        if let Some(run) = self.first.take() {
            return Some(Ok(run));
        }
        tokio::select! {
            () = pause() => {}
            () = self.leaving.cancelled() => return None,
        }
        Some(sync_run::find(&self.app.engine.db, self.scope, self.id).await)
    }

    fn gone(&mut self) -> Event {
        self.is_over = true;
        let data = json!({
            "run_id": self.id,
            "code": "not_found",
            "detail": "the run was removed with its integration",
        });
        Event::default().event("gone").data(data.to_string())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person watches, on the machine's clock"
)]
async fn pause() {
    tokio::time::sleep(LOOK).await;
}
