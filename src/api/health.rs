//! Whether the process lives, is ready, and what of its surroundings is well. Without a key.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::{
    app::App,
    db::{Db, DbError, overview, schema},
    domain::{clock::Stopwatch, errors, event::SYNC_REQUESTS},
};

/// The database is asked whether it is ready once in so many seconds at most.
const ASKED_EVERY: f64 = 1.0;

/// How a part of the program stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Ok,
    Unavailable,
}

impl From<bool> for Standing {
    fn from(well: bool) -> Self {
        if well { Self::Ok } else { Self::Unavailable }
    }
}

/// How the queue stands: `behind` if its oldest message has been due for ten minutes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum QueueStanding {
    Ok,
    Behind,
    Unknown,
}

/// How a service stands: `failing` if it fails for every account that may sync.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ServiceStanding {
    Ok,
    Failing,
}

/// All is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Well {
    /// `ok`.
    status: Standing,
}

impl Well {
    const ANSWER: Json<Self> = Json(Self {
        status: Standing::Ok,
    });
}

/// Whether the process lives
///
/// It answers, and that is all this says. For a supervisor that restarts what hangs.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "Health", security(()),
    responses((status = 200, description = "The process answers.", body = Well)))]
pub(super) async fn livez() -> Json<Well> {
    Well::ANSWER
}

/// Whether requests may be sent here
///
/// The schema is current, the database answers and the process's loops run. An outage outside shows
/// in `/health` alone: taking this process out of service would not mend it.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "Health", security(()),
    responses((status = 200, description = "The process can serve.", body = Well)))]
pub(super) async fn readyz(
    State(app): State<Arc<App>>,
    Extension(readiness): Extension<Arc<Readiness>>,
) -> Result<Json<Well>, ApiError> {
    app.loops.check().map_err(ApiError::Unavailable)?;
    match readiness.of(&app.engine.db).await {
        Ok(()) => Ok(Well::ANSWER),
        Err(cause) => Err(ApiError::Unavailable(cause)),
    }
}

/// What the database was found like, and when. Whoever asks meanwhile is told the same, so that nobody,
/// with no key and at any rate, has the database asked more often.
#[derive(Default)]
pub(super) struct Readiness(Mutex<Option<(Stopwatch, Result<(), String>)>>);

impl Readiness {
    async fn of(&self, db: &Db) -> Result<(), String> {
        let mut found = self.0.lock().await;
        if let Some((since, standing)) = &*found
            && since.seconds() < ASKED_EVERY
        {
            return standing.clone();
        }
        let checked = schema::status(db).await.and_then(|status| status.check());
        let standing = checked.map_err(|error| errors::chain(&error));
        *found = Some((Stopwatch::start(), standing.clone()));
        standing
    }
}

/// The parts of the program.
#[derive(Serialize, ToSchema)]
struct Checks {
    /// The database answers.
    database: Standing,
    /// The secret store can be read.
    secrets: Standing,
    /// What the process is to do by itself, it does.
    loops: Standing,
    /// The syncs that were asked for.
    queue: QueueStanding,
}

/// How the program stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` only if database, secrets and loops are.
    status: Standing,
    /// The program's version.
    version: &'static str,
    /// Each part.
    checks: Checks,
    /// Each service that somebody has connected, by name.
    services: BTreeMap<String, ServiceStanding>,
}

/// How each part stands
///
/// What is wrong outside shows here and leaves the status as it is: a queue that is `behind`, a
/// service that is `failing`. No service is called for it; it is what the last runs left.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "Health", security(()),
    responses(
        (status = 200, description = "Every part is well.", body = Health),
        (status = 503, description = "A part does not answer.", body = Health)))]
pub(super) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Health>) {
    let database = app.engine.db.ping().await.is_ok();
    let secrets = app.integrations.secrets_answer().await;
    let loops = app.loops.check().is_ok();
    let outside = outside(&app).await.ok();
    let well = database && secrets && loops;
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let (queue, services) = outside.unwrap_or((QueueStanding::Unknown, BTreeMap::new()));
    let health = Health {
        status: well.into(),
        version: env!("CARGO_PKG_VERSION"),
        checks: Checks {
            database: database.into(),
            secrets: secrets.into(),
            loops: loops.into(),
            queue,
        },
        services,
    };
    (status, Json(health))
}

/// How the queue stands, and each service that somebody has connected.
async fn outside(app: &App) -> Result<(QueueStanding, BTreeMap<String, ServiceStanding>), DbError> {
    let db = &app.engine.db;
    let now = app.now();
    let queue = overview::messages(db, SYNC_REQUESTS, now).await?;
    let queue = match queue.is_behind(now) {
        true => QueueStanding::Behind,
        false => QueueStanding::Ok,
    };
    let mut services = BTreeMap::new();
    for standing in overview::standings(db).await? {
        if !standing.may_sync() {
            continue;
        }
        let word = match standing.is_failing() {
            true => ServiceStanding::Failing,
            false => ServiceStanding::Ok,
        };
        let known = services.entry(standing.service_name).or_insert(word);
        if word == ServiceStanding::Ok {
            *known = word;
        }
    }
    Ok((queue, services))
}
