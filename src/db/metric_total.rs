//! `metric_totals`: what all processes have counted, summed up, so that whoever is asked can tell it.

use sea_orm::{FromQueryResult, Value};

use super::{Db, DbError, MAX_LIST, Sql, Tx};
use crate::metrics::Total;

#[derive(FromQueryResult)]
struct Row {
    metric: String,
    labels: String,
    part: String,
    total: f64,
}

/// Adds to the sums. Given in one order everywhere, so that two processes do not wait for each other.
pub async fn add(tx: &Tx, totals: &[Total]) -> Result<(), DbError> {
    for chunk in totals.chunks(MAX_LIST) {
        let mut sql = Sql::new(
            "INSERT INTO metric_totals (metric, labels, part, total) VALUES ",
            [],
        );
        for (index, total) in chunk.iter().enumerate() {
            if index > 0 {
                sql = sql.push(", ");
            }
            sql = sql.tuple([
                Value::from(total.metric.as_str()),
                total.labels.as_str().into(),
                total.part.as_str().into(),
                total.value.into(),
            ]);
        }
        sql.push(
            " ON CONFLICT (metric, labels, part)
              DO UPDATE SET total = metric_totals.total + excluded.total",
        )
        .execute(&tx.inner)
        .await?;
    }
    Ok(())
}

/// All of them: as many as metrics have series, some hundreds.
pub async fn all(db: &Db) -> Result<Vec<Total>, DbError> {
    let rows: Vec<Row> = Sql::new("SELECT metric, labels, part, total FROM metric_totals", [])
        .all(db.reader())
        .await?;
    let total = |row: Row| Total {
        metric: row.metric,
        labels: row.labels,
        part: row.part,
        value: row.total,
    };
    Ok(rows.into_iter().map(total).collect())
}
