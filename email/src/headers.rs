//! The header fields of a message as values: people, ids, date. It must not look at bodies.

use chrono::{DateTime, Datelike, Utc};
use mail_parser::{Address, HeaderName, HeaderValue, Message};

use super::{
    MAX_FIELD_BYTES, MAX_IDS, MAX_MAILBOXES, Mailbox, ParsedEmail, WarningCode, Warnings, text,
};

/// Fills the fields of `email` that come from the header. Of a field that may occur once the first one counts.
pub(super) fn read(message: &Message<'_>, email: &mut ParsedEmail, warnings: &mut Warnings) {
    let mut saw_date = false;
    for header in message.headers() {
        let value = &header.value;
        match &header.name {
            HeaderName::Subject => fill(&mut email.subject, value, warnings),
            HeaderName::From => people(&mut email.from, value, warnings),
            HeaderName::To => people(&mut email.to, value, warnings),
            HeaderName::Cc => people(&mut email.cc, value, warnings),
            HeaderName::Bcc => people(&mut email.bcc, value, warnings),
            HeaderName::ReplyTo => people(&mut email.reply_to, value, warnings),
            HeaderName::Date if !saw_date => {
                saw_date = true;
                email.date = date(value);
                if email.date.is_none() {
                    warnings.add(WarningCode::DateUnparsable, "the date field is not a date");
                }
            }
            HeaderName::MessageId => fill(&mut email.message_id, value, warnings),
            HeaderName::InReplyTo => ids(&mut email.in_reply_to, value, warnings),
            HeaderName::References => ids(&mut email.references, value, warnings),
            HeaderName::ListId if email.list_id.is_none() => {
                email.list_id = value
                    .as_text()
                    .and_then(|raw| field(list_id(raw), warnings));
            }
            HeaderName::AutoSubmitted => fill(&mut email.auto_submitted, value, warnings),
            HeaderName::AuthenticationResults => {
                ids(&mut email.authentication_results, value, warnings);
            }
            _ => {}
        }
    }
}

/// A header-derived string: NFC, one line, no control or invisible characters, bounded; none when nothing is left.
pub(super) fn field(raw: &str, warnings: &mut Warnings) -> Option<String> {
    let mut raw = raw;
    if raw.len() > MAX_FIELD_BYTES {
        warnings.add(
            WarningCode::LimitFieldBytes,
            format!(
                "a field of {} bytes was cut to {MAX_FIELD_BYTES}",
                raw.len()
            ),
        );
        raw = text::prefix(raw, MAX_FIELD_BYTES);
    }
    let cleaned = text::clean(raw, warnings);
    let mut line = String::with_capacity(cleaned.len());
    for word in cleaned.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.is_empty() { None } else { Some(line) }
}

fn fill(target: &mut Option<String>, value: &HeaderValue<'_>, warnings: &mut Warnings) {
    if target.is_none() {
        // Several values in a field for one (a Message-ID with a comment, say): the first is meant.
        let first = match value {
            HeaderValue::TextList(list) => list.first().map(AsRef::as_ref),
            other => other.as_text(),
        };
        *target = first.and_then(|raw| field(raw, warnings));
    }
}

fn ids(target: &mut Vec<String>, value: &HeaderValue<'_>, warnings: &mut Warnings) {
    let list = match value {
        HeaderValue::Text(one) => std::slice::from_ref(one),
        HeaderValue::TextList(list) => list.as_slice(),
        _ => return,
    };
    for raw in list {
        if target.len() == MAX_IDS {
            warnings.add(
                WarningCode::LimitIds,
                format!("a field has more than {MAX_IDS} values"),
            );
            return;
        }
        target.extend(field(raw, warnings));
    }
}

fn people(target: &mut Vec<Mailbox>, value: &HeaderValue<'_>, warnings: &mut Warnings) {
    let HeaderValue::Address(addresses) = value else {
        return;
    };
    let groups = match addresses {
        Address::List(list) => vec![list.as_slice()],
        Address::Group(groups) => {
            let mut lists = Vec::with_capacity(groups.len());
            for group in groups {
                lists.push(group.addresses.as_slice());
            }
            lists
        }
    };
    for entry in groups.into_iter().flatten() {
        if target.len() == MAX_MAILBOXES {
            warnings.add(
                WarningCode::LimitMailboxes,
                format!("a field has more than {MAX_MAILBOXES} people"),
            );
            return;
        }
        let name = entry.name.as_deref().and_then(|name| field(name, warnings));
        let address = entry
            .address
            .as_deref()
            .and_then(|address| field(address, warnings));
        if name.is_some() || address.is_some() {
            target.push(Mailbox { name, address });
        }
    }
}

fn date(value: &HeaderValue<'_>) -> Option<DateTime<Utc>> {
    let HeaderValue::DateTime(date) = value else {
        return None;
    };
    if !date.is_valid() {
        return None;
    }
    // RFC 3339 knows years of four digits only.
    DateTime::from_timestamp(date.to_timestamp(), 0)
        .filter(|time| (1..=9999).contains(&time.year()))
}

