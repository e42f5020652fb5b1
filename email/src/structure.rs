//! Which parts of a message make its text, which are its HTML and which are attachments (RFC 2046, 2387, 3462). It
//! looks at types, names and dispositions, and at the texts only to tell whether they say something.

use mail_parser::{Message, MessagePart, MimeHeaders, PartType};

use super::{MAX_DEPTH, WarningCode, Warnings};

/// A plain text shorter than this, in bytes, may be a mere hint to look at the HTML.
const MAX_HINT_BYTES: usize = 600;
/// What such hints say.
const HINTS: [&str; 14] = [
    "does not support html",
    "support html or",
    "doesn't support html",
    "not support html",
    "not display html",
    "can't display html",
    "cannot display html",
    "unable to display html",
    "html-capable",
    "html version",
    "html-enabled",
    "view it in html",
    "message is in html",
    "kein html",
];
/// Kinds of text besides plain and HTML that are read where they stand in the open.
const READABLE: [&str; 7] = [
    "plain",
    "enriched",
    "richtext",
    "markdown",
    "x-markdown",
    "x-patch",
    "x-diff",
];

/// The parts of a message by what a reader does with them; numbers as in [`Message::parts`].
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// What is read from top to bottom: plain text, HTML where that says more, and the messages of a digest.
    pub(super) text: Vec<u32>,
    /// HTML of the body, whether its text is read or not.
    pub(super) html: Vec<u32>,
    /// Everything else, in the order of the message.
    pub(super) attachments: Vec<u32>,
}

/// What a part and all below it give to the text.
#[derive(Default)]
struct Found {
    text: Vec<u32>,
    html: Vec<u32>,
}

/// What the multipart around a part makes of it.
#[derive(Clone, Copy, PartialEq)]
enum Parent {
    /// None, or one whose parts are read one after the other.
    Sequence,
    /// `multipart/alternative`: text that is not chosen is no attachment either.
    Alternative,
    Digest,
    /// A place where even text is a file: beside the root of a related, or within an appledouble.
    Files,
}

/// Sorts the parts of `message`.
pub(super) fn sort(message: &Message<'_>, warnings: &mut Warnings) -> Structure {
    let mut sorted = Structure::default();
    let found = walk(message, 0, Parent::Sequence, 0, &mut sorted, warnings);
    sorted.text = found.text;
    sorted.html = found.html;
    sorted
}

/// Lower-case type and subtype of a part, as the parser gives them; empty where the part names none.
pub(super) fn kind<'a>(part: &'a MessagePart<'_>) -> (&'a str, &'a str) {
    part.content_type().map_or(("", ""), |kind| {
        let subtype = kind.subtype().unwrap_or_default();
        // `text/plain>` and the like.
        (
            kind.ctype(),
            subtype.trim_end_matches(['>', ';', ',', '"', ' ']),
        )
    })
}

/// Whether a part is HTML; one whose transfer encoding is broken is a text to the parser.
pub(super) fn is_html(part: &MessagePart<'_>) -> bool {
    match part.body {
        PartType::Html(_) => true,
        PartType::Text(_) => kind(part) == ("text", "html"),
        _ => false,
    }
}

/// A parameter of Content-Type.
pub(super) fn parameter<'a>(part: &'a MessagePart<'_>, name: &str) -> Option<&'a str> {
    part.content_type().and_then(|kind| kind.attribute(name))
}

fn walk(
    message: &Message<'_>,
    id: u32,
    parent: Parent,
    depth: usize,
    sorted: &mut Structure,
    warnings: &mut Warnings,
) -> Found {
    let Some(part) = message.part(id) else {
        return Found::default();
    };
    let PartType::Multipart(children) = &part.body else {
        return leaf(message, id, part, parent, sorted);
    };
    if depth == MAX_DEPTH {
        warnings.add(
            WarningCode::LimitParts,
            format!("parts more than {MAX_DEPTH} deep were not read"),
        );
        return Found::default();
    }
    let subtype = kind(part).1;
    let root = match subtype {
        "related" => Some(related_root(message, part, children)),
        _ => None,
    };
    let mut branches = Vec::new();
    for &child in children {
        // A part stands behind the multipart that holds it.
        if child <= id {
            continue;
        }
        let within = match subtype {
            "alternative" => Parent::Alternative,
            "digest" => Parent::Digest,
            "appledouble" => Parent::Files,
            "related" if root != Some(child) => Parent::Files,
            _ if parent == Parent::Files => Parent::Files,
            _ => Parent::Sequence,
        };
        branches.push(walk(message, child, within, depth + 1, sorted, warnings));
    }
    if subtype == "alternative" {
        return choose(message, branches);
    }
    let mut joined = Found::default();
    for branch in branches {
        joined.text.extend(branch.text);
        joined.html.extend(branch.html);
    }
    joined
}

