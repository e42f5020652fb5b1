//! `sync_settings`: what an owner may say about how and when to sync.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::IntegrationId;

/// A week; a rarer sync would lose Gmail's history, which is kept about that long.
const MAX_INTERVAL_MINUTES: u32 = 7 * 24 * 60;
/// After failures the interval doubles, up to a day.
const MAX_BACKOFF_MINUTES: i64 = 24 * 60;

/// How and when an integration syncs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyncSettings {
    /// Minutes between two syncs by schedule, 1 to 10,080.
    #[schema(minimum = 1, maximum = 10_080)]
    pub interval_minutes: u32,
    /// Whether messages in spam and trash are stored. Switched on later, the next sync lists everything once
    /// more and fetches them.
    pub include_spam_trash: bool,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            interval_minutes: 60,
            include_spam_trash: false,
        }
    }
}

/// Settings that cannot be followed: which field, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct InvalidSettings {
    /// The field, from `sync_settings` down.
    pub field: String,
    /// What is wrong and what is right.
    pub message: String,
}

impl SyncSettings {
    /// Reads the settings from a body or a row. Absent ones are the defaults.
    pub fn parse(value: &Value) -> Result<Self, InvalidSettings> {
        // Serde would read a list as the fields in their order.
        if !value.is_object() {
            return Err(InvalidSettings {
                field: "sync_settings".to_owned(),
                message: "must be an object".to_owned(),
            });
        }
        let settings: Self =
            serde_path_to_error::deserialize(value).map_err(|error| InvalidSettings {
                field: match error.path().to_string() {
                    path if path == "." => "sync_settings".to_owned(),
                    path => format!("sync_settings.{path}"),
                },
                message: error.inner().to_string(),
            })?;
        if !(1..=MAX_INTERVAL_MINUTES).contains(&settings.interval_minutes) {
            return Err(InvalidSettings {
                field: "sync_settings.interval_minutes".to_owned(),
                message: format!("must be 1 to {MAX_INTERVAL_MINUTES}"),
            });
        }
        Ok(settings)
    }

    /// When the next sync is due that is counted from `time`, after `failures` failures in a row.
    /// Integrations are spread by up to a tenth of the interval, each always by the same share, so
    /// that those made together are not due together for ever; but none waits for longer than a week.
    pub fn next_sync(
        &self,
        time: DateTime<Utc>,
        failures: i32,
        integration: IntegrationId,
    ) -> DateTime<Utc> {
        let minutes = i64::from(self.interval_minutes);
        let doubled = minutes.saturating_mul(1 << failures.clamp(0, 16));
        let interval_ms = doubled.min(MAX_BACKOFF_MINUTES.max(minutes)) * 60_000;
        // The last bytes of a UUID v7 are random.
        let bytes = integration.0.as_bytes();
        let share = i64::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        let spread_ms = interval_ms + interval_ms / 10 * share / 65_536;
        time + TimeDelta::milliseconds(spread_ms.min(i64::from(MAX_INTERVAL_MINUTES) * 60_000))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_settings_are_the_defaults() {
        assert_eq!(
            SyncSettings::parse(&json!({})).unwrap(),
            SyncSettings::default()
        );
        let some = SyncSettings::parse(&json!({"interval_minutes": 5})).unwrap();
        assert_eq!((some.interval_minutes, some.include_spam_trash), (5, false));
    }

    #[test]
    fn a_mistake_is_named_by_its_field() {
        let field = |value| SyncSettings::parse(&value).unwrap_err().field;
        assert_eq!(
            field(json!({"interval_minutes": 0})),
            "sync_settings.interval_minutes"
        );
        assert_eq!(
            field(json!({"interval_minutes": "5"})),
            "sync_settings.interval_minutes"
        );
        assert_eq!(field(json!({"interval": 5})), "sync_settings.interval");
        assert_eq!(field(json!([])), "sync_settings");
    }

    #[test]
    fn failures_put_the_next_sync_off_up_to_a_day() {
        let settings = SyncSettings::default();
        let id = IntegrationId::new();
        let now = DateTime::UNIX_EPOCH;
        let minutes = |failures| (settings.next_sync(now, failures, id) - now).num_minutes();
        assert!((60..=66).contains(&minutes(0)));
        assert!((120..=132).contains(&minutes(1)));
        assert!((1440..=1584).contains(&minutes(40)));
        let weekly = SyncSettings {
            interval_minutes: MAX_INTERVAL_MINUTES,
            ..settings
        };
        let week = TimeDelta::days(7);
        assert!((0..100).all(|_| weekly.next_sync(now, 0, IntegrationId::new()) - now == week));
    }
}
