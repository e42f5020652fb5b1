//! A stand-in for GitHub's API and token endpoint: one account, of which a ledger says what a full sync
//! must have stored. It honours `since`, sorting, paging by `Link`, entity tags and both rate limits, and
//! fails where a test says so.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use nucleus::domain::Clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use url::form_urlencoded;

use super::serve;

/// The refresh token that the token endpoint takes.
pub const REFRESH_TOKEN: &str = "ghr_of-the-stand-in";
const LOGIN: &str = "ada";
const USER_ID: u64 = 7;

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

/// Everything the account has.
pub struct Account {
    /// Seconds that have passed in the account's life.
    seconds: i64,
    ids: u64,
    repositories: Vec<Value>,
    issues: Vec<Value>,
    /// By the path of their list.
    comments: BTreeMap<String, Vec<Value>>,
    commits: BTreeMap<String, Vec<Value>>,
    stars: Vec<Value>,
    gists: Vec<Value>,
    bio: String,
    /// Most items of a page, whatever is asked for.
    pub page_size: usize,
    base: String,
}

impl Account {
    fn now(&mut self) -> String {
        self.seconds += 1;
        self.time()
    }

    fn time(&self) -> String {
        let born: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        (born + TimeDelta::seconds(self.seconds)).to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn user(&self) -> Value {
        json!({"login": LOGIN, "id": USER_ID, "name": "Ada", "bio": self.bio,
            "html_url": "https://github.com/ada", "created_at": "2020-01-01T00:00:00Z"})
    }

    pub fn say(&mut self, bio: &str) {
        self.bio = bio.to_owned();
    }

    /// A repository of the owner's, with so many commits by the owner.
    pub fn add_repository(&mut self, name: &str, commits: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        self.repositories.push(json!({
            "id": id, "name": name, "full_name": format!("{LOGIN}/{name}"),
            "owner": {"login": LOGIN, "id": USER_ID}, "private": true, "fork": false,
            "description": format!("about {name}"), "topics": ["rust"], "stargazers_count": 1,
            "html_url": format!("https://github.com/{LOGIN}/{name}"),
            "created_at": now, "updated_at": now, "pushed_at": null,
        }));
        if commits > 0 {
            self.push(name, commits);
        }
        id
    }

    fn repository(&mut self, name: &str) -> &mut Value {
        let mut found = self.repositories.iter_mut();
        found.find(|repository| repository["name"] == name).unwrap()
    }

    pub fn describe(&mut self, name: &str, description: &str) {
        self.repository(name)["description"] = json!(description);
    }

    /// What changes of a repository without anybody writing anything.
    pub fn draw_attention(&mut self, name: &str) {
        let now = self.now();
        let repository = self.repository(name);
        repository["stargazers_count"] =
            json!(repository["stargazers_count"].as_u64().unwrap() + 1);
        repository["updated_at"] = json!(now);
    }

    pub fn delete_repository(&mut self, name: &str) {
        self.repositories
            .retain(|repository| repository["name"] != name);
    }

    /// New commits of the owner's.
    pub fn push(&mut self, name: &str, count: usize) {
        for _ in 0..count {
            let now = self.now();
            let sha = format!("{:x}", Sha256::digest(self.id().to_string()));
            let sha = &sha[..40];
            let url = format!("{}/repos/{LOGIN}/{name}/commits/{sha}", self.base);
            let who = json!({"name": "Ada", "email": "ada@example.com", "date": now});
            let commit = json!({"sha": sha, "url": url, "author": {"login": LOGIN, "id": USER_ID},
                "commit": {"message": format!("Commit {sha}"), "author": who, "committer": who},
                "parents": [], "html_url": format!("https://github.com/{LOGIN}/{name}/commit/{sha}")});
            // The newest first.
            self.commits
                .entry(name.to_owned())
                .or_default()
                .insert(0, commit);
            self.repository(name)["pushed_at"] = json!(now);
        }
    }

    /// An issue, or a pull request, with so many comments.
    pub fn add_issue(&mut self, repository: &str, pull_request: bool, comments: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        let number = self.issues.len() as u64 + 1;
        let url = format!("{}/repos/{LOGIN}/{repository}", self.base);
        let mut issue = json!({
            "id": id, "number": number, "title": format!("Issue {number} version 1"),
            "body": "What is this?", "user": {"login": "grace", "id": 8}, "state": "open",
            "labels": [{"name": "question"}], "assignees": [], "comments": 0,
            "repository_url": url, "html_url": format!("https://github.com/x/{number}"),
            "created_at": now, "updated_at": now,
        });
        if pull_request {
            issue["pull_request"] = json!({"merged_at": null});
        }
        self.issues.push(issue);
        for _ in 0..comments {
            self.comment(number, false);
        }
        number
    }

    fn issue(&mut self, number: u64) -> &mut Value {
        let mut found = self.issues.iter_mut();
        found.find(|issue| issue["number"] == number).unwrap()
    }

    /// Changes an issue's title to that of its next version.
    pub fn edit_issue(&mut self, number: u64) {
        let now = self.now();
        let issue = self.issue(number);
        let title = issue["title"].as_str().unwrap();
        let (words, version) = title.rsplit_once(' ').unwrap();
        let version: u64 = version.parse().unwrap();
        issue["title"] = json!(format!("{words} {}", version + 1));
        issue["updated_at"] = json!(now);
    }

    pub fn label_issue(&mut self, number: u64, label: &str) {
        self.issue(number)["labels"] = json!([{"name": label}]);
        let now = self.time();
        self.issue(number)["updated_at"] = json!(now);
    }

    /// A comment, on the code of a pull request if so.
    pub fn comment(&mut self, number: u64, on_code: bool) -> u64 {
        let (id, now) = (self.id(), self.now());
        let issue = self.issue(number);
        issue["updated_at"] = json!(now);
        let url = issue["repository_url"].as_str().unwrap().to_owned();
        let mut comment = json!({"id": id, "body": format!("Comment {id}"),
            "user": {"login": LOGIN, "id": USER_ID}, "created_at": now, "updated_at": now,
            "html_url": format!("https://github.com/x/{number}#{id}")});
        let kind = if on_code {
            comment["pull_request_url"] = json!(format!("{url}/pulls/{number}"));
            comment["path"] = json!("src/main.rs");
            "pulls"
        } else {
            let count = issue["comments"].as_u64().unwrap();
            issue["comments"] = json!(count + 1);
            comment["issue_url"] = json!(format!("{url}/issues/{number}"));
            "issues"
        };
        let path = url.strip_prefix(&self.base).unwrap();
        let list = format!("{path}/{kind}/{number}/comments");
        self.comments.entry(list).or_default().push(comment);
        id
    }

    pub fn star(&mut self, name: &str) -> u64 {
        let (id, now) = (self.id(), self.now());
        self.stars.push(
            json!({"starred_at": now, "repo": {"id": id, "full_name": name,
            "description": format!("star {name}"), "stargazers_count": 1000, "updated_at": now}}),
        );
        id
    }

    pub fn unstar(&mut self, id: u64) {
        self.stars.retain(|star| star["repo"]["id"] != id);
    }

    pub fn add_gist(&mut self) -> String {
        let (number, now) = (self.id(), self.now());
        let id = format!("{number:032x}");
        self.gists.insert(
            0,
            json!({"id": id, "description": format!("Gist {number} version 1"),
            "public": false, "owner": {"login": LOGIN, "id": USER_ID}, "created_at": now,
            "updated_at": now, "html_url": format!("https://gist.github.com/{id}")}),
        );
        id
    }

    pub fn edit_gist(&mut self, id: &str) {
        let now = self.now();
        let gist = self.gists.iter_mut().find(|gist| gist["id"] == id).unwrap();
        let words = gist["description"].as_str().unwrap().replace('1', "2");
        gist["description"] = json!(format!("{words} edited"));
        gist["updated_at"] = json!(now);
    }

    pub fn delete_gist(&mut self, id: &str) {
        self.gists.retain(|gist| gist["id"] != id);
    }

    /// What must be stored: the id of each record, and what its text says.
    pub fn ledger(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut ledger = BTreeMap::new();
        ledger.insert(format!("profile:{USER_ID}"), self.bio.clone());
        for repository in &self.repositories {
            let name = repository["name"].as_str().unwrap();
            let id = &repository["id"];
            ledger.insert(format!("repository:{id}"), text(&repository["description"]));
            for commit in self.commits.get(name).into_iter().flatten() {
                let sha = commit["sha"].as_str().unwrap();
                ledger.insert(
                    format!("commit:{id}:{sha}"),
                    text(&commit["commit"]["message"]),
                );
            }
        }
        for issue in &self.issues {
            ledger.insert(format!("issue:{}", issue["id"]), text(&issue["title"]));
        }
        for comment in self.comments.values().flatten() {
            let prefix = match comment["path"].is_string() {
                true => "review_comment",
                false => "comment",
            };
            ledger.insert(
                format!("{prefix}:{}", comment["id"]),
                text(&comment["body"]),
            );
        }
        for star in &self.stars {
            let repository = &star["repo"];
            ledger.insert(
                format!("star:{}", repository["id"]),
                text(&repository["description"]),
            );
        }
        for gist in &self.gists {
            let id = gist["id"].as_str().unwrap();
            ledger.insert(format!("gist:{id}"), text(&gist["description"]));
        }
        ledger
    }

    /// The list or object at a path, as far as there is one. Lists come in the order asked for.
    fn at(&self, path: &str, query: &HashMap<String, String>) -> Option<Value> {
        let since = |list: &[Value], field: &str| {
            let since = query.get("since").map(String::as_str).unwrap_or_default();
            let later = |item: &&Value| item[field].as_str().unwrap_or_default() >= since;
            list.iter().filter(later).cloned().collect::<Vec<_>>()
        };
        let says = |name: &str, value: &str| query.get(name).is_some_and(|text| text == value);
        if let Some(list) = self.comments.get(path) {
            return Some(json!(since(list, "updated_at")));
        }
        match path.split('/').skip(1).collect::<Vec<_>>()[..] {
            ["user"] => Some(self.user()),
            ["user", "repos"] => {
                let mut list = self.repositories.clone();
                if says("sort", "created") && says("direction", "desc") {
                    list.reverse();
                }
                Some(json!(list))
            }
            ["user", "starred"] => {
                let mut list = self.stars.clone();
                if says("sort", "created") && says("direction", "desc") {
                    list.reverse();
                }
                Some(json!(list))
            }
            ["gists"] => Some(json!(self.gists)),
            ["gists", id] => {
                let mut gist = self.gists.iter().find(|gist| gist["id"] == id)?.clone();
                gist["files"] =
                    json!({"a.txt": {"filename": "a.txt", "content": "Contents", "size": 8}});
                Some(gist)
            }
            ["issues"] => {
                let mut list = since(&self.issues, "updated_at");
                if says("sort", "updated") && says("direction", "asc") && says("state", "all") {
                    list.sort_by_key(|issue| issue["updated_at"].to_string());
                }
                Some(json!(list))
            }
            ["repos", _, name, "commits"] => {
                self.repositories
                    .iter()
                    .find(|repository| repository["name"] == name)?;
                let by = |commit: &&Value| {
                    query
                        .get("author")
                        .is_none_or(|login| commit["author"]["login"] == *login)
                };
                let empty = Vec::new();
                let list = self.commits.get(name).unwrap_or(&empty);
                let list: Vec<Value> = list.iter().filter(by).cloned().collect();
                let since = query.get("since").map(String::as_str).unwrap_or_default();
                let later = |commit: &&Value| {
                    commit["commit"]["committer"]["date"].as_str().unwrap() >= since
                };
                Some(json!(list.iter().filter(later).collect::<Vec<_>>()))
            }
            ["repos", _, _, "issues" | "pulls", number, "comments"] => {
                let number: u64 = number.parse().ok()?;
                self.issues.iter().find(|issue| issue["number"] == number)?;
                Some(json!([]))
            }
            _ => None,
        }
    }
}

struct Inner {
    account: Account,
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
        let account = Account {
            seconds: 0,
            ids: 1000,
            repositories: Vec::new(),
            issues: Vec::new(),
            comments: BTreeMap::new(),
            commits: BTreeMap::new(),
            stars: Vec::new(),
            gists: Vec::new(),
            bio: "Writes programs".to_owned(),
            page_size: 100,
            base: String::new(),
        };
        let inner = Inner {
            account,
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

    /// No fault is left.
    pub fn calm(&self) {
        let mut inner = self.lock();
        inner.rules.clear();
        inner.budget = None;
        inner.reset_at = None;
    }

    /// The access tokens given so far are not taken any more.
    pub fn expire_access_tokens(&self) {
        let mut inner = self.lock();
        inner.first_token = inner.tokens + 1;
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
        let fault = inner.fault(&path);
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
    let mut half = body[..body.len() / 2].to_vec();
    half.extend(body.last().filter(|_| with_its_end));
    (status, headers, half)
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
        let etag = format!("W/\"{:x}\"", Sha256::digest(body.as_bytes()));
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
