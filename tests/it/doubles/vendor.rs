//! The nine services as a client that connects an account sees them: authorization page, token endpoint
//! and the one call that says whose a token is, each in its vendor's own way. What a vendor would refuse,
//! the double refuses, and keeps the reason.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::{delete, get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use nucleus::domain::ServiceName;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::serve;

mod refreshing;
mod revoking;
mod who;

/// The one client it knows.
pub const CLIENT_ID: &str = "client.of-the_tests";
/// Its secret.
pub const CLIENT_SECRET: &str = "secret-of-the-client";

/// How a vendor answers beside the usual.
#[derive(Debug, Clone, Default)]
pub struct Mood {
    /// Tokens expire and rotate, where the vendor leaves that to the app.
    pub expires: bool,
    /// Which account is signed in.
    pub account: u32,
    /// Scopes that the person does not grant.
    pub unticked: &'static [&'static str],
    /// The next token request is answered with this.
    pub token_answer: Option<(u16, Value)>,
    /// Every question whose a token is is answered with this.
    pub who_answer: Option<(u16, Value)>,
    /// The authorization answer says who answers.
    pub says_iss: bool,
    /// The answer to the next refresh is lost on its way, after the refresh.
    pub lost: bool,
}

/// A code that was given and not used yet.
struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    scopes: Vec<String>,
    account: u32,
    /// As old as the test says.
    age: Duration,
}

/// A token that works.
struct Token {
    /// Which of all consents it came of.
    consent: u32,
    account: u32,
    /// What the vendor says of its scopes, where it says it.
    scopes: Option<String>,
}

/// What a refresh token stands for.
#[derive(Clone)]
struct Grant {
    consent: u32,
    account: u32,
    scopes: Vec<String>,
}

#[derive(Default)]
struct Inner {
    grants: HashMap<String, Grant>,
    mood: Mood,
    redirect_uri: String,
    issuer: String,
    codes: HashMap<String, Code>,
    tokens: HashMap<String, Token>,
    expired: HashSet<String>,
    serial: u32,
    consents: u32,
    exchanges: usize,
    refreshes: usize,
    whos: usize,
    revocations: usize,
    wrongs: Vec<String>,
}

