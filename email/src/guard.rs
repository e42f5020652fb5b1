//! What the message parser may see: a prefix or a patched copy of the raw message on which its time is bounded.
//!
//! mail-parser looks for each declared boundary up to the end of the message, so many boundaries that never come
//! cost (boundaries × bytes). It also decodes and parses attached messages inside itself. Both are limited here,
//! by counting, before it starts. Nothing is understood here beyond lines and tokens.

use std::borrow::Cow;
use std::io::BufRead;

use super::{MAX_HEADER_BYTES, MAX_RAW_BYTES, WarningCode, Warnings};

/// Boundaries × bytes that are looked at for one message, about a second of work at worst.
const BOUNDARY_WORK: usize = 1 << 30;
/// Shortest way to declare a boundary in a part of its own, in bytes; shorter messages need not be counted.
const BOUNDARY_BYTES: usize = 32;
/// Boundaries every message may have, however long it is.
const MIN_BOUNDARIES: usize = 64;

/// Stands for `rfc822` in a media type that was hidden from the parser.
pub(super) const HIDDEN_SUBTYPE: &str = "rfc82_";

/// The bytes to hand to the parser.
pub(super) fn prepare<'a>(raw: &'a [u8], warnings: &mut Warnings) -> Cow<'a, [u8]> {
    let mut bytes = raw.trim_ascii_start();
    if bytes.len() > MAX_RAW_BYTES {
        bytes = &bytes[..MAX_RAW_BYTES];
        warnings.add(
            WarningCode::LimitRawBytes,
            format!("only the first {MAX_RAW_BYTES} bytes were read"),
        );
    }
    let mut bytes = Cow::Borrowed(bytes);
    if has_bare_returns(&bytes) {
        // Old Macintosh line ends: the parser needs a line feed.
        let mut fed = bytes.into_owned();
        for at in 0..fed.len() {
            if fed[at] == b'\r' && fed.get(at + 1) != Some(&b'\n') {
                fed[at] = b'\n';
            }
        }
        bytes = Cow::Owned(fed);
    }
    let skipped = separator_length(&bytes);
    if skipped > 0 {
        bytes = match bytes {
            Cow::Borrowed(borrowed) => Cow::Borrowed(&borrowed[skipped..]),
            Cow::Owned(mut owned) => Cow::Owned(owned.split_off(skipped)),
        };
    }
    limit_headers(&mut bytes, warnings);
    end_header(&mut bytes);
    limit_boundaries(&mut bytes, warnings);
    hide_encoded_messages(&mut bytes);
    bytes
}

/// Whether the first line ends with a carriage return alone.
fn has_bare_returns(bytes: &[u8]) -> bool {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) => bytes[end] == b'\r' && bytes.get(end + 1) != Some(&b'\n'),
        None => false,
    }
}

/// The length of an mbox separator before the first field.
fn separator_length(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"From ") || bytes.starts_with(b">From ") {
        line_length(bytes)
    } else {
        0
    }
}

/// Bytes up to and including the next line feed, or all that is left.
fn line_length(bytes: &[u8]) -> usize {
    let mut reader = bytes;
    reader.skip_until(b'\n').unwrap_or(bytes.len())
}

/// Where the body of the message begins: after the first empty line.
fn header_length(bytes: &[u8]) -> usize {
    let mut position = 0;
    while position < bytes.len() {
        let length = line_length(&bytes[position..]);
        let line = &bytes[position..position + length];
        position += length;
        if line.trim_ascii().is_empty() {
            break;
        }
    }
    position
}

fn limit_headers(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    let length = header_length(bytes);
    if length <= MAX_HEADER_BYTES {
        return;
    }
    let mut cut = 0;
    while cut < length {
        let next = cut + line_length(&bytes[cut..]);
        if next > MAX_HEADER_BYTES {
            break;
        }
        cut = next;
    }
    if cut == 0 {
        cut = MAX_HEADER_BYTES;
    }
    let mut shortened = bytes[..cut].to_vec();
    shortened.extend_from_slice(b"\n\n");
    shortened.extend_from_slice(&bytes[length..]);
    *bytes = Cow::Owned(shortened);
    warnings.add(
        WarningCode::LimitHeaderBytes,
        format!("{length} bytes of header, the first {cut} were read"),
    );
}

/// Sets a body off from a header that no empty line ends: it begins with the first line that is no field and that no
/// field which every mail has follows.
fn end_header(bytes: &mut Cow<'_, [u8]>) {
    if header_length(bytes) < bytes.len() {
        return;
    }
    let mut body = None;
    let mut position = 0;
    while position < bytes.len() {
        let line = &bytes[position..position + line_length(&bytes[position..])];
        let colon = line.iter().position(|&byte| byte == b':');
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        match colon {
            Some(at) if is_common_field(line[..at].trim_ascii()) => body = None,
            None if !folded && !line.trim_ascii().is_empty() && position > 0 => {
                body = body.or(Some(position));
            }
            _ => {}
        }
        position += line.len();
    }
    if let Some(start) = body {
        bytes.to_mut().insert(start, b'\n');
    }
}

