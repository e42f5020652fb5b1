//! What one tenant's flood costs the others: how long a quiet one's requests take, alone and beside one
//! that asks as fast as it can, with the rate limits as they are by default.
//!
//! `cargo bench --bench flood` starts the built program on a throw-away folder and prints a table. The two
//! come from different addresses of the loopback network, so on other systems than Linux give the machine
//! 127.0.0.2 first.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const OPERATOR_KEY: &str = "operator-key-of-the-benchmark-012345";
/// The quiet tenant asks so often: three quarters of what a key may by default, 1,200 requests a minute.
const EVERY: Duration = Duration::from_millis(67);
/// Connections of the flood.
const FLOOD: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments
        .iter()
        .position(|argument| argument == "--seconds");
    let seconds = given.map_or(60, |at| arguments[at + 1].parse().unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(Duration::from_secs(seconds)));
}

struct Program {
    child: Child,
    url: String,
    folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nucleus"))
            .args(["up", "--data-dir"])
            .arg(folder.path())
            .env("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0")
            .env("NUCLEUS_HTTP__OPERATOR_KEY", OPERATOR_KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = "nucleus listens on ";
        let line = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(before).map(str::to_owned));
        Self {
            child,
            url: line.unwrap(),
            folder,
        }
    }

    /// The key of a new entity.
    async fn tenant(&self, http: &reqwest::Client) -> String {
        let made = http
            .post(format!("{}/entities", self.url))
            .bearer_auth(OPERATOR_KEY)
            .header("content-type", "application/json")
            .body(json!({"name": "Somebody"}).to_string())
            .send()
            .await
            .unwrap();
        let made: Value = made.json().await.unwrap();
        let entity = made["id"].as_str().unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_nucleus"))
            .args(["key", "create", "--entity", entity, "--data-dir"])
            .arg(self.folder.path())
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }
}

fn client(from: &str) -> reqwest::Client {
    let from: IpAddr = from.parse().unwrap();
    reqwest::Client::builder()
        .local_address(from)
        .build()
        .unwrap()
}

async fn measure(duration: Duration) {
    let program = Program::start();
    let (quiet, loud) = (client("127.0.0.1"), client("127.0.0.2"));
    let (quiet_key, loud_key) = (program.tenant(&quiet).await, program.tenant(&quiet).await);
    let url = format!("{}/integrations", program.url);
    println!("| a quiet tenant | requests | median, ms | p99, ms | longest, ms |");
    println!("|---|---|---|---|---|");
    let alone = ask(&quiet, &url, &quiet_key, duration).await;
    tell("alone", &alone);
    let end = CancellationToken::new();
    let floods: Vec<_> = (0..FLOOD)
        .map(|_| {
            let flooding = flood(loud.clone(), url.clone(), loud_key.clone(), end.clone());
            tokio::spawn(flooding)
        })
        .collect();
    let beside = ask(&quiet, &url, &quiet_key, duration).await;
    end.cancel();
    tell("beside a flood", &beside);
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for flooding in floods {
        for (answer, count) in flooding.await.unwrap() {
            *answers.entry(answer).or_default() += count;
        }
    }
    println!("\nThe flood's answers:");
    for (answer, count) in answers {
        println!("{count} x {answer}");
    }
}

/// How long each request takes, in order of length; none waits for another.
async fn ask(http: &reqwest::Client, url: &str, key: &str, duration: Duration) -> Vec<Duration> {
    let mut asking = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let due = ticks.tick().await;
        let request = http.get(url).bearer_auth(key);
        asking.spawn(async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            due.elapsed()
        });
    }
    let mut times = asking.join_all().await;
    times.sort_unstable();
    times
}

/// Asks again as soon as there is an answer; counts them.
async fn flood(
    http: reqwest::Client,
    url: String,
    key: String,
    end: CancellationToken,
) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    while !end.is_cancelled() {
        let answer = match http.get(&url).bearer_auth(&key).send().await {
            Ok(answer) => {
                let waits = answer.headers().contains_key("retry-after");
                let with = if waits { ", with Retry-After" } else { "" };
                let status = answer.status();
                let _ = answer.bytes().await;
                format!("{status}{with}")
            }
            Err(_) => "no answer".to_owned(),
        };
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

fn tell(what: &str, times: &[Duration]) {
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times[index.min(times.len() - 1)].as_secs_f64() * 1e3
    };
    println!(
        "| {what} | {} | {:.1} | {:.1} | {:.1} |",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
