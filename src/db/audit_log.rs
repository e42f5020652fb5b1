//! `audit_log`: what was done with secrets and by administration, in a chain of hashes for each entity
//! and one for the operator; `audit_heads`: where each chain ends.
//!
//! A row holds the hash of the one before it, so that none can be changed or taken out unseen. A
//! transaction appends last, just before it commits: the head's row is held until then, and whoever
//! appends to the same chain waits.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Db, DbError, Slice, Slicing, Sql, Tx};
use crate::domain::{
    EntityId,
    audit::{Action, Origin, Outcome},
    ids::Id,
    sync::Scope,
    time,
};

/// The chain of what concerns no entity.
pub const OPERATORS_CHAIN: &str = "operator";
/// What the table holds of a target.
const MAX_TARGET_CHARS: usize = 255;
/// An attempt whose end is not written down after this long has none.
const ENDED_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// A row's id.
pub type AuditId = Id<kind::Audit>;

/// What the ids stand for.
pub mod kind {
    /// See [`super::AuditId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Audit {}
}

/// What is to be written down; at whose word it is done goes with the work.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    /// Whose it is; the operator's where absent.
    pub entity_id: Option<EntityId>,
    /// What is done.
    pub action: Action,
    /// With what: an id, or the path of a secret.
    pub target: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// The row of the attempt that ended so.
    pub attempt: Option<AuditId>,
}

impl<'a> Act<'a> {
    /// An act that is done by the transaction it is appended in.
    pub fn done(entity_id: impl Into<Option<EntityId>>, action: Action, target: &'a str) -> Self {
        Self {
            entity_id: entity_id.into(),
            action,
            target,
            outcome: Outcome::Success,
            attempt: None,
        }
    }
}

/// One row.
#[derive(Debug, Clone, FromQueryResult)]
pub struct AuditRow {
    /// Its id.
    pub id: AuditId,
    /// The entity's id, or [`OPERATORS_CHAIN`].
    pub chain: String,
    /// Its number in its chain, from 1.
    pub position: i64,
    /// The hash of the row before it; empty for the first.
    pub previous_hash: String,
    /// Lower-case hex SHA-256 of everything else.
    pub hash: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Who, as a word.
    pub actor: String,
    /// With which key.
    pub key_id: Option<uuid::Uuid>,
    /// Whose.
    pub entity_id: Option<EntityId>,
    /// What was done, as a word.
    pub action: String,
    /// With what.
    pub target: String,
    /// How it ended, as a word.
    pub outcome: String,
    /// The attempt that ended so.
    pub attempt_id: Option<AuditId>,
    /// By which request.
    pub request_id: Option<String>,
    /// Through which interface, as a word.
    pub interface: String,
    /// From which address.
    pub address: Option<String>,
}

