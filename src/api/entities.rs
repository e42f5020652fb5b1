//! `/entities`: whose footprints these are. The operator's.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    List,
    caller::Caller,
    error::ApiError,
    extract::{Body, Paging, PathId, Query, encode_id},
    idempotency::NewId,
    to_the_end,
};
use crate::{
    app::App,
    db::{
        DbError,
        audit_log::{self, Act},
        entity::{self, Entity},
    },
    domain::{EntityId, audit::Action, ids::kind, time},
    integrations::Removed,
};

/// What the table holds.
pub(super) const MAX_NAME_CHARS: usize = 255;

/// An entity to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEntity {
    /// What people call it.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
}

/// A person, or whatever else a digital footprint belongs to.
#[derive(Serialize, ToSchema)]
#[schema(as = Entity)]
pub(super) struct Shown {
    /// Its id.
    id: EntityId,
    /// The same: the name by which other objects refer to it.
    entity_id: EntityId,
    /// What people call it.
    name: String,
    /// When it was made.
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
#[derive(Serialize, ToSchema)]
pub(super) struct RemovedEntity {
    /// The entity that was.
    entity_id: EntityId,
    /// What became of each of its integrations.
    integrations: Vec<Removed>,
}

/// Make an entity
///
/// The operator's. A key for the entity is made with `nucleus key create --entity ID`.
#[utoipa::path(post, path = "/entities", operation_id = "create_entity", tag = "Entities",
    request_body = NewEntity,
    responses(
        (status = 201, description = "The entity.", body = Shown),
        (status = 403, description = "forbidden")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    NewId(id): NewId,
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
        id: id.into(),
        name: name.to_owned(),
        created_at: app.now(),
    };
    let creating = Arc::clone(&app);
    let created = to_the_end(&app, async move {
        let db = &creating.engine.db;
        let tx = db.begin().await?;
        match entity::insert(&tx, &row).await {
            Ok(()) => {
                let target = row.id.to_string();
                let act = Act::done(row.id, Action::EntityCreate, &target);
                audit_log::append(&tx, &act, row.created_at).await?;
                tx.commit().await?;
            }
            // Made by the same request, which was not answered.
            Err(DbError::Conflict) => {
                drop(tx);
                return Ok(entity::find(db, row.id).await?);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(row)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// List entities
///
/// The operator's. Newest first.
#[utoipa::path(get, path = "/entities", operation_id = "list_entities", tag = "Entities",
    params(Paging),
    responses(
        (status = 200, description = "A page of entities.", body = List<Shown>),
        (status = 403, description = "forbidden")))]
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

/// Remove an entity
///
/// The operator's. Removes the entity with its integrations, their credentials and its records;
/// grants are revoked at the services.
#[utoipa::path(delete, path = "/entities/{id}", operation_id = "delete_entity", tag = "Entities",
    params(("id" = EntityId, Path, description = "The entity's id.")),
    responses(
        (status = 200, description = "What became of its integrations.", body = RemovedEntity),
        (status = 403, description = "forbidden")))]
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
