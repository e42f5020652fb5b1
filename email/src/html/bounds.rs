//! Stands between tokens and tree builder: it keeps back what would make the builder take more than linear time, or
//! make a tree much larger than its source. Tags are kept back, never text: what lies too deep flows into its parent.

use std::cell::Cell;

use html5ever::interface::Tracer;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts};
use html5ever::{LocalName, local_name};

use super::tree::{ELEMENT_WEIGHT, Tree, weight};
use crate::{MAX_HTML_DEPTH, MAX_HTML_GROWTH};

/// Most elements that the builder may hold: those open, and formatting ones a second time. Each token makes it look
/// through all of them. What the writer puts out, with html, head and body around it, always fits.
const MAX_HELD: usize = 2 * MAX_HTML_DEPTH + 8;

/// How the text after a tag is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// As markup.
    Markup,
    /// As text up to the end tag.
    Raw(RawKind),
    /// As text up to the end.
    Plain,
}

/// The builder behind its bounds.
pub(super) struct Bounds {
    builder: TreeBuilder<u32, Tree>,
    /// Most that the builder can hold by now.
    held: Cell<usize>,
    /// Start tags kept back for depth whose end tags are still to come.
    kept_back: Cell<usize>,
    /// Weight of what was given to the builder, in bytes.
    given: Cell<usize>,
    /// Formatting elements are kept back, as too many were left open.
    plain: Cell<bool>,
    cut: Cell<bool>,
    /// Bytes of text in comments.
    comment_bytes: Cell<usize>,
}

/// What came out of the tokens.
pub(super) struct Built {
    pub(super) tree: Tree,
    /// Whether tags were kept back.
    pub(super) cut: bool,
    /// Bytes of text in comments.
    pub(super) comment_bytes: usize,
}

/// Counts what the builder holds.
struct Count(Cell<usize>);

impl Tracer for Count {
    type Handle = u32;

    fn trace_handle(&self, _: &u32) {
        self.0.set(self.0.get() + 1);
    }
}

impl Bounds {
    /// Before the first token.
    pub(super) fn new() -> Self {
        let options = TreeBuilderOpts {
            // Mail programs run no scripts: what stands in `noscript` is shown.
            scripting_enabled: false,
            ..TreeBuilderOpts::default()
        };
        Self {
            builder: TreeBuilder::new(Tree::new(), options),
            held: Cell::new(0),
            kept_back: Cell::new(0),
            given: Cell::new(0),
            plain: Cell::new(false),
            cut: Cell::new(false),
            comment_bytes: Cell::new(0),
        }
    }

    /// After the last token.
    pub(super) fn finish(self) -> Built {
        Built {
            cut: self.cut.get(),
            comment_bytes: self.comment_bytes.get(),
            tree: self.builder.sink,
        }
    }

    /// Whether the current element is one of SVG or MathML.
    pub(super) fn is_foreign(&self) -> bool {
        self.builder
            .adjusted_current_node_present_but_not_in_html_namespace()
    }

    /// A text.
    pub(super) fn text(&self, text: StrTendril) {
        self.give(Token::CharacterTokens(text));
    }

    /// A comment; the tree has no use for it. Conditional ones are layout for some mail programs.
    pub(super) fn comment(&self, raw: &str) {
        let text = raw.trim();
        let technical = ["[if", "[endif", "?xml", "xml"];
        if technical.iter().all(|start| !text.starts_with(start))
            && text.contains(char::is_alphanumeric)
        {
            self.comment_bytes
                .set(self.comment_bytes.get() + text.len());
        }
    }

    /// The end of the input.
    pub(super) fn end_of_input(&self) {
        self.give(Token::EOFToken);
        self.builder.end();
    }

    /// A start tag; how what follows is to be read.
    pub(super) fn start_tag(&self, mut tag: Tag) -> Next {
        if !rename(&mut tag) {
            return Next::Markup;
        }
        if is_formatting(&tag.name) && self.plain.get() {
            return Next::Markup;
        }
        if stays_open(&tag.name) && self.is_full() {
            self.kept_back.set(self.kept_back.get() + 1);
            self.cut.set(true);
            return Next::Markup;
        }
        self.given.set(self.given.get() + weight(&tag.attrs));
        self.give(Token::TagToken(tag))
    }

