//! Kinds of disagreements about the text. Both references take one part of a mail, or join parts with their headers;
//! what they make of HTML is not our measure, its words are.

use std::collections::HashMap;

use email::{ParsedEmail, WarningCode};

use crate::compare::{Case, Field};
use crate::kinds::{Kind, bare_returns, unreadable};

pub(crate) const KINDS: [Kind; 15] = [
    (Field::Text, "bare returns", "as for the subject"),
    (
        Field::Text,
        "layout",
        "the same letters and digits in the same order: lines joined (format=flowed), marks of lists, tables and quotes, blanks",
    ),
    (
        Field::Text,
        "links",
        "the same words but for targets of links, which stand once in brackets here, and not or otherwise there",
    ),
    (
        Field::Text,
        "charset",
        "the label is missing, unknown or wrong: read by guess here and flagged; U+FFFD or letters of another charset there",
    ),
    (
        Field::Text,
        "transfer encoding",
        "a body that is not encoded as it claims, or is cut off: mended here and flagged",
    ),
    (
        Field::Text,
        "hidden text",
        "text that no reader would have seen is left out here and flagged",
    ),
    (
        Field::Text,
        "reports, invitations and attached messages",
        "said in a few lines here; the reference leaves them out, or puts the raw parts into the text",
    ),
    (
        Field::Text,
        "blocks within the text",
        "uuencoded files, yEnc and PGP armour within the text are attachments or marks here",
    ),
    (
        Field::Text,
        "more parts here",
        "several parts are text: joined here, the reference takes one; or it finds no text at all",
    ),
    (
        Field::Text,
        "more parts there",
        "attached texts are attachments here, the reference puts them into the text",
    ),
    (
        Field::Text,
        "header as text",
        "a broken line ends the header for the reference, which takes the rest of it for text",
    ),
    (
        Field::Text,
        "alternatives",
        "of several alternatives of one kind the last counts (RFC 2046, 5.1.4); the reference takes the first, or all",
    ),
    (
        Field::Text,
        "broken boundaries",
        "a boundary is missing, or stands within a line: the parts that each reader finds differ, nothing is lost",
    ),
    (
        Field::Text,
        "html",
        "the words of HTML: options of forms are left out here, `alt` of images is read, and hints to look at the HTML are not the text",
    ),
    (
        Field::Text,
        "limit",
        "longer than the text of a record may be; cut and flagged",
    ),
];

