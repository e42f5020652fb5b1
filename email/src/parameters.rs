//! Parameters of MIME fields (RFC 2045, RFC 2231), read for names of files, which come in every way that was ever
//! thought of. It must not say where a file goes: `body` keeps the last step of a path.

use mail_parser::{HeaderName, Message, MessagePart};

use super::{MAX_FIELD_BYTES, MAX_HEADER_BYTES, Warnings, charset, words};

/// The name that a part gives its content, decoded: `filename` of Content-Disposition, else `name` of Content-Type.
pub(super) fn file_name(
    message: &Message<'_>,
    part: &MessagePart<'_>,
    warnings: &mut Warnings,
) -> Option<String> {
    for (field, wanted) in [
        (HeaderName::ContentDisposition, "filename"),
        (HeaderName::ContentType, "name"),
    ] {
        for header in &part.headers {
            if header.name != field {
                continue;
            }
            let range = header.offset_start() as usize..header.offset_end() as usize;
            let raw = message.raw_message.get(range).unwrap_or_default();
            let raw = &raw[..raw.len().min(MAX_HEADER_BYTES)];
            let line = words::unfold(raw, None, warnings);
            if let Some(name) = parameter(&line, wanted, warnings) {
                return Some(name);
            }
        }
    }
    None
}

/// A piece of a continued parameter.
struct Piece {
    number: u32,
    extended: bool,
    value: String,
}

/// The parameter `wanted` of a field (unfolded), decoded. One in the form of RFC 2231 goes before a plain one.
fn parameter(line: &str, wanted: &str, warnings: &mut Warnings) -> Option<String> {
    let mut plain = None;
    let mut pieces = Vec::new();
    let mut rest = after_value(line);
    while let Some((name, value, after)) = next(rest) {
        rest = after;
        let Some(form) = strip_name(name, wanted) else {
            continue;
        };
        let Some(marks) = form.strip_prefix('*') else {
            if form.is_empty() && plain.is_none() {
                plain = Some(value);
            }
            continue;
        };
        let numbered = marks.strip_suffix('*').unwrap_or(marks);
        let extended = marks.is_empty() || marks.ends_with('*');
        if let Ok(number) = if numbered.is_empty() {
            Ok(0)
        } else {
            numbered.parse()
        } {
            pieces.push(Piece {
                number,
                extended,
                value,
            });
        }
    }
    if let Some(name) = joined(pieces, warnings) {
        return Some(name);
    }
    let value = plain?;
    // The form of RFC 2231 under a plain name.
    if value
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("utf-8''"))
    {
        let piece = Piece {
            number: 0,
            extended: true,
            value,
        };
        return joined(vec![piece], warnings);
    }
    Some(words::decode(&value, warnings).into_owned())
}

/// What of a parameter's name follows `wanted`.
fn strip_name<'a>(name: &'a str, wanted: &str) -> Option<&'a str> {
    let start = name.get(..wanted.len())?;
    start
        .eq_ignore_ascii_case(wanted)
        .then(|| &name[wanted.len()..])
}

/// The value of pieces in their order, up to the first that is missing.
fn joined(mut pieces: Vec<Piece>, warnings: &mut Warnings) -> Option<String> {
    pieces.sort_by_key(|piece| piece.number);
    let first = pieces.first()?;
    let mut label = None;
    let mut start = 0;
    if first.extended {
        let mut quotes = first.value.match_indices('\'');
        match (quotes.next(), quotes.next()) {
            (Some((one, _)), Some((two, _))) => {
                label = Some(first.value[..one].to_owned()).filter(|label| !label.is_empty());
                start = two + 1;
            }
            // The language and its quote are missing.
            (Some((one, _)), None) if charset::is_known(&first.value[..one]) => {
                label = Some(first.value[..one].to_owned());
                start = one + 1;
            }
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    let mut expected = first.number;
    let any_extended = pieces.iter().any(|piece| piece.extended);
    for piece in &pieces {
        if piece.number < expected {
            continue;
        }
        if piece.number > expected || bytes.len() > MAX_FIELD_BYTES {
            break;
        }
        expected += 1;
        let value = &piece.value[start..];
        start = 0;
        if piece.extended {
            percent_decoded(value, &mut bytes);
        } else {
            bytes.extend_from_slice(value.as_bytes());
        }
    }
    let text = charset::read(&bytes, label.as_deref(), false)
        .flagged(warnings)
        .into_owned();
    if any_extended {
        return Some(text);
    }
    Some(words::decode(&text, warnings).into_owned())
}

fn percent_decoded(value: &str, out: &mut Vec<u8>) {
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = (
            rest.first().and_then(words::hex),
            rest.get(1).and_then(words::hex),
        );
        match (byte, digits) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high << 4 | low);
                rest = &rest[2..];
            }
            _ => out.push(byte),
        }
    }
}

