//! What each element of HTML means: for the text, for the nesting of what is written, and as what it is written, if
//! at all. Tables only.

use html5ever::interface::QualName;
use html5ever::{LocalName, local_name, ns};

/// What an element means for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Inline,
    Link,
    Paragraph,
    Line,
    Break,
    Rule,
    List,
    Item,
    Table,
    /// A group of rows.
    Rows,
    Row,
    Cell,
    Quote,
    Preformatted,
    Image,
    /// A reader sees nothing of what it holds.
    Unseen,
    /// What it holds is seen by some and is no running text, or is code.
    Skipped,
}

/// Where an element may stand so that a parser leaves it there, and what it ends
/// (<https://html.spec.whatwg.org/#parsing-main-inbody>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nest {
    /// Anywhere in running text.
    Inline,
    /// Not within another one.
    Anchor,
    /// Without content.
    Void,
    /// Ends a paragraph.
    Block,
    /// Ends a paragraph; an item may stand in it that ends the item around it.
    Division,
    Paragraph,
    Heading,
    Item,
    /// Of a list of terms.
    Term,
    /// Without content, ends a paragraph.
    Rule,
    Table,
    Caption,
    Columns,
    Column,
    Rows,
    Row,
    Cell,
}

/// As what an element is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Under its name.
    Same,
    /// Under another name.
    As(&'static str),
    /// Not: only what it holds.
    Not,
}

/// An element, as this crate sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) role: Role,
    pub(super) nest: Nest,
    pub(super) written: Written,
}

/// What the element `name` is. The allow list of the sanitiser: what has no line here is not written.
pub(super) fn element(name: &QualName) -> Element {
    if name.ns != ns!(html) {
        return Element {
            role: Role::Skipped,
            nest: Nest::Inline,
            written: Written::Not,
        };
    }
    let (role, nest, written) = kept(&name.local).unwrap_or_else(|| dropped(&name.local));
    Element {
        role,
        nest,
        written,
    }
}

fn kept(name: &LocalName) -> Option<(Role, Nest, Written)> {
    let (role, nest) = match *name {
        local_name!("a") => (Role::Link, Nest::Anchor),
        local_name!("abbr")
        | local_name!("b")
        | local_name!("bdi")
        | local_name!("bdo")
        | local_name!("big")
        | local_name!("cite")
        | local_name!("code")
        | local_name!("del")
        | local_name!("dfn")
        | local_name!("em")
        | local_name!("font")
        | local_name!("i")
        | local_name!("ins")
        | local_name!("kbd")
        | local_name!("mark")
        | local_name!("q")
        | local_name!("s")
        | local_name!("samp")
        | local_name!("small")
        | local_name!("span")
        | local_name!("strike")
        | local_name!("strong")
        | local_name!("sub")
        | local_name!("sup")
        | local_name!("tt")
        | local_name!("u")
        | local_name!("var") => (Role::Inline, Nest::Inline),
        local_name!("br") => (Role::Break, Nest::Void),
        local_name!("wbr") => (Role::Inline, Nest::Void),
        local_name!("img") => (Role::Image, Nest::Void),
        local_name!("hr") => (Role::Rule, Nest::Rule),
        local_name!("p") => (Role::Paragraph, Nest::Paragraph),
        local_name!("h1")
        | local_name!("h2")
        | local_name!("h3")
        | local_name!("h4")
        | local_name!("h5")
        | local_name!("h6") => (Role::Paragraph, Nest::Heading),
        local_name!("div") | local_name!("address") => (Role::Line, Nest::Division),
        local_name!("article")
        | local_name!("aside")
        | local_name!("center")
        | local_name!("figcaption")
        | local_name!("figure")
        | local_name!("footer")
        | local_name!("header")
        | local_name!("main")
        | local_name!("nav")
        | local_name!("section") => (Role::Line, Nest::Block),
        local_name!("dl") => (Role::Paragraph, Nest::Block),
        local_name!("blockquote") => (Role::Quote, Nest::Block),
        local_name!("pre") => (Role::Preformatted, Nest::Block),
        local_name!("ul") | local_name!("ol") => (Role::List, Nest::Block),
        local_name!("li") => (Role::Item, Nest::Item),
        local_name!("dt") | local_name!("dd") => (Role::Line, Nest::Term),
        local_name!("table") => (Role::Table, Nest::Table),
        local_name!("caption") => (Role::Line, Nest::Caption),
        local_name!("colgroup") => (Role::Inline, Nest::Columns),
        local_name!("col") => (Role::Inline, Nest::Column),
        local_name!("tbody") | local_name!("thead") | local_name!("tfoot") => {
            (Role::Rows, Nest::Rows)
        }
        local_name!("tr") => (Role::Row, Nest::Row),
        local_name!("td") | local_name!("th") => (Role::Cell, Nest::Cell),
        _ => return None,
    };
    Some((role, nest, Written::Same))
}

fn dropped(name: &LocalName) -> (Role, Nest, Written) {
    match *name {
        local_name!("xmp") | local_name!("listing") | local_name!("plaintext") => {
            (Role::Preformatted, Nest::Block, Written::As("pre"))
        }
        local_name!("dir") | local_name!("menu") => (Role::List, Nest::Block, Written::As("ul")),
        local_name!("form")
        | local_name!("fieldset")
        | local_name!("details")
        | local_name!("summary")
        | local_name!("dialog")
        | local_name!("hgroup")
        | local_name!("legend") => (Role::Line, Nest::Division, Written::As("div")),
        local_name!("template")
        | local_name!("iframe")
        | local_name!("noembed")
        | local_name!("canvas")
        | local_name!("audio")
        | local_name!("video")
        | local_name!("datalist") => (Role::Unseen, Nest::Inline, Written::Not),
        local_name!("title")
        | local_name!("style")
        | local_name!("script")
        | local_name!("textarea")
        | local_name!("select") => (Role::Skipped, Nest::Inline, Written::Not),
        _ => (Role::Inline, Nest::Inline, Written::Not),
    }
}

impl Nest {
    /// Whether it has no content and no end tag.
    pub(super) fn is_void(self) -> bool {
        matches!(self, Self::Void | Self::Rule | Self::Column)
    }

    /// Whether its start ends an open paragraph.
    pub(super) fn ends_paragraph(self) -> bool {
        matches!(
            self,
            Self::Block
                | Self::Division
                | Self::Paragraph
                | Self::Heading
                | Self::Item
                | Self::Term
                | Self::Rule
        )
    }

    /// Whether paragraphs, links and items around it do not matter within it.
    pub(super) fn is_scope(self) -> bool {
        matches!(self, Self::Caption | Self::Cell)
    }

    /// Whether it holds parts of a table only.
    pub(super) fn holds_parts(self) -> bool {
        matches!(self, Self::Table | Self::Columns | Self::Rows | Self::Row)
    }

    /// What it has to stand in, if that matters.
    pub(super) fn place(self) -> Option<Self> {
        match self {
            Self::Caption | Self::Columns | Self::Rows => Some(Self::Table),
            Self::Column => Some(Self::Columns),
            Self::Row => Some(Self::Rows),
            Self::Cell => Some(Self::Row),
            _ => None,
        }
    }
}
