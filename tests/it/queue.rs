//! The program on Pub/Sub: separate processes on PostgreSQL and the emulator.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, time::Duration};

use nucleus::{
    demo::Method,
    domain::event::{
        DNA_ANALYSIS, DNA_ENGINE, SYNC_DEAD_LETTER, SYNC_REQUESTS, SYNC_TICKS, SYNC_WORKER,
    },
    queue::resources::{Found, Resource},
};
use serde_json::{Value, json};

use crate::{
    broker::{Cloud, DnaEngine, Project},
    child::{Child, PATIENCE, Server, World, happens, in_time},
    doubles::small_mailbox,
    takeover::GONE,
};

mod chaos;
mod consumer;
mod dead_letters;
mod hostile;
mod many_due;
mod weather;

/// Longer than the broker takes to deliver, and than a poll of the relay.
const QUIET: Duration = Duration::from_secs(20);

/// Starts a worker and waits until it receives.
pub async fn work(world: &World) -> Child {
    let mut child = Child::spawn(world.command(&["work"]));
    child.says("the worker takes sync requests").await;
    child
}

/// Ends a process as a service manager does.
pub async fn end(child: Child) {
    end_within(PATIENCE, child).await;
}

async fn end_within(within: Duration, mut child: Child) {
    child.signal(nix::sys::signal::Signal::SIGTERM);
    let status = child.exit(within).await;
    assert_eq!(status.code(), Some(0), "{:#?}", child.finished(status));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_passes_through_separate_processes_to_the_dna_engine() {
    let cloud = Cloud::around(World::embedded(small_mailbox(250)).await).await;
    let mut engine = DnaEngine::new(&cloud.project);
    let server = cloud.world.listen("serve").await;
    let (one, two) = (work(&cloud.world).await, work(&cloud.world).await);
    let integration = server.api.connect(&cloud.world).await;
    let run = server.api.sync(&integration).await;
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["counts"]["stored"], 250);

    let wanted = usize::try_from(ended["events"].as_i64().unwrap()).unwrap();
    assert!(wanted >= 3);
    engine.read(wanted, wanted, QUIET).await;
    assert_eq!(engine.events.len(), wanted);
    // What is published is what the API and the command tell, in the same words.
    let mut told = Vec::new();
    assert!(
        happens(PATIENCE, async || {
            told = server.api.all("/events").await;
            told.len() == wanted
        })
        .await
    );
    for event in &told {
        assert_eq!(&engine.events[event["id"].as_str().unwrap()], event);
    }
    let printed = cloud
        .world
        .run(&["events", "tail", "--from-start", "--once"])
        .await
        .ok();
    let printed: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(printed, told, "and nothing was consumed for it");
    cloud
        .world
        .assert_matches_ledger(&server.api, &integration)
        .await;
    let left = "SELECT count(*) FROM outbox WHERE topic = 'nucleus-sync-requests'";
    assert!(happens(PATIENCE, async || cloud.number(left).await == 0).await);
    end(one).await;
    end(two).await;
    server.stop().await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_what_is_missing_and_makes_it() {
    let mut world = World::embedded(small_mailbox(1)).await;
    let project = Project::empty().await;
    for (name, value) in project.variables() {
        world.set(name, value);
    }
    let broker = async |arguments: &[&str]| -> Vec<Value> {
        let printed = world.run(arguments).await.stdout;
        let report: Value = serde_json::from_str(&printed).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let named = |check: &Value| check["name"] == "broker";
        checks.into_iter().filter(named).collect()
    };
    let missing = broker(&["doctor", "--json"]).await;
    assert_eq!(missing.len(), Resource::all().count(), "{missing:#?}");
    for (check, resource) in missing.iter().zip(Resource::all()) {
        assert_eq!(check["status"], "fail", "{check}");
        let line = resource.gcloud_line(&project.id);
        assert!(check["mend"].as_str().unwrap().contains(&line), "{check}");
        assert_eq!(project.admin.look(resource).await.unwrap(), Found::Missing);
    }
    // What cannot be written down is not done.
    let refused = broker(&["doctor", "--create", "--json"]).await;
    for (check, resource) in refused.iter().zip(Resource::all()) {
        assert_eq!(check["status"], "fail", "{check}");
        let mend = check["mend"].as_str().unwrap();
        assert!(mend.contains("`nucleus migrate`"), "{check}");
        assert_eq!(project.admin.look(resource).await.unwrap(), Found::Missing);
    }
    world.run(&["migrate"]).await.ok();
    let made = broker(&["doctor", "--create", "--json"]).await;
    assert!(
        made.iter().all(|check| check["status"] == "ok"),
        "{made:#?}"
    );
    for arguments in [&["doctor", "--json"][..], &["doctor", "--create", "--json"]] {
        let well = broker(arguments).await;
        assert_eq!(well.len(), 1, "{well:#?}");
        assert_eq!(well[0]["status"], "ok");
        assert!(well[0]["detail"].as_str().unwrap().contains(&project.id));
    }
    // Each of them once, before it was made and after.
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT target, outcome, actor, interface FROM audit_log
         WHERE action = 'broker.create' ORDER BY position",
    )
    .fetch_all(&mut world.database().await)
    .await
    .unwrap();
    let expected: Vec<_> = Resource::all()
        .flat_map(|resource| ["attempt", "success"].map(|outcome| (resource.title(), outcome)))
        .map(|(title, outcome)| {
            let word = str::to_owned;
            (title, word(outcome), word("operator"), word("cli"))
        })
        .collect();
    assert_eq!(rows, expected);

    // Subscriptions that somebody has made otherwise would lose messages.
    let topic = |name: &str| format!("projects/{}/topics/{name}", project.id);
    let dead_letters = topic(SYNC_DEAD_LETTER);
    let too_few = json!({"deadLetterTopic": dead_letters, "maxDeliveryAttempts": 5});
    let elsewhere = json!({"deadLetterTopic": topic(SYNC_TICKS), "maxDeliveryAttempts": 20});
    let (requests, dna) = (topic(SYNC_REQUESTS), topic(DNA_ANALYSIS));
    for (name, body, words) in [
        (
            SYNC_WORKER,
            json!({"topic": requests, "deadLetterPolicy": too_few}),
            "it gives up after 5 deliveries, not 20",
        ),
        (
            SYNC_WORKER,
            json!({"topic": requests, "deadLetterPolicy": elsewhere}),
            "it gives up into",
        ),
        (
            SYNC_WORKER,
            json!({"topic": requests}),
            "it has no dead-letter topic",
        ),
        (
            DNA_ENGINE,
            json!({"topic": dna, "messageRetentionDuration": "600s"}),
            "it keeps what nobody takes for 600 s, not 604800 s",
        ),
        (
            DNA_ENGINE,
            json!({"topic": dna, "deadLetterPolicy": {"deadLetterTopic": dead_letters}}),
            "it gives up into",
        ),
        (DNA_ENGINE, json!({"topic": requests}), "it reads"),
    ] {
        project.put_subscription(name, body).await;
        let found = broker(&["doctor", "--create", "--json"]).await;
        let fits = |check: &Value| {
            let text = check["detail"].as_str().unwrap();
            check["status"] == "warn" && text.contains(name) && text.contains(words)
        };
        assert!(found.iter().any(fits), "{words}: {found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_of_a_broker_that_is_away_that_it_is() {
    let mut world = World::embedded(small_mailbox(1)).await;
    world.set("NUCLEUS_QUEUE__KIND", "pubsub");
    world.set("NUCLEUS_QUEUE__PROJECT_ID", "a-project");
    world.set("PUBSUB_EMULATOR_HOST", "127.0.0.1:9");
    let looked = in_time(PATIENCE, world.run(&["doctor"])).await;
    assert_eq!(looked.code, Some(1));
    assert!(
        looked.stdout.contains("the broker does not answer"),
        "{}",
        looked.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_asks_for_what_is_due_once_however_many_workers_hear_it() {
    let cloud = Cloud::around(World::embedded(small_mailbox(3)).await).await;
    let server = cloud.world.listen("serve").await;
    let mut integrations = Vec::new();
    for _ in 0..20 {
        integrations.push(server.api.connect(&cloud.world).await);
    }
    let due = "WITH moved AS (UPDATE entity_integrations SET next_sync_at = now() RETURNING 1)
        SELECT count(*) FROM moved";
    assert_eq!(cloud.number(due).await, 20);
    let (one, two) = (work(&cloud.world).await, work(&cloud.world).await);
    for _ in 0..5 {
        let attributes = [("event_type", "tick")];
        cloud.project.publish(SYNC_TICKS, &attributes, b"{}").await;
    }
    let ended = "SELECT count(*) FROM sync_runs WHERE status = 'success'";
    let all = happens(PATIENCE, async || cloud.number(ended).await == 20).await;
    assert!(all, "{}", cloud.number(ended).await);
    assert_eq!(cloud.number("SELECT count(*) FROM sync_runs").await, 20);
    for integration in &integrations {
        let runs = server
            .api
            .all(&format!("/integrations/{integration}/runs"))
            .await;
        assert_eq!((runs.len(), &runs[0]["trigger"]), (1, &json!("schedule")));
    }
    end(one).await;
    end(two).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_no_more_syncs_than_it_may_and_hands_over_when_it_is_told_to_end() {
    const BOUND: usize = 3;
    let mut world = World::embedded(small_mailbox(3)).await;
    world.set("NUCLEUS_SYNC__MAX_CONCURRENT_RUNS", BOUND.to_string());
    world.set("NUCLEUS_TELEMETRY__FILTER", "debug");
    let cloud = Cloud::around(world).await;
    let google = &cloud.world.google;
    let server = cloud.world.listen("serve").await;
    google.hold(Method::GetProfile);
    let mut runs = BTreeSet::new();
    for _ in 0..12 {
        let integration = server.api.connect(&cloud.world).await;
        runs.insert(server.api.sync(&integration).await);
    }
    let first = work(&cloud.world).await;
    in_time(PATIENCE, google.wait_for_held(Method::GetProfile, BOUND)).await;
    let running = "SELECT count(*) FROM sync_runs WHERE status = 'running'";
    assert_eq!(cloud.number(running).await, BOUND as i64);
    // The emulator gave the worker all of them, whatever it asked for.
    end_within(GONE, first).await;
    assert_eq!(cloud.number(running).await, 0, "nothing is left half-done");
    google.release(Method::GetProfile);
    let second = work(&cloud.world).await;
    let all_done = happens(PATIENCE, async || {
        cloud
            .number("SELECT count(*) FROM sync_runs WHERE status = 'success'")
            .await
            == 12
    });
    assert!(all_done.await, "{}", second.stderr());
    for run in &runs {
        let ended = server.api.ended(run).await;
        assert_eq!(ended["status"], "success", "{ended}");
        assert_eq!(ended["counts"]["stored"], 3, "{ended}");
    }
    assert_eq!(cloud.number("SELECT count(*) FROM sync_runs").await, 12);
    assert_eq!(cloud.number("SELECT count(*) FROM raw_data").await, 36);
    end(second).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_any_crash_point_of_the_relay_publishes_the_same_event_again() {
    for point in [
        "relay.claimed",
        "relay.published",
        "relay.marked",
        "worker.ack",
    ] {
        let cloud = Cloud::around(World::embedded(small_mailbox(30)).await).await;
        let mut engine = DnaEngine::new(&cloud.project);
        let server = cloud.world.listen("serve").await;
        let integration = server.api.connect(&cloud.world).await;
        let run = server.api.sync(&integration).await;
        // The API has relayed the request, so that the worker's relay comes to events alone.
        let relayed = "SELECT count(*) FROM outbox WHERE state = 'leased' AND lease_owner IS NULL";
        assert!(happens(PATIENCE, async || cloud.number(relayed).await == 1).await);
        let mut command = cloud.world.command(&["work"]);
        command.env("FAILPOINTS", format!("{point}=panic"));
        let mut child = Child::spawn(command);
        let status = child.exit(PATIENCE).await;
        assert_eq!(status.code(), None, "{point}: {}", child.stderr());
        assert!(child.stderr().contains(&format!("failpoint {point} panic")));
        // As if the leases had run out: nobody waits half a minute here.
        cloud.end_leases().await;
        let child = work(&cloud.world).await;
        let ended = server.api.ended(&run).await;
        assert_eq!(ended["status"], "success", "{point}: {ended}");
        let wanted = usize::try_from(ended["events"].as_i64().unwrap()).unwrap();
        let repeats = usize::from(point == "relay.published");
        engine.read(wanted, wanted + repeats, QUIET).await;
        assert_eq!(engine.events.len(), wanted, "{point}");
        assert!(engine.deliveries >= wanted + repeats, "{point}");
        let told = async || server.api.all("/events").await.len() == wanted;
        assert!(happens(PATIENCE, told).await, "{point}");
        cloud
            .world
            .assert_matches_ledger(&server.api, &integration)
            .await;
        let left = "SELECT count(*) FROM outbox WHERE topic = 'nucleus-sync-requests'";
        assert!(
            happens(PATIENCE, async || cloud.number(left).await == 0).await,
            "{point}"
        );
        end(child).await;
        server.stop().await;
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_understands_is_parked_once_and_the_rest_is_done() {
    let cloud = Cloud::around(World::embedded(small_mailbox(2)).await).await;
    let server: Server = cloud.world.listen("serve").await;
    let child = work(&cloud.world).await;
    let request = |event_type: &'static str, id: &'static str| {
        [
            ("ce-type", event_type),
            ("ce-id", id),
            ("event_type", "sync_requested"),
        ]
    };
    let v1 = "dev.nucleus.sync.requested.v1";
    let publish = async |attributes: &[(&str, &str)], data: &[u8]| {
        let project = &cloud.project;
        project.publish(SYNC_REQUESTS, attributes, data).await;
    };
    let (unknown, garbage) = (
        "01900000-0000-7000-8000-000000000001",
        "01900000-0000-7000-8000-000000000002",
    );
    for _ in 0..2 {
        let newer = request("dev.nucleus.sync.requested.v2", unknown);
        publish(&newer, b"{\"run\": 1}").await;
        publish(&request(v1, garbage), b"\xff\x00 no JSON").await;
    }
    publish(&request(v1, "not an id \u{0}"), b"").await;
    publish(&[("event_type", "sync_requested")], b"{}").await;
    let integration = server.api.connect(&cloud.world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let parked = "SELECT count(*) FROM dead_letters";
    let all = happens(PATIENCE, async || cloud.number(parked).await == 4).await;
    assert!(all, "{}", cloud.number(parked).await);
    let listed = cloud.world.run(&["dead-letter", "list"]).await.ok();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    for words in [
        "v2",
        "its body is empty",
        "no attribute ce-type",
        "its body is not what",
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let shown = cloud
        .world
        .run(&["dead-letter", "show", unknown])
        .await
        .ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["data"], json!({"run": 1}));
    assert_eq!(shown["attributes"]["ce-id"], unknown);
    let redriven = cloud.world.run(&["dead-letter", "redrive", unknown]).await;
    redriven.assert_fails(1, &["names no integration"]);
    end(child).await;
    server.stop().await;
}
