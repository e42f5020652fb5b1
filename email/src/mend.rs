//! Transfer encodings that the message parser would refuse, mended before it sees them: it gives a whole part up for
//! one character. RFC 2045, 6.8 has readers pass over what is no base64; mailing lists append plain footers to it.
//!
//! Only the body of a part whose own header names the encoding is touched. Nothing is decoded here.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{WarningCode, Warnings};

/// Most changes that are made to one message.
const MAX_EDITS: usize = 10_000;

/// Bytes to be replaced.
struct Edit {
    start: usize,
    end: usize,
    by: &'static [u8],
}

/// Where the lines are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Header,
    /// A body that is left as it is.
    Body,
    Base64 {
        /// Whether a line of base64 was seen.
        data: bool,
        /// Whether it is over: the rest is something else.
        over: bool,
    },
    QuotedPrintable,
}

/// What a header block said of its body.
#[derive(Default)]
struct Header<'a> {
    /// Name and value of the field that is being read, for its folded lines.
    field: Option<&'static [u8]>,
    /// The transfer encoding, and where its name stands.
    encoding: Option<(&'a [u8], usize)>,
    message: bool,
}

/// Mends base64 and quoted-printable bodies of a message; what was mended is flagged.
pub(super) fn repair(bytes: &mut Cow<'_, [u8]>, warnings: &mut Warnings) {
    let (edits, closing) = find_edits(bytes);
    if edits.is_empty() && closing.is_empty() {
        return;
    }
    let mut mended = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for edit in &edits {
        mended.extend_from_slice(&bytes[copied..edit.start]);
        mended.extend_from_slice(edit.by);
        copied = edit.end;
    }
    mended.extend_from_slice(&bytes[copied..]);
    mended.extend_from_slice(&closing);
    *bytes = Cow::Owned(mended);
    warnings.add(
        WarningCode::TransferEncoding,
        "a part ends early, or has characters that are not of its transfer encoding",
    );
}

/// What to change, and the boundary to add at the end: without it the parser gives an encoded part up.
fn find_edits(bytes: &[u8]) -> (Vec<Edit>, Vec<u8>) {
    let mut edits = Vec::new();
    let mut last = None;
    let mut boundaries: HashSet<&[u8]> = HashSet::new();
    let mut header = Header::default();
    let mut place = Place::Header;
    let mut start = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let from = start;
        start += line.len();
        if edits.len() >= MAX_EDITS {
            break;
        }
        if let Some(name) = boundary_line(line, &boundaries) {
            last = Some(name);
            place = Place::Header;
            header = Header::default();
            continue;
        }
        match &mut place {
            Place::Header if line.trim_ascii().is_empty() => {
                place = body_of(&header);
                if place == Place::Header {
                    header = Header::default();
                }
            }
            Place::Header => read_field(line, from, &mut header, &mut boundaries),
            Place::Body => {}
            Place::Base64 { data, over } => match judge(line, *data) {
                _ if *over => edits.push(Edit {
                    start: from,
                    end: start,
                    by: b"",
                }),
                Line::Blank => {}
                Line::Base64 => *data = true,
                Line::Mixed => {
                    *data = true;
                    for (at, byte) in line.iter().enumerate() {
                        if !is_base64(*byte) && !byte.is_ascii_whitespace() {
                            edits.push(Edit {
                                start: from + at,
                                end: from + at + 1,
                                by: b"",
                            });
                        }
                    }
                }
                Line::Other if *data => {
                    *over = true;
                    edits.push(Edit {
                        start: from,
                        end: start,
                        by: b"",
                    });
                }
                Line::Other => {
                    // It never was base64: the label is wrong.
                    if let Some((_, at)) = header.encoding {
                        edits.push(Edit {
                            start: at,
                            end: at + b"base64".len(),
                            by: b"8bit",
                        });
                    }
                    place = Place::Body;
                }
            },
            Place::QuotedPrintable => lone_signs(line, from, &mut edits),
        }
    }
    let encoded = !matches!(place, Place::Header | Place::Body);
    match last.filter(|_| encoded) {
        Some(name) => (edits, [b"\n--", name, b"--\n"].concat()),
        None => (edits, Vec::new()),
    }
}

