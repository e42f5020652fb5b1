//! Tells what a person wrote from what they quoted and from signatures. It works on finished text, line by line, and
//! only marks places: ranges of whole lines. Nothing is lost: what is in no range is the reply.
//!
//! Work a line is bounded: only a few lines around it are looked at, whatever the text.

use super::phrases::{
    BLOCK_NAMES, DEVICE_LINES, FOOTER_STARTS, FOOTERS, FROM_NAMES, OPENERS, ORIGINAL,
    ORIGINAL_ENDS, OWN_WORDS, PROMPTS, VERBS_WITHIN, WROTE, WROTE_TOO,
};
use super::{MAX_RANGES, WarningCode, Warnings};

/// Lines an attribution such as "On …, … wrote:" may be wrapped over.
const MAX_ATTRIBUTION_LINES: usize = 4;
/// Longest attribution, in bytes.
const MAX_ATTRIBUTION_BYTES: usize = 400;
/// Longest attribution that is only a name, in bytes.
const MAX_NAME_BYTES: usize = 60;
/// Lines of a header block that are looked at after its first.
const HEADER_BLOCK_LINES: usize = 12;
/// Longest signature without a delimiter of its own ("Sent from my …"), in bytes.
const MAX_DEVICE_LINE_BYTES: usize = 120;
/// Longest signature after a proper delimiter ("-- "), in lines.
const MAX_SIGNATURE_LINES: usize = 80;
/// Longest signature after a sloppy one, and longest footer below a rule, in lines.
const MAX_FOOTER_LINES: usize = 30;
/// Lines of a footer that may say what it is.
const FOOTER_WORD_LINES: usize = 8;
/// Longest footer below a rule, in bytes.
const MAX_FOOTER_BYTES: usize = 3_000;
/// How many underscores Mailman draws above its footer.
const MAILMAN_RULE: usize = 47;
/// Shortest rule, in characters.
const MIN_RULE: usize = 15;
/// Shortest line that a mail program is believed to have wrapped, in bytes.
const MIN_WRAPPED_BYTES: usize = 64;

/// What a text consists of besides the reply; ranges of bytes, whole lines, in order, none touching another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// What is quoted, introductions included.
    pub(super) quotes: Vec<[usize; 2]>,
    /// Signatures and footers, their delimiters included.
    pub(super) signatures: Vec<[usize; 2]>,
}

/// The text without `ranges`, which are in order: without blank lines around, with one at most between two lines, and
/// with one where a range was.
/// With the quotes and signatures of a record it rebuilds `reply_text` from `data_content`.
pub fn reply_text(text: &str, ranges: &[[usize; 2]]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    let mut at = 0;
    for &[start, end] in ranges.iter().chain(&[[text.len(), text.len()]]) {
        let between = text.get(at..start).unwrap_or_default();
        for line in between.split('\n') {
            if line.trim().is_empty() {
                blank = true;
                continue;
            }
            if !out.is_empty() {
                out.push_str(if blank { "\n\n" } else { "\n" });
            }
            out.push_str(line);
            blank = false;
        }
        at = end.max(at);
    }
    out.truncate(out.trim_end().len());
    out
}

/// What a line is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Reply,
    Quote,
    Signature,
}

/// The lines of a text, and where each begins.
struct Lines<'a> {
    text: Vec<&'a str>,
    start: Vec<usize>,
    /// Where the text ends.
    length: usize,
    /// The number of lines up to each that is quoted.
    next_quoted: Vec<usize>,
}

/// Finds quotes and signatures of `text` (LF line ends).
pub(super) fn split(text: &str, warnings: &mut Warnings) -> Cut {
    let mut lines = Lines {
        text: Vec::new(),
        start: Vec::new(),
        length: text.len(),
        next_quoted: Vec::new(),
    };
    let mut start = 0;
    for line in text.split('\n') {
        lines.text.push(line);
        lines.start.push(start);
        start += line.len() + 1;
    }
    lines.next_quoted = vec![lines.len(); lines.len()];
    let mut next = lines.len();
    for index in (0..lines.len()).rev() {
        if lines.quoted(index) {
            next = index;
        }
        lines.next_quoted[index] = next;
    }
    let kinds = classify(&lines);
    ranges(&lines, &kinds, warnings)
}

