//! An authorization server of the tests (RFC 6749, 7009, 7636) that does what the strictest do: a refresh
//! token is good for one refresh, and one that comes again takes the whole grant away (RFC 9700, section
//! 4.14.2). It keeps a ledger of grants and calls, and fails as [`Failure`] says.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub use super::failure::Failure;
use super::failure::{Reply, Request};

/// The one client it knows.
pub const CLIENT_ID: &str = "client-of-the-tests";
/// Its secret.
pub const CLIENT_SECRET: &str = "secret-of-the-client-of-the-tests";

/// What it was called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Authorize,
    Exchange,
    Refresh,
    Revoke,
    Profile,
    Unknown,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub call: Call,
    pub path: String,
    /// Whether the client said who it is, and was right.
    pub by_client: bool,
    /// Which grant it was about, where that could be told.
    pub grant: Option<usize>,
    /// What it answered, `0` where it broke off.
    pub status: u16,
    /// How it failed, where it was told to.
    pub failure: Option<Failure>,
}

/// What a person granted: every refresh token that came of one consent.
#[derive(Debug, Clone)]
struct Grant {
    account: String,
    refresh_token: String,
    used: HashSet<String>,
    access_tokens: HashSet<String>,
    ended: Option<Ended>,
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A refresh token came twice.
    Reused,
    /// The client revoked it.
    Revoked,
    /// The person withdrew the consent.
    Withdrawn,
}

#[derive(Debug)]
struct Code {
    account: String,
    challenge: Option<String>,
    redirect_uri: String,
}

#[derive(Debug, Default)]
struct State {
    rotates: bool,
    grants: Vec<Grant>,
    codes: HashMap<String, Code>,
    failures: VecDeque<(Call, Failure)>,
    handed_out: VecDeque<String>,
    ledger: Vec<Entry>,
}

/// Lives as long as the test.
#[derive(Clone)]
pub struct AuthorizationServer {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// What calls of this kind are answered waits, though it is done.
    held: watch::Sender<Option<Call>>,
}

impl AuthorizationServer {
    /// One that rotates refresh tokens.
    pub async fn rotating() -> Self {
        Self::start(true).await
    }

    /// One whose refresh tokens stay.
    pub async fn steady() -> Self {
        Self::start(false).await
    }

    async fn start(rotates: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                rotates,
                ..State::default()
            })),
            held: watch::Sender::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    /// What leads a service of the program here, by the end of each variable's name.
    pub fn variables(&self, service: &str) -> [(&'static str, String); 6] {
        [
            ("AUTHORIZE_URL", format!("{}/authorize", self.url)),
            ("TOKEN_URL", format!("{}/token", self.url)),
            ("REVOKE_URL", format!("{}/{service}/revoke", self.url)),
            ("API_URL", self.url.clone()),
            ("CLIENT_ID", CLIENT_ID.to_owned()),
            ("CLIENT_SECRET", CLIENT_SECRET.to_owned()),
        ]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A person consents; gives the refresh token.
    pub fn consent(&self, account: &str) -> String {
        self.state().consent(account).refresh_token.clone()
    }

    /// As [`Self::consent`], with an access token beside the refresh token.
    pub fn consent_with_access(&self, account: &str) -> (String, String) {
        let mut state = self.state();
        let grant = state.consent(account);
        let access_token = random("at-");
        grant.access_tokens.insert(access_token.clone());
        (grant.refresh_token.clone(), access_token)
    }

    /// The next calls of this kind fail so.
    pub fn fail(&self, call: Call, failure: Failure, times: usize) {
        let mut state = self.state();
        let more = std::iter::repeat_n((call, failure), times);
        state.failures.extend(more);
    }

    /// Calls of this kind are carried out, and what they are answered waits for [`Self::release`].
    pub fn hold(&self, call: Call) {
        self.held.send_replace(Some(call));
    }

    /// Lets go of what waits.
    pub fn release(&self) {
        self.held.send_replace(None);
    }

    /// The next access token that is given is this one, which somebody else takes.
    pub fn hand_out(&self, access_token: String) {
        self.state().handed_out.push_back(access_token);
    }

    /// The refresh token of each grant.
    pub fn refresh_tokens(&self) -> Vec<String> {
        let grants = &self.state().grants;
        grants
            .iter()
            .map(|grant| grant.refresh_token.clone())
            .collect()
    }

    /// Access tokens given so far open nothing any more.
    pub fn expire_access_tokens(&self) {
        for grant in &mut self.state().grants {
            grant.access_tokens.clear();
        }
    }

    /// The person of an account withdraws the consent.
    pub fn withdraw(&self, account: &str) {
        let mut state = self.state();
        let grants = state.grants.iter_mut();
        for grant in grants.filter(|grant| grant.account == account) {
            grant.end(Ended::Withdrawn);
        }
    }

    /// How the grants ended that did, in the order of their consents.
    pub fn ended(&self) -> Vec<Option<Ended>> {
        self.state()
            .grants
            .iter()
            .map(|grant| grant.ended)
            .collect()
    }

    /// Everything it was called for.
    pub fn ledger(&self) -> Vec<Entry> {
        self.state().ledger.clone()
    }

    /// How many calls of a kind there were.
    pub fn count(&self, call: Call) -> usize {
        let state = self.state();
        let calls = state.ledger.iter();
        calls.filter(|entry| entry.call == call).count()
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some(request) = Request::read(&mut stream).await else {
            return;
        };
        let reply = self.state().answer(&request);
        let call = call_of(&request);
        let mut held = self.held.subscribe();
        held.wait_for(|held| *held != Some(call)).await.unwrap();
        reply.send(stream).await;
    }
}

impl Grant {
    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
        self.access_tokens.clear();
    }
}

