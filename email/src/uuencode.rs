//! Files that stand in the text itself: uuencode (POSIX), its base64 form, and yEnc. They are recognised, named and
//! measured, and leave the text; their content is not decoded.

use std::borrow::Cow;

use super::{MAX_ATTACHMENTS, text};

/// Longest line that opens such a file, in bytes.
const MAX_OPENING_BYTES: usize = 400;
/// Longest line of uuencoded data: 63 bytes in groups of four characters, a length and a checksum, and a spare one.
const MAX_DATA_LINE: usize = 1 + 84 + 2;

/// A file found in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Embedded {
    /// Its name, as written.
    pub(super) name: String,
    /// Its decoded length in bytes: counted for uuencode, as stated for yEnc.
    pub(super) size_bytes: u64,
}

/// The text with one line in place of each file, and the files. Time is linear in the text.
pub(super) fn take_out(source: &str) -> (Cow<'_, str>, Vec<Embedded>) {
    let mut found = Vec::new();
    if !source.contains("begin") {
        return (Cow::Borrowed(source), found);
    }
    let last_yend = source.rfind("\n=yend");
    let mut out = String::new();
    let mut copied = 0;
    let mut position = 0;
    while position < source.len() {
        let (line, next) = line_at(source, position);
        let block = if found.len() == MAX_ATTACHMENTS || line.len() > MAX_OPENING_BYTES {
            None
        } else if let Some(name) = uu_name(line) {
            uu_end(source, next).map(|(end, size)| (name, end, size))
        } else if let Some(name) = base64_name(line) {
            base64_end(source, next).map(|(end, size)| (name, end, size))
        } else if line.starts_with("=ybegin ") && last_yend.is_some_and(|last| last + 1 >= next) {
            yenc_name(line).and_then(|name| {
                let (end, size) = yenc_end(source, next)?;
                Some((name, end, size))
            })
        } else {
            None
        };
        let Some((name, end, size_bytes)) = block else {
            position = next;
            continue;
        };
        out.push_str(&source[copied..position]);
        out.push_str(&format!(
            "[attached file: {}, {size_bytes} bytes]\n",
            text::prefix(name, MAX_OPENING_BYTES)
        ));
        found.push(Embedded {
            name: name.to_owned(),
            size_bytes,
        });
        position = end;
        copied = end;
    }
    if found.is_empty() {
        return (Cow::Borrowed(source), found);
    }
    out.push_str(&source[copied..]);
    (Cow::Owned(out), found)
}

/// The line that begins at `position`, without its end, and where the next one begins.
fn line_at(source: &str, position: usize) -> (&str, usize) {
    let rest = &source[position..];
    let length = rest.find('\n').unwrap_or(rest.len());
    let line = &rest[..length];
    let next = (position + length + 1).min(source.len());
    (line.strip_suffix('\r').unwrap_or(line), next)
}

/// The name of `begin 644 name`.
fn uu_name(line: &str) -> Option<&str> {
    named(line.strip_prefix("begin ")?)
}

/// The name of `begin-base64 644 name`.
fn base64_name(line: &str) -> Option<&str> {
    named(line.strip_prefix("begin-base64 ")?)
}

fn named(rest: &str) -> Option<&str> {
    let (mode, name) = rest.trim_start().split_once(' ')?;
    let octal =
        (3..=6).contains(&mode.len()) && mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let name = name.trim();
    (octal && !name.is_empty()).then_some(name)
}

/// Where uuencoded data that begins at `start` ends, and how many bytes it holds. None where it is no such data.
fn uu_end(source: &str, start: usize) -> Option<(usize, u64)> {
    let mut position = start;
    let mut size = 0;
    while position < source.len() {
        let (line, next) = line_at(source, position);
        if line.trim_end() == "end" {
            return Some((next, size));
        }
        let length = uu_length(line);
        if length == 0 && !line.trim_end_matches([' ', '`']).is_empty() {
            break;
        }
        size += length;
        position = next;
    }
    // Cut off, or an end that was lost: what looked like data is data.
    (size > 0).then_some((position, size))
}

