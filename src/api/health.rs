//! Whether the process lives, is ready, and what of its surroundings is well. Without a key.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::{app::App, db::schema, domain::errors};

/// The process answers.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The schema is current and the database answers. An outage outside shows in `/health` alone:
/// taking this process out of service would not mend it.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let checked = schema::status(&app.engine.db)
        .await
        .and_then(|status| status.check());
    match checked {
        Ok(()) => Ok(Json(json!({"status": "ok"}))),
        Err(error) => Err(ApiError::Unavailable(errors::chain(&error))),
    }
}

/// Each part by name.
pub(super) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let database = app.engine.db.ping().await.is_ok();
    let secrets = app.integrations.secrets_answer().await;
    let word = |well: bool| if well { "ok" } else { "unavailable" };
    let status = if database && secrets {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": word(database && secrets),
        "version": env!("CARGO_PKG_VERSION"),
        "checks": {"database": word(database), "secrets": word(secrets)},
    });
    (status, Json(body))
}
