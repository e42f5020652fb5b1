//! Calls to token and revocation endpoints. What answers is not trusted: at most 64 KiB are read,
//! in at most ten seconds, and no redirect is followed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::{OAuthConfig, words};
use crate::{
    domain::errors,
    providers::{ClientAuthentication, Encoding, OAuth, RefusalKind},
};

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// GitHub refuses callers without a name.
const USER_AGENT: &str = concat!("nucleus/", env!("CARGO_PKG_VERSION"));

/// Why an endpoint gave no token. Each variant is a decision for the caller; the text is what the
/// endpoint said of it.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The grant, or the code, is void.
    #[error("the grant is not valid any more: {0}")]
    Gone(String),
    /// The consent ran out; nobody withdrew it.
    #[error("the consent has expired: {0}")]
    Expired(String),
    /// The endpoint does not take this client, or its request: ours to mend.
    #[error("the token endpoint refuses this client: {0}")]
    Client(String),
    /// An answer without an access token that can be used; with the refresh token that stands in it,
    /// if there is one.
    #[error("the token endpoint's answer holds no access token")]
    Incomplete(Option<SecretString>),
    /// Network, time-out, 429, 5xx, or an answer that is none.
    #[error("the token endpoint is unavailable: {0}")]
    Unavailable(String),
}

/// An answer with a token (RFC 6749, section 5.1).
#[derive(Debug)]
pub struct Tokens {
    /// The access token.
    pub access_token: SecretString,
    /// When it ends, if the endpoint said so.
    pub expires_at: Option<DateTime<Utc>>,
    /// Another refresh token, if there is one.
    pub refresh_token: Option<SecretString>,
    /// When the refresh token ends and the person has to consent again, if the endpoint said so.
    pub consent_expires_at: Option<DateTime<Utc>>,
    /// What was granted, separated by spaces or commas, if the endpoint said so.
    pub scope: Option<String>,
}

/// An authorization code and what it was asked for with (RFC 6749, section 4.1.3; RFC 7636, section
/// 4.5).
#[derive(Debug)]
pub struct CodeGrant<'a> {
    /// The code.
    pub code: &'a SecretString,
    /// The redirect URI of the authorization request, letter by letter.
    pub redirect_uri: &'a str,
    /// The verifier of its challenge.
    pub code_verifier: &'a SecretString,
}

/// A token, if the value is one that a header can hold (RFC 6750, section 2.1).
fn token(value: Option<&Value>) -> Option<SecretString> {
    let text = value?.as_str()?;
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| text.into())
}

/// When what lasts `value` seconds ends, if that is a number of seconds; some send it as a text.
fn end(value: Option<&Value>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let seconds = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    if seconds.is_nan() || seconds < 1.0 {
        return None;
    }
    now.checked_add_signed(TimeDelta::try_seconds(seconds as i64)?)
}

/// The words of an error, by RFC 6749 and by the vendors' own shapes. What is no text counts as absent, so
/// that one odd member hides no other.
struct ErrorAnswer {
    error: String,
    error_description: String,
    /// Google's word for a refusal by a policy.
    error_subtype: String,
    /// Notion's word for `error`.
    code: String,
    /// Notion's word for `error_description`.
    message: String,
}

/// How a service answers what it was asked, and with which secrets that was: its words repeat none.
pub(super) struct Asked<'a> {
    pub(super) oauth: &'a OAuth,
    pub(super) secrets: Vec<&'a str>,
}

/// Makes the calls.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    pub(super) http: reqwest::Client,
}

