//! Lays the text of HTML out as lines: paragraphs, lists, table rows, quotes, link targets. It knows no tags.

use crate::MAX_LINK_BYTES;

/// Deepest quotation and list that is told apart.
const MAX_DEPTH: usize = 12;

/// Text under construction.
#[derive(Debug, Default)]
pub(super) struct Layout {
    text: String,
    /// Line feeds before the next text: 1 begins a line, 2 a paragraph.
    feeds: usize,
    space: bool,
    cell: bool,
    /// Only the marker of a list item stands on the line: what follows stays there, paragraph or not.
    at_marker: bool,
    quotes: usize,
    /// Quotes around the text before.
    last_quotes: usize,
    lists: Vec<Option<u32>>,
    link: Option<Link>,
    last_target: String,
}

#[derive(Debug)]
struct Link {
    target: String,
    start: usize,
}

impl Layout {
    /// The finished text.
    pub(super) fn finish(mut self) -> String {
        self.end_link();
        self.text
    }

    /// Makes what follows begin a line (1) or a paragraph (2).
    pub(super) fn break_line(&mut self, feeds: usize) {
        if self.at_marker {
            return;
        }
        // Within a list paragraphs are lines.
        let most = if self.lists.is_empty() { 2 } else { 1 };
        self.feeds = self.feeds.max(feeds.min(most));
        self.space = false;
        self.cell = false;
    }

    /// A forced line break; several in a row make empty lines, at most one of which is kept.
    pub(super) fn force_line(&mut self) {
        if self.at_marker {
            return;
        }
        self.feeds = (self.feeds + 1).min(2);
        self.space = false;
        self.cell = false;
    }

    /// Sets what follows apart from the previous cell of the same row.
    pub(super) fn next_cell(&mut self) {
        self.cell = self.feeds == 0;
        self.space = true;
    }

    /// A line across.
    pub(super) fn rule(&mut self) {
        self.break_line(2);
        self.push("---");
        self.break_line(2);
    }

    /// Begins or ends a quotation.
    pub(super) fn quote(&mut self, opens: bool) {
        self.break_line(2);
        self.quotes = if opens {
            self.quotes + 1
        } else {
            self.quotes.saturating_sub(1)
        };
    }

    /// Begins a list; a numbered one starts at `first`.
    pub(super) fn begin_list(&mut self, first: Option<u32>) {
        self.break_line(if self.lists.is_empty() { 2 } else { 1 });
        self.lists.push(first);
    }

    /// Ends a list.
    pub(super) fn end_list(&mut self) {
        self.at_marker = false;
        self.lists.pop();
        self.break_line(if self.lists.is_empty() { 2 } else { 1 });
    }

    /// Begins an item of the innermost list.
    pub(super) fn item(&mut self) {
        self.at_marker = false;
        self.break_line(1);
        let mut marker = String::new();
        for _ in 1..self.lists.len().min(MAX_DEPTH) {
            marker.push_str("  ");
        }
        match self.lists.last_mut() {
            Some(Some(number)) => {
                marker.push_str(&format!("{number}. "));
                *number = number.saturating_add(1);
            }
            _ => marker.push_str("- "),
        }
        self.push(&marker);
        self.at_marker = true;
    }

    /// Begins a link; an open one ends.
    pub(super) fn begin_link(&mut self, target: String) {
        self.end_link();
        let start = self.text.len();
        self.link = Some(Link { target, start });
    }

    /// Ends a link: its target follows its label, unless the label, or the link before, already says it.
    pub(super) fn end_link(&mut self) {
        let Some(link) = self.link.take() else {
            return;
        };
        let label = self.text.get(link.start..).unwrap_or_default().trim();
        let target = link.target.trim();
        if label.is_empty() || target.len() > MAX_LINK_BYTES || target == self.last_target {
            return;
        }
        if target.contains(|ch: char| ch.is_control() || ch.is_whitespace()) {
            return;
        }
        let shown = bare(target);
        if shown.is_empty() || bare(label).eq_ignore_ascii_case(shown) || label.contains(shown) {
            return;
        }
        let mail = target.len() >= 7 && target.as_bytes()[..7].eq_ignore_ascii_case(b"mailto:");
        let written = if mail { shown } else { target };
        self.text.push_str(" (");
        self.text.push_str(written);
        self.text.push(')');
        self.last_target = target.to_owned();
    }

    /// Text in which runs of white space are one space.
    pub(super) fn words(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(is_blank).unwrap_or(rest.len());
            if end > 0 {
                self.push(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            self.space = true;
            rest = rest.trim_start_matches(is_blank);
        }
    }

    /// Text that stands directly after the text before.
    pub(super) fn join(&mut self, text: &str) {
        self.text.push_str(text);
        self.space = false;
    }

    /// Text whose white space counts.
    pub(super) fn preformatted(&mut self, text: &str) {
        let mut first = true;
        for line in text.split('\n') {
            if !first {
                self.flush();
                self.line_feed(self.quotes);
            }
            first = false;
            if !line.is_empty() {
                self.push(line);
            }
        }
    }

    fn push(&mut self, word: &str) {
        self.flush();
        self.text.push_str(word);
    }

    /// Writes the breaks that were asked for since the last text.
    fn flush(&mut self) {
        self.at_marker = false;
        let started = !self.text.is_empty();
        if self.feeds > 0 || !started {
            if started {
                for _ in 1..self.feeds {
                    // An empty line belongs to the quotes on both sides of it.
                    self.line_feed(self.quotes.min(self.last_quotes));
                }
                self.text.push('\n');
            }
            for _ in 0..self.quotes.min(MAX_DEPTH) {
                self.text.push_str("> ");
            }
        } else if self.cell && !self.text.ends_with("| ") {
            self.text.push_str(" | ");
        } else if self.space && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
        self.last_quotes = self.quotes;
        self.feeds = 0;
        self.space = false;
        self.cell = false;
    }

    fn line_feed(&mut self, quotes: usize) {
        self.text.push('\n');
        for level in 0..quotes.min(MAX_DEPTH) {
            self.text.push_str(if level == 0 { ">" } else { " >" });
        }
    }
}

/// White space of HTML, and the no-break space that mail uses as padding.
fn is_blank(ch: char) -> bool {
    matches!(ch, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\u{a0}')
}

/// A link without what people leave out when they write one.
fn bare(link: &str) -> &str {
    let mut rest = link.trim();
    for start in ["http://", "https://", "mailto:", "www."] {
        if rest.len() >= start.len()
            && rest.as_bytes()[..start.len()].eq_ignore_ascii_case(start.as_bytes())
        {
            rest = &rest[start.len()..];
        }
    }
    let mail_query = rest
        .find('?')
        .filter(|_| link.len() > 7 && link.as_bytes()[..7].eq_ignore_ascii_case(b"mailto:"));
    if let Some(query) = mail_query {
        rest = &rest[..query];
    }
    rest.trim_end_matches('/')
}
