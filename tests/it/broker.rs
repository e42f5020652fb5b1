//! The Pub/Sub emulator that `scripts/test` starts: a project for each test, and readers of its
//! subscriptions that are not the program under test.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use nucleus::{
    domain::event::DNA_ENGINE,
    queue::{
        Broker, Delivery, Message, QueueError,
        pubsub::PubSub,
        resources::{Found, Resource},
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{backends, child::World, db::PostgresDatabase, schemas, takeover::VAULT_KEY};

/// Where the emulator is, as `host:port`.
const PUBSUB: &str = "NUCLEUS_TEST_PUBSUB";

/// `host:port` of the emulator.
#[expect(
    clippy::disallowed_methods,
    reason = "the emulator is named by who runs the tests"
)]
pub fn emulator() -> String {
    std::env::var(PUBSUB)
        .unwrap_or_else(|_| panic!("{PUBSUB} is not set: run scripts/test, which starts one"))
}

/// A database and a project for one program; both are its own, and the database is gone with this.
pub struct Parts {
    pub project: Project,
    pub database: PostgresDatabase,
}

impl Parts {
    pub async fn new() -> Self {
        Self {
            project: Project::ready().await,
            database: PostgresDatabase::create().await,
        }
    }

    /// Those of this run of the tests, where they are not the embedded ones.
    pub async fn of_this_run() -> Option<Self> {
        match backends::are_google() {
            true => Some(Self::new().await),
            false => None,
        }
    }

    /// What leads the program to them.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = Vec::from(self.project.variables());
        variables.push(("NUCLEUS_DATABASE__URL", self.database.url.clone()));
        variables
    }
}

/// A project of its own in the emulator, where nothing is at first.
pub struct Project {
    pub id: String,
    pub admin: PubSub,
}

impl Project {
    pub async fn empty() -> Self {
        let id = format!("nucleus-{}", &Uuid::now_v7().simple().to_string()[12..]);
        let endpoint = format!("http://{}", emulator());
        let admin = PubSub::new(&id, Some(&endpoint)).await.unwrap();
        Self { id, admin }
    }

    /// With every topic and subscription.
    pub async fn ready() -> Self {
        let project = Self::empty().await;
        for resource in Resource::all() {
            project.admin.create(resource).await.unwrap();
            if let Resource::Subscription(wanted) = resource {
                project.without_backoff(wanted.name).await;
            }
            assert_eq!(project.admin.look(resource).await.unwrap(), Found::Well);
        }
        project
    }

    /// Lets what is given back come again at once. The emulator hands messages for a while to readers
    /// that are gone, and each time the delay doubles.
    async fn without_backoff(&self, subscription: &str) {
        let name = format!("projects/{}/subscriptions/{subscription}", self.id);
        let body = json!({"subscription": {"name": name}, "updateMask": "retryPolicy"});
        let answer = reqwest::Client::new()
            .patch(format!("http://{}/v1/{name}", emulator()))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert!(
            status.is_success() && !said.contains("retryPolicy"),
            "{said}"
        );
    }

    /// Makes a subscription anew, as the body says.
    pub async fn put_subscription(&self, subscription: &str, body: Value) {
        let name = format!("projects/{}/subscriptions/{subscription}", self.id);
        let url = format!("http://{}/v1/{name}", emulator());
        let client = reqwest::Client::new();
        let made = client
            .put(&url)
            .header("content-type", "application/json")
            .body(body.to_string());
        for request in [client.delete(&url), made] {
            let answer = request.send().await.unwrap();
            let (status, said) = (answer.status(), answer.text().await.unwrap());
            assert!(status.is_success(), "{said}");
        }
    }

    /// What leads the program here.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("NUCLEUS_QUEUE__KIND", "pubsub".to_owned()),
            ("NUCLEUS_QUEUE__PROJECT_ID", self.id.clone()),
            ("PUBSUB_EMULATOR_HOST", emulator()),
        ]
    }

    /// Publishes something past the program.
    pub async fn publish(&self, topic: &str, attributes: &[(&str, &str)], data: &[u8]) {
        let attributes: serde_json::Map<String, Value> = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let message = json!({"attributes": attributes, "data": STANDARD.encode(data)});
        let url = format!(
            "http://{}/v1/projects/{}/topics/{topic}:publish",
            emulator(),
            self.id
        );
        let answer = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/json")
            .body(json!({"messages": [message]}).to_string())
            .send()
            .await
            .unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }
}

/// Pub/Sub for a program in this process, with each subscription opened once: tests take what is due
/// many times over, and the emulator goes on for seconds to hand messages to a reader that has left.
pub struct Kept {
    pubsub: PubSub,
    opened: Mutex<HashMap<&'static str, Shared>>,
    open: TaskTracker,
}

type Shared = Arc<tokio::sync::Mutex<mpsc::Receiver<Delivery>>>;

impl Kept {
    pub async fn new(project: &Project) -> Self {
        let endpoint = format!("http://{}", emulator());
        Self {
            pubsub: PubSub::new(&project.id, Some(&endpoint)).await.unwrap(),
            opened: Mutex::default(),
            open: TaskTracker::new(),
        }
    }
}

#[async_trait]
impl Broker for Kept {
    async fn publish(&self, message: Message) -> Result<(), QueueError> {
        self.pubsub.publish(message).await
    }

