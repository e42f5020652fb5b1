//! Which parts of a message are its text and its HTML, and what its attachments are. It must not keep or unpack the
//! content of an attachment.

use std::borrow::Cow;

use mail_parser::{Encoding, Message, MessagePart, MimeHeaders, PartType};

use super::charset::decode;
use super::guard::HIDDEN_SUBTYPE;
use super::scan::{Scan, scan};
use super::{
    Attachment, MAX_ATTACHMENTS, MAX_BODY_PARTS, MAX_HTML_BYTES, ParsedEmail, WarningCode,
    Warnings, headers, html, notes, parameters, text,
};

/// A plain text shorter than this, in bytes, may be a mere hint to look at the HTML.
const MAX_HINT_BYTES: usize = 600;
/// What such hints say.
const HINTS: [&str; 9] = [
    "does not support html",
    "support html or",
    "doesn't support html",
    "not support html",
    "html-capable",
    "html version",
    "html-enabled",
    "view it in html",
    "kein html",
];
/// One HTML part and what the pass over it found.
struct HtmlPart {
    id: u32,
    scan: Scan,
}

/// Fills text, HTML and attachments of `email`.
pub(super) fn read(message: &Message<'_>, email: &mut ParsedEmail, warnings: &mut Warnings) {
    let use_plain = plain_says_something(message);
    let parts = html_parts(message, use_plain, email, warnings);
    let list = if use_plain {
        &message.text_body
    } else {
        &message.html_body
    };
    let mut joined = String::new();
    for &id in list.iter().take(MAX_BODY_PARTS) {
        let Some(part) = message.part(id) else {
            continue;
        };
        match &part.body {
            PartType::Text(_) => append(&mut joined, &plain_text(message, part, warnings)),
            PartType::Html(_) => {
                if let Some(found) = parts.iter().find(|known| known.id == id) {
                    append(&mut joined, &found.scan.text);
                }
            }
            _ => {}
        }
    }
    if message.text_body.len().max(message.html_body.len()) > MAX_BODY_PARTS {
        warnings.add(
            WarningCode::LimitParts,
            format!("more than {MAX_BODY_PARTS} text parts; the first ones were read"),
        );
    }
    if joined.is_empty()
        && let Some(part) = message.parts.iter().find(|part| is_stray_text(part))
    {
        match &part.body {
            PartType::Binary(bytes) => append(&mut joined, &String::from_utf8_lossy(bytes)),
            _ => append(&mut joined, &decode(message, part, warnings)),
        }
    }
    append_notes(message, &mut joined);
    email.text = text::finish(&joined, warnings);
    attachments(message, email, warnings);
    for part in &message.parts {
        if part.is_encoding_problem && part.raw_len() > 0 {
            warnings.add(
                WarningCode::TransferEncoding,
                "a part is not encoded as it claims, or ends early",
            );
        }
    }
}

/// Text that a broken structure (a boundary that never comes or is not named, a cut part) kept from being a body.
fn is_stray_text(part: &MessagePart<'_>) -> bool {
    let kind = part.content_type();
    let multipart = kind.is_some_and(|kind| kind.ctype() == "multipart");
    let plain = kind.is_none_or(|kind| kind.ctype() == "text" && kind.subtype() == Some("plain"));
    match &part.body {
        PartType::Text(text) => {
            (plain || multipart)
                && part.attachment_name().is_none()
                && text.chars().any(char::is_alphanumeric)
        }
        PartType::Binary(_) => multipart,
        _ => false,
    }
}

fn append(joined: &mut String, part: &str) {
    if part.trim().is_empty() {
        return;
    }
    if !joined.is_empty() {
        joined.truncate(joined.trim_end_matches(['\n', '\r']).len());
        joined.push_str("\n\n");
    }
    joined.push_str(part);
}

/// Whether the plain text is worth reading where there is HTML too: it has a letter and is no mere hint.
fn plain_says_something(message: &Message<'_>) -> bool {
    let html = message.html_body.iter().any(|&id| {
        matches!(
            message.part(id).map(|part| &part.body),
            Some(PartType::Html(_))
        )
    });
    if !html {
        return true;
    }
    for &id in &message.text_body {
        match message.part(id).map(|part| &part.body) {
            Some(PartType::Text(text)) => {
                if text.len() < MAX_HINT_BYTES {
                    let lower = text.to_lowercase();
                    if HINTS.iter().any(|hint| lower.contains(hint)) {
                        return false;
                    }
                }
                return text.chars().any(char::is_alphanumeric);
            }
            Some(PartType::Html(_)) => return true,
            _ => {}
        }
    }
    false
}

