//! Bytes to text: which charset a label names, and which one the bytes are really in. It must not look at the header
//! of the message or at the structure of its parts, and it never trusts a label that the bytes contradict plainly.
//!
//! Tables are encoding_rs's, so labels mean what they mean to a browser (`iso-8859-1` is windows-1252, `gb2312` is
//! GBK); what that leaves out is in `shifted`. Where nothing, nothing known or something plainly wrong is declared,
//! chardetng guesses. Every guess is flagged.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;
use mail_parser::{Encoding as TransferEncoding, Message, MessagePart, MimeHeaders, PartType};

use super::structure::is_html;
use super::{WarningCode, Warnings, shifted, text, transfer};

/// Most bytes a charset is guessed from, counted from the first one that is not ASCII.
const MAX_GUESS_BYTES: usize = 64 << 10;
/// Most bytes of HTML that are searched for a `meta` element with a charset, as browsers do.
const MAX_META_BYTES: usize = 4 << 10;
/// Fewest zeros that make unlabelled bytes UTF-16; a quarter of all bytes must be zeros as well.
const MIN_ZEROS: usize = 4;
/// Longest label that is looked up, in bytes.
const MAX_LABEL_BYTES: usize = 60;
/// One in so many characters beyond ASCII may be broken before a label of double-byte characters is doubted.
const FAULTS_TOLERATED: usize = 10;
/// Labels that are in use and in no table, and what they mean.
const ALIASES: [(&str, &str); 17] = [
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
    ("gb2312_charset", "gb18030"),
    ("chinesebig5", "big5"),
    ("cp-850", "cp850"),
    ("iso-8859-8-logical", "iso-8859-8"),
    ("ansi", "windows-1252"),
    ("iso8859_1", "iso-8859-1"),
    ("uft-8", "utf-8"),
    ("utf", "utf-8"),
    ("utf_8", "utf-8"),
    ("cp65001", "utf-8"),
    ("cp932", "shift_jis"),
    ("cp936", "gbk"),
    ("cp949", "euc-kr"),
    ("cp950", "big5"),
    ("iso-2022-jp-ms", "iso-2022-jp"),
];

/// A way to read bytes.
#[derive(Clone, Copy)]
enum Charset {
    Table(&'static Encoding),
    /// UTF-16 whose byte order the bytes tell.
    Utf16,
    Shifted(shifted::Code),
    /// IBM 850 and the like, which only the message parser knows.
    Other(fn(&[u8]) -> String),
}

/// What bytes say, and where their label was not followed what was done instead.
pub(super) struct Reading<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) fallback: Option<String>,
}

impl<'a> Reading<'a> {
    /// The text; what was done instead becomes a warning.
    pub(super) fn flagged(self, warnings: &mut Warnings) -> Cow<'a, str> {
        if let Some(detail) = self.fallback {
            warnings.add(WarningCode::CharsetFallback, detail);
        }
        self.text
    }
}

/// The text of a part. Where the declared charset is unknown or wrong, the likeliest one is taken and flagged.
pub(super) fn decode<'a>(
    message: &'a Message<'_>,
    part: &'a MessagePart<'_>,
    warnings: &mut Warnings,
) -> Cow<'a, str> {
    let (PartType::Text(parsed) | PartType::Html(parsed)) = &part.body else {
        return Cow::Borrowed("");
    };
    let declared = part
        .content_type()
        .and_then(|kind| kind.attribute("charset"));
    let range = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
    let raw = message.raw_message.get(range).unwrap_or_default();
    let html = is_html(part);
    if let Some(bytes) = transfer::decode_broken(part, raw) {
        let text = read(&bytes, declared, html).flagged(warnings).into_owned();
        return Cow::Owned(text);
    }
    if stands(parsed, declared) {
        return Cow::Borrowed(parsed);
    }
    let decoded = match part.encoding {
        TransferEncoding::None => Some(Cow::Borrowed(raw)),
        TransferEncoding::Base64 => base64_decode(raw).map(Cow::Owned),
        // The parser's own way: its function for slices gives up at signs that this one takes as they are.
        TransferEncoding::QuotedPrintable => {
            Some(MessageStream::new(raw).decode_quoted_printable_mime(b"").1)
        }
    };
    let Some(bytes) = decoded else {
        return Cow::Borrowed(parsed);
    };
    match bytes {
        Cow::Borrowed(borrowed) => read(borrowed, declared, html).flagged(warnings),
        Cow::Owned(owned) => {
            let text = read(&owned, declared, html).flagged(warnings).into_owned();
            Cow::Owned(text)
        }
    }
}

