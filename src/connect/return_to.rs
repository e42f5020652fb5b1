//! Where the browser may be sent at the end of a flow: to the origins that the operator allows, and
//! nowhere else.

use url::Url;

/// Longest address that is taken, in bytes.
const MAX_BYTES: usize = 2000;

/// Why the browser is not sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReturnTo {
    /// It is no address of a page, or one that programs read differently.
    #[error(
        "must be an absolute http or https URL of at most {MAX_BYTES} bytes, percent-encoded, \
         without a user name"
    )]
    NoUrl,
    /// Its origin is not on the operator's list.
    #[error("is not at one of the origins in NUCLEUS_HTTP__RETURN_TO")]
    NotAllowed,
}

/// The address, if its origin is one of `allowed`.
pub fn allowed(text: &str, allowed: &[String]) -> Result<Url, InvalidReturnTo> {
    // What a parser would mend or drop in silence (blanks, tabs, line ends, backslashes) another
    // program might read otherwise.
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>'));
    let has_authority = ["http://", "https://"]
        .into_iter()
        .any(|start| text.starts_with(start) && !text[start.len()..].starts_with('/'));
    if !is_plain || !has_authority || text.len() > MAX_BYTES {
        return Err(InvalidReturnTo::NoUrl);
    }
    let url = Url::parse(text).map_err(|_| InvalidReturnTo::NoUrl)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidReturnTo::NoUrl);
    }
    if allowed.contains(&url.origin().ascii_serialization()) {
        Ok(url)
    } else {
        Err(InvalidReturnTo::NotAllowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<String> {
        ["https://app.example", "http://localhost:3000"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn pages_of_the_listed_origins_are_taken_as_they_are() {
        for text in [
            "https://app.example",
            "https://app.example/",
            "https://app.example/a/b?c=d&e=%20#f",
            "https://APP.example/x",
            "https://app.example:443/x",
            "http://localhost:3000/done",
            "https://app.example/?next=https://attacker.example",
        ] {
            let url = allowed(text, &list()).unwrap();
            assert!(
                list().contains(&url.origin().ascii_serialization()),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_else_is() {
        let long = format!("https://app.example/{}", "x".repeat(MAX_BYTES));
        for text in [
            "",
            " ",
            "/",
            "/done",
            "done",
            "?a=b",
            "#",
            "//app.example",
            "///app.example",
            "////app.example/%2f",
            "/\\app.example",
            "\\\\app.example",
            "https:app.example",
            "https:/app.example",
            "https:///app.example",
            "https:\\\\app.example",
            "https://app.example\\@attacker.example",
            "https://app.example\\.attacker.example",
            "https://attacker.example",
            "https://attacker.example/https://app.example",
            "https://attacker.example?https://app.example",
            "https://attacker.example#@app.example",
            "https://app.example.attacker.example",
            "https://app.example@attacker.example",
            "https://app.example:443@attacker.example",
            "https://user@app.example",
            "https://user:password@app.example",
            "https://attacker.example%2f@app.example:1",
            "https://app.example:8443/",
            "https://app.example:80/",
            "https://app.example:0/",
            "https://app.example:99999/",
            "https://.app.example",
            "https://app.example./",
            "https://xapp.example",
            "https://appXexample",
            "https://app.example%00.attacker.example",
            "https://app.example%0d%0aset-cookie:a=b@attacker.example",
            "https://app%2eexample.attacker.example",
            "https://app。example/",
            "https://аpp.example/",
            "https://[::1]/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "http://app.example/",
            "HTTPS://app.example/",
            "http://localhost/",
            "http://localhost:3001/",
            "http://localhost:3000@attacker.example/",
            "ftp://app.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "javascript://app.example/%0aalert(1)",
            "data:text/html,x",
            "vbscript:x",
            "blob:https://app.example/x",
            "view-source:https://app.example/",
            "intent://app.example#Intent;end",
            " https://app.example/",
            "https://app.example/ ",
            "\thttps://app.example/",
            "https://app.example/\r\nlocation: https://attacker.example",
            "https://app.\nexample/",
            "ht\ttps://app.example/",
            "https://app.example/\u{0}",
            "https://app.example/\u{202e}",
            "https://app.example/<script>",
            "https://app.example/\"x",
            &long,
        ] {
            assert!(allowed(text, &list()).is_err(), "{text:?}");
        }
        assert_eq!(
            allowed("https://app.example/", &[]),
            Err(InvalidReturnTo::NotAllowed)
        );
    }
}