fn leaf(
    message: &Message<'_>,
    id: u32,
    part: &MessagePart<'_>,
    parent: Parent,
    sorted: &mut Structure,
) -> Found {
    let mut found = Found::default();
    if let PartType::Message(_) = part.body {
        if parent == Parent::Digest {
            found.text.push(id);
        }
        sorted.attachments.push(id);
        return found;
    }
    let (ctype, subtype) = kind(part);
    let html = is_html(part);
    let readable = html
        || match &part.body {
            PartType::Text(_) => {
                ctype.is_empty()
                    || ctype == "text" && (subtype.is_empty() || READABLE.contains(&subtype))
            }
            _ => false,
        };
    // A message that is nothing but one text is that text, whatever it calls it.
    let alone = id == 0;
    let open = parent != Parent::Files && part.attachment_name().is_none() && !is_attached(part);
    if readable && (alone || open) {
        found.text.push(id);
        if html {
            found.html.push(id);
        }
        return found;
    }
    let other_version = parent == Parent::Alternative && ctype == "text" && open;
    let calendar = ctype == "text" && subtype == "calendar";
    if !other_version || calendar || message.parts.len() == 1 {
        sorted.attachments.push(id);
    }
    found
}

fn is_attached(part: &MessagePart<'_>) -> bool {
    part.content_disposition()
        .is_some_and(|disposition| disposition.is_attachment())
}

/// The part that a `multipart/related` shows: the one its `start` names, else its first (RFC 2387).
fn related_root(message: &Message<'_>, part: &MessagePart<'_>, children: &[u32]) -> u32 {
    if let Some(start) = parameter(part, "start") {
        let start = start.trim().trim_matches(['<', '>']);
        for &child in children {
            let id = message.part(child).and_then(|child| child.content_id());
            if id.is_some_and(|id| id.trim_matches(['<', '>']) == start) {
                return child;
            }
        }
    }
    children.first().copied().unwrap_or_default()
}

/// Of several versions of one text the last is the sender's best; plain text that says something is preferred.
fn choose(message: &Message<'_>, branches: Vec<Found>) -> Found {
    let mut plain = None;
    let mut other = None;
    let mut html = Vec::new();
    for branch in branches {
        if !branch.html.is_empty() {
            html.clone_from(&branch.html);
        }
        if branch.text.is_empty() {
            continue;
        }
        if branch.html.is_empty() {
            if plain.is_none() || says_something(message, &branch.text) {
                plain = Some(branch.text);
            }
        } else {
            other = Some(branch.text);
        }
    }
    let text = match (plain, other) {
        (Some(plain), Some(other)) => {
            if says_something(message, &plain) {
                plain
            } else {
                other
            }
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Vec::new(),
    };
    Found { text, html }
}

/// Whether plain text is worth reading where there is another version: it has a letter and is no mere hint.
fn says_something(message: &Message<'_>, parts: &[u32]) -> bool {
    for &id in parts {
        let text = match message.part(id).map(|part| &part.body) {
            Some(PartType::Text(text)) => text,
            Some(PartType::Message(_)) => return true,
            _ => continue,
        };
        if text.len() < MAX_HINT_BYTES {
            let lower = text.to_lowercase();
            if HINTS.iter().any(|hint| lower.contains(hint)) {
                return false;
            }
        }
        if text.chars().any(char::is_alphanumeric) {
            return true;
        }
    }
    false
}