/// Whether what the message parser made of a part is what `read` would make of it: most mail is ASCII or UTF-8.
fn stands(parsed: &str, declared: Option<&str>) -> bool {
    let utf8 = declared.is_none_or(|label| names(label, UTF_8));
    if parsed.contains(['\u{fffd}', '\u{1b}']) || parsed.starts_with('\u{feff}') {
        return false;
    }
    utf8 && !parsed.contains('\0')
        || parsed.is_ascii()
            && declared.is_some_and(|label| {
                matches!(charset(label), Some(Charset::Table(table)) if table.is_ascii_compatible())
            })
}

/// What `bytes` say, which claim to be in the charset `declared`.
pub(super) fn read<'a>(bytes: &'a [u8], declared: Option<&str>, html: bool) -> Reading<'a> {
    let known = declared.and_then(charset);
    if let Some((marked, length)) = Encoding::for_bom(bytes) {
        let agrees = match known {
            Some(Charset::Utf16) => marked != UTF_8,
            Some(Charset::Table(table)) => table == marked,
            _ => declared.is_none(),
        };
        let text = marked.decode_without_bom_handling(&bytes[length..]).0;
        return reading(text, declared, marked.name(), agrees);
    }
    match known {
        Some(Charset::Shifted(code)) => {
            let text = Cow::Owned(shifted::decode(code, bytes));
            reading(text, declared, "", true)
        }
        Some(Charset::Other(decoder)) if std::str::from_utf8(bytes).is_err() => {
            reading(Cow::Owned(decoder(bytes)), declared, "", true)
        }
        Some(Charset::Utf16) => {
            let (table, _) = utf16_order(bytes);
            reading(decoded(table, bytes), declared, table.name(), true)
        }
        Some(Charset::Table(table)) => read_as(table, bytes, declared),
        _ => guess(bytes, declared, html),
    }
}

/// Reads bytes as their label has it, unless they say plainly that it is wrong.
fn read_as<'a>(table: &'static Encoding, bytes: &'a [u8], declared: Option<&str>) -> Reading<'a> {
    let name = table.name();
    if table == UTF_16BE || table == UTF_16LE {
        return reading(decoded(table, bytes), declared, name, true);
    }
    if bytes.is_ascii() && table != ISO_2022_JP {
        if is_japanese(bytes) {
            return reading(decoded(ISO_2022_JP, bytes), declared, "ISO-2022-JP", false);
        }
        return reading(decoded(UTF_8, bytes), declared, name, true);
    }
    let utf8 = std::str::from_utf8(bytes).ok();
    if table == UTF_8
        && let Some(text) = utf8
    {
        return reading(Cow::Borrowed(text), declared, name, true);
    }
    let text = decoded(table, bytes);
    let faults = faults(&text);
    let foreign = text.chars().filter(|ch| !ch.is_ascii()).count() - faults;
    let doubted = if table == UTF_8 {
        faults > foreign
    } else if table.is_single_byte() || table == ISO_2022_JP {
        if let Some(utf8) = utf8.filter(|utf8| !utf8.is_ascii()) {
            return reading(Cow::Borrowed(utf8), declared, UTF_8.name(), false);
        }
        // us-ascii has none beyond ASCII, and western words are mostly ASCII letters.
        let western = table == WINDOWS_1252;
        let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic());
        let ascii = declared.is_some_and(|label| label.to_ascii_lowercase().ends_with("ascii"));
        faults > 0 || western && (ascii || foreign > letters.count())
    } else {
        faults > foreign / FAULTS_TOLERATED
    };
    if doubted {
        let other = detect(bytes, utf8.is_some());
        for candidate in [other, UTF_8] {
            let better = decoded(candidate, bytes);
            if candidate != table && self::faults(&better) < faults.max(1) {
                return reading(better, declared, candidate.name(), false);
            }
        }
    }
    reading(text, declared, name, true)
}

/// Reads bytes whose label is missing or unknown.
fn guess<'a>(bytes: &'a [u8], declared: Option<&str>, html: bool) -> Reading<'a> {
    let meant = if html { meta_charset(bytes) } else { None };
    if let Some(table) = meant {
        let text = decoded(table, bytes);
        if faults(&text) == 0 {
            let agrees = text.is_ascii() || declared.is_none();
            return reading(text, declared, table.name(), agrees);
        }
    }
    let (table, zeros) = utf16_order(bytes);
    if zeros >= MIN_ZEROS && zeros * 4 > bytes.len().min(MAX_META_BYTES) {
        return reading(decoded(table, bytes), declared, table.name(), false);
    }
    if !bytes.contains(&0x1b)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        let agrees = declared.is_none() || text.is_ascii();
        return reading(Cow::Borrowed(text), declared, UTF_8.name(), agrees);
    }
    if shifted::is_korean(bytes) {
        let text = shifted::decode(shifted::Code::Iso2022Kr, bytes);
        return reading(Cow::Owned(text), declared, "ISO-2022-KR", false);
    }
    let table = detect(bytes, true);
    let text = decoded(table, bytes);
    let agrees = text.is_ascii();
    reading(text, declared, table.name(), agrees)
}

