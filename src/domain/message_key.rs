//! What tells that two copies of a message are one message, whichever way they came.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Before the key in the external id of a message whose service has not named it.
pub const KEYED: &str = "mid:";

/// Lower-case hex SHA-256 of the Message-ID and the text of an e-mail's record, or of sender, date,
/// subject and text where it has no Message-ID.
///
/// White space counts as one space each, and `From` without the `>` that mbox files put before it: it
/// is what differs between copies. A date that is not the message's own is left out, as another copy
/// has another.
pub fn message_key(meta_data: &Value, text: &str) -> String {
    let mut hasher = Sha256::new();
    match meta_data["message_id"].as_str() {
        Some(id) if !id.is_empty() => field(&mut hasher, id),
        _ => {
            field(&mut hasher, "");
            field(&mut hasher, &meta_data["from"].to_string());
            let date = meta_data["date"]
                .as_str()
                .filter(|_| !is_stand_in(meta_data));
            field(&mut hasher, date.unwrap_or_default());
            field(
                &mut hasher,
                meta_data["subject"].as_str().unwrap_or_default(),
            );
        }
    }
    for word in text.split_whitespace() {
        let bare = word.trim_start_matches('>');
        hasher.update(if bare == "From" { bare } else { word });
        hasher.update(b" ");
    }
    format!("{:x}", hasher.finalize())
}

fn field(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}

/// Whether the date was taken from elsewhere, which a warning says.
fn is_stand_in(meta_data: &Value) -> bool {
    let warnings = meta_data["warnings"].as_array();
    warnings.is_some_and(|warnings| {
        warnings.iter().any(|warning| {
            let code = warning["code"].as_str().unwrap_or_default();
            code.starts_with("date_from_")
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_that_differ_in_space_and_in_escapes_have_one_key() {
        let meta_data = json!({"message_id": "1@example.com", "subject": "one"});
        let key = message_key(&meta_data, "Hello\n\nFrom me\n");
        assert_eq!(key.len(), 64);
        for text in [
            "Hello From me",
            "Hello\r\n>From me",
            " Hello\n>>From\u{a0}me\n\n",
        ] {
            assert_eq!(message_key(&meta_data, text), key, "{text}");
        }
        let other_subject = json!({"message_id": "1@example.com", "subject": "two"});
        assert_eq!(message_key(&other_subject, "Hello From me"), key);
        assert_ne!(message_key(&meta_data, "Hello >me"), key);
        let other_id = json!({"message_id": "2@example.com"});
        assert_ne!(message_key(&other_id, "Hello From me"), key);
    }

    #[test]
    fn without_a_message_id_sender_date_and_subject_count() {
        let with = |subject: &str, date: Value, warnings: Value| {
            let meta_data = json!({"message_id": null, "from": [{"address": "a@example.com"}],
                "date": date, "subject": subject, "warnings": warnings});
            message_key(&meta_data, "text")
        };
        let dated = with("one", json!("2026-01-01T00:00:00.000000Z"), json!([]));
        assert_ne!(
            dated,
            with("two", json!("2026-01-01T00:00:00.000000Z"), json!([]))
        );
        assert_ne!(dated, with("one", Value::Null, json!([])));
        let stand_in = json!([{"code": "date_from_service"}]);
        assert_eq!(
            with("one", json!("2026-01-01T00:00:00.000000Z"), stand_in),
            with("one", Value::Null, json!([]))
        );
    }
}
