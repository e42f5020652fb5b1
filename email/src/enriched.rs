//! `text/enriched` (RFC 1896) and its forerunner `text/richtext` (RFC 1341) as plain text: commands go, what they
//! enclose stays.

/// The words of an enriched text; of a rich one where `rich` is set, which names its line breaks.
pub(super) fn to_plain(source: &str, rich: bool) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut feeds = 0;
    let mut in_parameter = false;
    while let Some(ch) = rest.chars().next() {
        let whole = rest;
        rest = &rest[ch.len_utf8()..];
        if ch == '\r' {
            continue;
        }
        if ch == '\n' {
            feeds += 1;
            continue;
        }
        if feeds > 0 {
            // A single line end is a blank; of several the first is not meant.
            let blank = rich || feeds == 1;
            if blank && !out.is_empty() && !out.ends_with([' ', '\n']) {
                out.push(' ');
            }
            for _ in 1..if blank { 1 } else { feeds } {
                out.push('\n');
            }
            feeds = 0;
        }
        if ch == '<' {
            if let Some(escaped) = rest.strip_prefix('<').filter(|_| !rich) {
                out.push('<');
                rest = escaped;
                continue;
            }
            if let Some((command, after)) = command(whole) {
                rest = after;
                match command.to_ascii_lowercase().as_str() {
                    "param" | "comment" => in_parameter = true,
                    "/param" | "/comment" => in_parameter = false,
                    "nl" | "np" => out.push('\n'),
                    "paragraph" | "/paragraph" => out.push_str("\n\n"),
                    "lt" => out.push('<'),
                    _ => {}
                }
                continue;
            }
        }
        if !in_parameter {
            out.push(ch);
        }
    }
    out
}

/// A command, `<bold>` or `</bold>`, and what follows it.
fn command(source: &str) -> Option<(&str, &str)> {
    /// Longest name of a command (RFC 1896 allows 60 characters), and its slash.
    const LONGEST: usize = 61;
    let end = source
        .bytes()
        .take(LONGEST + 2)
        .position(|byte| byte == b'>')?;
    let name = source.get(1..end)?;
    let plain = name.strip_prefix('/').unwrap_or(name);
    let valid = !plain.is_empty()
        && plain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    valid.then(|| (name, &source[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_go_and_line_ends_mean_what_they_mean() {
        assert_eq!(
            to_plain(
                "<bold>Now</bold> is\r\nthe <<time>\r\n\r\nfor <color><param>red</param>tea</color>",
                false
            ),
            "Now is the <time>\nfor tea"
        );
        assert_eq!(
            to_plain(
                "a<nl>b <lt>c\nd<paragraph>e</paragraph><comment>no</comment>",
                true
            ),
            "a\nb <c d\n\ne\n\n"
        );
        assert_eq!(
            to_plain("1 < 2, <not a command> é <", false),
            "1 < 2, <not a command> é <"
        );
    }
}
