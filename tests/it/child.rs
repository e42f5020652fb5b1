//! The built binary as a child process in a folder of its own, with the stand-in for Google in the
//! test: starts, signals and kills it, keeps what it prints, and calls its API.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nucleus::{
    demo::{Consent, Mailbox, Options, StandIn},
    domain::SystemClock,
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub use crate::waiting::{PATIENCE, happens, in_time, moment};
use crate::{
    backends,
    broker::Parts,
    contract,
    harness::{OPERATOR_KEY, variables_for},
};

/// A folder, a stand-in and the variables that lead from one to the other.
pub struct World {
    pub google: StandIn,
    pub folder: TempDir,
    pub variables: HashMap<String, String>,
    _parts: Option<Parts>,
}

impl World {
    pub async fn new(mailbox: Mailbox) -> Self {
        Self::with(mailbox, |_| {}).await
    }

    /// On the parts that the tester has chosen.
    pub async fn with(mailbox: Mailbox, change: impl FnOnce(&mut Options)) -> Self {
        let mut world = Self::embedded_with(mailbox, change).await;
        world._parts = Parts::of_this_run().await;
        let parts = world._parts.iter().flat_map(Parts::variables);
        for (name, value) in parts.collect::<Vec<_>>() {
            world.set(name, value);
        }
        world
    }

    /// On embedded parts whatever the tester has chosen, because the test is about them.
    pub async fn embedded(mailbox: Mailbox) -> Self {
        Self::embedded_with(mailbox, |_| {}).await
    }

    /// As [`World::embedded`], with another stand-in.
    pub async fn embedded_with(mailbox: Mailbox, change: impl FnOnce(&mut Options)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = Options::default();
        change(&mut options);
        let google = StandIn::start(mailbox, options.clone(), Arc::new(SystemClock))
            .await
            .unwrap();
        let mut variables = variables_for(&google, &options);
        variables.insert(
            "NUCLEUS_SERVICES__GMAIL__QUOTA".to_owned(),
            "off".to_owned(),
        );
        Self {
            google,
            folder: tempfile::tempdir().unwrap(),
            variables,
            _parts: None,
        }
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Keeps credentials in the vault whatever the tester has chosen, because the test is about it.
    pub fn keep_in_vault(&mut self) {
        for name in backends::SECRETS {
            self.unset(name);
        }
    }

    /// Keeps credentials in this Secret Manager.
    pub fn keep_in_secret_manager(&mut self, url: &str) {
        for (name, value) in backends::secret_manager(url) {
            self.set(name, value);
        }
    }

    /// The live versions of secrets, as rows name them.
    pub async fn live_versions(&self) -> BTreeSet<String> {
        backends::live_versions(&self.variables, &self.data_dir()).await
    }

    /// The data folder, which is not there at first.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The command with these arguments, and nothing of the tester's own environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nucleus"));
        command
            .args(arguments)
            .env_clear()
            .env("NUCLEUS_DATA_DIR", self.data_dir())
            .envs(&self.variables)
            .current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut child = Child::spawn(self.command(arguments));
        let status = child.exit(PATIENCE).await;
        child.finished(status)
    }

    /// Starts a role that listens, and waits until it does.
    pub async fn listen(&self, role: &str) -> Server {
        Server::start(self.command(&[role])).await
    }