impl AuditRow {
    /// The hash that the row must have.
    pub fn expected_hash(&self) -> String {
        // An array has one order, and no two rows the same text.
        let text = json!([
            self.chain,
            self.position,
            self.previous_hash,
            self.id,
            time::rfc3339(self.at),
            self.actor,
            self.key_id,
            self.entity_id,
            self.action,
            self.target,
            self.outcome,
            self.attempt_id,
            self.request_id,
            self.interface,
            self.address,
        ]);
        format!("{:x}", Sha256::digest(text.to_string()))
    }
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Head {
    /// The chain.
    pub chain: String,
    /// The number of its last row.
    pub position: i64,
    /// That row's hash.
    pub hash: String,
}

/// Writes an act down, at the end of the chain of whose it is. Without the row there is no act: the
/// transaction must not be committed where this fails.
pub async fn append(tx: &Tx, act: &Act<'_>, now: DateTime<Utc>) -> Result<AuditId, DbError> {
    let chain = match act.entity_id {
        Some(entity) => entity.to_string(),
        None => OPERATORS_CHAIN.to_owned(),
    };
    let head = take_head(tx, &chain).await?;
    let origin = Origin::current();
    let mut row = AuditRow {
        id: Id::new(),
        chain,
        position: head.position,
        previous_hash: head.hash,
        hash: String::new(),
        at: now,
        actor: origin.actor.as_str().to_owned(),
        key_id: origin.key_id,
        entity_id: act.entity_id,
        action: act.action.as_str().to_owned(),
        target: act.target.chars().take(MAX_TARGET_CHARS).collect(),
        outcome: act.outcome.as_str().to_owned(),
        attempt_id: act.attempt,
        request_id: origin.request_id,
        interface: origin.interface.as_str().to_owned(),
        address: origin.address.map(|address| address.to_string()),
    };
    row.hash = row.expected_hash();
    insert(tx, &row).await?;
    let ended = Sql::new(
        "UPDATE audit_heads SET hash = $2 WHERE chain = $1",
        [row.chain.into(), row.hash.into()],
    );
    ended.execute(&tx.inner).await?;
    Ok(row.id)
}

/// The next position of a chain with the hash of the row before it, for this transaction alone.
async fn take_head(tx: &Tx, chain: &str) -> Result<Head, DbError> {
    let next = || {
        Sql::new(
            "UPDATE audit_heads SET position = position + 1 WHERE chain = $1
             RETURNING chain, position, hash",
            [chain.into()],
        )
    };
    if let Some(head) = next().one(&tx.inner).await? {
        return Ok(head);
    }
    Sql::new(
        "INSERT INTO audit_heads (chain, position, hash) VALUES ($1, 0, '')
         ON CONFLICT (chain) DO NOTHING",
        [chain.into()],
    )
    .execute(&tx.inner)
    .await?;
    next().one(&tx.inner).await?.ok_or(DbError::NotFound)
}

async fn insert(tx: &Tx, row: &AuditRow) -> Result<(), DbError> {
    Sql::new(
        "INSERT INTO audit_log (id, chain, position, previous_hash, hash, at, actor, key_id,
            entity_id, action, target, outcome, attempt_id, request_id, interface, address)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        [
            row.id.into(),
            row.chain.clone().into(),
            row.position.into(),
            row.previous_hash.clone().into(),
            row.hash.clone().into(),
            row.at.into(),
            row.actor.clone().into(),
            row.key_id.into(),
            row.entity_id.map(|id| id.0).into(),
            row.action.clone().into(),
            row.target.clone().into(),
            row.outcome.clone().into(),
            row.attempt_id.map(|id| id.0).into(),
            row.request_id.clone().into(),
            row.interface.clone().into(),
            row.address.clone().into(),
        ],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Rows that `scope` may see, newest first; of one entity where that is given. The outcome of an attempt
/// that no row has ended in time is `unknown`.
pub async fn list(
    db: &Db,
    scope: Scope,
    entity: Option<EntityId>,
    now: DateTime<Utc>,
    slicing: Slicing,
) -> Result<Slice<AuditRow>, DbError> {
    let mut sql = Sql::new(
        "SELECT id, chain, position, previous_hash, hash, at, actor, key_id, entity_id, action,
            target, attempt_id, request_id, interface, address,
            CASE WHEN outcome = 'attempt' AND at < $1 AND NOT EXISTS
                (SELECT 1 FROM audit_log ended WHERE ended.attempt_id = audit_log.id)
                THEN 'unknown' ELSE outcome END AS outcome
         FROM audit_log WHERE true",
        [(now - ENDED_WITHIN).into()],
    )
    .owned_by(scope);
    if let Some(entity) = entity {
        sql = sql.push(" AND entity_id = ").bind(entity);
    }
    sql.slice(slicing, db.reader()).await
}

/// Rows of a chain after a position, in order.
pub async fn follow(
    db: &Db,
    chain: &str,
    after: i64,
    limit: u64,
) -> Result<Vec<AuditRow>, DbError> {
    Sql::new(
        "SELECT * FROM audit_log WHERE chain = $1 AND position > $2 ORDER BY position LIMIT $3",
        [chain.into(), after.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await
}

/// The names of chains after one, in order: those with rows and those that should have some.
pub async fn chains(db: &Db, after: &str, limit: u64) -> Result<Vec<String>, DbError> {
    #[derive(FromQueryResult)]
    struct Name {
        chain: String,
    }
    let names: Vec<Name> = Sql::new(
        "SELECT chain FROM audit_heads WHERE chain > $1
         UNION SELECT chain FROM audit_log WHERE chain > $1
         ORDER BY chain LIMIT $2",
        [after.into(), (limit as i64).into()],
    )
    .all(db.reader())
    .await?;
    Ok(names.into_iter().map(|name| name.chain).collect())
}

/// Where a chain ends; absent where nobody has noted it.
pub async fn head(db: &Db, chain: &str) -> Result<Option<Head>, DbError> {
    Sql::new(
        "SELECT chain, position, hash FROM audit_heads WHERE chain = $1",
        [chain.into()],
    )
    .one(db.reader())
    .await
}

/// How many attempts nobody has ended in time.
pub async fn unknown_attempts(db: &Db, now: DateTime<Utc>) -> Result<i64, DbError> {
    Sql::new(
        "SELECT count(*) FROM audit_log WHERE outcome = 'attempt' AND at < $1 AND NOT EXISTS
            (SELECT 1 FROM audit_log ended WHERE ended.attempt_id = audit_log.id)",
        [(now - ENDED_WITHIN).into()],
    )
    .scalar(db.reader())
    .await
}

/// Heads that were not logged since `logged_before`, whether they have moved or not; marks them as logged at
/// `now`, which holds once the caller has logged them and commits. Of several schedulers one gets each. A
/// mark from the future is nobody's.
pub async fn take_unlogged(
    tx: &Tx,
    logged_before: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Head>, DbError> {
    Sql::new(
        "UPDATE audit_heads SET logged_at = $2 WHERE chain IN
            (SELECT chain FROM audit_heads
                WHERE logged_at IS NULL OR logged_at < $1 OR logged_at > $2
                ORDER BY chain LIMIT $3)
            AND (logged_at IS NULL OR logged_at < $1 OR logged_at > $2)
         RETURNING chain, position, hash",
        [logged_before.into(), now.into(), (limit as i64).into()],
    )
    .all(&tx.inner)
    .await
}

/// Heads that have moved since they were logged; marks them as [`take_unlogged`] does.
pub async fn take_moved(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<Head>, DbError> {
    Sql::new(
        "UPDATE audit_heads SET logged_at = $1 WHERE chain IN
            (SELECT head.chain FROM audit_heads head
                JOIN audit_log last ON last.chain = head.chain AND last.position = head.position
                WHERE head.logged_at IS NULL OR head.logged_at < last.at)
         RETURNING chain, position, hash",
        [now.into()],
    )
    .all(&tx.inner)
    .await
}