/// How many bytes a line of uuencoded data holds; 0 for the last one, and for a line that is none after all.
fn uu_length(line: &str) -> u64 {
    let bytes = line.as_bytes();
    let Some(&first) = bytes.first() else {
        return 0;
    };
    if bytes.len() > MAX_DATA_LINE || !bytes.iter().all(|byte| (b' '..=b'`').contains(byte)) {
        return 0;
    }
    let length = usize::from((first - b' ') & 63);
    let encoded = length.div_ceil(3) * 4;
    // Blanks at the end of a line are lost on the way; a checksum may follow.
    let written = bytes.len() - 1;
    let fits = written <= encoded + 2 && written + 4 > length.min(encoded / 2);
    if fits { length as u64 } else { 0 }
}

/// Where the base64 form ends, at its line of equals signs, and how many bytes it holds.
fn base64_end(source: &str, start: usize) -> Option<(usize, u64)> {
    let mut position = start;
    let mut characters = 0;
    while position < source.len() {
        let (line, next) = line_at(source, position);
        let line = line.trim_end();
        if line == "====" {
            return Some((next, characters * 3 / 4));
        }
        let data = line.trim_end_matches('=');
        if data.is_empty()
            || !data
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
        {
            break;
        }
        characters += data.len() as u64;
        position = next;
    }
    (characters > 0).then_some((position, characters * 3 / 4))
}

/// Where yEnc data ends, after its `=yend`, and the size that states.
fn yenc_end(source: &str, start: usize) -> Option<(usize, u64)> {
    let found = if source[start..].starts_with("=yend") {
        start
    } else {
        start + source[start..].find("\n=yend")? + 1
    };
    let (line, next) = line_at(source, found);
    let size = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("size=")?.parse().ok());
    Some((next, size.unwrap_or_default()))
}

/// The name of `=ybegin line=128 size=1 name=a b.txt`: all that follows.
fn yenc_name(line: &str) -> Option<&str> {
    let name = line.split_once(" name=")?.1.trim();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(source: &str) -> (String, Vec<(String, u64)>) {
        let (left, files) = take_out(source);
        let mut named = Vec::new();
        for file in files {
            named.push((file.name, file.size_bytes));
        }
        (left.into_owned(), named)
    }

    #[test]
    fn a_uuencoded_file_leaves_the_text_and_is_measured() {
        let (left, files) = taken("See:\r\nbegin 644 cat.txt\r\n#0V%T\r\n`\r\nend\r\nBye\r\n");
        assert_eq!(left, "See:\r\n[attached file: cat.txt, 3 bytes]\nBye\r\n");
        assert_eq!(files, [("cat.txt".to_owned(), 3)]);
    }

    #[test]
    fn one_that_is_cut_off_counts_as_far_as_it_goes() {
        let line = format!("M{}\n", "A".repeat(60));
        let (left, files) = taken(&format!("begin 600 a b.bin\n{}", line.repeat(3)));
        assert_eq!(left, "[attached file: a b.bin, 135 bytes]\n");
        assert_eq!(files, [("a b.bin".to_owned(), 135)]);
        let (left, files) = taken(&format!("begin 600 c\n{line}And words follow here.\n"));
        assert_eq!(
            left,
            "[attached file: c, 45 bytes]\nAnd words follow here.\n"
        );
        assert_eq!(files.len(), 1);
    }

    #[test]
    fn the_base64_form_and_yenc_are_known_too() {
        let (left, files) = taken("a\nbegin-base64 644 x.gif\nR0lGODlh\nAQAB\n====\nb\n");
        assert_eq!(left, "a\n[attached file: x.gif, 9 bytes]\nb\n");
        assert_eq!(files, [("x.gif".to_owned(), 9)]);
        let (left, files) = taken(
            "=ybegin line=128 size=5 name=my file.bin\n\u{fffd}=}r\nxx\n=yend size=5 crc32=00\nb",
        );
        assert_eq!(left, "[attached file: my file.bin, 5 bytes]\nb");
        assert_eq!(files, [("my file.bin".to_owned(), 5)]);
    }

    #[test]
    fn words_that_only_begin_like_it_stay() {
        for text in [
            "begin 644 things and end them well\nthat is what we do.",
            "begin 100 a\n",
            "begin 9 lives\n#0V%T\n",
            "begin 644\n",
            "=ybegin is a word\n",
            "=ybegin line=1 size=2 name=x\nnever ends",
            "begin-base64 644 x\nNot base 64.\n====\n",
        ] {
            assert_eq!(taken(text), (text.to_owned(), Vec::new()));
        }
    }
}