/// A running double of one vendor.
#[derive(Clone)]
pub struct Vendor {
    pub service: ServiceName,
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Vendor {
    /// Starts one that sends codes to `redirect_uri` alone.
    pub async fn start(service: ServiceName) -> Self {
        let inner = Arc::<Mutex<Inner>>::default();
        let mut this = Self {
            service,
            url: String::new(),
            inner,
        };
        let router = Router::new()
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/revoke", post(revoking::revoke))
            .route("/api/auth.revoke", post(revoking::revoke))
            .route("/applications/{client_id}/grant", delete(revoking::revoke))
            .fallback(who::who)
            .with_state(this.clone());
        this.url = serve(router).await;
        this.lock().issuer.clone_from(&this.url);
        this
    }

    /// How often it revoked something.
    pub fn revocations(&self) -> usize {
        self.lock().revocations
    }

    /// What an operator configures.
    pub fn variables(&self) -> Vec<(String, String)> {
        let name = self.service.as_str().to_uppercase();
        [
            ("CLIENT_ID", CLIENT_ID.to_owned()),
            ("CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("AUTHORIZE_URL", format!("{}/authorize", self.url)),
            ("REVOKE_URL", format!("{}/revoke", self.url)),
            ("TOKEN_URL", format!("{}/token", self.url)),
            ("API_URL", self.url.clone()),
        ]
        .into_iter()
        .map(|(field, value)| (format!("NUCLEUS_SERVICES__{name}__{field}"), value))
        .collect()
    }

    /// Registers the one redirect URI.
    pub fn register(&self, redirect_uri: String) {
        self.lock().redirect_uri = redirect_uri;
    }

    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Issues a token by hand; `scopes` is what the vendor says of it, where it says it.
    pub fn issue(&self, token: &str, scopes: Option<&str>) {
        let token = token.to_owned();
        let mut inner = self.lock();
        let issued = Token {
            consent: inner.next_consent(),
            account: inner.mood.account,
            scopes: scopes.map(str::to_owned),
        };
        inner.tokens.insert(token, issued);
    }

    /// Lets codes that were given and not used get older.
    pub fn age_codes(&self, by: Duration) {
        for code in self.lock().codes.values_mut() {
            code.age += by;
        }
    }

    /// Takes every access token back.
    pub fn expire_access_tokens(&self) {
        let mut inner = self.lock();
        let tokens = std::mem::take(&mut inner.tokens);
        inner.expired.extend(tokens.into_keys());
    }

    /// Takes every grant back.
    pub fn withdraw(&self) {
        let mut inner = self.lock();
        inner.tokens.clear();
        inner.grants.clear();
    }

    /// How often codes were exchanged, tokens refreshed, and accounts asked for.
    pub fn calls(&self) -> (usize, usize, usize) {
        let inner = self.lock();
        (inner.exchanges, inner.refreshes, inner.whos)
    }

    /// What a client did that the vendor does not take.
    pub fn wrongs(&self) -> Vec<String> {
        self.lock().wrongs.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn has_pkce(&self) -> bool {
        use ServiceName::{Linkedin, Notion, Slack};
        !matches!(self.service, Notion | Slack | Linkedin)
    }

    fn is_google(&self) -> bool {
        use ServiceName::{Gmail, GoogleCalendar, GoogleDrive};
        matches!(self.service, Gmail | GoogleCalendar | GoogleDrive)
    }

    /// Whether a refresh token is good once.
    pub fn rotates(&self) -> bool {
        use ServiceName::{Github, Notion, Slack, Twitter};
        matches!(self.service, Github | Notion | Slack | Twitter)
    }

    /// How long a code is good.
    fn code_life(&self) -> Duration {
        match self.service {
            ServiceName::Twitter => Duration::from_secs(30),
            _ => Duration::from_secs(600),
        }
    }

    /// Whether the vendor wants Basic authentication.
    fn has_basic(&self) -> bool {
        use ServiceName::{Notion, Slack, Spotify, Twitter};
        matches!(self.service, Notion | Slack | Twitter | Spotify)
    }
}

impl Inner {
    fn next(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}-{:04}", self.serial)
    }

    fn next_consent(&mut self) -> u32 {
        self.consents += 1;
        self.consents
    }
}

fn pairs(query: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// The consent page, which grants at once.
async fn authorize(State(vendor): State<Vendor>, RawQuery(query): RawQuery) -> Response {
    let asked = pairs(&query.unwrap_or_default());
    let value = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    let mut wrongs = Vec::new();
    let mut inner = vendor.lock();
    if value("client_id") != CLIENT_ID || value("response_type") != "code" {
        wrongs.push("another client or response type");
    }
    if value("redirect_uri") != inner.redirect_uri {
        wrongs.push("another redirect URI than the registered one");
    }
    if value("state").len() < 22 {
        wrongs.push("no state");
    }
    let challenge = asked.get("code_challenge").cloned();
    if challenge.is_some() != vendor.has_pkce() {
        wrongs.push("a challenge where none is taken, or none");
    }
    if challenge.is_some() && value("code_challenge_method") != "S256" {
        wrongs.push("another method than S256");
    }
    let (parameter, separator) = match vendor.service {
        ServiceName::Slack => ("user_scope", ','),
        _ => ("scope", ' '),
    };
    let scopes: Vec<String> = value(parameter)
        .split(separator)
        .filter(|scope| !scope.is_empty() && !inner.mood.unticked.contains(scope))
        .map(str::to_owned)
        .collect();
    if asked.contains_key(parameter) == (vendor.service == ServiceName::Notion) {
        wrongs.push("scopes where there are none, or none");
    }
    if vendor.is_google() && (value("access_type"), value("prompt")) != ("offline", "consent") {
        wrongs.push("no offline access");
    }
    if vendor.service == ServiceName::Notion && value("owner") != "user" {
        wrongs.push("no owner");
    }
    if !wrongs.is_empty() {
        let said = wrongs.join(", ");
        inner.wrongs.push(format!("authorize: {said}"));
        return (StatusCode::BAD_REQUEST, said).into_response();
    }
    let code = inner.next("code");
    let account = inner.mood.account;
    let redirect_uri = value("redirect_uri").to_owned();
    let mut back = format!("{redirect_uri}?code={code}&state={}", value("state"));
    if inner.mood.says_iss {
        let iss: String = url::form_urlencoded::byte_serialize(inner.issuer.as_bytes()).collect();
        back += &format!("&iss={iss}");
    }
    inner.codes.insert(
        code,
        Code {
            redirect_uri,
            challenge,
            scopes,
            account,
            age: Duration::ZERO,
        },
    );
    Redirect::to(&back).into_response()
}

fn answer(status: u16, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    let status = StatusCode::from_u16(status).unwrap();
    (status, headers, body.to_string()).into_response()
}

/// An error as the vendor's token endpoint writes it.
fn refuse(vendor: &Vendor, error: &str, description: &str) -> Response {
    match vendor.service {
        ServiceName::Github => answer(
            200,
            &json!({"error": error, "error_description": description, "error_uri": "https://docs.example"}),
        ),
        ServiceName::Slack => answer(200, &json!({"ok": false, "error": error})),
        _ => answer(
            400,
            &json!({"error": error, "error_description": description}),
        ),
    }
}

/// The token endpoint.
async fn token(State(vendor): State<Vendor>, headers: HeaderMap, body: Bytes) -> Response {
    let mut inner = vendor.lock();
    if let Some((status, body)) = inner.mood.token_answer.take() {
        return answer(status, &body);
    }
    let text = |name: header::HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let is_json = text(header::CONTENT_TYPE).starts_with("application/json");
    if is_json != (vendor.service == ServiceName::Notion) {
        inner.wrongs.push("token: in another encoding".to_owned());
        return refuse(&vendor, "invalid_request", "encoding");
    }
    if vendor.service == ServiceName::Github && text(header::ACCEPT) != "application/json" {
        inner
            .wrongs
            .push("token: a form would be answered".to_owned());
    }
    let asked: HashMap<String, String> = if is_json {
        serde_json::from_slice(&body).unwrap()
    } else {
        pairs(std::str::from_utf8(&body).unwrap())
    };
    let value = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"))
    );
    let is_client = if vendor.has_basic() {
        text(header::AUTHORIZATION) == basic && !asked.contains_key("client_secret")
    } else {
        (value("client_id"), value("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
            && !headers.contains_key(header::AUTHORIZATION)
    };
    if !is_client {
        inner.wrongs.push("token: another client".to_owned());
        return refuse(&vendor, "invalid_client", "client");
    }
    match value("grant_type") {
        "authorization_code" => {
            inner.exchanges += 1;
            let code = inner.codes.remove(value("code"));
            let Some(code) = code.filter(|code| code.age < vendor.code_life()) else {
                let said = "The code passed is incorrect or expired.";
                let x = "Value passed for the authorization code was invalid.";
                let (error, said) = match vendor.service {
                    ServiceName::Github => ("bad_verification_code", said),
                    ServiceName::Slack => ("invalid_code", said),
                    ServiceName::Twitter => ("invalid_request", x),
                    _ => ("invalid_grant", said),
                };
                return refuse(&vendor, error, said);
            };
            let verifier = asked.get("code_verifier");
            let answered =
                verifier.map(|verifier| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)));
            if code.challenge != answered || code.redirect_uri != value("redirect_uri") {
                inner
                    .wrongs
                    .push("token: another verifier or redirect URI".to_owned());
                return refuse(&vendor, "invalid_grant", "verifier");
            }
            let grant = Grant {
                consent: inner.next_consent(),
                account: code.account,
                scopes: code.scopes,
            };
            answer(200, &granted(&vendor, &mut inner, &grant))
        }
        "refresh_token" => {
            inner.refreshes += 1;
            let given = value("refresh_token").to_owned();
            match inner.grants.remove(&given) {
                Some(grant) => {
                    let refreshed = refreshing::refreshed(&vendor, &mut inner, given, grant);
                    match std::mem::take(&mut inner.mood.lost) {
                        true => StatusCode::BAD_GATEWAY.into_response(),
                        false => answer(200, &refreshed),
                    }
                }
                None => refreshing::refuse_refresh(&vendor),
            }
        }
        _ => refuse(&vendor, "unsupported_grant_type", ""),
    }
}

/// The answer with tokens, as the vendor writes it.
fn granted(vendor: &Vendor, inner: &mut Inner, grant: &Grant) -> Value {
    let token = inner.next("access");
    let refresh = inner.next("refresh");
    let expires = inner.mood.expires;
    let listed = matches!(vendor.service, ServiceName::Github | ServiceName::Slack);
    let Grant {
        consent,
        account,
        ref scopes,
    } = *grant;
    inner.grants.insert(refresh.clone(), grant.clone());
    inner.tokens.insert(
        token.clone(),
        Token {
            consent,
            account,
            scopes: listed.then(|| scopes.join(", ")),
        },
    );
    let spaced = scopes.join(" ");
    let comma = scopes.join(",");
    match vendor.service {
        ServiceName::Gmail | ServiceName::GoogleCalendar | ServiceName::GoogleDrive => {
            let mut answer = json!({"access_token": token, "expires_in": 3599, "scope": spaced,
                                    "refresh_token": refresh, "token_type": "Bearer"});
            if expires {
                // An app in testing: its refresh tokens end after seven days.
                answer["refresh_token_expires_in"] = json!(604_799);
            }
            answer
        }
        ServiceName::Github if expires => {
            json!({"access_token": token, "expires_in": 28_800, "refresh_token": refresh,
                   "refresh_token_expires_in": 15_897_600, "scope": comma, "token_type": "bearer"})
        }
        ServiceName::Github => {
            json!({"access_token": token, "scope": comma, "token_type": "bearer"})
        }
        ServiceName::Notion => {
            let refresh = if expires { json!(refresh) } else { Value::Null };
            json!({"access_token": token, "token_type": "bearer", "refresh_token": refresh,
                   "bot_id": format!("b{account}"), "workspace_id": "w", "workspace_name": "Engines",
                   "owner": {"type": "user", "user": {"object": "user", "id": "u"}},
                   "duplicated_template_id": null, "request_id": "r"})
        }
        ServiceName::Slack => {
            let mut user = json!({"id": format!("U{account}"), "scope": comma,
                                  "access_token": token, "token_type": "user"});
            if expires {
                user["expires_in"] = json!(43_200);
                user["refresh_token"] = json!(refresh);
            }
            json!({"ok": true, "app_id": "A1", "authed_user": user, "enterprise": null,
                   "team": {"id": "T1", "name": "Engines"}, "is_enterprise_install": false})
        }
        ServiceName::Linkedin => {
            let mut answer = json!({"access_token": token, "expires_in": 5_184_000, "scope": comma,
                                    "id_token": "e30.e30.", "token_type": "Bearer"});
            if expires {
                // An approved partner.
                answer["refresh_token"] = json!(refresh);
                answer["refresh_token_expires_in"] = json!(31_536_000);
            }
            answer
        }
        ServiceName::Twitter => {
            json!({"token_type": "bearer", "expires_in": 7200, "access_token": token,
                   "scope": spaced, "refresh_token": refresh})
        }
        ServiceName::Spotify => {
            json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600,
                   "refresh_token": refresh, "scope": spaced})
        }
    }
}

fn mail(account: u32) -> String {
    format!("ada{account}@example.com")
}

/// What people are shown of an account.
pub fn shown(service: ServiceName, account: u32) -> String {
    match service {
        ServiceName::Gmail
        | ServiceName::GoogleCalendar
        | ServiceName::GoogleDrive
        | ServiceName::Linkedin => mail(account),
        ServiceName::Github => format!("ada{account}"),
        ServiceName::Notion => format!("Ada {account} in Engines"),
        ServiceName::Slack => format!("ada{account} in Engines"),
        ServiceName::Twitter => format!("@ada{account}"),
        ServiceName::Spotify => format!("Ada {account}"),
    }
}
