//! One linear pass over the HTML of a mail: its readable text, what of it is hidden, and whether a tree builder can
//! be trusted with it. It builds no tree: open elements are a bounded stack, errors are forgiven.

use super::layout::Layout;
use super::style::visibility;
use super::tags::{
    Attributes, Role, attributes, decoded, escapes, parts_text, restructures, role, same,
};
use super::{MAX_HTML_ATTRIBUTES, MAX_HTML_DEPTH, MAX_HTML_ESCAPE_WORK, MAX_HTML_MISPLACED};

/// Highest first number of a list that is believed.
const MAX_LIST_START: u32 = 1_000_000;

/// What a pass over HTML found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Readable text without hidden text; empty unless asked for.
    pub(super) text: String,
    /// Byte ranges of text and images that a reader does not see, in order.
    pub(super) hidden: Vec<(usize, usize)>,
    /// Bytes of hidden text other than blanks and references to blanks.
    pub(super) hidden_bytes: usize,
    /// Why a tree builder would take more than linear time, if it would.
    pub(super) too_complex: Option<&'static str>,
    /// Whether it has elements whose removal lets others fall together differently.
    pub(super) restructures: bool,
}

#[derive(Debug)]
struct Open<'a> {
    name: &'a str,
    role: Role,
    gone: bool,
    concealed: bool,
    unreadable: bool,
    skipped: bool,
    preformatted: bool,
}

/// Reads `html`; `want_text` says whether to lay its text out.
pub(super) fn scan(html: &str, want_text: bool) -> Scan {
    let mut scanner = Scanner {
        html,
        at: 0,
        open: Vec::with_capacity(32),
        depth_over: 0,
        left_open: 0,
        misplaced: 0,
        run_bytes: 0,
        run_escapes: 0,
        escape_work: 0,
        want_text,
        layout: Layout::default(),
        found: Scan::default(),
    };
    scanner.run();
    scanner.end_run();
    scanner.found.text = scanner.layout.finish();
    scanner.found
}

