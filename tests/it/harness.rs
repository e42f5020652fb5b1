//! The program in a test: built as it is built in production, with a stand-in for Google, a clock
//! that jumps instead of waiting, and a real HTTP server.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::TimeDelta;
use nucleus::{
    api::{self, Deadlines},
    app::{App, Queue, Setup},
    config::Config,
    demo::{Mailbox, Method, Options, StandIn},
    domain::Clock,
    sync,
    worker::{self, relay, scheduler},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::test_clock::TestClock;
use crate::{
    backends,
    broker::{Kept, Parts},
    contract, schemas,
};

/// The operator's key of every test.
pub const OPERATOR_KEY: &str = "operator-key-of-the-tests-0123456789";

/// How the program and its surroundings are made.
pub struct Setting {
    pub mailbox: Mailbox,
    pub options: Options,
    pub variables: HashMap<String, String>,
    pub left_out: Vec<&'static str>,
    pub deadlines: Deadlines,
    queue: Option<Queue>,
    is_embedded: bool,
}

impl Setting {
    pub fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox,
            options: Options::default(),
            variables: HashMap::new(),
            left_out: Vec::new(),
            deadlines: Deadlines::default(),
            queue: None,
            is_embedded: false,
        }
    }

    /// Keeps database and queue embedded whatever the tester has chosen, because the test is about them.
    pub fn embedded(mut self) -> Self {
        self.is_embedded = true;
        self
    }

    /// Gives the program this queue, whatever is configured.
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = Some(queue);
        self.embedded()
    }

    /// Leaves a variable out that is set otherwise.
    pub fn without(mut self, name: &'static str) -> Self {
        self.left_out.push(name);
        self
    }

    /// Keeps credentials in the vault whatever the tester has chosen, because the test is about it.
    pub fn in_vault(mut self) -> Self {
        self.left_out.extend(backends::SECRETS);
        self
    }

    /// Keeps credentials in this Secret Manager.
    pub fn in_secret_manager(mut self, url: &str) -> Self {
        let own = backends::secret_manager(url).into_iter();
        self.variables
            .extend(own.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Lets the server wait otherwise.
    pub fn deadlines(mut self, change: impl FnOnce(&mut Deadlines)) -> Self {
        change(&mut self.deadlines);
        self
    }

    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub async fn start(self) -> TestApp {
        TestApp::start(self).await
    }
}

/// The program, running.
pub struct TestApp {
    pub app: Arc<App>,
    pub google: StandIn,
    pub clock: Arc<TestClock>,
    pub folder: TempDir,
    pub url: String,
    pub shutdown: CancellationToken,
    variables: HashMap<String, String>,
    deadlines: Deadlines,
    queue: Option<Queue>,
    _parts: Option<Parts>,
    pub http: reqwest::Client,
}

impl TestApp {
    async fn start(setting: Setting) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = TestClock::new();
        let shared: Arc<dyn Clock> = clock.clone();
        let options = setting.options.clone();
        let google = StandIn::start(setting.mailbox, setting.options, Arc::clone(&shared))
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut variables = variables_for(&google, &options);
        let parts = match setting.is_embedded {
            true => None,
            false => Parts::of_this_run().await,
        };
        for (name, value) in parts.iter().flat_map(Parts::variables) {
            variables.insert(name.to_owned(), value);
        }
        variables.extend(setting.variables);
        for name in setting.left_out {
            variables.remove(name);
        }
        let queue = match &parts {
            None => setting.queue,
            Some(parts) => {
                let kept = Kept::new(&parts.project).await;
                Some(Queue::Broker(Arc::new(kept)))
            }
        };
        let app = build(&variables, &folder, shared, queue.clone()).await;
        let served = Served::start(app, setting.deadlines).await;
        Self {
            queue,
            _parts: parts,
            app: served.app,
            google,
            clock,
            folder,
            url: served.url,
            shutdown: served.shutdown,
            variables,
            deadlines: setting.deadlines,
            http: client(),
        }
    }

    /// Starts the program anew on the same folder, as after a kill: what was held is freed.
    pub async fn restart(&mut self) {
        self.shutdown.cancel();
        let clock = self.clock.clone();
        let app = build(&self.variables, &self.folder, clock, self.queue.clone()).await;
        let served = Served::start(app, self.deadlines).await;
        sync::free_abandoned(&served.app.engine, true)
            .await
            .unwrap();
        self.app = served.app;
        self.url = served.url;
        self.shutdown = served.shutdown;
        self.http = client();
    }

    /// Another process on the same folder and database, whose clock is so far ahead of this one's.
    pub async fn beside(&self, ahead: TimeDelta) -> (Arc<App>, Arc<TestClock>) {
        let clock = TestClock::at(self.clock.now() + ahead);
        let queue = self.queue.clone();
        let app = build(&self.variables, &self.folder, clock.clone(), queue).await;
        (app, clock)
    }

    /// Works until the stand-in has answered so many calls of a method since its start, and drops
    /// everything there and then, as a kill does.
    pub async fn drain_until_served(&self, method: Method, count: usize) {
        tokio::select! {
            () = self.drain() => panic!("the run ended before {count} calls of {method:?}"),
            () = self.google.wait_for(method, count) => {}
        }
    }

    /// Where the database is, if it was said.
    pub fn database_url(&self) -> String {
        self.variables["NUCLEUS_DATABASE__URL"].clone()
    }

    /// The time on the machine, for what must not wait in truth.
    pub fn real_time(&self) -> std::time::Instant {
        std::time::Instant::now()
    }

    /// The live versions of secrets, as rows name them.
    pub async fn live_versions(&self) -> BTreeSet<String> {
        backends::live_versions(&self.variables, self.folder.path()).await
    }

    /// How many calls of a method the stand-in's log shows.
    pub fn calls(&self, method: Method) -> usize {
        let log = self.google.requests();
        log.iter()
            .filter(|request| request.method == method)
            .count()
    }

    /// Sends a request with the operator's key.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.send_as(Some(OPERATOR_KEY), method, path, body).await
    }

    /// Sends a request with a key, or without one.
    pub async fn send_as(
        &self,
        key: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let (status, body) = contract::read(method, path, response).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, Some(body)).await;
        assert!(
            (200..300).contains(&status),
            "POST {path}: {status} {answer}"
        );
        answer
    }

    /// Every item of a list.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        if path.starts_with("/events") {
            self.relay().await;
        }
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{joint}limit=500{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            if path.starts_with("/events") {
                items.iter().for_each(schemas::assert_event);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Publishes what is in the outbox, where there is a broker: an event is told once it is published.
    pub async fn relay(&self) {
        if let Queue::Broker(broker) = &self.app.queue {
            let never = CancellationToken::new();
            relay::pass(&self.app, broker.as_ref(), &never)
                .await
                .unwrap();
        }
    }

    pub async fn entity(&self) -> String {
        let entity = self.post("/entities", json!({"name": "Somebody"})).await;
        entity["id"].as_str().unwrap().to_owned()
    }

    /// Connects Gmail for a new entity; gives the integration's id.
    pub async fn connect(&self) -> String {
        let entity = self.entity().await;
        self.connect_for(&entity, json!({})).await
    }

    /// Connects Gmail for an entity with some sync settings.
    pub async fn connect_for(&self, entity: &str, sync_settings: Value) -> String {
        let refresh_token = self.google.refresh_token().unwrap();
        let body = json!({
            "entity_id": entity,
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": refresh_token},
            "sync_settings": sync_settings,
        });
        let integration = self.post("/integrations/", body).await;
        integration["id"].as_str().unwrap().to_owned()
    }

    /// Asks for a sync; gives the run's id.
    pub async fn request_sync(&self, integration: &str) -> String {
        let requested = self
            .post(&format!("/integrations/{integration}/sync"), json!({}))
            .await;
        // They are the same on both databases; the file is the one at hand.
        if !self.app.engine.db.is_postgres() {
            schemas::assert_sync_requests(self).await;
        }
        requested["run_id"].as_str().unwrap().to_owned()
    }

    /// Carries out whatever is queued, as far in the future as it may be.
    pub async fn drain(&self) {
        for _ in 0..200 {
            worker::drain(&self.app, &CancellationToken::new())
                .await
                .unwrap();
            if nucleus::db::sync_run::count_active(&self.app.engine.db)
                .await
                .unwrap()
                == 0
            {
                return;
            }
            self.clock.advance(TimeDelta::minutes(11));
        }
        panic!("runs are still queued or running");
    }

    /// Asks for a sync, carries it out and gives the run.
    pub async fn sync(&self, integration: &str) -> Value {
        let run = self.request_sync(integration).await;
        self.drain().await;
        let run = self.get(&format!("/runs/{run}")).await;
        assert_adds_up(&run);
        run
    }

    /// Syncs until a run is a success; gives the runs.
    pub async fn sync_until_success(&self, integration: &str, most: usize) -> Vec<Value> {
        let mut runs = Vec::new();
        for _ in 0..most {
            let run = self.sync(integration).await;
            let done = run["status"] == "success";
            runs.push(run);
            if done {
                return runs;
            }
        }
        panic!("no success in {most} runs: {runs:#?}");
    }

    /// One pass of the scheduler.
    pub async fn tick(&self) -> scheduler::Report {
        scheduler::tick(&self.app).await.unwrap()
    }

    pub async fn integration(&self, id: &str) -> Value {
        self.get(&format!("/integrations/{id}")).await
    }

    pub async fn records(&self, integration: &str) -> Vec<Value> {
        self.all(&format!("/integrations/{integration}/records"))
            .await
    }

    /// What the stand-in holds outside spam and trash: id → (hash, labels).
    pub fn ledger(&self) -> BTreeMap<String, (String, Vec<String>)> {
        self.google
            .with_mailbox(|mailbox| mailbox.ledger())
            .into_iter()
            .filter(|entry| {
                !entry
                    .labels
                    .iter()
                    .any(|label| label == "SPAM" || label == "TRASH")
            })
            .map(|entry| (entry.id, (entry.sha256, entry.labels)))
            .collect()
    }

    /// Fails unless the records are the ledger: every message once, with its hash and its labels,
    /// and an event for each, whose last word agrees.
    pub async fn assert_matches_ledger(&self, integration: &str) {
        let everything: HashMap<String, (String, Vec<String>)> = self
            .google
            .with_mailbox(|mailbox| mailbox.ledger())
            .into_iter()
            .map(|entry| (entry.id, (entry.sha256, entry.labels)))
            .collect();
        let mut stored = BTreeMap::new();
        for record in self.records(integration).await {
            let id = record["external_id"].as_str().unwrap().to_owned();
            let meta_data = &record["meta_data"];
            let sha256 = meta_data["sha256"].as_str().unwrap().to_owned();
            let mut labels: Vec<String> =
                serde_json::from_value(meta_data["labels"].clone()).unwrap();
            labels.sort_unstable();
            let known = everything.get(&id);
            assert_eq!(
                known,
                Some(&(sha256.clone(), labels.clone())),
                "message {id}"
            );
            let before = stored.insert(id.clone(), record["id"].as_str().unwrap().to_owned());
            assert!(before.is_none(), "message {id} is stored twice");
        }
        for id in self.ledger().keys() {
            assert!(stored.contains_key(id), "message {id} is missing");
        }
        let told = self.told(integration).await;
        for (id, row) in &stored {
            let last = told
                .get(row)
                .unwrap_or_else(|| panic!("no event tells of {id}"));
            assert_ne!(last, "deleted", "message {id}");
        }
        for (row, last) in &told {
            let live = stored.values().any(|stored| stored == row);
            assert_eq!(live, last != "deleted", "record {row}: {last}");
        }
    }

    /// The rows of a statement that gives one text in each, whichever database it is.
    pub async fn rows(&self, on_sqlite: &str, on_postgres: &str) -> Vec<String> {
        let url = self.variables.get("NUCLEUS_DATABASE__URL");
        match url.filter(|url| url.starts_with("postgres")) {
            Some(url) => {
                let mut database = PgConnection::connect(url).await.unwrap();
                let rows = sqlx::query_scalar(AssertSqlSafe(on_postgres))
                    .fetch_all(&mut database)
                    .await;
                database.close().await.unwrap();
                rows.unwrap()
            }
            None => {
                let file = self.folder.path().join("nucleus.db");
                let url = format!("sqlite:{}", file.display());
                let mut database = SqliteConnection::connect(&url).await.unwrap();
                let rows = sqlx::query_scalar(AssertSqlSafe(on_sqlite))
                    .fetch_all(&mut database)
                    .await;
                database.close().await.unwrap();
                rows.unwrap()
            }
        }
    }

    /// Whether every message was published and every sync request carried out.
    pub async fn outbox_is_empty(&self) -> bool {
        let (db, now) = (&self.app.engine.db, self.app.now());
        let overview = nucleus::db::overview::overview(db, now).await.unwrap();
        let mut topics = overview.topics.iter();
        topics.all(|(_, topic)| topic.due + topic.delayed + topic.leased == 0)
    }

    /// What events last said of each record of an integration.
    pub async fn told(&self, integration: &str) -> HashMap<String, String> {
        let mut told = HashMap::new();
        for event in self.all("/events").await {
            if event["subject"] != integration {
                continue;
            }
            for record in event["data"]["records"].as_array().unwrap() {
                told.insert(
                    record["id"].as_str().unwrap().to_owned(),
                    record["change"].as_str().unwrap().to_owned(),
                );
            }
        }
        told
    }
}

/// The program's server, and what ends it.
struct Served {
    app: Arc<App>,
    url: String,
    shutdown: CancellationToken,
}

impl Served {
    async fn start(app: Arc<App>, deadlines: Deadlines) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = api::serve(Arc::clone(&app), listener, deadlines, shutdown.clone());
        app.tasks.spawn(server);
        Self { app, url, shutdown }
    }
}