fn is_common_field(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] = [
        b"from",
        b"to",
        b"subject",
        b"date",
        b"message-id",
        b"received",
        b"content-type",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn limit_boundaries(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    let length = bytes.len();
    let allowed = (BOUNDARY_WORK / length.max(1)).max(MIN_BOUNDARIES);
    if length / BOUNDARY_BYTES <= allowed {
        return;
    }
    let mut seen = 0;
    let mut position = 0;
    while let Some(found) = find_token(bytes, b"boundary", position) {
        seen += 1;
        if seen > allowed {
            match bytes {
                Cow::Borrowed(borrowed) => *bytes = Cow::Borrowed(&borrowed[..found]),
                Cow::Owned(owned) => owned.truncate(found),
            }
            warnings.add(
                WarningCode::LimitParts,
                format!("more than {allowed} boundaries; read up to byte {found}"),
            );
            return;
        }
        position = found + 1;
    }
}

/// An attached message in base64 or quoted-printable would be decoded and parsed inside the parser, where nothing
/// limits it. In a message long enough for that to matter its media type is made unknown, so that it stays bytes.
fn hide_encoded_messages(bytes: &mut Cow<'_, [u8]>) {
    let length = bytes.len();
    if length / BOUNDARY_BYTES <= BOUNDARY_WORK / length.max(1) {
        return;
    }
    if find_token(bytes, b"base64", 0).is_none()
        && find_token(bytes, b"quoted-printable", 0).is_none()
    {
        return;
    }
    let mut patches = Vec::new();
    let mut position = 0;
    let mut in_type = false;
    while position < length {
        let line = &bytes[position..position + line_length(&bytes[position..])];
        let folded = line
            .first()
            .is_some_and(|first| matches!(first, b' ' | b'\t'));
        in_type = (in_type && folded) || names_type(line);
        if in_type {
            for (token, patch) in [
                (&b"rfc822"[..], HIDDEN_SUBTYPE.as_bytes()),
                (b"global", HIDDEN_SUBTYPE.as_bytes()),
                (b"digest", b"mixed_"),
            ] {
                if let Some(found) = find_token(line, token, 0) {
                    patches.push((position + found, patch));
                }
            }
        }
        position += line.len();
    }
    if patches.is_empty() {
        return;
    }
    let owned = bytes.to_mut();
    for (start, patch) in patches {
        owned[start..start + patch.len()].copy_from_slice(patch);
    }
}

/// Whether a line can hold the name Content-Type for the parser, which ignores blanks within a name.
fn names_type(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let mut name = Vec::with_capacity(16);
    for byte in line[..colon].iter().rev() {
        if !byte.is_ascii_whitespace() {
            name.push(byte.to_ascii_lowercase());
        }
        if name.len() == b"content-type".len() {
            break;
        }
    }
    name.reverse();
    name == b"content-type"
}

/// Where `token` (lower-case) next occurs, in any case, at or after `from`.
fn find_token(bytes: &[u8], token: &[u8], from: usize) -> Option<usize> {
    let first = *token.first()?;
    let last = bytes.len().checked_sub(token.len())?;
    let mut position = from;
    while position <= last {
        if bytes[position] | 0x20 == first | 0x20
            && bytes[position..position + token.len()].eq_ignore_ascii_case(token)
        {
            return Some(position);
        }
        position += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(raw: &[u8]) -> (Vec<u8>, Vec<WarningCode>) {
        let mut warnings = Warnings::default();
        let bytes = prepare(raw, &mut warnings).into_owned();
        (
            bytes,
            warnings.list.iter().map(|warning| warning.code).collect(),
        )
    }

    #[test]
    fn an_ordinary_message_is_not_copied() {
        let raw = b"From: a@example.com\r\nSubject: x\r\n\r\nbody";
        let mut warnings = Warnings::default();
        assert!(matches!(prepare(raw, &mut warnings), Cow::Borrowed(_)));
        assert!(warnings.list.is_empty());
    }

    #[test]
    fn an_mbox_separator_and_blank_lines_are_skipped() {
        let (bytes, _) = prepared(b"\r\n\nFrom 123@xxx Mon Jan 1\nSubject: x\n\nbody");
        assert_eq!(bytes, b"Subject: x\n\nbody");
    }

    #[test]
    fn a_body_that_no_empty_line_sets_off_is_set_off() {
        let (bytes, _) = prepared(b"From: a\nodd line\nSubject: x\nThe words.\nMore: words\n");
        assert_eq!(
            bytes,
            b"From: a\nodd line\nSubject: x\n\nThe words.\nMore: words\n"
        );
        let (alone, _) = prepared(b"From: a\nSubject: x\n folded\n");
        assert_eq!(alone, b"From: a\nSubject: x\n folded\n");
    }

    #[test]
    fn bare_returns_become_line_feeds() {
        let (bytes, _) = prepared(b"From a\rSubject: x\rTo: y\r\rbody\r\nend");
        assert_eq!(bytes, b"Subject: x\nTo: y\n\nbody\r\nend");
    }

    #[test]
    fn a_long_header_is_cut_at_a_line_and_the_body_stays() {
        let mut raw = Vec::new();
        while raw.len() < MAX_HEADER_BYTES + 1000 {
            raw.extend_from_slice(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
        }
        raw.extend_from_slice(b"\nthe body");
        let (bytes, codes) = prepared(&raw);
        assert!(bytes.ends_with(b"aaa\n\n\nthe body"));
        assert!(bytes.len() <= MAX_HEADER_BYTES + 20);
        assert_eq!(codes, [WarningCode::LimitHeaderBytes]);
    }

    #[test]
    fn a_long_message_hides_encoded_messages_from_the_parser() {
        let mut raw =
            b"Content-Type:\n message/RFC822\nContent-Transfer-Encoding: base64\n\n".to_vec();
        raw.resize(400_000, b'A');
        let (bytes, _) = prepared(&raw);
        assert!(bytes.starts_with(b"Content-Type:\n message/rfc82_\n"));
    }
}
