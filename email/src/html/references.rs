//! Character references of HTML (<https://html.spec.whatwg.org/#character-reference-state>). Tables and single
//! tokens, no state.

use html5ever::data::{C1_REPLACEMENTS, NAMED_ENTITIES};

/// Longest name of a character reference, `CounterClockwiseContourIntegral;`, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// Appends `raw` to `out` with its character references resolved. In the value of an attribute a name without a
/// semicolon stands for itself where it could be the parameter of a link.
pub(super) fn resolve(raw: &str, in_attribute: bool, out: &mut String) {
    let mut rest = raw;
    while let Some(found) = rest.find('&') {
        out.push_str(&rest[..found]);
        rest = &rest[found + 1..];
        let length = match rest.as_bytes().first() {
            Some(b'#') => numeric(rest, out),
            Some(first) if first.is_ascii_alphanumeric() => named(rest, in_attribute, out),
            _ => 0,
        };
        if length == 0 {
            out.push('&');
        }
        rest = &rest[length..];
    }
    out.push_str(rest);
}

/// Reads the name `rest` begins with; the bytes that were read, none where it is no reference.
fn named(rest: &str, in_attribute: bool, out: &mut String) -> usize {
    let window = &rest.as_bytes()[..rest.len().min(MAX_NAME_BYTES)];
    let letters = window
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric())
        .unwrap_or(window.len());
    if window.get(letters) == Some(&b';')
        && let Some(&(first, second)) = NAMED_ENTITIES.get(&rest[..=letters])
    {
        return put(first, second, letters + 1, out);
    }
    // The longest name that is one without a semicolon; the table also holds the beginnings of names.
    let mut found = (0, 0, 0);
    for length in 1..=letters {
        let Some(&(first, second)) = NAMED_ENTITIES.get(&rest[..length]) else {
            break;
        };
        if first != 0 {
            found = (first, second, length);
        }
    }
    let (first, second, length) = found;
    let follows = rest.as_bytes().get(length);
    if in_attribute && follows.is_some_and(|byte| *byte == b'=' || byte.is_ascii_alphanumeric()) {
        return 0;
    }
    put(first, second, length, out)
}

fn put(first: u32, second: u32, length: usize, out: &mut String) -> usize {
    let Some(ch) = char::from_u32(first).filter(|&ch| ch != '\0') else {
        return 0;
    };
    out.push(ch);
    out.extend(char::from_u32(second).filter(|&ch| ch != '\0'));
    length
}

/// Reads a number; the bytes that were read, none where there is no digit.
fn numeric(rest: &str, out: &mut String) -> usize {
    let (start, radix) = match rest.as_bytes().get(1) {
        Some(b'x' | b'X') => (2, 16),
        _ => (1, 10),
    };
    let mut number = 0_u32;
    let mut end = start;
    for ch in rest[start..].chars() {
        let Some(digit) = ch.to_digit(radix) else {
            break;
        };
        number = number.saturating_mul(radix).saturating_add(digit);
        end += 1;
    }
    if end == start {
        return 0;
    }
    out.push(character(number));
    end + usize::from(rest.as_bytes().get(end) == Some(&b';'))
}

/// The character of a number; 128 to 159 mean windows-1252, and what no text may hold is replaced.
fn character(number: u32) -> char {
    let old = number
        .checked_sub(0x80)
        .and_then(|index| C1_REPLACEMENTS.get(index as usize))
        .copied()
        .flatten();
    old.or_else(|| char::from_u32(number))
        .filter(|&ch| ch != '\0')
        .unwrap_or('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(raw: &str, in_attribute: bool) -> String {
        let mut out = String::new();
        resolve(raw, in_attribute, &mut out);
        out
    }

    #[test]
    fn references_are_resolved_as_browsers_do() {
        for (raw, expected) in [
            ("&lt;b&gt; &amp;amp; caf&eacute;", "<b> &amp; café"),
            ("&#8364;&#x20AC;&#146;&#0;&#xD800;", "€€’\u{fffd}\u{fffd}"),
            ("&#99999999999;", "\u{fffd}"),
            ("a&nbsp;b &nbspx &notit; &notin;", "a\u{a0}b \u{a0}x ¬it; ∉"),
            ("AT&T &unknown; x & y &", "AT&T &unknown; x & y &"),
            ("&#; &#x; &#x;1", "&#; &#x; &#x;1"),
            ("&NotEqualTilde;", "≂\u{338}"),
            ("&#65&#66", "AB"),
        ] {
            assert_eq!(resolved(raw, false), expected);
        }
    }

    #[test]
    fn parameters_of_links_are_no_references() {
        assert_eq!(
            resolved("?a=1&copy=2&lt;&copy;&copyx", true),
            "?a=1&copy=2<©&copyx"
        );
    }
}
