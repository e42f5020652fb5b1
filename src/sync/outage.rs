//! Telling an outage from items that fail for ever: where many fail in a row although the service
//! gives what is known to be there, the items are at fault, and each is asked for apart.
//!
//! Without this a handful of broken items would look like an outage in every run and hold up
//! everything after them.

use std::collections::HashSet;

use futures_util::StreamExt;

use super::{
    pages::{self, Next},
    runner::{Active, Stop},
};
use crate::{
    connectors::{ConnectorError, Fetched, OUTAGE},
    db::raw_data,
};

/// Fetches and writes `ids`, of which `changed` are stored as they were; the cursor moves with the last
/// of them.
pub(super) async fn fetch_and_write(
    active: &mut Active<'_>,
    ids: Vec<String>,
    changed: &HashSet<String>,
    next: Option<Next>,
) -> Result<(), Stop> {
    let fetched = pages::fetch_and_write(active, Vec::new(), ids.clone(), next.clone()).await;
    let detail = match fetched {
        Err(Stop::Connector(ConnectorError::Unavailable(detail))) => detail,
        other => return other,
    };
    if service_answers(active).await? != Some(true) {
        return Err(Stop::Connector(ConnectorError::Unavailable(detail)));
    }
    tracing::warn!(
        error = detail,
        "many items failed in a row although the service answers; they are fetched apart"
    );
    let integration = active.claim.integration_id;
    let stored = raw_data::stored_ids(&active.engine.db, integration, &ids).await?;
    // Of those that are stored as they were, it is not told which have been had by now.
    let left: Vec<String> = ids
        .into_iter()
        .filter(|id| changed.contains(id) || !stored.contains(id))
        .collect();
    // Of so few none is taken for an outage.
    for apart in left.chunks(OUTAGE - 1) {
        pages::fetch_and_write(active, Vec::new(), apart.to_vec(), None).await?;
    }
    pages::move_cursor(active, next).await
}

/// Whether the service gives an item that it has given before; nothing is known where there is none.
pub(super) async fn service_answers(active: &Active<'_>) -> Result<Option<bool>, Stop> {
    let integration = active.claim.integration_id;
    let Some(known) = raw_data::newest_id(&active.engine.db, integration).await? else {
        return Ok(None);
    };
    let connector = &active.service.connector;
    let mut answers = connector.fetch(&active.access, vec![known]);
    let answer = tokio::select! {
        answer = answers.next() => answer,
        () = active.cancelled.cancelled() => return Err(Stop::Cancelled),
        () = active.shutdown.cancelled() => return Err(Stop::Shutdown),
    };
    let given = matches!(
        answer,
        Some(Ok((
            _,
            Fetched::Raw(_) | Fetched::Missing | Fetched::Withheld(_) | Fetched::Skipped(_)
        )))
    );
    Ok(Some(given))
}
