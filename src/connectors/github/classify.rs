//! What GitHub's error answers mean.
//!
//! Reference: <https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api> and
//! <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.

use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;

use super::super::client::{Class, HeaderMap, RetryAfter, StatusCode};

/// After a refusal for the secondary limit that names no time, GitHub asks for a minute at least.
const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// Of the service's own words, so many characters are passed on.
const MESSAGE_CHARS: usize = 300;

/// The code of a refusal that concerns what was asked for, and not the token.
pub(super) const NOT_ACCESSIBLE: &str = "insufficient_permissions";
/// The code of a refusal that ends once the person has signed on at an organisation.
pub(super) const SSO_REQUIRED: &str = "sso_required";
/// The code of the answer about an issue that was deleted. A feature that is switched off and a version of
/// the API that is no longer served have the same status.
pub(super) const DELETED: &str = "deleted";
/// The code of a refusal that is not known better.
pub(super) const REJECTED: &str = "rejected";

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    message: String,
}

/// See [`super::super::client::Classify`].
pub(super) fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Class {
    let message = serde_json::from_slice::<Body>(body)
        .unwrap_or_default()
        .message;
    match status.as_u16() {
        401 => Class::Unauthorized,
        403 | 429 => refused(status, headers, &message),
        410 if message.to_lowercase().contains("was deleted") => Class::Rejected {
            code: DELETED,
            detail: words(status, &message),
        },
        404 | 410 => Class::NotFound,
        // Taken down for legal reasons.
        451 => Class::Rejected {
            code: NOT_ACCESSIBLE,
            detail: words(status, &message),
        },
        408 | 500..=599 => Class::Retry,
        _ => rejected(status, &message),
    }
}

fn refused(status: StatusCode, headers: &HeaderMap, message: &str) -> Class {
    if text(headers, "x-ratelimit-remaining") == Some("0") {
        return Class::RateLimited(reset(headers).or(Some(RetryAfter::In(SECONDARY_WAIT))));
    }
    let lower = message.to_lowercase();
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS
        || headers.contains_key("retry-after")
        || lower.contains("secondary rate limit")
        || lower.contains("abuse detection");
    if is_limit {
        let named = headers.contains_key("retry-after");
        return Class::RateLimited((!named).then_some(RetryAfter::In(SECONDARY_WAIT)));
    }
    if let Some(sso) = text(headers, "x-github-sso") {
        let url = sso.split_once("url=").map_or("", |(_, url)| url);
        return Class::Rejected {
            code: SSO_REQUIRED,
            detail: format!(
                "an organisation asks for single sign-on before this token may read there: \
                 authorize the token {url}"
            )
            .trim_end()
            .to_owned(),
        };
    }
    if lower.contains("user-agent")
        || lower.contains("suspended")
        || lower.contains("ip allow list")
    {
        return rejected(status, message);
    }
    Class::Rejected {
        code: NOT_ACCESSIBLE,
        detail: format!(
            "{}; give the token the permission to read this, or connect again",
            words(status, message)
        ),
    }
}

fn rejected(status: StatusCode, message: &str) -> Class {
    Class::Rejected {
        code: REJECTED,
        detail: words(status, message),
    }
}

fn words(status: StatusCode, message: &str) -> String {
    let said: String = message
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS)
        .collect();
    match said.is_empty() {
        true => format!("github answered {}", status.as_u16()),
        false => format!("github answered {}: {said}", status.as_u16()),
    }
}

/// When the primary limit begins anew, in seconds since the epoch.
fn reset(headers: &HeaderMap) -> Option<RetryAfter> {
    let seconds = text(headers, "x-ratelimit-reset")?.parse().ok()?;
    DateTime::from_timestamp(seconds, 0).map(RetryAfter::At)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(status: u16, headers: &[(&'static str, &str)], message: &str) -> Class {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let body = json!({"message": message, "status": status.to_string()}).to_string();
        classify(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes())
    }

    fn code(class: Class) -> &'static str {
        match class {
            Class::Rejected { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_primary_limit_names_when_it_begins_anew() {
        let at = DateTime::from_timestamp(1_795_000_060, 0).unwrap();
        for status in [403, 429] {
            let headers = [
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1795000060"),
            ];
            assert_eq!(
                class(status, &headers, "API rate limit exceeded"),
                Class::RateLimited(Some(RetryAfter::At(at)))
            );
        }
    }

    #[test]
    fn the_secondary_limit_is_known_by_its_header_or_its_words() {
        let minute = Some(RetryAfter::In(SECONDARY_WAIT));
        // The client itself reads Retry-After.
        assert_eq!(
            class(403, &[("retry-after", "30")], ""),
            Class::RateLimited(None)
        );
        for status in [403, 429] {
            let said = "You have exceeded a secondary rate limit. Please wait.";
            assert_eq!(class(status, &[], said), Class::RateLimited(minute));
        }
        let left = [("x-ratelimit-remaining", "4000")];
        assert_eq!(class(429, &left, ""), Class::RateLimited(minute));
    }

    #[test]
    fn each_documented_error_has_its_class() {
        assert_eq!(class(401, &[], "Bad credentials"), Class::Unauthorized);
        for status in [404, 410] {
            assert_eq!(class(status, &[], "Not Found"), Class::NotFound);
        }
        let said = "Repository access blocked";
        assert_eq!(code(class(451, &[], said)), NOT_ACCESSIBLE);
        assert_eq!(code(class(410, &[], "This issue was deleted")), DELETED);
        let said = "Issues has been disabled in this repository.";
        assert_eq!(class(410, &[], said), Class::NotFound);
        for status in [500, 502, 503, 504] {
            assert_eq!(class(status, &[], ""), Class::Retry);
        }
        let said = "Resource not accessible by personal access token";
        assert_eq!(code(class(403, &[], said)), NOT_ACCESSIBLE);
        assert_eq!(code(class(422, &[], "Validation Failed")), REJECTED);
        assert_eq!(code(class(301, &[], "Moved Permanently")), REJECTED);
    }

    #[test]
    fn single_sign_on_is_named_with_where_it_is_done() {
        let url = "https://github.com/orgs/o/sso?authorization_request=A1";
        let header = format!("required; url={url}");
        let Class::Rejected { code, detail } = class(403, &[("x-github-sso", &header)], "") else {
            panic!("not rejected");
        };
        assert_eq!(code, "sso_required");
        assert!(detail.ends_with(url), "{detail}");
    }
}