/// The identifier of a List-Id field: what stands in angle brackets, or everything.
fn list_id(raw: &str) -> &str {
    let Some(open) = raw.rfind('<') else {
        return raw;
    };
    let inner = &raw[open + 1..];
    inner.split('>').next().unwrap_or(inner)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    fn person(name: Option<&str>, address: &str) -> Mailbox {
        Mailbox {
            name: name.map(Into::into),
            address: Some(address.into()),
        }
    }

    #[test]
    fn people_ids_and_date_are_read_and_decoded() {
        let email = parse(
            "From: =?UTF-8?Q?J=C3=BCrgen_M=C3=BCller?= <jm@example.de>\r\n\
             To: \"Doe, Jane\" <jane@example.com>, bob@example.com\r\n\
             Cc: Team: a@example.com, B <b@example.com>;\r\n\
             Reply-To: =?iso-8859-1?B?UmVuZQ==?= <r@example.fr>\r\n\
             Subject: =?utf-8?B?0J/RgNC40LLQtdGC?=\r\n =?utf-8?B?LCDQvNC40YA=?=\r\n\
             Date: Mon, 15 Jun 2026 10:20:30 +0200\r\n\
             Message-ID: <one@example.de>\r\n\
             In-Reply-To: <zero@example.com>\r\n\
             References: <a@x>\r\n <b@x> <zero@example.com>\r\n\
             List-Id: A list <list.example.com>\r\n\
             Auto-Submitted: auto-generated\r\n\
             Authentication-Results: mx.example.com;\r\n\tdkim=pass header.i=@example.de;\r\n\tspf=pass\r\n\
             \r\nHello"
                .as_bytes(),
        );
        assert_eq!(email.from, [person(Some("Jürgen Müller"), "jm@example.de")]);
        assert_eq!(
            email.to,
            [
                person(Some("Doe, Jane"), "jane@example.com"),
                person(None, "bob@example.com")
            ]
        );
        assert_eq!(
            email.cc,
            [
                person(None, "a@example.com"),
                person(Some("B"), "b@example.com")
            ]
        );
        assert_eq!(email.reply_to, [person(Some("Rene"), "r@example.fr")]);
        assert_eq!(email.subject.as_deref(), Some("Привет, мир"));
        assert_eq!(email.message_id.as_deref(), Some("one@example.de"));
        assert_eq!(email.in_reply_to, ["zero@example.com"]);
        assert_eq!(email.references, ["a@x", "b@x", "zero@example.com"]);
        assert_eq!(email.list_id.as_deref(), Some("list.example.com"));
        assert_eq!(email.auto_submitted.as_deref(), Some("auto-generated"));
        assert_eq!(
            email.authentication_results,
            ["mx.example.com; dkim=pass header.i=@example.de; spf=pass"]
        );
        let meta = email.meta_data();
        assert_eq!(meta["date"], json!("2026-06-15T08:20:30.000000Z"));
        assert_eq!(meta["bcc"], json!([]));
        assert_eq!(meta["html"], json!(null));
        assert_eq!(
            meta["from"],
            json!([{"name": "Jürgen Müller", "address": "jm@example.de"}])
        );
        assert!(email.warnings.is_empty(), "{:?}", email.warnings);
    }

    #[test]
    fn encoded_line_breaks_and_nul_do_not_survive_in_fields() {
        let email = parse(b"Subject: =?utf-8?Q?a=0D=0ABcc:_x=00y=E2=80=AEz?=\n\nt");
        assert_eq!(email.subject.as_deref(), Some("a Bcc: xyz"));
        let mut codes = Vec::new();
        for warning in &email.warnings {
            codes.push(warning.code);
        }
        assert_eq!(
            codes,
            [WarningCode::NulBytes, WarningCode::InvisibleCharacters]
        );
    }

    #[test]
    fn a_date_that_is_none_is_absent_and_flagged() {
        let email = parse(b"Date: yesterday\nSubject: x\n\nt");
        assert_eq!(email.date, None);
        assert_eq!(email.warnings[0].code, WarningCode::DateUnparsable);
        let none = parse(b"Subject: x\n\nt");
        assert!(none.warnings.is_empty());
    }

    #[test]
    fn a_field_with_too_many_people_is_cut_and_flagged() {
        let mut raw = b"To: ".to_vec();
        for number in 0..MAX_MAILBOXES + 5 {
            raw.extend_from_slice(format!("a{number}@example.com,\n ").as_bytes());
        }
        raw.extend_from_slice(b"last@example.com\n\nt");
        let email = parse(&raw);
        assert_eq!(email.to.len(), MAX_MAILBOXES);
        assert_eq!(email.warnings[0].code, WarningCode::LimitMailboxes);
    }
}
