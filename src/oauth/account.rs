//! Whose account a token is of: the service is asked, and what it answers is not trusted more than a
//! token endpoint is.

use std::time::Duration;

use reqwest::{
    Method,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    OAuthConfig,
    endpoint::{Asked, EndpointError, TokenEndpoint},
    words,
};
use crate::{
    domain::{Clock, clock::Stopwatch},
    metrics::{CallOutcome, Metrics},
    providers::{Account, OAuth},
};

/// How often a service that fails is asked.
const ATTEMPTS: u32 = 3;
/// The first wait between attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What a service says of a token.
#[derive(Debug)]
pub struct Known {
    /// Whose it is.
    pub account: Account,
    /// What it may do, where the service says so without being asked.
    pub scopes: Option<Vec<String>>,
}

/// Why it is not known whose an account is.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The service does not take the token, and does not say why.
    #[error("the service does not accept the token: {0}")]
    Unauthorized(String),
    /// The service says that the token was revoked.
    #[error("the service has revoked the token: {0}")]
    Revoked(String),
    /// The service says that the token has ended.
    #[error("the token has ended: {0}")]
    Expired(String),
    /// The service takes the token and will not answer, however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// The network or the service failed; nothing is known to be wrong.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// Asks whose `token` is.
pub async fn ask(
    endpoint: &TokenEndpoint,
    config: &OAuthConfig,
    token: &SecretString,
    clock: &dyn Clock,
    metrics: &Metrics,
) -> Result<Known, AccountError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match ask_counted(endpoint, config, token, metrics).await {
            Err(AccountError::Unavailable(reason)) => {
                tracing::debug!(reason, "an account could not be asked for");
            }
            answered => return answered,
        }
        clock.sleep(wait).await;
        wait *= 2;
    }
    ask_counted(endpoint, config, token, metrics).await
}

/// Asks once, and counts the call as those of connectors are.
async fn ask_counted(
    endpoint: &TokenEndpoint,
    config: &OAuthConfig,
    token: &SecretString,
    metrics: &Metrics,
) -> Result<Known, AccountError> {
    let (service, who) = (config.provider.name, &config.provider.who);
    metrics.call_begins(service, who.method, who.units, 0.0);
    let watch = Stopwatch::start();
    let answer = ask_once(endpoint, config, token).await;
    let outcome = match &answer {
        Ok(_) => CallOutcome::Ok,
        Err(AccountError::Unavailable(_)) => CallOutcome::Unavailable,
        Err(AccountError::Refused(_)) => CallOutcome::Rejected,
        Err(
            AccountError::Unauthorized(_) | AccountError::Revoked(_) | AccountError::Expired(_),
        ) => CallOutcome::Unauthorized,
    };
    metrics.call_ended(service, who.method, outcome, watch.seconds());
    answer
}

async fn ask_once(
    endpoint: &TokenEndpoint,
    config: &OAuthConfig,
    token: &SecretString,
) -> Result<Known, AccountError> {
    let who = &config.provider.who;
    let base = config.api_url.as_str().trim_end_matches('/');
    let url = format!("{base}{}", who.path)
        .parse()
        .map_err(|error| AccountError::Refused(format!("the API's address is wrong: {error}")))?;
    let method = if who.is_post {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = endpoint
        .request(method, url, token)
        .header(ACCEPT, "application/json");
    for (name, value) in who.headers {
        request = request.header(*name, *value);
    }
    let (status, headers, body) = endpoint
        .send(request)
        .await
        .map_err(AccountError::Unavailable)?;
    let asked = Asked::of(config, &[("access_token", token.expose_secret())]);
    if !(200..300).contains(&status) {
        return Err(refusal(status, &headers, &body, &asked.secrets));
    }
    let answer: Value = serde_json::from_slice(&body)
        .map_err(|_| AccountError::Unavailable("the answer is no JSON".to_owned()))?;
    if let Some(error) = asked.error_in_200(&body) {
        return Err(error.into());
    }
    let account = (who.read)(&answer).ok_or_else(|| {
        AccountError::Unavailable("the answer does not name the account".to_owned())
    })?;
    let listed = who.scopes_header.and_then(|name| headers.get(name));
    let scopes = listed
        .and_then(|value| value.to_str().ok())
        .map(OAuth::scopes_in);
    Ok(Known { account, scopes })
}

impl From<EndpointError> for AccountError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Gone(said) => Self::Revoked(said),
            EndpointError::Expired(said) => Self::Expired(said),
            EndpointError::Client(said) => Self::Refused(said),
            EndpointError::Incomplete(_) => Self::Unavailable(error.to_string()),
            EndpointError::Unavailable(said) => Self::Unavailable(said),
        }
    }
}

