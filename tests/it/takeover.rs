//! Workers that are stopped past their lease, and workers that are told to end.

use std::time::Duration;

use nix::sys::signal::Signal;
use nucleus::demo::{Fault, Match, Method, generate};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    broker::Cloud,
    child::{Api, Child, PATIENCE, World, happens, in_time},
    db::PostgresDatabase,
    harness::{OPERATOR_KEY, assert_adds_up},
    waiting::is_asked_for_the_body,
};

/// What is told to end is gone within this: Cloud Run and Docker kill after ten seconds.
pub const GONE: Duration = Duration::from_secs(8);
/// base64 of 32 bytes.
pub const VAULT_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const DATABASE_URL: &str = "NUCLEUS_DATABASE__URL";
/// What the run that is taken over has to fetch.
const MESSAGES: u64 = 400;
/// Fetches in flight at the same time, by default.
const IN_FLIGHT: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_past_its_lease_writes_nothing() {
    let world = World::embedded(generate::bench_mailbox(MESSAGES, 600)).await;
    stopped_past_its_lease(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_neither_does_one_that_was_stopped_in_the_middle_of_a_write() {
    let postgres = PostgresDatabase::create().await;
    let mut world = World::embedded(generate::bench_mailbox(MESSAGES, 600)).await;
    // The test's own statements want the schema as well; the program gives it to itself.
    let url = format!("{}?options[search_path]=dna", postgres.url);
    world.set(DATABASE_URL, url);
    stopped_past_its_lease(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_does_one_that_holds_the_message_of_a_broker() {
    let world = World::embedded(generate::bench_mailbox(MESSAGES, 600)).await;
    let mut cloud = Cloud::around(world).await;
    let url = format!("{}?options[search_path]=dna", cloud.database.url);
    cloud.world.set(DATABASE_URL, url);
    stopped_past_its_lease(cloud.world).await;
}

/// A run is taken over from a worker that stands still, which then comes back with what it had in hand.
async fn stopped_past_its_lease(mut world: World) {
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world.run(&["migrate"]).await.ok();
    let server = world.listen("serve").await;
    let integration = server.api.connect(&world).await;

    // The first worker comes to where a page is fetched, and waits there.
    world.google.hold(Method::MessagesGet);
    let mut stale = Child::spawn(world.command(&["work"]));
    let run = server.api.sync(&integration).await;
    let held = world.google.wait_for_held(Method::MessagesGet, IN_FLIGHT);
    in_time(PATIENCE, held).await;
    if world.variables.contains_key(DATABASE_URL) {
        // Wherever it is: the server takes back what stands still.
        stale.signal(Signal::SIGSTOP);
    } else {
        stop_between_writes(&world, &stale).await;
    }
    let fence_before = fence(&world).await;

    // Its leases run out.
    for statement in [
        "UPDATE sync_runs SET lease_until = 1 WHERE status = 'running'",
        "UPDATE outbox SET lease_until = 1 WHERE state = 'leased'",
    ] {
        assert_eq!(execute(&world, statement).await, 1, "{statement}");
    }
    let mut second = Child::spawn(world.command(&["work"]));
    in_time(
        PATIENCE,
        // Those of the stopped worker wait as well.
        world
            .google
            .wait_for_held(Method::MessagesGet, 2 * IN_FLIGHT),
    )
    .await;
    assert!(fence(&world).await > fence_before);
    world.google.release(Method::MessagesGet);

    // While the second one writes, the first one comes back with what it was waiting for.
    let path = format!("/runs/{run}");
    let wrote = happens(PATIENCE, async || {
        server.api.get(&path).await["counts"]["stored"] != 0
    });
    assert!(wrote.await, "{}", second.stderr());
    stale.signal(Signal::SIGCONT);
    stale.says("another worker took the run over").await;
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["counts"]["stored"], MESSAGES, "{ended}");
    assert_adds_up(&ended);
    world.assert_matches_ledger(&server.api, &integration).await;
    let lost: Value = stale
        .stderr()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| {
            line["message"]
                .as_str()
                .unwrap()
                .contains("took the run over")
        })
        .unwrap();
    assert_eq!(lost["sync_run.id"], run);
    assert_eq!(lost["integration.id"], integration);
    assert!(!stale.stderr().contains("the run is done"));
    second.says("the run is done").await;

    // It is no worse for it: both go on to take work, and end when they are told to.
    for worker in [&mut stale, &mut second] {
        worker.signal(Signal::SIGTERM);
        let status = worker.exit(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", worker.stderr());
    }
    server.stop().await;
}

/// Stops a worker where it does not hold the database's only write lock, which would stop everybody.
async fn stop_between_writes(world: &World, worker: &Child) {
    let mut database = world.database().await;
    sqlx::query("PRAGMA busy_timeout = 100")
        .execute(&mut database)
        .await
        .unwrap();
    let stopped = happens(PATIENCE, async || {
        worker.signal(Signal::SIGSTOP);
        let free = sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK")
            .execute(&mut database)
            .await
            .is_ok();
        if !free {
            worker.signal(Signal::SIGCONT);
        }
        free
    });
    assert!(stopped.await);
}

/// Runs a statement in the world's database, whichever it is; gives the number of rows it changed.
async fn execute(world: &World, sql: &'static str) -> u64 {
    if let Some(url) = world.variables.get(DATABASE_URL) {
        let mut database = PgConnection::connect(url).await.unwrap();
        let done = sqlx::query(sql).execute(&mut database).await;
        return done.unwrap().rows_affected();
    }
    let mut database = world.database().await;
    let done = sqlx::query(sql).execute(&mut database).await;
    done.unwrap().rows_affected()
}

async fn fence(world: &World) -> i64 {
    let sql = "SELECT fence FROM sync_runs WHERE status = 'running'";
    if let Some(url) = world.variables.get(DATABASE_URL) {
        let mut database = PgConnection::connect(url).await.unwrap();
        let found = sqlx::query_scalar(sql).fetch_one(&mut database).await;
        return found.unwrap();
    }
    let mut database = world.database().await;
    let found = sqlx::query_scalar(sql).fetch_one(&mut database).await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_batch_and_the_run_goes_on_at_the_next_start() {
    const MESSAGES: usize = 3_000;
    const STOPS: usize = 4;
    let mailbox = generate::bench_mailbox(MESSAGES as u64, 600);
    let world = World::embedded_with(mailbox, |options| {
        options.latency = Duration::from_millis(5);
    })
    .await;
    let mut server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let run = server.api.sync(&integration).await;
    for stop in 1..=STOPS {
        let fetched = world.google.wait_for(Method::MessagesGet, stop * 230);
        in_time(PATIENCE, fetched).await;
        let finished = server.stop().await;
        assert!(finished.stderr.contains("ending: batches under way"));
        assert!(!finished.stderr.contains("not everything ended in time"));
        // What was fetched is stored, but for what had no answer yet.
        let mut database = world.database().await;
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM raw_data")
            .fetch_one(&mut database)
            .await
            .unwrap();
        let fetched = world.google.served(Method::MessagesGet);
        let lost = fetched - rows as usize;
        assert!(lost <= stop * IN_FLIGHT, "{lost} after {stop}");
        let status: String = sqlx::query_scalar("SELECT status FROM sync_runs")
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(status, "queued");
        server = world.listen("up").await;
    }
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["counts"]["stored"], MESSAGES);
    assert_adds_up(&ended);
    world.assert_matches_ledger(&server.api, &integration).await;
    let fetched = world.google.served(Method::MessagesGet);
    assert!(fetched - MESSAGES <= STOPS * IN_FLIGHT, "{fetched}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_silent_service_nor_a_silent_client_keeps_the_process() {
    let world = World::embedded(generate::bench_mailbox(40, 600)).await;
    let mut server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let hang = Match::method(Method::MessagesGet);
    world.google.inject_times(hang, Fault::Hang, 8);
    server.api.sync(&integration).await;
    let asked = world.google.wait_for(Method::MessagesGet, 8);
    in_time(PATIENCE, asked).await;
    // A request that never ends, and a connection that never begins one.
    let address = server.api.url.trim_start_matches("http://");
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"POST /entities HTTP/1.1\r\nHost: nucleus\r\nContent-Le")
        .await
        .unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    // The server has to have seen them before it is told to end.
    server.api.get("/livez").await;
    server.child.signal(Signal::SIGTERM);
    let status = server.child.exit(GONE).await;
    assert_eq!(status.code(), Some(0), "{}", server.child.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let world = World::embedded(generate::bench_mailbox(1, 600)).await;
    let mut server = world.listen("up").await;
    let address = server.api.url.trim_start_matches("http://").to_owned();
    // A body that never comes is waited for, a head that never comes is not.
    let mut half = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /entities HTTP/1.1\r\nHost: nucleus\r\nAuthorization: Bearer {OPERATOR_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    );
    half.write_all(head.as_bytes()).await.unwrap();
    is_asked_for_the_body(&mut half).await;
    server.child.signal(Signal::SIGINT);
    server.child.says("ending: batches under way").await;
    server.child.signal(Signal::SIGTERM);
    let status = server.child.exit(Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_up_what_its_killed_predecessor_held() {
    let world = World::embedded(generate::bench_mailbox(30, 600)).await;
    let mut server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    world.google.hold(Method::MessagesGet);
    let run = server.api.sync(&integration).await;
    let held = world.google.wait_for_held(Method::MessagesGet, 1);
    in_time(PATIENCE, held).await;
    server.child.kill().await;
    world.google.release(Method::MessagesGet);
    let server = world.listen("up").await;
    // Far sooner than the thirty seconds of a lease.
    let ended = in_time(Duration::from_secs(19), server.api.ended(&run)).await;
    assert_eq!(ended["status"], "success", "{ended}");
    let api: &Api = &server.api;
    world.assert_matches_ledger(api, &integration).await;
    server.stop().await;
}
