//! What the message parser may see: a prefix or a patched copy of the raw message on which its time is bounded.
//!
//! mail-parser looks for each declared boundary up to the end of the message, so many boundaries that never come cost
//! (boundaries × bytes), and a long one that nearly comes at every dash costs (its length × dashes). Pieces of
//! parameters cost it the square of their number, and it decodes and parses attached messages inside itself. All is
//! limited here, by counting, before it starts. Nothing is understood here beyond lines and tokens.

use std::borrow::Cow;
use std::io::BufRead;

use super::{MAX_HEADER_BYTES, MAX_RAW_BYTES, WarningCode, Warnings};

/// Boundaries × bytes that are looked at for one message, about a second of work at worst.
const BOUNDARY_WORK: usize = 1 << 30;
/// Boundaries every message may have, however long it is.
const MIN_BOUNDARIES: usize = 16;
/// Longest message of which nothing need be counted: it cannot hold enough of anything to cost a second.
const HARMLESS_BYTES: usize = 64 << 10;
/// Most delimiters of parts that the parser sees: each part takes some hundred bytes.
const MAX_PARTS: usize = 50_000;
/// Most attached messages that it sees, which take more; the others stay attachments that nobody looks into.
const MAX_MESSAGES: usize = 10_000;
/// Most lines in a row that the parser may take for fields, which take as much each.
const MAX_FIELDS: usize = 10_000;
/// Bytes of a boundary by which delimiters are counted.
const PREFIX_BYTES: usize = 16;
/// Most boundaries that are told apart when delimiters are counted.
const MAX_PREFIXES: usize = 64;
/// Most pieces of parameters of one field that the parser sees.
const MAX_PIECES: usize = 1_000;

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
    limit_pieces(&mut bytes, warnings);
    limit_fields(&mut bytes);
    hide_messages(&mut bytes, warnings);
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
pub(super) fn header_length(bytes: &[u8]) -> usize {
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

/// Cuts a message where boundaries would cost too much: see the top of this file.
fn limit_boundaries(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    let length = bytes.len();
    if length <= HARMLESS_BYTES {
        return;
    }
    let allowed = (BOUNDARY_WORK / length).max(MIN_BOUNDARIES);
    let mut seen = 0;
    let mut longest = 0;
    let mut pieces = 0;
    let mut prefixes: Vec<Vec<u8>> = Vec::new();
    let mut position = 0;
    while let Some(found) = find_token(bytes, b"boundary", position) {
        seen += 1;
        if seen > allowed {
            cut(bytes, found);
            warnings.add(
                WarningCode::LimitParts,
                format!("more than {allowed} boundaries; read up to byte {found}"),
            );
            break;
        }
        let (value, piece) = boundary_value(&bytes[found + b"boundary".len()..]);
        pieces += if piece { value.len() } else { 0 };
        longest = longest.max(value.len()).max(pieces);
        let prefix = &value[..value.len().min(PREFIX_BYTES)];
        if !value.is_empty()
            && prefixes.len() <= MAX_PREFIXES
            && !prefixes.iter().any(|known| known == prefix)
        {
            prefixes.push(prefix.to_vec());
        }
        position = found + 1;
    }
    if longest == 0 {
        return;
    }
    limit_parts(bytes, &prefixes, warnings);
    // At each two dashes the parser compares as much of a boundary as agrees.
    let dashes = BOUNDARY_WORK / longest / seen.min(allowed);
    let start = header_length(bytes);
    let mut pairs = bytes[start..]
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| *pair == b"--");
    if let Some((offset, _)) = pairs.nth(dashes) {
        let found = start + offset;
        cut(bytes, found);
        warnings.add(
            WarningCode::LimitParts,
            format!("boundaries of up to {longest} bytes among dashes; read up to byte {found}"),
        );
    }
}

fn cut(bytes: &mut Cow<'_, [u8]>, length: usize) {
    match bytes {
        Cow::Borrowed(borrowed) => *bytes = Cow::Borrowed(&borrowed[..length]),
        Cow::Owned(owned) => owned.truncate(length),
    }
}

