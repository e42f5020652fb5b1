//! Labels of an export have names where the service has ids: the first sync after an import asks once
//! which is which.

use std::collections::HashMap;

use super::{
    resync,
    runner::{Active, Stop},
};
use crate::{
    db::{imported, raw_data},
    domain::{record::Change, sync::Outcome},
};

/// Rows looked at in one transaction.
const CHUNK: u64 = 100;

/// Gives the rows that an import brought the ids of their labels. A label that there is no more goes,
/// as it does where its removal is heard of.
pub(super) async fn name(active: &mut Active<'_>) -> Result<(), Stop> {
    let integration = active.claim.integration_id;
    let db = &active.engine.db;
    if !active.among_imported || !imported::has_label_names(db, integration).await? {
        return Ok(());
    }
    let connector = &active.service.connector;
    let labels = tokio::select! {
        labels = connector.labels(&active.access) => labels?,
        () = active.cancelled.cancelled() => return Err(Stop::Cancelled),
        () = active.shutdown.cancelled() => return Err(Stop::Shutdown),
    };
    // No two labels of an account differ in case alone.
    let ids: HashMap<String, String> = labels
        .into_iter()
        .map(|label| (label.name.to_lowercase(), label.id))
        .collect();
    while name_some(active, &ids).await? {
        if let Some(stop) = active.interrupted() {
            return Err(stop);
        }
    }
    Ok(())
}

/// Does so for a chunk of rows; says whether there was any.
async fn name_some(active: &mut Active<'_>, ids: &HashMap<String, String>) -> Result<bool, Stop> {
    let tx = resync::begin(active).await?;
    let integration = active.claim.integration_id;
    let rows = imported::with_label_names(&tx, integration, CHUNK).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let mut changed = Vec::new();
    let mut same = Vec::new();
    for row in rows {
        let mut labels = row.stored.labels.clone();
        for name in &row.names {
            match ids.get(&name.to_lowercase()) {
                Some(id) if !labels.contains(id) => labels.push(id.clone()),
                _ => {}
            }
        }
        if labels == row.stored.labels {
            same.push(row.stored.id);
            continue;
        }
        raw_data::set_labels(&tx, row.stored.id, &labels, active.engine.clock.now()).await?;
        changed.push((
            row.stored.changed(&row.external_id, Change::Updated),
            Outcome::Updated,
        ));
    }
    imported::forget_label_names(&tx, &same).await?;
    resync::commit_changes(active, tx, changed).await?;
    Ok(true)
}