impl TokenEndpoint {
    /// A client that may talk to any service's endpoints.
    #[expect(
        clippy::disallowed_methods,
        reason = "token endpoints have a client of their own"
    )]
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .build()?;
        Ok(Self { http })
    }

    /// Exchanges a refresh token for an access token (RFC 6749, section 6).
    pub async fn refresh(
        &self,
        config: &OAuthConfig,
        refresh_token: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<Tokens, EndpointError> {
        let fields = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        self.tokens(config, fields, now).await
    }

    /// Exchanges an authorization code for tokens (RFC 6749, section 4.1.3).
    pub async fn exchange(
        &self,
        config: &OAuthConfig,
        grant: &CodeGrant<'_>,
        now: DateTime<Utc>,
    ) -> Result<Tokens, EndpointError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", grant.code.expose_secret()),
            ("redirect_uri", grant.redirect_uri),
        ];
        let oauth = &config.provider.oauth;
        if oauth.pkce {
            fields.push(("code_verifier", grant.code_verifier.expose_secret()));
        }
        let mut tokens = self.tokens(config, fields, now).await?;
        if tokens.consent_expires_at.is_none() {
            tokens.consent_expires_at = match (&tokens.refresh_token, tokens.expires_at) {
                (None, Some(end)) => Some(end),
                _ => oauth.consent_days.map(|days| now + TimeDelta::days(days)),
            };
        }
        Ok(tokens)
    }

    async fn tokens(
        &self,
        config: &OAuthConfig,
        fields: Vec<(&str, &str)>,
        now: DateTime<Utc>,
    ) -> Result<Tokens, EndpointError> {
        let asked = Asked::of(config, &fields);
        let request = self.http.post(config.token_url.clone());
        let request = authenticated(request, config, fields)?;
        // GitHub answers in the form of a query otherwise.
        let (status, _, body) = self
            .send(request.header(ACCEPT, "application/json"))
            .await
            .map_err(EndpointError::Unavailable)?;
        if !(200..300).contains(&status) {
            return Err(asked.refusal(status, &body));
        }
        asked.tokens_in(&body, now)
    }

    /// Gives status, header fields and body; the error says why there are none.
    pub(super) async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, HeaderMap, Vec<u8>), String> {
        // The text of a reqwest error names the URL, which holds no secret here, and no body.
        let unavailable = |error: reqwest::Error| errors::chain(&error);
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(format!(
                    "the answer is larger than {MAX_ANSWER_BYTES} bytes"
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, headers, body))
    }

    /// A request with a token.
    pub(super) fn request(
        &self,
        method: Method,
        url: Url,
        token: &SecretString,
    ) -> reqwest::RequestBuilder {
        self.http
            .request(method, url)
            .bearer_auth(token.expose_secret())
    }
}

/// Adds who we are and writes the body, in the service's way.
pub(super) fn authenticated<'a>(
    request: reqwest::RequestBuilder,
    config: &'a OAuthConfig,
    mut fields: Vec<(&'a str, &'a str)>,
) -> Result<reqwest::RequestBuilder, EndpointError> {
    let Some(client_id) = &config.client_id else {
        return Err(EndpointError::Client(
            "no client_id is configured".to_owned(),
        ));
    };
    let oauth = &config.provider.oauth;
    let request = match (oauth.client_authentication, &config.client_secret) {
        (ClientAuthentication::Basic, Some(secret)) => {
            request.basic_auth(client_id, Some(secret.expose_secret()))
        }
        (_, secret) => {
            fields.push(("client_id", client_id));
            if let Some(secret) = secret {
                fields.push(("client_secret", secret.expose_secret()));
            }
            request
        }
    };
    Ok(match oauth.encoding {
        Encoding::Form => request.form(&fields),
        Encoding::Json => {
            let object: Map<String, Value> = fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            request
                .header(CONTENT_TYPE, "application/json")
                .body(Value::Object(object).to_string())
        }
    })
}

