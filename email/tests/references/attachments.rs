//! Kinds of disagreements about the names of attachments: each name that only one side has needs a reason.

use email::Attachment;

use crate::compare::{Case, Field};
use crate::kinds::{Kind, bare_returns, unreadable};

pub(crate) const KINDS: [Kind; 8] = [
    (Field::Attachments, "bare returns", "as for the subject"),
    (
        Field::Attachments,
        "subject of a message",
        "an attached message without a file name is named by its subject here; the reference gives it none, or does not list it",
    ),
    (
        Field::Attachments,
        "file within",
        "a file within a text (uuencode, yEnc) or within winmail.dat; the reference does not look there",
    ),
    (
        Field::Attachments,
        "path",
        "the name says where the file should go; the record keeps the last step",
    ),
    (
        Field::Attachments,
        "bytes or form of the name",
        "raw bytes, broken RFC 2231 or encoded words, blanks without quotes, characters nobody sees: read here, not or otherwise there",
    ),
    (
        Field::Attachments,
        "text part",
        "a text, report or calendar with a name: one side shows it as text, the other lists it",
    ),
    (
        Field::Attachments,
        "part not seen",
        "a header or boundary that is broken, or both halves of an AppleDouble file: the reference does not find the part",
    ),
    (
        Field::Attachments,
        "part of a part",
        "a signature or a part of an attached message: the reference counts it as the mail's own",
    ),
];

pub(crate) fn explain(case: &Case<'_>) -> Option<&'static str> {
    if bare_returns(case) {
        return Some("bare returns");
    }
    let mut missing = case.theirs(Field::Attachments);
    let mut extra = Vec::new();
    for name in case.ours(Field::Attachments) {
        match missing.iter().position(|known| *known == name) {
            Some(at) => {
                missing.remove(at);
            }
            None => extra.push(name),
        }
    }
    let mut kind = None;
    for name in extra {
        let reason = match missing
            .iter()
            .position(|other| alike(&name, other).is_some())
        {
            Some(at) => alike(&name, &missing.remove(at)),
            None => reason_for_ours(case, &name),
        };
        kind = kind.or(Some(reason?));
    }
    for name in missing {
        let reason = reason_for_theirs(case, &name);
        kind = kind.or(Some(reason?));
    }
    kind
}

/// Why two names are one.
fn alike(ours: &str, theirs: &str) -> Option<&'static str> {
    let step = theirs.rsplit(['/', '\\', ':']).next().unwrap_or_default();
    let evil = theirs.starts_with('/') || theirs.starts_with("..");
    if evil && theirs.ends_with(ours) {
        return Some("path");
    }
    if theirs.contains(['/', '\\'])
        && (step == ours || ours.ends_with(step) || theirs.contains("=?"))
    {
        return Some("path");
    }
    let ascii =
        |name: &str| -> String { name.chars().filter(char::is_ascii_alphanumeric).collect() };
    let (our_letters, their_letters) = (ascii(ours), ascii(theirs));
    let damaged = unreadable(theirs) > 0 || theirs.contains(['Ã', '%', '?', 'ç', '\u{202e}']);
    let one_letter = ours.chars().count() == theirs.chars().count();
    let same = our_letters == their_letters
        || !theirs.is_ascii() && our_letters.len() < their_letters.len() + 4;
    if damaged && same || ours.starts_with(theirs) || theirs.contains("=?") || one_letter {
        return Some("bytes or form of the name");
    }
    theirs
        .to_ascii_lowercase()
        .starts_with("utf-8'")
        .then_some("bytes or form of the name")
}

fn reason_for_ours(case: &Case<'_>, name: &str) -> Option<&'static str> {
    let named = |attachment: &&Attachment| {
        attachment
            .filename
            .as_deref()
            .is_some_and(|known| crate::compare::normal(known) == name)
    };
    let mut all = case.email.attachments.iter().filter(named);
    if all.clone().any(|attachment| attachment.within.is_some()) {
        return Some("file within");
    }
    let attachment = all.next()?;
    let kind = attachment.mime_type.as_str();
    if kind.starts_with("message/") {
        return Some("subject of a message");
    }
    if kind.starts_with("text/") || kind.starts_with("message/") || kind.starts_with("multipart/") {
        return Some("text part");
    }
    if kind.contains("signature") {
        return Some("part of a part");
    }
    let halves = kind == "application/applefile" || all.next().is_some();
    (halves || case.theirs(Field::Attachments).is_empty()).then_some("part not seen")
}

fn reason_for_theirs(case: &Case<'_>, name: &str) -> Option<&'static str> {
    if name.ends_with(".p7s") || name.ends_with(".asc") {
        return Some("part of a part");
    }
    let whole = case.header("content-type").concat().to_ascii_lowercase();
    if whole.starts_with("text/") {
        return Some("text part");
    }
    let raw = String::from_utf8_lossy(case.raw);
    let end = name.rsplit('/').next().unwrap_or(name);
    let at = raw.find(end)?;
    let before = raw[..at].to_ascii_lowercase();
    let near = before.len().saturating_sub(400);
    let near = (near..=before.len()).find(|at| before.is_char_boundary(*at))?;
    let window = &before[near..];
    if window.contains("text/") || window.contains("charset=") {
        return Some("text part");
    }
    let mut kinds = case
        .email
        .attachments
        .iter()
        .map(|part| part.mime_type.as_str());
    let nested = kinds.any(|kind| kind.starts_with("message/")) || window.contains("multipart/");
    nested.then_some("part of a part")
}
