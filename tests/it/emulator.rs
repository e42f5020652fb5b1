//! Against Google, GitHub and Slack as others play them: npm's `emulate`, as `tests/it/third_party` installs and mends it,
//! with a browser at its sign-in page. What nucleus stores and tells is held against what the emulator
//! says of itself over its own API.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    process::Command,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::sys::signal::Signal;
use nucleus::demo::{Mailbox, generate, mailbox};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    browser::Browser,
    child::{Api, Child, PATIENCE, Server, World, happens},
    doubles::mail,
    port::Port,
};

mod github;
mod others;

const CLIENT_ID: &str = "nucleus.apps.example.com";
const CLIENT_SECRET: &str = "secret-of-the-emulated-client";
/// Whom the emulator takes an unknown token for; nobody connects this account.
const FIRST: &str = "first@example.com";
/// Whose account is connected.
const OWNER: &str = "owner@example.com";
/// A token of the owner's with which the test looks and changes.
const TESTER: &str = "token-of-the-tester";
/// More than a page of Gmail's lists.
const MESSAGES: usize = 620;

/// The running emulator.
struct Emulator {
    http: reqwest::Client,
    url: String,
    _child: Child,
    _port: Port,
}

impl Emulator {
    /// Starts one of `service` that begins with `seed`.
    async fn start(folder: &Path, service: &str, seed: &Value) -> Self {
        let file = folder.join(format!("seed-{service}.json"));
        std::fs::write(&file, seed.to_string()).unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let program = target.join("third_party/node_modules/emulate/dist/index.js");
        assert!(program.exists(), "scripts/test installs {program:?}");
        let port = Port::reserve();
        let mut command = Command::new("node");
        command
            .arg(program)
            .args(["start", "--service", service, "--port"])
            .arg(port.number().to_string())
            .arg("--seed")
            .arg(file);
        let mut child = Child::spawn(command);
        child.says("emulate").await;
        let this = Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: format!("http://127.0.0.1:{}", port.number()),
            _child: child,
            _port: port,
        };
        let answers = happens(PATIENCE, async || {
            this.http.get(&this.url).send().await.is_ok()
        });
        assert!(answers.await, "the emulator does not answer");
        this
    }

    /// A call of the emulator's Gmail as its owner.
    async fn gmail(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let path = format!("/gmail/v1/users/me/{path}");
        self.call(method, &path, body).await
    }

    /// The status of what a call as the tester is answered.
    async fn status(&self, path: &str) -> u16 {
        let request = self.http.get(format!("{}{path}", self.url));
        let response = request.bearer_auth(TESTER).send().await.unwrap();
        response.status().as_u16()
    }

    /// A call as the tester that does well.
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.bearer_auth(TESTER).send().await.unwrap();
        assert!(response.status().is_success(), "{method} {path}");
        let bytes = response.bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    async fn insert(&self, raw: &[u8], labels: &[&str]) -> String {
        let raw = URL_SAFE_NO_PAD.encode(raw);
        let body = json!({"raw": raw, "labelIds": labels});
        let inserted = self.gmail("POST", "messages", Some(body)).await;
        inserted["id"].as_str().unwrap().to_owned()
    }

    async fn relabel(&self, id: &str, add: &[&str], remove: &[&str]) {
        let body = json!({"addLabelIds": add, "removeLabelIds": remove});
        let path = format!("messages/{id}/modify");
        self.gmail("POST", &path, Some(body)).await;
    }

    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("messages?maxResults=100&includeSpamTrash=true{next}");
            let page = self.gmail("GET", &path, None).await;
            for message in page["messages"].as_array().unwrap() {
                ids.push(message["id"].as_str().unwrap().to_owned());
            }
            match page["nextPageToken"].as_str() {
                Some(token) => next = format!("&pageToken={token}"),
                None => return ids,
            }
        }
    }

    /// What there is, spam and trash included.
    async fn messages(&self) -> BTreeMap<String, Mail> {
        let mut messages = BTreeMap::new();
        for id in self.ids().await {
            let path = format!("messages/{id}?format=raw");
            let message = self.gmail("GET", &path, None).await;
            let raw = message["raw"].as_str().unwrap().trim_end_matches('=');
            let raw = URL_SAFE_NO_PAD.decode(raw).unwrap();
            let mail = Mail {
                thread: message["threadId"].as_str().unwrap().to_owned(),
                labels: sorted(&message["labelIds"]),
                sha256: format!("{:x}", Sha256::digest(&raw)),
            };
            messages.insert(id, mail);
        }
        messages
    }
}

/// A message as both sides know it.
#[derive(Debug, PartialEq, Eq)]
struct Mail {
    thread: String,
    labels: Vec<String>,
    sha256: String,
}

impl Mail {
    fn is_hidden(&self) -> bool {
        self.labels
            .iter()
            .any(|label| label == "SPAM" || label == "TRASH")
    }
}

