//! Google's token endpoint: codes and refresh tokens in, access tokens out, revocation, and what
//! each access token opens (<https://developers.google.com/identity/protocols/oauth2/web-server>).
//! Its tokens open nothing but the stand-in.

use std::collections::HashMap;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::google::Options;

/// How long a code may be exchanged, in seconds: ten minutes, the most RFC 6749, section 4.1.2,
/// allows.
const CODE_SECONDS: i64 = 600;
/// The scope without which Gmail's methods are refused.
const GMAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

/// An answer of an OAuth endpoint.
pub struct OAuthAnswer {
    /// The HTTP status.
    pub code: u16,
    /// The JSON.
    pub body: Value,
}

/// What the code's verifier has to fit (RFC 7636).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Its SHA-256, base64url without padding.
    S256(String),
    /// Itself.
    Plain(String),
}

impl Challenge {
    fn fits(&self, verifier: &str) -> bool {
        match self {
            Self::S256(hash) => *hash == URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)),
            Self::Plain(own) => own == verifier,
        }
    }
}

/// What a person consented to, until the code for it is exchanged. The stand-in knows one client,
/// so a code is that client's.
pub(super) struct Consented {
    /// Which of the accounts.
    pub(super) account: usize,
    pub(super) scopes: Vec<String>,
    /// What the token request has to name.
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<Challenge>,
    /// Whether the exchange gives a refresh token.
    pub(super) refresh: bool,
}

/// What one account has granted the client; revoking takes all of it away.
struct Grant {
    account: usize,
    scopes: Vec<String>,
    /// With their scopes, newest last.
    refresh_tokens: Vec<(String, Vec<String>)>,
}

struct AccessToken {
    account: usize,
    scopes: Vec<String>,
    expires_at: DateTime<Utc>,
}

/// What an access token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whose it is: which of the accounts.
    pub account: usize,
    /// Whether it opens Gmail.
    pub gmail: bool,
}

/// What was granted and still holds.
pub struct Grants {
    grants: Vec<Grant>,
    access_tokens: HashMap<String, AccessToken>,
    codes: HashMap<String, (Consented, DateTime<Utc>)>,
}

impl Grants {
    /// One grant, of the first account, as the options say.
    pub fn new(options: &Options) -> Self {
        let mut grants = Self {
            grants: Vec::new(),
            access_tokens: HashMap::new(),
            codes: HashMap::new(),
        };
        grants.set_refresh_token(options, &options.refresh_token);
        grants
    }

    /// What an access token opens at `now`, if anything.
    pub fn opens(&self, access_token: &str, now: DateTime<Utc>) -> Option<Access> {
        let found = self.access_tokens.get(access_token)?;
        (now < found.expires_at).then(|| Access {
            account: found.account,
            gmail: found.scopes.iter().any(|scope| scope == GMAIL),
        })
    }

    /// A new access token of the first account, with the scope of the options.
    pub fn issue(&mut self, options: &Options, now: DateTime<Utc>) -> String {
        self.access_token(options, 0, own_scopes(options), now)
    }

    fn access_token(
        &mut self,
        options: &Options,
        account: usize,
        scopes: Vec<String>,
        now: DateTime<Utc>,
    ) -> String {
        self.access_tokens.retain(|_, held| now < held.expires_at);
        let token = format!("ya29.{:032x}", rand::random::<u128>());
        let life = TimeDelta::seconds(i64::from(options.access_token_seconds));
        let held = AccessToken {
            account,
            scopes,
            expires_at: now + life,
        };
        self.access_tokens.insert(token.clone(), held);
        token
    }

    /// Access tokens given out so far open nothing any more.
    pub fn expire_access_tokens(&mut self) {
        self.access_tokens.clear();
    }

    /// Every person withdraws the consent.
    pub fn revoke(&mut self) {
        self.grants.clear();
        self.access_tokens.clear();
        self.codes.clear();
    }

    /// The person of the first account consents anew: this refresh token holds, an earlier one
    /// does not.
    pub fn set_refresh_token(&mut self, options: &Options, refresh_token: &str) {
        let token = (refresh_token.to_owned(), own_scopes(options));
        let grant = self.grant(0);
        merge(&mut grant.scopes, &token.1);
        grant.refresh_tokens = vec![token];
    }

    /// The refresh token of the first account that holds, the newest of several.
    pub fn refresh_token(&self) -> Option<&str> {
        let grant = self.grants.iter().find(|grant| grant.account == 0)?;
        let (token, _) = grant.refresh_tokens.last()?;
        Some(token)
    }

    /// Whether an account has granted all of this before.
    pub(super) fn covers(&self, account: usize, scopes: &[String]) -> bool {
        let grant = self.grants.iter().find(|grant| grant.account == account);
        grant.is_some_and(|grant| scopes.iter().all(|scope| grant.scopes.contains(scope)))
    }

