//! The nine services as data: where their authorization servers are, what is asked of them, and how they
//! differ from the standards. One file a vendor; a row each, and one small function that reads whose an
//! account is. Nothing here calls anything.
//!
//! What a service does as RFC 6749 says is not in its row: [`STANDARD`] says it once.

mod github;
mod google;
mod linkedin;
mod notion;
mod slack;
mod spotify;
#[cfg(test)]
mod tests;
mod x;

use serde_json::Value;

use crate::domain::{CredentialType, ServiceName};

/// What is known of a service's OAuth.
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: ServiceName,
    /// Its own addresses; an operator may configure others.
    pub endpoints: Endpoints,
    /// How an account is connected.
    pub oauth: OAuth,
    /// How it is asked whose an account is.
    pub who: Who,
    /// Which credentials a person may give by hand; none where only a consent connects an account.
    pub by_hand: Option<ByHand>,
}

/// A vendor's addresses.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints {
    /// Where the person is asked for consent.
    pub authorize: &'static str,
    /// Where codes are exchanged and tokens refreshed.
    pub token: &'static str,
    /// Where tokens are revoked, where that is a place of its own and no call of the API.
    pub revoke: Option<&'static str>,
    /// What stands before the paths of its API.
    pub api: &'static str,
}

/// How a service does OAuth 2.0.
#[derive(Debug, Clone, Copy)]
pub struct OAuth {
    /// The issuer identifier (RFC 9207), where the vendor publishes one.
    pub issuer: Option<&'static str>,
    /// The scopes, all of them needed. None where the service has none.
    pub scopes: &'static [&'static str],
    /// Scopes that hold others: the service may name the first for the second.
    pub includes: &'static [(&'static str, &'static [&'static str])],
    /// The parameter with the scopes.
    pub scope_parameter: &'static str,
    /// What stands between them in the request. Answers are read with either.
    pub scope_separator: &'static str,
    /// Parameters of the authorization request beyond those of RFC 6749 and RFC 7636.
    pub parameters: &'static [(&'static str, &'static str)],
    /// The parameter that names the account which the person most likely means, by what people know it by;
    /// none where the service knows no such parameter.
    pub account_hint: Option<&'static str>,
    /// Which redirect URIs it registers beside those with https.
    pub redirects: Redirects,
    /// Whether it takes a code challenge (RFC 7636); always S256.
    pub pkce: bool,
    /// How it is told who we are.
    pub client_authentication: ClientAuthentication,
    /// How requests to the token endpoint are written.
    pub encoding: Encoding,
    /// Where in an answer the tokens may stand, as JSON pointers; the first place that has some counts.
    pub tokens_at: &'static [&'static str],
    /// Whether an error may be an answer with the status 200.
    pub errors_in_200: bool,
    /// What its own error codes mean, beside those of the standards.
    pub refusals: &'static [Refusal],
    /// How a grant is revoked.
    pub revocation: Revocation,
    /// Whether each refresh gives another refresh token and ends the one before.
    pub rotates: bool,
    /// Whether there is no lasting access without a refresh token. Otherwise an access token without
    /// one is kept for as long as it lasts.
    pub needs_refresh_token: bool,
    /// Days that a consent lasts, however often it is refreshed, where the answer does not say so.
    pub consent_days: Option<i64>,
}

/// Which redirect URIs a service takes, beside those with https and a host of the public DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Any with https, and this machine's with http.
    Usual,
    /// This machine's with http; with https only a host of the public DNS.
    PublicHosts,
    /// This machine's with http by its address; `localhost` is refused.
    NoLocalhost,
    /// None but https.
    HttpsOnly,
}

/// How a client is authenticated (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_id` and `client_secret` in the body.
    Body,
    /// HTTP Basic; a client without a secret says its `client_id` in the body.
    Basic,
}

/// How a grant is revoked: by which call, and by which of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// Not from here: the person removes the app at the service.
    NotOffered,
    /// RFC 7009 without a word of who the client is, by any token.
    Token,
    /// RFC 7009, with the client's authentication, by any token.
    TokenOfClient,
    /// As [`Revocation::TokenOfClient`], by the access token.
    AccessTokenOfClient,
    /// GitHub's: the client deletes what a person granted it, which the access token names.
    GrantOfClient,
    /// Slack's: the access token ends itself.
    OwnToken,
}

impl Revocation {
    /// Whether it takes an access token that is still good.
    pub fn wants_access_token(self) -> bool {
        matches!(
            self,
            Self::AccessTokenOfClient | Self::GrantOfClient | Self::OwnToken
        )
    }
}

/// How a request to the token endpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    Form,
    /// `application/json`.
    Json,
}

/// What an error code means.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// `error`, `error_subtype` or `code`.
    pub code: &'static str,
    /// What its description must hold, where the code alone says too little; else empty.
    pub says: &'static str,
    /// What it means.
    pub kind: RefusalKind,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// It may pass: asking again later helps.
    Transient,
    /// The operator has to mend it: the client, or what it asks for.
    Configuration,
    /// The grant, the token or the code is void: the person has to connect again.
    GrantGone,
    /// The consent ran out, and was not withdrawn: the person has to connect again.
    GrantExpired,
}