fn random(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}

/// An error of RFC 6749, section 5.2.
fn refuse(error: &str, description: &str) -> Reply {
    let status = if error == "invalid_client" { 401 } else { 400 };
    let body = json!({"error": error, "error_description": description});
    Reply::json(status, &body)
}

impl State {
    fn consent(&mut self, account: &str) -> &mut Grant {
        self.grants.push(Grant {
            account: account.to_owned(),
            refresh_token: random("rt-"),
            used: HashSet::new(),
            access_tokens: HashSet::new(),
            ended: None,
        });
        self.grants.last_mut().unwrap()
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let call = call_of(request);
        let due = self.failures.iter().position(|(of, _)| *of == call);
        let failure = due.and_then(|index| self.failures.remove(index));
        let failure = failure.map(|(_, failure)| failure);
        // What fails before anything is done does nothing.
        let sent = request.form("refresh_token").unwrap_or_default();
        let (grant, reply) = match failure {
            Some(failure) if !failure.takes_effect() => (None, failure.reply(Value::Null, sent)),
            Some(failure) => {
                let (grant, reply) = self.carry_out(call, request);
                (grant, failure.reply(reply.value(), sent))
            }
            None => self.carry_out(call, request),
        };
        self.ledger.push(Entry {
            call,
            path: request.path.clone(),
            by_client: client_of(request).is_ok(),
            grant,
            status: reply.status,
            failure,
        });
        reply
    }

    fn carry_out(&mut self, call: Call, request: &Request) -> (Option<usize>, Reply) {
        match call {
            Call::Authorize => (None, self.authorize(request)),
            Call::Exchange => self.exchange(request),
            Call::Refresh => self.refresh(request),
            Call::Revoke => self.revoke(request),
            Call::Profile => self.profile(request),
            Call::Unknown => (None, Reply::json(404, &json!({"message": "Not Found"}))),
        }
    }

    /// Whoever asks consents, as the account that `login_hint` names.
    fn authorize(&mut self, request: &Request) -> Reply {
        let code = random("code-");
        let redirect_uri = request.query("redirect_uri").unwrap_or_default();
        let kept = Code {
            account: request
                .query("login_hint")
                .unwrap_or("me@example.com")
                .to_owned(),
            challenge: request.query("code_challenge").map(str::to_owned),
            redirect_uri: redirect_uri.to_owned(),
        };
        let mut location = url::Url::parse(redirect_uri).unwrap();
        location
            .query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", request.query("state").unwrap_or_default());
        self.codes.insert(code, kept);
        Reply::redirect(302, location.as_str())
    }

    fn exchange(&mut self, request: &Request) -> (Option<usize>, Reply) {
        if let Err(refused) = client_of(request) {
            return (None, refused);
        }
        let code = request.form("code").unwrap_or_default();
        let Some(code) = self.codes.remove(code) else {
            return (None, refuse("invalid_grant", "no such code"));
        };
        let verifier = request.form("code_verifier").unwrap_or_default();
        let hashed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let fits = code.challenge.is_none_or(|challenge| challenge == hashed);
        if !fits || request.form("redirect_uri") != Some(&code.redirect_uri) {
            return (None, refuse("invalid_grant", "verifier or redirect_uri"));
        }
        self.consent(&code.account);
        let grant = self.grants.len() - 1;
        (Some(grant), self.tokens(grant))
    }

    fn refresh(&mut self, request: &Request) -> (Option<usize>, Reply) {
        if let Err(refused) = client_of(request) {
            return (None, refused);
        }
        let token = request.form("refresh_token").unwrap_or_default();
        let mut grants = self.grants.iter();
        let known =
            grants.position(|grant| grant.refresh_token == token || grant.used.contains(token));
        let Some(index) = known else {
            return (None, refuse("invalid_grant", "no such refresh token"));
        };
        let rotates = self.rotates;
        let grant = &mut self.grants[index];
        if grant.used.contains(token) {
            grant.end(Ended::Reused);
        }
        if grant.ended.is_some() {
            let refused = refuse("invalid_grant", "Token has been expired or revoked.");
            return (Some(index), refused);
        }
        if rotates {
            let next = random("rt-");
            let used = std::mem::replace(&mut grant.refresh_token, next);
            grant.used.insert(used);
            grant.access_tokens.clear();
        }
        (Some(index), self.tokens(index))
    }