    fn subscribe(
        &self,
        subscription: &'static str,
        most: usize,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> mpsc::Receiver<Delivery> {
        let shared = Arc::clone(
            self.opened
                .lock()
                .unwrap()
                .entry(subscription)
                .or_insert_with(|| {
                    let never = CancellationToken::new();
                    let received = self.pubsub.subscribe(subscription, most, never, &self.open);
                    Arc::new(tokio::sync::Mutex::new(received))
                }),
        );
        let (sender, receiver) = mpsc::channel(1);
        tasks.spawn(async move {
            loop {
                let received = async { shared.lock().await.recv().await };
                let delivery = tokio::select! {
                    delivery = received => delivery,
                    () = sender.closed() => return,
                    () = shutdown.cancelled() => return,
                };
                let Some(delivery) = delivery else { return };
                if sender.send(delivery).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// Reads a subscription as its owner does, and acknowledges what it reads.
pub struct Reader {
    deliveries: mpsc::Receiver<Delivery>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Reader {
    pub fn new(project: &Project, subscription: &'static str) -> Self {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let deliveries = project
            .admin
            .subscribe(subscription, 1000, shutdown.clone(), &tasks);
        Self {
            deliveries,
            shutdown,
            tasks,
        }
    }

    /// The next message in time.
    pub async fn next_within(&mut self, time: Duration) -> Option<Delivery> {
        tokio::time::timeout(time, self.deliveries.recv())
            .await
            .ok()
            .flatten()
    }

    pub async fn close(self) {
        self.shutdown.cancel();
        drop(self.deliveries);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The DNA Engine, as its contract says: an event is one by its id, however often it comes.
pub struct DnaEngine {
    reader: Reader,
    /// By id: the event in structured form.
    pub events: HashMap<String, Value>,
    /// All that came.
    pub deliveries: usize,
}

impl DnaEngine {
    pub fn new(project: &Project) -> Self {
        Self {
            reader: Reader::new(project, DNA_ENGINE),
            events: HashMap::new(),
            deliveries: 0,
        }
    }

    /// Takes what comes until so many different events are there, by so many deliveries, or none has
    /// come for `patience`.
    pub async fn read(&mut self, events: usize, deliveries: usize, patience: Duration) {
        while self.events.len() < events || self.deliveries < deliveries {
            let Some(delivery) = self.reader.next_within(patience).await else {
                return;
            };
            self.take(delivery);
        }
    }

    fn take(&mut self, delivery: Delivery) {
        self.deliveries += 1;
        let event = structured(&delivery);
        schemas::assert_event(&event);
        let data = &event["data"];
        let attribute = |name: &str| json!(delivery.attribute(name).unwrap());
        assert_eq!(attribute("event_type"), "dna_analysis_requested");
        for name in ["entity_id", "integration_id"] {
            assert_eq!(attribute(name), data[name]);
        }
        let service = delivery.attribute("service_name").unwrap();
        assert_eq!(event["source"], format!("nucleus/{service}"));
        let id = event["id"].as_str().unwrap().to_owned();
        if let Some(before) = self.events.insert(id, event.clone()) {
            assert_eq!(before, event, "a repeat is the same event");
        }
        delivery.ack();
    }

    pub async fn close(self) {
        self.reader.close().await;
    }
}

/// A message in binary mode as the event that it is, in structured form.
pub fn structured(delivery: &Delivery) -> Value {
    let attribute = |name: &str| delivery.attribute(name).unwrap();
    json!({
        "specversion": attribute("ce-specversion"),
        "id": attribute("ce-id"),
        "source": attribute("ce-source"),
        "type": attribute("ce-type"),
        "subject": attribute("ce-subject"),
        "time": attribute("ce-time"),
        "datacontenttype": attribute("content-type"),
        "data": serde_json::from_slice::<Value>(&delivery.data).unwrap(),
    })
}

/// A world as in production: PostgreSQL, Pub/Sub, and processes of one role each.
pub struct Cloud {
    pub world: World,
    pub project: Arc<Project>,
    pub database: PostgresDatabase,
}

impl Cloud {
    pub async fn around(mut world: World) -> Self {
        let project = Project::ready().await;
        let database = PostgresDatabase::create().await;
        for (name, value) in project.variables() {
            world.set(name, value);
        }
        world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
        world.set("NUCLEUS_DATABASE__URL", &database.url);
        world.run(&["migrate"]).await.ok();
        Self {
            world,
            project: Arc::new(project),
            database,
        }
    }

    /// Lets every lease run out at once.
    pub async fn end_leases(&self) {
        let end = "WITH requests AS (UPDATE outbox SET lease_until = 1 WHERE state = 'leased'
                RETURNING 1), runs AS (UPDATE sync_runs SET lease_until = 1
                WHERE status = 'running' RETURNING 1) SELECT count(*) FROM requests";
        self.number(end).await;
    }

    /// One number out of the database.
    pub async fn number(&self, sql: &str) -> i64 {
        use sqlx::{AssertSqlSafe, Connection, PgConnection};
        let mut database = PgConnection::connect(&self.database.url).await.unwrap();
        sqlx::query("SET search_path TO dna")
            .execute(&mut database)
            .await
            .unwrap();
        let number = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut database)
            .await;
        database.close().await.unwrap();
        number.unwrap_or_else(|error| panic!("{error}: {sql}"))
    }
}
