//! The readable text of a message and its HTML: the parts that `structure` chose, joined in their order, with what
//! calendar entries and reports say below. It must not keep or unpack the content of an attachment.

use std::borrow::Cow;

use mail_parser::{Message, MessagePart, MimeHeaders, PartType};

use super::charset::decode;
use super::structure::{self, Structure, kind, parameter};
use super::{
    MAX_BODY_PARTS, MAX_CLEAN_HTML_BYTES, MAX_HTML_BYTES, MAX_NESTED_MESSAGES, MAX_TEXT_BYTES,
    ParsedEmail, Partial, WarningCode, Warnings, attachments, bounce, calendar, enriched, guard,
    headers, html, protection, report, text, uuencode, with_message,
};

/// The line before a message that is part of the text; the same as mail programs write before a forwarded one.
const FORWARDED: &str = "---------- Forwarded message ----------";

/// The readable text of one HTML part.
struct HtmlPart {
    id: u32,
    text: String,
}

/// Fills everything of `email` that comes from the body.
pub(super) fn read(message: &Message<'_>, email: &mut ParsedEmail, warnings: &mut Warnings) {
    email.protection = protection::of_parts(message);
    email.partial = partial(message, warnings);
    let mut structure = structure::sort(message, warnings);
    let mut joined = String::new();
    email.html = join(message, &structure, 0, &mut joined, email, warnings);
    if joined.is_empty() {
        stray_text(message, &mut structure, &mut joined, warnings);
    }
    if joined.is_empty() && email.partial.is_some() {
        fragment(message, &mut joined, email, warnings);
    }
    let tnef = attachments::list(message, &structure.attachments, None, email, warnings);
    if joined.is_empty()
        && let Some(tnef) = tnef
    {
        match (tnef.text, tnef.html) {
            (Some(plain), _) => append(&mut joined, &plain),
            (None, Some(source)) => {
                let within = text::prefix(&source, MAX_HTML_BYTES);
                append(&mut joined, &html::read(within, true, warnings).text);
            }
            (None, None) => {}
        }
    }
    notes(message, &mut joined, email, warnings);
    if joined.is_empty() {
        // Nothing was written around them: what was forwarded is what there is to read.
        for &id in structure.attachments.iter().take(MAX_BODY_PARTS) {
            if let Some(part) = message.part(id) {
                forwarded(message, part, 1, &mut joined, email, warnings);
            }
        }
    }
    email.text = text::finish(&joined, warnings);
    if email.report.is_none() {
        email.report = bounce::read(email, warnings);
    }
    for part in &message.parts {
        if part.is_encoding_problem && part.raw_end_offset() > part.raw_body_offset() {
            warnings.add(
                WarningCode::TransferEncoding,
                "a part is not encoded as it claims, or ends early",
            );
        }
    }
}

/// Appends the text of `message` to `joined` and gives back its HTML. Files that stand in the text are added to the
/// attachments of `email`.
fn join(
    message: &Message<'_>,
    structure: &Structure,
    level: usize,
    joined: &mut String,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) -> Option<String> {
    let (parts, clean) = html_parts(message, structure, warnings);
    for &id in structure.text.iter().take(MAX_BODY_PARTS) {
        let Some(part) = message.part(id) else {
            continue;
        };
        match &part.body {
            PartType::Text(_) | PartType::Html(_) => {
                match parts.iter().find(|known| known.id == id) {
                    Some(html) => append(joined, &html.text),
                    None => append(joined, &plain_text(message, part, email, warnings)),
                }
            }
            _ => forwarded(message, part, level + 1, joined, email, warnings),
        }
    }
    if structure.text.len().max(structure.html.len()) > MAX_BODY_PARTS {
        warnings.add(
            WarningCode::LimitParts,
            format!("more than {MAX_BODY_PARTS} text parts; the first ones were read"),
        );
    }
    clean
}

