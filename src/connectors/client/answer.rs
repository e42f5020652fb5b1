//! What answers mean: the classes that services sort errors into, and what is left of them for the
//! caller. No request is made here.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{
    StatusCode,
    header::{HeaderMap, LOCATION, RETRY_AFTER},
};

use super::super::ConnectorError;

/// What an answer that is no success means, as its service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// A fault that may pass: the request is repeated.
    Retry,
    /// Too much was asked for; the body may name a time.
    RateLimited(Option<RetryAfter>),
    /// What was asked for does not exist.
    NotFound,
    /// The token is not accepted.
    Unauthorized,
    /// The service will not do this, however often it is asked.
    Rejected {
        /// Stable, snake case.
        code: &'static str,
        /// For people, with the mend; holds no secret.
        detail: String,
    },
}

/// A time to stay away until, as services write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So long.
    In(Duration),
    /// Until then.
    At(DateTime<Utc>),
}

/// No service is kept away from for longer: daily limits are over by then, and what asks for more, a time
/// since the epoch for instance, is a mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl RetryAfter {
    /// How long that is, seen from `now`; a day at most.
    pub fn wait(self, now: DateTime<Utc>) -> Duration {
        let wait = match self {
            Self::In(wait) => wait,
            Self::At(time) => (time - now).to_std().unwrap_or_default(),
        };
        wait.min(LONGEST_WAIT)
    }
}

/// Says what an answer that is no success means.
pub type Classify = fn(StatusCode, &HeaderMap, &[u8]) -> Class;

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ClientError {
    /// No token is to be had, or the service refuses even a new one.
    #[error(transparent)]
    Access(ConnectorError),
    /// Too much was asked for, and waiting here is no longer sensible.
    #[error("rate limited, to be tried again in {} s", retry_after.as_secs())]
    RateLimited {
        /// How long to stay away.
        retry_after: Duration,
    },
    /// The network or the service failed in every attempt.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// What was asked for does not exist.
    #[error("the service does not know what was asked for")]
    NotFound,
    /// The body is larger than the request's cap.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The service will not do this, however often it is asked.
    #[error("{detail}")]
    Rejected {
        /// The status; 0 where no request was made.
        status: u16,
        /// Stable, snake case.
        code: &'static str,
        /// For people, with the mend; holds no secret.
        detail: String,
    },
}

impl From<ClientError> for ConnectorError {
    fn from(error: ClientError) -> Self {
        let detail = error.to_string();
        match error {
            ClientError::Access(error) => error,
            ClientError::RateLimited { retry_after } => Self::RateLimited { retry_after },
            ClientError::Unavailable(reason) => Self::Unavailable(reason),
            ClientError::NotFound => Self::Rejected {
                code: "not_found",
                detail,
            },
            ClientError::TooLarge(_) => Self::Rejected {
                code: "reply_too_large",
                detail,
            },
            ClientError::Rejected { code, detail, .. } => Self::Rejected { code, detail },
        }
    }
}

/// Where an answer says that what was asked for stands now (RFC 9110, 15.4).
pub(super) fn moved_to(status: StatusCode, headers: &HeaderMap) -> Option<&str> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 307 | 308);
    let location = headers.get(LOCATION).filter(|_| is_redirect)?;
    location.to_str().ok()
}

/// Reads `Retry-After`, in seconds or as an HTTP date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(RetryAfter::In(Duration::from_secs(seconds)));
    }
    let time = DateTime::parse_from_rfc2822(text).ok()?;
    Some(RetryAfter::At(time.to_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now: DateTime<Utc> = "2026-11-24T10:00:00Z".parse().unwrap();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers).map(|after| after.wait(now).as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Tue, 24 Nov 2026 10:01:30 GMT"), Some(90));
        assert_eq!(read("Tue, 24 Nov 2026 09:00:00 GMT"), Some(0));
        for mistake in [
            "1764433964",
            "18446744073709551615",
            "Fri, 24 Nov 2626 10:00:00 GMT",
        ] {
            assert_eq!(read(mistake), Some(86_400), "{mistake}");
        }
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn errors_keep_their_meaning_for_the_runner() {
        let retry_after = Duration::from_secs(7);
        let limited = ClientError::RateLimited { retry_after };
        assert_eq!(
            ConnectorError::from(limited),
            ConnectorError::RateLimited { retry_after }
        );
        let ConnectorError::Rejected { code, .. } = ClientError::TooLarge(5).into() else {
            panic!("not rejected");
        };
        assert_eq!(code, "reply_too_large");
    }
}
