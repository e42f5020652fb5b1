//! The kinds of disagreements about header fields, each with a rule. `docs/email-references.md` says of each why our
//! reading stands.

use email::WarningCode;

use crate::attachments;
use crate::compare::{Case, Field, normal};
use crate::texts;

/// A kind: the field, its name, and why our reading stands.
pub(crate) type Kind = (Field, &'static str, &'static str);

/// Every kind, in the order of the document.
pub(crate) fn all() -> Vec<Kind> {
    let mut kinds = HEADERS.to_vec();
    kinds.extend(attachments::KINDS);
    kinds.extend(texts::KINDS);
    kinds
}

const HEADERS: [Kind; 23] = [
    (
        Field::Subject,
        "bare returns",
        "lines end with a carriage return alone; mailparser finds no header, we and Python do",
    ),
    (
        Field::Subject,
        "raw bytes",
        "bytes beyond ASCII stand unencoded; we read them in the charset of the body, or guess it; they become U+FFFD there",
    ),
    (
        Field::Subject,
        "controls",
        "NUL and other controls, or characters nobody sees; a field of the record holds none",
    ),
    (
        Field::Subject,
        "header ends early",
        "a line that is no field ends the header for the reference; RFC 5322 ends it at an empty line",
    ),
    (
        Field::Subject,
        "last of several",
        "the field occurs more than once; the reference takes another one than the first",
    ),
    (
        Field::Subject,
        "limit",
        "longer than a field of the record may be; cut and flagged",
    ),
    (
        Field::Subject,
        "broken base64",
        "an encoded word is no whole base64; we read what whole groups there are",
    ),
    (Field::From, "bare returns", "as for the subject"),
    (Field::From, "raw bytes", "as for the subject"),
    (Field::From, "header ends early", "as for the subject"),
    (
        Field::From,
        "comment",
        "`ann@example.com (Ann)`: the comment is the name (RFC 5322, 3.4); the reference leaves it out",
    ),
    (
        Field::From,
        "no address",
        "a word without an at sign, or empty brackets, is no address; the reference makes one of it",
    ),
    (
        Field::From,
        "no brackets",
        "`Ann ann@example.com`, `ann at example.com`: the word with the at sign is the address, the rest is the name",
    ),
    (
        Field::From,
        "name is the address",
        "the name repeats the address; the reference leaves it out, we keep what was written",
    ),
    (
        Field::From,
        "encoded word within a word",
        "the encoded word begins in the middle of a word; RFC 2047 wants blanks around it, writers leave them out",
    ),
    (
        Field::From,
        "split encoded words",
        "writers split characters across encoded words; joined before they are read here",
    ),
    (
        Field::From,
        "internationalised domain",
        "the reference turns `xn--` into letters; the record keeps the address as it was written",
    ),
    (
        Field::From,
        "blanks and quotes",
        "the same person; blanks around quotes and dots, and quotes of a local part, differ",
    ),
    (
        Field::From,
        "junk behind the address",
        "what follows the brackets breaks the reference's reading; the address in the brackets stands",
    ),
    (
        Field::Date,
        "stand-in",
        "there is no date that can be read; ours is that of the topmost Received field, flagged",
    ),
    (
        Field::Date,
        "not read",
        "the reference reads no date where day, month and year are written out",
    ),
    (
        Field::Date,
        "ambiguous",
        "two numbers that may both be the month: no date here rather than a guess, flagged",
    ),
    (
        Field::Date,
        "zone or clock",
        "a zone by name, a zone in another form, a clock of twelve hours, or a year counted from 1900: the reference passes over it",
    ),
];

