//! Seven-bit charsets that switch by escape sequences and that no table of browsers has: UTF-7, HZ, ISO-2022-KR and
//! ISO-2022-CN. It must not guess: `charset` decides what bytes are in.

use encoding_rs::{EUC_KR, GBK};

/// One of these charsets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Code {
    /// RFC 2152.
    Utf7,
    /// RFC 1843.
    Hz,
    /// RFC 1557.
    Iso2022Kr,
    /// RFC 1922, the GB 2312 set of it only.
    Iso2022Cn,
}

/// The code a label (lower-case) names.
pub(super) fn by_label(label: &str) -> Option<Code> {
    match label {
        "utf-7" | "utf7" | "unicode-1-1-utf-7" | "x-unicode-2-0-utf-7" | "csunicode11utf7" => {
            Some(Code::Utf7)
        }
        "hz-gb-2312" | "hz" | "x-hz" => Some(Code::Hz),
        "iso-2022-kr" | "csiso2022kr" => Some(Code::Iso2022Kr),
        "iso-2022-cn" | "iso-2022-cn-ext" => Some(Code::Iso2022Cn),
        _ => None,
    }
}

/// What `bytes` say in `code`; what cannot be read becomes U+FFFD.
pub(super) fn decode(code: Code, bytes: &[u8]) -> String {
    match code {
        Code::Utf7 => utf7(bytes),
        Code::Hz => GBK.decode_without_bom_handling(&hz(bytes)).0.into_owned(),
        Code::Iso2022Kr => {
            let raised = shifted_out(bytes);
            EUC_KR.decode_without_bom_handling(&raised).0.into_owned()
        }
        Code::Iso2022Cn => {
            let raised = shifted_out(bytes);
            GBK.decode_without_bom_handling(&raised).0.into_owned()
        }
    }
}

/// Whether bytes announce ISO-2022-KR: its designator stands before any Korean character.
pub(super) fn is_korean(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|four| four == b"\x1b$)C")
}

/// Base64 of UTF-16 between `+` and the first character that is none of base64; a `-` there is swallowed.
fn utf7(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut direct = Vec::new();
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'+' {
            direct.push(byte);
            continue;
        }
        if let Some(next) = rest.strip_prefix(b"-") {
            direct.push(b'+');
            rest = next;
            continue;
        }
        let length = rest
            .iter()
            .position(|byte| sextet(*byte).is_none())
            .unwrap_or(rest.len());
        if length == 0 {
            direct.push(b'+');
            continue;
        }
        text.push_str(&String::from_utf8_lossy(&direct));
        direct.clear();
        text.push_str(&utf16_of_base64(&rest[..length]));
        rest = &rest[length..];
        rest = rest.strip_prefix(b"-").unwrap_or(rest);
    }
    text.push_str(&String::from_utf8_lossy(&direct));
    text
}

fn utf16_of_base64(encoded: &[u8]) -> String {
    let mut units = Vec::with_capacity(encoded.len() * 3 / 8 + 1);
    let mut bits: u32 = 0;
    let mut count = 0;
    for &byte in encoded {
        bits = bits << 6 | u32::from(sextet(byte).unwrap_or(0));
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push((bits >> count) as u16);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf16_lossy(&units)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// The GBK bytes of HZ: pairs between `~{` and `~}`, or the end of the line, lack their high bit.
fn hz(bytes: &[u8]) -> Vec<u8> {
    let mut raised = Vec::with_capacity(bytes.len());
    let mut chinese = false;
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let mut length = 1;
        match (byte, rest.get(1)) {
            (b'~', Some(b'{')) if !chinese => (chinese, length) = (true, 2),
            (b'~', Some(b'}')) if chinese => (chinese, length) = (false, 2),
            (b'~', Some(b'\n')) if !chinese => length = 2,
            (b'~', Some(b'~')) if !chinese => {
                raised.push(b'~');
                length = 2;
            }
            (b'\r' | b'\n', _) => {
                chinese = false;
                raised.push(byte);
            }
            (_, Some(&second)) if chinese => {
                raised.extend([byte | 0x80, second | 0x80]);
                length = 2;
            }
            _ => raised.push(byte),
        }
        rest = &rest[length..];
    }
    raised
}

/// The EUC bytes of ISO-2022-KR or -CN: what stands between shift-out and shift-in lacks its high bit, and the
/// designators say what `Code` says already.
fn shifted_out(bytes: &[u8]) -> Vec<u8> {
    let mut raised = Vec::with_capacity(bytes.len());
    let mut out = false;
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let mut length = 1;
        match byte {
            0x0e => out = true,
            0x0f => out = false,
            0x1b if rest.starts_with(b"\x1b$") => length = rest.len().min(4),
            b'\r' | b'\n' => {
                out = false;
                raised.push(byte);
            }
            0x21..=0x7e if out => raised.push(byte | 0x80),
            _ => raised.push(byte),
        }
        rest = &rest[length..];
    }
    raised
}

/// ISO-2022-JP without the shifts that another follows at once, as joined pieces have them: browsers, whose decoder is
/// used, take those for attacks.
pub(super) fn without_empty_shifts(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        if byte == 0x1b && matches!(rest.get(1), Some(b'(' | b'$')) && rest.get(3) == Some(&0x1b) {
            rest = &rest[3..];
            continue;
        }
        kept.push(byte);
        rest = &rest[1..];
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_read() {
        for (label, bytes, expected) in [
            ("utf-7", &b"Hi Mom +Jjo--!+-"[..], "Hi Mom ☺-!+"),
            ("utf-7", b"caf+AOk., +ZeVnLIqe", "café., 日本語"),
            ("unicode-1-1-utf-7", b"1 + 1 +AD0- 2", "1 + 1 = 2"),
            (
                "hz-gb-2312",
                b"~{<:Ky2;S{~} ~~ A~\nB\n~{VP\nC",
                "己所不欲 ~ AB\n中\nC",
            ),
            ("iso-2022-kr", b"\x1b$)C\n\x0eGQ1[\x0f ok", "\n한글 ok"),
            ("iso-2022-cn", b"\x1b$)A\x0eVPND\x0f ok", "中文 ok"),
        ] {
            let code = by_label(label).unwrap();
            assert_eq!(decode(code, bytes), expected, "{label}");
        }
    }

    #[test]
    fn what_is_cut_off_or_odd_is_read_as_far_as_it_goes() {
        assert_eq!(decode(Code::Utf7, b"a+"), "a+");
        assert_eq!(decode(Code::Utf7, b"a+AOk"), "aé");
        assert_eq!(decode(Code::Utf7, b"+\xff"), "+\u{fffd}");
        assert_eq!(decode(Code::Hz, b"~{V"), "V");
        assert_eq!(decode(Code::Hz, b"~"), "~");
        assert_eq!(decode(Code::Iso2022Kr, b"\x1b$"), "");
    }
}
