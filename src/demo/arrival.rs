//! A message on its way into the mailbox: its bytes, or how to make them, and what Gmail reads off
//! them: the thread they belong to and the snippet. It changes no state.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use mail_parser::{HeaderValue, MessageParser};

use super::{generate, page};

/// A snippet's length, in characters.
const SNIPPET_CHARS: usize = 140;

/// The bytes of a message, or how to make them.
#[derive(Debug, Clone)]
pub enum Raw {
    /// Kept as they are.
    Bytes(Bytes),
    /// [`generate::bench_message`] makes them whenever they are asked for, so that a mailbox of a
    /// hundred thousand messages costs little memory.
    Generated {
        /// Which message.
        index: u64,
        /// About how long, in bytes.
        size: u32,
    },
}

impl Raw {
    /// The RFC 5322 bytes.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Generated { index, size } => {
                generate::bench_message(*index, *size as usize).into()
            }
        }
    }
}

/// A message to be put into the mailbox; what is not given follows from the bytes.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The id it had elsewhere.
    pub id: Option<u64>,
    /// The thread it belonged to elsewhere; else References and In-Reply-To decide.
    pub thread: Option<u64>,
    /// When it was accepted; else a minute after the youngest message.
    pub internal_date_ms: Option<i64>,
    /// Label ids.
    pub labels: Vec<String>,
    /// Its bytes.
    pub raw: Raw,
}

/// What the mailbox needs to know of a message's bytes. Message-IDs are kept as hashes.
pub(super) struct Read {
    pub(super) message_id: Option<u64>,
    pub(super) refers_to: Vec<u64>,
    pub(super) snippet: Box<str>,
    pub(super) size: u32,
}

impl Read {
    pub(super) fn of(raw: &Raw) -> Self {
        let bytes = match raw {
            Raw::Bytes(bytes) => bytes,
            Raw::Generated { index, size } => {
                return Self {
                    message_id: None,
                    refers_to: Vec::new(),
                    snippet: generate::bench_snippet(*index).into(),
                    size: *size,
                };
            }
        };
        let mut read = Self {
            message_id: None,
            refers_to: Vec::new(),
            snippet: "".into(),
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        let Some(message) = MessageParser::default().parse(&bytes[..]) else {
            return read;
        };
        read.message_id = message.message_id().map(hash);
        for header in [message.references(), message.in_reply_to()] {
            match header {
                HeaderValue::Text(id) => read.refers_to.push(hash(id)),
                HeaderValue::TextList(ids) => {
                    read.refers_to.extend(ids.iter().map(|id| hash(id)));
                }
                _ => {}
            }
        }
        let preview = message.body_preview(SNIPPET_CHARS).unwrap_or_default();
        let in_one_line: Vec<&str> = preview.split_whitespace().collect();
        read.snippet = page::escape(&in_one_line.join(" ")).into();
        read
    }
}

fn hash(message_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_are_escaped_and_in_one_line() {
        let raw = Bytes::from_static(b"Subject: s\r\n\r\nTom & \"Jerry\"\r\n  <b>");
        let read = Read::of(&Raw::Bytes(raw));
        assert_eq!(&*read.snippet, "Tom &amp; &quot;Jerry&quot; &lt;b&gt;");
    }

    #[test]
    fn what_is_no_mail_has_a_length_all_the_same() {
        for raw in [&b""[..], b"\0\xff\n\n\n", b"\r\n"] {
            let read = Read::of(&Raw::Bytes(Bytes::from_static(raw)));
            assert_eq!(read.size as usize, raw.len());
            assert_eq!(read.message_id, None);
        }
    }
}