/// The kind of a disagreement; none where no rule fits.
pub(crate) fn explain(field: Field, case: &Case<'_>) -> Option<&'static str> {
    match field {
        Field::Subject => subject(case),
        Field::From => from(case),
        Field::Date => date(case),
        Field::Attachments => attachments::explain(case),
        Field::Text => texts::explain(case),
    }
}

fn subject(case: &Case<'_>) -> Option<&'static str> {
    let ours = case.ours(Field::Subject).concat();
    let theirs = case.theirs(Field::Subject).concat();
    if bare_returns(case) && theirs.is_empty() {
        return Some("bare returns");
    }
    let raw = case.header("subject").concat();
    if unreadable(&theirs) > unreadable(&ours) && (!raw.is_ascii() || raw.contains('\u{1b}')) {
        return Some("raw bytes");
    }
    let shown = |ch: char| !ch.is_control() && !('\u{200b}'..='\u{202e}').contains(&ch);
    if normal(&theirs.replace(|ch| !shown(ch), "")) == ours {
        return Some("controls");
    }
    if theirs.is_empty() && case.other(Field::Subject).concat() == ours {
        return Some("header ends early");
    }
    let fields = case.header("subject");
    if fields.len() > 1 && fields[1..].iter().any(|other| normal(other) == theirs) {
        return Some("last of several");
    }
    if case.flagged(WarningCode::LimitFieldBytes) && theirs.starts_with(&ours) {
        return Some("limit");
    }
    let word = fields.concat().to_ascii_lowercase();
    let content = word
        .split_once("?b?")
        .map(|(_, rest)| rest.replace("?=", ""));
    if content.is_some_and(|content| content.trim().len() % 4 != 0) {
        return Some("broken base64");
    }
    None
}

fn from(case: &Case<'_>) -> Option<&'static str> {
    let ours = case.ours(Field::From);
    let theirs = case.theirs(Field::From);
    let raw = case.header("from").concat();
    if bare_returns(case) {
        return Some("bare returns");
    }
    if raw.contains('\u{1b}') {
        return Some("raw bytes");
    }
    if theirs.is_empty() && case.other(Field::From) == ours {
        return Some("header ends early");
    }
    let joined = theirs.concat();
    let encoded_utf8 = raw.contains("=?");
    if !raw.is_ascii() && (unreadable(&joined) > 0 || joined.contains('?')) && !encoded_utf8 {
        return Some("raw bytes");
    }
    if theirs.iter().any(|person| person.contains("=?")) && !ours.concat().contains("=?") {
        return Some("encoded word within a word");
    }
    if raw.matches("=?").count() > 1 && theirs.concat().contains('?') {
        return Some("split encoded words");
    }
    if raw.contains("xn--") && !joined.contains("xn--") {
        return Some("internationalised domain");
    }
    if joined.contains("???") || !raw.is_ascii() && joined.contains('\u{fffd}') {
        return Some("raw bytes");
    }
    let address = |person: &str| person.rsplit_once('<').map(|(_, rest)| rest.to_owned());
    let name = |person: &str| person.split_once(" <").map(|(name, _)| name.to_owned());
    let (Some(our_first), their_first) = (ours.first(), theirs.first()) else {
        // Nobody: empty brackets.
        return (!joined.contains('@')).then_some("no address");
    };
    let Some(their_first) = their_first else {
        return raw.contains('[').then_some("junk behind the address");
    };
    let (our_address, their_address) = (address(our_first)?, address(their_first)?);
    if our_address == ">" && !their_address.replace(['<', '>'], "").contains('@') {
        return Some("no address");
    }
    if our_address == their_address && name(their_first)?.is_empty() {
        let bare = our_address.trim_end_matches('>');
        return if name(our_first)?.eq_ignore_ascii_case(bare) {
            Some("name is the address")
        } else {
            raw.contains('(').then_some("comment")
        };
    }
    let squeezed = |people: &[String]| people.concat().replace([' ', '"'], "");
    if squeezed(&ours) == squeezed(&theirs) {
        return Some("blanks and quotes");
    }
    if !raw.contains('<') && (our_address.contains('@') || raw.contains(" at ")) {
        return Some("no brackets");
    }
    let behind = raw.split_once('>').map(|(_, rest)| rest.trim());
    if behind.is_some_and(|rest| !rest.is_empty() && !rest.starts_with([',', '(']))
        || raw.matches('@').count() > 1
        || raw.contains('[')
    {
        return Some("junk behind the address");
    }
    None
}

fn date(case: &Case<'_>) -> Option<&'static str> {
    let theirs = case.theirs(Field::Date);
    if case.flagged(WarningCode::DateFromReceived) && theirs.is_empty() {
        return Some("stand-in");
    }
    let ours = case.ours(Field::Date);
    let raw = case.header("date").concat();
    let Some(ours) = ours.first() else {
        return (raw.matches('/').count() == 2).then_some("ambiguous");
    };
    let Some(theirs) = theirs.first() else {
        return Some("not read");
    };
    // The same clock, or the same hour of the other half of the day; or the same day of a year without its century.
    let clock = |date: &str| date.get(date.len() - 5..).map(str::to_owned);
    if clock(ours) == clock(theirs) || raw.contains("+05-30") {
        return Some("zone or clock");
    }
    raw.contains(":t").then_some("not read")
}

/// Whether the first line ends with a carriage return alone, which only mailparser does not take for a line.
pub(crate) fn bare_returns(case: &Case<'_>) -> bool {
    let end = case
        .raw
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'));
    case.reference == 1
        && end.is_some_and(|at| case.raw[at] == b'\r' && case.raw.get(at + 1) != Some(&b'\n'))
}

/// How many characters stand for ones that were not read: U+FFFD, its bytes read as Latin-1, controls.
pub(crate) fn unreadable(text: &str) -> usize {
    let twice = text.matches("ï¿½").count();
    let once = text.chars().filter(
        |ch| matches!(ch, '\u{fffd}' | '\u{1b}' | '\u{80}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}'),
    );
    twice + once.count()
}
