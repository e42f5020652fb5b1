//! Unicode and line rules of readable text: NFC, invisible characters, `format=flowed`. It knows no MIME.

use std::iter::Peekable;
use std::str::CharIndices;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::{HiddenKind, MAX_TEXT_BYTES, WarningCode, Warnings};

/// Longest sequence of tag characters of a flag emoji (six of them and a terminator, UTS 51).
const MAX_FLAG_TAGS: usize = 8;
/// Deepest quotation that is told apart in flowed text.
const MAX_QUOTE_DEPTH: usize = 50;

/// The longest prefix of at most `limit` bytes that ends between two characters.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Cleaned, bounded by [`MAX_TEXT_BYTES`], without blank lines before and blanks after the text.
pub(super) fn finish(raw: &str, warnings: &mut Warnings) -> String {
    // Cleaning mostly shortens; what lies far beyond the limit need not be cleaned.
    let mut cleaned = clean(prefix(raw, MAX_TEXT_BYTES * 2), warnings);
    if cleaned.len() > MAX_TEXT_BYTES || raw.len() > MAX_TEXT_BYTES * 2 {
        let length = prefix(&cleaned, MAX_TEXT_BYTES).len();
        cleaned.truncate(length);
        warnings.add(
            WarningCode::LimitTextBytes,
            format!("the text was cut at {length} bytes"),
        );
    }
    cleaned.truncate(cleaned.trim_end().len());
    let first_line = first_text_line(&cleaned);
    if first_line > 0 {
        cleaned.drain(..first_line);
    }
    cleaned
}

/// Where the first line that is not blank begins.
fn first_text_line(text: &str) -> usize {
    let start = text.len() - text.trim_start().len();
    text[..start].rfind('\n').map_or(0, |feed| feed + 1)
}

/// NFC, LF line ends, no control characters but tab, no characters that hide or reorder text.
pub(super) fn clean(raw: &str, warnings: &mut Warnings) -> String {
    if !has_special(raw.as_bytes()) {
        if raw.contains('\r') {
            return raw.replace("\r\n", "\n").replace('\r', "\n");
        }
        return raw.to_owned();
    }
    let mut out = String::with_capacity(raw.len());
    let mut run = 0;
    let mut hidden = 0;
    let mut nuls = 0;
    let mut previous = '\n';
    let mut chars = raw.char_indices().peekable();
    while let Some((at, ch)) = chars.next() {
        let keep = match ch {
            '\n' | '\t' | ' '..='~' => true,
            '\r' => {
                out.push_str(&raw[run..at]);
                run = at + 1;
                if chars.peek().is_none_or(|&(_, next)| next != '\n') {
                    out.push('\n');
                }
                previous = '\n';
                continue;
            }
            '\0' => {
                nuls += 1;
                false
            }
            '\u{80}'..='\u{9f}' | '\0'..='\x1f' | '\x7f' => false,
            // A byte order mark at the start and soft hyphens are no trick.
            '\u{feff}' if at == 0 => false,
            '\u{ad}' => false,
            '\u{200c}' | '\u{200d}' if joins(previous, &mut chars) => true,
            '\u{e0020}'..='\u{e007f}' if previous == '\u{1f3f4}' => flag(&raw[at..]),
            _ => {
                let kind = invisible(ch);
                if let Some(kind) = kind {
                    warnings.hide(kind, ch.len_utf8());
                    hidden += 1;
                }
                kind.is_none()
            }
        };
        if keep && previous == '\u{1f3f4}' && is_tag(ch) {
            // The rest of a flag belongs to it.
            while chars.next_if(|&(_, next)| is_tag(next)).is_some() {}
            previous = ch;
            continue;
        }
        if !keep {
            out.push_str(&raw[run..at]);
            run = at + ch.len_utf8();
            continue;
        }
        previous = ch;
    }
    out.push_str(&raw[run..]);
    if nuls > 0 {
        warnings.add(
            WarningCode::NulBytes,
            format!("{nuls} nul bytes were left out"),
        );
    }
    if hidden > 0 {
        warnings.add(
            WarningCode::InvisibleCharacters,
            format!("{hidden} invisible characters were left out"),
        );
    }
    if is_nfc_quick(out.chars()) == IsNormalized::Yes {
        return out;
    }
    out.nfc().collect()
}

/// Whether anything has to be looked at character by character.
fn has_special(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .any(|&byte| byte >= 0x7f || (byte < b' ' && !matches!(byte, b'\n' | b'\t' | b'\r')))
}

/// The kind of characters that show nothing, or that make a reader see text in another order than it is stored
/// (UAX 9 explicit formatting, UTS 39 invisible characters). Direction marks stay: they only keep the order of what
/// is around them.
fn invisible(ch: char) -> Option<HiddenKind> {
    match ch {
        '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{180e}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0100}'..='\u{e01ef}' => Some(HiddenKind::ZeroWidth),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{206a}'..='\u{206f}' => {
            Some(HiddenKind::BidiControls)
        }
        _ if is_tag(ch) => Some(HiddenKind::TagCharacters),
        _ => None,
    }
}

