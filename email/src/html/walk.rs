//! One walk over the tree: what each element looks like, readable text, sanitised HTML and hidden text together.

use html5ever::interface::Attribute;
use html5ever::{local_name, ns};

use super::elements::{Element, Role, element};
use super::layout::Layout;
use super::look::{Look, own_style, presentation};
use super::sheet::{Named, Sheet};
use super::style::Style;
use super::tree::{DOCUMENT, NONE, Node, value};
use super::write::{Clean, Writer, link};
use crate::HiddenKind;

/// Highest first number of a list that is believed.
const MAX_LIST_START: u32 = 1_000_000;
/// Most rows of a table that are looked at to tell what it is for.
const MAX_ROWS_SEEN: usize = 100;

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walked {
    /// Readable text without hidden text; empty unless asked for.
    pub(super) text: String,
    pub(super) clean: Clean,
    /// Bytes of hidden text of each kind.
    pub(super) hidden: Vec<(HiddenKind, usize)>,
    /// Whether style sheets were read in part only.
    pub(super) style_cut: bool,
}

/// An element that is open.
#[derive(Debug, Clone, Copy)]
struct Frame<'t> {
    element: Element,
    named: Named<'t>,
    look: Look,
    /// Whether it was written and is to be ended.
    written: bool,
    /// Cells of this table stand below each other.
    stacked: bool,
}

struct Walk<'t> {
    nodes: &'t [Node],
    /// Whether a table lies within each node.
    holds_table: Vec<bool>,
    frames: Vec<Frame<'t>>,
    sheet: Sheet,
    layout: Option<Layout>,
    writer: Writer<'t>,
    hidden: Vec<(HiddenKind, usize)>,
}

/// Walks the tree `nodes` of a source of `size` bytes; `want_text` says whether to lay its text out, `flat` to write only what can stand anywhere.
pub(super) fn walk(nodes: &[Node], size: usize, want_text: bool, flat: bool) -> Walked {
    let mut sheet = Sheet::default();
    let mut holds_table = vec![false; nodes.len()];
    for node in nodes {
        if node.name.ns != ns!(html) {
            continue;
        }
        if node.name.local == local_name!("style") && node.first != NONE {
            sheet.read(&nodes[node.first as usize].text);
        }
        if node.name.local == local_name!("table") {
            let mut around = node.parent;
            while around != NONE && !holds_table[around as usize] {
                holds_table[around as usize] = true;
                around = nodes[around as usize].parent;
            }
        }
    }
    let mut walk = Walk {
        nodes,
        holds_table,
        frames: Vec::with_capacity(32),
        sheet,
        layout: want_text.then(Layout::default),
        writer: Writer::new(flat, size),
        hidden: Vec::new(),
    };
    walk.run();
    Walked {
        text: walk.layout.map(Layout::finish).unwrap_or_default(),
        clean: walk.writer.finish(),
        hidden: walk.hidden,
        style_cut: walk.sheet.cut,
    }
}

impl<'t> Walk<'t> {
    /// Goes through the tree in order, without recursion: it may be deep.
    fn run(&mut self) {
        let nodes = self.nodes;
        let mut at = nodes[DOCUMENT as usize].first;
        if at == NONE {
            return;
        }
        loop {
            let node = &nodes[at as usize];
            let enters = if node.is_text() {
                self.text(&node.text);
                false
            } else {
                self.enter(at, node)
            };
            if enters && node.first != NONE {
                at = node.first;
                continue;
            }
            if enters {
                self.leave();
            }
            let mut done = at;
            loop {
                let next = nodes[done as usize].next;
                if next != NONE {
                    at = next;
                    break;
                }
                done = nodes[done as usize].parent;
                if done == NONE || done == DOCUMENT {
                    return;
                }
                self.leave();
            }
        }
    }

    /// Begins an element; whether what it holds is to be looked at.
    fn enter(&mut self, index: u32, node: &'t Node) -> bool {
        let element = element(&node.name);
        if element.role == Role::Skipped {
            return false;
        }
        let attributes = &node.attributes;
        let named = Named {
            name: &node.name.local,
            id: value(attributes, &local_name!("id")),
            class: value(attributes, &local_name!("class")),
        };
        let mut style = Style::default();
        presentation(&node.name.local, attributes, &mut style);
        let frames = &self.frames;
        self.sheet.apply(
            named,
            || frames.iter().rev().map(|frame| frame.named),
            &mut style,
        );
        own_style(attributes, &mut style);
        let around = self.frames.last().map_or(Look::plain(), |frame| frame.look);
        let mut look = around.within(&style);
        look.preformatted |= element.role == Role::Preformatted;
        if element.role == Role::Unseen && look.gone.is_none() {
            look.gone = Some(HiddenKind::Other);
        }
        if element.role == Role::Image {
            self.image(node, &style, &look);
            return false;
        }
        let mut frame = Frame {
            element,
            named,
            look,
            written: false,
            stacked: self.frames.last().is_some_and(|frame| frame.stacked),
        };
        if element.role == Role::Table {
            frame.stacked = self.is_layout(index, attributes);
        }
        if look.gone.is_none() {
            self.begin(&frame, attributes);
            frame.written =
                self.writer
                    .start(&node.name.local, element.nest, element.written, attributes);
        }
        if element.nest.is_void() {
            return false;
        }
        self.frames.push(frame);
        true
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if frame.written {
            self.writer.end();
        }
        let Some(layout) = self.layout.as_mut().filter(|_| frame.look.gone.is_none()) else {
            return;
        };
        match frame.element.role {
            Role::Paragraph | Role::Preformatted | Role::Table => layout.break_line(2),
            Role::Line | Role::Rows | Role::Row | Role::Item => layout.break_line(1),
            Role::Cell if frame.stacked => layout.break_line(1),
            Role::List => layout.end_list(),
            Role::Quote => layout.quote(false),
            Role::Link => layout.end_link(),
            _ => {}
        }
    }

