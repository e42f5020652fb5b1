//! The header fields of a message as values: people, ids, date. It must not look at bodies.
//!
//! The raw header is read here, not by the message parser, whose readings of broken fields cannot be mended from
//! outside; `words`, `addresses` and `dates` know what stands in a value.

use mail_parser::{Message, MimeHeaders};

use super::{
    MAX_FIELD_BYTES, MAX_HEADER_BYTES, MAX_IDS, ParsedEmail, WarningCode, Warnings, addresses,
    dates, text, words,
};

/// Fills the fields of `email` that come from the header. Of a field that may occur once the first one that says
/// something counts; recipients are those of every such field.
pub(super) fn read(message: &Message<'_>, email: &mut ParsedEmail, warnings: &mut Warnings) {
    read_block(header(message), body_charset(message), email, warnings);
}

/// The same from the raw header, or a raw message, that no parser has seen.
pub(super) fn read_block(
    header: &[u8],
    charset: Option<&str>,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    let mut date = None;
    let mut received = None;
    for (name, value) in Fields(header) {
        let mut buffer = [0; LONGEST_NAME];
        let Some(known) = lower(name, &mut buffer) else {
            continue;
        };
        let mut line = || words::unfold(value, charset, warnings);
        match known {
            b"subject" => fill(&mut email.subject, &line(), warnings),
            b"from" if email.from.is_empty() => {
                addresses::read(&line(), &mut email.from, warnings);
            }
            b"reply-to" if email.reply_to.is_empty() => {
                addresses::read(&line(), &mut email.reply_to, warnings);
            }
            b"to" => addresses::read(&line(), &mut email.to, warnings),
            b"cc" => addresses::read(&line(), &mut email.cc, warnings),
            b"bcc" => addresses::read(&line(), &mut email.bcc, warnings),
            b"date" if date.is_none() => date = Some(line().into_owned()),
            b"received" if received.is_none() => received = Some(line().into_owned()),
            b"message-id" if email.message_id.is_none() => {
                let mut found = Vec::new();
                ids(&mut found, &line(), warnings);
                // Several in a field for one (a comment with an at sign, say): the first is meant.
                email.message_id = found.into_iter().next();
            }
            b"in-reply-to" => ids(&mut email.in_reply_to, &line(), warnings),
            b"references" => ids(&mut email.references, &line(), warnings),
            b"list-id" => {
                let full = line();
                fill(&mut email.list_id, list_id(&full), warnings);
            }
            b"auto-submitted" => fill(&mut email.auto_submitted, &line(), warnings),
            b"authentication-results" => {
                let full = line();
                add(&mut email.authentication_results, &full, warnings);
            }
            _ => {}
        }
    }
    date_of(date.as_deref(), received.as_deref(), email, warnings);
}

/// The date of the Date field; where there is none that can be read, when the last server received the mail.
fn date_of(
    date: Option<&str>,
    received: Option<&str>,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    email.date = date.and_then(dates::read);
    if email.date.is_some() {
        return;
    }
    if date.is_some() {
        warnings.add(WarningCode::DateUnparsable, "the date field is not a date");
    }
    // RFC 5321, 4.4: the time stands behind the last semicolon.
    email.date = received
        .and_then(|field| field.rsplit_once(';'))
        .and_then(|(_, time)| dates::read(time));
    if email.date.is_some() {
        warnings.add(
            WarningCode::DateFromReceived,
            "the mail has no date that can be read; this is when its last server received it",
        );
    }
}

/// The subject of an attached message.
pub(super) fn subject(message: &Message<'_>, warnings: &mut Warnings) -> Option<String> {
    subject_of(header(message), body_charset(message), warnings)
}

/// The subject in a header block that no parser has seen.
pub(super) fn subject_of(
    header: &[u8],
    charset: Option<&str>,
    warnings: &mut Warnings,
) -> Option<String> {
    let mut subject = None;
    for (name, value) in Fields(&header[..header.len().min(MAX_HEADER_BYTES)]) {
        if name.eq_ignore_ascii_case(b"subject") {
            let line = words::unfold(value, charset, warnings);
            fill(&mut subject, &line, warnings);
        }
    }
    subject
}

