//! What the elements of HTML mean for text and for a tree builder, its attributes and its character references.
//! Tables and single tokens, no state.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::add_html_token;

/// Longest character reference, `&CounterClockwiseContourIntegral;`, in bytes.
const MAX_REFERENCE_BYTES: usize = 33;

/// Longest name of an element that is known, in bytes.
const MAX_NAME_BYTES: usize = 12;

/// What an element means for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Inline,
    Formatting,
    Link,
    Paragraph,
    Line,
    Break,
    Rule,
    List,
    Item,
    Table,
    Row,
    Cell,
    Quote,
    Preformatted,
    Image,
    /// Content is no markup and no text for a reader.
    Raw,
    /// Content is markup that mail programs do not show as text.
    Skipped,
    /// Has no content and no meaning here.
    Void,
}

/// The attributes that are looked at.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) style: Option<&'a str>,
    pub(super) href: Option<&'a str>,
    pub(super) alt: Option<&'a str>,
    pub(super) start: Option<&'a str>,
    pub(super) hidden: bool,
    pub(super) count: usize,
    /// Whether the tag ends; one that does not is no tag.
    pub(super) complete: bool,
    /// Bytes × characters to escape, summed over the values.
    pub(super) escape_work: usize,
}

/// The role of an element, by its name in any case.
pub(super) fn role(name: &str) -> Role {
    let mut buffer = [0_u8; MAX_NAME_BYTES];
    match lower(name, &mut buffer) {
        b"a" => Role::Link,
        b"b" | b"big" | b"code" | b"em" | b"font" | b"i" | b"nobr" | b"s" | b"small"
        | b"strike" | b"strong" | b"tt" | b"u" => Role::Formatting,
        b"p" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" | b"dl" => Role::Paragraph,
        b"div" | b"section" | b"article" | b"header" | b"footer" | b"main" | b"nav" | b"aside"
        | b"address" | b"center" | b"form" | b"fieldset" | b"figure" | b"figcaption"
        | b"caption" | b"dt" | b"dd" | b"legend" | b"details" | b"summary" | b"option" => {
            Role::Line
        }
        b"br" => Role::Break,
        b"hr" => Role::Rule,
        b"ul" | b"ol" | b"menu" | b"dir" => Role::List,
        b"li" => Role::Item,
        b"table" | b"tbody" | b"thead" | b"tfoot" => Role::Table,
        b"tr" => Role::Row,
        b"td" | b"th" => Role::Cell,
        b"blockquote" => Role::Quote,
        b"pre" => Role::Preformatted,
        b"img" => Role::Image,
        b"script" | b"style" | b"title" | b"textarea" | b"xmp" | b"iframe" | b"noembed"
        | b"noframes" => Role::Raw,
        b"template" | b"svg" | b"math" | b"object" | b"select" | b"audio" | b"video" => {
            Role::Skipped
        }
        b"area" | b"base" | b"basefont" | b"bgsound" | b"col" | b"embed" | b"frame" | b"input"
        | b"link" | b"meta" | b"param" | b"source" | b"track" | b"wbr" => Role::Void,
        _ => Role::Inline,
    }
}

/// Elements that are dropped and that, while they stand, end or separate others in a tree builder.
pub(super) fn restructures(name: &str) -> bool {
    let mut buffer = [0_u8; MAX_NAME_BYTES];
    matches!(
        lower(name, &mut buffer),
        b"applet"
            | b"button"
            | b"caption"
            | b"details"
            | b"dialog"
            | b"dir"
            | b"fieldset"
            | b"form"
            | b"frameset"
            | b"hgroup"
            | b"image"
            | b"input"
            | b"keygen"
            | b"legend"
            | b"listing"
            | b"marquee"
            | b"menu"
            | b"nav"
            | b"nobr"
            | b"noframes"
            | b"noscript"
            | b"optgroup"
            | b"option"
            | b"plaintext"
            | b"pre"
            | b"rb"
            | b"rp"
            | b"rt"
            | b"rtc"
            | b"summary"
            | b"xmp"
    )
}

/// A name in lower case; one longer than any known is empty.
fn lower<'a>(name: &str, buffer: &'a mut [u8; MAX_NAME_BYTES]) -> &'a [u8] {
    let Some(slot) = buffer.get_mut(..name.len()) else {
        return &[];
    };
    slot.copy_from_slice(name.as_bytes());
    slot.make_ascii_lowercase();
    slot
}

/// Whether the start of an element always parts the text before it from the text after it, in a tree.
pub(super) fn parts_text(role: Role) -> bool {
    matches!(
        role,
        Role::Formatting
            | Role::Link
            | Role::Paragraph
            | Role::Line
            | Role::Break
            | Role::Rule
            | Role::List
            | Role::Item
            | Role::Quote
            | Role::Image
    )
}