    /// An end tag.
    pub(super) fn end_tag(&self, mut tag: Tag) {
        if !rename(&mut tag) {
            return;
        }
        if self.kept_back.get() > 0 && stays_open(&tag.name) {
            self.kept_back.set(self.kept_back.get() - 1);
            return;
        }
        // Some make an element where there is none to end.
        self.given.set(self.given.get() + ELEMENT_WEIGHT);
        self.give(Token::TagToken(tag));
    }

    fn give(&self, token: Token) -> Next {
        let before = self.builder.sink.made();
        let next = self.process(token);
        let made = self.builder.sink.made() - before;
        // Each may be open, and remembered as formatting.
        self.held.set(self.held.get() + 2 * made);
        if made > 0 && self.has_grown() {
            self.plain.set(true);
            self.cut.set(true);
            self.end_formatting();
        }
        next
    }

    fn process(&self, token: Token) -> Next {
        match self.builder.process_token(token, 1) {
            TokenSinkResult::RawData(kind) => Next::Raw(kind),
            TokenSinkResult::Plaintext => Next::Plain,
            _ => Next::Markup,
        }
    }

    /// Whether the builder can take no more open elements.
    fn is_full(&self) -> bool {
        if self.held.get() >= MAX_HELD {
            self.held.set(self.count());
        }
        self.held.get() >= MAX_HELD
    }

    fn count(&self) -> usize {
        let count = Count(Cell::new(0));
        self.builder.trace_handles(&count);
        count.0.get()
    }

    /// Whether elements left open were opened again so often that the tree is far larger than its source.
    fn has_grown(&self) -> bool {
        self.builder.sink.weight() > 2 * self.given.get() + MAX_HTML_GROWTH
    }

    /// Ends the formatting elements that the builder remembers, so that it opens none of them again.
    fn end_formatting(&self) {
        for name in &FORMATTING {
            let mut held = self.count();
            for _ in 0..MAX_HELD {
                self.process(Token::TagToken(end_of(name)));
                let left = self.count();
                if left >= held {
                    break;
                }
                held = left;
            }
        }
    }
}

fn end_of(name: &LocalName) -> Tag {
    Tag {
        kind: TagKind::EndTag,
        name: name.clone(),
        self_closing: false,
        attrs: Vec::new(),
        had_duplicate_attributes: false,
    }
}

/// Elements that a builder opens again where they were left open
/// (<https://html.spec.whatwg.org/#the-list-of-active-formatting-elements>).
static FORMATTING: [LocalName; 14] = [
    local_name!("a"),
    local_name!("b"),
    local_name!("big"),
    local_name!("code"),
    local_name!("em"),
    local_name!("font"),
    local_name!("i"),
    local_name!("nobr"),
    local_name!("s"),
    local_name!("small"),
    local_name!("strike"),
    local_name!("strong"),
    local_name!("tt"),
    local_name!("u"),
];

fn is_formatting(name: &LocalName) -> bool {
    FORMATTING.contains(name)
}

/// Makes an unknown element of those that leave a mark in the builder for ever, or that would replace the text of a
/// mail by frames. Whether the tag is of any use.
fn rename(tag: &mut Tag) -> bool {
    match tag.name {
        local_name!("applet")
        | local_name!("marquee")
        | local_name!("object")
        | local_name!("noframes") => {
            tag.name = LocalName::from("x");
            true
        }
        local_name!("frameset") | local_name!("frame") => false,
        _ => true,
    }
}

/// Whether an element stays open until its end tag and holds markup.
fn stays_open(name: &LocalName) -> bool {
    !matches!(
        *name,
        local_name!("area")
            | local_name!("base")
            | local_name!("basefont")
            | local_name!("bgsound")
            | local_name!("body")
            | local_name!("br")
            | local_name!("col")
            | local_name!("embed")
            | local_name!("head")
            | local_name!("hr")
            | local_name!("html")
            | local_name!("iframe")
            | local_name!("image")
            | local_name!("img")
            | local_name!("input")
            | local_name!("keygen")
            | local_name!("link")
            | local_name!("meta")
            | local_name!("noembed")
            | local_name!("param")
            | local_name!("plaintext")
            | local_name!("script")
            | local_name!("source")
            | local_name!("style")
            | local_name!("textarea")
            | local_name!("title")
            | local_name!("track")
            | local_name!("wbr")
            | local_name!("xmp")
    )
}
