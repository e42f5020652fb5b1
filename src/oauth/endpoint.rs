//! Calls to token and revocation endpoints. What answers is not trusted: at most 64 KiB are read,
//! in at most ten seconds, and no redirect is followed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::OAuthConfig;
use crate::domain::errors;

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why an endpoint gave no token. Each variant is a decision for the caller.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The grant is void (`invalid_grant`); the text is what the endpoint said of it.
    #[error("the grant is not valid any more: {description}")]
    InvalidGrant {
        /// `error_description`.
        description: String,
        /// `error_subtype`, which Google sends where a session policy asks for a new login.
        subtype: Option<String>,
    },
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
    /// What was granted, separated by spaces, if the endpoint said so.
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
fn token(value: Option<Value>) -> Option<SecretString> {
    match value {
        Some(Value::String(text))
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Some(text.into())
        }
        _ => None,
    }
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorAnswer {
    error: String,
    error_description: String,
    error_subtype: Option<String>,
}

/// Makes the calls.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    http: reqwest::Client,
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
        let form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        self.tokens(config, form, now).await
    }

    /// Exchanges an authorization code for tokens (RFC 6749, section 4.1.3).
    pub async fn exchange(
        &self,
        config: &OAuthConfig,
        grant: &CodeGrant<'_>,
        now: DateTime<Utc>,
    ) -> Result<Tokens, EndpointError> {
        let form = vec![
            ("grant_type", "authorization_code"),
            ("code", grant.code.expose_secret()),
            ("redirect_uri", grant.redirect_uri),
            ("code_verifier", grant.code_verifier.expose_secret()),
        ];
        self.tokens(config, form, now).await
    }

    async fn tokens(
        &self,
        config: &OAuthConfig,
        mut form: Vec<(&str, &str)>,
        now: DateTime<Utc>,
    ) -> Result<Tokens, EndpointError> {
        let Some(client_id) = &config.client_id else {
            return Err(EndpointError::Client(
                "no client_id is configured".to_owned(),
            ));
        };
        form.push(("client_id", client_id));
        if let Some(client_secret) = &config.client_secret {
            form.push(("client_secret", client_secret.expose_secret()));
        }
        let request = self.http.post(config.token_url.clone()).form(&form);
        let (status, body) = self.send(request).await?;
        if !(200..300).contains(&status) {
            return Err(refusal(status, &body));
        }
        // What is not of the type that the RFC names counts as absent, so that an odd life does not cost
        // a refresh token.
        let mut answer: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| EndpointError::Incomplete(None))?;
        let refresh_token = token(answer.remove("refresh_token"));
        let Some(access_token) = token(answer.remove("access_token")) else {
            return Err(EndpointError::Incomplete(refresh_token));
        };
        Ok(Tokens {
            access_token,
            expires_at: end(answer.get("expires_in"), now),
            refresh_token,
            scope: answer
                .get("scope")
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
    }

    /// Revokes a token and with it, at Google, the whole grant (RFC 7009).
    pub async fn revoke(
        &self,
        config: &OAuthConfig,
        token: &SecretString,
    ) -> Result<(), EndpointError> {
        let Some(url) = &config.revoke_url else {
            return Err(EndpointError::Client(
                "the service has no revocation endpoint".to_owned(),
            ));
        };
        let request = self
            .http
            .post(url.clone())
            .form(&[("token", token.expose_secret())]);
        let (status, body) = self.send(request).await?;
        if (200..300).contains(&status) {
            Ok(())
        } else {
            Err(refusal(status, &body))
        }
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Vec<u8>), EndpointError> {
        // The text of a reqwest error names the URL, which holds no secret here, and no body.
        let unavailable = |error: reqwest::Error| EndpointError::Unavailable(errors::chain(&error));
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(EndpointError::Unavailable(format!(
                    "the answer is larger than {MAX_ANSWER_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

fn refusal(status: u16, body: &[u8]) -> EndpointError {
    if status == 429 || !(400..500).contains(&status) {
        return EndpointError::Unavailable(format!("status {status}"));
    }
    // A page of a proxy is no answer of the endpoint.
    let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    if answer.error.is_empty() {
        return EndpointError::Unavailable(format!("status {status} without an OAuth error"));
    }
    match answer.error.as_str() {
        "invalid_grant" => EndpointError::InvalidGrant {
            description: answer.error_description,
            subtype: answer.error_subtype,
        },
        // Google says so for what is already revoked; RFC 7009 calls that a success.
        "invalid_token" => EndpointError::InvalidGrant {
            description: "the token is revoked or unknown".to_owned(),
            subtype: None,
        },
        "temporarily_unavailable" | "server_error" => EndpointError::Unavailable(answer.error),
        _ => EndpointError::Client(format!("{} {}", answer.error, answer.error_description)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_void_grant_ends_a_connection() {
        let void = refusal(
            400,
            br#"{"error":"invalid_grant","error_description":"Bad Request"}"#,
        );
        assert!(matches!(void, EndpointError::InvalidGrant { .. }));
        for (status, body) in [
            (500, "{}"),
            (503, r#"{"error":"invalid_grant"}"#),
            (429, r#"{"error":"invalid_grant"}"#),
            (400, "<html>a proxy</html>"),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"message":"a proxy"}"#),
            (307, r#"{"error":"invalid_grant"}"#),
        ] {
            let error = refusal(status, body.as_bytes());
            assert!(
                matches!(error, EndpointError::Unavailable(_)),
                "{status} {body}"
            );
        }
        for error in ["invalid_client", "unauthorized_client", "invalid_scope"] {
            let body = format!(r#"{{"error":"{error}"}}"#);
            assert!(matches!(
                refusal(401, body.as_bytes()),
                EndpointError::Client(_)
            ));
        }
    }
}
