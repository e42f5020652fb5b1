//! What Gmail's error answers mean.
//!
//! Reference: <https://developers.google.com/workspace/gmail/api/guides/handle-errors>.

use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;

use super::super::client::{Class, HeaderMap, RetryAfter, StatusCode};

/// A project's day is used up: asked again after so long.
const DAILY_LIMIT_WAIT: Duration = Duration::from_secs(3600);
/// Of the service's own words, so many characters are passed on.
const MESSAGE_CHARS: usize = 300;

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    message: String,
    status: String,
    errors: Vec<Reason>,
    details: Vec<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

impl Fault {
    fn says(&self, any_of: &[&str]) -> bool {
        let mut reasons = self.errors.iter().chain(&self.details);
        reasons.any(|reason| any_of.contains(&reason.reason.as_str()))
            || any_of.contains(&self.status.as_str())
    }
}

/// See [`super::super::client::Classify`].
pub(super) fn classify(status: StatusCode, _headers: &HeaderMap, body: &[u8]) -> Class {
    let fault = serde_json::from_slice::<Body>(body)
        .unwrap_or_default()
        .error;
    match status.as_u16() {
        401 => Class::Unauthorized,
        404 => Class::NotFound,
        408 | 500..=599 => Class::Retry,
        429 => Class::RateLimited(named_time(&fault.message)),
        403 => forbidden(&fault),
        400 if fault.message.contains("Mail service not enabled") => Class::Rejected {
            code: "mail_service_not_enabled",
            detail: "this Google account has no Gmail; connect an account that has".into(),
        },
        _ => rejected(status, &fault),
    }
}

fn forbidden(fault: &Fault) -> Class {
    if fault.says(&["dailyLimitExceeded"]) {
        return Class::RateLimited(Some(RetryAfter::In(DAILY_LIMIT_WAIT)));
    }
    if fault.says(&[
        "userRateLimitExceeded",
        "rateLimitExceeded",
        "RATE_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
    ]) {
        return Class::RateLimited(named_time(&fault.message));
    }
    if fault.says(&["insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"]) {
        return Class::Rejected {
            code: "insufficient_permissions",
            detail: "the granted scopes do not allow reading mail; reconnect the account and grant https://www.googleapis.com/auth/gmail.readonly".into(),
        };
    }
    if fault.says(&["accessNotConfigured", "SERVICE_DISABLED"]) {
        return Class::Rejected {
            code: "api_not_enabled",
            detail: "the Gmail API is not enabled for the Google Cloud project of this client id; enable it in the console under APIs and services".into(),
        };
    }
    if fault.says(&["domainPolicy"]) {
        return Class::Rejected {
            code: "domain_policy",
            detail: "the administrator of this Google Workspace does not allow Gmail access by apps; ask them to allow this client id".into(),
        };
    }
    rejected(StatusCode::FORBIDDEN, fault)
}

fn rejected(status: StatusCode, fault: &Fault) -> Class {
    let words: String = fault
        .message
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS)
        .collect();
    let detail = if words.is_empty() {
        format!("gmail answered {}", status.as_u16())
    } else {
        format!("gmail answered {}: {words}", status.as_u16())
    };
    Class::Rejected {
        code: "rejected",
        detail,
    }
}

/// The time in texts like `User-rate limit exceeded.  Retry after 2026-11-22T10:00:00.000Z`.
fn named_time(message: &str) -> Option<RetryAfter> {
    let (_, rest) = message.split_once("Retry after ")?;
    let word = rest.split_whitespace().next()?;
    let time = DateTime::parse_from_rfc3339(word).ok()?;
    Some(RetryAfter::At(time.to_utc()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(status: u16, reason: &str, message: &str) -> Class {
        let body = json!({"error": {"code": status, "message": message,
            "errors": [{"domain": "global", "reason": reason, "message": message}]}});
        let status = StatusCode::from_u16(status).unwrap();
        classify(status, &HeaderMap::new(), body.to_string().as_bytes())
    }

    fn code(class: Class) -> &'static str {
        match class {
            Class::Rejected { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_documented_error_has_its_class() {
        for (status, reason) in [
            (403, "userRateLimitExceeded"),
            (403, "rateLimitExceeded"),
            (429, "rateLimitExceeded"),
        ] {
            assert_eq!(class(status, reason, "slow"), Class::RateLimited(None));
        }
        for status in [500, 502, 503, 504] {
            assert_eq!(class(status, "backendError", ""), Class::Retry);
        }
        assert_eq!(class(401, "authError", ""), Class::Unauthorized);
        assert_eq!(class(404, "notFound", ""), Class::NotFound);
        for (status, reason, expected) in [
            (403, "insufficientPermissions", "insufficient_permissions"),
            (403, "accessNotConfigured", "api_not_enabled"),
            (403, "domainPolicy", "domain_policy"),
            (403, "somethingNew", "rejected"),
            (400, "badRequest", "rejected"),
            (302, "", "rejected"),
        ] {
            assert_eq!(code(class(status, reason, "")), expected, "{reason}");
        }
        let none = class(400, "failedPrecondition", "Mail service not enabled");
        assert_eq!(code(none), "mail_service_not_enabled");
    }

    #[test]
    fn a_used_up_day_means_an_hour() {
        assert_eq!(
            class(403, "dailyLimitExceeded", ""),
            Class::RateLimited(Some(RetryAfter::In(DAILY_LIMIT_WAIT)))
        );
    }

    #[test]
    fn newer_error_details_are_understood() {
        let body = json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "details":
            [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}});
        let class = classify(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            body.to_string().as_bytes(),
        );
        assert_eq!(code(class), "insufficient_permissions");
    }

    #[test]
    fn a_time_in_the_message_is_read() {
        let message =
            "User-rate limit exceeded.  Retry after 2026-11-22T10:00:00.123Z (Mail sending)";
        let expected = "2026-11-22T10:00:00.123Z".parse().unwrap();
        assert_eq!(
            class(429, "rateLimitExceeded", message),
            Class::RateLimited(Some(RetryAfter::At(expected)))
        );
    }

    #[test]
    fn bodies_that_are_no_json_still_count_by_status() {
        let class = classify(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            b"<html>proxy</html>",
        );
        assert_eq!(code(class), "rejected");
    }
}