    fn tokens(&mut self, index: usize) -> Reply {
        let handed_out = self.handed_out.pop_front();
        let grant = &mut self.grants[index];
        let access_token = handed_out.unwrap_or_else(|| random("at-"));
        grant.access_tokens.insert(access_token.clone());
        let body = json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": 3600,
            "refresh_token": grant.refresh_token,
            "scope": "https://www.googleapis.com/auth/gmail.readonly",
        });
        Reply::json(200, &body)
    }

    /// What each service revokes by: which token, where it stands, and who has to say so.
    fn revoke(&mut self, request: &Request) -> (Option<usize>, Reply) {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let form = request.form("token").map(str::to_owned);
        let github = format!("/applications/{CLIENT_ID}/grant");
        let (token, takes_refresh_tokens, wants_client) = match request.path.as_str() {
            "/gmail/revoke" | "/google_calendar/revoke" | "/google_drive/revoke" => {
                (form, true, false)
            }
            "/linkedin/revoke" | "/twitter/revoke" => (form, true, true),
            "/notion/revoke" => (text("token"), false, true),
            "/api/auth.revoke" => (request.bearer().map(str::to_owned), false, false),
            path if path == github => (text("access_token"), false, true),
            path => panic!("nothing is revoked at {path}"),
        };
        if wants_client && let Err(refused) = client_of(request) {
            return (None, refused);
        }
        let token = token.unwrap_or_default();
        let known = self.grants.iter().position(|grant| {
            grant.access_tokens.contains(&token)
                || (takes_refresh_tokens && grant.refresh_token == token)
        });
        let live = known.filter(|index| self.grants[*index].ended.is_none());
        let Some(index) = live else {
            return (known, refuse("invalid_token", "Token expired or revoked"));
        };
        let reply = match request.path.as_str() {
            // Where there are refresh tokens, they go on.
            "/api/auth.revoke" => {
                self.grants[index].access_tokens.remove(&token);
                return (
                    Some(index),
                    Reply::json(200, &json!({"ok": true, "revoked": true})),
                );
            }
            path if path == github => Reply::bytes(204, "application/json", Vec::new()),
            _ => Reply::json(200, &json!({})),
        };
        self.grants[index].end(Ended::Revoked);
        (Some(index), reply)
    }

    fn profile(&self, request: &Request) -> (Option<usize>, Reply) {
        let token = request.bearer().unwrap_or_default();
        let mut grants = self.grants.iter();
        let known = grants.position(|grant| grant.access_tokens.contains(token));
        let Some(index) = known else {
            let error = json!({"error": {
                "code": 401, "status": "UNAUTHENTICATED", "message": "Invalid Credentials",
                "errors": [{"reason": "authError", "domain": "global", "message": "Invalid Credentials"}],
            }});
            return (None, Reply::json(401, &error));
        };
        if request.path == "/2/users/me" {
            let account = &self.grants[index].account;
            let user = json!({"data": {"id": account, "username": account, "name": account}});
            return (Some(index), Reply::json(200, &user));
        }
        let profile = json!({
            "emailAddress": self.grants[index].account,
            "messagesTotal": 0, "threadsTotal": 0, "historyId": "1",
        });
        (Some(index), Reply::json(200, &profile))
    }
}

fn call_of(request: &Request) -> Call {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/authorize") => Call::Authorize,
        ("POST", "/token") => match request.form("grant_type") {
            Some("refresh_token") => Call::Refresh,
            _ => Call::Exchange,
        },
        ("POST", path) if path.ends_with("revoke") => Call::Revoke,
        ("DELETE", path) if path.starts_with("/applications/") => Call::Revoke,
        ("GET", "/gmail/v1/users/me/profile" | "/2/users/me") => Call::Profile,
        _ => Call::Unknown,
    }
}

/// Fails unless the client says who it is, in the body or by Basic (RFC 6749, section 2.3.1).
fn client_of(request: &Request) -> Result<(), Reply> {
    let basic = request.header("authorization").and_then(|value| {
        let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        String::from_utf8(decoded).ok()
    });
    let given = match &basic {
        Some(basic) => basic.split_once(':'),
        None => request.form("client_id").zip(request.form("client_secret")),
    };
    if given == Some((CLIENT_ID, CLIENT_SECRET)) {
        return Ok(());
    }
    Err(refuse("invalid_client", "no such client"))
}
