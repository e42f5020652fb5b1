//! Reads an mbox file message by message, of any size in bounded memory.
//!
//! There is no one mbox format. What is read: mboxo and mboxrd (a body line `>From ` loses one `>`),
//! mboxcl2 (bodies measured by Content-Length, nothing escaped) and Google Takeout, with either line
//! end, mixed ones, a byte order mark or blank lines before the first separator. A length is believed
//! only if what follows there is a separator or the end. Nothing is decoded or stored here.

use std::io::{self, BufRead, Read};

use chrono::{DateTime, Utc};

use super::separator;

/// Longest piece of a line that is looked at as one; a separator or a header line is shorter.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// So many wrong Content-Lengths in a file, and none is believed any more: each costs that its bytes
/// are read twice.
const MAX_WRONG_LENGTHS: u32 = 16;
/// Headers are looked through for a Content-Length up to here, in bytes.
const MAX_LENGTH_HEADER_BYTES: usize = 256 << 10;
/// The byte order mark that some programs put before the first line.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a file cannot be read as mbox.
#[derive(Debug, thiserror::Error)]
pub enum MboxError {
    /// It is something else.
    #[error(
        "this is no mbox file: expected a first line that begins with \"From \", as Google Takeout, Thunderbird and Apple Mail write it"
    )]
    NotMbox,
    /// It cannot be read on.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The separator line, without its line end.
    pub separator: Vec<u8>,
    /// The message as it was before it was put into the file; only its first bytes, if it is `cut`.
    pub raw: Vec<u8>,
    /// Whether it is longer than the reader keeps.
    pub cut: bool,
    /// Where the message ends in the file and the next one begins, in bytes from the file's start.
    pub end: u64,
}

impl Message {
    /// Gmail's id of the message, where the separator is one of Google Takeout.
    pub fn gmail_id(&self) -> Option<u64> {
        separator::gmail_id(&self.separator)
    }

    /// The separator's date: when the message was received or put into the file.
    pub fn separator_date(&self) -> Option<DateTime<Utc>> {
        separator::date(&self.separator)
    }
}

/// Reads messages one after the other.
pub struct Reader<R> {
    source: Source<R>,
    /// The separator of the message to come.
    next: Option<Vec<u8>>,
    /// Whether the file is one of Google Takeout: only its own separators end a message then.
    takeout: bool,
    wrong_lengths: u32,
    max_bytes: usize,
}

impl<R: BufRead> Reader<R> {
    /// Looks at the beginning. An empty file is an mbox without messages. Of a message at most
    /// `max_bytes` are kept.
    pub fn new(input: R, max_bytes: usize) -> Result<Self, MboxError> {
        let mut source = Source::new(input);
        let mut line = Vec::new();
        let mut first = true;
        loop {
            line.clear();
            if !source.read_line(&mut line)? {
                break;
            }
            let text = match line.strip_prefix(BYTE_ORDER_MARK) {
                Some(text) if first => text,
                _ => &line,
            };
            first = false;
            if is_blank(text) {
                continue;
            }
            if !text.starts_with(b"From ") {
                return Err(MboxError::NotMbox);
            }
            let found = without_line_end(text).to_vec();
            return Ok(Self {
                takeout: separator::gmail_id(&found).is_some(),
                next: Some(found),
                source,
                wrong_lengths: 0,
                max_bytes,
            });
        }
        Ok(Self {
            source,
            next: None,
            takeout: false,
            wrong_lengths: 0,
            max_bytes,
        })
    }

    /// Whether the file is one of Google Takeout.
    pub fn is_takeout(&self) -> bool {
        self.takeout
    }

    /// The next message, until there is none.
    pub fn next_message(&mut self) -> io::Result<Option<Message>> {
        let Some(separator) = self.next.take() else {
            return Ok(None);
        };
        let mut message = Message {
            separator,
            raw: Vec::new(),
            cut: false,
            end: 0,
        };
        let mut line = Vec::new();
        let mut at_line_start = true;
        let mut blank_before = false;
        let mut in_header = true;
        let mut length = None;
        loop {
            line.clear();
            let start = self.source.offset;
            if !self.source.read_line(&mut line)? {
                message.end = start;
                break;
            }
            if at_line_start && self.is_separator(&line, blank_before)? {
                message.end = start;
                self.next = Some(without_line_end(&line).to_vec());
                break;
            }
            let ends_header = in_header && at_line_start && is_blank(&line);
            if in_header && at_line_start && message.raw.len() < MAX_LENGTH_HEADER_BYTES {
                length = length.or_else(|| content_length(&line));
            }
            if !in_header && at_line_start && is_escaped(&line) {
                message.push(&line[1..], self.max_bytes);
            } else {
                message.push(&line, self.max_bytes);
            }
            blank_before = at_line_start && is_blank(&line);
            at_line_start = line.ends_with(b"\n");
            if ends_header {
                in_header = false;
                if let Some(length) = length
                    && self.take_measured(&mut message, length)?
                {
                    return Ok(Some(message));
                }
            }
        }
        message.drop_last_blank_line();
        Ok(Some(message))
    }

    /// Takes a body of `length` bytes as it is, if a separator or the end follows; else reads
    /// nothing.
    fn take_measured(&mut self, message: &mut Message, length: u64) -> io::Result<bool> {
        let room = self.max_bytes.saturating_sub(message.raw.len());
        let in_doubt = self.takeout || self.wrong_lengths >= MAX_WRONG_LENGTHS;
        if in_doubt || length > room as u64 {
            return Ok(false);
        }
        let mut body = Vec::new();
        self.source.read_up_to(length, &mut body)?;
        let mut between = Vec::new();
        let whole = body.len() as u64 == length;
        if whole && self.ends_behind(&body, &mut between, message)? {
            message.raw.extend_from_slice(&body);
            return Ok(true);
        }
        self.wrong_lengths += 1;
        body.extend_from_slice(&between);
        self.source.unread(body);
        Ok(false)
    }

