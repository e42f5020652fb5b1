//! The charset of a part: which one it declares, and which one it is really in. It must not look at headers of the
//! message or at the structure of its parts.

use std::borrow::Cow;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Encoding, Message, MessagePart, MimeHeaders, PartType};

use super::{WarningCode, Warnings, text};

/// Names of charsets that are in use and in no table, and what they mean.
const CHARSET_ALIASES: [(&str, &str); 7] = [
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
    ("gb2312_charset", "gb18030"),
    ("chinesebig5", "big5"),
    ("cp-850", "cp850"),
    ("iso-8859-8-logical", "iso-8859-8"),
    ("ansi", "windows-1252"),
];

/// The text of a part. Where the declared charset is unknown or wrong, the likeliest one is taken and flagged.
pub(super) fn decode<'a>(
    message: &'a Message<'_>,
    part: &'a MessagePart<'_>,
    warnings: &mut Warnings,
) -> Cow<'a, str> {
    let (PartType::Text(text) | PartType::Html(text)) = &part.body else {
        return Cow::Borrowed("");
    };
    let declared = part
        .content_type()
        .and_then(|kind| kind.attribute("charset"));
    let known = declared.and_then(|name| charset_decoder(name.as_bytes()));
    let broken = text.contains('\u{fffd}');
    let shifted = declared.is_none() && (text.contains("\x1b$B") || text.contains("\x1b$@"));
    if shifted {
        return decode_as("iso-2022-jp", message, part).map_or(Cow::Borrowed(text), Cow::Owned);
    }
    if known.is_some() && !broken {
        return Cow::Borrowed(text);
    }
    let name = declared.unwrap_or("none");
    let utf8 = declared.is_none_or(|name| name.to_ascii_lowercase().starts_with("utf"));
    if !broken && (utf8 || text.is_ascii()) {
        return Cow::Borrowed(text);
    }
    if part.is_encoding_problem && broken {
        // Bytes of an undecoded part: no charset would make them text.
        return Cow::Borrowed(text);
    }
    let name = text::prefix(name, 60);
    let alias = CHARSET_ALIASES
        .iter()
        .find(|(alias, _)| alias.eq_ignore_ascii_case(name));
    if let Some((_, meant)) = alias
        && let Some(decoded) = decode_as(meant, message, part)
    {
        warnings.add(
            WarningCode::CharsetFallback,
            format!("charset {name:?} was read as {meant}"),
        );
        return Cow::Owned(decoded);
    }
    // Not one valid UTF-8 sequence among the characters beyond ASCII: a single-byte charset of the west, mostly.
    let no_utf8 = text.chars().all(|ch| ch.is_ascii() || ch == '\u{fffd}');
    if broken
        && known.is_none()
        && no_utf8
        && let Some(decoded) = decode_as("windows-1252", message, part)
    {
        warnings.add(
            WarningCode::CharsetFallback,
            format!("charset {name:?} was read as windows-1252"),
        );
        return Cow::Owned(decoded);
    }
    warnings.add(
        WarningCode::CharsetFallback,
        format!("some characters are not of charset {name:?}"),
    );
    Cow::Borrowed(text)
}

/// The bytes of a part, decoded again and read in another charset.
fn decode_as(charset: &str, message: &Message<'_>, part: &MessagePart<'_>) -> Option<String> {
    let decoder = charset_decoder(charset.as_bytes())?;
    let range = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
    let raw = message.raw_message.get(range)?;
    Some(match part.encoding {
        Encoding::None => decoder(raw),
        Encoding::Base64 => decoder(&base64_decode(raw)?),
        Encoding::QuotedPrintable => decoder(&quoted_printable_decode(raw)?),
    })
}
