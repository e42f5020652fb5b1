//! What an operator watches: how many of what there are now, over several tables. Each number is
//! found by an index and counted up to [`COUNTED`], so that looking costs little however much there
//! is.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;

use super::{Db, DbError, Sql, now_ms};
use crate::domain::{
    event::{DNA_ANALYSIS, SYNC_REQUESTS},
    sync::IntegrationStatus,
};

/// What there is more of is not counted on.
pub const COUNTED: i64 = 100_000;
/// Who has been due for longer than this is overdue: a scheduler makes a pass every five seconds.
pub const OVERDUE: TimeDelta = TimeDelta::minutes(5);

/// A consent that ends within this is told of: time enough to ask its person.
pub const ENDING: TimeDelta = TimeDelta::days(14);

/// A queue whose oldest message waits longer is behind.
const BEHIND: TimeDelta = TimeDelta::minutes(10);

/// How things stand.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Runs that have not ended, by status.
    pub active_runs: Vec<Counted>,
    /// Runs under way whose lease is over.
    pub abandoned_runs: i64,
    /// Each topic of the outbox.
    pub topics: Vec<(&'static str, Topic)>,
    /// Listed items that are still tried.
    pub open_gaps: i64,
    /// Messages that no worker could carry out.
    pub dead_letters: i64,
    /// Integrations by how they stand.
    pub integrations: Vec<Standing>,
    /// Integrations whose next sync is due, and those that are overdue.
    pub due: Due,
    /// Connections that may sync and whose consent ends within [`ENDING`], by service.
    pub consents_ending: Vec<Ending>,
    /// DNA-analysis events emitted ever.
    pub events: i64,
}

/// How many have this status.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Counted {
    /// The status.
    pub status: String,
    /// How many.
    pub count: i64,
}

/// How many consents of a service end soon.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Ending {
    /// The service.
    pub service_name: String,
    /// How many.
    pub count: i64,
}

/// How many integrations of a service stand so.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Standing {
    /// The service.
    pub service_name: String,
    /// The status.
    pub status: String,
    /// How the last run ended; absent where none did.
    pub last_sync_status: Option<String>,
    /// How many.
    pub count: i64,
}

/// The messages of one topic.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Topic {
    /// To be taken, or to be published, now.
    pub due: i64,
    /// To be taken later.
    pub delayed: i64,
    /// In a worker's hands.
    pub leased: i64,
    /// Since when the longest waiting one has been due, in milliseconds since 1970.
    pub oldest_due_ms: Option<i64>,
}

impl Standing {
    /// Whether they may sync.
    pub fn may_sync(&self) -> bool {
        let status = self.status.parse::<IntegrationStatus>();
        status.is_ok_and(IntegrationStatus::may_sync)
    }

    /// Whether they may sync and the last run failed.
    pub fn is_failing(&self) -> bool {
        self.may_sync() && self.last_sync_status.as_deref() == Some("failed")
    }
}

impl Topic {
    /// How long the longest waiting message has been due.
    pub fn oldest_due_age(&self, now: DateTime<Utc>) -> TimeDelta {
        let age_ms = self
            .oldest_due_ms
            .map_or(0, |since| now.timestamp_millis() - since);
        TimeDelta::milliseconds(age_ms.max(0))
    }

    /// Whether it has waited so long that something is wrong.
    pub fn is_behind(&self, now: DateTime<Utc>) -> bool {
        self.oldest_due_age(now) > BEHIND
    }
}

/// Integrations whose time has come.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Due {
    /// All of them.
    pub due: i64,
    /// For longer than [`OVERDUE`].
    pub overdue: i64,
}

/// Looks at everything.
pub async fn overview(db: &Db, now: DateTime<Utc>) -> Result<Overview, DbError> {
    let conn = db.reader();
    let mut topics = Vec::new();
    for name in [SYNC_REQUESTS, DNA_ANALYSIS] {
        topics.push((name, messages(db, name, now).await?));
    }
    Ok(Overview {
        active_runs: active_runs().all(conn).await?,
        abandoned_runs: abandoned_runs(now_ms(conn)).scalar(conn).await?,
        topics,
        open_gaps: open_gaps().scalar(conn).await?,
        dead_letters: dead_letters().scalar(conn).await?,
        integrations: standings(db).await?,
        due: due(now).one(conn).await?.ok_or(DbError::NotFound)?,
        consents_ending: consents_ending(now).all(conn).await?,
        events: events().scalar(conn).await?,
    })
}

/// The messages of one topic.
pub async fn messages(db: &Db, topic_name: &str, now: DateTime<Utc>) -> Result<Topic, DbError> {
    let found = topic(topic_name, now).one(db.reader()).await?;
    found.ok_or(DbError::NotFound)
}

