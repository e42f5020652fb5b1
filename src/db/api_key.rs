//! `api_keys`: who may call the API. Only hashes are kept.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, Tx};
use crate::domain::{EntityId, ids::Id};

/// A key's id.
pub type ApiKeyId = Id<kind::ApiKey>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::ApiKeyId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ApiKey {}
}

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose key it is; the operator's where absent.
    pub entity_id: Option<EntityId>,
    /// Lower-case hex SHA-256 of the key.
    pub hash: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Adds a key.
pub async fn insert(tx: &Tx, key: &ApiKey) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO api_keys (id, entity_id, hash, created_at) VALUES ($1, $2, $3, $4)",
        [
            key.id.into(),
            key.entity_id.map(|id| id.0).into(),
            key.hash.clone().into(),
            key.created_at.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The live key with this hash.
pub async fn find(db: &Db, hash: &str) -> Result<Option<ApiKey>, DbError> {
    Sql::new(
        "SELECT * FROM api_keys WHERE hash = $1 AND revoked_at IS NULL",
        [hash.into()],
    )
    .one(db.reader())
    .await
}

/// Whether there is a live operator key.
pub async fn has_operator_key(db: &Db) -> Result<bool, DbError> {
    Sql::new(
        "SELECT count(*) FROM api_keys WHERE entity_id IS NULL AND revoked_at IS NULL",
        [],
    )
    .scalar::<i64>(db.reader())
    .await
    .map(|count| count > 0)
}

/// All keys, newest first.
pub async fn list(db: &Db) -> Result<Vec<ApiKey>, DbError> {
    Sql::new("SELECT * FROM api_keys ORDER BY id DESC", [])
        .all(db.reader())
        .await
}

/// Revokes a key; a revoked one stays so.
pub async fn revoke(tx: &Tx, id: ApiKeyId, now: DateTime<Utc>) -> Result<(), DbError> {
    let revoked = Sql::new(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1",
        [id.into(), now.into()],
    )
    .execute(&tx.inner)
    .await?;
    if revoked == 0 {
        Err(DbError::NotFound)
    } else {
        Ok(())
    }
}
