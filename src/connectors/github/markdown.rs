//! What of a Markdown text its readers at GitHub do not see: HTML comments, outside of code.
//!
//! Code is what stands in a fence or in backticks on one line (<https://spec.commonmark.org/0.31.2/>,
//! 4.5 and 6.1).

const OPEN: &str = "<!--";
const CLOSE: &str = "-->";

/// Code between two lines of these.
struct Fence {
    mark: char,
    length: usize,
}

/// The text without its comments, and how many bytes these had.
pub(super) fn visible(text: &str) -> (String, usize) {
    if !text.contains(OPEN) {
        return (text.to_owned(), 0);
    }
    let mut out = String::with_capacity(text.len());
    let mut hidden = 0;
    let mut fence: Option<Fence> = None;
    let mut is_line_start = true;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |feed| feed + 1);
        let row = &rest[..end];
        let mark = fence_of(row).filter(|_| is_line_start);
        let is_code = fence.is_some() || mark.is_some();
        fence = match (fence, mark) {
            (None, Some((opened, _))) => Some(opened),
            (Some(open), Some((other, true)))
                if other.mark == open.mark && other.length >= open.length =>
            {
                None
            }
            (open, _) => open,
        };
        let Some(at) = comment_in(row).filter(|_| !is_code) else {
            out.push_str(row);
            rest = &rest[end..];
            is_line_start = true;
            continue;
        };
        let begins_line = is_line_start && row[..at].trim().is_empty();
        is_line_start = false;
        out.push_str(&row[..at]);
        let from = &rest[at..];
        let inside = &from[OPEN.len()..];
        let length = match inside.find(CLOSE) {
            Some(close) => OPEN.len() + close + CLOSE.len(),
            // Left open at the beginning of a line it hides everything after it; else it is text.
            None if begins_line => from.len(),
            None => {
                out.push_str(OPEN);
                rest = inside;
                continue;
            }
        };
        hidden += length;
        rest = &from[length..];
    }
    (out, hidden)
}

/// The fence that a line begins or ends, and whether it may end one.
fn fence_of(row: &str) -> Option<(Fence, bool)> {
    let line = row.trim_end();
    let code = line.trim_start_matches(' ');
    let mark = code
        .chars()
        .next()
        .filter(|mark| ['`', '~'].contains(mark))?;
    let after = code.trim_start_matches(mark);
    let length = code.len() - after.len();
    let is_span = mark == '`' && after.contains('`');
    if length < 3 || line.len() - code.len() > 3 || is_span {
        return None;
    }
    Some((Fence { mark, length }, after.is_empty()))
}

/// Where the first comment of a line begins that is not in backticks.
fn comment_in(row: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = at + row[at..].find(['`', '<'])?;
        let tail = &row[next..];
        if tail.starts_with(OPEN) {
            return Some(next);
        }
        let ticks = ticks(tail);
        at = match ticks {
            0 => next + 1,
            ticks => span_end(row, next + ticks, ticks).unwrap_or(next + ticks),
        };
    }
}

/// Where code ends that so many backticks have begun before `at`; none if nowhere on the line.
fn span_end(row: &str, mut at: usize, length: usize) -> Option<usize> {
    loop {
        at += row[at..].find('`')?;
        let ticks = ticks(&row[at..]);
        at += ticks;
        if ticks == length {
            return Some(at);
        }
    }
}

fn ticks(text: &str) -> usize {
    text.len() - text.trim_start_matches('`').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out() {
        let cases = [
            ("a<!--b-->c<!--d-->", "ac"),
            ("a <!-- b\nc --> d", "a  d"),
            ("<!-- ```\n--> a <!-- b -->", " a "),
            ("a\n  <!-- b\nc", "a\n  "),
            // What looks like a fence within a line is none.
            ("```a``` <!-- b -->", "```a``` "),
            ("<!-- a -->```\n<!-- b -->", "```\n"),
            ("    ```\n<!-- a -->", "    ```\n"),
            // A span of code ends with as many backticks as it began with.
            ("``a` <!-- b -->", "``a` "),
            ("`a` <!-- b --> `c`", "`a`  `c`"),
        ];
        for (text, expected) in cases {
            let (visible, hidden) = visible(text);
            assert_eq!(visible, expected, "{text:?}");
            assert_eq!(hidden, text.len() - expected.len(), "{text:?}");
        }
    }

    #[test]
    fn code_and_what_is_no_comment_stay() {
        let cases = [
            "a <!-- b\nc",
            "```\n<!-- a -->\n```",
            "~~~ html\n<!-- a -->\n```\n<!-- b -->\n~~~",
            "````\n```\n<!-- a -->\n```\n````",
            "   ```\n<!-- a -->",
            "use `<!-- a -->` here",
            "``a ` <!-- b -->`` c",
            "a < b -- c",
        ];
        for text in cases {
            assert_eq!(visible(text), (text.to_owned(), 0));
        }
    }
}