/// Length of the longest name of a field that is read.
const LONGEST_NAME: usize = b"authentication-results".len();

/// A name in lower case; none where it is longer than every known one.
fn lower<'a>(name: &[u8], buffer: &'a mut [u8; LONGEST_NAME]) -> Option<&'a [u8]> {
    let target = buffer.get_mut(..name.len())?;
    target.copy_from_slice(name);
    target.make_ascii_lowercase();
    Some(target)
}

/// The raw header of a message.
fn header<'a>(message: &'a Message<'_>) -> &'a [u8] {
    let Some(root) = message.parts.first() else {
        return &[];
    };
    let range = root.raw_header_offset() as usize..root.raw_body_offset() as usize;
    message.raw_message.get(range).unwrap_or_default()
}

/// The first charset that a part declares: raw bytes in the header are likely in it too.
fn body_charset<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    let declared =
        |part: &'a mail_parser::MessagePart<'_>| part.content_type()?.attribute("charset");
    message.parts.iter().take(4).find_map(declared)
}

/// The fields of a header block: name and raw value, folded lines included. A line that is neither a field nor
/// folded is passed over, an empty one ends the block.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let mut end = line_end(self.0, 0);
            while self
                .0
                .get(end)
                .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
            {
                end = line_end(self.0, end);
            }
            let (field, rest) = self.0.split_at(end);
            self.0 = rest;
            if field.trim_ascii().is_empty() {
                return None;
            }
            let colon = field.iter().position(|byte| matches!(byte, b':' | b'\n'));
            if let Some(colon) = colon.filter(|&at| field[at] == b':') {
                return Some((field[..colon].trim_ascii(), &field[colon + 1..]));
            }
        }
        None
    }
}

/// The end of the line that holds `from`, its line feed included.
fn line_end(bytes: &[u8], from: usize) -> usize {
    match bytes[from..].iter().position(|&byte| byte == b'\n') {
        Some(length) => from + length + 1,
        None => bytes.len(),
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

fn fill(target: &mut Option<String>, line: &str, warnings: &mut Warnings) {
    if target.is_none() {
        *target = field(&words::decode(line, warnings), warnings);
    }
}

/// Adds the message ids of a field: what stands in angle brackets, blanks left out, or without any bracket the words
/// with an at sign. Phrases around them (RFC 822 allowed those) say nothing.
fn ids(target: &mut Vec<String>, line: &str, warnings: &mut Warnings) {
    let decoded = words::decode(line, warnings);
    if !decoded.contains('<') {
        for word in decoded.split([' ', '\t', ',', ';']) {
            let bare = word.trim_matches(['"', '>', '\'']);
            if bare.contains('@') {
                add(target, bare, warnings);
            }
        }
        if target.is_empty() && !decoded.trim().contains(char::is_whitespace) {
            add(target, &decoded, warnings);
        }
        return;
    }
    for after in decoded.split('<').skip(1) {
        // Never closed: the next one, or a blank, ends it.
        let inside = match after.split_once('>') {
            Some((inside, _)) => inside,
            None => after.split_whitespace().next().unwrap_or_default(),
        };
        let mut id = String::with_capacity(inside.len());
        id.extend(inside.chars().filter(|ch| !ch.is_whitespace()));
        add(target, &id, warnings);
    }
}

fn add(target: &mut Vec<String>, value: &str, warnings: &mut Warnings) {
    if target.len() == MAX_IDS {
        warnings.add(
            WarningCode::LimitIds,
            format!("a field has more than {MAX_IDS} values"),
        );
        return;
    }
    target.extend(field(value, warnings));
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
    use super::super::{MAX_MAILBOXES, Mailbox, parse};
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
