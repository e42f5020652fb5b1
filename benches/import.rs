//! From a file to the DNA event: how fast an import is, at what cost, in how much memory.
//!
//! `cargo bench --bench import` has the built program, as it is shipped, import generated mailboxes from
//! a pipe, in a process of its own, and prints a table. `--messages N` sets the size of the largest. CPU
//! time and peak memory are the operating system's accounting of that process; the mail is made by this
//! one on the same machine.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::{
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nucleus::{
    app::{App, Setup},
    config::Config,
    db::{entity, integration, integration::Integration},
    demo::generate,
    domain::{EntityId, IntegrationId, SystemClock},
};
use serde_json::{Value, json};

/// Messages of the first measurements, and of the largest unless it is said.
const MESSAGES: [u64; 2] = [1_000, 10_000];
const LARGEST: u64 = 100_000;
/// Sizes of a message, in bytes.
const SIZES: [usize; 2] = [8 * 1024, 35 * 1024];
/// Between two looks at a process's accounting.
const LOOK: Duration = Duration::from_millis(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments
        .iter()
        .position(|argument| argument == "--messages");
    let largest = given.map_or(LARGEST, |at| arguments[at + 1].parse().unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!("| messages | KB each | messages/s | MB/s | CPU s per 1,000 | peak MB |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for messages in MESSAGES.into_iter().chain([largest]) {
        measure(messages, SIZES[0]);
    }
    measure(MESSAGES[1], SIZES[1]);
    again(MESSAGES[1], SIZES[0]);
}

/// A data folder with an integration.
struct Folder {
    folder: tempfile::TempDir,
    integration: IntegrationId,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let integration = runtime.unwrap().block_on(set_up(folder.path()));
        Self {
            folder,
            integration,
        }
    }

    /// Imports from a pipe; gives the run, the seconds, CPU seconds and peak megabytes.
    fn import(&self, messages: u64, size: usize) -> (Value, f64, f64, f64) {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nucleus"))
            .args(["import", "mbox", "-", "--json", "--integration"])
            .arg(self.integration.to_string())
            .env("NUCLEUS_DATA_DIR", self.folder.path())
            .env("NUCLEUS_TELEMETRY__FILTER", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || write_export(input, messages, size));
        let pid = child.id();
        let (mut cpu, mut peak) = (0.0, 0.0);
        while child.try_wait().unwrap().is_none() {
            if let Some(now) = cpu_seconds(pid) {
                cpu = now;
            }
            if let Some(now) = peak_megabytes(pid) {
                peak = now;
            }
            std::thread::sleep(LOOK);
        }
        let elapsed = started.elapsed().as_secs_f64();
        writing.join().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        (summary, elapsed, cpu, peak)
    }
}

async fn set_up(folder: &Path) -> IntegrationId {
    let (config, _) = Config::load(None, Vec::new(), Some(folder.to_owned())).unwrap();
    let app = App::build(&config, Arc::new(SystemClock), Setup::Create)
        .await
        .unwrap();
    let now = app.now();
    let entity = entity::Entity {
        id: EntityId::new(),
        name: "Benchmark".to_owned(),
        created_at: now,
    };
    let row = Integration {
        id: IntegrationId::new(),
        entity_id: entity.id,
        service_name: "gmail".to_owned(),
        service_type: None,
        display_name: None,
        description: None,
        secret_path: None,
        credential_type: "oauth2".to_owned(),
        status: "active".to_owned(),
        account: None,
        account_name: None,
        account_verified: false,
        last_sync_at: None,
        last_sync_status: None,
        sync_error_message: None,
        sync_failures: 0,
        next_sync_at: None,
        token_expires_at: None,
        consent_expires_at: None,
        refresh_generation: 0,
        credentials_generation: 0,
        access_ended_at: None,
        next_check_at: None,
        scopes: json!([]),
        config: json!({}),
        sync_settings: json!({}),
        meta_data: json!({}),
        created_at: now,
        updated_at: now,
        created_by: None,
    };
    let db = &app.engine.db;
    let tx = db.begin().await.unwrap();
    entity::insert(&tx, &entity).await.unwrap();
    integration::insert(&tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    db.clone().close().await.unwrap();
    row.id
}

/// Writes mail in the layout of Google Takeout.
fn write_export(to: impl Write, messages: u64, size: usize) {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    for index in 0..messages {
        let id = index + 1;
        write!(
            to,
            "From {id}@xxx Thu Oct 01 12:00:00 +0000 2026\r\nX-GM-THRID: {id}\r\nX-Gmail-Labels: Inbox,Opened,Mine\r\n"
        )
        .unwrap();
        to.write_all(&generate::bench_message(index, size)).unwrap();
        to.write_all(b"\r\n\r\n").unwrap();
    }
    to.flush().unwrap();
}

fn measure(messages: u64, size: usize) {
    let (summary, elapsed, cpu, peak) = Folder::new().import(messages, size);
    assert_eq!(summary["run"]["counts"]["stored"], messages);
    row(messages, size, &summary, elapsed, cpu, peak);
}

fn row(messages: u64, size: usize, summary: &Value, elapsed: f64, cpu: f64, peak: f64) {
    println!(
        "| {messages} | {} | {:.0} | {:.1} | {:.2} | {peak:.0} |",
        size / 1024,
        messages as f64 / elapsed,
        summary["bytes"].as_f64().unwrap() / 1e6 / elapsed,
        cpu / (messages as f64 / 1000.0),
    );
}

/// The same file once more: every message is there already.
fn again(messages: u64, size: usize) {
    let folder = Folder::new();
    folder.import(messages, size);
    let (summary, elapsed, cpu, peak) = folder.import(messages, size);
    assert_eq!(summary["run"]["counts"]["unchanged"], messages);
    println!();
    println!("The same file of {messages} messages once more, which finds them all there:");
    println!();
    println!("| messages | KB each | messages/s | MB/s | CPU s per 1,000 | peak MB |");
    println!("|---:|---:|---:|---:|---:|---:|");
    row(messages, size, &summary, elapsed, cpu, peak);
}

/// CPU seconds a process has used, by the kernel's accounting; a tick is 10 ms.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// The most memory a process has had, in megabytes of 1,000,000 bytes.
fn peak_megabytes(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}
