//! How the program grows: more workers, more integrations, on PostgreSQL.
//!
//! `cargo bench --bench scale -- --postgres postgres://USER:PASSWORD@HOST/postgres` makes databases of its
//! own on that server and removes them. It starts the built program as separate processes, as production
//! does, against the stand-in with 50 ms latency, and prints tables. The quota of each user is the
//! program's own governor's.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]
#![expect(clippy::print_stdout, reason = "the tables are the result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nucleus::{
    demo::{Options, StandIn, generate},
    domain::SystemClock,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use url::Url;

const OPERATOR_KEY: &str = "operator-key-of-the-benchmark-012345";
/// base64 of 32 bytes.
const VAULT_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// What one user may spend: 50 messages a second, as a tenth of what Gmail's own table allowed once.
const QUOTA: &str = "get=20,threads_get=40,list=5,history=2,profile=1,user_minute=60000";
const LATENCY: Duration = Duration::from_millis(50);
const SIZE: u32 = 8 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(messages) = given("stand-in") {
        return runtime.block_on(stand_in(messages.parse().unwrap()));
    }
    let Some(postgres) = given("--postgres") else {
        println!("skipped: --postgres URL names the server to measure on");
        return;
    };
    let number =
        |name: &str, default: u64| given(name).map_or(default, |text| text.parse().unwrap());
    let users = number("--users", 200);
    let messages = number("--messages", 50);
    let idle = number("--idle", 100_000);
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(async {
        workers(&postgres, users, messages).await;
        println!();
        ticks(&postgres, idle).await;
    });
}

/// The stand-in's process: prints its address and ends with its parent.
async fn stand_in(messages: u64) {
    let options = Options {
        log_requests: false,
        latency: LATENCY,
        ..Options::default()
    };
    let mailbox = generate::bench_mailbox(messages, SIZE);
    let google = StandIn::start(mailbox, options, Arc::new(SystemClock))
        .await
        .unwrap();
    println!("{}", google.base_url());
    for _ in std::io::stdin().lines() {}
}

/// A child process that goes with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database, a folder, a stand-in, and the variables that lead from one to the other.
struct World {
    server: String,
    name: String,
    url: String,
    folder: TempDir,
    google: String,
    _stand_in: Process,
}

