//! The HTTP API: every route on one page. No rules live here; handlers take requests apart, call
//! one function of the program and put its answer together.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::FutureExt;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use crate::{app::App, db::Slice};

mod bodies;
mod entities;
mod error;
mod extract;
mod health;
mod integrations;
mod metrics;
mod oauth;
mod pages;
mod records;
mod runs;
mod serve;
mod services;
mod site;

pub use error::{ApiError, FieldError};
pub use serve::serve;
use site::Site;

/// A request must have been answered by then; what changes something goes on all the same.
const DEADLINE: Duration = Duration::from_secs(30);

/// Every route, of a program that browsers reach at `public_url`.
pub fn router(app: Arc<App>, public_url: &str) -> Router {
    Router::new()
        .route("/entities", post(entities::create).get(entities::list))
        .route("/entities/{id}", axum::routing::delete(entities::delete))
        .route(
            "/integrations",
            post(integrations::create).get(integrations::list),
        )
        .route(
            "/integrations/{id}",
            get(integrations::get)
                .patch(integrations::change)
                .delete(integrations::remove),
        )
        .route("/integrations/{id}/test", post(integrations::test))
        .route("/integrations/{id}/sync", post(runs::request))
        .route("/integrations/{id}/runs", get(runs::list))
        .route("/integrations/{id}/records", get(records::list))
        .route("/integrations/{service}/oauth/start", post(oauth::start))
        .route(
            "/integrations/{service}/oauth/callback",
            get(oauth::callback).post(oauth::answer),
        )
        .route("/services", get(services::list))
        .route("/runs/{id}", get(runs::get))
        .route("/runs/{id}/cancel", post(runs::cancel))
        .route("/records/{id}", get(records::get))
        .route("/events", get(records::events))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(Extension(Site::new(public_url)))
        .layer(middleware::from_fn(within_deadline))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal("a handler panicked".to_owned()).into_response()
        }))
        .layer(middleware::from_fn(traced))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            metrics::counted,
        ))
        .with_state(app)
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiError::Unavailable(format!("no answer in {} s", DEADLINE.as_secs())).into_response()
        }
    }
}

/// Puts what is logged for a request under the caller's trace, or under one of its own.
async fn traced(request: Request, next: Next) -> Response {
    let header = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let trace_id = header
        .and_then(trace_id_of)
        .map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
    let span = tracing::info_span!(
        "request",
        trace.id = trace_id,
        http.method = %request.method(),
        http.path = request.uri().path(),
    );
    next.run(request).instrument(span).await
}

/// The trace id of a `traceparent` header: version, trace id, parent id, flags.
///
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>
fn trace_id_of(header: &str) -> Option<&str> {
    let id = header.split('-').nth(1)?;
    let valid = id.len() == 32
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && id.bytes().any(|byte| byte != b'0');
    valid.then_some(id)
}

/// Runs what changes something to its end although the client hangs up.
async fn to_the_end<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match app.tasks.spawn(work.in_current_span()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ApiError::Internal("a handler panicked".to_owned())),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    }
}

/// A page of a list.
#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// The page with the cursor of its last item, if more follow.
    fn of(slice: Slice<T>, cursor: impl Fn(&T) -> String) -> Self {
        let next_cursor = if slice.more {
            slice.items.last().map(cursor)
        } else {
            None
        };
        Self {
            items: slice.items,
            next_cursor,
        }
    }

    /// The page with its items shown otherwise.
    fn map<U>(self, show: impl Fn(T) -> U) -> List<U> {
        List {
            items: self.items.into_iter().map(show).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_over_only_if_it_is_one() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let header = format!("00-{id}-b7ad6b7169203331-01");
        assert_eq!(trace_id_of(&header), Some(id));
        let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let upper = header.to_uppercase();
        for wrong in ["", "00", "00-xyz-1-01", zeros.as_str(), upper.as_str()] {
            assert_eq!(trace_id_of(wrong), None, "{wrong}");
        }
    }
}
