//! Judges sanitised HTML without the code that made it: by html5ever's own tokeniser, a list of its own and the
//! tree that a browser would build, with scripts and without.

use std::cell::RefCell;

use html5ever::buffer_queue::BufferQueue;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{
    Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts};

use super::bounds::Bounds;
use super::tokens;
use super::tree::Tree;
use super::walk::walk;

const ELEMENTS: &str = " a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup \
    dd del dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol \
    p pre q s samp section small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var wbr ";
const VOID: &str = " br col hr img wbr ";
const ATTRIBUTES: &str =
    " href rel title src alt width height colspan rowspan align valign start type span dir lang ";

/// Collects what is not allowed.
#[derive(Default)]
struct Judge {
    open: RefCell<Vec<String>>,
    faults: RefCell<Vec<String>>,
}

impl Judge {
    fn fault(&self, what: String) {
        self.faults.borrow_mut().push(what);
    }

    fn tag(&self, tag: &Tag) {
        let name = tag.name.to_string();
        let is_in = |list: &str, word: &str| list.contains(&format!(" {word} "));
        if tag.kind == TagKind::EndTag {
            let open = self.open.borrow_mut().pop();
            if open.as_ref() != Some(&name) {
                self.fault(format!("</{name}> ends {open:?}"));
            }
            return;
        }
        if !is_in(ELEMENTS, &name) {
            self.fault(format!("<{name}>"));
        }
        for attribute in &tag.attrs {
            let attribute_name = attribute.name.local.to_string();
            let value = attribute.value.to_ascii_lowercase();
            let good = match attribute_name.as_str() {
                "href" => {
                    name == "a"
                        && (value.starts_with("http://")
                            || value.starts_with("https://")
                            || value.starts_with("mailto:"))
                }
                "src" => name == "img" && value.starts_with("cid:"),
                other => is_in(ATTRIBUTES, other),
            };
            if !good {
                self.fault(format!("<{name} {attribute_name}={value:?}>"));
            }
        }
        if !is_in(VOID, &name) {
            self.open.borrow_mut().push(name);
        }
    }
}

impl TokenSink for &Judge {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        match &token {
            Token::TagToken(tag) => self.tag(tag),
            Token::CharacterTokens(_) | Token::EOFToken => {}
            _ => self.fault(format!("{token:?}")),
        }
        TokenSinkResult::Continue
    }
}

/// Panics where `clean` has a tag, an attribute or a scheme that is not allowed, or is not well-formed.
pub(crate) fn only_what_is_allowed(clean: &str, name: &str) {
    let judge = Judge::default();
    let tokenizer = Tokenizer::new(&judge, TokenizerOpts::default());
    let _ = tokenizer.feed(&queue(clean));
    tokenizer.end();
    let faults = judge.faults.borrow();
    assert!(faults.is_empty(), "{name}: {faults:?} in {clean}");
    let open = judge.open.borrow();
    assert!(open.is_empty(), "{name}: {open:?} never end in {clean}");
}

/// What html5ever's own tokeniser and tree builder make of `clean`, written again.
pub(crate) fn as_a_browser_puts_it_together(clean: &str, scripting: bool) -> String {
    let options = TreeBuilderOpts {
        scripting_enabled: scripting,
        ..TreeBuilderOpts::default()
    };
    let builder = TreeBuilder::new(Tree::new(), options);
    // A byte order mark is a character of the text.
    let tokenizer = Tokenizer::new(
        builder,
        TokenizerOpts {
            discard_bom: false,
            ..TokenizerOpts::default()
        },
    );
    let _ = tokenizer.feed(&queue(clean));
    tokenizer.end();
    let nodes = tokenizer.sink.sink.into_nodes();
    walk(&nodes, clean.len(), false, false).clean.html
}

/// Builds the tree of HTML and nothing else; the number of its nodes.
pub(crate) fn tree(source: &str) -> usize {
    let bounds = Bounds::new();
    tokens::feed(source, &bounds);
    bounds.finish().tree.into_nodes().len()
}

fn queue(text: &str) -> BufferQueue {
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from_slice(text));
    queue
}
