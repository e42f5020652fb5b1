//! A person's own mbox file as a mailbox. Takeout's headers give Gmail's ids, threads and labels;
//! any other mbox lands in the inbox. It reads the whole file and writes nothing.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use mail_parser::MessageParser;

use super::{
    arrival::{Arrival, Raw},
    mailbox::Mailbox,
};
use crate::import::{
    labels,
    mbox::{self, Reader},
    takeout::Takeout,
};

/// Longest message that is taken, in bytes, as Gmail has it.
const MAX_MESSAGE_BYTES: usize = 50 << 20;

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
    let input = BufReader::new(File::open(path).map_err(failed)?);
    let mut reader = Reader::new(input, MAX_MESSAGE_BYTES).map_err(|error| match error {
        mbox::MboxError::NotMbox => MboxError::NotMbox(path.to_owned()),
        mbox::MboxError::Read(source) => failed(source),
    })?;
    let mut mailbox = Mailbox::new(email_address, seed);
    let mut last_ms = 0;
    let mut is_empty = true;
    while let Some(message) = reader.next_message().map_err(failed)? {
        is_empty = false;
        let gmail_id = message.gmail_id();
        let separator_ms = message.separator_date().map(|date| date.timestamp_millis());
        let mut contents = message.raw;
        let takeout = Takeout::take(&mut contents);
        let internal_date_ms = match gmail_id {
            // The id tells the time to the millisecond.
            Some(id) => i64::try_from(id >> 20).unwrap_or(last_ms),
            None => separator_ms
                .filter(|&milliseconds| milliseconds > 0)
                .or_else(|| date_ms(&contents))
                .unwrap_or(last_ms + 1000),
        };
        last_ms = internal_date_ms;
        let label_ids = match takeout.labels {
            Some(names) => label_ids(&mut mailbox, names),
            None => vec!["INBOX".to_owned()],
        };
        mailbox.place(Arrival {
            id: gmail_id,
            thread: takeout.thread,
            internal_date_ms: Some(internal_date_ms),
            labels: label_ids,
            raw: Raw::Bytes(contents.into_boxed_slice().into()),
        });
    }
    if is_empty {
        return Err(MboxError::Empty(path.to_owned()));
    }
    Ok(mailbox)
}

/// When a message was sent, by its own word.
fn date_ms(contents: &[u8]) -> Option<i64> {
    let headers = MessageParser::default().parse_headers(contents)?;
    let seconds = headers.date()?.to_timestamp();
    (seconds > 0).then_some(seconds.saturating_mul(1000))
}

/// Label ids for Takeout's label names.
fn label_ids(mailbox: &mut Mailbox, names: Vec<String>) -> Vec<String> {
    let sorted = labels::sort(names);
    let mut ids = sorted.ids;
    ids.extend(sorted.names.iter().map(|name| mailbox.create_label(name)));
    ids
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