/// Reads every HTML part of the body once, and sanitises them into `email.html`.
fn html_parts(
    message: &Message<'_>,
    use_plain: bool,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) -> Vec<HtmlPart> {
    let mut parts: Vec<HtmlPart> = Vec::new();
    let mut clean: Option<String> = None;
    let mut complete = true;
    let mut budget = MAX_HTML_BYTES;
    let mut hidden_bytes = 0;
    for &id in message
        .html_body
        .iter()
        .chain(&message.text_body)
        .take(2 * MAX_BODY_PARTS)
    {
        let Some(part) = message.part(id) else {
            continue;
        };
        if !matches!(part.body, PartType::Html(_)) || parts.iter().any(|known| known.id == id) {
            continue;
        }
        let decoded = decode(message, part, warnings);
        let source = without_nul(&decoded);
        let within = text::prefix(&source, budget);
        budget -= within.len();
        let want_text = !use_plain || message.text_body.contains(&id);
        let scan = scan(within, want_text);
        hidden_bytes += scan.hidden_bytes;
        if within.len() < source.len() {
            complete = false;
            warnings.add(
                WarningCode::LimitHtmlBytes,
                format!("more than {MAX_HTML_BYTES} bytes of html; it was not kept"),
            );
        } else if complete {
            match html::sanitise(within, &scan, warnings) {
                Some(part) => clean.get_or_insert_default().push_str(&part),
                None => complete = false,
            }
        }
        parts.push(HtmlPart { id, scan });
    }
    if hidden_bytes > 0 {
        warnings.add(
            WarningCode::HiddenText,
            format!("{hidden_bytes} bytes of text that a reader would not see were left out"),
        );
    }
    email.html = clean.filter(|_| complete);
    parts
}

fn without_nul<'a>(source: &'a str) -> Cow<'a, str> {
    if source.contains('\0') {
        return Cow::Owned(source.replace('\0', ""));
    }
    Cow::Borrowed(source)
}

fn plain_text<'a>(
    message: &'a Message<'_>,
    part: &'a MessagePart<'_>,
    warnings: &mut Warnings,
) -> Cow<'a, str> {
    let decoded = decode(message, part, warnings);
    let parameter = |name: &str| part.content_type().and_then(|kind| kind.attribute(name));
    if !parameter("format").is_some_and(|format| format.eq_ignore_ascii_case("flowed")) {
        return decoded;
    }
    let delsp = parameter("delsp").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    Cow::Owned(text::unflow(&decoded, delsp))
}

/// Calendar entries and delivery reports, which are no body, as a few lines below the text.
fn append_notes(message: &Message<'_>, joined: &mut String) {
    let mut calendar = false;
    for part in &message.parts {
        let Some(kind) = part.content_type() else {
            continue;
        };
        let subtype = kind.subtype().unwrap_or_default();
        let note = match &part.body {
            PartType::Text(text) if !calendar && subtype.eq_ignore_ascii_case("calendar") => {
                let note = notes::calendar(text);
                calendar = note.is_some();
                note
            }
            PartType::Binary(bytes) | PartType::InlineBinary(bytes)
                if subtype.eq_ignore_ascii_case("delivery-status")
                    || subtype.eq_ignore_ascii_case("disposition-notification") =>
            {
                notes::report(&String::from_utf8_lossy(bytes))
            }
            _ => None,
        };
        if let Some(note) = note {
            append(joined, &note);
        }
    }
}

fn attachments(message: &Message<'_>, email: &mut ParsedEmail, warnings: &mut Warnings) {
    for part in message.attachments() {
        if email.attachments.len() == MAX_ATTACHMENTS {
            warnings.add(
                WarningCode::LimitAttachments,
                format!("more than {MAX_ATTACHMENTS} attachments"),
            );
            return;
        }
        let mut mime_type = media_type(part);
        let mut subject = None;
        let size = match &part.body {
            PartType::Message(nested) => {
                "message/rfc822".clone_into(&mut mime_type);
                subject = headers::subject(nested, warnings);
                match part.encoding {
                    Encoding::None => {
                        part.raw_end_offset().saturating_sub(part.raw_body_offset()) as usize
                    }
                    _ => nested.raw_message.len(),
                }
            }
            _ if mime_type == format!("message/{HIDDEN_SUBTYPE}") => {
                "message/rfc822".clone_into(&mut mime_type);
                subject = headers::subject_of(part.contents(), None, warnings);
                part.contents().len()
            }
            _ => part.contents().len(),
        };
        let name = parameters::file_name(message, part, warnings)
            .and_then(|raw| file_name(&raw, warnings));
        email.attachments.push(Attachment {
            filename: name.or(subject),
            mime_type,
            size_bytes: size as u64,
            content_id: part
                .content_id()
                .and_then(|raw| headers::field(raw, warnings)),
        });
    }
}

fn media_type(part: &MessagePart<'_>) -> String {
    let fallback = match part.body {
        PartType::Text(_) => "text/plain",
        PartType::Html(_) => "text/html",
        _ => "application/octet-stream",
    };
    let Some(kind) = part.content_type() else {
        return fallback.to_owned();
    };
    let mut full = text::prefix(kind.ctype(), 100).to_ascii_lowercase();
    if let Some(subtype) = kind.subtype() {
        full.push('/');
        full.push_str(&text::prefix(subtype, 100).to_ascii_lowercase());
    }
    full.retain(|ch| ch.is_ascii_graphic());
    if full.contains('/') {
        full
    } else {
        fallback.to_owned()
    }
}

/// The last step of a path, cleaned: a file name must not say where a file goes.
fn file_name(raw: &str, warnings: &mut Warnings) -> Option<String> {
    let cleaned = headers::field(raw, warnings)?;
    let name = cleaned
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default()
        .trim();
    if name.is_empty() || name == "." || name == ".." {
        None
    } else {
        Some(name.to_owned())
    }
}