/// Integrations by how they stand.
pub async fn standings(db: &Db) -> Result<Vec<Standing>, DbError> {
    integrations().all(db.reader()).await
}

fn active_runs() -> Sql {
    Sql::new(
        "SELECT status, count(*) AS count FROM sync_runs
         WHERE status IN ('queued', 'running') GROUP BY status",
        [],
    )
}

fn abandoned_runs(clock: &str) -> Sql {
    Sql::new(
        format!(
            "SELECT count(*) FROM sync_runs WHERE status = 'running' AND lease_until < {clock}"
        ),
        [],
    )
}

/// On embedded parts a DNA-analysis event is published by its commit, so none is ever pending. With a
/// broker a sync request counts as leased while the broker has it.
fn topic(name: &str, now: DateTime<Utc>) -> Sql {
    let pending = "FROM outbox WHERE topic = $1 AND state = 'pending' AND available_at";
    let held = "FROM outbox WHERE topic = $1 AND state = 'leased'";
    Sql::new(
        format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 {pending} <= $2 LIMIT {COUNTED}) AS a) AS due,
                (SELECT count(*) FROM (SELECT 1 {pending} > $2 LIMIT {COUNTED}) AS b) AS delayed,
                (SELECT count(*) FROM (SELECT 1 {held} LIMIT {COUNTED}) AS c) AS leased,
                (SELECT min(available_at) {pending} <= $2) AS oldest_due_ms"
        ),
        [name.into(), now.timestamp_millis().into()],
    )
}

fn open_gaps() -> Sql {
    Sql::new(
        format!(
            "SELECT count(*) FROM (
                SELECT 1 FROM sync_gaps WHERE given_up = false LIMIT {COUNTED}) AS a"
        ),
        [],
    )
}

fn dead_letters() -> Sql {
    Sql::new(
        format!(
            "SELECT count(*) FROM (
                SELECT 1 FROM dead_letters WHERE redriven_at IS NULL LIMIT {COUNTED}) AS a"
        ),
        [],
    )
}

fn integrations() -> Sql {
    Sql::new(
        "SELECT service_name, status, last_sync_status, count(*) AS count
         FROM entity_integrations GROUP BY service_name, status, last_sync_status",
        [],
    )
}

fn due(now: DateTime<Utc>) -> Sql {
    // Spelt out by status, because each has a partial index.
    let before = |time: &str| {
        format!(
            "(SELECT count(*) FROM (SELECT 1 FROM entity_integrations
                WHERE status = 'active' AND next_sync_at <= {time} LIMIT {COUNTED}) AS a)
             + (SELECT count(*) FROM (SELECT 1 FROM entity_integrations
                WHERE status = 'error' AND next_sync_at <= {time} LIMIT {COUNTED}) AS b)"
        )
    };
    Sql::new(
        format!(
            "SELECT {} AS due, {} AS overdue",
            before("$1"),
            before("$2")
        ),
        [now.into(), (now - OVERDUE).into()],
    )
}

fn consents_ending(now: DateTime<Utc>) -> Sql {
    Sql::new(
        "SELECT service_name, count(*) AS count FROM entity_integrations
         WHERE status IN ('active', 'error') AND consent_expires_at <= $1 GROUP BY service_name",
        [(now + ENDING).into()],
    )
}

fn events() -> Sql {
    Sql::new("SELECT position FROM event_position WHERE id = 1", [])
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Limits, schema},
        *,
    };

    #[derive(FromQueryResult)]
    struct Plan {
        detail: String,
    }

    /// PostgreSQL's side of this is among the tests of the store.
    #[tokio::test]
    async fn sqlite_reads_no_table_whole() {
        let db = Db::connect("sqlite::memory:", Limits::of(1)).await.unwrap();
        schema::migrate(&db, "sqlite::memory:").await.unwrap();
        let now = DateTime::UNIX_EPOCH;
        let statements = [
            active_runs(),
            abandoned_runs(now_ms(db.reader())),
            topic(SYNC_REQUESTS, now),
            open_gaps(),
            dead_letters(),
            integrations(),
            due(now),
            consents_ending(now),
            events(),
        ];
        for statement in statements {
            let plan: Vec<Plan> = statement.explained().all(db.reader()).await.unwrap();
            let details: Vec<String> = plan.into_iter().map(|step| step.detail).collect();
            let reads: Vec<&String> = details
                .iter()
                .filter(|detail| detail.starts_with("SCAN") || detail.starts_with("SEARCH"))
                // A sub-query's own rows, and a statement that reads none.
                .filter(|detail| detail.len() > "SCAN a".len() && *detail != "SCAN CONSTANT ROW")
                .collect();
            assert!(!reads.is_empty(), "{details:?}");
            for read in reads {
                assert!(read.contains(" USING "), "{read} in {details:?}");
            }
        }
        overview(&db, now).await.unwrap();
    }
}