pub(crate) fn explain(case: &Case<'_>) -> Option<&'static str> {
    let ours = case.ours(Field::Text).concat();
    let theirs = case.theirs(Field::Text).concat();
    if bare_returns(case) {
        return Some("bare returns");
    }
    if letters(&ours) == letters(&theirs) {
        return Some("layout");
    }
    if case.flagged(WarningCode::LimitTextBytes) || case.flagged(WarningCode::LimitHtmlBytes) {
        return Some("limit");
    }
    if case.flagged(WarningCode::TransferEncoding) {
        return Some("transfer encoding");
    }
    if unreadable(&theirs) > unreadable(&ours) || case.flagged(WarningCode::CharsetFallback) {
        return Some("charset");
    }
    if theirs.is_ascii() && !ours.is_ascii() && theirs.contains(['\u{1b}', '~']) {
        return Some("charset");
    }
    let (our_bare, their_bare) = (without_links(&ours), without_links(&theirs));
    if letters(&our_bare) == letters(&their_bare) {
        return Some("links");
    }
    let common = Overlap::of(&our_bare, &their_bare);
    if case.flagged(WarningCode::HiddenText) && common.of_ours() > 0.5 {
        return Some("hidden text");
    }
    let email = case.email;
    let other_form = theirs.contains("Reporting-MTA:") || ours.contains("Forwarded message");
    if says_more(email) && (other_form || common.of_ours() > 0.3 || common.of_theirs() > 0.9) {
        return Some("reports, invitations and attached messages");
    }
    let shorter = common.ours < common.theirs;
    if has_blocks(case.raw) && (shorter || common.of_theirs().max(common.of_ours()) > 0.7) {
        return Some("blocks within the text");
    }
    if common.of_theirs() > 0.97 && common.theirs < common.ours {
        return Some("more parts here");
    }
    if common.theirs == 0 {
        return Some("more parts here");
    }
    let part_of_theirs = common.ours == 0 || common.of_ours() > 0.97;
    if part_of_theirs && !email.attachments.is_empty() {
        return Some("more parts there");
    }
    if common.of_ours() > 0.97 && holds_header(case, &theirs) {
        return Some("header as text");
    }
    let raw = String::from_utf8_lossy(case.raw).to_ascii_lowercase();
    let plain = raw.matches("text/plain").count();
    if raw.contains("multipart/alternative") && (plain > 1 || part_of_theirs) {
        return Some("alternatives");
    }
    if raw.contains("multipart/") && (part_of_theirs || holds_header_of_part(&ours)) {
        return Some("broken boundaries");
    }
    if email.html.is_some() && lower_letters(&our_bare) == lower_letters(&their_bare) {
        return Some("html");
    }
    if email.html.is_some() && (common.of_ours().max(common.of_theirs()) > 0.8 || is_hint(&theirs))
    {
        return Some("html");
    }
    None
}

/// Whether the record holds something that stands in the text as lines of ours.
fn says_more(email: &ParsedEmail) -> bool {
    let message = |kind: &str| kind.starts_with("message/") || kind.contains("report");
    email.report.is_some()
        || email.calendar.is_some()
        || email.partial.is_some()
        || email
            .attachments
            .iter()
            .any(|part| message(&part.mime_type))
}

fn has_blocks(raw: &[u8]) -> bool {
    let holds = |mark: &[u8]| raw.windows(mark.len()).any(|window| window == mark);
    holds(b"\nbegin ") || holds(b"=ybegin") || holds(b"-----BEGIN PGP")
}

/// Whether the text holds the header of a part.
fn holds_header_of_part(text: &str) -> bool {
    text.to_ascii_lowercase().contains("content-type:")
}

/// Whether the text holds a line of the mail's own header.
fn holds_header(case: &Case<'_>, text: &str) -> bool {
    text.contains("MIME-Version: ")
        || [
            "subject",
            "date",
            "message-id",
            "from",
            "to",
            "content-type",
        ]
        .iter()
        .any(|name| {
            let values = case.header(name);
            values
                .iter()
                .any(|value| !value.is_empty() && text.contains(value.as_str()))
        })
}

/// Whether a plain text only says that there is HTML.
fn is_hint(text: &str) -> bool {
    text.len() < 2_000 && text.to_ascii_lowercase().contains("html")
}

fn lower_letters(text: &str) -> String {
    letters(&text.to_lowercase())
}

fn letters(text: &str) -> String {
    text.chars().filter(|ch| ch.is_alphanumeric()).collect()
}

/// Without what looks like the target of a link.
fn without_links(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for word in text.split([' ', '(', ')', '[', ']', '<', '>']) {
        let target = ["http:", "https:", "mailto:", "ftp:", "www."]
            .iter()
            .any(|start| word.len() > start.len() && word[..].to_ascii_lowercase().contains(start));
        if !target {
            kept.push_str(word);
            kept.push(' ');
        }
    }
    kept
}

/// How many words two texts share.
struct Overlap {
    ours: usize,
    theirs: usize,
    shared: usize,
}

impl Overlap {
    fn of(ours: &str, theirs: &str) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let words = |text| -> Vec<&str> {
            str::split(text, |ch: char| !ch.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .collect()
        };
        let (our_words, their_words) = (words(ours), words(theirs));
        for word in &our_words {
            *counts.entry(word).or_default() += 1;
        }
        let mut shared = 0;
        for word in &their_words {
            if let Some(count) = counts.get_mut(word)
                && *count > 0
            {
                *count -= 1;
                shared += 1;
            }
        }
        Self {
            ours: our_words.len(),
            theirs: their_words.len(),
            shared,
        }
    }

    /// The part of our words that they have too.
    fn of_ours(&self) -> f64 {
        self.shared as f64 / self.ours.max(1) as f64
    }

    fn of_theirs(&self) -> f64 {
        self.shared as f64 / self.theirs.max(1) as f64
    }
}
