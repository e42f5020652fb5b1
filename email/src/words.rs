//! The value of a header field as text: folding, raw bytes beyond ASCII and encoded words (RFC 2047), however broken.
//! It must not know what the field is.

use std::borrow::Cow;

use super::{Warnings, charset};

/// Longest label of an encoded word, in bytes.
const MAX_LABEL_BYTES: usize = 60;

/// A field's bytes as one line of text. Bytes beyond ASCII, which RFC 5322 does not allow, are UTF-8 (RFC 6532), or
/// what `declared`, the charset of the body, says; encoded words are left as they are.
pub(super) fn unfold<'a>(
    raw: &'a [u8],
    declared: Option<&str>,
    warnings: &mut Warnings,
) -> Cow<'a, str> {
    let raw = raw.trim_ascii();
    let text = match std::str::from_utf8(raw) {
        Ok(text) if !text.contains('\u{1b}') => Cow::Borrowed(text),
        utf8 => {
            let label = declared.filter(|_| utf8.is_err());
            charset::read(raw, label, false).flagged(warnings)
        }
    };
    if !text.contains(['\r', '\n']) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for ch in text.chars() {
        if ch != '\r' && ch != '\n' {
            line.push(ch);
        }
    }
    Cow::Owned(line)
}

/// One encoded word: `=?label?encoding?content?=`.
struct Word<'a> {
    label: &'a str,
    base64: bool,
    content: &'a str,
    closed: bool,
    /// Bytes of the whole word.
    length: usize,
}

/// Decodes the encoded words of `text`. What stands between two of them is part of neither, so they are joined
/// before their charset is applied: writers split characters and base64 groups across words.
pub(super) fn decode<'a>(text: &'a str, warnings: &mut Warnings) -> Cow<'a, str> {
    if !text.contains("=?") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut run = Run::default();
    let mut rest = text;
    while let Some(at) = rest.find("=?") {
        let Some(word) = word(&rest[at..]) else {
            run.finish(&mut out, warnings);
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        };
        let between = &rest[..at];
        if run.label.is_none() || !between.trim().is_empty() {
            run.finish(&mut out, warnings);
            out.push_str(between);
        }
        run.add(&word, &mut out, warnings);
        if !word.closed {
            // The blank that ended it is one that was meant.
            run.finish(&mut out, warnings);
        }
        rest = &rest[at + word.length..];
    }
    run.finish(&mut out, warnings);
    out.push_str(rest);
    Cow::Owned(out)
}

/// Words in one charset with nothing but blanks between them.
#[derive(Default)]
struct Run<'a> {
    label: Option<&'a str>,
    bytes: Vec<u8>,
    /// Base64 that waits for the rest of its group.
    base64: String,
}

impl<'a> Run<'a> {
    fn add(&mut self, word: &Word<'a>, out: &mut String, warnings: &mut Warnings) {
        if self
            .label
            .is_some_and(|label| !label.eq_ignore_ascii_case(word.label))
        {
            self.finish(out, warnings);
        }
        self.label = Some(word.label);
        if word.base64 {
            self.base64.push_str(word.content);
            let digits = word.content.trim_end();
            if digits.ends_with('=') || self.base64.len().is_multiple_of(4) {
                self.settle();
            }
        } else {
            self.settle();
            quoted_printable(word.content, &mut self.bytes);
        }
    }

    fn settle(&mut self) {
        base64(&self.base64, &mut self.bytes);
        self.base64.clear();
    }

    fn finish(&mut self, out: &mut String, warnings: &mut Warnings) {
        self.settle();
        if let Some(label) = self.label.take() {
            out.push_str(&charset::read(&self.bytes, Some(label), false).flagged(warnings));
            self.bytes.clear();
        }
    }
}

/// The encoded word that `text` begins with. One that is never closed ends before the next blank or word.
fn word(text: &str) -> Option<Word<'_>> {
    let (label, encoding, start) = opening(text)?;
    let base64 = encoding == b'b';
    let body = &text[start..];
    let mut stop = body.len();
    let mut from = 0;
    while let Some(found) = body[from..].find(['?', '=']) {
        let at = from + found;
        from = at + 1;
        if body[at..].starts_with("?=") {
            // `?=20`: a question mark and a blank, where the word goes on; `?=` closes it otherwise.
            let after = body.as_bytes().get(at + 2..at + 4).unwrap_or_default();
            let hex = after.len() == 2 && after.iter().all(u8::is_ascii_hexdigit);
            if !base64 && hex && closes_later(&body[at + 4..]) {
                continue;
            }
            return Some(Word {
                label,
                base64,
                content: &body[..at],
                closed: true,
                length: start + at + 2,
            });
        }
        if opening(&body[at..]).is_some() {
            stop = at;
            break;
        }
    }
    let open = &body[..stop];
    let length = open.find(char::is_whitespace).unwrap_or(stop);
    Some(Word {
        label,
        base64,
        content: open[..length].trim_end_matches('?'),
        closed: false,
        length: start + length,
    })
}

/// Whether another `?=` comes before any blank.
fn closes_later(text: &str) -> bool {
    text.split_once("?=")
        .is_some_and(|(before, _)| !before.contains(char::is_whitespace))
}

