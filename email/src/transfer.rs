//! Transfer encodings of parts that break their rules (RFC 2045, 6.7 and 6.8). The message parser gives such a part up
//! and leaves it as it came; here it is decoded as far as it goes, as mail programs do.

use mail_parser::MessagePart;
use mail_parser::MimeHeaders;
use mail_parser::decoders::base64::base64_decode;

/// Bytes that are no base64 make a line plain words once they are more than one in so many.
const STRAY_BYTES: usize = 8;

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

/// The lines of base64 that `raw` begins with; none where it begins with something else. A mailing list's footer ends
/// them, and what is no base64 within them is passed over.
fn base64(raw: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(raw.len());
    for line in raw.split(|&byte| byte == b'\n') {
        let text = line.trim_ascii();
        if !is_base64_line(text, kept.is_empty()) {
            if kept.is_empty() {
                return None;
            }
            break;
        }
        kept.extend(text.iter().filter(|byte| is_base64(**byte)));
    }
    base64_decode(&kept)
}

/// Words have blanks between them, base64 has none; a separator of a footer has nothing else than strays.
fn is_base64_line(text: &[u8], first: bool) -> bool {
    let strays = text.iter().filter(|byte| !is_base64(**byte)).count();
    if strays == 0 {
        return true;
    }
    let words = text.iter().any(u8::is_ascii_whitespace) || text.starts_with(b"--");
    let most = if first { 1 } else { text.len() / STRAY_BYTES };
    !words && strays <= most
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use super::super::{WarningCode, parse};
    use super::*;

    #[test]
    fn quoted_printable_is_read_as_far_as_it_goes() {
        assert_eq!(
            quoted_printable(b"a==3D=  \r\nb=C3=a9=zz="),
            "a==b\u{e9}=zz".as_bytes()
        );
    }

    #[test]
    fn base64_with_a_footer_or_strays_is_read() {
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