    /// Whether the file ends behind `body`, or a separator follows with no more `between` than the end of
    /// a last line and a blank line; then that is where the message ends.
    fn ends_behind(
        &mut self,
        body: &[u8],
        between: &mut Vec<u8>,
        message: &mut Message,
    ) -> io::Result<bool> {
        loop {
            let before = between.len();
            message.end = self.source.offset;
            if !self.source.read_line(between)? {
                return Ok(true);
            }
            let line = between[before..].to_vec();
            let at_line_start = before > 0 || body.is_empty() || body.ends_with(b"\n");
            if at_line_start && self.is_separator(&line, true)? {
                self.next = Some(without_line_end(&line).to_vec());
                return Ok(true);
            }
            if !is_blank(&line) || between.len() > 4 {
                return Ok(false);
            }
        }
    }

    /// Whether `line`, at whose beginning a line begins, is a separator. Writers escape what is not,
    /// but not all do; so it must look like one, and what follows like a message.
    fn is_separator(&mut self, line: &[u8], blank_before: bool) -> io::Result<bool> {
        if !line.starts_with(b"From ") || !line.ends_with(b"\n") {
            return Ok(false);
        }
        let text = without_line_end(line);
        if self.takeout {
            return Ok(blank_before && separator::gmail_id(text).is_some());
        }
        let dated = separator::date(text).is_some();
        if blank_before && dated {
            return Ok(true);
        }
        let possible = dated || (blank_before && separator::names_one_sender(text));
        if !possible {
            return Ok(false);
        }
        let mut following = Vec::new();
        self.source.read_line(&mut following)?;
        let begins_message = is_header_line(&following);
        self.source.unread(following);
        Ok(begins_message)
    }
}

impl Message {
    fn push(&mut self, bytes: &[u8], max_bytes: usize) {
        let room = max_bytes.saturating_sub(self.raw.len());
        let kept = bytes.len().min(room);
        self.raw.extend_from_slice(&bytes[..kept]);
        self.cut |= kept < bytes.len();
    }

    /// The blank line before a separator, and at the file's end, is the file's and not the message's.
    fn drop_last_blank_line(&mut self) {
        if self.cut {
            return;
        }
        for line_end in [&b"\r\n"[..], b"\n"] {
            if let Some(rest) = self.raw.strip_suffix(line_end)
                && rest.ends_with(b"\n")
            {
                self.raw.truncate(rest.len());
                return;
            }
        }
    }
}

/// A line of the body that was escaped: one or more `>` before `From `.
fn is_escaped(line: &[u8]) -> bool {
    let marks = line.iter().take_while(|&&byte| byte == b'>').count();
    marks > 0 && line[marks..].starts_with(b"From ")
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n" | b"")
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a line is `Name: value` or one of the odd first lines that are seen in headers.
fn is_header_line(line: &[u8]) -> bool {
    let name = line
        .iter()
        .take_while(|&&byte| byte.is_ascii_graphic() && byte != b':')
        .count();
    (name > 0 && line.get(name) == Some(&b':')) || is_escaped(line)
}

fn content_length(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    let name = line.get(..NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let value = std::str::from_utf8(&line[NAME.len()..]).ok()?;
    value.trim().parse().ok()
}

/// Bytes with a way back.
struct Source<R> {
    input: R,
    /// Bytes to be read again, and how far they are.
    again: Vec<u8>,
    at: usize,
    /// Bytes read from the start, those to be read again not counted.
    offset: u64,
}

impl<R: BufRead> Source<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            again: Vec::new(),
            at: 0,
            offset: 0,
        }
    }

    /// Appends a line with its end, or the first [`MAX_LINE_BYTES`] of a longer one; `false` at the
    /// end.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let before = line.len();
        let waiting = &self.again[self.at..];
        let piece = &waiting[..waiting.len().min(MAX_LINE_BYTES as usize)];
        let end = piece.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(piece.len(), |end| end + 1);
        line.extend_from_slice(&piece[..taken]);
        self.at += taken;
        if self.at == self.again.len() {
            self.again = Vec::new();
            self.at = 0;
        }
        let room = MAX_LINE_BYTES - taken as u64;
        if end.is_none() && room > 0 {
            (&mut self.input).take(room).read_until(b'\n', line)?;
        }
        self.offset += (line.len() - before) as u64;
        Ok(line.len() > before)
    }

    /// Appends up to `length` bytes.
    fn read_up_to(&mut self, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let waiting = &self.again[self.at..];
        let taken = waiting
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        bytes.extend_from_slice(&waiting[..taken]);
        self.at += taken;
        let read = (&mut self.input)
            .take(length - taken as u64)
            .read_to_end(bytes)?;
        self.offset += (taken + read) as u64;
        Ok(())
    }

    /// Gives bytes back that were read last.
    fn unread(&mut self, mut bytes: Vec<u8>) {
        self.offset -= bytes.len() as u64;
        bytes.extend_from_slice(&self.again[self.at..]);
        self.again = bytes;
        self.at = 0;
    }
}

#[cfg(test)]
#[path = "mbox_tests.rs"]
mod tests;
