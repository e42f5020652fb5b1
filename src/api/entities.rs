//! `/entities`: whose footprints these are. The operator's.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    List,
    error::ApiError,
    extract::{Body, Caller, PathId, Query, encode_id},
    to_the_end,
};
use crate::{
    app::App,
    db::entity::{self, Entity},
    domain::{EntityId, ids::kind, time},
    integrations::Removed,
};

/// What the table holds.
const MAX_NAME_CHARS: usize = 255;

/// The body of a new entity.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEntity {
    name: String,
}

/// An entity as clients see it.
#[derive(Serialize)]
pub(super) struct Shown {
    id: EntityId,
    /// The same: the name by which other objects refer to it.
    entity_id: EntityId,
    name: String,
    #[serde(serialize_with = "time::serialize")]
    created_at: DateTime<Utc>,
}

impl From<Entity> for Shown {
    fn from(row: Entity) -> Self {
        Self {
            id: row.id,
            entity_id: row.id,
            name: row.name,
            created_at: row.created_at,
        }
    }
}

/// What removing an entity did.
#[derive(Serialize)]
pub(super) struct RemovedEntity {
    entity_id: EntityId,
    integrations: Vec<Removed>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewEntity>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    caller.require_operator()?;
    let name = body.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.contains('\0') {
        return Err(ApiError::field(
            "name",
            format!("must have 1 to {MAX_NAME_CHARS} characters, none of them U+0000"),
        ));
    }
    let row = Entity {
        id: EntityId::new(),
        name: name.to_owned(),
        created_at: app.now(),
    };
    to_the_end(&app, {
        let (app, row) = (Arc::clone(&app), row.clone());
        async move {
            let tx = app.engine.db.begin().await?;
            entity::insert(&tx, &row).await?;
            Ok(tx.commit().await?)
        }
    })
    .await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<List<Shown>>, ApiError> {
    caller.require_operator()?;
    let slicing = query.slicing()?;
    query.finish()?;
    let slice = entity::list(&app.engine.db, caller.scope, slicing).await?;
    Ok(Json(
        List::of(slice, |row| encode_id(row.id.0)).map(Shown::from),
    ))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Entity>,
) -> Result<Json<RemovedEntity>, ApiError> {
    caller.require_operator()?;
    if !entity::exists(&app.engine.db, id).await? {
        return Err(ApiError::NotFound);
    }
    let removing = Arc::clone(&app);
    let integrations = to_the_end(&app, async move {
        Ok(removing.integrations.remove_entity(id).await?)
    })
    .await?;
    Ok(Json(RemovedEntity {
        entity_id: id,
        integrations,
    }))
}