fn reading<'a>(
    text: Cow<'a, str>,
    declared: Option<&str>,
    used: &str,
    agrees: bool,
) -> Reading<'a> {
    let label = text::prefix(declared.unwrap_or("none"), MAX_LABEL_BYTES);
    let fallback = if !agrees {
        Some(format!("charset {label:?} was read as {used}"))
    } else if text.contains('\u{fffd}') {
        Some(format!("some characters are not of charset {label:?}"))
    } else {
        None
    };
    Reading { text, fallback }
}

fn decoded<'a>(table: &'static Encoding, bytes: &'a [u8]) -> Cow<'a, str> {
    if table == ISO_2022_JP {
        let joined = shifted::without_empty_shifts(bytes);
        return Cow::Owned(table.decode_without_bom_handling(&joined).0.into_owned());
    }
    table.decode_without_bom_handling(bytes).0
}

/// Characters that no writer meant: those that could not be read, the controls between ASCII and Latin-1, and those
/// of private use, which East Asian tables are full of.
fn faults(text: &str) -> usize {
    text.chars()
        .filter(|&ch| match ch {
            '\u{85}' => false,
            '\u{fffd}' | '\u{80}'..'\u{a0}' | '\u{e000}'..='\u{f8ff}' => true,
            _ => false,
        })
        .count()
}

/// Whether a label names a charset that can be read.
pub(super) fn is_known(label: &str) -> bool {
    charset(label).is_some()
}

/// The charset that a label names.
fn charset(label: &str) -> Option<Charset> {
    let trimmed = label.trim_matches(|ch: char| ch.is_whitespace() || "\"'".contains(ch));
    let name = text::prefix(trimmed, MAX_LABEL_BYTES).to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name.as_str(), |(_, meant)| meant);
    if let Some(code) = shifted::by_label(name) {
        return Some(Charset::Shifted(code));
    }
    if matches!(
        name,
        "utf-16" | "utf16" | "ucs-2" | "iso-10646-ucs-2" | "csunicode" | "unicode"
    ) {
        return Some(Charset::Utf16);
    }
    match Encoding::for_label(name.as_bytes()) {
        Some(table) if table != REPLACEMENT && name != "x-user-defined" => {
            Some(Charset::Table(table))
        }
        Some(_) => None,
        None => charset_decoder(name.as_bytes()).map(Charset::Other),
    }
}

fn names(label: &str, table: &'static Encoding) -> bool {
    matches!(charset(label), Some(Charset::Table(named)) if named == table)
}

/// The likeliest charset of bytes that may be in any.
fn detect(bytes: &[u8], utf8: bool) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    let telling = |byte: &u8| !byte.is_ascii() || *byte == 0x1b;
    let start = bytes.iter().position(telling).unwrap_or(0);
    // Two bytes before tell whether a lone sign follows a letter or a digit.
    let window = &bytes[start.saturating_sub(2)..bytes.len().min(start + MAX_GUESS_BYTES)];
    detector.feed(window, true);
    let allowed = if utf8 {
        Utf8Detection::Allow
    } else {
        Utf8Detection::Deny
    };
    detector.guess(None, allowed)
}

/// Whether ASCII bytes switch to Japanese characters.
fn is_japanese(bytes: &[u8]) -> bool {
    bytes
        .windows(3)
        .any(|three| matches!(three, [0x1b, b'$', b'B' | b'@'] | [0x1b, b'(', b'J' | b'I']))
}

/// The byte order of UTF-16 without a mark, and how many zeros tell it: one byte of each ASCII character is 0. Where
/// none does, RFC 2781 has the big end first.
fn utf16_order(bytes: &[u8]) -> (&'static Encoding, usize) {
    let mut zeros = [0, 0];
    for (at, byte) in bytes.iter().take(MAX_META_BYTES).enumerate() {
        zeros[at % 2] += usize::from(*byte == 0);
    }
    let [first, second] = zeros;
    if second > first {
        (UTF_16LE, second - first)
    } else {
        (UTF_16BE, first - second)
    }
}

/// The charset that a `meta` element of HTML names. UTF-16 cannot be meant: the element would not have been found.
fn meta_charset(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(MAX_META_BYTES)].to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    for element in head.split("<meta").skip(1) {
        let inside = element.split('>').next().unwrap_or(element);
        let Some((_, value)) = inside.split_once("charset") else {
            continue;
        };
        let label = value
            .trim_start_matches(|ch: char| ch.is_whitespace() || "=\"'".contains(ch))
            .split(|ch: char| ch.is_whitespace() || "\"';/".contains(ch))
            .next()
            .unwrap_or_default();
        if let Some(Charset::Table(table)) = charset(label) {
            return Some(if table.is_ascii_compatible() {
                table
            } else {
                UTF_8
            });
        }
    }
    None
}
