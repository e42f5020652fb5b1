//! What the account of the stand-in has, what may happen to it, and what of it must be stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const USER_ID: u64 = 7;

/// Everything the account has.
pub struct Account {
    /// Seconds that have passed in the account's life.
    seconds: i64,
    /// When that life began.
    pub born: DateTime<Utc>,
    ids: u64,
    login: String,
    repositories: Vec<Value>,
    /// Ids of the repositories that the token may not see.
    hidden: BTreeSet<u64>,
    /// Repositories by the names that they had.
    former: BTreeMap<String, u64>,
    issues: Vec<Value>,
    /// By the id of their repository and what follows it in the path of their list.
    comments: BTreeMap<(u64, String), Vec<Value>>,
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
            login: "ada".to_owned(),
            repositories: Vec::new(),
            hidden: BTreeSet::new(),
            former: BTreeMap::new(),
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

    /// Time in which nothing happens.
    pub fn pass(&mut self, time: TimeDelta) {
        self.seconds += time.num_seconds();
    }

    fn time(&self) -> String {
        (self.born + TimeDelta::seconds(self.seconds)).to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn user(&self) -> Value {
        json!({"login": self.login, "id": USER_ID, "name": "Ada", "bio": self.bio,
            "html_url": "https://github.com/ada", "created_at": "2020-01-01T00:00:00Z"})
    }

    pub fn say(&mut self, bio: &str) {
        self.bio = bio.to_owned();
    }

    /// The owner goes by another name, and so do the repositories. Where they were, they are named as moved.
    pub fn rename(&mut self, login: &str) {
        self.login = login.to_owned();
        let now = self.now();
        for repository in &mut self.repositories {
            let id = repository["id"].as_u64().unwrap();
            let name = repository["full_name"].as_str().unwrap().to_owned();
            self.former.insert(name, id);
            let name = repository["name"].as_str().unwrap();
            repository["full_name"] = json!(format!("{login}/{name}"));
            repository["owner"]["login"] = json!(login);
            repository["updated_at"] = json!(now);
        }
    }

    /// The token may not see this repository, or from now on.
    pub fn hide(&mut self, name: &str) {
        let id = self.repository(name)["id"].as_u64().unwrap();
        self.hidden.insert(id);
    }

    pub fn show(&mut self, name: &str) {
        let id = self.repository(name)["id"].as_u64().unwrap();
        self.hidden.remove(&id);
    }

    /// Where a repository is that had another name when this path was made.
    pub(super) fn moved(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix("/repos/")?;
        let (at, _) = rest.match_indices('/').nth(1)?;
        let id = self.former.get(&rest[..at])?;
        Some(format!("{}/repositories/{id}{}", self.base, &rest[at..]))
    }

    fn is_hidden(&self, repository: &Value) -> bool {
        self.hidden.contains(&repository["id"].as_u64().unwrap())
    }

    /// A repository of the owner's, with so many commits by the owner.
    pub fn add_repository(&mut self, name: &str, commits: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        self.repositories.push(json!({
            "id": id, "name": name, "full_name": format!("{}/{name}", self.login),
            "owner": {"login": self.login, "id": USER_ID}, "private": true, "fork": false,
            "description": format!("about {name}"), "topics": ["rust"], "stargazers_count": 1,
            "html_url": format!("https://github.com/x/{name}"),
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
        self.commits.remove(name);
    }

    /// New commits of the owner's.
    pub fn push(&mut self, name: &str, count: usize) {
        self.push_of_before(name, count, TimeDelta::zero());
    }

    /// A push without a commit of the owner's.
    pub fn push_of_another(&mut self, name: &str) {
        let now = self.now();
        self.repository(name)["pushed_at"] = json!(now);
    }

    /// New commits of the owner's, made so long ago.
    pub fn push_of_before(&mut self, name: &str, count: usize, ago: TimeDelta) {
        for _ in 0..count {
            let now = self.now();
            let made = self.born + TimeDelta::seconds(self.seconds) - ago;
            let made = made.to_rfc3339_opts(SecondsFormat::Secs, true);
            let sha = format!("{:x}", Sha256::digest(self.id().to_string()));
            let sha = &sha[..40];
            let url = format!("{}/repos/{}/{name}/commits/{sha}", self.base, self.login);
            let who = json!({"name": "Ada", "email": "ada@example.com", "date": made});
            let commit = json!({"sha": sha, "url": url, "author": {"id": USER_ID},
                "commit": {"message": format!("Commit {sha}"), "author": who, "committer": who},
                "parents": [], "html_url": format!("https://github.com/x/{name}/commit/{sha}")});
            // The newest first.
            self.commits
                .entry(name.to_owned())
                .or_default()
                .insert(0, commit);
            self.repository(name)["pushed_at"] = json!(now);
        }
    }

    /// An issue, or a pull request, with so many comments. How many there are then names it here; GitHub
    /// numbers those of each repository from 1.
    pub fn add_issue(&mut self, repository: &str, pull_request: bool, comments: usize) -> u64 {
        let (id, now) = (self.id(), self.now());
        let of = self.repository(repository)["id"].clone();
        let all = self.issues.len() as u64 + 1;
        let others = self.issues.iter().filter(|issue| issue["repository"] == of);
        let number = others.count() + 1;
        let mut issue = json!({
            "id": id, "number": number, "repository": of, "title": format!("Issue {number} version 1"),
            "body": "What is this?", "user": {"login": "grace", "id": 8}, "state": "open",
            "labels": [{"name": "question"}], "assignees": [], "comments": 0,
            "html_url": format!("https://github.com/x/{number}"),
            "created_at": now, "updated_at": now,
        });
        if pull_request {
            issue["pull_request"] = json!({"merged_at": null});
        }
        self.issues.push(issue);
        for _ in 0..comments {
            self.comment(all, false);
        }
        all
    }

    fn issue(&mut self, number: u64) -> &mut Value {
        &mut self.issues[number as usize - 1]
    }

    fn url_of(&self, repository: &Value) -> String {
        let mut all = self.repositories.iter();
        let found = all.find(|other| other["id"] == *repository).unwrap();
        format!(
            "{}/repos/{}",
            self.base,
            found["full_name"].as_str().unwrap()
        )
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

    /// An issue changes, and shows it as if that had been before the newest change.
    pub fn edit_issue_as_if_before(&mut self, number: u64) {
        self.seconds -= 2;
        self.edit_issue(number);
        self.seconds += 1;
    }

    /// The item then lacks what every item has.
    pub fn break_issue(&mut self, number: u64) {
        self.issue(number)["id"] = Value::Null;
    }

    pub fn break_star(&mut self) {
        self.stars[0]["repo"]["id"] = Value::Null;
    }

    pub fn label_issue(&mut self, number: u64, label: &str) {
        self.issue(number)["labels"] = json!([{"name": label}]);
        let now = self.time();
        self.issue(number)["updated_at"] = json!(now);
    }

    /// A comment, on the code of a pull request if so.
    pub fn comment(&mut self, number: u64, on_code: bool) -> u64 {
        let (id, now) = (self.id(), self.now());
        let login = self.login.clone();
        let issue = self.issue(number);
        issue["updated_at"] = json!(now);
        let (repository, number) = (issue["repository"].clone(), issue["number"].clone());
        if !on_code {
            issue["comments"] = json!(issue["comments"].as_u64().unwrap() + 1);
        }
        let mut comment = json!({"id": id, "body": format!("Comment {id}"),
            "user": {"login": login, "id": USER_ID}, "created_at": now, "updated_at": now,
            "html_url": format!("https://github.com/x/{number}#{id}")});
        let url = self.url_of(&repository);
        let kind = if on_code {
            comment["pull_request_url"] = json!(format!("{url}/pulls/{number}"));
            comment["path"] = json!("src/main.rs");
            "pulls"
        } else {
            comment["issue_url"] = json!(format!("{url}/issues/{number}"));
            "issues"
        };
        let list = (
            repository.as_u64().unwrap(),
            format!("{kind}/{number}/comments"),
        );
        self.comments.entry(list).or_default().push(comment);
        id
    }

    /// A review of a pull request, which may say nothing.
    pub fn review(&mut self, number: u64, words: &str) {
        let (id, now) = (self.id(), self.now());
        let issue = self.issue(number);
        issue["updated_at"] = json!(now);
        let (repository, number) = (issue["repository"].clone(), issue["number"].clone());
        let url = self.url_of(&repository);
        let review = json!({"id": id, "body": words, "state": "APPROVED", "submitted_at": now,
            "user": {"login": self.login, "id": USER_ID},
            "pull_request_url": format!("{url}/pulls/{number}")});
        let list = (
            repository.as_u64().unwrap(),
            format!("pulls/{number}/reviews"),
        );
        self.comments.entry(list).or_default().push(review);
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
            "public": false, "owner": {"login": "ada", "id": USER_ID}, "created_at": now,
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
        let seen = |id: &Value| !self.hidden.contains(&id.as_u64().unwrap());
        for repository in &self.repositories {
            if self.is_hidden(repository) {
                continue;
            }
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
        for issue in self
            .issues
            .iter()
            .filter(|issue| seen(&issue["repository"]))
        {
            ledger.insert(format!("issue:{}", issue["id"]), text(&issue["title"]));
        }
        let comments = self.comments.iter();
        let comments = comments.filter(|((repository, _), _)| !self.hidden.contains(repository));
        for comment in comments.flat_map(|(_, comments)| comments) {
            let prefix = match (comment["path"].is_string(), comment["state"].is_string()) {
                (true, _) => "review_comment",
                (false, true) => "review",
                (false, false) => "comment",
            };
            if prefix == "review" && comment["body"] == "" {
                continue;
            }
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
        let repository = |segments: &[&str]| {
            let mut all = self.repositories.iter();
            let found = all.find(|repository| match segments {
                ["repositories", id] => id.parse::<u64>().is_ok_and(|id| repository["id"] == id),
                ["repos", owner, name] => repository["full_name"] == format!("{owner}/{name}"),
                _ => false,
            });
            found.filter(|repository| !self.is_hidden(repository))
        };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments[..] {
            ["user"] => Some(self.user()),
            ["user", "repos"] => {
                let all = self.repositories.iter();
                let all = all.filter(|repository| !self.is_hidden(repository));
                let mut list: Vec<&Value> = all.collect();
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
            ["issues"] => Some(json!(self.issues_of(None, query))),
            ["repos", _, _, ref rest @ ..] | ["repositories", _, ref rest @ ..] => {
                let of = repository(&segments[..segments.len() - rest.len()])?;
                let id = of["id"].as_u64().unwrap();
                match rest {
                    ["commits"] => {
                        let name = of["name"].as_str().unwrap();
                        // Somebody whom GitHub does not know has made no commit.
                        let by = query.get("author").is_none_or(|login| *login == self.login);
                        let list = self.commits.get(name).filter(|_| by);
                        let since = query.get("since").map(String::as_str).unwrap_or_default();
                        let later = |commit: &&Value| {
                            commit["commit"]["committer"]["date"].as_str().unwrap() >= since
                        };
                        Some(json!(
                            list.into_iter().flatten().filter(later).collect::<Vec<_>>()
                        ))
                    }
                    ["issues"] => Some(json!(self.issues_of(Some(&of["id"]), query))),
                    ["issues" | "pulls", number, "comments" | "reviews"] => {
                        let number: u64 = number.parse().ok()?;
                        let mut all = self.issues.iter();
                        all.find(|issue| issue["repository"] == id && issue["number"] == number)?;
                        let list = self.comments.get(&(id, rest.join("/")));
                        Some(json!(since(list.map_or(&[], Vec::as_slice), "updated_at")))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The issues of one repository, or of all that can be seen.
    fn issues_of(&self, repository: Option<&Value>, query: &HashMap<String, String>) -> Vec<Value> {
        let says = |name: &str, value: &str| query.get(name).is_some_and(|text| text == value);
        let since = query.get("since").map(String::as_str).unwrap_or_default();
        let all = self.issues.iter().filter(|issue| match repository {
            Some(repository) => issue["repository"] == *repository,
            None => !self.hidden.contains(&issue["repository"].as_u64().unwrap()),
        });
        let later = all.filter(|issue| issue["updated_at"].as_str().unwrap() >= since);
        let mut list: Vec<Value> = later.cloned().collect();
        for issue in &mut list {
            issue["repository_url"] = json!(self.url_of(&issue["repository"]));
        }
        // Without these the newest come first, and only those that are open.
        match says("state", "all") && says("direction", "asc") {
            false => list.reverse(),
            true if says("sort", "updated") => {
                list.sort_by_key(|issue| issue["updated_at"].to_string());
            }
            true => {}
        }
        list
    }
}
