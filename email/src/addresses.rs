//! Address fields: names, addresses and groups (RFC 5322, 3.4), and what programs write instead. It must not decode
//! before it takes apart: a decoded name may hold any sign, and must not become an address by it.

use super::words;
use super::{MAX_MAILBOXES, Mailbox, WarningCode, Warnings, headers, text};

/// Longest quoted name or comment, in bytes; a longer one is taken for one that was never closed.
const MAX_PHRASE_BYTES: usize = 1 << 10;
/// Most comments of a field that may turn out never closed; the parentheses after them are blanks.
const MAX_UNCLOSED: usize = 50;
/// Most words of one name that are read.
const MAX_WORDS: usize = 200;

/// A person as far as it was read.
#[derive(Default)]
struct Entry {
    /// Words outside angle brackets, and whether they were quoted.
    words: Vec<(String, bool)>,
    /// Whether the last word goes on: nothing stood between it and the next sign.
    joined: bool,
    comment: String,
    angle: Option<String>,
    /// Whether there were more than [`MAX_WORDS`].
    too_long: bool,
}

/// Adds the people of a field (unfolded, not decoded) to `target`. Members of a group count, its name does not.
pub(super) fn read(raw: &str, target: &mut Vec<Mailbox>, warnings: &mut Warnings) {
    let last_semicolon = raw.rfind(';').unwrap_or(0);
    let mut entry = Entry::default();
    let mut unclosed = 0;
    let mut position = 0;
    while let Some(ch) = raw[position..].chars().next() {
        let rest = &raw[position..];
        position += ch.len_utf8();
        match ch {
            '"' => {
                let (content, length) = quoted(&rest[1..]);
                entry.word(&content, true);
                position += length;
            }
            '(' if unclosed < MAX_UNCLOSED => {
                let (content, length) = comment(&rest[1..]);
                if !rest[..=length].ends_with(')') {
                    unclosed += 1;
                }
                if !entry.comment.is_empty() {
                    entry.comment.push(' ');
                }
                entry.comment.push_str(&content);
                entry.joined = false;
                position += length;
            }
            '(' => entry.joined = false,
            '<' => {
                if entry
                    .angle
                    .as_ref()
                    .is_some_and(|angle| angle.contains('@'))
                {
                    std::mem::take(&mut entry).finish(target, warnings);
                }
                let (content, length) = angle(&rest[1..]);
                if entry.angle.as_ref().is_none_or(String::is_empty) {
                    entry.angle = Some(content);
                }
                entry.joined = false;
                position += length;
            }
            ',' | ';' => std::mem::take(&mut entry).finish(target, warnings),
            ':' if entry.is_group_name(&raw[position..], position <= last_semicolon) => {
                entry = Entry::default();
            }
            // Behind an address it can only be junk.
            ':' if entry.angle.is_some() => entry.joined = false,
            '>' => entry.joined = false,
            _ if ch.is_whitespace() => entry.joined = false,
            _ => {
                let length = rest
                    .find(|ch: char| ch.is_whitespace() || "\"(<,;:>".contains(ch))
                    .unwrap_or(rest.len())
                    .max(ch.len_utf8());
                entry.word(&rest[..length], false);
                position += length - ch.len_utf8();
            }
        }
        if target.len() > MAX_MAILBOXES {
            target.truncate(MAX_MAILBOXES);
            warnings.add(
                WarningCode::LimitMailboxes,
                format!("a field has more than {MAX_MAILBOXES} people"),
            );
            return;
        }
    }
    entry.finish(target, warnings);
    target.truncate(MAX_MAILBOXES);
}

impl Entry {
    fn word(&mut self, content: &str, quoted: bool) {
        if self.words.len() == MAX_WORDS {
            self.too_long = true;
            return;
        }
        match self.words.last_mut() {
            // `"a b"@example.com` and `a@"b"` are one word, written as it was.
            Some((last, was_quoted)) if self.joined && *was_quoted != quoted => {
                let at = content.starts_with('@') && !quoted || last.ends_with('@') && quoted;
                if !at {
                    self.words.push((content.to_owned(), quoted));
                } else if quoted {
                    last.push_str(content);
                } else {
                    *last = format!("\"{last}\"{content}");
                    *was_quoted = false;
                }
            }
            Some((last, false)) if self.joined && !quoted => last.push_str(content),
            _ => self.words.push((content.to_owned(), quoted)),
        }
        self.joined = true;
    }