/// Names each line.
fn classify(lines: &Lines<'_>) -> Vec<Kind> {
    let mut kinds = vec![Kind::Reply; lines.len()];
    let mut index = 0;
    let mut in_signature = false;
    let mut mark = |from: usize, count: usize, kind: Kind| {
        for slot in kinds.iter_mut().skip(from).take(count) {
            *slot = kind;
        }
        from + count
    };
    while index < lines.len() {
        if lines.quoted(index) || lines.is_wrapped_rest(index) {
            in_signature = false;
            index = mark(index, 1, Kind::Quote);
            continue;
        }
        if let Some(length) = lines.original(index) {
            in_signature = false;
            let next = lines.next_text(index + length);
            if next.is_some_and(|next| lines.quoted(next)) {
                // The older message is marked line by line, and answers may stand between.
                index = mark(index, length, Kind::Quote);
                continue;
            }
            // Everything below is the older message, unless its end is marked.
            let end = (index + length..lines.len()).find(|&at| is_original_end(lines.text[at]));
            let last = end.map_or(lines.len(), |end| end + 1);
            index = mark(index, last - index, Kind::Quote);
            continue;
        }
        if let Some(length) = lines.attribution(index) {
            in_signature = false;
            let next = lines.next_text(index + length);
            if next.is_none_or(|next| !lines.quoted(next)) {
                mark(index, lines.len() - index, Kind::Quote);
                break;
            }
            index = mark(index, length, Kind::Quote);
            continue;
        }
        in_signature = in_signature || lines.begins_signature(index);
        let kind = if in_signature {
            Kind::Signature
        } else {
            Kind::Reply
        };
        index = mark(index, 1, kind);
    }
    kinds
}

/// Joins lines of a kind to ranges. Blank lines between two of a kind belong to the range; those before the reply
/// belong to none.
fn ranges(lines: &Lines<'_>, kinds: &[Kind], warnings: &mut Warnings) -> Cut {
    let mut cut = Cut::default();
    let mut open: Option<(Kind, usize, usize)> = None;
    for (index, &kind) in kinds.iter().enumerate() {
        if kind == Kind::Reply && lines.text[index].trim().is_empty() {
            continue;
        }
        let end = lines.start.get(index + 1).copied().unwrap_or(lines.length);
        match &mut open {
            Some((known, _, last)) if *known == kind => *last = end,
            _ => {
                close(&mut cut, open.take(), warnings);
                open = Some((kind, lines.start[index], end));
            }
        }
    }
    close(&mut cut, open, warnings);
    cut
}

fn close(cut: &mut Cut, open: Option<(Kind, usize, usize)>, warnings: &mut Warnings) {
    let Some((kind, start, end)) = open else {
        return;
    };
    let list = match kind {
        Kind::Reply => return,
        Kind::Quote => &mut cut.quotes,
        Kind::Signature => &mut cut.signatures,
    };
    if list.len() == MAX_RANGES {
        warnings.add(
            WarningCode::LimitRanges,
            format!("more than {MAX_RANGES} quotes or signatures; the rest counts as written"),
        );
        return;
    }
    list.push([start, end]);
}

