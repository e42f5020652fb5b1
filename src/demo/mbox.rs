//! A person's own mbox file as a mailbox. Takeout's headers give Gmail's ids, threads and labels;
//! any other mbox lands in the inbox. It reads the whole file and writes nothing.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use mail_parser::{HeaderName, HeaderValue, MessageParser, mailbox::mbox::MessageIterator};

use super::{
    arrival::{Arrival, Raw},
    mailbox::Mailbox,
};

/// The byte order mark that some programs put before the first line.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Takeout's header of the thread, in decimal.
const THREAD_HEADER: &str = "X-GM-THRID";
/// Takeout's header of the labels, separated by commas.
const LABELS_HEADER: &str = "X-Gmail-Labels";

/// Why a file gives no mailbox.
#[derive(Debug, thiserror::Error)]
pub enum MboxError {
    /// It cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty: expected an mbox file, whose first line begins with \"From \"", .0.display())]
    Empty(PathBuf),
    /// It is something else.
    #[error(
        "{} is no mbox file: expected a first line that begins with \"From \", as Google Takeout, Thunderbird and Apple Mail write it",
        .0.display()
    )]
    NotMbox(PathBuf),
}

/// Reads the file at `path`; `seed` decides the ids of messages that bring none.
pub fn read(path: &Path, email_address: &str, seed: u64) -> Result<Mailbox, MboxError> {
    let failed = |source| MboxError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let start = reader.fill_buf().map_err(failed)?;
    if start.is_empty() {
        return Err(MboxError::Empty(path.to_owned()));
    }
    let mark = if start.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    if !start[mark..].starts_with(b"From ") {
        return Err(MboxError::NotMbox(path.to_owned()));
    }
    reader.consume(mark);
    let mut mailbox = Mailbox::new(email_address, seed);
    let mut last_ms = 0;
    for message in MessageIterator::new(reader) {
        let message = message.map_err(failed)?;
        let gmail_id = message
            .from()
            .strip_suffix("@xxx")
            .and_then(|id| id.parse::<u64>().ok());
        let separator_seconds = message.internal_date();
        let mut contents = message.unwrap_contents();
        let headers = Takeout::take(&mut contents);
        let internal_date_ms = match gmail_id {
            // Takeout's separator has the offset where others have the year; the id tells the time.
            Some(id) => i64::try_from(id >> 20).unwrap_or(last_ms),
            None => internal_date_ms(separator_seconds, &contents).unwrap_or(last_ms + 1000),
        };
        last_ms = internal_date_ms;
        let labels = match headers.labels {
            Some(names) => labels(&mut mailbox, &names),
            None => vec!["INBOX".to_owned()],
        };
        mailbox.place(Arrival {
            id: gmail_id,
            thread: headers.thread,
            internal_date_ms: Some(internal_date_ms),
            labels,
            raw: Raw::Bytes(contents.into_boxed_slice().into()),
        });
    }
    Ok(mailbox)
}

/// When a message was received: the separator's word, else the Date header's.
fn internal_date_ms(separator_seconds: u64, contents: &[u8]) -> Option<i64> {
    let of_separator = i64::try_from(separator_seconds).ok();
    // Later than the year 2200 is a separator that could not be read.
    if let Some(seconds) = of_separator.filter(|seconds| (1..7_258_118_400).contains(seconds)) {
        return Some(seconds * 1000);
    }
    let headers = MessageParser::default().parse_headers(contents)?;
    let seconds = headers.date()?.to_timestamp();
    (seconds > 0).then_some(seconds.saturating_mul(1000))
}

/// What Takeout writes before a message's own headers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Takeout {
    thread: Option<u64>,
    labels: Option<String>,
}

impl Takeout {
    /// Reads Takeout's headers and cuts them out: they are not the message's own.
    fn take(contents: &mut Vec<u8>) -> Self {
        let mut takeout = Self::default();
        let mut at = 0;
        while let Some(end) = header_end(&contents[at..]) {
            let line = &contents[at..at + end];
            let is = |name: &str| {
                line.len() > name.len()
                    && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
                    && line[name.len()] == b':'
            };
            if is(THREAD_HEADER) {
                takeout.thread = header_text(line).and_then(|text| text.trim().parse().ok());
            } else if is(LABELS_HEADER) {
                takeout.labels = header_text(line);
            } else {
                break;
            }
            at += end;
        }
        contents.drain(..at);
        takeout
    }
}

/// Where the header that begins here ends, its folded lines included.
fn header_end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        end += bytes[end..].iter().position(|&byte| byte == b'\n')? + 1;
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            return Some(end);
        }
    }
}

