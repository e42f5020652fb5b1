//! A stand-in for GitHub's API and token endpoint: one account, of which a ledger says what a full sync
//! must have stored. It honours `since`, sorting, paging by `Link`, entity tags and both rate limits, and
//! fails where a test says so.

mod account;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use nucleus::domain::Clock;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use url::form_urlencoded;

use super::serve;
pub use account::Account;

/// The refresh token that the token endpoint takes.
pub const REFRESH_TOKEN: &str = "ghr_of-the-stand-in";

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with these header fields and this message.
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// A successful answer of which the second half is missing.
    Truncated,
    /// As [`Fault::Truncated`], with the bracket that ends a whole one.
    TruncatedWithItsEnd,
    /// The answer with another header field.
    With(&'static str, &'static str),
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), "said by the stand-in")
    }
}

/// Faults for the requests whose path begins so.
struct Rule {
    path: String,
    /// Requests that pass before the first one that fails.
    after: usize,
    times: usize,
    fault: Fault,
}

type Hook = Box<dyn FnOnce(&mut Account) + Send>;

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    pub status: u16,
    pub token: String,
    /// What its header fields said beside.
    pub headers: HeaderMap,
    /// How the ids of the items end that the answer brought.
    pub items: Vec<String>,
}

impl Asked {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What happens by chance, as long as it lasts.
pub struct Chaos {
    pub random: StdRng,
    /// Of a thousand answers, so many are faults that pass.
    pub faults_per_mille: u32,
    /// After so many of a thousand, the account changes.
    pub changes_per_mille: u32,
    /// By this, drawn from a number.
    pub change: fn(&mut Account, u64),
}

impl Chaos {
    fn happens(&mut self, per_mille: u32) -> bool {
        self.random.random_range(0..1000) < per_mille
    }

    fn fault(&mut self) -> Option<Fault> {
        if !self.happens(self.faults_per_mille) {
            return None;
        }
        let wait = |status| Fault::Status(status, vec![("retry-after", "2".to_owned())], "Wait");
        Some(match self.random.random_range(0..6) {
            0 => Fault::Truncated,
            1 => Fault::TruncatedWithItsEnd,
            2 => wait(403),
            3 => wait(429),
            4 => Fault::status(500),
            _ => Fault::status(503),
        })
    }
}

struct Inner {
    account: Account,
    chaos: Option<Chaos>,
    rules: Vec<Rule>,
    hooks: Vec<(String, Hook)>,
    log: Vec<Asked>,
    /// Access tokens are numbered; those below are not taken.
    first_token: u64,
    tokens: u64,
    /// Requests left until the primary limit is reached, and for how long it then holds.
    budget: Option<(i64, TimeDelta)>,
    reset_at: Option<DateTime<Utc>>,
}

/// The running stand-in.
#[derive(Clone)]
pub struct Github {
    inner: Arc<Mutex<Inner>>,
    answered: watch::Sender<usize>,
    clock: Arc<Mutex<Arc<dyn Clock>>>,
    pub url: String,
}

impl Github {
    pub async fn start(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            account: Account::new(),
            chaos: None,
            rules: Vec::new(),
            hooks: Vec::new(),
            log: Vec::new(),
            first_token: 0,
            tokens: 0,
            budget: None,
            reset_at: None,
        };
        let mut github = Self {
            inner: Arc::new(Mutex::new(inner)),
            answered: watch::Sender::new(0),
            clock: Arc::new(Mutex::new(clock)),
            url: String::new(),
        };
        // The router's own copy does not need the URL, which is known once it listens.
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(github.clone());
        github.url = serve(router).await;
        github.lock().account.base = github.url.clone();
        github
    }

