//! `nucleus events tail`: the events of the API as lines, without a gap or a repeat from one call to the
//! next, whoever ends it and however.

use std::{
    io::{BufRead, BufReader},
    process::{Child as Process, Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    child::{Api, Child, Finished, PATIENCE, Server, World, happens},
    doubles::{mail, small_mailbox},
    schemas,
};

const TAIL: [&str; 2] = ["events", "tail"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TAIL, more].concat()
}

/// The events in what was printed, each checked against its schema.
fn events(stdout: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        schemas::assert_event(&event);
        event
    };
    stdout.lines().map(parse).collect()
}

/// The cursor in what was said of going on.
fn cursor(finished: &Finished) -> String {
    let said = "to go on from here: nucleus events tail --cursor ";
    let mut lines = finished.stderr.lines();
    let line = lines.find_map(|line| line.strip_prefix(said));
    line.unwrap_or_else(|| panic!("{finished:?}")).to_owned()
}

/// Syncs, and waits until what changed is told: with a broker, once it is published.
async fn synced(api: &Api, integration: &str) {
    let run = api.sync(integration).await;
    let ended = api.ended(&run).await;
    assert_eq!(ended["status"], "success");
    let told = happens(PATIENCE, async || {
        let events = api.all("/events").await;
        let of_run = events.iter().filter(|event| event["data"]["run_id"] == run);
        of_run.count() as u64 == ended["events"]
    });
    assert!(told.await, "{ended}");
}

/// A running `up` with a mailbox that is synced.
async fn synced_world(messages: u64) -> (World, Server, String) {
    synced_in(World::new(small_mailbox(messages)).await).await
}

async fn synced_in(world: World) -> (World, Server, String) {
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    synced(&server.api, &integration).await;
    (world, server, integration)
}

