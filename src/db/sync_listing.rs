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
                outcome = excluded.outcome, labels = excluded.labels",
        )
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// Labels are kept one a line; none of Gmail's holds a line break.
pub(super) fn split_labels(labels: Option<&str>) -> Vec<String> {
    labels
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Removes up to `limit` rows of runs that have ended; says how many.
pub async fn sweep(db: &Db, limit: u64) -> Result<u64, DbError> {
    // Deleting by key from a bounded selection keeps the transaction short on both databases.
    let tx = db.begin().await?;
    let ended: Vec<Ended> = Sql::new(
        "SELECT l.run_id, l.external_id FROM sync_listing l
         LEFT JOIN sync_runs r ON r.id = l.run_id
         WHERE r.id IS NULL OR r.status NOT IN ('queued', 'running') LIMIT $1",
        [(limit as i64).into()],
    )
    .all(&tx.inner)
    .await?;
    let mut deleted = 0;
    for chunk in ended.chunk_by(|a, b| a.run_id == b.run_id) {
        for part in chunk.chunks(MAX_LIST) {
            deleted += Sql::new(
                "DELETE FROM sync_listing WHERE run_id = $1 AND external_id IN ",
                [part[0].run_id.into()],
            )
            .tuple(part.iter().map(|row| row.external_id.clone()))
            .execute(&tx.inner)
            .await?;
        }
    }
    tx.commit().await?;
    Ok(deleted)
}

#[derive(FromQueryResult)]
struct Ended {
    run_id: RunId,
    external_id: String,
}
