//! The messages that leave the program: topics, types and the CloudEvents envelope.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{EntityId, EventId, IntegrationId, RunId, record::ChangedRecord, time};

/// Topic of requests to sync an integration.
pub const SYNC_REQUESTS: &str = "nucleus-sync-requests";
/// Topic of DNA-analysis events.
pub const DNA_ANALYSIS: &str = "nucleus-dna-analysis";
/// Topic of what Cloud Scheduler says by the clock.
pub const SYNC_TICKS: &str = "nucleus-sync-ticks";
/// Topic to which a broker moves sync requests that it has delivered too often.
pub const SYNC_DEAD_LETTER: &str = "nucleus-sync-dead-letter";
/// Subscription by which workers get sync requests.
pub const SYNC_WORKER: &str = "nucleus-sync-worker";
/// Subscription by which workers hear the clock.
pub const SYNC_SCHEDULER: &str = "nucleus-sync-scheduler";
/// Subscription by which workers find what a broker gave up.
pub const SYNC_DEAD_LETTER_READER: &str = "nucleus-sync-dead-letter-reader";
/// Subscription of the DNA Engine, which this program never reads.
pub const DNA_ENGINE: &str = "nucleus-dna-engine";
/// CloudEvents type of a sync request.
pub const SYNC_REQUESTED_V1: &str = "dev.nucleus.sync.requested.v1";
/// CloudEvents type of a DNA-analysis event.
pub const DNA_ANALYSIS_REQUESTED_V1: &str = "dev.nucleus.dna.analysis_requested.v1";
/// The attribute `event_type` of a sync request.
pub const SYNC_REQUESTED: &str = "sync_requested";
/// The attribute `event_type` of a DNA-analysis event.
pub const DNA_ANALYSIS_REQUESTED: &str = "dna_analysis_requested";
/// A DNA-analysis event names at most so many records.
pub const RECORDS_PER_EVENT: usize = 100;

/// The data of `dev.nucleus.dna.analysis_requested.v1`: references only, never content.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DnaAnalysisRequested {
    /// The owner.
    pub entity_id: EntityId,
    /// The connected account.
    pub integration_id: IntegrationId,
    /// The run that found the changes; null where an integration was removed with its records.
    pub run_id: Option<RunId>,
    /// Always `untrusted_external`: what the records hold comes from outside and is not to be obeyed.
    pub trust: String,
    /// What changed.
    #[schema(max_items = 100)]
    pub records: Vec<ChangedRecord>,
}

/// A CloudEvents 1.0 event in structured JSON.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: &'static str,
    /// The event's id; a repeat keeps it.
    pub id: EventId,
    /// `nucleus/{service_name}`.
    pub source: String,
    /// What kind of event, with its version, for instance `dev.nucleus.dna.analysis_requested.v1`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The integration's id.
    pub subject: IntegrationId,
    /// When it became true.
    #[serde(serialize_with = "time::serialize")]
    pub time: DateTime<Utc>,
    /// Always `application/json`.
    pub datacontenttype: &'static str,
    /// The trace that the event belongs to, as W3C's `traceparent`; only where traces are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub traceparent: Option<String>,
    /// What the type says it is.
    #[schema(value_type = DnaAnalysisRequested)]
    pub data: Value,
}

/// A cursor of the list of events.
pub fn encode_position(position: i64) -> String {
    URL_SAFE_NO_PAD.encode(position.to_be_bytes())
}

/// The position in a cursor of the list of events.
pub fn decode_position(text: &str) -> Option<i64> {
    let bytes: [u8; 8] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(i64::from_be_bytes(bytes)).filter(|position| *position >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_others_do_not() {
        assert_eq!(decode_position(&encode_position(17)), Some(17));
        for text in ["", "x", "!!!", &encode_position(-1)] {
            assert_eq!(decode_position(text), None, "{text:?}");
        }
    }
}