/// The value in ` = "value"`, and whether it is a piece of one (`*0="value"`, RFC 2231).
fn boundary_value(rest: &[u8]) -> (&[u8], bool) {
    let head = &rest[..rest.len().min(16)];
    let Some(sign) = head.iter().position(|&byte| byte == b'=') else {
        return (&[], false);
    };
    let piece = head[..sign].contains(&b'*');
    let value = rest[sign + 1..].trim_ascii_start();
    if let Some(quoted) = value.strip_prefix(b"\"") {
        let end = quoted.iter().position(|&byte| byte == b'"');
        return (&quoted[..end.unwrap_or(quoted.len())], piece);
    }
    let end = value.iter().position(|byte| b"; \t\r\n".contains(byte));
    (&value[..end.unwrap_or(value.len())], piece)
}

/// Cuts a message that has too many delimiters.
fn limit_parts(bytes: &mut Cow<'_, [u8]>, prefixes: &[Vec<u8>], warnings: &mut Warnings) {
    let any = prefixes.len() > MAX_PREFIXES;
    let mut firsts = [false; 256];
    for prefix in prefixes {
        firsts[usize::from(prefix[0])] = true;
    }
    let delimits = |at: usize| {
        let rest = &bytes[at + 2..];
        let first = rest.first().copied().unwrap_or_default();
        firsts[usize::from(first)]
            && (any || prefixes.iter().any(|prefix| rest.starts_with(prefix)))
    };
    let start = header_length(bytes);
    let found = bytes[start..]
        .windows(2)
        .enumerate()
        .filter(|(at, pair)| *pair == b"--" && delimits(start + at))
        .nth(MAX_PARTS);
    if let Some((offset, _)) = found {
        let at = start + offset;
        cut(bytes, at);
        warnings.add(
            WarningCode::LimitParts,
            format!("more than {MAX_PARTS} parts; read up to byte {at}"),
        );
    }
}

/// Sets lines apart that the parser would take for ever more fields of one header.
fn limit_fields(bytes: &mut Cow<'_, [u8]>) {
    if bytes.len() <= HARMLESS_BYTES {
        return;
    }
    let mut breaks = Vec::new();
    let mut position = 0;
    let mut row = 0;
    while position < bytes.len() {
        let line = &bytes[position..position + line_length(&bytes[position..])];
        row = if line.contains(&b':') { row + 1 } else { 0 };
        position += line.len();
        if row == MAX_FIELDS {
            breaks.push(position);
            row = 0;
        }
    }
    if breaks.is_empty() {
        return;
    }
    let mut parted = Vec::with_capacity(bytes.len() + breaks.len());
    let mut copied = 0;
    for at in breaks {
        parted.extend_from_slice(&bytes[copied..at]);
        parted.push(b'\n');
        copied = at;
    }
    parted.extend_from_slice(&bytes[copied..]);
    *bytes = Cow::Owned(parted);
}

/// Pieces of parameters (RFC 2231) cost the parser the product of their number and their length, and languages the
/// square of theirs. Past some of them the sign they are known by is taken from a field.
fn limit_pieces(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    if bytes.len() <= HARMLESS_BYTES {
        return;
    }
    let mut patches = Vec::new();
    let mut position = 0;
    let mut in_field = false;
    let mut signs = 0;
    while position < bytes.len() {
        let line = &bytes[position..position + line_length(&bytes[position..])];
        let folded = line
            .first()
            .is_some_and(|first| matches!(first, b' ' | b'\t'));
        if !folded {
            in_field =
                names_field(line, b"content-type") || names_field(line, b"content-disposition");
            signs = 0;
        }
        if in_field {
            for (at, _) in line.iter().enumerate().filter(|(_, byte)| **byte == b'*') {
                signs += 1;
                if signs > MAX_PIECES {
                    patches.push(position + at);
                }
            }
        }
        position += line.len();
    }
    if patches.is_empty() {
        return;
    }
    let owned = bytes.to_mut();
    for at in patches {
        owned[at] = b'_';
    }
    warnings.add(
        WarningCode::LimitHeaderBytes,
        format!("a field has more than {MAX_PIECES} pieces of parameters"),
    );
}

