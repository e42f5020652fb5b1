//! From Gmail's answer to `messages.get?format=raw` to a record. Pure.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Malformed, Normalized, RawItem},
    api::place,
    history::hidden,
};
use crate::domain::{
    IntegrationId,
    record::{self, EMAIL, Record},
    sync::SkipReason,
};

/// Whether Gmail pads its base64url is not documented and reports differ, so both are taken.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The message as Gmail answers it. Not the type of `google-gmail1`, which refuses base64url
/// without padding and with it the whole answer, and copies what is borrowed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    thread_id: Option<String>,
    label_ids: Option<Vec<String>>,
    snippet: Option<String>,
    /// Milliseconds since the epoch, as text.
    internal_date: Option<String>,
    #[serde(borrow)]
    raw: Cow<'a, str>,
}

/// See [`super::super::Connector::normalize`].
pub(super) fn normalize(
    item: &RawItem,
    integration: IntegrationId,
    include_spam_trash: bool,
) -> Result<Normalized, Malformed> {
    let message: Message<'_> = serde_json::from_slice(&item.body)
        .map_err(|error| Malformed(format!("messages.get: {}", place(&error))))?;
    if message.id != item.id {
        return Err(Malformed("messages.get answered another message".into()));
    }
    let labels = message.label_ids.unwrap_or_default();
    if !include_spam_trash && hidden(&labels) {
        return Ok(Normalized::Skipped(SkipReason::SpamTrash));
    }
    let raw = BASE64
        .decode(message.raw.as_bytes())
        .map_err(|_| Malformed("messages.get: raw is not base64url".into()))?;
    let parsed = email::parse(&raw);
    drop(raw);

    let mut meta_data = parsed.meta_data();
    meta_data["thread_id"] = json!(message.thread_id);
    meta_data["snippet"] = json!(message.snippet.map(|snippet| unescape(&snippet)));
    if parsed.date.is_none() {
        date_by_gmail(&mut meta_data, message.internal_date.as_deref());
    }
    Ok(Normalized::Record(Box::new(Record::new(
        item.id.clone(),
        EMAIL,
        parsed.text,
        meta_data,
        labels,
        integration,
    ))))
}

/// Dates a mail that has no date of its own by when Gmail received it, and says so.
fn date_by_gmail(meta_data: &mut Value, internal_date: Option<&str>) {
    let received = internal_date
        .and_then(|text| text.parse().ok())
        .and_then(DateTime::from_timestamp_millis);
    let Some(received) = received else { return };
    let detail = "the mail has no date that can be read; this is when gmail received it";
    record::stand_in_date(meta_data, received, "date_from_service", detail);
}

/// Gmail escapes its snippets for HTML. The zero character, which PostgreSQL refuses in JSON, is left
/// out.
fn unescape(text: &str) -> String {
    /// No character reference that is read here is longer, without `&` and `;`.
    const LONGEST: usize = 9;
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.bytes().take(LONGEST + 2).position(|byte| byte == b';');
        match end.and_then(|end| Some((character(&rest[1..end])?, end))) {
            Some((character, end)) => {
                plain.push(character);
                rest = &rest[end + 1..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    plain.retain(|character| character != '\0');
    plain
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        "nbsp" => return Some('\u{a0}'),
        _ => {}
    }
    let digits = name.strip_prefix('#')?;
    let code = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    const MAIL: &str = "Subject: hello\r\nDate: Sat, 1 Aug 2026 12:00:00 +0000\r\n\r\nGr\u{fc}\u{df}e ~~~???>>>\r\n";

    fn item(raw: &str, labels: &[&str]) -> RawItem {
        let body = json!({"id": "18c", "threadId": "18a", "labelIds": labels, "historyId": "5",
            "snippet": "Tom &amp;\0 &#39;Ann&#39;&#0; &lt;3 &unknown; & &#x1F600;",
            "internalDate": "1785585600123", "raw": raw});
        RawItem {
            id: "18c".into(),
            body: body.to_string().into(),
            large: None,
        }
    }

    fn record(item: &RawItem) -> Record {
        match normalize(item, IntegrationId::new(), false).unwrap() {
            Normalized::Record(record) => *record,
            Normalized::Skipped(reason) => panic!("{reason:?}"),
        }
    }

    #[test]
    fn padding_makes_no_difference() {
        for extra in ["", "x", "xx"] {
            let mail = format!("{MAIL}{extra}");
            let padded = record(&item(&URL_SAFE.encode(&mail), &[]));
            let bare = record(&item(&URL_SAFE_NO_PAD.encode(&mail), &[]));
            assert_eq!(padded.content_hash, bare.content_hash);
            assert!(padded.data_content.contains("Gr\u{fc}\u{df}e ~~~???>>>"));
        }
    }

    #[test]
    fn a_message_becomes_a_record_with_what_gmail_knows() {
        let record = record(&item(&URL_SAFE.encode(MAIL), &["INBOX", "Label_1"]));
        assert_eq!(record.external_id, "18c");
        assert_eq!(record.data_type, "email");
        assert_eq!(record.labels, ["INBOX", "Label_1"]);
        assert_eq!(record.meta_data["thread_id"], "18a");
        assert_eq!(
            record.meta_data["snippet"],
            "Tom & 'Ann' <3 &unknown; & \u{1f600}"
        );
        assert_eq!(record.meta_data["date"], "2026-08-01T12:00:00.000000Z");
        assert_eq!(record.meta_data["warnings"], json!([]));
        assert!(record.meta_data.get("labels").is_none());
    }

    #[test]
    fn a_mail_without_a_date_is_dated_by_gmail_and_says_so() {
        let record = record(&item(&URL_SAFE.encode("Subject: x\r\n\r\nbody"), &[]));
        assert_eq!(record.meta_data["date"], "2026-08-01T12:00:00.123000Z");
        assert_eq!(record.meta_data["warnings"][0]["code"], "date_from_service");
    }

    #[test]
    fn spam_and_trash_stay_out_unless_asked_for() {
        for label in ["SPAM", "TRASH"] {
            let item = item(&URL_SAFE.encode(MAIL), &[label]);
            let integration = IntegrationId::new();
            assert!(matches!(
                normalize(&item, integration, false),
                Ok(Normalized::Skipped(SkipReason::SpamTrash))
            ));
            assert!(matches!(
                normalize(&item, integration, true),
                Ok(Normalized::Record(_))
            ));
        }
    }

    #[test]
    fn what_is_no_message_is_malformed_and_not_quoted() {
        let mut bad = item("%%%", &[]);
        let secret = "sensitive";
        let bodies = [
            bad.body.clone(),
            json!({"id": "18c"}).to_string().into(),
            json!({"id": "18c", "raw": 7, "snippet": secret})
                .to_string()
                .into(),
            json!({"id": "other", "raw": ""}).to_string().into(),
            json!({"id": "18c", "raw": "", "labelIds": secret})
                .to_string()
                .into(),
        ];
        for body in bodies {
            bad.body = body;
            let Err(error) = normalize(&bad, IntegrationId::new(), false) else {
                panic!("{:?}", bad.body);
            };
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}