    /// Goes by this clock from now on.
    pub fn follow(&self, clock: Arc<dyn Clock>) {
        *self.clock.lock().unwrap() = clock;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Where the program is pointed to.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("NUCLEUS_SERVICES__GITHUB__API_URL", self.url.clone()),
            (
                "NUCLEUS_SERVICES__GITHUB__AUTHORIZE_URL",
                format!("{}/login/oauth/authorize", self.url),
            ),
            (
                "NUCLEUS_SERVICES__GITHUB__TOKEN_URL",
                format!("{}/login/oauth/access_token", self.url),
            ),
            (
                "NUCLEUS_SERVICES__GITHUB__CLIENT_ID",
                "Iv1.stand-in".to_owned(),
            ),
            (
                "NUCLEUS_SERVICES__GITHUB__CLIENT_SECRET",
                "secret-of-the-stand-in".to_owned(),
            ),
        ]
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        change(&mut self.lock().account)
    }

    /// Lets requests fail whose path begins so: after `after` of them, `times` times.
    pub fn inject(&self, path: &str, after: usize, times: usize, fault: Fault) {
        let path = path.to_owned();
        self.lock().rules.push(Rule {
            path,
            after,
            times,
            fault,
        });
    }

    /// Changes the account just after the next answer to a request whose target holds this.
    pub fn after(&self, target: &str, change: impl FnOnce(&mut Account) + Send + 'static) {
        self.lock()
            .hooks
            .push((target.to_owned(), Box::new(change)));
    }

    /// No fault is left, and nothing happens between two answers.
    pub fn calm(&self) {
        let mut inner = self.lock();
        inner.rules.clear();
        inner.hooks.clear();
        inner.budget = None;
        inner.reset_at = None;
    }

    /// Lets things happen by chance, or no longer.
    pub fn chaos(&self, chaos: Option<Chaos>) {
        self.lock().chaos = chaos;
    }

    /// The access tokens given so far are not taken any more.
    pub fn expire_access_tokens(&self) {
        let mut inner = self.lock();
        inner.first_token = inner.tokens + 1;
    }

    /// One more access token, as people make it themselves.
    pub fn access_token(&self) -> String {
        let mut inner = self.lock();
        inner.tokens += 1;
        format!("gho_{}", inner.tokens)
    }

    /// After so many requests the primary limit is reached, and holds for so long.
    pub fn limit(&self, requests: i64, holds: TimeDelta) {
        self.lock().budget = Some((requests, holds));
    }

    /// What was asked since the last time, in order, without the token endpoint.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock().log)
    }

    /// So many requests have been answered since the start.
    pub fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    pub async fn wait_for(&self, answered: usize) {
        let mut receiver = self.answered.subscribe();
        receiver.wait_for(|count| *count >= answered).await.unwrap();
    }
}

async fn answer(State(github): State<Github>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    if path == "/login/oauth/access_token" {
        return token(&github, &body);
    }
    let target = parts.uri.path_and_query().unwrap().to_string();
    let token = parts.headers.get(header::AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().to_owned();
    let mut response = {
        let mut inner = github.lock();
        let by_chance = inner.chaos.as_mut().and_then(Chaos::fault);
        let fault = inner.fault(&path).or(by_chance);
        let response = match fault {
            Some(Fault::Status(status, headers, message)) => refusal(status, &headers, message),
            other => {
                let now = github.clock.lock().unwrap().now();
                let whole = inner.respond(&target, &token, &parts.headers, now);
                match other {
                    None => whole,
                    Some(Fault::With(name, value)) => {
                        let (status, mut fields, body) = whole;
                        fields.insert(name, value.parse().unwrap());
                        (status, fields, body)
                    }
                    Some(fault) => cut(whole, matches!(fault, Fault::TruncatedWithItsEnd)),
                }
            }
        };
        inner.log.push(Asked {
            target: target.clone(),
            status: response.0.as_u16(),
            token,
            headers: parts.headers,
            items: items_of(&target, &response.2),
        });
        let hook = inner
            .hooks
            .iter()
            .position(|(part, _)| target.contains(part));
        if let Some(index) = hook {
            let (_, change) = inner.hooks.remove(index);
            change(&mut inner.account);
        }
        let Inner { chaos, account, .. } = &mut *inner;
        if let Some(chaos) = chaos
            && chaos.happens(chaos.changes_per_mille)
        {
            (chaos.change)(account, chaos.random.random());
        }
        let (status, headers, body) = response;
        let mut response = (status, body).into_response();
        *response.headers_mut() = headers;
        response
    };
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        "application/json; charset=utf-8".parse().unwrap(),
    );
    github.answered.send_modify(|count| *count += 1);
    response
}

