//! Google's token endpoint: refresh tokens in, access tokens out, revocation, and which access
//! tokens are good (<https://developers.google.com/identity/protocols/oauth2/web-server>). Its tokens
//! open nothing but the stand-in.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::google::Options;

/// An answer of an OAuth endpoint.
pub struct OAuthAnswer {
    /// The HTTP status.
    pub code: u16,
    /// The JSON.
    pub body: Value,
}

/// What was granted and still holds.
pub struct Grants {
    refresh_token: Option<String>,
    access_tokens: HashMap<String, DateTime<Utc>>,
}

impl Grants {
    /// One grant, with the refresh token given.
    pub fn new(refresh_token: String) -> Self {
        Self {
            refresh_token: Some(refresh_token),
            access_tokens: HashMap::new(),
        }
    }

    /// Whether an access token opens the mailbox at `now`.
    pub fn opens(&self, access_token: &str, now: DateTime<Utc>) -> bool {
        self.access_tokens
            .get(access_token)
            .is_some_and(|expires_at| now < *expires_at)
    }

    /// A new access token.
    pub fn issue(&mut self, options: &Options, now: DateTime<Utc>) -> String {
        self.access_tokens.retain(|_, expires_at| now < *expires_at);
        let token = format!("ya29.{:032x}", rand::random::<u128>());
        let life = TimeDelta::seconds(i64::from(options.access_token_seconds));
        self.access_tokens.insert(token.clone(), now + life);
        token
    }

    /// Access tokens given out so far open nothing any more.
    pub fn expire_access_tokens(&mut self) {
        self.access_tokens.clear();
    }

    /// The person withdraws the consent.
    pub fn revoke(&mut self) {
        self.refresh_token = None;
        self.access_tokens.clear();
    }

    /// The person consents anew: this refresh token holds, an earlier one does not.
    pub fn set_refresh_token(&mut self, refresh_token: &str) {
        self.refresh_token = Some(refresh_token.to_owned());
    }

    /// The refresh token that holds.
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// Answers the token endpoint.
    pub fn token(
        &mut self,
        options: &Options,
        authorization: Option<&str>,
        form: &HashMap<String, String>,
        now: DateTime<Utc>,
    ) -> OAuthAnswer {
        if let Err(answer) = check_client(options, authorization, form) {
            return answer;
        }
        match form.get("grant_type").map(String::as_str) {
            Some("refresh_token") => {}
            Some(other) => {
                let description = format!("Invalid grant_type: {other}");
                return refusal(400, "unsupported_grant_type", &description);
            }
            None => {
                let description = "Required parameter is missing: grant_type";
                return refusal(400, "invalid_request", description);
            }
        }
        let Some(refresh_token) = form.get("refresh_token") else {
            return refusal(
                400,
                "invalid_request",
                "Missing required parameter: refresh_token",
            );
        };
        if self.refresh_token.as_ref() != Some(refresh_token) {
            return refusal(400, "invalid_grant", "Token has been expired or revoked.");
        }
        let mut body = json!({
            "access_token": self.issue(options, now),
            "expires_in": options.access_token_seconds,
            "scope": options.scope,
            "token_type": "Bearer",
        });
        if options.rotate_refresh_tokens {
            let next = format!("1//{:032x}", rand::random::<u128>());
            body["refresh_token"] = json!(next);
            self.refresh_token = Some(next);
        }
        OAuthAnswer { code: 200, body }
    }

    /// Answers the revocation endpoint: either kind of token takes the whole grant away.
    pub fn revoke_token(&mut self, token: Option<&String>) -> OAuthAnswer {
        let Some(token) = token else {
            return refusal(400, "invalid_request", "Missing required parameter: token");
        };
        if self.refresh_token.as_ref() != Some(token) && !self.access_tokens.contains_key(token) {
            return refusal(400, "invalid_token", "Token expired or revoked");
        }
        self.revoke();
        OAuthAnswer {
            code: 200,
            body: json!({}),
        }
    }
}

/// An error in the shape of RFC 6749, section 5.2.
pub fn refusal(code: u16, error: &str, description: &str) -> OAuthAnswer {
    OAuthAnswer {
        code,
        body: json!({"error": error, "error_description": description}),
    }
}

/// Client authentication by the body or by Basic.
fn check_client(
    options: &Options,
    authorization: Option<&str>,
    form: &HashMap<String, String>,
) -> Result<(), OAuthAnswer> {
    let basic = authorization.and_then(basic_credentials);
    let (id, secret) = match &basic {
        Some((id, secret)) => (Some(id), Some(secret)),
        None => (form.get("client_id"), form.get("client_secret")),
    };
    let Some(id) = id else {
        let description = "Could not determine client ID from request.";
        return Err(refusal(400, "invalid_request", description));
    };
    if *id != options.client_id {
        let description = "The OAuth client was not found.";
        return Err(refusal(401, "invalid_client", description));
    }
    if secret != Some(&options.client_secret) {
        let description = "The provided client secret is invalid.";
        return Err(refusal(401, "invalid_client", description));
    }
    Ok(())
}