fn is_invisible(ch: char) -> bool {
    invisible(ch).is_some()
}

fn is_tag(ch: char) -> bool {
    matches!(ch, '\u{e0000}'..='\u{e007f}')
}

/// A joiner between two letters of a script that needs it, or two emoji, is part of the word.
fn joins(previous: char, chars: &mut Peekable<CharIndices<'_>>) -> bool {
    let Some(&(_, next)) = chars.peek() else {
        return false;
    };
    !previous.is_ascii()
        && !next.is_ascii()
        && !previous.is_whitespace()
        && !next.is_whitespace()
        && !is_invisible(previous)
        && !is_invisible(next)
}

/// Whether tag characters, just after a black flag, spell a region and end as UTS 51 asks.
fn flag(tags: &str) -> bool {
    for (count, ch) in tags.chars().enumerate() {
        if ch == '\u{e007f}' {
            return count > 0;
        }
        if count >= MAX_FLAG_TAGS || !is_tag(ch) {
            return false;
        }
    }
    false
}

/// Joins the soft line breaks of `format=flowed` (RFC 3676), with LF or CRLF line ends; quotes keep one `>` a level.
pub(super) fn unflow(raw: &str, delsp: bool) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut open: Option<usize> = None;
    for line in raw.lines() {
        let depth = line.bytes().take_while(|&byte| byte == b'>').count();
        let content = &line[depth..];
        let content = content.strip_prefix(' ').unwrap_or(content);
        let signature = content == "-- ";
        match open {
            Some(before) if before == depth && !signature => {}
            Some(_) => {
                out.push('\n');
                quote_prefix(&mut out, depth);
            }
            None => quote_prefix(&mut out, depth),
        }
        if content.ends_with(' ') && !signature {
            let end = content.len() - usize::from(delsp);
            out.push_str(&content[..end]);
            open = Some(depth);
        } else {
            out.push_str(content);
            out.push('\n');
            open = None;
        }
    }
    out
}

fn quote_prefix(out: &mut String, depth: usize) {
    for _ in 0..depth.min(MAX_QUOTE_DEPTH) {
        out.push('>');
    }
    if depth > 0 {
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(raw: &str) -> (String, Vec<WarningCode>) {
        let mut warnings = Warnings::default();
        let text = clean(raw, &mut warnings);
        (
            text,
            warnings.list.iter().map(|warning| warning.code).collect(),
        )
    }

    #[test]
    fn line_ends_become_line_feeds_and_controls_vanish() {
        assert_eq!(cleaned("a\r\nb\rc\x07\x1bd\te").0, "a\nb\ncd\te");
    }

    #[test]
    fn text_is_composed() {
        assert_eq!(cleaned("Cafe\u{301}").0, "Café");
    }

    #[test]
    fn zero_width_tag_and_override_characters_are_left_out_and_flagged() {
        let (text, codes) = cleaned("pay\u{200b}pal \u{202e}gpj.exe\u{e0069}\u{e0067}\u{2060}!");
        assert_eq!(text, "paypal gpj.exe!");
        assert_eq!(codes, [WarningCode::InvisibleCharacters]);
    }

    #[test]
    fn joiners_and_flags_that_mean_something_stay() {
        let family = "👨\u{200d}👩\u{200d}👧";
        let persian = "می\u{200c}خواهم";
        let scotland = "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}!";
        for text in [family, persian, scotland] {
            assert_eq!(cleaned(text), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn a_flag_that_never_ends_is_no_flag() {
        let mut raw = String::from("🏴");
        for _ in 0..50 {
            raw.push('\u{e0041}');
        }
        assert_eq!(cleaned(&raw).0, "🏴");
    }

    #[test]
    fn a_byte_order_mark_and_soft_hyphens_go_without_a_warning() {
        assert_eq!(
            cleaned("\u{feff}co\u{ad}operate"),
            ("cooperate".to_owned(), Vec::new())
        );
    }

    #[test]
    fn long_text_is_cut_between_characters_and_flagged() {
        let mut warnings = Warnings::default();
        let text = finish(&"é".repeat(MAX_TEXT_BYTES), &mut warnings);
        assert_eq!(text.len(), MAX_TEXT_BYTES);
        assert_eq!(warnings.list[0].code, WarningCode::LimitTextBytes);
    }

    #[test]
    fn blank_lines_around_go_and_indentation_stays() {
        let mut warnings = Warnings::default();
        assert_eq!(
            finish("\n \n  indented\nb \n\n", &mut warnings),
            "  indented\nb"
        );
    }

    #[test]
    fn flowed_lines_are_joined_per_quote_level() {
        let raw =
            "One \r\ntwo\r\n> quoted \r\n> more\r\n>> deep \r\nnew\r\n spaced\r\n-- \r\nme\r\n";
        assert_eq!(
            unflow(raw, false),
            "One two\n> quoted more\n>> deep \nnew\nspaced\n-- \nme\n"
        );
        assert_eq!(unflow("super \nman\n", true), "superman\n");
    }
}