async fn new_mail(world: &World, server: &Server, integration: &str, serial: u64) {
    world
        .google
        .with_mailbox(|mailbox| mailbox.deliver(mail(serial), &["INBOX"]));
    synced(&server.api, integration).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_that_of_the_api_and_is_not_consumed() {
    let (world, server, integration) = synced_world(250).await;
    let known = server.api.all("/events").await;
    assert!(known.len() >= 3);
    for _ in 0..2 {
        let all = world.run(&with(&["--from-start", "--once"])).await;
        assert_eq!((all.code, events(&all.stdout)), (Some(0), known.clone()));
        let page = server.api.get("/events").await;
        assert_eq!(page["resume_cursor"], cursor(&all));
    }
    // Without a word of where to begin it begins with what comes next.
    let now = world.run(&with(&["--once"])).await;
    assert_eq!((now.code, now.stdout.as_str()), (Some(0), ""));
    new_mail(&world, &server, &integration, 1).await;
    let after = cursor(&now);
    let later = world.run(&with(&["--cursor", &after, "--once"])).await;
    let known_later = server.api.all("/events").await;
    assert_eq!(events(&later.stdout), known_later[known.len()..]);
    assert_eq!(known_later.len(), known.len() + 1);
    // Cursors of the API are the same.
    let first = server.api.get("/events?limit=1").await;
    let after = first["next_cursor"].as_str().unwrap();
    let rest = world.run(&with(&["--cursor", after, "--once"])).await;
    assert_eq!(events(&rest.stdout), known_later[1..]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_as_they_come_and_a_signal_ends_it_where_it_goes_on() {
    let (world, server, integration) = synced_world(5).await;
    let known = server.api.all("/events").await.len();
    let mut told = Vec::new();
    let mut going_on: Option<String> = None;
    for (serial, signal) in [(1, Signal::SIGTERM), (2, Signal::SIGINT)] {
        let tail = match &going_on {
            Some(cursor) => with(&["--cursor", cursor]),
            None => with(&["--from-start"]),
        };
        let mut tail = Child::spawn(world.command(&tail));
        new_mail(&world, &server, &integration, 10 * serial).await;
        let news = server.api.all("/events").await.pop().unwrap();
        tail.says(news["id"].as_str().unwrap()).await;
        tail.signal(signal);
        let status = tail.exit(Duration::from_secs(10)).await;
        let finished = tail.finished(status);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        told.extend(events(&finished.stdout));
        going_on = Some(cursor(&finished));
        // What comes while nobody listens is told by the next.
        new_mail(&world, &server, &integration, 10 * serial + 1).await;
    }
    let cursor = going_on.unwrap();
    let rest = world.run(&with(&["--cursor", &cursor, "--once"])).await;
    told.extend(events(&rest.stdout));
    assert_eq!(told, server.api.all("/events").await);
    assert_eq!(told.len(), known + 4);
    server.stop().await;
}

/// A tail whose standard output the test reads itself.
fn spawn(mut command: Command) -> Process {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

async fn ended(mut process: Process) -> Finished {
    let mut status = None;
    let ended = happens(PATIENCE, async || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    let ended = ended.await;
    let _gone_already = process.kill();
    let stderr = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
    assert!(ended, "it still runs: {stderr}");
    Finished {
        code: status.unwrap().code(),
        stdout: String::new(),
        stderr,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_it_without_another_event() {
    let (world, server, _) = synced_world(5).await;
    let mut tail = spawn(world.command(&with(&["--from-start"])));
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(events(&line).len(), 1);
    drop(out);
    let finished = ended(tail).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let rest = world
        .run(&with(&["--cursor", &cursor(&finished), "--once"]))
        .await;
    assert_eq!((rest.code, rest.stdout.as_str()), (Some(0), ""));

    // Nobody ever read: what the cursor passes over was written into the pipe.
    let mut unread = spawn(world.command(&with(&["--from-start"])));
    drop(unread.stdout.take());
    assert_eq!(ended(unread).await.code, Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_stopped_does_not_keep_a_signal_waiting() {
    let (world, server, _) = synced_world(1200).await;
    let known = server.api.all("/events").await;
    let mut tail = spawn(world.command(&with(&["--from-start"])));
    let mut out = BufReader::with_capacity(1, tail.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    // The pipe holds 64 KiB, and the events are more.
    let length: usize = known.iter().map(|event| event.to_string().len()).sum();
    assert!(length > 3 * 64 * 1024, "{length}");
    let io = format!("/proc/{}/io", tail.id());
    let is_full = happens(PATIENCE, async || {
        let io = std::fs::read_to_string(&io).unwrap();
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        // What does not fit whole is not counted yet, and no event has 24 KiB.
        written.unwrap().parse::<u64>().unwrap() > 40 * 1024
    });
    assert!(is_full.await, "it does not write");
    let id = nix::unistd::Pid::from_raw(i32::try_from(tail.id()).unwrap());
    nix::sys::signal::kill(id, Signal::SIGTERM).unwrap();
    let finished = ended(tail).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    // Every event that the cursor passes over is in the pipe whole.
    let whole: Vec<Value> = out
        .lines()
        .map_while(|line| serde_json::from_str(&line.unwrap()).ok())
        .collect();
    let printed = 1 + whole.len();
    assert!(printed < known.len(), "the reader had stopped");
    let rest = world
        .run(&with(&["--cursor", &cursor(&finished), "--once"]))
        .await;
    assert_eq!(events(&rest.stdout), known[printed..]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_lead_nowhere_are_told_apart() {
    let (world, server, _) = synced_in(World::embedded(small_mailbox(5)).await).await;
    let page = server.api.get("/events").await;
    let newest = page["resume_cursor"].as_str().unwrap().to_owned();
    server.stop().await;
    for (arguments, code, word) in [
        (with(&["--cursor", "yesterday"]), 2, "no cursor of events"),
        (
            with(&["--cursor", &newest, "--from-start"]),
            2,
            "cannot be used with",
        ),
        (
            with(&["--cursor", "AAAAAAAAA-g"]),
            1,
            "not of this database",
        ),
        (vec!["events"], 2, "Usage"),
    ] {
        let failed = world.run(&arguments).await;
        failed.assert_fails(code, &[word]);
        assert_eq!(failed.stdout, "");
        assert!(!failed.stderr.contains("to go on"), "{failed:?}");
    }
    let mut database = world.database().await;
    sqlx::query("UPDATE event_position SET horizon = position")
        .execute(&mut database)
        .await
        .unwrap();
    let expired = world.run(&with(&["--cursor", "AAAAAAAAAAA"])).await;
    expired.assert_fails(1, &["RETENTION_DAYS", "--from-start"]);
    let at_the_end = world.run(&with(&["--cursor", &newest, "--once"])).await;
    assert_eq!(cursor(&at_the_end), newest);

    let nothing = World::embedded(small_mailbox(1)).await;
    let failed = nothing.run(&TAIL).await;
    failed.assert_fails(1, &["no database", "start `nucleus up`"]);
    assert!(!nothing.data_dir().exists(), "nothing was made");
}