fn sorted(labels: &Value) -> Vec<String> {
    let mut labels: Vec<String> = serde_json::from_value(labels.clone()).unwrap();
    labels.sort_unstable();
    labels
}

/// What the emulator begins with.
fn seed(mailbox: &Mailbox, redirect_uri: &str) -> Value {
    let mut messages = vec![json!({
        "user_email": FIRST, "from": FIRST, "to": FIRST, "subject": "Not the owner's", "body_text": "No.",
    })];
    for entry in mailbox.ledger() {
        let id = mailbox::parse_hex(&entry.id).unwrap();
        let message = mailbox.message(id).unwrap();
        messages.push(json!({
            "user_email": OWNER,
            "thread_id": entry.thread_id,
            "raw": URL_SAFE_NO_PAD.encode(message.raw.bytes()),
            "label_ids": entry.labels,
            "internal_date": message.internal_date_ms.to_string(),
        }));
    }
    // One that the emulator writes itself.
    messages.push(json!({
        "user_email": OWNER, "from": "Ada <ada@example.com>", "to": OWNER, "subject": "Größe",
        "body_text": "Plain and short.", "body_html": "<p>Plain and <b>short</b>.</p>",
    }));
    json!({
        "tokens": {TESTER: {"login": OWNER, "scopes": []}},
        "google": {
            "users": [{"email": FIRST, "name": "First"}, {"email": OWNER, "name": "Owner"}],
            "oauth_clients": [{
                "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "name": "nucleus",
                "redirect_uris": [redirect_uri],
            }],
            "messages": messages,
        },
    })
}

/// nucleus as it is built, with the emulator as its Google.
struct Setting {
    emulator: Emulator,
    world: World,
    server: Server,
    browser: Browser,
    _port: Port,
}

impl Setting {
    async fn start() -> Self {
        let mut world = World::new(Mailbox::new("nobody@example.com", 1)).await;
        let port = Port::reserve();
        let listen = format!("127.0.0.1:{}", port.number());
        let redirect_uri = format!("http://{listen}/integrations/gmail/oauth/callback");
        let mailbox = generate::mailbox(MESSAGES, 11);
        let seed = seed(&mailbox, &redirect_uri);
        let emulator = Emulator::start(world.folder.path(), "google", &seed).await;
        world.set("NUCLEUS_HTTP__LISTEN", listen);
        let gmail = [
            ("API_URL", emulator.url.clone()),
            (
                "AUTHORIZE_URL",
                format!("{}/o/oauth2/v2/auth", emulator.url),
            ),
            ("TOKEN_URL", format!("{}/oauth2/token", emulator.url)),
            ("REVOKE_URL", format!("{}/oauth2/revoke", emulator.url)),
            ("CLIENT_ID", CLIENT_ID.to_owned()),
            ("CLIENT_SECRET", CLIENT_SECRET.to_owned()),
        ];
        for (name, value) in gmail {
            world.set(&format!("NUCLEUS_SERVICES__GMAIL__{name}"), value);
        }
        Self {
            server: world.listen("up").await,
            emulator,
            world,
            browser: Browser::start().await,
            _port: port,
        }
    }

    fn api(&self) -> &Api {
        &self.server.api
    }

    /// What the owner does: opens the address that the program was given, chooses the account at the
    /// emulator, and confirms at nucleus. Gives the integration.
    async fn connect(&self, entity: &str) -> Value {
        let body = json!({"entity_id": entity});
        let begun = self.api().post("/integrations/gmail/oauth/start", body);
        let begun = begun.await;
        let browser = &self.browser;
        browser
            .open(begun["authorization_url"].as_str().unwrap())
            .await;
        assert!(browser.url().await.as_str().starts_with(&self.emulator.url));
        browser
            .follow("button", &format!("O {OWNER} Owner {OWNER}"))
            .await;
        assert!(browser.url().await.as_str().starts_with(&self.api().url));
        let question = browser.text().await;
        for part in ["Connect this account?", OWNER, "Somebody"] {
            assert!(question.contains(part), "{part}: {question}");
        }
        browser.follow("button", "Connect").await;
        let told = browser.text().await;
        assert!(told.contains("Gmail is connected"), "{told}");
        let [integration] = &self.api().all("/integrations").await[..] else {
            panic!("not one integration");
        };
        assert_eq!(integration["account"], OWNER);
        assert_eq!(integration["status"], "active");
        integration.clone()
    }

    /// Syncs; gives the run's counts.
    async fn sync(&self, integration: &str) -> Value {
        let run = self.api().sync(integration).await;
        let run = self.api().ended(&run).await;
        assert_eq!(run["status"], "success", "{run}");
        run["counts"].clone()
    }

