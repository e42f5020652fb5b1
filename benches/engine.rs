//! From the list to the DNA event: how fast, at what cost, in how much memory.
//!
//! `cargo bench --bench engine` starts the built program as it is shipped, in a process of its own,
//! against the stand-in in another, and prints a table. CPU time and peak memory are the operating
//! system's accounting of the program's process; the stand-in's CPU time is shown beside it, because
//! both share the machine.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nucleus::{
    demo::{Options, StandIn, generate},
    domain::SystemClock,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const OPERATOR_KEY: &str = "operator-key-of-the-benchmark-012345";
/// Messages of the main measurement, and their size in bytes.
const MESSAGES: u64 = 10_000;
const SIZE: u32 = 8 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "stand-in") {
        let count = arguments[at + 1].parse().unwrap();
        return runtime().block_on(stand_in(count));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let largest = match arguments
        .iter()
        .position(|argument| argument == "--messages")
    {
        Some(at) => arguments[at + 1].parse().unwrap(),
        None => 100_000,
    };
    runtime().block_on(measure(largest));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The stand-in's process: a line for each answer, a line for each command.
async fn stand_in(count: u64) {
    let options = Options {
        log_requests: false,
        ..Options::default()
    };
    let mailbox = generate::bench_mailbox(count, SIZE);
    let google = StandIn::start(mailbox, options, Arc::new(SystemClock))
        .await
        .unwrap();
    println!("{}", google.base_url());
    for command in std::io::stdin().lines() {
        match command.unwrap().as_str() {
            "arrive" => google.with_mailbox(|mailbox| {
                for index in 0..10 {
                    let raw = generate::bench_message(count + index, SIZE as usize);
                    mailbox.deliver(raw, &["INBOX"]);
                }
            }),
            "requests" => {}
            other => panic!("unknown command {other}"),
        }
        println!("{}", requests(&google));
    }
    google.shutdown().await;
}

fn requests(google: &StandIn) -> usize {
    use nucleus::demo::Method;
    [
        Method::GetProfile,
        Method::MessagesList,
        Method::MessagesGet,
        Method::HistoryList,
    ]
    .into_iter()
    .map(|method| google.served(method))
    .sum()
}

/// The stand-in as the measuring process sees it.
struct Google {
    child: Child,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
    base_url: String,
}

impl Google {
    fn start(count: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["stand-in", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let base_url = answers.next().unwrap().unwrap();
        Self {
            child,
            answers,
            base_url,
        }
    }

    /// Gives a command; the answer is how many requests were served so far.
    fn tell(&mut self, command: &str) -> u64 {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        self.answers.next().unwrap().unwrap().parse().unwrap()
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// The program under test, as it is shipped.
struct Nucleus {
    child: Child,
    url: String,
    http: reqwest::Client,
    start_up: Duration,
    _folder: TempDir,
}

impl Nucleus {
    async fn start(google: &Google) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::default();
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nucleus"))
            .arg("up")
            .env("NUCLEUS_DATA_DIR", folder.path())
            .env("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0")
            .env("NUCLEUS_HTTP__OPERATOR_KEY", OPERATOR_KEY)
            .env("NUCLEUS_TELEMETRY__FILTER", "warn")
            .env("NUCLEUS_SERVICES__GMAIL__API_URL", &google.base_url)
            .env(
                "NUCLEUS_SERVICES__GMAIL__TOKEN_URL",
                format!("{}/token", google.base_url),
            )
            .env("NUCLEUS_SERVICES__GMAIL__CLIENT_ID", &options.client_id)
            .env(
                "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET",
                &options.client_secret,
            )
            .env("NUCLEUS_SERVICES__GMAIL__QUOTA", "off")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("nucleus listens on ").map(str::to_owned))
            .unwrap();
        let http = reqwest::Client::new();
        while http.get(format!("{url}/readyz")).send().await.is_err() {}
        Self {
            child,
            url,
            http,
            start_up: started.elapsed(),
            _folder: folder,
        }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let response = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(OPERATOR_KEY)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).unwrap()
    }

    async fn connect(&self) -> String {
        let entity = self
            .call("POST", "/entities", json!({"name": "Benchmark"}))
            .await;
        let body = json!({
            "entity_id": entity["id"],
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": Options::default().refresh_token},
        });
        let integration = self.call("POST", "/integrations/", body).await;
        integration["id"].as_str().unwrap().to_owned()
    }

    /// Syncs, and gives the run and how long it took from the request on.
    async fn sync(&self, integration: &str) -> (Value, Duration) {
        let started = Instant::now();
        let path = format!("/integrations/{integration}/sync");
        let requested = self.call("POST", &path, json!({})).await;
        let path = format!("/runs/{}", requested["run_id"].as_str().unwrap());
        loop {
            let run = self.call("GET", &path, json!({})).await;
            match run["status"].as_str().unwrap() {
                "queued" | "running" => tokio::time::sleep(Duration::from_millis(20)).await,
                "success" => return (run, started.elapsed()),
                other => panic!("the run ended as {other}: {}", run["error"]),
            }
        }
    }
}

impl Drop for Nucleus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds a process has used, by the kernel's accounting; a tick is 10 ms.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// The most memory a process has had, in megabytes of 1,000,000 bytes.
fn peak_megabytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kibibytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024.0 / 1e6
}

async fn measure(largest: u64) {
    println!(
        "| messages of 8 KB | messages/s | CPU s per 1,000 | stand-in's CPU s per 1,000 | peak MB |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for count in [1_000, MESSAGES, largest] {
        full_sync(count).await;
    }
    second_syncs().await;
}

async fn full_sync(count: u64) {
    let google = Google::start(count);
    let nucleus = Nucleus::start(&google).await;
    let integration = nucleus.connect().await;
    let (before, google_before) = (
        cpu_seconds(nucleus.child.id()),
        cpu_seconds(google.child.id()),
    );
    let (run, elapsed) = nucleus.sync(&integration).await;
    let cpu = cpu_seconds(nucleus.child.id()) - before;
    let google_cpu = cpu_seconds(google.child.id()) - google_before;
    assert_eq!(run["counts"]["stored"], count);
    let thousands = count as f64 / 1000.0;
    println!(
        "| {count} | {:.0} | {:.2} | {:.2} | {:.0} |",
        count as f64 / elapsed.as_secs_f64(),
        cpu / thousands,
        google_cpu / thousands,
        peak_megabytes(nucleus.child.id()),
    );
}

async fn second_syncs() {
    let mut google = Google::start(1_000);
    let nucleus = Nucleus::start(&google).await;
    let integration = nucleus.connect().await;
    let (first, _) = nucleus.sync(&integration).await;
    println!();
    println!("| sync | quota units | requests | ms |");
    println!("|---|---:|---:|---:|");
    let mut served = google.tell("requests");
    let units = first["quota_units"].as_u64().unwrap();
    println!("| first, 1,000 messages | {units} | {served} | |");
    for (name, command) in [
        ("second, nothing new", "requests"),
        ("second, 10 new", "arrive"),
    ] {
        google.tell(command);
        let (run, elapsed) = nucleus.sync(&integration).await;
        let now = google.tell("requests");
        let units = run["quota_units"].as_u64().unwrap();
        println!(
            "| {name} | {units} | {} | {} |",
            now - served,
            elapsed.as_millis()
        );
        served = now;
    }
    println!();
    println!(
        "Start-up, from the process's start to the first 200 of /readyz on a fresh folder: {} ms.",
        nucleus.start_up.as_millis()
    );
}
