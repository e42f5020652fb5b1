//! Writes sanitised HTML: elements and attributes of an explicit allow list, nothing that loads, runs, submits,
//! positions or hides. What is written is well-formed, and it notes where a parser would put it together differently.

use html5ever::interface::Attribute;
use html5ever::{LocalName, local_name};

use super::elements::{Nest, Written};
use super::tree::value;
use crate::{MAX_CLEAN_HTML_BYTES, MAX_HTML_DEPTH};

/// Schemes of links. The slashes keep a browser from reading the rest as a path of the page it is shown on.
const LINK_SCHEMES: [&str; 3] = ["http://", "https://", "mailto:"];
/// Scheme of images: a part of the mail itself.
const IMAGE_SCHEME: &str = "cid:";
/// What a link of a mail may not do to the page it is shown on.
const LINK_RELATION: &str = " rel=\"noopener noreferrer nofollow\"";
/// Longest number of an attribute, in digits.
const MAX_DIGITS: usize = 4;
/// Longest word of an attribute, in bytes.
const MAX_WORD_BYTES: usize = 40;

/// What the value of an attribute has to be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Word,
    /// Digits, or digits and a percent sign.
    Number,
}

/// Attributes of single elements; links and images are written apart. No `style`, `class`, `id`, `name`,
/// `background` or event handler.
static ATTRIBUTES: [(&str, &[(LocalName, Kind)]); 6] = [
    ("td", &CELL),
    ("th", &CELL),
    (
        "ol",
        &[
            (local_name!("start"), Kind::Number),
            (local_name!("type"), Kind::Word),
        ],
    ),
    ("col", &[(local_name!("span"), Kind::Number)]),
    ("colgroup", &[(local_name!("span"), Kind::Number)]),
    ("abbr", &[(local_name!("title"), Kind::Text)]),
];
static CELL: [(LocalName, Kind); 4] = [
    (local_name!("colspan"), Kind::Number),
    (local_name!("rowspan"), Kind::Number),
    (local_name!("align"), Kind::Word),
    (local_name!("valign"), Kind::Word),
];
/// Attributes of every element.
static GENERIC: [(LocalName, Kind); 2] = [
    (local_name!("dir"), Kind::Word),
    (local_name!("lang"), Kind::Word),
];

#[derive(Debug, Clone, Copy)]
struct Open<'t> {
    name: &'t str,
    nest: Nest,
    /// A paragraph, a link, an item or a term is open here that such an element would end.
    paragraph: bool,
    anchor: bool,
    item: bool,
    term: bool,
}

/// HTML under construction.
#[derive(Debug)]
pub(super) struct Writer<'t> {
    out: String,
    open: Vec<Open<'t>>,
    /// `<pre>` was just written: a line feed would be taken for a part of the tag.
    after_pre: bool,
    /// A parser would put it together differently.
    loose: bool,
    /// Only what can stand anywhere is written: the last resort.
    flat: bool,
    /// Something was left out for length or depth.
    cut: bool,
}

/// What became of the HTML.
#[derive(Debug)]
pub(super) struct Clean {
    pub(super) html: String,
    /// A parser may put it together differently.
    pub(super) loose: bool,
    /// Something was left out for length or depth.
    pub(super) cut: bool,
}

impl<'t> Writer<'t> {
    /// Starts; a `flat` one writes only what can stand anywhere. There will be about `size` bytes.
    pub(super) fn new(flat: bool, size: usize) -> Self {
        Self {
            out: String::with_capacity(size),
            open: Vec::with_capacity(32),
            after_pre: false,
            loose: false,
            flat,
            cut: false,
        }
    }

    /// The HTML, with all elements ended.
    pub(super) fn finish(mut self) -> Clean {
        while !self.open.is_empty() {
            self.end();
        }
        Clean {
            html: self.out,
            loose: self.loose,
            cut: self.cut,
        }
    }

