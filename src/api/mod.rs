//! The HTTP API: every route on one page. No rules live here; handlers take requests apart, call
//! one function of the program and put its answer together.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Extension, Router, middleware,
    response::IntoResponse,
    routing::{get, post},
};
use futures_util::FutureExt;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::{app::App, db::Slice};

mod bodies;
mod connection;
mod edge;
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
mod stream;

pub use error::{ApiError, FieldError};
pub use serve::serve;
use site::Site;

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
        .route("/runs/{id}/stream", get(stream::stream))
        .route("/records/{id}", get(records::get))
        .route("/events", get(records::events))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn(edge::within_deadline))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal("a handler panicked".to_owned()).into_response()
        }))
        .layer(middleware::from_fn(edge::within_header_bounds))
        .layer(middleware::from_fn(edge::enter))
        .layer(Extension(Site::new(public_url)))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            metrics::counted,
        ))
        .with_state(app)
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