    /// Whether what was read before a colon names a group: it ends with a semicolon, or nothing follows.
    fn is_group_name(&self, rest: &str, closed: bool) -> bool {
        let address = self
            .words
            .iter()
            .any(|(word, quoted)| !quoted && word.contains('@'));
        self.angle.is_none() && !address && (closed || rest.is_empty())
    }

    fn finish(mut self, target: &mut Vec<Mailbox>, warnings: &mut Warnings) {
        if self.too_long {
            let detail = format!("a name of more than {MAX_WORDS} words was cut");
            warnings.add(WarningCode::LimitFieldBytes, detail);
        }
        let mut address = self.angle.take().filter(|angle| !angle.is_empty());
        if address.is_none() {
            self.rejoin_spaced();
            if self.words.len() == 3 && self.words[2].0.contains('.') {
                // Archives of mailing lists write `ann at example.com (Ann)`.
                self.rejoin_at();
            }
            address = self.take_address();
        }
        let phrase = self.phrase(warnings);
        let mut name = headers::field(&phrase, warnings);
        if name.is_none() {
            name = headers::field(&words::decode(&self.comment, warnings), warnings);
        }
        // The whole of it in one encoded word: an address can only be inside.
        if address.is_none()
            && self.words.iter().any(|(word, _)| word.contains("=?"))
            && let Some((before, after)) = phrase.rsplit_once('<')
            && let Some((inside, _)) = after.split_once('>')
            && inside.contains('@')
        {
            address = Some(inside.to_owned());
            name = headers::field(before.trim().trim_matches('"'), warnings);
        }
        let address = address.and_then(|raw| {
            let plain = words::decode(&raw, warnings);
            let plain = plain.trim().trim_matches('\'');
            let scheme = plain
                .get(..7)
                .filter(|start| start.eq_ignore_ascii_case("mailto:"));
            headers::field(&plain[scheme.map_or(0, str::len)..], warnings)
        });
        if name.is_some() || address.is_some() {
            target.push(Mailbox { name, address });
        }
    }

    /// `a . b @ c . example` is one word: the standard allows blanks around dots and the at sign.
    fn rejoin_spaced(&mut self) {
        let at = |word: &(String, bool)| !word.1 && word.0.contains('@');
        let mut pairs = self.words.windows(2);
        let spaced =
            pairs.all(|pair| pair[0].0.ends_with(['.', '@']) || pair[1].0.starts_with(['.', '@']));
        if self.words.len() < 2 || !spaced || self.words.iter().filter(|word| at(word)).count() != 1
        {
            return;
        }
        let mut joined = String::new();
        for (word, quoted) in &self.words {
            if *quoted {
                joined.push_str(&format!("\"{word}\""));
            } else {
                joined.push_str(word);
            }
        }
        self.words = vec![(joined, false)];
    }

    /// `a at b.example` is `a@b.example`.
    fn rejoin_at(&mut self) {
        if self.words[1] == ("at".to_owned(), false) {
            let address = format!("{}@{}", self.words[0].0, self.words[2].0);
            self.words = vec![(address, false)];
        }
    }

    /// Without angle brackets the last word with an at sign is the address; a quoted one only where it stands alone.
    fn take_address(&mut self) -> Option<String> {
        let inside = |word: &str| {
            word.find('@')
                .is_some_and(|at| at > 0 && at + 1 < word.len())
        };
        let plain = self
            .words
            .iter()
            .rposition(|(word, quoted)| !quoted && inside(word) && !word.ends_with("?="));
        let alone = || {
            (self.words.len() == 1
                && inside(&self.words[0].0)
                && !self.words[0].0.contains(char::is_whitespace)
                && !self.words[0].0.contains("=?"))
            .then_some(0)
        };
        let at = plain.or_else(alone)?;
        Some(self.words.remove(at).0)
    }