    /// The database, beside whoever has it open.
    pub async fn database(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.data_dir().join("nucleus.db"))
            .busy_timeout(Duration::from_secs(20))
            .connect()
            .await
            .unwrap()
    }

    /// Fails unless each message is stored once, as it is, with an event whose last word agrees.
    pub async fn assert_matches_ledger(&self, api: &Api, integration: &str) {
        let mut expected: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        for entry in self.google.with_mailbox(|mailbox| mailbox.ledger()) {
            let hidden = |label: &String| label == "SPAM" || label == "TRASH";
            if !entry.labels.iter().any(hidden) {
                expected.insert(entry.id, (entry.sha256, entry.labels));
            }
        }
        let mut stored = BTreeMap::new();
        let mut rows = HashSet::new();
        for record in api
            .all(&format!("/integrations/{integration}/records"))
            .await
        {
            let meta_data = &record["meta_data"];
            let mut labels: Vec<String> =
                serde_json::from_value(meta_data["labels"].clone()).unwrap();
            labels.sort_unstable();
            let id = record["external_id"].as_str().unwrap().to_owned();
            let sha256 = meta_data["sha256"].as_str().unwrap().to_owned();
            rows.insert(record["id"].as_str().unwrap().to_owned());
            let before = stored.insert(id.clone(), (sha256, labels));
            assert!(before.is_none(), "message {id} is stored twice");
        }
        assert_eq!(stored.len(), expected.len(), "stored and expected");
        assert!(stored == expected, "a message is stored as another");
        // With a broker an event is told once it is published.
        let mut told = HashSet::new();
        let all_told = happens(PATIENCE, async || {
            told = self.told(api, integration).await;
            told == rows
        });
        let is_told = all_told.await;
        assert!(
            is_told,
            "an event for each row and a row for each event: {told:?}, {rows:?}"
        );
    }

    /// The records that events tell of, and that are there by what they tell.
    async fn told(&self, api: &Api, integration: &str) -> HashSet<String> {
        let mut told = HashSet::new();
        for event in api.all("/events").await {
            if event["subject"] != integration {
                continue;
            }
            for record in event["data"]["records"].as_array().unwrap() {
                let id = record["id"].as_str().unwrap().to_owned();
                let as_it_was = match record["change"].as_str().unwrap() {
                    "created" => told.insert(id),
                    "deleted" => told.remove(&id),
                    _ => told.contains(&id),
                };
                assert!(as_it_was, "told twice or without a beginning: {record}");
            }
        }
        told
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Finished {
    /// Absent where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// What it printed, if it went well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Fails unless it failed with this code and said all of this on standard error.
    pub fn assert_fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "lacks {word:?}: {self:#?}");
        }
    }
}

/// A child process that is killed when it is dropped.
pub struct Child {
    process: std::process::Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Child {
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start(command)
    }

    /// With a standard input that ends when what is given is dropped.
    pub fn spawn_with_input(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut child = Self::start(command);
        let input = child.process.stdin.take().unwrap();
        (child, input)
    }

    fn start(mut command: Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            gather(process.stdout.take().unwrap(), &stdout),
            gather(process.stderr.take().unwrap(), &stderr),
        ];
        Self {
            process,
            stdout,
            stderr,
            readers,
        }
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most memory it has held so far, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        self.try_peak_memory_kib().unwrap()
    }

    /// As [`Self::peak_memory_kib`]; `None` once it has ended.
    pub fn try_peak_memory_kib(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = peak?.trim().trim_end_matches(" kB");
        number.parse().ok()
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        kill(id, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        let ended = happens(within, async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(ended, "still running after {within:?}: {}", self.stderr());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) {
        self.process.kill().unwrap();
        self.exit(PATIENCE).await;
    }

    pub fn finished(&self, status: ExitStatus) -> Finished {
        Finished {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Waits until what it prints holds `text`.
    pub async fn says(&mut self, text: &str) {
        let said = happens(PATIENCE, async || {
            let both = self.stdout() + &self.stderr();
            both.contains(text) || self.process.try_wait().unwrap().is_some()
        })
        .await;
        if self.has_ended() {
            // Which waits for the last of what it printed.
            self.exit(PATIENCE).await;
        }
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let found = stdout.contains(text) || stderr.contains(text);
        assert!(said && found, "never said {text:?}: {stdout}{stderr}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _ = self.process.wait();
    }
}

fn gather(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let mut text = into.lock().unwrap();
            text.push_str(&line.unwrap());
            text.push('\n');
        }
    })
}

/// A child that serves the API.
pub struct Server {
    pub child: Child,
    pub api: Api,
}

impl Server {
    pub async fn start(command: Command) -> Self {
        let mut child = Child::spawn(command);
        let before = "nucleus listens on ";
        child.says(before).await;
        let stdout = child.stdout();
        let line = stdout.lines().find(|line| line.starts_with(before));
        let url = line.unwrap().trim_start_matches(before).to_owned();
        Self {
            child,
            api: Api {
                http: reqwest::Client::new(),
                url,
                key: OPERATOR_KEY.to_owned(),
            },
        }
    }

    /// Ends it as a service manager does.
    pub async fn stop(mut self) -> Finished {
        self.child.signal(Signal::SIGTERM);
        let status = self.child.exit(PATIENCE).await;
        let finished = self.child.finished(status);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        finished
    }
}

/// A client of the API.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    pub url: String,
    pub key: String,
}

