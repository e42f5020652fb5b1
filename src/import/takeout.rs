//! What Google Takeout writes before a message's own headers: the thread and the labels. Both are
//! taken off, so that what is left is the message as it was sent. A message that was put back from an
//! older export begins with such headers itself: what comes a second time is the message's own.
//!
//! The ids are decimal where the API has them in hexadecimal, and labels have names where it has ids.

use mail_parser::{HeaderName, HeaderValue, MessageParser};

/// Takeout's header of the thread, in decimal.
const THREAD_HEADER: &str = "X-GM-THRID";
/// Takeout's header of the labels, separated by commas.
const LABELS_HEADER: &str = "X-Gmail-Labels";
/// Labels of one message that are read; Gmail allows 10,000 in a mailbox.
const MAX_LABELS: usize = 1_000;

/// What Takeout says of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Takeout {
    /// The thread's id.
    pub thread: Option<u64>,
    /// The names of the labels; absent where the export says nothing of labels.
    pub labels: Option<Vec<String>>,
}

impl Takeout {
    /// Reads Takeout's headers at the beginning of a message and cuts them out.
    pub fn take(raw: &mut Vec<u8>) -> Self {
        let mut takeout = Self::default();
        let (mut thread_taken, mut labels_taken) = (false, false);
        let mut at = 0;
        while let Some(end) = header_end(&raw[at..]) {
            let header = &raw[at..at + end];
            if !thread_taken && is_named(header, THREAD_HEADER) {
                thread_taken = true;
                takeout.thread = text(header).and_then(|text| text.trim().parse().ok());
            } else if !labels_taken && is_named(header, LABELS_HEADER) {
                labels_taken = true;
                takeout.labels = text(header).map(|names| split_names(&names));
            } else {
                break;
            }
            at += end;
        }
        raw.drain(..at);
        takeout
    }
}

fn is_named(header: &[u8], name: &str) -> bool {
    header.get(name.len()) == Some(&b':')
        && header[..name.len()].eq_ignore_ascii_case(name.as_bytes())
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
fn text(header: &[u8]) -> Option<String> {
    // Under the name of Subject the parser reads it as text, encoded words included.
    let colon = header.iter().position(|&byte| byte == b':')?;
    let mut as_subject = b"Subject".to_vec();
    as_subject.extend_from_slice(&header[colon..]);
    as_subject.extend_from_slice(b"\r\n");
    let headers = MessageParser::default().parse_headers(&as_subject)?;
    match headers.header(HeaderName::Subject)? {
        HeaderValue::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Names between commas; a name with a comma in it stands in quotes, and a quote within them is
/// doubled or has a backslash before it.
fn split_names(names: &str) -> Vec<String> {
    let mut split = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut characters = names.chars().chain([',']).peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            // The one behind the last name ends it even if its quotes do not end.
            ',' if !quoted || characters.peek().is_none() => {
                let whole = name.trim();
                if !whole.is_empty() && split.len() < MAX_LABELS {
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
    use super::*;

    fn take(text: &str) -> (Takeout, String) {
        let mut raw = text.as_bytes().to_vec();
        let takeout = Takeout::take(&mut raw);
        (takeout, String::from_utf8(raw).unwrap())
    }

    fn names(header: &str) -> Vec<String> {
        take(&format!("X-Gmail-Labels: {header}\r\nSubject: s\r\n\r\n"))
            .0
            .labels
            .unwrap()
    }

    #[test]
    fn both_headers_are_read_and_taken_off() {
        let (takeout, rest) = take(
            "X-GM-THRID: 1873661540273559000\r\nX-Gmail-Labels: Inbox,Opened\r\nSubject: one\r\n\r\nX-GM-THRID: 5\r\n",
        );
        assert_eq!(takeout.thread, Some(1_873_661_540_273_559_000));
        assert_eq!(takeout.labels.unwrap(), ["Inbox", "Opened"]);
        assert_eq!(rest, "Subject: one\r\n\r\nX-GM-THRID: 5\r\n");
    }

    #[test]
    fn headers_of_an_older_export_belong_to_the_message() {
        let own = "X-GM-THRID: 7\r\nX-Gmail-Labels: Sent\r\nSubject: one\r\n\r\n";
        for first in [
            "X-GM-THRID: 5\r\nX-Gmail-Labels: Inbox\r\n",
            "X-Gmail-Labels: Inbox\r\nX-GM-THRID: 5\r\n",
        ] {
            let (takeout, rest) = take(&format!("{first}{own}"));
            assert_eq!(takeout.thread, Some(5));
            assert_eq!(takeout.labels.unwrap(), ["Inbox"]);
            assert_eq!(rest, own);
        }
        let (takeout, rest) = take("X-GM-THRID: many\nX-GM-THRID: 7\n\n");
        assert_eq!((takeout.thread, rest.as_str()), (None, "X-GM-THRID: 7\n\n"));
    }

    #[test]
    fn a_message_without_them_is_left_alone() {
        for text in ["", "\n", "Subject: one\nX-GM-THRID: 5\n\n", "X-GM-THRID: 5"] {
            assert_eq!(take(text), (Takeout::default(), text.to_owned()));
        }
        let (takeout, rest) = take("X-GM-THRID: many\nX-Gmail-Labels:\n\n");
        assert_eq!((takeout.thread, rest.as_str()), (None, "\n"));
    }

    #[test]
    fn names_are_unfolded_decoded_and_parted_outside_quotes() {
        assert_eq!(
            names("Inbox,\"Travel, 2023\",\r\n \"say \"\"hi\"\"\",a/b,,"),
            ["Inbox", "Travel, 2023", "say \"hi\"", "a/b"]
        );
        assert_eq!(
            names("=?UTF-8?Q?Archiv=C3=A9s,Envoy=C3=A9?="),
            ["Archivés", "Envoyé"]
        );
        // A name that goes over the end of an encoded word, and one with a comma inside the words.
        assert_eq!(
            names(
                "=?UTF-8?Q?Ouvert,Cat=C3=A9gorie=C2=A0:_E-mails_?=\r\n =?UTF-8?Q?personnels,\"B,_=C3=A9\"?="
            ),
            ["Ouvert", "Catégorie\u{a0}: E-mails personnels", "B, é"]
        );
        assert_eq!(
            names("Inbox,=?UTF-8?B?5Lit5paH?=,Opened"),
            ["Inbox", "中文", "Opened"]
        );
        assert_eq!(names("\"open, quote"), ["open, quote"]);
    }
}
