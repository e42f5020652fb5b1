//! GitHub as the emulator plays it. It has no stars and no gists, and says so with 404; what it has is
//! held against what nucleus stores.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use nucleus::demo::Mailbox;
use serde_json::{Value, json};

use super::{Emulator, TESTER};
use crate::child::{Server, World};

const LOGIN: &str = "ada";
/// More than a page of GitHub's lists.
const ISSUES: usize = 110;

fn seed() -> Value {
    let repository = |owner: &str, name: &str, private: bool| {
        json!({"owner": owner, "name": name, "private": private, "description": format!("about {name}"),
            "language": "Rust", "topics": ["rust"]})
    };
    json!({
        "tokens": {TESTER: {"login": LOGIN, "scopes": ["repo", "user", "delete_repo"]}},
        "github": {
            "users": [
                {"login": LOGIN, "name": "Ada", "email": "ada@example.com", "bio": "Writes programs"},
                {"login": "grace", "name": "Grace", "email": "grace@example.com"},
            ],
            "repos": [
                repository(LOGIN, "engine", false),
                repository(LOGIN, "secret", true),
                repository("grace", "hidden", true),
            ],
        },
    })
}

/// nucleus as it is built, with the emulator as its GitHub.
struct Setting {
    emulator: Emulator,
    server: Server,
    integration: String,
    _world: World,
}

impl Setting {
    async fn start() -> Self {
        let mut world = World::new(Mailbox::new("nobody@example.com", 1)).await;
        let emulator = Emulator::start(world.folder.path(), "github", &seed()).await;
        for number in 1..=ISSUES {
            let repository = if number % 3 == 0 { "secret" } else { "engine" };
            let body = json!({"title": format!("Issue {number}"), "body": "What is this?"});
            let path = format!("/repos/{LOGIN}/{repository}/issues");
            emulator.call("POST", &path, Some(body)).await;
        }
        for number in [1, 1, 2] {
            let path = format!("/repos/{LOGIN}/engine/issues/{number}/comments");
            emulator
                .call("POST", &path, Some(json!({"body": "Because."})))
                .await;
        }
        world.set("NUCLEUS_SERVICES__GITHUB__API_URL", emulator.url.clone());
        let server = world.listen("up").await;
        let body = json!({
            "entity_id": server.api.entity().await,
            "service_name": "github",
            "credential_type": "bearer_token",
            "credentials": {"token": TESTER},
        });
        let integration = server.api.post("/integrations/", body).await;
        Self {
            emulator,
            integration: integration["id"].as_str().unwrap().to_owned(),
            server,
            _world: world,
        }
    }

    /// Syncs; gives the run.
    async fn sync(&self) -> Value {
        let run = self.server.api.sync(&self.integration).await;
        let run = self.server.api.ended(&run).await;
        assert_eq!(run["status"], "success", "{run}");
        run
    }

    /// Every item of a list of the emulator's.
    async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        for page in 1.. {
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}per_page=100&page={page}");
            let answer = self.emulator.call("GET", &path, None).await;
            let answer = answer.as_array().unwrap();
            items.extend(answer.iter().cloned());
            if answer.len() < 100 {
                break;
            }
        }
        items
    }

    /// What the emulator has, by the ids that records have, and what each says.
    async fn expected(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let user = self.emulator.call("GET", "/user", None).await;
        let mut expected = BTreeMap::new();
        expected.insert(format!("profile:{}", user["id"]), text(&user["bio"]));
        for repository in self.all("/user/repos").await {
            let (id, name) = (&repository["id"], repository["full_name"].as_str().unwrap());
            expected.insert(format!("repository:{id}"), text(&repository["description"]));
            for issue in self.all(&format!("/repos/{name}/issues?state=all")).await {
                expected.insert(format!("issue:{}", issue["id"]), text(&issue["title"]));
                if issue["comments"] == 0 {
                    continue;
                }
                let path = format!("/repos/{name}/issues/{}/comments", issue["number"]);
                for comment in self.all(&path).await {
                    expected.insert(format!("comment:{}", comment["id"]), text(&comment["body"]));
                }
            }
            for commit in self
                .all(&format!("/repos/{name}/commits?author={LOGIN}"))
                .await
            {
                let id = format!("commit:{id}:{}", commit["sha"].as_str().unwrap());
                expected.insert(id, text(&commit["commit"]["message"]));
            }
        }
        expected
    }

    async fn assert_same(&self) {
        let mut expected = self.expected().await;
        let path = format!("/integrations/{}/records", self.integration);
        for record in self.server.api.all(&path).await {
            let id = record["external_id"].as_str().unwrap();
            let says = expected
                .remove(id)
                .unwrap_or_else(|| panic!("{id} is stored twice or is not there"));
            let text = record["data_content"].as_str().unwrap();
            assert!(text.contains(&says), "{id} says {text:?}, not {says:?}");
        }
        assert!(expected.is_empty(), "lost: {expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_an_account_of_github_in_and_follows_it() {
    let setting = Setting::start().await;
    let run = setting.sync().await;
    setting.assert_same().await;
    assert!(
        run["counts"]["stored"].as_u64().unwrap() > ISSUES as u64 + 6,
        "{run}"
    );
    // Stars and gists.
    assert_eq!(
        run["counts"]["skipped"],
        json!({"not_accessible": 2}),
        "{run}"
    );
    let path = format!("/integrations/{}", setting.integration);
    assert_eq!(setting.server.api.get(&path).await["status"], "active");
    let emulator = &setting.emulator;
    let hidden = emulator.status("/repos/grace/hidden").await;
    assert_eq!(
        hidden, 403,
        "there is something that the account does not see"
    );

    let edited = json!({"title": "Issue 5, edited", "state": "closed"});
    let path = format!("/repos/{LOGIN}/engine/issues/1");
    emulator.call("PATCH", &path, Some(edited)).await;
    let path = format!("/repos/{LOGIN}/engine/issues/2/comments");
    emulator
        .call("POST", &path, Some(json!({"body": "And another thing."})))
        .await;
    let created = json!({"name": "second", "description": "about second", "auto_init": true});
    emulator.call("POST", "/user/repos", Some(created)).await;
    let file = json!({"message": "Add a file", "content": STANDARD.encode("text")});
    let path = format!("/repos/{LOGIN}/engine/contents/a.txt");
    emulator.call("PUT", &path, Some(file)).await;
    setting.sync().await;
    setting.assert_same().await;

    let path = format!("/repos/{LOGIN}/second");
    emulator.call("DELETE", &path, None).await;
    let deleted =
        [setting.sync().await, setting.sync().await].map(|run| run["counts"]["deleted"].clone());
    assert_eq!(deleted, [0, 1], "after a second listing");
}