    /// Starts an element; whether it was written and is to be ended.
    pub(super) fn start(
        &mut self,
        name: &'t str,
        nest: Nest,
        written: Written,
        attributes: &[Attribute],
    ) -> bool {
        let name = match written {
            Written::Not => return false,
            Written::Same => name,
            Written::As(other) => other,
        };
        if self.flat && !matches!(nest, Nest::Inline | Nest::Void) {
            if !matches!(nest, Nest::Anchor | Nest::Column | Nest::Columns) && !self.out.is_empty()
            {
                self.raw("<br>");
            }
            return false;
        }
        let target = match nest {
            Nest::Anchor => match value(attributes, &local_name!("href")).and_then(link) {
                Some(target) => target,
                None => return false,
            },
            _ if name == "img" => {
                let source =
                    value(attributes, &local_name!("src")).filter(|source| is_part(source));
                let alt = value(attributes, &local_name!("alt"))
                    .is_some_and(|alt| !alt.trim().is_empty());
                if source.is_none() && !alt {
                    return false;
                }
                source.unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        let parent = self.open.last().copied();
        let in_parts = parent.is_some_and(|parent| parent.nest.holds_parts());
        if in_parts && matches!(written, Written::As(_)) {
            // An empty form between the rows of a table, mostly.
            return false;
        }
        if self.is_full() || self.open.len() == MAX_HTML_DEPTH {
            self.cut = true;
            return false;
        }
        self.check(nest, parent);
        self.raw("<");
        self.out.push_str(name);
        self.attributes(name, &target, attributes);
        self.out.push('>');
        if nest.is_void() {
            return false;
        }
        self.after_pre = name == "pre";
        let inherited = parent.filter(|_| !nest.is_scope());
        // An element that is none of these is passed by where a parser looks for an item to end.
        let passed = matches!(
            nest,
            Nest::Inline | Nest::Anchor | Nest::Division | Nest::Paragraph
        );
        self.open.push(Open {
            name,
            nest,
            paragraph: nest == Nest::Paragraph || inherited.is_some_and(|around| around.paragraph),
            anchor: nest == Nest::Anchor || inherited.is_some_and(|around| around.anchor),
            item: nest == Nest::Item || inherited.is_some_and(|around| passed && around.item),
            term: nest == Nest::Term || inherited.is_some_and(|around| passed && around.term),
        });
        true
    }

    /// Notes where a parser would not leave `nest` where it is.
    fn check(&mut self, nest: Nest, parent: Option<Open<'t>>) {
        let place = parent.map(|parent| parent.nest);
        let misplaced = match nest.place() {
            Some(wanted) => place != Some(wanted),
            None => place.is_some_and(Nest::holds_parts),
        };
        let ended = parent.is_some_and(|around| {
            (nest.ends_paragraph() && around.paragraph)
                || (nest == Nest::Anchor && around.anchor)
                || (nest == Nest::Item && around.item)
                || (nest == Nest::Term && around.term)
                || (nest == Nest::Heading && around.nest == Nest::Heading)
        });
        self.loose |= misplaced || ended;
    }

    /// Ends the innermost element.
    pub(super) fn end(&mut self) {
        if let Some(open) = self.open.pop() {
            self.raw("</");
            self.out.push_str(open.name);
            self.out.push('>');
        }
    }

    /// Text.
    pub(super) fn text(&mut self, text: &str) {
        let mut rest = text;
        if self.out.is_empty() {
            // A parser leaves out white space before the first thing of a document.
            rest = rest.trim_start_matches(is_space);
        }
        if rest.is_empty() {
            return;
        }
        if self.is_full() {
            self.cut = true;
            return;
        }
        if self
            .open
            .last()
            .is_some_and(|parent| parent.nest.holds_parts())
            && rest.contains(|ch| !is_space(ch))
        {
            self.loose = true;
        }
        if self.after_pre && rest.starts_with(['\n', '\r']) {
            self.out.push('\n');
        }
        self.after_pre = false;
        escape(rest, false, &mut self.out);
    }

    fn raw(&mut self, markup: &str) {
        self.after_pre = false;
        self.out.push_str(markup);
    }

    fn is_full(&self) -> bool {
        self.out.len() >= MAX_CLEAN_HTML_BYTES
    }

    fn attributes(&mut self, name: &str, target: &str, attributes: &[Attribute]) {
        match name {
            "a" => {
                self.attribute("href", target);
                static LINK: [(LocalName, Kind); 1] = [(local_name!("title"), Kind::Text)];
                self.listed(attributes, &LINK);
                self.out.push_str(LINK_RELATION);
            }
            "img" => {
                if !target.is_empty() {
                    self.attribute("src", target);
                }
                static IMAGE: [(LocalName, Kind); 4] = [
                    (local_name!("alt"), Kind::Text),
                    (local_name!("title"), Kind::Text),
                    (local_name!("width"), Kind::Number),
                    (local_name!("height"), Kind::Number),
                ];
                self.listed(attributes, &IMAGE);
            }
            _ => {
                if let Some((_, list)) = ATTRIBUTES.iter().find(|(element, _)| *element == name) {
                    self.listed(attributes, list);
                }
            }
        }
        self.listed(attributes, &GENERIC);
    }

    fn listed(&mut self, attributes: &[Attribute], list: &[(LocalName, Kind)]) {
        for (name, kind) in list {
            if let Some(found) = value(attributes, name)
                && kind.allows(found)
            {
                self.attribute(name, found);
            }
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        escape(value, true, &mut self.out);
        self.out.push('"');
    }
}

impl Kind {
    fn allows(self, value: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Word => {
                !value.is_empty()
                    && value.len() <= MAX_WORD_BYTES
                    && value
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            }
            Self::Number => {
                let digits = value.strip_suffix('%').unwrap_or(value);
                !digits.is_empty()
                    && digits.len() <= MAX_DIGITS
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
            }
        }
    }
}

/// The target of a link as a browser reads it, where its scheme is allowed.
pub(super) fn link(raw: &str) -> Option<String> {
    let mut target = raw.trim_matches(|ch: char| ch <= ' ').to_owned();
    // Browsers leave these out.
    target.retain(|ch| !matches!(ch, '\t' | '\n' | '\r'));
    let allowed = LINK_SCHEMES
        .iter()
        .any(|scheme| starts_with(&target, scheme));
    allowed.then_some(target)
}

fn is_part(source: &str) -> bool {
    starts_with(source, IMAGE_SCHEME)
}

fn starts_with(value: &str, scheme: &str) -> bool {
    value
        .as_bytes()
        .get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// White space of HTML.
fn is_space(ch: char) -> bool {
    matches!(ch, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// Text, or a value in double quotes; a parser would change CR and cannot take NUL.
fn escape(raw: &str, quoted: bool, out: &mut String) {
    let mut run = 0;
    for (at, byte) in raw.bytes().enumerate() {
        let reference = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' if quoted => "&quot;",
            b'\r' => "\n",
            b'\0' => "",
            _ => continue,
        };
        out.push_str(&raw[run..at]);
        out.push_str(reference);
        run = at + 1;
    }
    out.push_str(&raw[run..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_leave_for_the_web_or_a_mailbox_are_kept() {
        for (raw, kept) in [
            (
                "https://example.com/a?b=1&c",
                Some("https://example.com/a?b=1&c"),
            ),
            (" HTTP://example.com\n", Some("HTTP://example.com")),
            ("ht\ntps://example.com", Some("https://example.com")),
            ("mailto:ann@example.com", Some("mailto:ann@example.com")),
            ("https:example.com", None),
            ("https:/example.com", None),
            ("//example.com", None),
            ("/path", None),
            ("#top", None),
            ("javascript:alert(1)", None),
            ("java\nscript:alert(1)", None),
            ("\u{1}javascript:alert(1)", None),
            ("data:text/html,x", None),
            ("vbscript:x", None),
            ("ftp://example.com", None),
            ("", None),
        ] {
            assert_eq!(link(raw).as_deref(), kept, "{raw}");
        }
    }

    #[test]
    fn values_of_a_kind_are_held_to_it() {
        assert!(Kind::Number.allows("100%") && Kind::Number.allows("2"));
        assert!(
            !Kind::Number.allows("")
                && !Kind::Number.allows("1e9")
                && !Kind::Number.allows("99999")
        );
        assert!(Kind::Word.allows("en-GB") && !Kind::Word.allows("x y"));
    }
}
