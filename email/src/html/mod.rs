//! The HTML of a mail, read once: readable text, sanitised HTML and hidden text come out of one parse and one walk
//! over its tree. Nothing is fetched or run.
//!
//! Reading order: `tokens` (with `references`) cuts the source, `bounds` keeps back what would be costly, html5ever's
//! tree builder puts a `tree` together, `walk` goes through it with the `look` of each element (from `style` and
//! `sheet`) and hands it to `layout` (text) and `write` (HTML); `elements` says what each element means.

mod bounds;
mod elements;
mod layout;
mod look;
#[cfg(any(test, feature = "promises"))]
pub(super) mod promises;
mod references;
mod sheet;
mod style;
#[cfg(test)]
mod tests;
mod tokens;
mod tree;
mod walk;
mod write;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bounds::Bounds;
use walk::{Walked, walk};

use super::{HiddenKind, WarningCode, Warnings};

/// Times that HTML is put together again until it rests; then it is written flat.
const MAX_PASSES: usize = 3;

/// What was made of the HTML of a mail.
#[derive(Debug, Default)]
pub(super) struct Html {
    /// Readable text without hidden text; empty unless asked for.
    pub(super) text: String,
    /// Sanitised HTML: reading it again gives it again.
    pub(super) clean: String,
}

/// Reads `source`; `want_text` says whether to lay its text out.
pub(super) fn read(source: &str, want_text: bool, warnings: &mut Warnings) -> Html {
    let read = catch_unwind(AssertUnwindSafe(|| settle(&normalised(source), want_text)));
    let Ok(read) = read else {
        warnings.add(
            WarningCode::ParserFailed,
            "the html parser gave up; the html was not read",
        );
        return Html::default();
    };
    for (kind, bytes) in &read.first.hidden {
        warnings.hide(*kind, *bytes);
    }
    if read.cut {
        warnings.add(
            WarningCode::LimitHtmlDepth,
            "the html is nested, malformed or styled beyond what is kept and was simplified",
        );
    }
    if read.flat {
        warnings.add(
            WarningCode::HtmlUnstable,
            "the html changes each time it is put together and was kept without its blocks",
        );
    }
    Html {
        text: read.first.text,
        clean: read.first.clean.html,
    }
}

/// Line feeds as line ends, and no NUL.
fn normalised(source: &str) -> Cow<'_, str> {
    if !source.contains('\r') && !source.contains('\0') {
        return Cow::Borrowed(source);
    }
    let bytes = source.as_bytes();
    let mut lines = String::with_capacity(source.len());
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'\r' | b'\0') {
            continue;
        }
        lines.push_str(&source[run..at]);
        if *byte == b'\r' && bytes.get(at + 1) != Some(&b'\n') {
            lines.push('\n');
        }
        run = at + 1;
    }
    lines.push_str(&source[run..]);
    Cow::Owned(lines)
}

struct Settled {
    first: Walked,
    cut: bool,
    flat: bool,
}

/// One parse, and further ones of what came out only where a parser would put that together differently.
fn settle(html: &str, want_text: bool) -> Settled {
    let (mut first, mut cut) = pass(html, want_text, false);
    let mut flat = false;
    for round in 1..=MAX_PASSES {
        if !first.clean.loose {
            break;
        }
        flat = round == MAX_PASSES;
        let (again, again_cut) = pass(&first.clean.html, false, flat);
        cut |= again_cut;
        let rests = again.clean.html == first.clean.html;
        first.clean = again.clean;
        if rests {
            flat = false;
            break;
        }
    }
    Settled { first, cut, flat }
}

/// One parse and one walk; whether something was left out for its cost.
fn pass(html: &str, want_text: bool, flat: bool) -> (Walked, bool) {
    let bounds = Bounds::new();
    tokens::feed(html, &bounds);
    let built = bounds.finish();
    let mut walked = walk(&built.tree.into_nodes(), html.len(), want_text, flat);
    if built.comment_bytes > 0 {
        walked
            .hidden
            .push((HiddenKind::Comment, built.comment_bytes));
    }
    let cut = built.cut || walked.clean.cut || walked.style_cut;
    (walked, cut)
}
