//! The tree of an HTML document in one vector, as html5ever's tree builder asks for it. Every step takes constant
//! time, apart from moving children, each of which then lies one level deeper.

use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell};

use html5ever::interface::{Attribute, ElementFlags, NodeOrText, QualName, QuirksMode, TreeSink};
use html5ever::tendril::StrTendril;
use html5ever::{LocalName, local_name, ns};

/// No node.
pub(super) const NONE: u32 = u32::MAX;
/// The document, root of the tree.
pub(super) const DOCUMENT: u32 = 0;
/// What an element weighs without its attributes, in bytes, where growth is bounded.
pub(super) const ELEMENT_WEIGHT: usize = 32;

/// An element, or a text where it has no name, and its neighbours, as indices.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u32,
    pub(super) first: u32,
    last: u32,
    previous: u32,
    pub(super) next: u32,
    pub(super) name: QualName,
    pub(super) attributes: Vec<Attribute>,
    pub(super) text: StrTendril,
}

impl Node {
    fn new(name: QualName, attributes: Vec<Attribute>, text: StrTendril) -> Self {
        Self {
            parent: NONE,
            first: NONE,
            last: NONE,
            previous: NONE,
            next: NONE,
            name,
            attributes,
            text,
        }
    }

    fn of_text(text: StrTendril) -> Self {
        let no_name = QualName::new(None, ns!(), local_name!(""));
        Self::new(no_name, Vec::new(), text)
    }

    /// Whether it is a text.
    pub(super) fn is_text(&self) -> bool {
        self.name.local.is_empty()
    }
}

/// The tree under construction.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: RefCell<Vec<Node>>,
    /// Weight of all elements that were made, in bytes.
    weight: Cell<usize>,
    /// Number of elements that were made.
    made: Cell<usize>,
}

impl Tree {
    /// An empty document.
    pub(super) fn new() -> Self {
        let tree = Self {
            nodes: RefCell::new(Vec::with_capacity(256)),
            weight: Cell::new(0),
            made: Cell::new(0),
        };
        let name = QualName::new(None, ns!(), local_name!("html"));
        tree.add(Node::new(name, Vec::new(), StrTendril::new()));
        tree
    }

    /// The finished nodes; the first is the document.
    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes.into_inner()
    }

    /// Weight of all elements that were made, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.weight.get()
    }

    /// Number of elements that were made.
    pub(super) fn made(&self) -> usize {
        self.made.get()
    }

    fn add(&self, node: Node) -> u32 {
        let mut nodes = self.nodes.borrow_mut();
        // Far fewer than 2³² nodes: each takes a byte of input, and what the builder adds is bounded.
        let index = nodes.len() as u32;
        nodes.push(node);
        index
    }

    /// Puts `child` below `parent`, before `next` or, without one, at the end.
    fn insert(&self, parent: u32, next: u32, child: NodeOrText<u32>) {
        let previous = match next {
            NONE => self.nodes.borrow()[parent as usize].last,
            _ => self.nodes.borrow()[next as usize].previous,
        };
        let index = match child {
            NodeOrText::AppendNode(index) => {
                self.detach(index);
                index
            }
            NodeOrText::AppendText(text) => {
                if previous != NONE {
                    let before = &mut self.nodes.borrow_mut()[previous as usize];
                    if before.is_text() {
                        before.text.push_tendril(&text);
                        return;
                    }
                }
                self.add(Node::of_text(text))
            }
        };
        let mut nodes = self.nodes.borrow_mut();
        // A node that stood just before was its own neighbour until it was taken out.
        let previous = match next {
            NONE => nodes[parent as usize].last,
            _ => nodes[next as usize].previous,
        };
        let node = &mut nodes[index as usize];
        (node.parent, node.previous, node.next) = (parent, previous, next);
        match previous {
            NONE => nodes[parent as usize].first = index,
            _ => nodes[previous as usize].next = index,
        }
        match next {
            NONE => nodes[parent as usize].last = index,
            _ => nodes[next as usize].previous = index,
        }
    }

    fn detach(&self, index: u32) {
        let mut nodes = self.nodes.borrow_mut();
        let node = &mut nodes[index as usize];
        let (parent, previous, next) = (node.parent, node.previous, node.next);
        if parent == NONE {
            return;
        }
        (node.parent, node.previous, node.next) = (NONE, NONE, NONE);
        match previous {
            NONE => nodes[parent as usize].first = next,
            _ => nodes[previous as usize].next = next,
        }
        match next {
            NONE => nodes[parent as usize].last = previous,
            _ => nodes[next as usize].previous = previous,
        }
    }
}

impl TreeSink for Tree {
    type Handle = u32;
    type Output = Self;
    type ElemName<'a> = Ref<'a, QualName>;

    fn finish(self) -> Self {
        self
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> u32 {
        DOCUMENT
    }

    fn elem_name<'a>(&'a self, target: &'a u32) -> Ref<'a, QualName> {
        Ref::map(self.nodes.borrow(), |nodes| &nodes[*target as usize].name)
    }

    fn create_element(&self, name: QualName, attributes: Vec<Attribute>, _: ElementFlags) -> u32 {
        self.weight.set(self.weight.get() + weight(&attributes));
        self.made.set(self.made.get() + 1);
        self.add(Node::new(name, attributes, StrTendril::new()))
    }

    /// Comments are not given to the builder.
    fn create_comment(&self, _: StrTendril) -> u32 {
        self.add(Node::of_text(StrTendril::new()))
    }

    /// HTML has none.
    fn create_pi(&self, _: StrTendril, _: StrTendril) -> u32 {
        self.add(Node::of_text(StrTendril::new()))
    }

    fn append(&self, parent: &u32, child: NodeOrText<u32>) {
        self.insert(*parent, NONE, child);
    }

    fn append_based_on_parent_node(&self, element: &u32, previous: &u32, child: NodeOrText<u32>) {
        let parent = self.nodes.borrow()[*element as usize].parent;
        match parent {
            NONE => self.insert(*previous, NONE, child),
            _ => self.insert(parent, *element, child),
        }
    }

    fn append_before_sibling(&self, sibling: &u32, child: NodeOrText<u32>) {
        let parent = self.nodes.borrow()[*sibling as usize].parent;
        self.insert(parent, *sibling, child);
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    fn get_template_contents(&self, target: &u32) -> u32 {
        *target
    }

    fn same_node(&self, one: &u32, other: &u32) -> bool {
        one == other
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn add_attrs_if_missing(&self, target: &u32, more: Vec<Attribute>) {
        let attributes = &mut self.nodes.borrow_mut()[*target as usize].attributes;
        for attribute in more {
            if attributes.iter().all(|known| known.name != attribute.name) {
                attributes.push(attribute);
            }
        }
    }

    fn remove_from_parent(&self, target: &u32) {
        self.detach(*target);
    }

    fn reparent_children(&self, node: &u32, new_parent: &u32) {
        loop {
            let child = self.nodes.borrow()[*node as usize].first;
            if child == NONE {
                return;
            }
            self.insert(*new_parent, NONE, NodeOrText::AppendNode(child));
        }
    }
}

/// What an element with these attributes weighs, in bytes.
pub(super) fn weight(attributes: &[Attribute]) -> usize {
    let mut bytes = ELEMENT_WEIGHT;
    for attribute in attributes {
        bytes += attribute.value.len();
    }
    bytes
}

/// The value of an attribute.
pub(super) fn value<'a>(attributes: &'a [Attribute], name: &LocalName) -> Option<&'a str> {
    let found = attributes.iter().find(|known| known.name.local == *name)?;
    Some(&found.value)
}