impl Lines<'_> {
    fn len(&self) -> usize {
        self.text.len()
    }

    fn next_text(&self, from: usize) -> Option<usize> {
        (from..self.len().min(from + MAX_SIGNATURE_LINES))
            .find(|&index| !self.text[index].trim().is_empty())
    }

    /// Whether a line bears a quote mark, or the initials of who is quoted and one.
    fn quoted(&self, index: usize) -> bool {
        let line = self.text[index];
        if is_quoted(line) {
            return true;
        }
        let Some(mark) = rare_mark(line) else {
            return false;
        };
        // A single such line may be anything.
        let same = |other: Option<&&str>| {
            other.is_some_and(|other| is_quoted(other) || rare_mark(other) == Some(mark))
        };
        same(self.text.get(index + 1)) || index > 0 && same(self.text.get(index - 1))
    }

    /// Whether a line is the rest of a quoted line that a mail program wrapped without marking it.
    fn is_wrapped_rest(&self, index: usize) -> bool {
        let Some(before) = index
            .checked_sub(1)
            .and_then(|before| self.text.get(before))
        else {
            return false;
        };
        let line = self.text[index];
        let next = self.text.get(index + 1).is_some_and(|next| is_quoted(next));
        next && line.starts_with(char::is_lowercase)
            && line.len() < MIN_WRAPPED_BYTES / 2
            && is_quoted(before)
            && before.len() >= MIN_WRAPPED_BYTES
            && !before.trim_end().ends_with(['.', '?', '!', ':'])
    }

    /// How many lines from `index` on are an attribution.
    fn attribution(&self, index: usize) -> Option<usize> {
        let first = self.text[index].trim();
        if first.is_empty() || first.len() > MAX_ATTRIBUTION_BYTES {
            return None;
        }
        let mut joined = String::new();
        for length in 1..=MAX_ATTRIBUTION_LINES {
            let line = self.text.get(index + length - 1)?.trim();
            if line.is_empty() || is_quoted(line) {
                return None;
            }
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(line);
            if joined.len() > MAX_ATTRIBUTION_BYTES {
                return None;
            }
            if !line.ends_with([':', '：']) {
                continue;
            }
            let after = index + length;
            let next = self.next_text(after);
            let quoted_next = next.is_some_and(|next| self.quoted(next));
            let close = quoted_next && next == Some(after);
            let whole = Sentence::new(&joined);
            if length == 1 {
                let found = whole.is_attribution(quoted_next) || close && is_name(first);
                return found.then_some(1);
            }
            // Of a paragraph only what introduces the quote is taken: a sentence with a date that begins as such
            // sentences do, or one whose last line is no introduction by itself.
            let opens = whole.dated && (first.contains('@') || Sentence::new(first).opens());
            let by_itself = Sentence::new(line).is_attribution(quoted_next);
            let ended = first.ends_with(['.', '!', '?']) && by_itself;
            let introduces = opens && !ended || whole.dated && !by_itself;
            let found = whole.is_attribution(quoted_next) && introduces;
            return found.then_some(length);
        }
        None
    }

    /// How many lines from `index` on introduce a forwarded, answered or returned message that follows.
    fn original(&self, index: usize) -> Option<usize> {
        let line = self.text[index].trim();
        if line.len() >= 8 && line.len() < MAX_ATTRIBUTION_BYTES {
            let framed = line.starts_with("--") || line.starts_with("__");
            if framed || line.ends_with(':') && line.starts_with(['B', 'b', 'A', 'a']) {
                let words = line.trim_matches(['-', '_', ' ', ':', '.']).to_lowercase();
                let known = ORIGINAL
                    .iter()
                    .any(|phrase| words.starts_with(phrase) || framed && words.contains(phrase));
                if known && !is_original_end(line) {
                    return Some(1 + self.header_block(index + 1));
                }
            }
            if framed
                && is_rule(line)
                && let Some(next) = self.next_text(index + 1)
            {
                let block = self.header_block(next);
                if block > 0 {
                    return Some(next - index + block);
                }
            }
        }
        let block = self.header_block(index);
        (block > 0).then_some(block)
    }

    /// How many lines from `index` on are a block of From, Sent, To, Subject; 0 where there is none.
    fn header_block(&self, index: usize) -> usize {
        let Some(first) = self.text.get(index) else {
            return 0;
        };
        if !named(first, &FROM_NAMES) {
            return 0;
        }
        let mut names = 0;
        let mut length = 1;
        for line in self.text.iter().skip(index + 1).take(HEADER_BLOCK_LINES) {
            if line.trim().is_empty() && names > 0 {
                break;
            }
            names += usize::from(named(line, &BLOCK_NAMES));
            length += 1;
        }
        if names >= 2 { length } else { 0 }
    }

    /// How many lines lie between `index` and the next quote, or the end.
    fn until_quote(&self, index: usize) -> usize {
        self.next_quoted[index] - index
    }

    fn begins_signature(&self, index: usize) -> bool {
        let line = self.text[index];
        if line == "-- " || line == "\u{2014} " {
            return self.until_quote(index) <= MAX_SIGNATURE_LINES;
        }
        let trimmed = line.trim();
        if trimmed == "--" {
            return self.until_quote(index) <= MAX_FOOTER_LINES;
        }
        if trimmed.is_empty() {
            return false;
        }
        if is_rule(trimmed) {
            return self.until_quote(index) <= MAX_FOOTER_LINES && self.is_footer(index);
        }
        if trimmed.len() > MAX_DEVICE_LINE_BYTES {
            return false;
        }
        let lower = trimmed.to_lowercase();
        let starts = |known: &[&str]| known.iter().any(|start| lower.starts_with(start));
        let after_blank = index == 0 || self.text[index - 1].trim().is_empty();
        if after_blank && starts(&FOOTER_STARTS) {
            return self.until_quote(index) <= MAX_FOOTER_LINES;
        }
        if !starts(&DEVICE_LINES) && !lower.contains("から送信") {
            return false;
        }
        // It is the last thing the sender's program wrote.
        match self.next_text(index + 1) {
            None => true,
            Some(next) => {
                self.quoted(next)
                    || self.original(next).is_some()
                    || self.attribution(next).is_some()
                    || is_rule(self.text[next].trim())
            }
        }
    }

    /// Whether what stands below the rule at `index` is put there by a list, a service or a lawyer.
    fn is_footer(&self, index: usize) -> bool {
        let rule = self.text[index].trim();
        // Mailman's own, whatever follows.
        if rule.len() == MAILMAN_RULE && rule.bytes().all(|byte| byte == b'_') {
            return true;
        }
        let last = self.next_quoted[index];
        let length = self.start.get(last).copied().unwrap_or(self.length) - self.start[index];
        if length > MAX_FOOTER_BYTES {
            return false;
        }
        let end = last.min(index + FOOTER_WORD_LINES);
        for line in &self.text[index..end] {
            if line.len() > MAX_ATTRIBUTION_BYTES * 4 {
                continue;
            }
            let lower = line.to_lowercase();
            if FOOTERS.iter().any(|word| lower.contains(word)) {
                return true;
            }
        }
        false
    }
}

