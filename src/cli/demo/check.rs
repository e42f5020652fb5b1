//! Holds what nucleus has against what the stand-in has: every message once, and told of.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, bail};
use serde_json::Value;

use super::client::Client;
use crate::demo::StandIn;

/// What the events told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: usize,
    pub(super) created: usize,
    pub(super) updated: usize,
    pub(super) deleted: usize,
}

/// Compares rows and events with the stand-in's ledger.
pub(super) async fn everything(
    client: &Client,
    google: &StandIn,
    integration: &str,
) -> anyhow::Result<Told> {
    let rows = client
        .all(&format!("/integrations/{integration}/records"))
        .await?;
    let mut rows_by_id: HashMap<&str, &Value> = HashMap::new();
    for row in &rows {
        let id = row["external_id"]
            .as_str()
            .context("a record has no external_id")?;
        if rows_by_id.insert(id, row).is_some() {
            bail!("message {id} is stored twice");
        }
    }
    let ledger = google.with_mailbox(|mailbox| mailbox.ledger());
    let mut expected = 0;
    for entry in &ledger {
        let hidden = entry
            .labels
            .iter()
            .any(|label| label == "SPAM" || label == "TRASH");
        let row = rows_by_id.get(entry.id.as_str());
        if hidden && row.is_none() {
            continue;
        }
        expected += 1;
        let row = row.with_context(|| format!("message {} is missing", entry.id))?;
        let meta_data = &row["meta_data"];
        if meta_data["sha256"] != entry.sha256.as_str() {
            bail!(
                "message {} is stored with other bytes than it has",
                entry.id
            );
        }
        let mut labels: Vec<&str> = meta_data["labels"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        labels.sort_unstable();
        if labels != entry.labels {
            bail!(
                "message {} has labels {:?}, stored are {labels:?}",
                entry.id,
                entry.labels
            );
        }
    }
    if rows.len() != expected {
        bail!(
            "{} records are stored, {expected} messages exist",
            rows.len()
        );
    }
    told(client, &rows).await
}

async fn told(client: &Client, rows: &[Value]) -> anyhow::Result<Told> {
    let events = client.all("/events").await?;
    let mut told = Told {
        events: events.len(),
        ..Told::default()
    };
    let mut known = HashSet::new();
    for event in &events {
        for record in event["data"]["records"].as_array().into_iter().flatten() {
            known.insert(record["id"].as_str().unwrap_or_default());
            match record["change"].as_str() {
                Some("created") => told.created += 1,
                Some("updated") => told.updated += 1,
                Some("deleted") => told.deleted += 1,
                other => bail!("an event tells of a change {other:?}"),
            }
        }
    }
    for row in rows {
        if !known.contains(row["id"].as_str().unwrap_or_default()) {
            bail!("no event tells of record {}", row["id"]);
        }
    }
    Ok(told)
}
