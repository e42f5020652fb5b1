//! `secret_intents`: announces that a version of a secret is about to be written, so that a version
//! whose writer died before pinning it can be found and destroyed.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, Tx};
use crate::domain::ids::Id;

/// An intent's id.
pub type SecretIntentId = Id<kind::SecretIntent>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::SecretIntentId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum SecretIntent {}
}

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct SecretIntent {
    /// Its id.
    pub id: SecretIntentId,
    /// The secret that gets a version.
    pub secret_name: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Announces a version.
pub async fn insert(tx: &Tx, intent: &SecretIntent) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO secret_intents (id, secret_name, created_at) VALUES ($1, $2, $3)",
        [
            intent.id.into(),
            intent.secret_name.clone().into(),
            intent.created_at.into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The version is pinned, or destroyed.
pub async fn delete(tx: &Tx, id: SecretIntentId) -> Result<(), DbError> {
    Sql::new("DELETE FROM secret_intents WHERE id = $1", [id.into()])
        .execute(&tx.inner)
        .await
        .map(drop)
}

/// Intents whose writer must be dead by now, oldest first.
pub async fn older_than(
    db: &Db,
    time: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<SecretIntent>, DbError> {
    Sql::new(
        "SELECT * FROM secret_intents WHERE created_at < $1 ORDER BY id LIMIT $2",
        [time.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// Whether the secret has an intent that is not older than `time`.
pub async fn has_younger(db: &Db, secret_name: &str, time: DateTime<Utc>) -> Result<bool, DbError> {
    Sql::new(
        "SELECT count(*) FROM secret_intents WHERE secret_name = $1 AND created_at >= $2",
        [secret_name.into(), time.into()],
    )
    .scalar::<i64>(db.reader())
    .await
    .map(|count| count > 0)
}