/// Appends an attached message: who wrote it when about what, and its text. Its own attachments are listed as being
/// within it.
fn forwarded(
    message: &Message<'_>,
    part: &MessagePart<'_>,
    level: usize,
    joined: &mut String,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    if joined.len() > MAX_TEXT_BYTES {
        return;
    }
    let name = attachments::name(message, part, warnings);
    match &part.body {
        PartType::Message(nested) => {
            forwarded_message(nested, name, level, joined, email, warnings);
        }
        // It was kept from the parser.
        _ if attachments::is_hidden(part) => {
            let input = guard::prepare(part.contents(), warnings);
            let parsed = with_message(&input, warnings, |nested, warnings| {
                forwarded_message(nested, name, level, joined, email, warnings);
                true
            });
            if parsed != Ok(true) {
                warnings.add(
                    WarningCode::ParserFailed,
                    "an attached message could not be read",
                );
            }
        }
        _ => {}
    }
}

fn forwarded_message(
    nested: &Message<'_>,
    name: Option<String>,
    level: usize,
    joined: &mut String,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    if level > MAX_NESTED_MESSAGES {
        warnings.add(
            WarningCode::LimitParts,
            format!("messages more than {MAX_NESTED_MESSAGES} deep were not read"),
        );
        return;
    }
    // What is wrong with the header of a message within is no matter of the mail itself.
    let mut inner = ParsedEmail::default();
    headers::read(nested, &mut inner, &mut Warnings::default());
    let mut lines = FORWARDED.to_owned();
    for (name, people) in [("From", &inner.from), ("To", &inner.to)] {
        let mut named = Vec::new();
        for person in people.iter().take(3) {
            named.push(match (&person.name, &person.address) {
                (Some(name), Some(address)) => format!("{name} <{address}>"),
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => continue,
            });
        }
        if !named.is_empty() {
            lines.push_str(&format!("\n{name}: {}", named.join(", ")));
        }
    }
    if let Some(date) = inner.date {
        lines.push_str(&format!("\nDate: {}", date.to_rfc2822()));
    }
    if let Some(subject) = &inner.subject {
        lines.push_str(&format!("\nSubject: {subject}"));
    }
    append(joined, &lines);
    let structure = structure::sort(nested, warnings);
    let before = joined.len();
    join(nested, &structure, level, joined, email, warnings);
    let holder = name.as_deref().unwrap_or("message/rfc822");
    attachments::list(
        nested,
        &structure.attachments,
        Some(holder),
        email,
        warnings,
    );
    if joined.len() == before {
        for &id in structure.attachments.iter().take(MAX_BODY_PARTS) {
            if let Some(part) = nested.part(id) {
                forwarded(nested, part, level + 1, joined, email, warnings);
            }
        }
    }
}

/// Which fragment of a message a `message/partial` is (RFC 2046).
fn partial(message: &Message<'_>, warnings: &mut Warnings) -> Option<Partial> {
    let part = message.root_part();
    if kind(part) != ("message", "partial") {
        return None;
    }
    let number = |name: &str| parameter(part, name).and_then(|value| value.trim().parse().ok());
    Some(Partial {
        id: parameter(part, "id").and_then(|id| headers::field(id, warnings)),
        number: number("number"),
        total: number("total"),
    })
}

/// The text of a fragment: the first one begins with the header of the whole message, the others go on in its body,
/// which is of use where it is words.
fn fragment(
    message: &Message<'_>,
    joined: &mut String,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    let contents = message.root_part().contents();
    if email.partial.as_ref().and_then(|partial| partial.number) != Some(1) {
        let words = String::from_utf8_lossy(contents);
        if is_words(&words) {
            append(joined, &words);
        }
        return;
    }
    let input = guard::prepare(contents, warnings);
    let parsed = with_message(&input, warnings, |whole, warnings| {
        let structure = structure::sort(whole, warnings);
        email.html = join(whole, &structure, 1, joined, email, warnings);
        attachments::list(whole, &structure.attachments, None, email, warnings);
        true
    });
    if parsed != Ok(true) {
        warnings.add(WarningCode::ParserFailed, "a fragment could not be read");
    }
}

/// Whether most lines have blanks within: encoded data has none.
fn is_words(text: &str) -> bool {
    let mut lines = 0;
    let mut spaced = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        lines += 1;
        spaced += usize::from(line.trim().contains(' '));
    }
    spaced * 2 > lines
}

