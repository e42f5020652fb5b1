//! `GET /metrics`: what Prometheus reads, and the count of requests to the API.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};

use super::{caller::Caller, error::ApiError};
use crate::{
    app::App,
    db::{
        DbError, metric_total,
        overview::{self, Overview},
    },
    domain::{clock::Stopwatch, errors},
    metrics::{self, CONTENT_TYPE, Values},
};

/// Read the metrics
///
/// The operator's, in the text format of Prometheus. An outage of the database is a number here, not
/// an error: what the process itself knows is wanted most then.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "Health",
    responses(
        (status = 200, description = "Every series.", body = String, content_type = CONTENT_TYPE),
        (status = 403, description = "forbidden")))]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, ApiError> {
    caller.require_operator()?;
    let mut values = app.engine.metrics.own();
    for (name, running) in app.loops.running() {
        values.add(&metrics::LOOP_RUNNING, &[name.into()], f64::from(running));
    }
    let told = told_by_database(&app).await;
    values.add(&metrics::DATABASE_UP, &[], f64::from(told.is_ok()));
    match told {
        Ok(told) => values.extend(told),
        Err(error) => tracing::error!(
            error = errors::chain(&error),
            "metrics that the database tells are left out"
        ),
    }
    let text = values
        .text()
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

async fn told_by_database(app: &App) -> Result<Values, DbError> {
    let db = &app.engine.db;
    let metrics = &app.engine.metrics;
    let mut values = {
        let _saving = metrics.saving().await;
        let mut values = Values::from_totals(metric_total::all(db).await?);
        values.extend(metrics.unsaved());
        values
    };
    let now = app.now();
    let overview = overview::overview(db, now).await?;
    add_overview(&mut values, overview, now);
    Ok(values)
}

fn add_overview(values: &mut Values, found: Overview, now: DateTime<Utc>) {
    for status in ["queued", "running"] {
        let mut runs = found.active_runs.iter();
        let count = runs.find(|runs| runs.status == status);
        let count = count.map_or(0, |runs| runs.count);
        values.add(&metrics::SYNC_RUNS_ACTIVE, &[status.into()], count as f64);
    }
    for (name, topic) in found.topics {
        for (state, count) in [
            ("due", topic.due),
            ("delayed", topic.delayed),
            ("leased", topic.leased),
        ] {
            let labels = [name.into(), state.into()];
            values.add(&metrics::OUTBOX_MESSAGES, &labels, count as f64);
        }
        let age = topic.oldest_due_age(now).as_seconds_f64();
        values.add(&metrics::OUTBOX_OLDEST_DUE_AGE, &[name.into()], age);
    }
    for standing in found.integrations {
        let failing = if standing.is_failing() {
            standing.count as f64
        } else {
            0.0
        };
        let service = [standing.service_name.clone().into()];
        values.add(&metrics::INTEGRATIONS_FAILING, &service, failing);
        let labels = [standing.service_name.into(), standing.status.into()];
        values.add(&metrics::INTEGRATIONS, &labels, standing.count as f64);
    }
    for ending in found.consents_ending {
        let labels = [ending.service_name.into()];
        values.add(&metrics::CONSENTS_ENDING, &labels, ending.count as f64);
    }
    for (family, count) in [
        (&metrics::SYNC_RUNS_ABANDONED, found.abandoned_runs),
        (&metrics::SYNC_GAPS_OPEN, found.open_gaps),
        (&metrics::DEAD_LETTERS, found.dead_letters),
        (&metrics::INTEGRATIONS_DUE, found.due.due),
        (&metrics::INTEGRATIONS_OVERDUE, found.due.overdue),
        (&metrics::DNA_EVENTS, found.events),
    ] {
        values.add(family, &[], count as f64);
    }
}

/// Counts a request with its answer, by the template of its route: a path holds ids.
pub(super) async fn counted(
    State(app): State<Arc<App>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let method = word(request.method());
    let route = route.map_or("none".to_owned(), |route| route.as_str().to_owned());
    let watch = Stopwatch::start();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let metrics = &app.engine.metrics;
    metrics.http_request(method, route, status, watch.seconds());
    response
}

/// A client may make methods up, and each would be a series.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
