//! What holds for every message, whatever it is: tests, the corpus and the fuzzers all ask this one file. It is no
//! part of a build without the feature `promises`.

use sha2::{Digest, Sha256};

use super::html::{promises, read};
use super::reply::reply_text;
use super::{
    MAX_CLEAN_HTML_BYTES, MAX_TEXT_BYTES, ParsedEmail, WarningCode, Warnings, parse, text,
};

/// Reads a raw message and panics, naming it `name`, where the record breaks a promise.
pub fn check(raw: &[u8], name: &str) -> ParsedEmail {
    let email = parse(raw);
    let value = email.meta_data().to_string();
    assert!(
        !value.contains("\\u0000") && !email.text.contains('\0'),
        "{name}: a nul is left"
    );
    assert!(email.text.len() <= MAX_TEXT_BYTES, "{name}: text too long");
    assert_eq!(
        email.text,
        text::finish(&email.text, &mut Warnings::default()),
        "{name}: text is not clean"
    );
    check_ranges(&email, name);
    assert_eq!(email.size_bytes, raw.len() as u64, "{name}");
    let mut digest = String::new();
    for byte in Sha256::digest(raw) {
        digest.push_str(&format!("{byte:02x}"));
    }
    assert_eq!(email.sha256, digest, "{name}");
    for warning in &email.warnings {
        assert!(
            warning.code != WarningCode::ParserFailed || !warning.detail.contains("html"),
            "{name}: the html parser gave up"
        );
    }
    if let Some(clean) = &email.html {
        check_clean(clean, name);
    }
    email
}

/// Nothing is lost: quotes, signatures and the reply are the text, and the reply can be rebuilt from the others.
fn check_ranges(email: &ParsedEmail, name: &str) {
    let mut ranges = [email.quotes.as_slice(), &email.signatures].concat();
    ranges.sort_unstable();
    let mut before = 0;
    let mut taken = 0;
    for &[start, end] in &ranges {
        assert!(before <= start && start < end, "{name}: {start}..{end}");
        for (at, edge) in [(start, start == 0), (end, end == email.text.len())] {
            let at_line = edge || email.text.as_bytes()[at - 1] == b'\n';
            assert!(at_line, "{name}: {at} is within a line");
        }
        taken += written(&email.text[start..end]);
        before = end;
    }
    assert_eq!(email.reply_text.is_none(), ranges.is_empty(), "{name}");
    if let Some(reply) = &email.reply_text {
        assert_eq!(
            *reply,
            reply_text(&email.text, &ranges),
            "{name}: another reply"
        );
        assert_eq!(
            written(reply) + taken,
            written(&email.text),
            "{name}: text is lost"
        );
    }
}

/// How many characters a text has besides blanks.
fn written(text: &str) -> usize {
    text.chars().filter(|ch| !ch.is_whitespace()).count()
}

/// Reads HTML and panics, naming it `name`, where a promise is broken; text and sanitised HTML.
pub fn check_html(source: &str, name: &str) -> (String, String) {
    let mut warnings = Warnings::default();
    let found = read(source, true, &mut warnings);
    for warning in &warnings.list {
        assert_ne!(warning.code, WarningCode::ParserFailed, "{name}");
    }
    check_clean(&found.clean, name);
    (found.text, found.clean)
}

/// Reads HTML; text, if it is wanted, and sanitised HTML.
pub fn html(source: &str, want_text: bool) -> (String, String) {
    let found = read(source, want_text, &mut Warnings::default());
    (found.text, found.clean)
}

/// Builds the tree of HTML and nothing else; the number of its nodes.
pub fn tree(source: &str) -> usize {
    promises::tree(source)
}

fn check_clean(clean: &str, name: &str) {
    assert!(!clean.contains(['\0', '\r']), "{name}: nul or cr in html");
    // The last piece before the limit may pass it, and open elements are ended.
    assert!(
        clean.len() <= 2 * MAX_CLEAN_HTML_BYTES,
        "{name}: html too long"
    );
    promises::only_what_is_allowed(clean, name);
    for scripting in [false, true] {
        assert_eq!(
            promises::as_a_browser_puts_it_together(clean, scripting),
            clean,
            "{name}: a browser (scripts {scripting}) would put it together differently"
        );
    }
    let again = read(clean, false, &mut Warnings::default()).clean;
    assert_eq!(again, clean, "{name}: sanitising again changes something");
}
