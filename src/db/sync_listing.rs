//! `sync_listing`: what became of each id in a run, and in a resync the labels it was listed with.
//!
//! It is what makes counts count distinct ids, across batches and restarts. A finished run's rows
//! are swept.

use std::collections::HashMap;

use sea_orm::{FromQueryResult, Value};

use super::{Db, DbError, MAX_LIST, Sql, Tx};
use crate::domain::{RunId, sync::Outcome};

/// One row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// What became of it, once that is known.
    pub outcome: Option<Outcome>,
    /// The labels a resync has listed it with so far.
    pub labels: Vec<String>,
}

#[derive(FromQueryResult)]
struct Row {
    external_id: String,
    outcome: String,
    labels: Option<String>,
}

/// What is known of these ids.
pub async fn lookup(
    tx: &Tx,
    run: RunId,
    ids: &[String],
) -> Result<HashMap<String, Listed>, DbError> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(MAX_LIST) {
        let rows: Vec<Row> = Sql::new(
            "SELECT external_id, outcome, labels FROM sync_listing
             WHERE run_id = $1 AND external_id IN ",
            [run.into()],
        )
        .tuple(chunk.iter().cloned())
        .all(&tx.inner)
        .await?;
        for row in rows {
            let outcome =
                row.outcome
                    .parse()
                    .map_err(|error: crate::domain::sync::UnknownWord| {
                        DbError::Schema(format!("sync_listing.outcome: {error}"))
                    })?;
            let labels = split_labels(row.labels.as_deref());
            found.insert(
                row.external_id,
                Listed {
                    outcome: Some(outcome),
                    labels,
                },
            );
        }
    }
    Ok(found)
}

/// Writes what became of these ids. Each has an outcome.
pub async fn save(tx: &Tx, run: RunId, listed: &HashMap<String, Listed>) -> Result<(), DbError> {
    let rows: Vec<(&String, &Listed)> = listed.iter().collect();
    for chunk in rows.chunks(MAX_LIST) {
        let mut sql = Sql::new(
            "INSERT INTO sync_listing (run_id, external_id, outcome, labels) VALUES ",
            [],
        );
        let mut separator = "";
        for (id, entry) in chunk {
            let Some(outcome) = entry.outcome else {
                continue;
            };
            let labels = (!entry.labels.is_empty()).then(|| entry.labels.join("\n"));
            sql = sql.push(separator).tuple([
                Value::from(run),
                id.as_str().into(),
                outcome.to_string().into(),
                labels.into(),
            ]);
            separator = ", ";
        }
        if separator.is_empty() {
            continue;
        }
        sql.push(
            " ON CONFLICT (run_id, external_id) DO UPDATE SET
                outcome = excluded.outcome, labels = excluded.labels, seen = true",
        )
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// A listing begins: what the run saw before it says nothing about what exists now.
pub async fn begin(tx: &Tx, run: RunId) -> Result<(), DbError> {
    Sql::new(
        "UPDATE sync_listing SET seen = false, labels = NULL WHERE run_id = $1",
        [run.into()],
    )
    .execute(&tx.inner)
    .await
    .map(drop)
}

/// Labels are kept one a line; none of Gmail's holds a line break.
pub(super) fn split_labels(labels: Option<&str>) -> Vec<String> {
    labels
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The ended runs of which there are rows. It steps from run to run along the key instead of reading
/// every row: those of a large run under way are many, and this is asked for often.
const ENDED: &str = "WITH RECURSIVE listed (run_id) AS (
        SELECT (SELECT run_id FROM sync_listing ORDER BY run_id LIMIT 1)
        UNION ALL
        SELECT (SELECT s.run_id FROM sync_listing s WHERE s.run_id > listed.run_id
                ORDER BY s.run_id LIMIT 1)
        FROM listed WHERE listed.run_id IS NOT NULL)
    SELECT run_id FROM listed
    WHERE run_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM sync_runs r
                      WHERE r.id = listed.run_id AND r.status IN ('queued', 'running'))";

/// Removes up to `limit` rows of runs that have ended; says how many.
pub async fn sweep(db: &Db, limit: u64) -> Result<u64, DbError> {
    let ended: Vec<Ended> = Sql::new(ENDED, []).all(db.reader()).await?;
    let mut deleted = 0;
    for run in ended {
        if deleted >= limit {
            break;
        }
        let tx = db.begin().await?;
        deleted += Sql::new(
            "DELETE FROM sync_listing WHERE run_id = $1 AND external_id IN (
                SELECT external_id FROM sync_listing WHERE run_id = $1 LIMIT $2)",
            [run.run_id.into(), ((limit - deleted) as i64).into()],
        )
        .execute(&tx.inner)
        .await?;
        tx.commit().await?;
    }
    Ok(deleted)
}

#[derive(FromQueryResult)]
struct Ended {
    run_id: RunId,
}