/// Whether both names are among the pair.
pub(super) fn same(open: &str, name: &str, one: &str, other: &str) -> bool {
    let of = |tag: &str| tag.eq_ignore_ascii_case(one) || tag.eq_ignore_ascii_case(other);
    of(open) && of(name)
}

/// The attributes in `html` of a tag whose name ends at `start`, and where the tag ends.
pub(super) fn attributes<'a>(html: &'a str, start: usize) -> (Attributes<'a>, usize) {
    let bytes = html.as_bytes();
    let mut found = Attributes::default();
    let mut at = start;
    loop {
        while bytes
            .get(at)
            .is_some_and(|&byte| byte.is_ascii_whitespace() || byte == b'/')
        {
            at += 1;
        }
        match bytes.get(at) {
            None => return (found, html.len()),
            Some(b'>') => {
                found.complete = true;
                return (found, at + 1);
            }
            Some(_) => {}
        }
        let name_start = at;
        at += 1;
        while bytes
            .get(at)
            .is_some_and(|&byte| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>' | b'='))
        {
            at += 1;
        }
        let name = &html[name_start..at];
        let mut equals = at;
        while bytes.get(equals).is_some_and(u8::is_ascii_whitespace) {
            equals += 1;
        }
        let mut value = "";
        if bytes.get(equals) == Some(&b'=') {
            at = equals + 1;
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            let value_start;
            match bytes.get(at) {
                Some(&quote @ (b'"' | b'\'')) => {
                    value_start = at + 1;
                    at = bytes[value_start..]
                        .iter()
                        .position(|&byte| byte == quote)
                        .map_or(html.len(), |length| value_start + length);
                    value = &html[value_start..at];
                    at = (at + 1).min(html.len());
                }
                _ => {
                    value_start = at;
                    while bytes
                        .get(at)
                        .is_some_and(|&byte| !byte.is_ascii_whitespace() && byte != b'>')
                    {
                        at += 1;
                    }
                    value = &html[value_start..at];
                }
            }
        }
        found.count += 1;
        found.escape_work += value.len() * escapes(value);
        found.keep(name, value);
    }
}

impl<'a> Attributes<'a> {
    /// Keeps a value that is looked at; of a doubled attribute the first one counts.
    fn keep(&mut self, name: &str, value: &'a str) {
        let slot = match name.len() {
            3 if name.eq_ignore_ascii_case("alt") => &mut self.alt,
            4 if name.eq_ignore_ascii_case("href") => &mut self.href,
            5 if name.eq_ignore_ascii_case("style") => &mut self.style,
            5 if name.eq_ignore_ascii_case("start") => &mut self.start,
            6 if name.eq_ignore_ascii_case("hidden") => {
                self.hidden = true;
                return;
            }
            _ => return,
        };
        if slot.is_none() {
            *slot = Some(value);
        }
    }
}

/// Characters of HTML text that a serialiser may have to escape: references, and no-break spaces (0xC2 0xA0).
pub(super) fn escapes(text: &str) -> usize {
    text.bytes()
        .filter(|&byte| byte == b'&' || byte == 0xc2)
        .count()
}

/// Text with its character references resolved.
pub(super) fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains('&') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(found) = rest.find('&') {
        out.push_str(&rest[..found]);
        rest = &rest[found..];
        let window = &rest.as_bytes()[..rest.len().min(MAX_REFERENCE_BYTES)];
        let length = window[1..]
            .iter()
            .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'#')
            .map_or(window.len(), |end| end + 1);
        let closed = rest.as_bytes().get(length) == Some(&b';');
        let name = &rest[1..length];
        rest = &rest[length..];
        if let Some(ch) = numeric(name) {
            out.push(ch);
        } else if closed && !name.is_empty() {
            add_html_token(&mut out, format!("&{name};").as_bytes(), false);
        } else if let Some(space) = name.strip_prefix("nbsp") {
            out.push('\u{a0}');
            out.push_str(space);
            continue;
        } else {
            out.push('&');
            out.push_str(name);
            continue;
        }
        rest = rest.strip_prefix(';').unwrap_or(rest);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A numeric reference; numbers 128 to 159 mean windows-1252, as in browsers.
fn numeric(name: &str) -> Option<char> {
    let digits = name.strip_prefix('#')?;
    let number = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    if let Ok(byte @ 0x80..=0x9f) = u8::try_from(number) {
        return charset_decoder(b"windows-1252")?(&[byte]).chars().next();
    }
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved() {
        assert_eq!(
            decoded(
                "&lt;b&gt; &amp;amp; caf&eacute; &#8364;&#x20AC;&#146; a&nbsp;b AT&T &unknown; x & y"
            ),
            "<b> &amp; café €€’ a\u{a0}b AT&T &unknown; x & y"
        );
    }

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(role("BlockQuote"), Role::Quote);
        assert_eq!(role("averyverylongname"), Role::Inline);
        assert!(restructures("BUTTON"));
    }
}
