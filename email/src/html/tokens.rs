//! Cuts HTML into tokens as browsers do (<https://html.spec.whatwg.org/#tokenization>). One pass, linear in the
//! input; it keeps only attributes that somebody reads, so that a tag cannot hold many. html5ever's own tokeniser
//! is not used: it compares each attribute of a tag with each, and takes most of the time of a parse.

use html5ever::interface::{Attribute, QualName};
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind};
use html5ever::{LocalName, local_name, ns};

use super::bounds::{Bounds, Next};
use super::references::resolve;

/// Longest name of an element, in bytes; the rest of a longer one is left out.
const MAX_NAME_BYTES: usize = 64;

/// Feeds `html`, which holds neither NUL nor CR, to `bounds`.
pub(super) fn feed(html: &str, bounds: &Bounds) {
    let mut tokens = Tokens {
        html,
        shared: StrTendril::from_slice(html),
        at: 0,
        bounds,
    };
    tokens.run();
    bounds.end_of_input();
}

struct Tokens<'a> {
    html: &'a str,
    /// The same bytes, counted by reference: a token that needs no change is a part of it.
    shared: StrTendril,
    at: usize,
    bounds: &'a Bounds,
}

impl Tokens<'_> {
    fn run(&mut self) {
        let length = self.html.len();
        while self.at < length {
            let start = self.at;
            let tag = self.next(start, '<');
            if tag > start {
                self.text(start, tag, true);
            }
            self.at = tag;
            if tag < length {
                self.markup(tag);
            }
        }
    }

    /// Where `what` begins at or after `from`, or the end.
    fn find(&self, from: usize, what: &str) -> usize {
        let found = self.html[from..].find(what);
        found.map_or(self.html.len(), |found| from + found)
    }

    /// Where the character `what` is at or after `from`, or the end.
    fn next(&self, from: usize, what: char) -> usize {
        let found = self.html[from..].find(what);
        found.map_or(self.html.len(), |found| from + found)
    }

    fn part(&self, start: usize, end: usize) -> StrTendril {
        // Input is far below 4 GB: the caller cuts it.
        self.shared.subtendril(start as u32, (end - start) as u32)
    }

    fn text(&self, start: usize, end: usize, references: bool) {
        if start < end {
            self.bounds.text(self.value(start, end, references, false));
        }
    }

    fn value(&self, start: usize, end: usize, references: bool, in_attribute: bool) -> StrTendril {
        let raw = &self.html[start..end];
        if !references || !raw.contains('&') {
            return self.part(start, end);
        }
        let mut resolved = String::with_capacity(raw.len());
        resolve(raw, in_attribute, &mut resolved);
        StrTendril::from(resolved)
    }

    /// Reads what begins with the `<` at `start`.
    fn markup(&mut self, start: usize) {
        let rest = &self.html.as_bytes()[start + 1..];
        match rest.first() {
            Some(b'!') => self.declaration(start),
            Some(b'?') => self.bogus(start + 1),
            Some(b'/') => match rest.get(1) {
                Some(letter) if letter.is_ascii_alphabetic() => {
                    let Some(tag) = self.tag(start + 2, TagKind::EndTag) else {
                        return;
                    };
                    self.bounds.end_tag(tag);
                }
                Some(b'>') => self.at = start + 3,
                Some(_) => self.bogus(start + 2),
                None => {
                    self.text(start, start + 2, false);
                    self.at = start + 2;
                }
            },
            Some(letter) if letter.is_ascii_alphabetic() => {
                let Some(tag) = self.tag(start + 1, TagKind::StartTag) else {
                    return;
                };
                let name = tag.name.clone();
                match self.bounds.start_tag(tag) {
                    Next::Markup => {}
                    Next::Raw(kind) => self.raw(&name, kind),
                    Next::Plain => {
                        self.text(self.at, self.html.len(), false);
                        self.at = self.html.len();
                    }
                }
            }
            _ => {
                self.text(start, start + 1, false);
                self.at = start + 1;
            }
        }
    }

    fn declaration(&mut self, start: usize) {
        let body = start + 4;
        let rest = &self.html[start..];
        if rest.starts_with("<!--") {
            let bytes = &self.html.as_bytes()[body..];
            if bytes.starts_with(b">") || bytes.starts_with(b"->") {
                self.at = self.next(body, '>') + 1;
                return;
            }
            let mut end = self.find(body, "-->");
            // Only before the ordinary end, so that many comments are read once.
            if let Some(bang) = self.html[body..end].find("--!>") {
                end = body + bang;
            }
            self.bounds.comment(&self.html[body..end]);
            self.at = (self.next(end, '>') + 1).min(self.html.len());
        } else if rest.starts_with("<![CDATA[") && self.bounds.is_foreign() {
            let from = start + "<![CDATA[".len();
            let end = self.find(from, "]]>");
            self.text(from, end, false);
            self.at = (end + 3).min(self.html.len());
        } else if rest.len() > 8 && rest.as_bytes()[2..9].eq_ignore_ascii_case(b"doctype") {
            self.at = (self.next(start, '>') + 1).min(self.html.len());
        } else {
            self.bogus(start + 2);
        }
    }

    /// A comment by mistake, from `body` to the next `>`.
    fn bogus(&mut self, body: usize) {
        let end = self.next(body, '>');
        self.bounds.comment(&self.html[body..end]);
        self.at = (end + 1).min(self.html.len());
    }

    /// Text up to the end tag of the element `name`.
    fn raw(&mut self, name: &LocalName, kind: RawKind) {
        let start = self.at;
        let end = match kind {
            RawKind::ScriptData => self.end_of_script(start),
            _ => self.end_of_raw(start, name),
        };
        if kind != RawKind::ScriptData {
            self.text(start, end, kind == RawKind::Rcdata);
        }
        // The end tag is read as any other.
        self.at = end;
    }

    /// Where the end tag of `name` begins, or the end.
    fn end_of_raw(&self, from: usize, name: &str) -> usize {
        let mut at = from;
        loop {
            at = self.find(at, "</");
            if at == self.html.len() || is_tag(&self.html.as_bytes()[at + 2..], name) {
                return at;
            }
            at += 2;
        }
    }

    /// Where the end tag of a script begins: within `<!--` one `<script>` hides one `</script>`.
    fn end_of_script(&self, from: usize) -> usize {
        let bytes = self.html.as_bytes();
        let mut at = from;
        let mut escaped = false;
        let mut doubly = false;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if rest.starts_with(b"<!--") {
                escaped = true;
                // Its dashes may be those of the end.
                at += 2;
            } else if escaped && rest.starts_with(b"-->") {
                (escaped, doubly) = (false, false);
                at += 3;
            } else if rest.starts_with(b"</") && is_tag(&rest[2..], "script") {
                if !doubly {
                    return at;
                }
                doubly = false;
                at += 2;
            } else if rest[0] == b'<' && is_tag(&rest[1..], "script") {
                doubly = escaped;
                at += 1;
            } else {
                let next = rest[1..]
                    .iter()
                    .position(|byte| matches!(byte, b'<' | b'-'));
                at = next.map_or(bytes.len(), |found| at + 1 + found);
            }
        }
        bytes.len()
    }

    /// A tag whose name begins at `start`; none where it does not end.
    fn tag(&mut self, start: usize, kind: TagKind) -> Option<Tag> {
        let bytes = self.html.as_bytes();
        let rest = &bytes[start..];
        let length = rest
            .iter()
            .position(|byte| is_space(*byte) || matches!(byte, b'/' | b'>'))
            .unwrap_or(rest.len());
        let kept = self
            .html
            .floor_char_boundary(start + length.min(MAX_NAME_BYTES));
        let mut tag = Tag {
            kind,
            name: element_name(&self.html[start..kept]),
            self_closing: false,
            attrs: Vec::new(),
            had_duplicate_attributes: false,
        };
        self.at = start + length;
        let complete = self.attributes(&mut tag);
        if !complete {
            self.at = self.html.len();
        }
        complete.then_some(tag)
    }

    /// Reads the attributes of `tag` and whether it ends.
    fn attributes(&mut self, tag: &mut Tag) -> bool {
        let bytes = self.html.as_bytes();
        loop {
            let mut slash = false;
            while let Some(byte) = bytes
                .get(self.at)
                .filter(|byte| is_space(**byte) || **byte == b'/')
            {
                slash = *byte == b'/';
                self.at += 1;
            }
            match bytes.get(self.at) {
                None => return false,
                Some(b'>') => {
                    tag.self_closing = slash;
                    self.at += 1;
                    return true;
                }
                Some(_) => {}
            }
            let start = self.at;
            // A name may begin with an equals sign.
            self.at += 1;
            while bytes
                .get(self.at)
                .is_some_and(|byte| !is_space(*byte) && !matches!(byte, b'/' | b'>' | b'='))
            {
                self.at += 1;
            }
            let name = start..self.at;
            let (from, to) = self.attribute_value();
            if tag.kind == TagKind::EndTag {
                continue;
            }
            let Some(local) = attribute_name(&bytes[name]) else {
                continue;
            };
            if tag.attrs.iter().all(|known| known.name.local != local) {
                tag.attrs.push(Attribute {
                    name: QualName::new(None, ns!(), local),
                    value: self.value(from, to, true, true),
                });
            }
        }
    }

    /// Where the value of an attribute begins and ends, whose name ends here.
    fn attribute_value(&mut self) -> (usize, usize) {
        let bytes = self.html.as_bytes();
        let blank = |at: usize| bytes.get(at).is_some_and(|byte| is_space(*byte));
        let mut equals = self.at;
        while blank(equals) {
            equals += 1;
        }
        if bytes.get(equals) != Some(&b'=') {
            return (self.at, self.at);
        }
        self.at = equals + 1;
        while blank(self.at) {
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(quote @ (b'"' | b'\'')) => {
                let start = self.at + 1;
                let end = self.next(start, char::from(*quote));
                self.at = (end + 1).min(bytes.len());
                (start, end)
            }
            _ => {
                let start = self.at;
                while bytes
                    .get(self.at)
                    .is_some_and(|byte| !is_space(*byte) && *byte != b'>')
                {
                    self.at += 1;
                }
                (start, self.at)
            }
        }
    }
}