impl<'a> Asked<'a> {
    /// A request with these fields, by the registered client.
    pub(super) fn of(config: &'a OAuthConfig, fields: &[(&str, &'a str)]) -> Self {
        let is_secret = |name: &str| name != "grant_type" && name != "redirect_uri";
        let mut secrets: Vec<&str> = fields
            .iter()
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| *value)
            .collect();
        let client = config.client_secret.as_ref();
        secrets.extend(client.map(ExposeSecret::expose_secret));
        Self {
            oauth: &config.provider.oauth,
            secrets,
        }
    }

    /// The tokens in an answer that says it is a success. What is not of the type that the RFC names
    /// counts as absent, so that an odd life does not cost a refresh token.
    fn tokens_in(&self, body: &[u8], now: DateTime<Utc>) -> Result<Tokens, EndpointError> {
        let answer: Value =
            serde_json::from_slice(body).map_err(|_| EndpointError::Incomplete(None))?;
        let mut left = None;
        for place in self.oauth.tokens_at {
            let Some(found) = answer.pointer(place) else {
                continue;
            };
            let refresh_token = token(found.get("refresh_token"));
            let Some(access_token) = token(found.get("access_token")) else {
                left = left.or(refresh_token);
                continue;
            };
            return Ok(Tokens {
                access_token,
                expires_at: end(found.get("expires_in"), now),
                refresh_token,
                consent_expires_at: end(found.get("refresh_token_expires_in"), now),
                scope: found
                    .get("scope")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            });
        }
        Err(self
            .error_in_200(body)
            .unwrap_or(EndpointError::Incomplete(left)))
    }

    /// What an answer with the status 200 says of an error, if the service answers errors so.
    pub(super) fn error_in_200(&self, body: &[u8]) -> Option<EndpointError> {
        let answer = self.error(body);
        let is_error = self.oauth.errors_in_200 && !answer.error.is_empty();
        is_error.then(|| self.meaning(&answer))
    }

    /// What an answer with another status means.
    pub(super) fn refusal(&self, status: u16, body: &[u8]) -> EndpointError {
        if status == 408 || status == 429 || !(400..500).contains(&status) {
            return EndpointError::Unavailable(format!("status {status}"));
        }
        let answer = self.error(body);
        if answer.error.is_empty() && answer.code.is_empty() {
            return EndpointError::Unavailable(format!("status {status} without an OAuth error"));
        }
        self.meaning(&answer)
    }

    /// A page of a proxy is no answer of the endpoint, and says nothing.
    fn error(&self, body: &[u8]) -> ErrorAnswer {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let word = |pointer| words::at(&answer, pointer, &self.secrets);
        ErrorAnswer {
            error: word("/error"),
            error_description: word("/error_description"),
            error_subtype: word("/error_subtype"),
            code: word("/code"),
            message: word("/message"),
        }
    }

    fn meaning(&self, answer: &ErrorAnswer) -> EndpointError {
        let ErrorAnswer {
            error,
            error_description,
            error_subtype,
            code,
            message,
        } = answer;
        let said = [error, code, error_description, message]
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let description = format!("{error_description}{message}");
        match self
            .oauth
            .meaning(&[error_subtype, error, code], &description)
        {
            RefusalKind::Transient => EndpointError::Unavailable(said),
            RefusalKind::Configuration => EndpointError::Client(said),
            RefusalKind::GrantGone => EndpointError::Gone(said),
            RefusalKind::GrantExpired => EndpointError::Expired(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ServiceName, providers};

    fn asked(name: ServiceName) -> Asked<'static> {
        Asked {
            oauth: &providers::of(name).oauth,
            secrets: vec!["1//refresh-token"],
        }
    }

    #[test]
    fn only_a_void_grant_ends_a_connection() {
        let google = asked(ServiceName::Gmail);
        for void in [
            r#"{"error":"invalid_grant","error_description":"Bad Request"}"#,
            r#"{"error":"invalid_grant","error_description":null,"code":400,"message":[]}"#,
        ] {
            let void = google.refusal(400, void.as_bytes());
            assert!(matches!(void, EndpointError::Gone(_)), "{void}");
        }
        let echo = r#"{"error":"invalid_grant","error_description":"1//refresh-token\u0000?"}"#;
        let EndpointError::Gone(said) = google.refusal(400, echo.as_bytes()) else {
            panic!("a void grant is one whatever is said of it");
        };
        assert_eq!(said, "invalid_grant [REDACTED]?");
        let policy = google.refusal(
            400,
            br#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#,
        );
        assert!(matches!(policy, EndpointError::Expired(_)));
        for (status, body) in [
            (500, "{}"),
            (503, r#"{"error":"invalid_grant"}"#),
            (429, r#"{"error":"invalid_grant"}"#),
            (400, "<html>a proxy</html>"),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"message":"a proxy"}"#),
            (307, r#"{"error":"invalid_grant"}"#),
        ] {
            let error = google.refusal(status, body.as_bytes());
            assert!(
                matches!(error, EndpointError::Unavailable(_)),
                "{status} {body}"
            );
        }
        for error in ["invalid_client", "unauthorized_client", "invalid_scope"] {
            let body = format!(r#"{{"error":"{error}"}}"#);
            assert!(matches!(
                google.refusal(401, body.as_bytes()),
                EndpointError::Client(_)
            ));
        }
    }

    fn tokens_of(name: ServiceName, body: &[u8]) -> Result<Tokens, EndpointError> {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        asked(name).tokens_in(body, now)
    }

    #[test]
    fn an_error_with_status_200_is_one_where_the_service_answers_so() {
        let slack = br#"{"ok":false,"error":"invalid_code"}"#;
        let error = tokens_of(ServiceName::Slack, slack).err();
        assert!(matches!(error, Some(EndpointError::Gone(_))), "{error:?}");
        let github = br#"{"error":"incorrect_client_credentials","error_description":"x"}"#;
        let error = tokens_of(ServiceName::Github, github).err();
        assert!(matches!(error, Some(EndpointError::Client(_))), "{error:?}");
        // Google does not; whoever answers so is not Google.
        let void = br#"{"error":"invalid_grant"}"#;
        let error = tokens_of(ServiceName::Gmail, void).err();
        let is_odd = matches!(error, Some(EndpointError::Incomplete(None)));
        assert!(is_odd, "{error:?}");
    }

    #[test]
    fn tokens_are_found_where_each_service_puts_them() {
        let shown = |token: Option<SecretString>| token.map(|t| t.expose_secret().to_owned());
        let user_only = br#"{"ok":true,"team":{"id":"T1"},"authed_user":{"id":"U1",
            "access_token":"xoxp-1","refresh_token":"xoxe-1-1","expires_in":43200,"scope":"a,b"}}"#;
        let slack = tokens_of(ServiceName::Slack, user_only).unwrap();
        assert_eq!(slack.access_token.expose_secret(), "xoxp-1");
        assert_eq!(shown(slack.refresh_token).as_deref(), Some("xoxe-1-1"));
        let refreshed = br#"{"ok":true,"access_token":"xoxe.xoxp-2","token_type":"user",
            "authed_user":{"id":"U1"}}"#;
        let slack = tokens_of(ServiceName::Slack, refreshed).unwrap();
        assert_eq!(slack.access_token.expose_secret(), "xoxe.xoxp-2");
        let null = br#"{"access_token":"ntn_1","refresh_token":null,"bot_id":"b"}"#;
        let notion = tokens_of(ServiceName::Notion, null).unwrap();
        assert_eq!(shown(notion.refresh_token), None);
        // What stands elsewhere is not looked for.
        assert!(tokens_of(ServiceName::Gmail, user_only).is_err());
        assert!(tokens_of(ServiceName::Gmail, br#"{"access_token":""}"#).is_err());
        // A refresh token beside no access token is not lost.
        let half = br#"{"refresh_token":"r"}"#;
        let Err(EndpointError::Incomplete(Some(left))) = tokens_of(ServiceName::Gmail, half) else {
            panic!("the refresh token is lost");
        };
        assert_eq!(left.expose_secret(), "r");
    }

    #[test]
    fn a_lifetime_is_a_number_of_seconds_or_nothing() {
        let now: DateTime<Utc> = "2026-11-24T10:00:00Z".parse().unwrap();
        let life = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            end(Some(&value), now).map(|end| (end - now).num_seconds())
        };
        assert_eq!(life("3600"), Some(3600));
        assert_eq!(life("\"3600\""), Some(3600));
        for nothing in ["0", "-1", "\"soon\"", "[]", "9223372036854775807"] {
            assert_eq!(life(nothing), None, "{nothing}");
        }
    }
}