/// Text that a broken structure (a boundary that never comes or is not named, a cut part) kept from being a body.
fn stray_text(
    message: &Message<'_>,
    structure: &mut Structure,
    joined: &mut String,
    warnings: &mut Warnings,
) {
    for (id, part) in (0_u32..).zip(&message.parts) {
        if !is_stray_text(part) {
            continue;
        }
        match &part.body {
            PartType::Binary(bytes) => append(joined, &String::from_utf8_lossy(bytes)),
            _ => append(joined, &decode(message, part, warnings)),
        }
        structure.attachments.retain(|&attached| attached != id);
        return;
    }
}

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

/// Reads every HTML part of the body once, and sanitises them.
fn html_parts(
    message: &Message<'_>,
    structure: &Structure,
    warnings: &mut Warnings,
) -> (Vec<HtmlPart>, Option<String>) {
    let mut parts: Vec<HtmlPart> = Vec::new();
    let mut clean: Option<String> = None;
    let mut budget = MAX_HTML_BYTES;
    for &id in structure.html.iter().take(MAX_BODY_PARTS) {
        let Some(part) = message.part(id) else {
            continue;
        };
        let source = decode(message, part, warnings);
        let within = text::prefix(&source, budget);
        budget -= within.len();
        if within.len() < source.len() {
            warnings.add(
                WarningCode::LimitHtmlBytes,
                format!("more than {MAX_HTML_BYTES} bytes of html; the first ones were read"),
            );
        }
        let found = html::read(within, structure.text.contains(&id), warnings);
        let joined = clean.get_or_insert_default();
        if joined.len() + found.clean.len() <= MAX_CLEAN_HTML_BYTES {
            joined.push_str(&found.clean);
        } else {
            warnings.add(
                WarningCode::LimitHtmlBytes,
                format!(
                    "more than {MAX_CLEAN_HTML_BYTES} bytes of sanitised html; a part was not kept"
                ),
            );
        }
        let text = found.text;
        parts.push(HtmlPart { id, text });
    }
    (parts, clean)
}

/// The words of a text part: without soft line breaks, armour and files within.
fn plain_text<'a>(
    message: &'a Message<'_>,
    part: &'a MessagePart<'_>,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) -> Cow<'a, str> {
    let decoded = decode(message, part, warnings);
    let (without_files, files) = uuencode::take_out(&decoded);
    attachments::embedded(&files, email, warnings);
    let words = protection::without_armour(&without_files, &mut email.protection);
    let is = |name: &str, value: &str| {
        parameter(part, name).is_some_and(|given| given.eq_ignore_ascii_case(value))
    };
    match kind(part) {
        ("text", "enriched") => return Cow::Owned(enriched::to_plain(&words, false)),
        ("text", "richtext") => return Cow::Owned(enriched::to_plain(&words, true)),
        _ if is("format", "flowed") => {
            return Cow::Owned(text::unflow(&words, is("delsp", "yes")));
        }
        _ => {}
    }
    let changed = match words {
        Cow::Owned(words) => Some(words),
        Cow::Borrowed(_) if files.is_empty() => None,
        Cow::Borrowed(words) => Some(words.to_owned()),
    };
    changed.map_or(decoded, Cow::Owned)
}

/// What calendar entries and reports say, as values and as a few lines below the text.
fn notes(
    message: &Message<'_>,
    joined: &mut String,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) {
    for part in &message.parts {
        let found = match (kind(part), &part.body) {
            (("text", "calendar"), PartType::Text(_)) => {
                calendar::read(&decode(message, part, warnings), warnings)
            }
            (("application", "ics"), PartType::Binary(bytes)) => {
                calendar::read(&String::from_utf8_lossy(bytes), warnings)
            }
            _ => None,
        };
        // The same entry often comes twice, to be shown and to be kept.
        if let Some(found) = found {
            append(joined, &calendar::describe(&found));
            email.calendar = Some(found);
            break;
        }
    }
    email.report = report::read(message, warnings);
    if let Some(found) = &email.report {
        append(joined, &report::describe(found));
    }
}