/// A header's value, unfolded and decoded.
fn header_text(line: &[u8]) -> Option<String> {
    // Under the name of Subject the parser reads it as text, encoded words included.
    let colon = line.iter().position(|&byte| byte == b':')?;
    let mut as_subject = b"Subject".to_vec();
    as_subject.extend_from_slice(&line[colon..]);
    as_subject.extend_from_slice(b"\r\n");
    let headers = MessageParser::default().parse_headers(&as_subject)?;
    match headers.header(HeaderName::Subject)? {
        HeaderValue::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Label ids for Takeout's label names.
fn labels(mailbox: &mut Mailbox, names: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for name in split_names(names) {
        let id = match name.as_str() {
            "Inbox" => "INBOX",
            "Sent" => "SENT",
            "Draft" | "Drafts" => "DRAFT",
            "Spam" => "SPAM",
            "Trash" => "TRASH",
            "Unread" => "UNREAD",
            "Starred" => "STARRED",
            "Important" => "IMPORTANT",
            "Chat" => "CHAT",
            "Category Personal" => "CATEGORY_PERSONAL",
            "Category Social" => "CATEGORY_SOCIAL",
            "Category Promotions" => "CATEGORY_PROMOTIONS",
            "Category Updates" => "CATEGORY_UPDATES",
            "Category Forums" => "CATEGORY_FORUMS",
            // States that the API shows by the absence of a label.
            "Opened" | "Archived" => continue,
            own => {
                ids.push(mailbox.create_label(own));
                continue;
            }
        };
        ids.push(id.to_owned());
    }
    ids
}

/// Names between commas; a name with a comma in it stands in quotes.
fn split_names(names: &str) -> Vec<String> {
    let mut split = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    for character in names.chars().chain([',']) {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                let whole = name.trim();
                if !whole.is_empty() {
                    split.push(whole.to_owned());
                }
                name.clear();
            }
            other => name.push(other),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Mailbox, MboxError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        read(file.path(), "me@example.com", 1)
    }

    #[test]
    fn a_plain_mbox_lands_in_the_inbox_with_either_line_end() {
        let unix = "From a@x Thu Jan  1 00:00:05 1998\nSubject: one\n\nText\n>From the start\n\nFrom - \nDate: Fri, 2 Jan 1998 00:00:00 +0000\nSubject: two\n\nText\n";
        for text in [
            unix.to_owned(),
            unix.replace('\n', "\r\n"),
            format!("\u{feff}{unix}"),
        ] {
            let mailbox = read_bytes(text.as_bytes()).unwrap();
            let ledger = mailbox.ledger();
            assert_eq!(ledger.len(), 2);
            assert_eq!(ledger[0].labels, ["INBOX"]);
            let dates: Vec<_> = mailbox
                .ids()
                .iter()
                .map(|id| {
                    let id = super::super::mailbox::parse_hex(id).unwrap();
                    mailbox.message(id).unwrap().internal_date_ms
                })
                .collect();
            assert_eq!(dates, [883_699_200_000, 883_612_805_000]);
        }
    }

    #[test]
    fn takeout_gives_ids_threads_and_labels() {
        let text = "From 1873661540273559365@xxx Sun Aug 16 06:48:08 +0000 2026\r\nX-GM-THRID: 1873661540273559000\r\nX-Gmail-Labels: Inbox,Opened,Category Updates,\r\n \"Travel, 2023\",=?UTF-8?Q?Fr=C3=BChling?=\r\nSubject: one\r\n\r\nText\r\n";
        let twice = format!("{text}\r\n{text}");
        let mailbox = read_bytes(twice.as_bytes()).unwrap();
        let ledger = mailbox.ledger();
        assert_eq!(ledger.len(), 1, "a message under two labels is one message");
        assert_eq!(ledger[0].id, format!("{:x}", 1_873_661_540_273_559_365_u64));
        assert_eq!(
            ledger[0].thread_id,
            format!("{:x}", 1_873_661_540_273_559_000_u64)
        );
        assert_eq!(
            ledger[0].labels,
            ["CATEGORY_UPDATES", "INBOX", "Label_1", "Label_2"]
        );
        let names: Vec<_> = mailbox.labels().skip(14).map(|(_, name)| name).collect();
        assert_eq!(names, ["Travel, 2023", "Frühling"]);
        let message = mailbox.message(1_873_661_540_273_559_365).unwrap();
        assert!(message.raw.bytes().starts_with(b"Subject: one\r\n"));
        assert_eq!(message.internal_date_ms / 1000, 1_786_862_888);
    }

    #[test]
    fn a_file_that_is_no_mbox_is_named_with_what_was_expected() {
        for (bytes, expected) in [
            (&b""[..], "is empty"),
            (b"PK\x03\x04", "is no mbox file"),
            (b"Subject: one mail\n\nFrom here\n", "is no mbox file"),
        ] {
            let Err(error) = read_bytes(bytes) else {
                panic!("{bytes:?} was read");
            };
            let text = error.to_string();
            assert!(
                text.contains(expected) && text.contains("\"From \""),
                "{text}"
            );
        }
        let Err(error) = read(Path::new("/nowhere/at/all.mbox"), "me@example.com", 1) else {
            panic!("a missing file was read");
        };
        assert!(error.to_string().contains("/nowhere/at/all.mbox"));
    }
}