/// Credentials that a person gives by hand.
#[derive(Debug, Clone, Copy)]
pub struct ByHand {
    /// What they are at the service, for people.
    pub what: &'static str,
    /// As which types they may be given; all mean the same.
    pub types: &'static [CredentialType],
    /// Scopes without which nothing can be read. They are looked for where the service tells a token's
    /// scopes.
    pub scopes: &'static [&'static str],
}

/// How a service is asked whose a token is: one call below the API's address, without a body.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// The service's name of the call, a label of metrics.
    pub method: &'static str,
    /// Quota units that it costs, where the service counts any.
    pub units: u32,
    /// Whether it is a POST; else it is a GET.
    pub is_post: bool,
    /// The path, with its query.
    pub path: &'static str,
    /// Header fields beyond `Authorization` and `Accept`.
    pub headers: &'static [(&'static str, &'static str)],
    /// The header field of the answer that lists the token's scopes, where there is one.
    pub scopes_header: Option<&'static str>,
    /// Reads the answer.
    pub read: fn(&Value) -> Option<Account>,
}

/// An account at a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Names the account for good: an account with another id is another account.
    pub id: String,
    /// What people know it by; it may change.
    pub name: String,
}

/// OAuth 2.0 as RFC 6749, RFC 7636 and their security practice have it.
const STANDARD: OAuth = OAuth {
    issuer: None,
    scopes: &[],
    includes: &[],
    scope_parameter: "scope",
    scope_separator: " ",
    parameters: &[],
    account_hint: None,
    redirects: Redirects::Usual,
    pkce: true,
    client_authentication: ClientAuthentication::Body,
    encoding: Encoding::Form,
    tokens_at: &[""],
    errors_in_200: false,
    refusals: &[],
    revocation: Revocation::TokenOfClient,
    rotates: false,
    needs_refresh_token: true,
    consent_days: None,
};

/// A token may be called one or the other: it is sent the same way.
const TOKEN: &[CredentialType] = &[CredentialType::BearerToken, CredentialType::ApiKey];

/// The codes of RFC 6749, sections 4.1.2.1 and 5.2, and RFC 7009, section 2.2.1. A code that nobody knows
/// says that the request was not liked, which is ours to mend.
const STANDARD_REFUSALS: &[Refusal] = &[
    refusal("invalid_grant", RefusalKind::GrantGone),
    // Google says so for what is already revoked; RFC 7009 calls that a success.
    refusal("invalid_token", RefusalKind::GrantGone),
    refusal("temporarily_unavailable", RefusalKind::Transient),
    refusal("server_error", RefusalKind::Transient),
];

const fn refusal(code: &'static str, kind: RefusalKind) -> Refusal {
    Refusal {
        code,
        says: "",
        kind,
    }
}

/// The row of a service.
pub fn of(name: ServiceName) -> &'static Provider {
    match name {
        ServiceName::Gmail => &google::GMAIL,
        ServiceName::GoogleCalendar => &google::CALENDAR,
        ServiceName::GoogleDrive => &google::DRIVE,
        ServiceName::Github => &github::GITHUB,
        ServiceName::Notion => &notion::NOTION,
        ServiceName::Slack => &slack::SLACK,
        ServiceName::Linkedin => &linkedin::LINKEDIN,
        ServiceName::Twitter => &x::X,
        ServiceName::Spotify => &spotify::SPOTIFY,
    }
}

impl Provider {
    /// The types of credentials with which an account is connected.
    pub fn credential_types(&self) -> Vec<CredentialType> {
        let by_hand = self.by_hand.map_or(&[][..], |by_hand| by_hand.types);
        [&[CredentialType::Oauth2][..], by_hand].concat()
    }
}

impl OAuth {
    /// What an error means: `codes` are those of the answer, the most telling first, and `description`
    /// is what it says of them.
    pub fn meaning(&self, codes: &[&str], description: &str) -> RefusalKind {
        let known = || self.refusals.iter().chain(STANDARD_REFUSALS);
        codes
            .iter()
            .find_map(|code| {
                known().find(|refusal| refusal.code == *code && description.contains(refusal.says))
            })
            .map_or(RefusalKind::Configuration, |refusal| refusal.kind)
    }

    /// The scopes in the text of an answer: services separate them by spaces, by commas or by both.
    pub fn scopes_in(text: &str) -> Vec<String> {
        text.split(|c: char| c.is_whitespace() || c == ',')
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Those of `needed` that `granted` does not hold.
    pub fn missing(&self, needed: &[&str], granted: &[String]) -> Vec<String> {
        let holds = |granted: &String, needed: &str| {
            granted == needed
                || self
                    .includes
                    .iter()
                    .any(|(outer, inner)| granted == outer && inner.contains(&needed))
        };
        needed
            .iter()
            .filter(|needed| !granted.iter().any(|granted| holds(granted, needed)))
            .map(|&needed| needed.to_owned())
            .collect()
    }
}

/// Of what a vendor calls an account, so much is kept.
const MAX_CHARS: usize = 255;

/// The text at a JSON pointer, if it says something; without control characters, which databases and
/// pages do not take. A number counts as its digits.
fn text(answer: &Value, pointer: &str) -> Option<String> {
    let found = match answer.pointer(pointer)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let plain = found.chars().filter(|c| !c.is_control()).take(MAX_CHARS);
    Some(plain.collect()).filter(|text: &String| !text.is_empty())
}
