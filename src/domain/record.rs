//! What a connector makes of an item, and what happened to the row that holds it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{IntegrationId, RecordId, message_key::message_key, time};

/// The `data_type` of e-mails.
pub const EMAIL: &str = "email";

/// Every record comes from outside and is marked so, to its last consumer.
pub const TRUST: &str = "untrusted_external";

/// An item ready to be stored in `raw_data`.
#[derive(Debug, Clone)]
pub struct Record {
    /// The service's id of the item, opaque.
    pub external_id: String,
    /// What kind of item, for instance `email`.
    pub data_type: &'static str,
    /// The readable text.
    pub data_content: String,
    /// Everything else that is known, without `labels`.
    pub meta_data: Value,
    /// Labels, in the order of the service.
    pub labels: Vec<String>,
    /// Lower-case hex SHA-256, see [`content_hash`].
    pub content_hash: String,
    /// What tells other copies of it, where it is an e-mail.
    pub message_key: Option<String>,
}

impl Record {
    /// Completes what a connector made of an item: adds provenance to the metadata and hashes both.
    /// `meta_data` must be an object without `labels`.
    pub fn new(
        external_id: String,
        data_type: &'static str,
        data_content: String,
        mut meta_data: Value,
        labels: Vec<String>,
        integration: IntegrationId,
    ) -> Self {
        let message_key = (data_type == EMAIL).then(|| message_key(&meta_data, &data_content));
        meta_data["trust"] = json!(TRUST);
        let content_hash = content_hash(&data_content, &meta_data);
        meta_data["integration_id"] = json!(integration);
        Self {
            external_id,
            data_type,
            data_content,
            meta_data,
            labels,
            content_hash,
            message_key,
        }
    }

    /// The metadata as it is stored, labels included.
    pub fn stored_meta_data(&mut self) -> Value {
        let mut meta_data = self.meta_data.take();
        meta_data["labels"] = json!(self.labels);
        meta_data
    }
}

/// Dates an e-mail that has no date of its own by when somebody else says that it came, and says so
/// in a warning.
pub fn stand_in_date(meta_data: &mut Value, date: DateTime<Utc>, code: &str, detail: &str) {
    meta_data["date"] = json!(time::rfc3339(date));
    // In the form of the mail's own warnings.
    let warning = json!({"code": code, "detail": detail});
    match &mut meta_data["warnings"] {
        Value::Array(warnings) => warnings.push(warning),
        other => *other = json!([warning]),
    }
}

/// SHA-256 over the text, a zero byte and the metadata as JSON with sorted keys and no spaces.
/// Labels and the integration's id are left out: the first change without the content changing,
/// the second changes when another connection of the same account adopts the row.
fn content_hash(data_content: &str, meta_data: &Value) -> String {
    let mut hasher = Sha256::new();
    hasher.update(data_content.as_bytes());
    hasher.update([0]);
    hasher.update(meta_data.to_string().as_bytes());
    format!("{:x}", hasher.finalize())
}

/// Labels put on and taken off an item since the cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelDelta {
    /// Put on.
    pub add: Vec<String>,
    /// Taken off.
    pub remove: Vec<String>,
}

impl LabelDelta {
    /// Applies the delta and says whether it changed anything.
    pub fn apply(&self, labels: &mut Vec<String>) -> bool {
        let before = labels.clone();
        labels.retain(|label| !self.remove.contains(label));
        for label in &self.add {
            if !labels.contains(label) {
                labels.push(label.clone());
            }
        }
        *labels != before
    }
}

/// What happened to a record: `deleted` means that its content was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Created,
    /// Its content or its labels changed.
    Updated,
    /// Its content was erased.
    Deleted,
}

/// One changed record, as a DNA-analysis event names it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangedRecord {
    /// The record.
    pub id: RecordId,
    /// The service's id of the item.
    pub external_id: String,
    /// What kind of item.
    pub data_type: String,
    /// What happened.
    pub change: Change,
    /// The record's hash; the one it had, when it was deleted.
    pub content_hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(labels: &[&str], subject: &str) -> Record {
        Record::new(
            "1".into(),
            "email",
            "text".into(),
            json!({"subject": subject, "a": {"z": 1, "b": 2}}),
            labels.iter().map(|&label| label.to_owned()).collect(),
            IntegrationId::new(),
        )
    }

    #[test]
    fn the_hash_ignores_labels_and_connection_and_nothing_else() {
        assert_eq!(
            record(&["INBOX"], "s").content_hash,
            record(&[], "s").content_hash
        );
        assert_ne!(record(&[], "s").content_hash, record(&[], "t").content_hash);
    }

    #[test]
    fn a_delta_that_changes_nothing_says_so() {
        let mut labels = vec!["INBOX".to_owned(), "UNREAD".to_owned()];
        let read = LabelDelta {
            add: vec![],
            remove: vec!["UNREAD".into()],
        };
        assert!(read.apply(&mut labels));
        assert!(!read.apply(&mut labels));
        assert_eq!(labels, ["INBOX"]);
    }
}