/// What a line of a base64 body is.
enum Line {
    Blank,
    Base64,
    /// Base64 with some other characters in it.
    Mixed,
    Other,
}

fn judge(line: &[u8], data: bool) -> Line {
    let text = line.trim_ascii();
    if text.is_empty() {
        return Line::Blank;
    }
    let foreign = text.iter().filter(|byte| !is_base64(**byte)).count();
    if foreign == 0 {
        return Line::Base64;
    }
    // Words have blanks between them, base64 has none; a separator of a footer is nothing but foreign.
    let blanks = text.iter().any(|byte| byte.is_ascii_whitespace());
    if blanks || text.starts_with(b"--") || foreign * 8 > text.len() || !data && foreign > 1 {
        return Line::Other;
    }
    Line::Mixed
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// An equals sign that blanks or another one follow, at once or after one digit, stands for itself.
fn lone_signs(line: &[u8], from: usize, edits: &mut Vec<Edit>) {
    let mut at = 0;
    while let Some(found) = line[at..].iter().position(|&byte| byte == b'=') {
        let sign = at + found;
        at = sign + 1;
        let after = &line[at..];
        let lone = match (after.first(), after.get(1)) {
            (Some(b'='), _) => true,
            (Some(digit), Some(b'=')) => digit.is_ascii_hexdigit(),
            // A soft line break may have blanks behind it, nothing else.
            (Some(b' ' | b'\t'), _) => !after.trim_ascii().is_empty(),
            _ => false,
        };
        if lone {
            edits.push(Edit {
                start: from + sign,
                end: from + sign + 1,
                by: b"=3D",
            });
        }
    }
}

/// The boundary that a line is, or that it closes.
fn boundary_line<'a>(line: &[u8], boundaries: &HashSet<&'a [u8]>) -> Option<&'a [u8]> {
    let name = line.strip_prefix(b"--")?.trim_ascii_end();
    let known = boundaries.get(name);
    let closed = || boundaries.get(name.strip_suffix(b"--")?);
    known.or_else(closed).copied()
}

fn body_of(header: &Header<'_>) -> Place {
    match header.encoding {
        Some((name, _)) if name.eq_ignore_ascii_case(b"base64") => Place::Base64 {
            data: false,
            over: false,
        },
        Some((name, _)) if name.eq_ignore_ascii_case(b"quoted-printable") => Place::QuotedPrintable,
        _ if header.message => Place::Header,
        _ => Place::Body,
    }
}

fn read_field<'a>(
    line: &'a [u8],
    from: usize,
    header: &mut Header<'a>,
    boundaries: &mut HashSet<&'a [u8]>,
) {
    const TYPE: &[u8] = b"content-type";
    const ENCODING: &[u8] = b"content-transfer-encoding";
    let mut value = line;
    if !matches!(line.first(), Some(b' ' | b'\t')) {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        let name = line[..colon].trim_ascii();
        let known = [TYPE, ENCODING].into_iter();
        header.field = known
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(name));
        value = &line[colon + 1..];
    }
    if header.field == Some(ENCODING) && header.encoding.is_none() {
        let name = value.trim_ascii();
        if !name.is_empty() {
            let at = from + line.len() - value.len() + value.len() - value.trim_ascii_start().len();
            header.encoding = Some((name, at));
        }
    }
    if header.field == Some(TYPE) {
        let start = value.trim_ascii_start();
        let kind = b"message/rfc822";
        header.message |= start
            .get(..kind.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(kind));
        if let Some(boundary) = boundary(value) {
            boundaries.insert(boundary);
        }
    }
}

