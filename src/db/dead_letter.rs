//! `dead_letters`: messages that no worker could carry out, with the reason.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};

use super::{Db, DbError, Sql, Tx};
use crate::domain::{EntityId, EventId, IntegrationId, RunId};

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct DeadLetter {
    /// Its id.
    pub id: EventId,
    /// Where the message stood.
    pub topic: String,
    /// Its CloudEvents type.
    pub event_type: String,
    /// Whose it was.
    pub entity_id: EntityId,
    /// Of which integration.
    pub integration_id: IntegrationId,
    /// The run that was given up.
    pub run_id: RunId,
    /// The message's data.
    pub data: JsonValue,
    /// How often it was tried.
    pub attempts: i32,
    /// Why it was given up.
    pub reason: String,
    /// When.
    pub parked_at: DateTime<Utc>,
}

/// Parks a message.
pub async fn insert(tx: &Tx, letter: &DeadLetter) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO dead_letters (id, topic, event_type, entity_id, integration_id, run_id, data,
            attempts, reason, parked_at) VALUES ",
        [],
    )
    .tuple([
        Value::from(letter.id),
        letter.topic.clone().into(),
        letter.event_type.clone().into(),
        letter.entity_id.into(),
        letter.integration_id.into(),
        letter.run_id.into(),
        letter.data.clone().into(),
        letter.attempts.into(),
        letter.reason.clone().into(),
        letter.parked_at.into(),
    ])
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// The newest of them.
pub async fn newest(db: &Db, limit: u64) -> Result<Vec<DeadLetter>, DbError> {
    Sql::new(
        "SELECT * FROM dead_letters ORDER BY id DESC LIMIT $1",
        [(limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// All of them, oldest first.
pub async fn list(db: &Db) -> Result<Vec<DeadLetter>, DbError> {
    Sql::new("SELECT * FROM dead_letters ORDER BY id", [])
        .all(db.reader())
        .await
}