/// Whether a line begins with a quote mark.
fn is_quoted(line: &str) -> bool {
    let trimmed = line.trim_start();
    let Some(rest) = trimmed.strip_prefix('>') else {
        return false;
    };
    let indented = line.len() - trimmed.len();
    // `>>> code` of a terminal and `>From` of an mbox are rare next to quotes. Told apart are an arrow, and what a
    // server was told in the log of a bounce.
    let arrow = rest.starts_with('=');
    let log = rest.strip_prefix(">> ").is_some_and(|said| {
        ["MAIL ", "RCPT ", "DATA", "HELO ", "EHLO ", "QUIT", "RSET"]
            .iter()
            .any(|command| said.to_ascii_uppercase().starts_with(command))
    });
    let framed = indented > 0 && line.trim_end().ends_with('<');
    indented <= 4 && !arrow && !log && !framed
}

/// The initials of `ab> quoted`, or the bar of `| quoted`, which is no row of a table.
fn rare_mark(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    if let Some(rest) = trimmed.strip_prefix("| ") {
        return (!rest.contains('|')).then_some("|");
    }
    let (name, rest) = trimmed.split_once('>')?;
    let short =
        (1..=4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let known = short
        && (rest.is_empty() || rest.starts_with([' ', '>']))
        && !PROMPTS
            .iter()
            .any(|prompt| name.eq_ignore_ascii_case(prompt));
    known.then_some(name)
}

/// A line of one sign, or one of a kind of frame.
fn is_rule(line: &str) -> bool {
    let Some(first) = line.chars().next() else {
        return false;
    };
    if !"-_=*~#—─".contains(first) || line.len() > MAX_ATTRIBUTION_BYTES {
        return false;
    }
    if line.chars().all(|ch| ch == first) {
        return line.chars().count() >= MIN_RULE;
    }
    // `----- Yahoo! Groups Sponsor ----~-->`
    let signs = line
        .bytes()
        .filter(|byte| b"-_=*~#>".contains(byte))
        .count();
    line.starts_with("---")
        && line.ends_with(['-', '>'])
        && signs >= line.len().div_ceil(2).max(MIN_RULE)
}

fn is_original_end(line: &str) -> bool {
    let trimmed = line.trim();
    if !trimmed.starts_with("--") || trimmed.len() > MAX_ATTRIBUTION_BYTES {
        return false;
    }
    let lower = trimmed.trim_matches(['-', ' ']).to_lowercase();
    ORIGINAL_ENDS.iter().any(|end| lower.starts_with(end))
}

/// Whether a line is only a name and a colon: up to four words that begin with a capital.
fn is_name(line: &str) -> bool {
    let name = line.trim_end_matches([':', '：']).trim_end();
    let mut words = 0;
    for word in name.split_whitespace() {
        words += 1;
        if !word.starts_with(char::is_uppercase) || word.contains(':') {
            return false;
        }
    }
    (1..=4).contains(&words) && name.len() <= MAX_NAME_BYTES
}

/// A sentence that may introduce a quote, and what it has.
struct Sentence {
    lower: String,
    /// Three digits at least: a date or a time.
    dated: bool,
}

impl Sentence {
    fn new(sentence: &str) -> Self {
        let lower = sentence
            .trim_end_matches([':', '：', '*', '_', ' '])
            .to_lowercase();
        let dated = lower.bytes().filter(u8::is_ascii_digit).count() >= 3;
        Self { lower, dated }
    }

    /// Whether it begins as attributions over several lines do.
    fn opens(&self) -> bool {
        let first = self.lower.trim_start_matches(['*', '-', ' ', '"']);
        first.starts_with(|ch: char| ch.is_ascii_digit())
            || OPENERS.contains(&first.split([' ', ',']).next().unwrap_or_default())
    }

    /// Whether a verb of saying stands behind a name, or behind a date: not in a sentence of the writer's own.
    fn has_verb(&self) -> bool {
        let mut words = self.lower.split([' ', ',']).filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        if OWN_WORDS.contains(&first) {
            return false;
        }
        let near = if self.dated { MAX_ATTRIBUTION_BYTES } else { 5 };
        first == "quoting" || words.take(near).any(|word| VERBS_WITHIN.contains(&word))
    }

    /// Whether it introduces a quote. Where no quote mark follows it has to name a time or an address too, as "she
    /// wrote:" may begin anything.
    fn is_attribution(&self, quoted_next: bool) -> bool {
        let lower = self.lower.as_str();
        let ends = WROTE
            .iter()
            .chain(&WROTE_TOO)
            .any(|word| lower.ends_with(word));
        // German and Dutch put the verb before the name: "Am 1. Mai schrieb Ann:".
        let within = self.has_verb();
        // Some languages of Gmail have no verb: "15 июн. 2026 г. в 10:20, Ann <ann@example.com>:".
        let bare = self.dated && lower.contains('@') && lower.ends_with('>');
        if quoted_next {
            // A date before a quote introduces it, whatever the verb ("mentioned", "spake thusly").
            return ends || within || self.dated;
        }
        let verb_first = ["schrieb", "schreef", "skrev", "kirjoitti"]
            .iter()
            .any(|verb| holds_word(lower, verb));
        let introduces = ends || bare || verb_first || within && lower.contains('@');
        let addressed = lower.contains('@') || lower.contains('<');
        introduces && self.dated && (addressed || lower.contains(':') || lower.contains("20"))
    }
}

fn holds_word(text: &str, word: &str) -> bool {
    text.split([' ', ',']).any(|other| other == word)
}

fn named(line: &str, names: &[&str]) -> bool {
    let ascii = line.split_once(':');
    let Some((name, value)) = ascii.or_else(|| line.split_once('：')) else {
        return false;
    };
    let name = name.trim().trim_matches(['*', '|', ' ']);
    // Names are short; this spares most lines the lower-casing.
    if name.is_empty() || name.len() > 30 || value.trim().is_empty() {
        return false;
    }
    names.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