/// How the ids of the records end that an answer brings, as far as it can be read.
fn items_of(target: &str, body: &[u8]) -> Vec<String> {
    // Without contents.
    if target.starts_with("/gists?") {
        return Vec::new();
    }
    let end = |item: &Value| {
        let id = [&item["repo"]["id"], &item["sha"], &item["id"]];
        let id = id.into_iter().find(|id| !id.is_null())?;
        Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
    };
    match serde_json::from_slice(body) {
        Ok(Value::Array(list)) => list.iter().filter_map(end).collect(),
        Ok(object) => end(&object).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

type Answer = (StatusCode, HeaderMap, Vec<u8>);

fn refusal(status: u16, fields: &[(&'static str, String)], message: &str) -> Answer {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.insert(*name, value.parse().unwrap());
    }
    let body = json!({"message": message, "status": status.to_string(),
        "documentation_url": "https://docs.github.com/rest"});
    let status = StatusCode::from_u16(status).unwrap();
    (status, headers, body.to_string().into_bytes())
}

/// The first half of an answer, as a proxy may pass it on.
fn cut(whole: Answer, with_its_end: bool) -> Answer {
    let (status, headers, body) = whole;
    let mut length = body.len() / 2;
    loop {
        let mut half = body[..length].to_vec();
        half.extend(body.last().filter(|_| with_its_end));
        // Between two items of a list it would be another list, and nobody could tell.
        if length == 0 || serde_json::from_slice::<Value>(&half).is_err() {
            return (status, headers, half);
        }
        length -= 1;
    }
}

impl Inner {
    fn fault(&mut self, path: &str) -> Option<Fault> {
        for rule in &mut self.rules {
            if !path.starts_with(&rule.path) || rule.times == 0 {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
        None
    }

    fn respond(
        &mut self,
        target: &str,
        token: &str,
        headers: &HeaderMap,
        now: DateTime<Utc>,
    ) -> Answer {
        if !headers.contains_key(header::USER_AGENT) {
            return refusal(
                403,
                &[],
                "Request forbidden by administrative rules: User-Agent",
            );
        }
        if headers
            .get("x-github-api-version")
            .is_none_or(|version| version != "2022-11-28")
        {
            return refusal(400, &[], "no version");
        }
        let number = token
            .strip_prefix("gho_")
            .and_then(|text| text.parse::<u64>().ok());
        if number.is_none_or(|number| number < self.first_token || number > self.tokens) {
            return refusal(401, &[], "Bad credentials");
        }
        if self.reset_at.is_some_and(|reset_at| now < reset_at) {
            let reset = self.reset_at.unwrap().timestamp() + 1;
            let fields = [
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", reset.to_string()),
            ];
            return refusal(403, &fields, "API rate limit exceeded for user ID 7.");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let query: HashMap<String, String> = pairs.into_iter().collect();
        if let Some(url) = self.account.moved(path) {
            let location = target
                .split_once('?')
                .map_or(url.clone(), |(_, query)| format!("{url}?{query}"));
            return refusal(301, &[("location", location)], "Moved Permanently");
        }
        let Some(value) = self.account.at(path, &query) else {
            return refusal(404, &[], "Not Found");
        };
        let mut fields = HeaderMap::new();
        let body = match value {
            Value::Array(list) => {
                let number = |name: &str, default: usize| {
                    query
                        .get(name)
                        .map_or(default, |text| text.parse().unwrap())
                };
                let size = number("per_page", 30).min(self.account.page_size);
                let page = number("page", 1);
                let part: Vec<&Value> = list.iter().skip((page - 1) * size).take(size).collect();
                if list.len() > page * size {
                    let mut next = query.clone();
                    next.insert("page".to_owned(), (page + 1).to_string());
                    let next = form_urlencoded::Serializer::new(String::new())
                        .extend_pairs(&next)
                        .finish();
                    let base = &self.account.base;
                    let link = format!("<{base}{path}?{next}>; rel=\"next\"");
                    fields.insert(header::LINK, link.parse().unwrap());
                }
                json!(part).to_string()
            }
            object => object.to_string(),
        };
        // Another token has other entity tags.
        let etag = Sha256::digest(format!("{token} {body}").as_bytes());
        let etag = format!("W/\"{etag:x}\"");
        fields.insert(header::ETAG, etag.parse().unwrap());
        if headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|known| *known == etag)
        {
            return (StatusCode::NOT_MODIFIED, fields, Vec::new());
        }
        if let Some((left, holds)) = &mut self.budget {
            *left -= 1;
            if *left == 0 {
                self.reset_at = Some(now + *holds);
            }
        }
        (StatusCode::OK, fields, body.into_bytes())
    }
}

fn token(github: &Github, body: &Bytes) -> Response {
    let asked: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let answer = if asked
        .get("refresh_token")
        .is_some_and(|token| token == REFRESH_TOKEN)
    {
        let mut inner = github.lock();
        inner.tokens += 1;
        json!({"access_token": format!("gho_{}", inner.tokens), "token_type": "bearer",
            "expires_in": 28_800, "refresh_token": REFRESH_TOKEN, "scope": ""})
    } else {
        json!({"error": "bad_refresh_token", "error_description": "The refresh token is incorrect."})
    };
    let body = Body::from(answer.to_string());
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
