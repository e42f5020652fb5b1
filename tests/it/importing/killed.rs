//! What SIGKILL and an abort at each named crash point may cost an import: nothing.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use nucleus::demo::{Method, generate};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::export;
use crate::{
    child::{Child, PATIENCE, Server, World, happens, moment},
    harness::assert_adds_up,
    kills::{assert_dies, assert_in_step, seed},
};

const KILLS: u64 = 5;
/// Messages of a run of all tests; `NUCLEUS_IMPORT_MESSAGES` has it do more.
const MESSAGES: u64 = 3_000;
/// Bytes of a message: 100,000 have a gigabyte.
const SIZE: usize = 10 * 1024;
/// More than a debug build needs for code, connections and two batches; a file of a gigabyte would go
/// beyond it were it kept.
const MEMORY_KIB: u64 = 160 * 1024;

/// Has an import die at a crash point, the `skip + 1`th time it comes there.
pub async fn abort_while_importing(point: &str, skip: usize) {
    let world = World::embedded(generate::bench_mailbox(350, 600)).await;
    let server = world.listen("up").await;
    let id = server.api.connect(&world).await;
    server.stop().await;
    let export = world
        .google
        .with_mailbox(|mailbox| export::takeout(mailbox));
    let path = world.folder.path().join("takeout.mbox");
    std::fs::write(&path, export).unwrap();
    let path = path.display().to_string();
    let arguments = ["import", "mbox", &path, "--integration", &id];
    let mut command = world.command(&arguments);
    command.env(
        "FAILPOINTS",
        match skip {
            0 => format!("{point}=panic"),
            _ => format!("{point}={skip}*off->panic"),
        },
    );
    assert_dies(&mut Child::spawn(command), point).await;
    assert_in_step(&world).await;
    end_lease(&world).await;
    world.run(&arguments).await.ok();
    assert_in_step(&world).await;
    let server = world.listen("up").await;
    for run in server.api.all(&format!("/integrations/{id}/runs")).await {
        assert_adds_up(&run);
    }
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success", "{point}");
    assert_eq!(world.google.served(Method::MessagesGet), 0, "{point}");
    world.assert_matches_ledger(&server.api, &id).await;
    server.stop().await;
}

/// The 30 seconds after which nothing was heard of a process that is dead.
async fn end_lease(world: &World) {
    let mut database = world.database().await;
    sqlx::query("UPDATE sync_runs SET lease_until = 1 WHERE status = 'running'")
        .execute(&mut database)
        .await
        .unwrap();
}

/// Writes an export of so many messages, made as they are written, until nobody reads it any more.
fn write_export(mut to: impl Write, messages: u64) {
    for index in 0..messages {
        let head = format!(
            "From {}@xxx Thu Oct 01 12:00:00 +0000 2026\r\nX-GM-THRID: {}\r\nX-Gmail-Labels: Inbox,Opened\r\n",
            index + 1,
            index + 1
        );
        let message = generate::bench_message(index, SIZE);
        let whole = [head.as_bytes(), &message, b"\r\n\r\n"].concat();
        if to.write_all(&whole).is_err() {
            return;
        }
    }
}

async fn number(world: &World, sql: &'static str) -> i64 {
    let mut database = world.database().await;
    sqlx::query_scalar(sql)
        .fetch_one(&mut database)
        .await
        .unwrap()
}

/// Starts an import of the export through a pipe.
fn start(world: &World, server: &Server, id: &str, messages: u64) -> Child {
    assert!(!server.api.url.is_empty());
    let command = world.command(&["import", "mbox", "-", "--integration", id]);
    let (child, input) = Child::spawn_with_input(command);
    std::thread::spawn(move || write_export(input, messages));
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_import_that_is_killed_five_times_brings_every_message_once() {
    let messages =
        std::env::var("NUCLEUS_IMPORT_MESSAGES").map_or(MESSAGES, |text| text.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::embedded(generate::mailbox(1, 1)).await;
    let server = world.listen("up").await;
    let id = server.api.connect(&world).await;
    let started = Instant::now();
    let mut peaks = Vec::new();
    for kill in 0..KILLS {
        let stored = "SELECT count(*) FROM raw_data";
        let before = number(&world, stored).await;
        let mut child = start(&world, &server, &id, messages);
        // Somewhere in the part that comes next, but not before it has brought something, and in whatever it
        // is doing then. The last part is for the import that ends.
        let part = messages / (KILLS + 2);
        let drawn = (kill * part + random.random_range(0..part.max(1))) as i64;
        let until = drawn.max(before + 1);
        let patience = PATIENCE * 20;
        let reached = happens(patience, async || number(&world, stored).await >= until);
        assert!(reached.await, "{}", child.stderr());
        moment(Duration::from_millis(random.random_range(0..100))).await;
        peaks.push(child.peak_memory_kib());
        child.kill().await;
        assert_in_step(&world).await;
        end_lease(&world).await;
    }
    let mut child = start(&world, &server, &id, messages);
    let mut peak = 0;
    let ended = happens(PATIENCE * 20, async || {
        peak = child.try_peak_memory_kib().unwrap_or(peak).max(peak);
        child.has_ended()
    });
    assert!(ended.await, "{}", child.stderr());
    peaks.push(peak);
    let status = child.exit(PATIENCE).await;
    child.finished(status).ok();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{messages} messages of {SIZE} bytes, {KILLS} kills, {seconds:.0} s; peak memory in KiB at each kill and at the end: {peaks:?}"
    );

    assert_in_step(&world).await;
    let all = "SELECT count(*) FROM raw_data";
    let distinct = "SELECT count(DISTINCT external_id) FROM raw_data";
    let told = "SELECT count(DISTINCT json_extract(record.value, '$.id'))
                FROM outbox, json_each(outbox.data, '$.records') AS record
                WHERE topic = 'nucleus-dna-analysis'";
    for sql in [all, distinct, told] {
        assert_eq!(number(&world, sql).await, messages as i64, "{sql}");
    }
    let waiting = "SELECT count(*) FROM sync_cursors WHERE stream LIKE 'import:%'";
    assert_eq!(number(&world, waiting).await, 0, "the file is done");
    let runs: Vec<Value> = server.api.all(&format!("/integrations/{id}/runs")).await;
    assert_eq!(runs.len() as u64, KILLS + 1);
    let mut read = 0;
    for run in &runs {
        assert_adds_up(run);
        read += run["counts"]["fetched"].as_u64().unwrap();
    }
    assert_eq!(
        read, messages,
        "what was imported was not read again to be stored"
    );
    for peak in peaks {
        assert!(peak < MEMORY_KIB, "{peak} KiB");
    }
    server.stop().await;
}