/// White space between the parts of a tag.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c')
}

/// Whether `bytes` begin with `name` as the whole name of a tag.
fn is_tag(bytes: &[u8], name: &str) -> bool {
    bytes
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        && bytes
            .get(name.len())
            .is_some_and(|byte| is_space(*byte) || matches!(byte, b'/' | b'>'))
}

fn element_name(raw: &str) -> LocalName {
    if raw.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return LocalName::from(raw.to_ascii_lowercase());
    }
    LocalName::from(raw)
}

/// Attributes that the tree builder, the style reader or the writer looks at.
static ATTRIBUTES: [LocalName; 27] = [
    local_name!("style"),
    local_name!("href"),
    local_name!("class"),
    local_name!("width"),
    local_name!("src"),
    local_name!("alt"),
    local_name!("align"),
    local_name!("height"),
    local_name!("border"),
    local_name!("valign"),
    local_name!("bgcolor"),
    local_name!("id"),
    local_name!("title"),
    local_name!("color"),
    local_name!("face"),
    local_name!("size"),
    local_name!("colspan"),
    local_name!("rowspan"),
    local_name!("hidden"),
    local_name!("role"),
    local_name!("dir"),
    local_name!("lang"),
    local_name!("start"),
    local_name!("type"),
    local_name!("background"),
    local_name!("text"),
    local_name!("span"),
];

fn attribute_name(raw: &[u8]) -> Option<LocalName> {
    ATTRIBUTES
        .iter()
        .find(|name| name.as_bytes().eq_ignore_ascii_case(raw))
        .cloned()
}