/// RFC 6749, section 2.3.1: both halves are form-encoded before they are joined.
fn basic_credentials(authorization: &str) -> Option<(String, String)> {
    let encoded = authorization.strip_prefix("Basic ")?;
    let joined = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

fn form_decoded(text: &str) -> Option<String> {
    let pair = format!("x={text}");
    let (_, value) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        owned.collect()
    }

    fn options() -> Options {
        Options {
            client_id: "id".to_owned(),
            client_secret: "se/cret".to_owned(),
            refresh_token: "good".to_owned(),
            ..Options::default()
        }
    }

    fn error(answer: &OAuthAnswer) -> (u16, &str) {
        (answer.code, answer.body["error"].as_str().unwrap_or(""))
    }

    #[test]
    fn a_refresh_gives_a_token_that_opens_until_it_expires() {
        let (options, now) = (options(), DateTime::UNIX_EPOCH);
        let mut grants = Grants::new(options.refresh_token.clone());
        let refresh = form(&[("grant_type", "refresh_token"), ("refresh_token", "good")]);
        let basic = format!("Basic {}", STANDARD.encode("id:se%2Fcret"));
        let answer = grants.token(&options, Some(&basic), &refresh, now);
        assert_eq!(answer.code, 200);
        assert_eq!(answer.body["expires_in"], 3599);
        assert_eq!(answer.body["token_type"], "Bearer");
        assert!(answer.body.get("refresh_token").is_none());
        let token = answer.body["access_token"].as_str().unwrap();
        assert!(grants.opens(token, now + TimeDelta::seconds(3598)));
        assert!(!grants.opens(token, now + TimeDelta::seconds(3599)));
        assert!(!grants.opens("other", now));
    }

    #[test]
    fn a_rotating_endpoint_takes_each_refresh_token_once() {
        let options = Options {
            rotate_refresh_tokens: true,
            ..options()
        };
        let mut grants = Grants::new(options.refresh_token.clone());
        let mut refresh = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", "good"),
            ("client_id", "id"),
            ("client_secret", "se/cret"),
        ]);
        let now = DateTime::UNIX_EPOCH;
        let first = grants.token(&options, None, &refresh, now);
        let again = grants.token(&options, None, &refresh, now);
        assert_eq!(error(&again), (400, "invalid_grant"));
        let next = first.body["refresh_token"].as_str().unwrap();
        refresh.insert("refresh_token".to_owned(), next.to_owned());
        assert_eq!(grants.token(&options, None, &refresh, now).code, 200);
    }

    #[test]
    fn refusals_have_googles_status_and_error() {
        let options = options();
        let mut grants = Grants::new(options.refresh_token.clone());
        for (pairs, expected) in [
            (&[][..], (400, "invalid_request")),
            (&[("client_id", "who")], (401, "invalid_client")),
            (
                &[("client_id", "id"), ("client_secret", "no")],
                (401, "invalid_client"),
            ),
            (
                &[
                    ("client_id", "id"),
                    ("client_secret", "se/cret"),
                    ("grant_type", "password"),
                ],
                (400, "unsupported_grant_type"),
            ),
            (
                &[
                    ("client_id", "id"),
                    ("client_secret", "se/cret"),
                    ("grant_type", "refresh_token"),
                ],
                (400, "invalid_request"),
            ),
            (
                &[
                    ("client_id", "id"),
                    ("client_secret", "se/cret"),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", "bad"),
                ],
                (400, "invalid_grant"),
            ),
        ] {
            let answer = grants.token(&options, None, &form(pairs), DateTime::UNIX_EPOCH);
            assert_eq!(error(&answer), expected, "{pairs:?}");
        }
    }

    #[test]
    fn revoking_either_token_takes_the_whole_grant() {
        let (options, now) = (options(), DateTime::UNIX_EPOCH);
        for by_access_token in [true, false] {
            let mut grants = Grants::new("good".to_owned());
            let access = grants.issue(&options, now);
            let token = if by_access_token {
                access.clone()
            } else {
                "good".to_owned()
            };
            assert_eq!(grants.revoke_token(Some(&token)).code, 200);
            assert!(!grants.opens(&access, now));
            assert_eq!(grants.refresh_token(), None);
            let again = grants.revoke_token(Some(&token));
            assert_eq!(error(&again), (400, "invalid_token"));
        }
    }
}
