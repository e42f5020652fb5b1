//! What the account of the stand-in has, what may happen to it, and what of it must be stored.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LOGIN: &str = "ada";
const USER_ID: u64 = 7;

/// Everything the account has.
pub struct Account {
    /// Seconds that have passed in the account's life.
    seconds: i64,
    /// When that life began.
    pub born: DateTime<Utc>,
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
    pub(super) base: String,
}

impl Account {
    /// An account that has nothing but a profile.
    pub(super) fn new() -> Self {
        Self {
            seconds: 0,
            born: "2026-01-01T00:00:00Z".parse().unwrap(),
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
        }
    }

    fn now(&mut self) -> String {
        self.seconds += 1;
        self.time()
    }

    fn time(&self) -> String {
        (self.born + TimeDelta::seconds(self.seconds)).to_rfc3339_opts(SecondsFormat::Secs, true)
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

    /// A repository with one commit.
    pub fn push_to_new(&mut self, name: &str) {
        self.add_repository(name, 1);
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

    /// As [`Account::star`], for whom its id is nothing.
    pub fn like(&mut self, name: &str) {
        self.star(name);
    }

    /// As [`Account::comment`] on an issue, for whom its id is nothing.
    pub fn answer(&mut self, number: u64) {
        self.comment(number, false);
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
    pub(super) fn at(&self, path: &str, query: &HashMap<String, String>) -> Option<Value> {
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