    /// The words as a name. Encoded words stand in quotes too, though they must not.
    fn phrase(&self, warnings: &mut Warnings) -> String {
        let mut joined = String::new();
        for (word, _) in &self.words {
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(word);
        }
        words::decode(&joined, warnings).into_owned()
    }
}

/// What stands up to the closing quote, or all of it, and its length with the quote.
fn quoted(rest: &str) -> (String, usize) {
    let mut content = String::new();
    let mut escaped = false;
    for (at, ch) in text::prefix(rest, MAX_PHRASE_BYTES).char_indices() {
        if escaped {
            content.push(ch);
            escaped = false;
        } else if ch == '\\' {
            escaped = true;
        } else if ch == '"' {
            return (content, at + 1);
        } else {
            content.push(ch);
        }
    }
    // Never closed: the quote is a sign like others, unless nothing follows it.
    let end = rest.find(['<', ',']).unwrap_or(rest.len());
    (rest[..end].trim().to_owned(), end)
}

/// What stands in a comment, and its length with the parenthesis.
fn comment(rest: &str) -> (String, usize) {
    let mut content = String::new();
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, ch) in text::prefix(rest, MAX_PHRASE_BYTES).char_indices() {
        if escaped {
            content.push(ch);
            escaped = false;
            continue;
        }
        match ch {
            '\\' => escaped = true,
            '(' => {
                depth += 1;
                content.push(ch);
            }
            ')' if depth == 0 => return (content, at + 1),
            ')' => {
                depth -= 1;
                content.push(ch);
            }
            _ => content.push(ch),
        }
    }
    let end = rest.find(['<', ',']).unwrap_or(rest.len());
    (rest[..end].trim().to_owned(), end)
}

