//! What services say in errors, made fit to be kept, logged and shown: one line, not too long, and without
//! the secrets that the service was sent and may repeat.

use serde_json::Value;

/// Of a service's own words, so many characters are passed on.
const MAX_CHARS: usize = 300;
/// Who has so much of a secret in its beginning is taken to quote it; services cut what they quote.
const QUOTED: usize = 10;

/// Stands for a secret.
const REDACTED: &str = "[REDACTED]";

/// The text at a JSON pointer, or nothing.
pub(super) fn at(answer: &Value, pointer: &str, secrets: &[&str]) -> String {
    let text = answer.pointer(pointer).and_then(Value::as_str);
    fit(text.unwrap_or_default(), secrets)
}

/// The text without control characters, which databases do not take, and without these secrets.
pub(super) fn fit(text: &str, secrets: &[&str]) -> String {
    let mut line: String = text.chars().filter(|c| !c.is_control()).collect();
    for secret in secrets {
        line = without(&line, secret);
    }
    line.chars().take(MAX_CHARS).collect()
}

/// The text with every quotation of the secret, whole or cut off, taken out.
fn without(text: &str, secret: &str) -> String {
    let begin: String = secret.chars().take(QUOTED).collect();
    if begin.is_empty() {
        return text.to_owned();
    }
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, found)) = rest.split_once(&begin) {
        left.push_str(before);
        left.push_str(REDACTED);
        let secret = &secret[begin.len()..];
        let same = found
            .char_indices()
            .zip(secret.chars())
            .find(|((_, has), wants)| has != wants)
            .map_or(found.len().min(secret.len()), |((at, _), _)| at);
        rest = &found[same..];
    }
    left + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_out_whole_or_cut_and_the_rest_stays() {
        let secret = "1//0gabcdefghijklmnop";
        for (said, expected) in [
            (
                "token 1//0gabcdefghijklmnop is unknown",
                "token [REDACTED] is unknown",
            ),
            (
                "token 1//0gabcdefgh... is unknown",
                "token [REDACTED]... is unknown",
            ),
            (
                "1//0gabcdefghijklmnop1//0gabcdefghijklmnop",
                "[REDACTED][REDACTED]",
            ),
            ("1//0gabcdefghijklmnopqrs", "[REDACTED]qrs"),
            ("1//0gabcdefg\u{e4}", "[REDACTED]\u{e4}"),
            ("token 1//0gabcd", "token 1//0gabcd"),
            ("1//0gabc\0defghijklmnop\r\nX: 1", "[REDACTED]X: 1"),
        ] {
            assert_eq!(fit(said, &[secret]), expected, "{said:?}");
        }
        assert_eq!(fit("pass it", &["pass", ""]), "[REDACTED] it");
        let long = "x".repeat(295) + secret;
        assert_eq!(fit(&long, &[secret]), "x".repeat(295) + "[REDA");
    }
}
