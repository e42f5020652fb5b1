//! `dead_letters`: messages that no worker could carry out, with the reason, and what became of them.

use chrono::{DateTime, Utc};
use sea_orm::{FromQueryResult, JsonValue, Value};

use super::{Db, DbError, Slice, Slicing, Sql, Tx};
use crate::domain::{EntityId, EventId, IntegrationId, RunId};

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct DeadLetter {
    /// Its id: the event's, where the message named one.
    pub id: EventId,
    /// Where the message stood.
    pub topic: String,
    /// Its CloudEvents type; empty where it named none.
    pub event_type: String,
    /// Whose it was, where that can be told.
    pub entity_id: Option<EntityId>,
    /// Of which integration, where that can be told.
    pub integration_id: Option<IntegrationId>,
    /// The run that was given up, or was asked for; where that can be told.
    pub run_id: Option<RunId>,
    /// The message's data.
    pub data: JsonValue,
    /// Its attributes, where a broker brought it.
    pub attributes: Option<JsonValue>,
    /// How often it was tried.
    pub attempts: i32,
    /// Why it was given up.
    pub reason: String,
    /// When.
    pub parked_at: DateTime<Utc>,
    /// When it was asked for again.
    pub redriven_at: Option<DateTime<Utc>>,
    /// By which run.
    pub redriven_run_id: Option<RunId>,
}

/// Parks a message; whether it was not parked before.
pub async fn insert(tx: &Tx, letter: &DeadLetter) -> Result<bool, DbError> {
    let inserted = Sql::new(
        "INSERT INTO dead_letters (id, topic, event_type, entity_id, integration_id, run_id, data,
            attributes, attempts, reason, parked_at) VALUES ",
        [],
    )
    .tuple([
        Value::from(letter.id),
        letter.topic.clone().into(),
        letter.event_type.clone().into(),
        letter.entity_id.map(|id| id.0).into(),
        letter.integration_id.map(|id| id.0).into(),
        letter.run_id.map(|id| id.0).into(),
        letter.data.clone().into(),
        letter.attributes.clone().into(),
        letter.attempts.into(),
        letter.reason.clone().into(),
        letter.parked_at.into(),
    ])
    .push(" ON CONFLICT (id) DO NOTHING")
    .execute(&tx.inner)
    .await?;
    Ok(inserted == 1)
}

/// The newest of those that nobody has asked for again.
pub async fn newest(db: &Db, limit: u64) -> Result<Vec<DeadLetter>, DbError> {
    let slicing = Slicing { after: None, limit };
    Ok(list(db, false, slicing).await?.items)
}

/// Newest first; also those that were asked for again (`all`), or only the others.
pub async fn list(db: &Db, all: bool, slicing: Slicing) -> Result<Slice<DeadLetter>, DbError> {
    let which = if all { "1 = 1" } else { "redriven_at IS NULL" };
    Sql::new(format!("SELECT * FROM dead_letters WHERE {which}"), [])
        .slice(slicing, db.reader())
        .await
}

/// One of them.
pub async fn find(db: &Db, id: EventId) -> Result<DeadLetter, DbError> {
    Sql::new("SELECT * FROM dead_letters WHERE id = $1", [id.into()])
        .one(db.reader())
        .await?
        .ok_or(DbError::NotFound)
}

/// Notes that it was asked for again; `false` where that was noted before.
pub async fn mark_redriven(
    tx: &Tx,
    id: EventId,
    run: RunId,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    Sql::new(
        "UPDATE dead_letters SET redriven_at = $2, redriven_run_id = $3
         WHERE id = $1 AND redriven_at IS NULL",
        [id.into(), now.into(), run.into()],
    )
    .execute(&tx.inner)
    .await
    .map(|changed| changed == 1)
}