async fn build(
    variables: &HashMap<String, String>,
    folder: &TempDir,
    clock: Arc<dyn Clock>,
    queue: Option<Queue>,
) -> Arc<App> {
    let environment = variables.iter().map(|(k, v)| (k.into(), v.into()));
    let folder = folder.path().to_path_buf();
    let (config, _) = Config::load(None, environment, Some(folder)).unwrap();
    let app = match queue {
        None => App::build(&config, clock, Setup::Create).await,
        Some(queue) => App::build_on(&config, clock, Setup::Create, queue).await,
    };
    app.unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::new()
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What points the program to a stand-in.
pub fn variables_for(google: &StandIn, options: &Options) -> HashMap<String, String> {
    let mut variables = backends::secrets();
    variables.extend(backends::no_rate_limits());
    variables.extend([
        ("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("NUCLEUS_HTTP__OPERATOR_KEY", OPERATOR_KEY.to_owned()),
        (
            "NUCLEUS_SERVICES__GMAIL__API_URL",
            google.base_url().to_owned(),
        ),
        (
            "NUCLEUS_SERVICES__GMAIL__AUTHORIZE_URL",
            google.authorize_url(),
        ),
        ("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", google.token_url()),
        ("NUCLEUS_SERVICES__GMAIL__REVOKE_URL", google.revoke_url()),
        (
            "NUCLEUS_SERVICES__GMAIL__CLIENT_ID",
            options.client_id.clone(),
        ),
        (
            "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET",
            options.client_secret.clone(),
        ),
    ]);
    let mut variables: HashMap<String, String> = variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    backends::point_at_nobody(&mut variables);
    variables
}

/// Fails unless the counts of a run add up.
pub fn assert_adds_up(run: &Value) {
    let counts = &run["counts"];
    let number = |name: &str| counts[name].as_i64().unwrap();
    let skipped: i64 = counts["skipped"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_i64().unwrap())
        .sum();
    let sum = ["stored", "updated", "unchanged", "deleted", "failed"]
        .into_iter()
        .map(number)
        .sum::<i64>()
        + skipped;
    assert_eq!(number("listed"), sum, "{counts}");
}