impl World {
    async fn new(server: &str, name: &str, messages: u64) -> Self {
        let mut stand_in = Command::new(std::env::current_exe().unwrap())
            .args(["stand-in", &messages.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(stand_in.stdout.take().unwrap()).lines();
        let google = lines.next().unwrap().unwrap();
        let name = format!("nucleus_scale_{name}_{}", std::process::id());
        let mut url = Url::parse(server).unwrap();
        url.set_path(&name);
        let world = Self {
            server: server.to_owned(),
            name,
            url: url.into(),
            folder: tempfile::tempdir().unwrap(),
            google,
            _stand_in: Process(stand_in),
        };
        world
            .on_server(&format!("CREATE DATABASE {}", world.name))
            .await;
        let migrated = world.command("migrate").stdout(Stdio::null()).status();
        assert!(migrated.unwrap().success());
        world
    }

    async fn on_server(&self, sql: &str) {
        let mut conn = PgConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut conn)
            .await
            .unwrap();
    }

    async fn sql(&self, sql: &str) {
        let mut conn = PgConnection::connect(&self.url).await.unwrap();
        let sql = format!("SET search_path = dna; {sql}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut conn)
            .await
            .unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let mut conn = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut conn)
            .await
            .unwrap()
    }

    fn command(&self, role: &str) -> Command {
        let options = Options::default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nucleus"));
        command
            .arg(role)
            .env("NUCLEUS_DATA_DIR", self.folder.path())
            .env("NUCLEUS_DATABASE__URL", &self.url)
            .env("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0")
            .env("NUCLEUS_HTTP__OPERATOR_KEY", OPERATOR_KEY)
            .env("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY)
            .env("NUCLEUS_TELEMETRY__FILTER", "error")
            .env("NUCLEUS_SERVICES__GMAIL__API_URL", &self.google)
            .env(
                "NUCLEUS_SERVICES__GMAIL__TOKEN_URL",
                format!("{}/token", self.google),
            )
            .env("NUCLEUS_SERVICES__GMAIL__CLIENT_ID", &options.client_id)
            .env(
                "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET",
                &options.client_secret,
            )
            .env("NUCLEUS_SERVICES__GMAIL__QUOTA", QUOTA);
        command
    }

    async fn remove(self) {
        self.on_server(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }
}

/// The API of a `serve`.
struct Api {
    _process: Process,
    url: String,
    http: reqwest::Client,
}

impl Api {
    fn start(world: &World) -> Self {
        let mut child = world
            .command("serve")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("nucleus listens on ").map(str::to_owned));
        Self {
            _process: Process(child),
            url: url.unwrap(),
            http: reqwest::Client::new(),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let response = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(OPERATOR_KEY)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn connect(&self) -> String {
        let entity = self.post("/entities", json!({"name": "Benchmark"})).await;
        let body = json!({
            "entity_id": entity["id"],
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": Options::default().refresh_token},
        });
        let integration = self.post("/integrations/", body).await;
        integration["id"].as_str().unwrap().to_owned()
    }
}

/// First syncs and syncs that find nothing, of all users at once, by 1, 2 and 4 workers.
async fn workers(server: &str, users: u64, messages: u64) {
    println!(
        "{users} users with {messages} messages of 8 KB each; every answer takes 50 ms; a user's quota is \
         60,000 units a minute; a worker holds 4 runs"
    );
    println!();
    println!(
        "| workers | messages/s, first sync | workers' CPU s per 1,000 messages | syncs/s that find nothing | \
         workers' CPU ms a sync | peak MB of a worker | KB in the database per message |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for count in [1, 2, 4] {
        let world = World::new(server, &format!("w{count}"), messages).await;
        let empty = world
            .number("SELECT pg_database_size(current_database())")
            .await;
        let api = Api::start(&world);
        let mut integrations = Vec::new();
        for _ in 0..users {
            integrations.push(api.connect().await);
        }
        let start = |_| Process(world.command("work").spawn().unwrap());
        let workers: Vec<Process> = (0..count).map(start).collect();
        let first = sync_all(&world, &api, &integrations, &workers).await;
        let stored = world.number("SELECT count(*) FROM dna.raw_data").await;
        assert_eq!(stored, (users * messages) as i64);
        let second = sync_all(&world, &api, &integrations, &workers).await;
        let peak = workers.iter().map(|worker| peak_megabytes(worker.0.id()));
        let bytes = world
            .number("SELECT pg_database_size(current_database())")
            .await;
        println!(
            "| {count} | {:.0} | {:.2} | {:.0} | {:.1} | {:.0} | {:.1} |",
            stored as f64 / first.elapsed.as_secs_f64(),
            first.cpu_seconds / (stored as f64 / 1000.0),
            users as f64 / second.elapsed.as_secs_f64(),
            second.cpu_seconds * 1000.0 / users as f64,
            peak.fold(0.0, f64::max),
            (bytes - empty) as f64 / 1000.0 / stored as f64,
        );
        drop(workers);
        drop(api);
        world.remove().await;
    }
}

/// What a piece of work took.
struct Cost {
    elapsed: Duration,
    cpu_seconds: f64,
}

/// Asks for a sync of every integration, and waits until all have ended well.
async fn sync_all(world: &World, api: &Api, integrations: &[String], workers: &[Process]) -> Cost {
    let cpu = || -> f64 {
        workers
            .iter()
            .map(|worker| cpu_seconds(worker.0.id()))
            .sum()
    };
    let (started, cpu_before) = (Instant::now(), cpu());
    for integration in integrations {
        api.post(&format!("/integrations/{integration}/sync"), json!({}))
            .await;
    }
    let active = "SELECT count(*) FROM dna.sync_runs WHERE status IN ('queued', 'running')";
    while world.number(active).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failed = "SELECT count(*) FROM dna.sync_runs WHERE status <> 'success'";
    assert_eq!(world.number(failed).await, 0, "runs that did not succeed");
    Cost {
        elapsed: started.elapsed(),
        cpu_seconds: cpu() - cpu_before,
    }
}

/// Passes of the scheduler over a tenth of `most` integrations and over all of them: with nothing due,
/// and with all due at once.
async fn ticks(server: &str, most: u64) {
    println!("| integrations | due | s a pass | CPU s of the program | peak MB | rows/s |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for count in [most / 10, most] {
        let world = World::new(server, &format!("t{count}"), 0).await;
        world
            .sql(&format!(
                "INSERT INTO entity (id, name)
                    SELECT gen_random_uuid(), 'e' FROM generate_series(1, {count});
                 INSERT INTO entity_integrations (id, entity_id, service_name, credential_type, status,
                        next_sync_at, scopes, config, sync_settings, meta_data, created_at, updated_at)
                    SELECT gen_random_uuid(), id, 'gmail', 'oauth2', 'active',
                        now() + interval '1 hour' + random() * interval '1 hour',
                        '[]', '{{}}', '{{}}', '{{}}', now(), now()
                    FROM entity;
                 ANALYZE"
            ))
            .await;
        for due in [0, count] {
            if due > 0 {
                world
                    .sql(
                        "UPDATE entity_integrations SET next_sync_at = now() - interval '1 second'",
                    )
                    .await;
            }
            let started = Instant::now();
            let child = world.command("tick").stdout(Stdio::null()).spawn().unwrap();
            let mut process = Process(child);
            let (mut cpu, mut peak) = (0.0, 0.0);
            while process.0.try_wait().unwrap().is_none() {
                cpu = f64::max(cpu, cpu_seconds(process.0.id()));
                peak = f64::max(peak, peak_megabytes(process.0.id()));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let elapsed = started.elapsed().as_secs_f64();
            let queued = world.number("SELECT count(*) FROM dna.sync_runs").await;
            assert_eq!(queued, due as i64);
            println!(
                "| {count} | {due} | {elapsed:.2} | {cpu:.2} | {peak:.0} | {:.0} |",
                due as f64 / elapsed
            );
        }
        world.remove().await;
    }
}

/// CPU seconds a process has used, by the kernel's accounting; a tick is 10 ms. None for one that is gone.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0.0;
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// The most memory a process has had, in megabytes of 1,000,000 bytes.
fn peak_megabytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    kibibytes.map_or(0.0, |text| text.parse::<f64>().unwrap() * 1024.0 / 1e6)
}
