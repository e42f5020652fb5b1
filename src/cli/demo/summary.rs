//! What happened, as a table or as one object.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::{check::Told, client::Client, say};
use crate::domain::QuotaTable;

/// Connecting an account asks once whose it is.
const CONNECTING_UNITS: u64 = QuotaTable::Y2026.profile as u64;

/// The figures of a demonstration.
pub(super) struct Summary {
    /// Messages in the mailbox at the end, spam and trash included.
    pub(super) messages: usize,
    /// The run of the first sync, as the API shows it.
    pub(super) first: Value,
    /// The run of the second.
    pub(super) second: Value,
    /// Units that the stand-in counted from connecting to the end of the first sync.
    pub(super) first_units: u64,
    /// What the events told.
    pub(super) events: Told,
    /// From connecting to the last check.
    pub(super) elapsed: Duration,
}

impl Summary {
    /// An error if nucleus and the stand-in count differently.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let counted = count(&self.first, "quota_units") + CONNECTING_UNITS;
        if counted != self.first_units {
            bail!(
                "nucleus counted {counted} units up to the end of the first sync, the stand-in {}",
                self.first_units
            );
        }
        for run in [&self.first, &self.second] {
            let counts = &run["counts"];
            let skipped: u64 = counts["skipped"]
                .as_object()
                .into_iter()
                .flat_map(|skipped| skipped.values())
                .filter_map(Value::as_u64)
                .sum();
            let accounted = ["stored", "updated", "unchanged", "deleted", "failed"]
                .iter()
                .map(|name| count(counts, name))
                .sum::<u64>()
                + skipped;
            if count(counts, "listed") != accounted {
                bail!("the counts of a run do not add up: {counts}");
            }
        }
        let stored =
            count(&self.first["counts"], "stored") + count(&self.second["counts"], "stored");
        if self.events.created as u64 != stored {
            bail!(
                "{stored} records were stored, events tell of {}",
                self.events.created
            );
        }
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "messages": self.messages,
            "first_sync": self.first,
            "second_sync": self.second,
            "connecting": {"quota_units": CONNECTING_UNITS},
            "quota_units": self.units(),
            "google_minutes": round(google_minutes(self.units())),
            "events": {
                "events": self.events.events,
                "created": self.events.created,
                "updated": self.events.updated,
                "deleted": self.events.deleted,
            },
            "seconds": round(self.elapsed.as_secs_f64()),
            "verified": self.check().is_ok(),
        })
    }

    pub(super) fn print(&self) {
        say("");
        say("                        first sync    second sync");
        for (name, field) in [
            ("messages listed", "listed"),
            ("fetched", "fetched"),
            ("stored", "stored"),
            ("updated", "updated"),
            ("unchanged", "unchanged"),
            ("deleted", "deleted"),
        ] {
            let (first, second) = (
                count(&self.first["counts"], field),
                count(&self.second["counts"], field),
            );
            say(&format!("{name:>20} {first:>13} {second:>14}"));
        }
        let (first, second) = (count(&self.first, "events"), count(&self.second, "events"));
        say(&format!("{:>20} {first:>13} {second:>14}", "DNA events"));
        let (first, second) = (
            count(&self.first, "quota_units"),
            count(&self.second, "quota_units"),
        );
        say(&format!("{:>20} {first:>13} {second:>14}", "quota units"));
        say("");
        say(&format!(
            "Every message of the mailbox is stored once, with its labels and its hash, and told of \
             ({:.1} s).",
            self.elapsed.as_secs_f64()
        ));
        say(&format!(
            "Here no quota was kept. Google allows 6,000 units a minute, so {} units, with the one for \
             connecting, take {:.1} minutes there.",
            self.units(),
            google_minutes(self.units())
        ));
    }

    fn units(&self) -> u64 {
        CONNECTING_UNITS + count(&self.first, "quota_units") + count(&self.second, "quota_units")
    }
}

/// Where a person goes on.
pub(super) fn print_where_to_look(client: &Client, integration: &str) {
    let (url, key) = (&client.base_url, super::shown_key(&client.key));
    say("");
    say("It stays up until Ctrl-C. Look around:");
    say(&format!(
        "  curl -H 'Authorization: Bearer {key}' '{url}/integrations/{integration}/records?limit=2'"
    ));
    say(&format!(
        "  curl -H 'Authorization: Bearer {key}' '{url}/integrations/{integration}/runs'"
    ));
    say(&format!(
        "  curl -H 'Authorization: Bearer {key}' '{url}/events?limit=2'"
    ));
    say("");
    say("The same with your own account: `nucleus up`, then README.md, \"Run it\".");
}

fn count(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

fn google_minutes(units: u64) -> f64 {
    let budget = QuotaTable::Y2026.user_minute.unwrap_or(u32::MAX);
    units as f64 / f64::from(budget)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