/// The address in angle brackets, without blanks, comments and a route, and its length with the bracket. One that is
/// never closed ends before a comma; brackets in brackets count as one.
fn angle(rest: &str) -> (String, usize) {
    let mut address = String::new();
    let mut in_quotes = false;
    let mut in_comment = false;
    let mut length = rest.len();
    for (at, ch) in rest.char_indices() {
        match ch {
            '"' => {
                in_quotes = !in_quotes;
                address.push(ch);
            }
            _ if in_quotes => address.push(ch),
            '>' => {
                length = at + 1;
                break;
            }
            '<' => address.clear(),
            '(' | ')' => in_comment = ch == '(',
            _ if in_comment => {}
            ',' if !address.starts_with('@') => {
                length = at;
                break;
            }
            ';' => {
                length = at;
                break;
            }
            _ if ch.is_whitespace() => {}
            _ => address.push(ch),
        }
    }
    if address.starts_with('@')
        && let Some((_, after)) = address.split_once(':')
    {
        return (after.to_owned(), length);
    }
    (address, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &[(&str, &str)]) {
        let mut found = Vec::new();
        read(raw, &mut found, &mut Warnings::default());
        let mut pairs = Vec::new();
        for mailbox in &found {
            let name = mailbox.name.as_deref().unwrap_or_default();
            pairs.push((name, mailbox.address.as_deref().unwrap_or_default()));
        }
        assert_eq!(pairs, expected, "{raw}");
    }

    #[test]
    fn people_are_read_as_the_standard_has_them() {
        check("ann@example.com", &[("", "ann@example.com")]);
        check(
            "Ann <ann@example.com>, \"Doe, Jane\" <jane@example.com>,bob@example.com",
            &[
                ("Ann", "ann@example.com"),
                ("Doe, Jane", "jane@example.com"),
                ("", "bob@example.com"),
            ],
        );
        check(
            "bob@example.com (Bob (the\\) second))",
            &[("Bob (the) second)", "bob@example.com")],
        );
        check(
            "\"a \\\"b\\\" c\" <x@example.com>",
            &[("a \"b\" c", "x@example.com")],
        );
        check(
            "\"john doe\"@example.com",
            &[("", "\"john doe\"@example.com")],
        );
        check("<\"a,b\"@example.com>", &[("", "\"a,b\"@example.com")]);
        check(
            "<@r1.example,@r2.example:ann@example.com>",
            &[("", "ann@example.com")],
        );
        check(
            "Team: a@example.com, B <b@example.com>;, c@example.com",
            &[
                ("", "a@example.com"),
                ("B", "b@example.com"),
                ("", "c@example.com"),
            ],
        );
        check("undisclosed-recipients:;", &[]);
        check("Undisclosed recipients:", &[]);
        check("jürgen@bücher.example", &[("", "jürgen@bücher.example")]);
        check(
            "<ann@xn--bcher-kva.example>",
            &[("", "ann@xn--bcher-kva.example")],
        );
        check(
            "John Q . Public <j . q@example.com (home)>",
            &[("John Q . Public", "j.q@example.com")],
        );
    }

    #[test]
    fn broken_people_are_read_as_they_were_meant() {
        check("Ann Lee ann@example.com", &[("Ann Lee", "ann@example.com")]);
        check("Ann <ann@example.com", &[("Ann", "ann@example.com")]);
        check(
            "<a@example.com, Bob <b@example.com>",
            &[("", "a@example.com"), ("Bob", "b@example.com")],
        );
        check("Ann <<ann@example.com>>", &[("Ann", "ann@example.com")]);
        check(
            "a@example.com; b@example.com;",
            &[("", "a@example.com"), ("", "b@example.com")],
        );
        check(
            "<a@example.com> <b@example.com>",
            &[("", "a@example.com"), ("", "b@example.com")],
        );
        check("<ann@example.com> Ann", &[("Ann", "ann@example.com")]);
        check("\"Ann <ann@example.com>", &[("Ann", "ann@example.com")]);
        check("Mailer Daemon", &[("Mailer Daemon", "")]);
        check("root <root>", &[("root", "root")]);
        check(
            "Ann <ann@example.com>:<bob@example.com>",
            &[("Ann", "ann@example.com"), ("", "bob@example.com")],
        );
        check(
            "ann at example.com (Ann Lee)",
            &[("Ann Lee", "ann@example.com")],
        );
        check("Ann at home", &[("Ann at home", "")]);
        check(
            "=?us-ascii?q?a=40b?=@example.com",
            &[("", "a@b@example.com")],
        );
        check("<>", &[]);
        check("<mailto:ann@example.com>", &[("", "ann@example.com")]);
        check("'ann@example.com'", &[("", "ann@example.com")]);
        check("\"ann@example.com\"", &[("", "ann@example.com")]);
        check("ann @ example.com", &[("", "ann@example.com")]);
        check("ann . l @ example . com", &[("", "ann.l@example.com")]);
        check(
            "Ann Lee. ann@example.com",
            &[("Ann Lee.", "ann@example.com")],
        );
        check(
            "Re: you <ann@example.com>",
            &[("Re: you", "ann@example.com")],
        );
        check(",, ,;", &[]);
    }

    #[test]
    fn encoded_names_are_decoded_after_the_field_was_taken_apart() {
        check(
            "=?utf-8?q?Doe=2C_J=C3=A4ne?= <jane@example.com>",
            &[("Doe, Jäne", "jane@example.com")],
        );
        check(
            "\"=?utf-8?B?SsO8cmdlbg==?=\" <j@example.com>",
            &[("Jürgen", "j@example.com")],
        );
        check(
            "=?utf-8?q?Ann?= =?utf-8?q?_Lee?= <a@example.com>",
            &[("Ann Lee", "a@example.com")],
        );
        check(
            "a@example.com (=?utf-8?q?J=C3=BCrgen?=)",
            &[("Jürgen", "a@example.com")],
        );
        check(
            "=?utf-8?Q?Ann_=3Cann=40example.com=3E?=",
            &[("Ann", "ann@example.com")],
        );
    }

    #[test]
    fn a_name_that_looks_like_an_address_stays_a_name() {
        check(
            "\"bank@bank.example\" <thief@example.net>",
            &[("bank@bank.example", "thief@example.net")],
        );
        check(
            "=?utf-8?q?bank=40bank.example_=3Cbank=40bank.example=3E?= <thief@example.net>",
            &[("bank@bank.example <bank@bank.example>", "thief@example.net")],
        );
        check(
            "bank@bank.example <thief@example.net>",
            &[("bank@bank.example", "thief@example.net")],
        );
        check(
            "\"bank@bank.example\" thief@example.net",
            &[("bank@bank.example", "thief@example.net")],
        );
    }
}