fn refusal(status: u16, headers: &HeaderMap, body: &[u8], secrets: &[&str]) -> AccountError {
    let words = words(body, secrets);
    let said = if words.is_empty() {
        format!("the service answered {status}")
    } else {
        format!("the service answered {status}: {words}")
    };
    match status {
        401 => AccountError::Unauthorized(said),
        403 if is_rate_limit(headers, body) => AccountError::Unavailable(said),
        429 if is_plan_used_up(body) => AccountError::Refused(said),
        400..=499 if status != 408 && status != 429 => AccountError::Refused(said),
        _ => AccountError::Unavailable(said),
    }
}

/// Whether a 403 only says that too much was asked for: GitHub's headers and, of its secondary limits, its
/// words; Google's reasons, `rateLimitExceeded`, `userRateLimitExceeded` and `dailyLimitExceeded`.
fn is_rate_limit(headers: &HeaderMap, body: &[u8]) -> bool {
    let is_used_up = headers
        .get("x-ratelimit-remaining")
        .is_some_and(|left| left == "0");
    let said = String::from_utf8_lossy(body);
    is_used_up
        || headers.contains_key(RETRY_AFTER)
        || said.contains("LimitExceeded\"")
        || said.to_lowercase().contains("secondary rate limit")
}

/// Whether a 429 says that the app's plan is used up, which waiting does not mend but the operator: X's
/// problem `usage-capped`.
///
/// Source: the problems of <https://api.x.com/2/openapi.json>
fn is_plan_used_up(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let problem = answer.get("type").and_then(Value::as_str);
    problem.is_some_and(|problem| problem.ends_with("/usage-capped"))
}

/// What the service says of an error, in the shapes that the nine have.
fn words(body: &[u8], secrets: &[&str]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    [
        "/error/message",
        "/message",
        "/error_description",
        "/detail",
        "/title",
        "/error",
    ]
    .into_iter()
    .map(|pointer| words::at(&answer, pointer, secrets))
    .find(|said| !said.is_empty())
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_an_outage() {
        let none = HeaderMap::new();
        let google = br#"{"error":{"code":403,"message":"Quota","errors":[{"reason":"userRateLimitExceeded"}]}}"#;
        let disabled = br#"{"error":{"code":403,"message":"Gmail API has not been used","errors":[{"reason":"accessNotConfigured"}]}}"#;
        for (status, body) in [
            (429, &b"{}"[..]),
            (500, b""),
            (408, b""),
            (403, google),
            (
                403,
                br#"{"error":{"errors":[{"reason":"dailyLimitExceeded"}]}}"#,
            ),
            (
                403,
                br#"{"message":"You have exceeded a secondary rate limit."}"#,
            ),
            (302, b""),
        ] {
            let error = refusal(status, &none, body, &[]);
            assert!(matches!(error, AccountError::Unavailable(_)), "{error}");
        }
        let error = refusal(403, &none, disabled, &[]);
        assert!(matches!(&error, AccountError::Refused(_)), "{error}");
        assert!(error.to_string().contains("has not been used"), "{error}");
        let capped = br#"{"title":"UsageCapExceeded","detail":"Usage cap exceeded: Monthly product cap","type":"https://api.x.com/2/problems/usage-capped"}"#;
        let error = refusal(429, &none, capped, &[]);
        assert!(matches!(&error, AccountError::Refused(_)), "{error}");
        assert!(error.to_string().contains("Monthly product cap"), "{error}");
        let error = refusal(401, &none, br#"{"message":"Bad credentials"}"#, &[]);
        assert!(matches!(&error, AccountError::Unauthorized(_)), "{error}");
        let mut used_up = HeaderMap::new();
        used_up.insert("x-ratelimit-remaining", "0".parse().unwrap());
        let error = refusal(403, &used_up, b"{}", &[]);
        assert!(matches!(error, AccountError::Unavailable(_)), "{error}");
    }
}