    /// Fails unless the records are the emulator's messages and what events last said of them agrees.
    /// What is in spam or trash is among them if it was so `before`. Gives what is stored now.
    async fn assert_same(&self, integration: &str, before: &BTreeSet<String>) -> BTreeSet<String> {
        let mut expected = self.emulator.messages().await;
        expected.retain(|id, mail| !mail.is_hidden() || before.contains(id));
        let (mut stored, mut rows) = (BTreeMap::new(), HashMap::new());
        let path = format!("/integrations/{integration}/records");
        for record in self.api().all(&path).await {
            let meta_data = &record["meta_data"];
            let id = record["external_id"].as_str().unwrap().to_owned();
            let mail = Mail {
                thread: meta_data["thread_id"].as_str().unwrap().to_owned(),
                labels: sorted(&meta_data["labels"]),
                sha256: meta_data["sha256"].as_str().unwrap().to_owned(),
            };
            rows.insert(record["id"].as_str().unwrap().to_owned(), id.clone());
            assert!(stored.insert(id, mail).is_none(), "twice: {record}");
        }
        let ids: BTreeSet<&String> = stored.keys().chain(expected.keys()).collect();
        for id in ids {
            assert_eq!(stored.get(id), expected.get(id), "{id}");
        }
        // With a broker an event is told once it is published.
        let mut told = HashMap::new();
        let is_told = happens(PATIENCE, async || {
            told = self.told().await;
            told == rows
        });
        assert!(
            is_told.await,
            "live records by events: {told:?}, by rows: {rows:?}"
        );
        stored.into_keys().collect()
    }

    /// The records that are there by the last word of events: row → message.
    async fn told(&self) -> HashMap<String, String> {
        let mut told = HashMap::new();
        for event in self.api().all("/events").await {
            for record in event["data"]["records"].as_array().unwrap() {
                let row = record["id"].as_str().unwrap().to_owned();
                let id = record["external_id"].as_str().unwrap().to_owned();
                match record["change"].as_str().unwrap() {
                    "deleted" => told.remove(&row),
                    _ => told.insert(row, id),
                };
            }
        }
        told
    }

    /// Ends nucleus and starts it again: it has no access token any more.
    async fn restart(&mut self) {
        self.server.child.signal(Signal::SIGTERM);
        self.server.child.exit(PATIENCE).await;
        self.server = self.world.listen("up").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_connected_in_a_browser_and_its_mail_followed() {
    let mut setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let connected = setting.connect(&entity).await;
    let id = connected["id"].as_str().unwrap();
    let runs = setting.api().all(&format!("/integrations/{id}/runs")).await;
    let [first] = &runs[..] else {
        panic!("not one run: {runs:#?}");
    };
    assert_eq!(first["trigger"], "connected");
    let first = setting.api().ended(first["run_id"].as_str().unwrap()).await;
    assert_eq!(first["status"], "success", "{first}");
    let stored = setting.assert_same(id, &BTreeSet::new()).await;
    assert!(stored.len() > 500, "{} on one page", stored.len());
    assert_eq!(setting.sync(id).await["listed"], 0);

    // New mail, other labels, deletions, and a way into the trash.
    let emulator = &setting.emulator;
    let mut old = stored.iter();
    let mut next = || old.next().unwrap();
    let (starred, deleted, trashed) = (next(), next(), next());
    let new = emulator.insert(&mail(1), &["INBOX", "UNREAD"]).await;
    let gone = emulator.insert(&mail(2), &["INBOX"]).await;
    emulator.insert(&mail(3), &["SPAM"]).await;
    emulator.relabel(starred, &["STARRED"], &["INBOX"]).await;
    emulator.relabel(&new, &["IMPORTANT"], &["UNREAD"]).await;
    for id in [deleted, &gone] {
        let path = format!("messages/{id}");
        emulator.gmail("DELETE", &path, None).await;
    }
    let path = format!("messages/{trashed}/trash");
    emulator.gmail("POST", &path, None).await;
    let counts = setting.sync(id).await;
    let stored = setting.assert_same(id, &stored).await;
    assert!(
        stored.contains(&new) && stored.contains(trashed),
        "{counts}"
    );
    assert!(!stored.contains(deleted), "{counts}");

    // And out of it, while nucleus is away.
    setting.restart().await;
    let path = format!("messages/{trashed}/untrash");
    setting.emulator.gmail("POST", &path, None).await;
    setting.sync(id).await;
    let stored = setting.assert_same(id, &stored).await;

    // The same account once more is the same integration with a grant of its own.
    assert_eq!(setting.connect(&entity).await["id"], id);
    setting.emulator.insert(&mail(4), &["INBOX"]).await;
    setting.sync(id).await;
    setting.assert_same(id, &stored).await;
    let path = format!("/integrations/{id}?data=keep");
    let (status, removed) = setting.api().try_send("DELETE", &path, None).await.unwrap();
    assert_eq!(
        (status, &removed["revoked"]),
        (200, &json!(true)),
        "{removed}"
    );

    // All of this was said to the emulator.
    assert_eq!(setting.world.google.requests(), []);
}
