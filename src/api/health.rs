//! Whether the process lives, is ready, and what of its surroundings is well. Without a key.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::{
    app::App,
    db::{DbError, overview, schema},
    domain::{errors, event::SYNC_REQUESTS},
};

/// A queue whose oldest message waits longer is behind.
const BEHIND: TimeDelta = TimeDelta::minutes(10);

/// The process answers.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The schema is current, the database answers and the process's loops run. An outage outside shows in `/health` alone:
/// taking this process out of service would not mend it.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.loops.check().map_err(ApiError::Unavailable)?;
    let checked = schema::status(&app.engine.db)
        .await
        .and_then(|status| status.check());
    match checked {
        Ok(()) => Ok(Json(json!({"status": "ok"}))),
        Err(error) => Err(ApiError::Unavailable(errors::chain(&error))),
    }
}

/// Each part by name. What is wrong outside shows here and leaves the status as it is: a queue that is
/// `behind`, a service that is `failing` for every account that may sync. No service is called for it;
/// it is what the last runs left in the tables.
pub(super) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let database = app.engine.db.ping().await.is_ok();
    let secrets = app.integrations.secrets_answer().await;
    let loops = app.loops.check().is_ok();
    let outside = outside(&app).await.ok();
    let word = |well: bool| if well { "ok" } else { "unavailable" };
    let well = database && secrets && loops;
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let (queue, services) = outside.unwrap_or(("unknown", BTreeMap::new()));
    let body = json!({
        "status": word(well),
        "version": env!("CARGO_PKG_VERSION"),
        "checks": {
            "database": word(database),
            "secrets": word(secrets),
            "loops": word(loops),
            "queue": queue,
        },
        "services": services,
    });
    (status, Json(body))
}

/// How the queue stands, and each service that somebody has connected.
async fn outside(app: &App) -> Result<(&'static str, BTreeMap<String, &'static str>), DbError> {
    let db = &app.engine.db;
    let now = app.now();
    let queue = overview::messages(db, SYNC_REQUESTS, now).await?;
    let queue = match queue.oldest_due_age(now) > BEHIND {
        true => "behind",
        false => "ok",
    };
    let mut services = BTreeMap::new();
    for standing in overview::standings(db).await? {
        if !standing.may_sync() {
            continue;
        }
        let word = match standing.is_failing() {
            true => "failing",
            false => "ok",
        };
        let known = services.entry(standing.service_name).or_insert(word);
        if word == "ok" {
            *known = word;
        }
    }
    Ok((queue, services))
}
