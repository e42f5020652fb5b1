//! `entity`: the people, or whatever else a footprint belongs to. The table is the platform's own.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Slice, Slicing, Sql, Tx};
use crate::domain::{EntityId, sync::Scope};

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Entity {
    /// Its id.
    pub id: EntityId,
    /// What people call it; at most 255 characters.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Adds an entity.
pub async fn insert(tx: &Tx, entity: &Entity) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO entity (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)",
        [
            entity.id.into(),
            entity.name.clone().into(),
            entity.created_at.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Entities that `scope` may see, newest first.
pub async fn list(db: &Db, scope: Scope, slicing: Slicing) -> Result<Slice<Entity>, DbError> {
    let mut sql = Sql::new("SELECT id, name, created_at FROM entity WHERE true", []);
    if let Scope::Entity(entity) = scope {
        sql = sql.push(" AND id = ").bind(entity);
    }
    sql.slice(slicing, db.reader()).await
}

/// The entity.
pub async fn find(db: &Db, id: EntityId) -> Result<Entity, DbError> {
    Sql::new(
        "SELECT id, name, created_at FROM entity WHERE id = $1",
        [id.into()],
    )
    .one(db.reader())
    .await?
    .ok_or(DbError::NotFound)
}

/// Whether there is such an entity.
pub async fn exists(db: &Db, id: EntityId) -> Result<bool, DbError> {
    Sql::new("SELECT count(*) FROM entity WHERE id = $1", [id.into()])
        .scalar::<i64>(db.reader())
        .await
        .map(|count| count > 0)
}

/// Removes an entity and, by cascade, what belongs to it.
pub async fn delete(tx: &Tx, id: EntityId) -> Result<(), DbError> {
    let deleted = Sql::new("DELETE FROM entity WHERE id = $1", [id.into()])
        .execute(&tx.inner)
        .await?;
    if deleted == 0 {
        Err(DbError::NotFound)
    } else {
        Ok(())
    }
}