impl Api {
    /// The same address with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// An answer, or `None` where the process went away.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.url);
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .bearer_auth(&self.key);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let (status, body) = contract::read(method, path, response).await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// What is no JSON.
    pub async fn text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url);
        let answer = self.http.get(url).bearer_auth(&self.key).send().await;
        let answer = answer.unwrap().error_for_status().unwrap();
        answer.text().await.unwrap()
    }

    /// A POST with an `Idempotency-Key`: status, body, and whether the answer was kept. `None` where
    /// the process went away.
    pub async fn post_under(
        &self,
        key: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value, bool)> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(body.to_string());
        let response = request.send().await.ok()?;
        let replayed = response.headers().contains_key("idempotent-replayed");
        let (status, body) = contract::read("POST", path, response).await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap(), replayed))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_send("GET", path, None).await.unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_send("POST", path, Some(body)).await.unwrap();
        assert!(
            (200..300).contains(&status),
            "POST {path}: {status} {answer}"
        );
        answer
    }

    /// Every item of a list.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=1000{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    pub async fn entity(&self) -> String {
        let entity = self.post("/entities", json!({"name": "Somebody"})).await;
        entity["id"].as_str().unwrap().to_owned()
    }

    /// The body that connects the stand-in's account for an entity.
    pub fn connection(world: &World, entity: &str) -> Value {
        json!({
            "entity_id": entity,
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": world.google.refresh_token().unwrap()},
        })
    }

    /// Connects Gmail for a new entity; gives the integration's id.
    pub async fn connect(&self, world: &World) -> String {
        let entity = self.entity().await;
        let body = Self::connection(world, &entity);
        let integration = self.post("/integrations/", body).await;
        integration["id"].as_str().unwrap().to_owned()
    }

    /// Connects the account of the mailbox as a person does with a browser; gives what a stranger
    /// must not see of it. An error where the process dies in between.
    pub async fn connect_in_a_browser(
        &self,
        world: &World,
        entity: &str,
    ) -> Result<Vec<String>, reqwest::Error> {
        let path = "/integrations/gmail/oauth/start";
        let begun = self.post(path, json!({"entity_id": entity})).await;
        let url = begun["authorization_url"].as_str().unwrap();
        self.consent_and_confirm(world, url).await
    }

    /// What the person does who opens the authorization URL.
    pub async fn consent_and_confirm(
        &self,
        world: &World,
        authorization_url: &str,
    ) -> Result<Vec<String>, reqwest::Error> {
        let consent = Consent::default();
        let answer = world.google.authorize(authorization_url, &consent);
        let answer = answer.await.unwrap();
        let mut secrets: Vec<String> = answer
            .query_pairs()
            .filter(|(name, _)| name == "state" || name == "code")
            .map(|(_, value)| value.into_owned())
            .collect();
        let http = reqwest::Client::new();
        let opened = http.get(answer).send().await?;
        let cookie = opened.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        secrets.push(cookie.split_once('=').unwrap().1.to_owned());
        let page = opened.error_for_status()?.text().await?;
        let part = |before: &str| {
            let (_, rest) = page.split_once(before).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        let id = part("name=\"confirmation\" value=\"");
        http.post(part("action=\""))
            .header("cookie", cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("confirmation={id}&decision=connect"))
            .send()
            .await?
            .error_for_status()?;
        Ok(secrets)
    }

    /// Asks for a sync; gives the run's id.
    pub async fn sync(&self, integration: &str) -> String {
        let path = format!("/integrations/{integration}/sync");
        let requested = self.post(&path, json!({})).await;
        requested["run_id"].as_str().unwrap().to_owned()
    }

    /// Waits until a run has come to its end.
    pub async fn ended(&self, run: &str) -> Value {
        let path = format!("/runs/{run}");
        let mut last = Value::Null;
        let ended = happens(PATIENCE, async || {
            last = self.get(&path).await;
            last["status"] != "queued" && last["status"] != "running"
        })
        .await;
        assert!(ended, "the run does not end: {last}");
        last
    }
}