/// Reads `=?label?encoding?`: the label without its language (RFC 2231, 5), the encoding in lower case, the length.
fn opening(text: &str) -> Option<(&str, u8, usize)> {
    let inside = text.strip_prefix("=?")?;
    let window = super::text::prefix(inside, MAX_LABEL_BYTES);
    let (label, _) = window.split_once('?')?;
    let plain = |ch: char| ch.is_ascii_graphic() && ch != '=';
    if label.is_empty() || !label.chars().all(plain) {
        return None;
    }
    let after = &inside.as_bytes()[label.len() + 1..];
    let [encoding @ (b'b' | b'B' | b'q' | b'Q'), b'?', ..] = after else {
        return None;
    };
    let name = label.split('*').next().unwrap_or(label);
    Some((name, encoding.to_ascii_lowercase(), 2 + label.len() + 3))
}

fn quoted_printable(content: &str, out: &mut Vec<u8>) {
    let mut rest = content.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'_' => out.push(b' '),
            b'=' => match (rest.first().and_then(hex), rest.get(1).and_then(hex)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = &rest[2..];
                }
                _ => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Decodes base64 without asking for padding; what is no digit is passed over.
fn base64(content: &str, out: &mut Vec<u8>) {
    let mut bits: u32 = 0;
    let mut count = 0;
    for byte in content.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                // Padding ends a group; another may follow it in one word.
                (bits, count) = (0, 0);
                continue;
            }
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{WarningCode, Warnings};
    use super::*;

    fn decoded(text: &str) -> String {
        decode(text, &mut Warnings::default()).into_owned()
    }

    #[test]
    fn words_are_decoded_however_broken() {
        for (text, expected) in [
            ("plain =? text ?= here", "plain =? text ?= here"),
            ("=?UTF-8?Q?J=C3=BCrgen_M?= x", "Jürgen M x"),
            ("=?utf-8?b?0J/RgNC40LLQtdGC?=", "Привет"),
            ("a =?us-ascii?q?b?= =?us-ascii?q?c?=\td", "a bc\td"),
            ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
            // Characters, and base64 groups, split across words.
            ("=?utf-8?Q?caf=C3?= =?utf-8?Q?=A9?=", "café"),
            ("=?UTF-8?B?0J/R?=  =?utf-8?B?gNC40LLQtdGC?=", "Привет"),
            ("=?utf-8?B?Y2Fmw?==?utf-8?B?6k=?=", "café"),
            // Padding in the middle, and none at the end.
            ("=?utf-8?B?YWI=Y2Q=?=", "abcd"),
            ("=?utf-8?B?YWI?=", "ab"),
            // Blanks inside, text around, lower case, a language.
            ("=?utf-8?q?two words?=", "two words"),
            ("x=?utf-8?q?y?=z", "xyz"),
            ("=?iso-8859-1*de?q?=FCber?=", "über"),
            // A question mark of its own, a closing mark that is cut or missing.
            ("=?utf-8?Q?really?=20yes?=", "really? yes"),
            ("=?utf-8?Q?=41?=", "A"),
            ("=?utf-8?Q?abc? next", "abc next"),
            ("=?utf-8?Q?abc def", "abc def"),
            ("=?utf-8?Q?abc=?utf-8?Q?def?=", "abcdef"),
            ("=?utf-8?Q?abc =?utf-8?Q?def?=", "abc def"),
            ("=?utf-8?Q?50=_=zz?=", "50= =zz"),
            // No words at all.
            ("=?x y?q?z?=", "=?x y?q?z?="),
            ("=?utf-8?x?z?=", "=?utf-8?x?z?="),
            ("=?utf-8?Q", "=?utf-8?Q"),
        ] {
            assert_eq!(decoded(text), expected, "{text}");
        }
    }

    #[test]
    fn a_word_in_an_unknown_charset_is_guessed_and_flagged() {
        let mut warnings = Warnings::default();
        let text = decode("=?x-unheard-of?Q?caf=E9_cr=E8me?=", &mut warnings);
        assert_eq!(text, "café crème");
        assert_eq!(warnings.list[0].code, WarningCode::CharsetFallback);
    }

    #[test]
    fn raw_bytes_are_utf8_or_what_the_body_is_in() {
        let mut warnings = Warnings::default();
        assert_eq!(
            unfold(" r\u{e9}sum\u{e9}\r\n x".as_bytes(), None, &mut warnings),
            "résumé x"
        );
        assert!(warnings.list.is_empty());
        let raw = b"\xf0\xd2\xc9\xd7\xc5\xd4";
        assert_eq!(unfold(raw, Some("koi8-r"), &mut warnings), "Привет");
        let japanese = b"\x1b$B$3$s\x1b(B";
        assert_eq!(unfold(japanese, Some("us-ascii"), &mut warnings), "こん");
        assert_eq!(warnings.list.len(), 1);
    }

    #[test]
    fn many_unclosed_words_take_linear_time() {
        let text = "=?a?q?b".repeat(40_000);
        assert_eq!(decoded(&text), "b".repeat(40_000));
        let marks = "=?a?q?".to_owned() + &"?=20".repeat(60_000);
        assert!(!decoded(&marks).is_empty());
    }
}