struct Scanner<'a> {
    html: &'a str,
    at: usize,
    open: Vec<Open<'a>>,
    /// Elements open beyond the stack.
    depth_over: usize,
    /// Formatting elements that were closed by another element's end; a tree builder opens them again and again.
    left_open: usize,
    misplaced: usize,
    /// Bytes of text since an element surely parted it, and those of them a serialiser has to escape.
    run_bytes: usize,
    run_escapes: usize,
    escape_work: usize,
    want_text: bool,
    layout: Layout,
    found: Scan,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        let html = self.html;
        while self.at < html.len() {
            let start = self.at;
            let next = html[start..]
                .find('<')
                .map_or(html.len(), |found| start + found);
            if next > start {
                self.text(start, next);
            }
            self.at = next;
            if next < html.len() {
                self.markup();
            }
        }
    }

    /// Reads what begins with `<`.
    fn markup(&mut self) {
        let html = self.html;
        let start = self.at;
        let rest = &html.as_bytes()[start + 1..];
        match rest.first() {
            Some(b'!') if rest.starts_with(b"!--") => {
                let body = &html[start + 4..];
                // `<!-->` and `<!--->` are whole comments.
                let end = if body.starts_with('>') || body.starts_with("->") {
                    body.find('>').map(|found| found + 1)
                } else {
                    body.find("-->").map(|found| found + 3)
                };
                self.at = end.map_or(html.len(), |end| start + 4 + end);
            }
            Some(b'!' | b'?') => self.at = self.after_bracket(start),
            Some(b'/') => match rest.get(1) {
                Some(letter) if letter.is_ascii_alphabetic() => {
                    let (name, after) = self.name(start + 2);
                    self.at = attributes(self.html, after).1;
                    self.end_tag(name);
                }
                _ => self.at = self.after_bracket(start),
            },
            Some(letter) if letter.is_ascii_alphabetic() => {
                let (name, after) = self.name(start + 1);
                let (found, end) = attributes(self.html, after);
                self.at = end;
                if found.complete {
                    self.start_tag(start, name, &found);
                }
            }
            _ => {
                self.text(start, start + 1);
                self.at = start + 1;
            }
        }
    }

    fn after_bracket(&self, start: usize) -> usize {
        self.html[start..]
            .find('>')
            .map_or(self.html.len(), |found| start + found + 1)
    }

    /// The name of a tag that begins at `start`, and where it ends.
    fn name(&self, start: usize) -> (&'a str, usize) {
        let rest = &self.html[start..];
        let length = rest
            .bytes()
            .position(|byte| byte.is_ascii_whitespace() || byte == b'/' || byte == b'>')
            .unwrap_or(rest.len());
        (&rest[..length], start + length)
    }

    fn start_tag(&mut self, start: usize, name: &'a str, attributes: &Attributes<'a>) {
        let role = role(name);
        if attributes.count > MAX_HTML_ATTRIBUTES {
            self.found.too_complex = Some("an element with too many attributes");
        }
        self.found.restructures |= matches!(role, Role::Skipped) || restructures(name);
        if parts_text(role) && !restructures(name) {
            self.end_run();
        }
        self.escape_work += attributes.escape_work;
        self.close_implied(name, role);
        self.count_misplaced(role, name);
        if role == Role::Raw {
            self.skip_raw(name);
            return;
        }
        let element = self.element(name, role, attributes);
        let shown = !(element.gone || element.concealed || element.unreadable || element.skipped);
        if !shown && role == Role::Image && !element.skipped {
            // Its description is text that nobody sees.
            self.found.hidden.push((start, self.at));
        }
        if self.want_text && !(element.gone || element.skipped) {
            self.begin(role, name, attributes, shown);
        }
        if matches!(role, Role::Break | Role::Rule | Role::Image | Role::Void) {
            return;
        }
        if self.open.len() < MAX_HTML_DEPTH {
            self.open.push(element);
        } else {
            self.depth_over += 1;
            self.found.too_complex = Some("elements nested too deep");
        }
    }

    fn element(&self, name: &'a str, role: Role, attributes: &Attributes<'a>) -> Open<'a> {
        let mut element = match self.open.last() {
            Some(parent) => Open {
                name,
                role,
                ..*parent
            },
            None => Open {
                name,
                role,
                gone: false,
                concealed: false,
                unreadable: false,
                skipped: false,
                preformatted: false,
            },
        };
        element.skipped |= role == Role::Skipped;
        element.preformatted |= role == Role::Preformatted;
        element.gone |= attributes.hidden;
        if let Some(style) = attributes.style {
            let seen = visibility(&decoded(style));
            element.gone |= seen.gone;
            element.concealed = seen.concealed.unwrap_or(element.concealed);
            element.unreadable = seen.unreadable.unwrap_or(element.unreadable);
        }
        element
    }

    /// Ends elements whose end tag may be left out and that `name` cannot be within.
    fn close_implied(&mut self, name: &str, role: Role) {
        let block = matches!(
            role,
            Role::Paragraph
                | Role::Line
                | Role::List
                | Role::Item
                | Role::Quote
                | Role::Preformatted
                | Role::Rule
        );
        while let Some(top) = self.open.last() {
            let ends = match top.role {
                Role::Paragraph => block && top.name.eq_ignore_ascii_case("p"),
                Role::Item => role == Role::Item,
                Role::Cell => matches!(role, Role::Cell | Role::Row),
                Role::Row => role == Role::Row,
                Role::Line => same(top.name, name, "dt", "dd"),
                _ => false,
            };
            if !ends {
                return;
            }
            self.pop();
        }
    }

    /// html5ever's serialiser looks through the rest of a text once for each character it escapes.
    fn end_run(&mut self) {
        self.escape_work += self.run_bytes * self.run_escapes;
        self.run_bytes = 0;
        self.run_escapes = 0;
        if self.escape_work > MAX_HTML_ESCAPE_WORK {
            self.found.too_complex = Some("too many references in one text");
        }
    }

    fn count_misplaced(&mut self, role: Role, name: &str) {
        let in_table = self
            .open
            .last()
            .is_some_and(|top| matches!(top.role, Role::Table | Role::Row));
        if !in_table || matches!(role, Role::Row | Role::Cell | Role::Void | Role::Raw) {
            return;
        }
        if matches!(role, Role::Table) && !name.eq_ignore_ascii_case("table") {
            return;
        }
        self.misplace();
    }

    fn misplace(&mut self) {
        self.misplaced += 1;
        self.found.restructures = true;
        if self.misplaced > MAX_HTML_MISPLACED {
            self.found.too_complex = Some("too much between the cells of its tables");
        }
    }

    fn end_tag(&mut self, name: &str) {
        if self.depth_over > 0 {
            self.depth_over -= 1;
            return;
        }
        let role = role(name);
        if name.eq_ignore_ascii_case("br") {
            self.layout.force_line();
            return;
        }
        let matching = self
            .open
            .iter()
            .rposition(|open| open.name.eq_ignore_ascii_case(name));
        let Some(position) = matching else {
            if matches!(role, Role::Formatting | Role::Link) {
                self.left_open = self.left_open.saturating_sub(1);
            }
            if name.eq_ignore_ascii_case("p") {
                self.layout.break_line(2);
            }
            return;
        };
        // The end of an inline element does not end the cell or table around it.
        let crossed = self.open[position..]
            .iter()
            .any(|open| matches!(open.role, Role::Cell | Role::Table));
        if crossed && !matches!(role, Role::Cell | Role::Row | Role::Table) {
            return;
        }
        while self.open.len() > position {
            let implied = self.open.len() > position + 1;
            if let Some(role) = self.pop()
                && implied
            {
                self.found.restructures = true;
                if matches!(role, Role::Formatting | Role::Link) {
                    self.left_open += 1;
                    if self.left_open > MAX_HTML_DEPTH {
                        self.found.too_complex = Some("too many formatting elements left open");
                    }
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Role> {
        let element = self.open.pop()?;
        if self.want_text && !(element.gone || element.skipped) {
            match element.role {
                Role::Paragraph | Role::Preformatted => self.layout.break_line(2),
                Role::Line | Role::Row | Role::Item => self.layout.break_line(1),
                Role::Table => self.layout.break_line(2),
                Role::List => self.layout.end_list(),
                Role::Quote => self.layout.quote(false),
                Role::Link => self.layout.end_link(),
                _ => {}
            }
        }
        Some(element.role)
    }

    fn begin(&mut self, role: Role, name: &str, attributes: &Attributes<'_>, shown: bool) {
        match role {
            Role::Paragraph | Role::Preformatted => self.layout.break_line(2),
            Role::Line | Role::Row => self.layout.break_line(1),
            Role::Table => self
                .layout
                .break_line(if name.eq_ignore_ascii_case("table") {
                    2
                } else {
                    1
                }),
            Role::Break => self.layout.force_line(),
            Role::Rule if shown => self.layout.rule(),
            Role::Cell => self.layout.next_cell(),
            Role::Quote => self.layout.quote(true),
            Role::List => {
                let ordered = name.eq_ignore_ascii_case("ol");
                let first = attributes
                    .start
                    .and_then(|start| start.trim().parse().ok())
                    .unwrap_or(1);
                self.layout.begin_list(
                    ordered
                        .then_some(first)
                        .filter(|&first| first < MAX_LIST_START),
                );
            }
            Role::Item if shown => self.layout.item(),
            Role::Link => {
                let target = attributes.href.map(decoded).unwrap_or_default();
                let known = ["http:", "https:", "mailto:"].iter().any(|scheme| {
                    target
                        .get(..scheme.len())
                        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                });
                self.layout.begin_link(if known {
                    target.into_owned()
                } else {
                    String::new()
                });
            }
            Role::Image if shown => {
                let description = attributes.alt.map(decoded).unwrap_or_default();
                if !description.trim().is_empty() {
                    self.layout.words(&format!("[{}]", description.trim()));
                }
            }
            _ => {}
        }
    }

    /// Skips to the end tag of an element whose content is no markup.
    fn skip_raw(&mut self, name: &str) {
        let bytes = self.html.as_bytes();
        let mut at = self.at;
        while let Some(found) = self.html[at..].find("</") {
            let close = at + found + 2;
            let end = close + name.len();
            let matches = bytes
                .get(close..end)
                .is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes()));
            let complete = bytes
                .get(end)
                .is_none_or(|&byte| byte.is_ascii_whitespace() || byte == b'>' || byte == b'/');
            if matches && complete {
                self.at = self.after_bracket(end.min(self.html.len()));
                return;
            }
            at = close;
        }
        self.at = self.html.len();
    }

    fn text(&mut self, start: usize, end: usize) {
        let raw = &self.html[start..end];
        self.run_bytes += raw.len();
        self.run_escapes += escapes(raw);
        let blank = raw.bytes().all(|byte| byte.is_ascii_whitespace());
        let Some(top) = self.open.last() else {
            self.write(raw, false);
            return;
        };
        if top.skipped {
            return;
        }
        if !blank && (top.gone || top.concealed || top.unreadable) {
            self.found.hidden.push((start, end));
            // A preview text is often padded with blanks that are no secret.
            if decoded(raw).chars().any(char::is_alphanumeric) {
                self.found.hidden_bytes += raw.len();
            }
            return;
        }
        if !blank && matches!(top.role, Role::Table | Role::Row) {
            let preformatted = top.preformatted;
            self.misplace();
            self.write(raw, preformatted);
            return;
        }
        let preformatted = top.preformatted;
        self.write(raw, preformatted);
    }

    fn write(&mut self, raw: &str, preformatted: bool) {
        if !self.want_text {
            return;
        }
        let text = decoded(raw);
        if preformatted {
            self.layout.preformatted(&text);
        } else {
            self.layout.words(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(html: &str) -> String {
        scan(html, true).text
    }

    #[test]
    fn blocks_become_paragraphs_and_lines() {
        assert_eq!(
            text(
                "<html><head><title>T</title><style>p{}</style></head><body><h1>Hi</h1>\n<p>One\n two</p><p>three<br>four<div>five</div><div>six</div>"
            ),
            "Hi\n\nOne two\n\nthree\nfour\n\nfive\nsix"
        );
    }

    #[test]
    fn lists_are_marked_and_numbered() {
        assert_eq!(
            text("a<ul><li>one<li><p>two</p><ol start=3><li>x</li><li>y</li></ol></ul>b"),
            "a\n\n- one\n- two\n  3. x\n  4. y\n\nb"
        );
    }

    #[test]
    fn cells_of_a_row_share_a_line() {
        assert_eq!(
            text(
                "<table><tr><th>Item</th><th>Price</th></tr><tr><td>Tea <td>3 €<tr><td></td><td>sum</td></tr></table>"
            ),
            "Item | Price\nTea | 3 €\nsum"
        );
    }

    #[test]
    fn quotes_are_prefixed() {
        assert_eq!(
            text("yes<blockquote><p>a</p><p>b</p><blockquote>c</blockquote></blockquote>d"),
            "yes\n\n> a\n>\n> b\n>\n> > c\n\nd"
        );
    }

    #[test]
    fn link_targets_are_written_once() {
        assert_eq!(
            text("<a href='https://x.example/a?b=1&amp;c'>here</a>"),
            "here (https://x.example/a?b=1&c)"
        );
        assert_eq!(
            text("<a href='https://www.x.example/'>x.example</a>"),
            "x.example"
        );
        assert_eq!(
            text("<a href='mailto:a@x.example?subject=b'>a@x.example</a>"),
            "a@x.example"
        );
        assert_eq!(
            text("<a href='mailto:a@x.example'>Ann</a>"),
            "Ann (a@x.example)"
        );
        assert_eq!(
            text("<a href='#top'>up</a><a href='https://x.example/p'><img src=a></a>"),
            "up"
        );
        assert_eq!(
            text("<a href='https://x.example/p'>one</a> <a href='https://x.example/p'>two</a>"),
            "one (https://x.example/p) two"
        );
    }

    #[test]
    fn preformatted_text_keeps_its_lines() {
        assert_eq!(text("<pre>a  b\n  c</pre>d"), "a  b\n  c\n\nd");
    }

    #[test]
    fn comments_scripts_and_broken_markup_are_no_text() {
        assert_eq!(
            text(
                "a<!-- b --><!--><script>if (a</b) c</script><![if !mso]>d<![endif]><a title='>'>e</a> 1 < 2 <img alt='L' f<"
            ),
            "ade 1 < 2"
        );
    }

    #[test]
    fn hidden_text_is_left_out_and_found() {
        for hiding in [
            "<div style='display:none'>secret</div>",
            "<div hidden>secret</div>",
            "<span style=\"font-size:0px\">secret</span>",
            "<div style='visibility:hidden'><b>secret</b></div>",
            "<p style='DISPLAY: none'>secret",
            "<td style='font-size:1px;color:#fff'>secret</td>",
            "<div style='display&#58;none'>secret</div>",
        ] {
            let html = format!("{hiding}<p>shown</p>");
            let found = scan(&html, true);
            assert_eq!(found.text, "shown", "{hiding}");
            assert_eq!(found.hidden_bytes, 6, "{hiding}");
            let (start, end) = found.hidden[0];
            assert_eq!(&html[start..end], "secret");
        }
    }

    #[test]
    fn what_is_made_readable_again_inside_is_shown() {
        assert_eq!(
            text(
                "<table style='font-size:0'><tr><td style='font-size:14px'>a</td></tr></table><div style='visibility:hidden'>x<b style='visibility:visible'>b</b></div>"
            ),
            "a\n\nb"
        );
    }

    #[test]
    fn shapes_that_are_costly_for_a_tree_builder_are_named() {
        let deep = "<div>".repeat(MAX_HTML_DEPTH + 1);
        let wide = format!("<a {}>", "x ".repeat(MAX_HTML_ATTRIBUTES + 1));
        let left_open = "<p><font size=1></p>".repeat(MAX_HTML_DEPTH + 1);
        let misplaced = format!("<table>{}", "<i></i>".repeat(MAX_HTML_MISPLACED + 1));
        for html in [deep, wide, left_open, misplaced] {
            assert!(scan(&html, false).too_complex.is_some(), "{}", &html[..40]);
        }
        assert!(scan("<p><b>x</b></p>", false).too_complex.is_none());
    }
}
