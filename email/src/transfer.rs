//! Transfer encodings of parts that break their rules (RFC 2045, 6.7 and 6.8). The message parser gives such a part up
//! and leaves it as it came; here it is decoded as far as it goes, as mail programs do.

use mail_parser::MessagePart;
use mail_parser::MimeHeaders;
use mail_parser::decoders::base64::base64_decode;

/// Bytes that are no base64 make a part plain words once they are more than one in so many.
const STRAY_BYTES: usize = 10;

/// What the bytes of a part say that its parser could not decode; none where it claims no encoding, or plainly is
/// not in it.
pub(super) fn decode_broken(part: &MessagePart<'_>, raw: &[u8]) -> Option<Vec<u8>> {
    if !part.is_encoding_problem {
        return None;
    }
    let claimed = part.content_transfer_encoding()?.trim();
    if claimed.eq_ignore_ascii_case("quoted-printable") {
        return Some(quoted_printable(raw));
    }
    if claimed.eq_ignore_ascii_case("base64") {
        return base64(raw);
    }
    None
}

fn quoted_printable(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'=' {
            out.push(raw[at]);
            at += 1;
            continue;
        }
        let rest = &raw[at + 1..];
        if let [high, low, ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            out.push(high << 4 | low);
            at += 3;
            continue;
        }
        // A soft line break; blanks before the line end were added on the way.
        let blanks = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
            .count();
        if rest.get(blanks).is_none_or(|&byte| byte == b'\n') {
            at += blanks + 2;
            continue;
        }
        out.push(b'=');
        at += 1;
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn base64(raw: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(raw.len());
    let mut stray = 0;
    for &byte in raw {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
            kept.push(byte);
        } else {
            stray += usize::from(!matches!(byte, b'\r' | b'\n'));
        }
    }
    if stray * STRAY_BYTES > kept.len() {
        return None;
    }
    base64_decode(&kept)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn quoted_printable_is_read_as_far_as_it_goes() {
        assert_eq!(
            quoted_printable(b"a==3D=  \r\nb=C3=a9=zz="),
            "a==b\u{e9}=zz".as_bytes()
        );
    }

    #[test]
    fn strays_in_base64_are_passed_over_and_words_are_words() {
        assert_eq!(base64(b"aGVs*bG8g\r\nd29ybGQ=").unwrap(), b"hello world");
        assert_eq!(base64(b"these are words, my dear"), None);
    }

    #[test]
    fn html_that_is_cut_off_is_still_html() {
        let raw = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html; charset=utf-8\n\
                   Content-Transfer-Encoding: quoted-printable\n\n<p>Caf=C3=A9 at <b>fo=\nur</b></p>\n";
        let email = parse(raw.as_bytes());
        assert_eq!(email.text, "Caf\u{e9} at four");
        assert!(email.html.is_some());
        assert!(email.attachments.is_empty());
    }
}
