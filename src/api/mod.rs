//! The HTTP API: every route on one page. No rules live here; handlers take requests apart, call
//! one function of the program and put its answer together. What stands above a handler is its
//! method, its path and what the OpenAPI document says of it.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use axum::{Extension, Router, middleware, response::IntoResponse};
use futures_util::FutureExt;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Ref,
        schema::{Array, ArrayBuilder},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, db::Slice, domain::audit::Origin};

mod admission;
mod audit;
mod bodies;
mod by_hand;
mod caller;
mod client_address;
mod codes;
mod connection;
mod deadlines;
mod docs;
mod edge;
mod entities;
mod error;
mod extract;
mod health;
mod idempotency;
mod integrations;
mod metrics;
mod oauth;
mod openapi;
mod pages;
mod rate_limit;
mod records;
mod runs;
mod serve;
mod services;
mod site;
mod stream;

pub use deadlines::Deadlines;
pub use error::{ApiError, FieldError};
use openapi::Outline;
pub use openapi::document;
use rate_limit::RateLimits;
pub use serve::serve;
use site::Site;

/// Every route.
fn every_route() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Outline::openapi())
        .routes(routes!(entities::create, entities::list))
        .routes(routes!(entities::delete))
        .routes(routes!(integrations::create, integrations::list))
        .routes(routes!(
            integrations::get,
            integrations::change,
            integrations::remove
        ))
        .routes(routes!(integrations::test))
        .routes(routes!(runs::request))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::cancel))
        .routes(routes!(stream::stream))
        .routes(routes!(records::list))
        .routes(routes!(oauth::start))
        .routes(routes!(oauth::callback, oauth::answer))
        .routes(routes!(services::list))
        .routes(routes!(audit::list))
        .routes(routes!(records::get))
        .routes(routes!(records::events))
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::read))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
}

/// Every route and what surrounds it, of a program that browsers reach at `public_url`.
pub fn router(app: Arc<App>, public_url: &str) -> Router {
    Router::from(every_route())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            idempotency::once,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            admission::admit,
        ))
        .layer(Extension(Arc::new(RateLimits::new(&app))))
        .layer(Extension(stream::Places::default()))
        .layer(Extension(Arc::new(health::Readiness::default())))
        .layer(middleware::from_fn(edge::within_deadline))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal("a handler panicked".to_owned()).into_response()
        }))
        .layer(middleware::from_fn(edge::within_header_bounds))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            edge::enter,
        ))
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
    let work = Origin::current().scope(work.in_current_span());
    match app.tasks.spawn(work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ApiError::Internal("a handler panicked".to_owned())),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    }
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
struct List<T> {
    /// The items, newest first.
    #[schema(schema_with = references::<T>)]
    items: Vec<T>,
    /// Where the next page starts; null on the last one.
    next_cursor: Option<String>,
}

/// An array of what is described elsewhere; utoipa would describe it a second time in each list.
fn references<T: ToSchema>() -> Array {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(T::name()))
        .description(Some("The items, newest first."))
        .build()
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