    /// Whether an account has given the client a refresh token that still holds.
    pub(super) fn is_offline(&self, account: usize) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| grant.account == account && !grant.refresh_tokens.is_empty())
    }

    /// A code for what a person consented to; `include_granted` adds what they granted before.
    pub(super) fn code(
        &mut self,
        mut consented: Consented,
        include_granted: bool,
        now: DateTime<Utc>,
    ) -> String {
        let grant = self.grant(consented.account);
        merge(&mut grant.scopes, &consented.scopes);
        if include_granted {
            consented.scopes.clone_from(&grant.scopes);
        }
        let code = format!("4/0A{:032x}", rand::random::<u128>());
        let expires_at = now + TimeDelta::seconds(CODE_SECONDS);
        self.codes.retain(|_, (_, expires_at)| now < *expires_at);
        self.codes.insert(code.clone(), (consented, expires_at));
        code
    }

    /// The grant of an account, made where there is none.
    fn grant(&mut self, account: usize) -> &mut Grant {
        let found = self.grants.iter().position(|own| own.account == account);
        let index = found.unwrap_or_else(|| {
            self.grants.push(Grant {
                account,
                scopes: Vec::new(),
                refresh_tokens: Vec::new(),
            });
            self.grants.len() - 1
        });
        &mut self.grants[index]
    }

    /// Answers the token endpoint.
    pub fn token(
        &mut self,
        options: &Options,
        authorization: Option<&str>,
        form: &HashMap<String, String>,
        now: DateTime<Utc>,
    ) -> OAuthAnswer {
        let answer = check_client(options, authorization, form).and_then(|()| {
            match required(form, "grant_type")? {
                "authorization_code" => self.exchange(options, form, now),
                "refresh_token" => self.refresh(options, form, now),
                other => {
                    let description = format!("Invalid grant_type: {other}");
                    Err(refusal(400, "unsupported_grant_type", &description))
                }
            }
        });
        answer.unwrap_or_else(|refused| refused)
    }

    /// A code is good for one attempt. A second one gets `invalid_grant` and takes nothing away.
    fn exchange(
        &mut self,
        options: &Options,
        form: &HashMap<String, String>,
        now: DateTime<Utc>,
    ) -> Result<OAuthAnswer, OAuthAnswer> {
        let invalid = |description: &str| Err(refusal(400, "invalid_grant", description));
        let code = required(form, "code")?;
        let redirect_uri = required(form, "redirect_uri")?;
        if !code.starts_with("4/") {
            return invalid("Malformed auth code.");
        }
        let Some((consented, expires_at)) = self.codes.remove(code) else {
            return invalid("Bad Request");
        };
        if now >= expires_at {
            return invalid("Bad Request");
        }
        if redirect_uri != consented.redirect_uri {
            return Err(refusal(400, "redirect_uri_mismatch", "Bad Request"));
        }
        match (&consented.challenge, form.get("code_verifier")) {
            (None, None) => {}
            (None, Some(_)) => return invalid("code_verifier or verifier is not needed."),
            (Some(_), None) => return invalid("Missing code verifier."),
            (Some(challenge), Some(verifier)) if challenge.fits(verifier) => {}
            (Some(_), Some(_)) => return invalid("Invalid code verifier."),
        }
        let Consented {
            account,
            scopes,
            refresh,
            ..
        } = consented;
        let mut answer = self.answer(options, account, &scopes, now);
        if refresh {
            let token = format!("1//{:032x}", rand::random::<u128>());
            answer.body["refresh_token"] = json!(token);
            self.grant(account).refresh_tokens.push((token, scopes));
        }
        Ok(answer)
    }

    fn refresh(
        &mut self,
        options: &Options,
        form: &HashMap<String, String>,
        now: DateTime<Utc>,
    ) -> Result<OAuthAnswer, OAuthAnswer> {
        let refresh_token = required(form, "refresh_token")?;
        let Some((account, index)) = self.find(refresh_token) else {
            let description = "Token has been expired or revoked.";
            return Err(refusal(400, "invalid_grant", description));
        };
        let scopes = self.grant(account).refresh_tokens[index].1.clone();
        let mut answer = self.answer(options, account, &scopes, now);
        if options.rotate_refresh_tokens {
            let next = format!("1//{:032x}", rand::random::<u128>());
            answer.body["refresh_token"] = json!(next);
            self.grant(account).refresh_tokens[index].0 = next;
        }
        Ok(answer)
    }

    /// The account of a refresh token that holds, and its place in the account's grant.
    fn find(&self, refresh_token: &str) -> Option<(usize, usize)> {
        for grant in &self.grants {
            let mut tokens = grant.refresh_tokens.iter();
            if let Some(index) = tokens.position(|(own, _)| own == refresh_token) {
                return Some((grant.account, index));
            }
        }
        None
    }

    fn answer(
        &mut self,
        options: &Options,
        account: usize,
        scopes: &[String],
        now: DateTime<Utc>,
    ) -> OAuthAnswer {
        let access_token = self.access_token(options, account, scopes.to_vec(), now);
        OAuthAnswer {
            code: 200,
            body: json!({
                "access_token": access_token,
                "expires_in": options.access_token_seconds,
                "scope": scopes.join(" "),
                "token_type": "Bearer",
            }),
        }
    }

    /// Answers the revocation endpoint: either kind of token takes the account's whole grant away.
    pub fn revoke_token(&mut self, token: Option<&String>) -> OAuthAnswer {
        let Some(token) = token else {
            return refusal(400, "invalid_request", "Missing required parameter: token");
        };
        let by_access_token = self.access_tokens.get(token).map(|held| held.account);
        let by_refresh_token = self.find(token).map(|(account, _)| account);
        let Some(account) = by_access_token.or(by_refresh_token) else {
            return refusal(400, "invalid_token", "Token expired or revoked");
        };
        self.grants.retain(|grant| grant.account != account);
        self.access_tokens.retain(|_, held| held.account != account);
        self.codes.retain(|_, (held, _)| held.account != account);
        OAuthAnswer {
            code: 200,
            body: json!({}),
        }
    }
}

/// The scopes of the options, taken apart.
fn own_scopes(options: &Options) -> Vec<String> {
    options.scope.split(' ').map(str::to_owned).collect()
}

/// Adds what is not there yet.
fn merge(scopes: &mut Vec<String>, more: &[String]) {
    for scope in more {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
}

fn required<'f>(form: &'f HashMap<String, String>, name: &str) -> Result<&'f str, OAuthAnswer> {
    form.get(name).map(String::as_str).ok_or_else(|| {
        let description = format!("Missing required parameter: {name}");
        refusal(400, "invalid_request", &description)
    })
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
mod tests;
