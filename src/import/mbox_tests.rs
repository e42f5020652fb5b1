//! What the reader makes of each dialect of mbox, and of what is none.

use std::io::{BufReader, Cursor};

use super::*;

const ONE: &str = "From a@example.com Thu Jan  1 00:00:05 1998\n";
const TWO: &str = "From b@example.com Fri Jan  2 00:00:05 1998\n";

fn read_with(bytes: &[u8], max_bytes: usize) -> Vec<Message> {
    // A small buffer, so that lines go over its end.
    let input = BufReader::with_capacity(7, Cursor::new(bytes.to_vec()));
    let mut reader = Reader::new(input, max_bytes).unwrap();
    let mut messages = Vec::new();
    while let Some(message) = reader.next_message().unwrap() {
        messages.push(message);
    }
    assert_eq!(
        messages.last().map_or(0, |last| last.end),
        bytes.len() as u64
    );
    messages
}

fn read(text: &str) -> Vec<String> {
    read_with(text.as_bytes(), 1 << 20)
        .into_iter()
        .map(|message| String::from_utf8(message.raw).unwrap())
        .collect()
}

#[test]
fn messages_come_as_they_were_before_they_were_put_into_the_file() {
    let text = format!(
        "{ONE}Subject: one\n\nText\n>From the start\n>>From a quote\n> From\n\n{TWO}Subject: two\n\nEnd\n\n"
    );
    let unix = [
        "Subject: one\n\nText\nFrom the start\n>From a quote\n> From\n",
        "Subject: two\n\nEnd\n",
    ];
    assert_eq!(read(&text), unix);
    assert_eq!(read(&format!("\u{feff}{text}")), unix);
    assert_eq!(read(&format!("\n\r\n{text}")), unix);
    let dos = unix.map(|message| message.replace('\n', "\r\n"));
    assert_eq!(read(&text.replace('\n', "\r\n")), dos);
}

#[test]
fn a_separator_may_lack_its_blank_line_if_it_is_dated_and_a_message_follows() {
    let text = format!("{ONE}Subject: one\n\nText\n{TWO}Subject: two\n\nText\n");
    assert_eq!(read(&text).len(), 2);
    let quoted = format!("{ONE}Subject: one\n\nHe wrote\n{TWO}and no more\n");
    assert_eq!(read(&quoted).len(), 1);
}

#[test]
fn what_only_looks_a_little_like_a_separator_is_text() {
    for line in [
        "From Russia with love\nYear: 1963",
        "From here on",
        "From 9:30 to 10:30",
        "From",
        "From - \nand no header",
    ] {
        let text = format!("{ONE}Subject: one\n\nText\n\n{line}\n\nMore\n");
        assert_eq!(read(&text).len(), 1, "{line}");
    }
    let dash = format!("{ONE}Subject: one\n\nText\n\nFrom -\nSubject: two\n\nMore\n");
    assert_eq!(read(&dash).len(), 2);
}

#[test]
fn a_takeout_file_is_parted_by_its_own_separators_alone() {
    let takeout = "From 18@xxx Sun Aug 16 06:48:08 +0000 2026\n";
    let text = format!(
        "{takeout}Content-Length: 3\n\nText\n\n{ONE}Subject: quoted\n\nMore\n\n{takeout}\n\nEnd\n"
    );
    let messages = read_with(text.as_bytes(), 1 << 20);
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].gmail_id(), Some(18));
    assert!(messages[0].raw.ends_with(b"Subject: quoted\n\nMore\n"));
    let date = messages[0].separator_date().unwrap();
    assert_eq!(date.to_rfc3339(), "2026-08-16T06:48:08+00:00");
}

#[test]
fn a_measured_body_is_taken_as_it_is() {
    let body = format!("Text\n\n{TWO}Subject: inner\n\n>From here\n");
    let length = body.len();
    let text = format!(
        "{ONE}Subject: one\nContent-Length: {length}\n\n{body}\n{TWO}content-length: 2\n\nEn\n\n{ONE}Content-Length: 3\n\nEnd"
    );
    let expected = [
        format!("Subject: one\nContent-Length: {length}\n\n{body}"),
        "content-length: 2\n\nEn".to_owned(),
        "Content-Length: 3\n\nEnd".to_owned(),
    ];
    assert_eq!(read(&text), expected);
}

#[test]
fn a_wrong_length_is_not_believed() {
    for length in ["0", "3", "12", "4000", "99999999999999999999", "-1", "x"] {
        let text = format!("{ONE}Content-Length: {length}\n\nText\n>From me\n\n{TWO}A: b\n\nEnd\n");
        let expected = format!("Content-Length: {length}\n\nText\nFrom me\n");
        assert_eq!(
            read(&text),
            [expected, "A: b\n\nEnd\n".to_owned()],
            "{length}"
        );
    }
}

#[test]
fn a_file_of_wrong_lengths_is_read_in_linear_time() {
    // Each would have everything behind it read once more.
    let message = format!("{ONE}Content-Length: 50000000\n\nText\n\n");
    let text = message.repeat(20_000);
    assert_eq!(read_with(text.as_bytes(), 64 << 20).len(), 20_000);
}

#[test]
fn a_message_longer_than_the_cap_is_cut_and_the_next_one_found() {
    let long = "x".repeat(200_000);
    let text = format!("{ONE}Subject: one\n\n{long}\n{long}\n\n{TWO}Subject: two\n\nText\n");
    let messages = read_with(text.as_bytes(), 100_000);
    assert_eq!((messages[0].raw.len(), messages[0].cut), (100_000, true));
    assert_eq!(messages[1].raw, b"Subject: two\n\nText\n");
    assert!(!messages[1].cut);
}

#[test]
fn the_ends_say_where_reading_can_go_on() {
    let text = format!("{ONE}A: b\n\nOne\n\n{TWO}A: b\n\nTwo\n\n{ONE}A: b\n\nThree\n");
    let messages = read_with(text.as_bytes(), 1000);
    let rest = &text[usize::try_from(messages[0].end).unwrap()..];
    assert_eq!(read(rest), ["A: b\n\nTwo\n", "A: b\n\nThree\n"]);
}

#[test]
fn a_file_that_is_no_mbox_is_refused_and_an_empty_one_has_no_messages() {
    for bytes in [
        &b"PK\x03\x04"[..],
        b"Subject: a mail\n\nFrom here\n",
        b"\xff\xfe",
    ] {
        let refused = Reader::new(Cursor::new(bytes), 1000);
        assert!(matches!(refused, Err(MboxError::NotMbox)), "{bytes:?}");
    }
    for bytes in [&b""[..], b"\n\n"] {
        let mut reader = Reader::new(Cursor::new(bytes), 1000).unwrap();
        assert_eq!(reader.next_message().unwrap(), None);
    }
}

#[test]
fn any_bytes_are_read_to_their_end() {
    // What follows is neither text nor a message, and each byte of it is somebody's.
    let mut bytes = ONE.as_bytes().to_vec();
    let mut state = 7_u64;
    for _ in 0..200_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let pieces: [&[u8]; 8] = [
            b"From ",
            b"\n",
            b"\r\n",
            b">",
            b":",
            b"\0\xff",
            b"Content-Length: 9",
            TWO.as_bytes(),
        ];
        bytes.extend_from_slice(pieces[(state >> 61) as usize]);
    }
    let messages = read_with(&bytes, 1 << 20);
    assert!(messages.len() > 1000, "{}", messages.len());
}
