//! `api_keys`: who may call the API. Only hashes are kept.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, Tx};
use crate::domain::{EntityId, ids::Id, sync::UnknownWord};

/// Live keys that an entity may have of one scope: the one in use, and the one that is taking its
/// place.
pub const MAX_LIVE_KEYS: i64 = 2;

/// A key's id.
pub type ApiKeyId = Id<kind::ApiKey>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::ApiKeyId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ApiKey {}
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyScope {
    /// Look at everything its owner may see.
    Read,
    /// Change it too.
    Write,
}

impl KeyScope {
    /// The word in the table and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyScope {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err(UnknownWord(text.to_owned(), "read, write")),
        }
    }
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
    /// What it may do, as a word.
    pub scope: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When a request was last made with it; not exact to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// The scope as a value.
    pub fn scope(&self) -> Result<KeyScope, DbError> {
        let scope = self.scope.parse();
        scope.map_err(|error: UnknownWord| DbError::Schema(format!("api_keys.scope: {error}")))
    }
}

/// Whether another key of this scope may be made for an entity; [`DbError::NotFound`] where there is
/// no such entity. Whoever asks at the same time waits for the end of this transaction.
pub async fn has_room(tx: &Tx, entity: EntityId, scope: KeyScope) -> Result<bool, DbError> {
    let found = Sql::new(
        "UPDATE entity SET name = name WHERE id = $1",
        [entity.into()],
    )
    .execute(&tx.inner)
    .await?;
    if found == 0 {
        return Err(DbError::NotFound);
    }
    let live: i64 = Sql::new(
        "SELECT count(*) FROM api_keys
         WHERE entity_id = $1 AND scope = $2 AND revoked_at IS NULL",
        [entity.into(), scope.as_str().into()],
    )
    .scalar(&tx.inner)
    .await?;
    Ok(live < MAX_LIVE_KEYS)
}

/// Adds a key.
pub async fn insert(tx: &Tx, key: &ApiKey) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO api_keys (id, entity_id, hash, scope, created_at) VALUES ($1, $2, $3, $4, $5)",
        [
            key.id.into(),
            key.entity_id.map(|id| id.0).into(),
            key.hash.clone().into(),
            key.scope.clone().into(),
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

/// Notes when keys were last used.
pub async fn note_uses(tx: &Tx, uses: &BTreeMap<ApiKeyId, DateTime<Utc>>) -> Result<(), DbError> {
    for (id, at) in uses {
        Sql::new(
            "UPDATE api_keys SET last_used_at = $2
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
            [(*id).into(), (*at).into()],
        )
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// Whether there is a live operator key that may change something.
pub async fn has_operator_key(db: &Db) -> Result<bool, DbError> {
    Sql::new(
        "SELECT count(*) FROM api_keys
         WHERE entity_id IS NULL AND revoked_at IS NULL AND scope = 'write'",
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

/// Revokes a key, and gives it as it is then; nothing where it was revoked before.
pub async fn revoke(tx: &Tx, id: ApiKeyId, now: DateTime<Utc>) -> Result<Option<ApiKey>, DbError> {
    let revoked = Sql::new(
        "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING *",
        [id.into(), now.into()],
    )
    .one(&tx.inner)
    .await?;
    if revoked.is_none() {
        let known: Option<i32> = Sql::new("SELECT 1 FROM api_keys WHERE id = $1", [id.into()])
            .optional(&tx.inner)
            .await?;
        known.ok_or(DbError::NotFound)?;
    }
    Ok(revoked)
}