/// The value of a boundary parameter.
fn boundary(value: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"boundary";
    let at = value
        .windows(NAME.len())
        .position(|window| window.eq_ignore_ascii_case(NAME))?;
    let after = value[at + NAME.len()..].trim_ascii_start();
    let given = after.strip_prefix(b"=")?.trim_ascii();
    let end = match given.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = quoted.iter().position(|&byte| byte == b'"');
            return Some(&quoted[..end.unwrap_or(quoted.len())]);
        }
        None => given
            .iter()
            .position(|byte| byte.is_ascii_whitespace() || *byte == b';'),
    };
    Some(&given[..end.unwrap_or(given.len())]).filter(|boundary| !boundary.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn mended(raw: &str) -> Option<String> {
        let mut bytes = Cow::Borrowed(raw.as_bytes());
        repair(&mut bytes, &mut Warnings::default());
        match bytes {
            Cow::Borrowed(_) => None,
            Cow::Owned(owned) => Some(String::from_utf8(owned).unwrap()),
        }
    }

    #[test]
    fn what_is_right_is_not_touched() {
        for raw in [
            "Subject: x\n\nContent-Transfer-Encoding: base64\n\nplain words == here\n",
            "Content-Transfer-Encoding: base64\n\nSGVsbG8=\n\nSGVsbG8=\n",
            "Content-Transfer-Encoding: quoted-printable\n\na=\nb=3Dc =E9=E8=\n",
            "Content-Type: multipart/mixed; boundary=\"b\"\n\n--b\nContent-Transfer-Encoding: base64\n\nSGVsbG8=\n--b\n\nwords, only words\n--b--\n",
        ] {
            assert_eq!(mended(raw), None, "{raw}");
        }
    }

    #[test]
    fn base64_with_a_footer_or_noise_is_read() {
        for body in [
            "SGVsbG8s\nIHdvcmxk\n\n-------\nThis list is sponsored by: nobody\n",
            "SGVsbG8sIHdvcmxk*\n",
            "SGVsbG8s\r\nIHdv!cmxk\r\n_____\r\n",
        ] {
            let raw = format!("Content-Transfer-Encoding: base64\n\n{body}");
            let email = parse(raw.as_bytes());
            assert_eq!(email.text, "Hello, world", "{body}");
            assert_eq!(email.warnings[0].code, WarningCode::TransferEncoding);
        }
        let part = "Content-Type: multipart/mixed;\n boundary=b\n\n--b\nContent-Type: text/html\n\
                    Content-Transfer-Encoding:\n BASE64\n\nPHA+SGVsbG88L3A+\n--\nfooter: x\n--b\n\nend, of it\n--b--\n";
        assert_eq!(parse(part.as_bytes()).text, "Hello\n\nend, of it");
    }

    #[test]
    fn an_encoded_part_that_is_never_closed_is_read() {
        for (encoding, body) in [
            ("base64", "SGVsbG8sIHdv"),
            ("quoted-printable", "Hello,=20w=6F"),
        ] {
            let raw = format!(
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\
                 Content-Transfer-Encoding: {encoding}\n\n{body}"
            );
            let email = parse(raw.as_bytes());
            assert_eq!(email.text, "Hello, wo", "{encoding}");
            assert_eq!(email.warnings[0].code, WarningCode::TransferEncoding);
        }
    }

    #[test]
    fn words_under_a_label_of_base64_are_words() {
        let raw = "Content-Transfer-Encoding: base64\n\nThese are words, and no base64\nat all\n";
        assert_eq!(
            parse(raw.as_bytes()).text,
            "These are words, and no base64\nat all"
        );
    }

    #[test]
    fn lone_signs_of_quoted_printable_stand_for_themselves() {
        let raw =
            "Content-Transfer-Encoding: quoted-printable\n\n1 =3D=3D 1, a == b, =C3=A9, =A=\nend";
        assert_eq!(parse(raw.as_bytes()).text, "1 == 1, a == b, é, =Aend");
    }
}