/// What follows the value of a field: its first semicolon, or blank where that was forgotten.
fn after_value(line: &str) -> &str {
    match line.find([';', ' ', '\t']) {
        Some(at) => &line[at + 1..],
        None => "",
    }
}

/// The next name and value, and what follows them.
fn next(rest: &str) -> Option<(&str, String, &str)> {
    let (before, after) = rest.split_once('=')?;
    // Of `junk; name` and `junk name` the name is the end.
    let name = before
        .trim_end()
        .rsplit([';', ' ', '\t'])
        .next()
        .unwrap_or_default();
    let value = after.trim_start();
    let Some(inside) = value.strip_prefix('"') else {
        let end = value.find(';').unwrap_or(value.len());
        let plain = value[..end].trim_end();
        return Some((name, plain.to_owned(), &value[end..]));
    };
    let mut content = String::new();
    let mut signs = inside.char_indices().peekable();
    while let Some((at, ch)) = signs.next() {
        if ch == '\\'
            && let Some((_, escaped)) = signs.next_if(|(_, next)| matches!(next, '"' | '\\'))
        {
            content.push(escaped);
        } else if ch == '"' && closes(&inside[at + 1..]) {
            return Some((name, content, &inside[at + 1..]));
        } else {
            content.push(ch);
        }
    }
    let end = inside.find(';').unwrap_or(inside.len());
    Some((name, inside[..end].trim_end().to_owned(), &inside[end..]))
}

/// Whether a quote before `after` closes a value: nothing follows, a semicolon, or the next parameter.
fn closes(after: &str) -> bool {
    /// Longest name of a parameter that is looked for.
    const MAX_NAME_BYTES: usize = 40;
    let next = after.trim_start();
    if next.is_empty() || next.starts_with([';', '(']) {
        return true;
    }
    let window = super::text::prefix(next, MAX_NAME_BYTES);
    let Some((name, _)) = window.split_once('=') else {
        return false;
    };
    next.len() < after.len()
        && name
            .chars()
            .all(|ch| ch.is_ascii_alphanumeric() || "*-".contains(ch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &str) -> Option<String> {
        parameter(line, "filename", &mut Warnings::default())
    }

    #[test]
    fn names_are_read_in_every_form() {
        for (line, expected) in [
            ("attachment; filename=a.txt", "a.txt"),
            ("attachment; FileName = \"a b.txt\" ; size=3", "a b.txt"),
            ("attachment; filename=my file.pdf; size=3", "my file.pdf"),
            ("attachment filename=a.txt", "a.txt"),
            ("attachment; size=\"1;filename=no\"; filename=yes", "yes"),
            (
                "attachment; filename=\"a \\\"b\\\" c\\\\d\\e.txt\"",
                "a \"b\" c\\d\\e.txt",
            ),
            ("attachment; filename=\"a\"b\".txt\"", "a\"b\".txt"),
            ("attachment; filename=\"a.txt\" size=3", "a.txt"),
            ("attachment; filename=\"open.txt; size=3", "open.txt"),
            (
                "attachment; filename*=utf-8''r%C3%A9sum%c3%a9.pdf",
                "résumé.pdf",
            ),
            (
                "attachment; filename*=iso-8859-1'fr'r%e9sum%e9.pdf; filename=resume.pdf",
                "résumé.pdf",
            ),
            (
                "attachment; filename*1=\"b.txt\"; filename*0=\"a\"",
                "ab.txt",
            ),
            (
                "attachment; filename*0*=utf-8''%e2%82; filename*1*=%ac; filename*2=\" 100%25.txt\"",
                "€ 100%25.txt",
            ),
            ("attachment; filename*0=a; filename*2=c", "a"),
            (
                "attachment; filename=\"=?utf-8?B?csOpc3Vtw6kucGRm?=\"",
                "résumé.pdf",
            ),
            (
                "attachment; filename*0=\"=?utf-8?Q?r=C3=A9\"; filename*1=\"sum=C3=A9?=\"",
                "résumé",
            ),
            ("attachment; filename=\"UTF-8''r%C3%A9.pdf\"", "ré.pdf"),
            ("attachment; filename*=plain%20name.txt", "plain name.txt"),
            ("attachment; filename*=utf-8'r%C3%A9.pdf", "ré.pdf"),
            ("attachment; filename*=Ann's%20plan", "Ann's plan"),
            ("attachment; filename=\"\"", ""),
        ] {
            assert_eq!(name(line).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "",
            "attachment",
            "attachment; name=x",
            "inline; filenames=x",
            "a; filename*x=y",
        ] {
            assert_eq!(name(line), None, "{line}");
        }
    }

    #[test]
    fn many_pieces_are_bounded() {
        let mut line = "attachment".to_owned();
        for number in (0..50_000).rev() {
            line.push_str(&format!("; filename*{number}=\"0123456789\""));
        }
        let length = name(&line).unwrap().len();
        assert!((MAX_FIELD_BYTES..MAX_FIELD_BYTES + 20).contains(&length));
    }
}