    /// What the start of an element means for the text.
    fn begin(&mut self, frame: &Frame<'_>, attributes: &[Attribute]) {
        let Some(layout) = &mut self.layout else {
            return;
        };
        let shown = frame.look.hides().is_none();
        match frame.element.role {
            Role::Paragraph | Role::Preformatted | Role::Table => layout.break_line(2),
            Role::Line | Role::Rows | Role::Row => layout.break_line(1),
            Role::Cell if frame.stacked => layout.break_line(1),
            Role::Cell => layout.next_cell(),
            Role::Break => layout.force_line(),
            Role::Rule if shown => layout.rule(),
            Role::Quote => layout.quote(true),
            Role::List => {
                let start = value(attributes, &local_name!("start"));
                let first = start
                    .and_then(|start| start.trim().parse().ok())
                    .unwrap_or(1);
                let ordered = frame.named.name == "ol";
                layout.begin_list((ordered && first < MAX_LIST_START).then_some(first));
            }
            Role::Item if shown => layout.item(),
            Role::Link => {
                let target = value(attributes, &local_name!("href")).and_then(link);
                layout.begin_link(target.unwrap_or_default());
            }
            _ => {}
        }
    }

    /// An image is its description; one that is not seen has none.
    fn image(&mut self, node: &'t Node, style: &Style, look: &Look) {
        let description = value(&node.attributes, &local_name!("alt"))
            .unwrap_or_default()
            .trim();
        if look.hides_image(style) {
            if description.contains(char::is_alphanumeric) {
                let kind = look.gone.unwrap_or(HiddenKind::PixelAlt);
                self.hide(kind, description.len());
            }
            return;
        }
        let element = element(&node.name);
        self.writer.start(
            &node.name.local,
            element.nest,
            element.written,
            &node.attributes,
        );
        if let Some(layout) = self.layout.as_mut().filter(|_| !description.is_empty()) {
            layout.words("[");
            layout.words(description);
            layout.join("]");
        }
    }

    fn text(&mut self, text: &str) {
        let look = self.frames.last().map_or(Look::plain(), |frame| frame.look);
        let blank = text.bytes().all(|byte| byte.is_ascii_whitespace());
        if let Some(kind) = look.gone.or_else(|| look.hides().filter(|_| !blank)) {
            // A preview text is often padded with blanks that are no secret.
            if text.contains(char::is_alphanumeric) {
                self.hide(kind, text.trim().len());
            }
            return;
        }
        self.writer.text(text);
        if let Some(layout) = &mut self.layout {
            if look.preformatted {
                layout.preformatted(text);
            } else {
                layout.words(text);
            }
        }
    }

    fn hide(&mut self, kind: HiddenKind, bytes: usize) {
        match self.hidden.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += bytes,
            None => self.hidden.push((kind, bytes)),
        }
    }

    /// Whether a table only places things on the page: it says so, holds tables, or has one cell a row.
    fn is_layout(&self, table: u32, attributes: &[Attribute]) -> bool {
        if let Some(role) = value(attributes, &local_name!("role"))
            && (role.eq_ignore_ascii_case("presentation") || role.eq_ignore_ascii_case("none"))
        {
            return true;
        }
        if self.holds_table[table as usize] {
            return true;
        }
        let mut seen = 0;
        let nodes = self.nodes;
        let mut group = nodes[table as usize].first;
        while group != NONE {
            let mut row = nodes[group as usize].first;
            while row != NONE {
                let mut cells = 0;
                let mut cell = nodes[row as usize].first;
                while cell != NONE {
                    cells += usize::from(element(&nodes[cell as usize].name).role == Role::Cell);
                    if cells > 1 {
                        return false;
                    }
                    cell = nodes[cell as usize].next;
                }
                seen += 1;
                if seen > MAX_ROWS_SEEN {
                    return true;
                }
                row = nodes[row as usize].next;
            }
            group = nodes[group as usize].next;
        }
        true
    }
}