/// An attached message in base64 or quoted-printable would be decoded and parsed inside the parser, where nothing
/// limits it, and each attached message takes memory. In a message long enough for that to matter the media type of
/// those is made unknown, so that they stay bytes.
fn hide_messages(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    let length = bytes.len();
    if length <= HARMLESS_BYTES {
        return;
    }
    let encoded = find_token(bytes, b"base64", 0).is_some()
        || find_token(bytes, b"quoted-printable", 0).is_some();
    let mut patches = Vec::new();
    let mut position = 0;
    let mut in_type = false;
    while position < length {
        let line = &bytes[position..position + line_length(&bytes[position..])];
        let folded = line
            .first()
            .is_some_and(|first| matches!(first, b' ' | b'\t'));
        in_type = (in_type && folded) || names_field(line, b"content-type");
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
    if !encoded {
        patches.drain(..patches.len().min(MAX_MESSAGES));
        if !patches.is_empty() {
            warnings.add(
                WarningCode::LimitParts,
                format!("more than {MAX_MESSAGES} attached messages"),
            );
        }
    }
    if patches.is_empty() {
        return;
    }
    let owned = bytes.to_mut();
    for (start, patch) in patches {
        owned[start..start + patch.len()].copy_from_slice(patch);
    }
}

/// Whether a line can hold the field `name` (lower-case) for the parser, which ignores blanks within a name.
fn names_field(line: &[u8], name: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let mut expected = name.iter().rev();
    for byte in line[..colon].iter().rev() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        match expected.next() {
            Some(known) if known.eq_ignore_ascii_case(byte) => {}
            // What stands before the name belongs to no field the parser knows.
            None => return true,
            Some(_) => return false,
        }
    }
    expected.next().is_none()
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
    fn a_boundary_that_nearly_comes_at_every_dash_is_bounded() {
        let mut raw = b"Content-Type: multipart/mixed; boundary=\"".to_vec();
        raw.resize(raw.len() + 100_000, b'-');
        raw.extend_from_slice(b"x\"\n\n");
        raw.resize(raw.len() + 1_000_000, b'-');
        let (bytes, codes) = prepared(&raw);
        assert!(bytes.len() < 120_000, "{}", bytes.len());
        assert_eq!(codes, [WarningCode::LimitParts]);
        let quiet = [raw[..100_050].to_vec(), vec![b'a'; 1_000_000]].concat();
        assert_eq!(prepared(&quiet).1, []);
    }

    #[test]
    fn pieces_of_parameters_are_bounded_in_every_header() {
        let mut raw =
            b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment"
                .to_vec();
        for number in 0..20_000 {
            raw.extend_from_slice(format!(";\n filename*{number}=a").as_bytes());
        }
        raw.extend_from_slice(b"\n\na * in the text\n--b--\n");
        let (bytes, codes) = prepared(&raw);
        let signs = bytes.iter().filter(|&&byte| byte == b'*').count();
        assert_eq!(signs, MAX_PIECES + 1);
        assert_eq!(codes, [WarningCode::LimitHeaderBytes]);
    }

    #[test]
    fn parts_fields_and_messages_are_bounded() {
        let head = "Content-Type: multipart/mixed; boundary=b\n\n";
        let parts = format!("{head}{}", "--b\n\nz\n".repeat(MAX_PARTS + 10));
        let (bytes, codes) = prepared(parts.as_bytes());
        assert_eq!(bytes.len(), head.len() + 7 * MAX_PARTS);
        assert_eq!(codes, [WarningCode::LimitParts]);
        // Dashes that delimit nothing are not counted.
        let rules = format!("{head}--b\n\n{}", "----------\n".repeat(MAX_PARTS));
        assert_eq!(prepared(rules.as_bytes()).1, []);
        let fields = format!("{head}--b\n{}", "a: b c d e\n".repeat(MAX_FIELDS * 2 + 5));
        let (bytes, _) = prepared(fields.as_bytes());
        assert_eq!(bytes.len(), fields.len() + 2);
        let nested = "Content-Type: message/rfc822\n\n".repeat(MAX_MESSAGES + 7);
        let (bytes, codes) = prepared(nested.as_bytes());
        assert_eq!(
            bytes.windows(5).filter(|five| *five == b"rfc82").count(),
            MAX_MESSAGES + 7
        );
        assert_eq!(bytes.windows(6).filter(|six| *six == b"rfc82_").count(), 7);
        assert_eq!(codes, [WarningCode::LimitParts]);
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
