//! Dead letters: a run that gets nowhere is parked by the program's own count, once and with its reason,
//! and is asked for again by one command, on either queue.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{end, work};
use crate::{
    broker::Cloud,
    child::{Api, Child, PATIENCE, World, happens},
    doubles::small_mailbox,
};

/// Runs a role that dies whenever it has claimed a run.
async fn die_at_a_claim(world: &World, role: &str) {
    let mut command = world.command(&[role]);
    command.env("FAILPOINTS", "run.claimed=panic");
    let mut child = Child::spawn(command);
    let status = child.exit(PATIENCE).await;
    let died = status.signal() == Some(Signal::SIGABRT as i32);
    assert!(died, "{status}: {}", child.stderr());
}

/// The run was given up by its own count, and the command brings it back.
async fn parked_and_redriven(world: &World, api: &Api, integration: &str, run: &str) {
    let ended = api.ended(run).await;
    assert_eq!(ended["error"]["code"], "attempts_exhausted", "{ended}");
    let listed = world.run(&["dead-letter", "list", "--json"]).await.ok();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let letter: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&letter["attempts"], &letter["run_id"]),
        (&2.into(), &ended["run_id"])
    );
    let reason = letter["reason"].as_str().unwrap();
    assert!(reason.contains("2 attempts in a row"), "{reason}");
    let id = letter["id"].as_str().unwrap();
    assert_eq!(
        api.get(&format!("/integrations/{integration}")).await["status"],
        "error"
    );

    let redriven = world.run(&["dead-letter", "redrive", "--all"]).await.ok();
    assert!(
        redriven.contains(&format!("{id}  asked for again by run ")),
        "{redriven}"
    );
    let runs = api.all(&format!("/integrations/{integration}/runs")).await;
    assert_eq!(runs.len(), 2);
    let again = api.ended(runs[0]["run_id"].as_str().unwrap()).await;
    assert_eq!(again["status"], "success", "{again}");
    assert_eq!(
        api.get(&format!("/integrations/{integration}")).await["status"],
        "active"
    );
    world.assert_matches_ledger(api, integration).await;

    // Twice is once.
    let redriven = world.run(&["dead-letter", "redrive", id]).await.ok();
    assert!(
        redriven.contains("was asked for again before, by run "),
        "{redriven}"
    );
    let runs = api.all(&format!("/integrations/{integration}/runs")).await;
    assert_eq!(runs.len(), 2);
    assert_eq!(world.run(&["dead-letter", "list"]).await.ok(), "");
    let all = world.run(&["dead-letter", "list", "--all"]).await.ok();
    assert!(
        all.contains(id) && all.contains("asked for again by run"),
        "{all}"
    );
    let shown = world.run(&["dead-letter", "show", id]).await.ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["redriven_run_id"], again["run_id"]);
    let unknown = "01900000-0000-7000-8000-000000000009";
    let shown = world.run(&["dead-letter", "show", unknown]).await;
    shown.assert_fails(1, &["there is no dead letter"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_kills_its_workers_is_parked_and_redriven_on_embedded_parts() {
    let mut world = World::embedded(small_mailbox(5)).await;
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "2");
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    world.google.hold(nucleus::demo::Method::GetProfile);
    let run = server.api.sync(&integration).await;
    let held = world
        .google
        .wait_for_held(nucleus::demo::Method::GetProfile, 1);
    held.await;
    let mut server = server;
    server.child.kill().await;
    world.google.release(nucleus::demo::Method::GetProfile);
    die_at_a_claim(&world, "up").await;
    let server = world.listen("up").await;
    parked_and_redriven(&world, &server.api, &integration, &run).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_kills_its_workers_is_parked_and_redriven_on_pubsub() {
    let mut world = World::embedded(small_mailbox(5)).await;
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "2");
    let cloud = Cloud::around(world).await;
    let server = cloud.world.listen("serve").await;
    let integration = server.api.connect(&cloud.world).await;
    let run = server.api.sync(&integration).await;
    for _ in 0..2 {
        die_at_a_claim(&cloud.world, "work").await;
        cloud.end_leases().await;
    }
    let child = work(&cloud.world).await;
    parked_and_redriven(&cloud.world, &server.api, &integration, &run).await;
    end(child).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gave_up_is_kept_with_its_reason() {
    let cloud = Cloud::around(World::embedded(small_mailbox(1)).await).await;
    let child = work(&cloud.world).await;
    let attributes = [
        ("ce-type", "dev.nucleus.sync.requested.v1"),
        ("ce-id", "01900000-0000-7000-8000-000000000003"),
        ("CloudPubSubDeadLetterSourceDeliveryCount", "20"),
        (
            "CloudPubSubDeadLetterSourceSubscription",
            "nucleus-sync-worker",
        ),
    ];
    let topic = nucleus::domain::event::SYNC_DEAD_LETTER;
    for _ in 0..2 {
        cloud.project.publish(topic, &attributes, b"{}").await;
    }
    let parked = "SELECT count(*) FROM dead_letters";
    assert!(happens(PATIENCE, async || cloud.number(parked).await == 1).await);
    let listed = cloud.world.run(&["dead-letter", "list"]).await.ok();
    assert!(
        listed.contains("gave it up after 20 deliveries by nucleus-sync-worker"),
        "{listed}"
    );
    end(child).await;
}

/// A wake-up too many is nobody's work.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gave_up_of_a_run_that_is_over_is_not_kept() {
    let cloud = Cloud::around(World::embedded(small_mailbox(1)).await).await;
    let server = cloud.world.listen("serve").await;
    let child = work(&cloud.world).await;
    let integration = server.api.connect(&cloud.world).await;
    let run = server.api.sync(&integration).await;
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{ended}");
    let request = json!({
        "run_id": run,
        "integration_id": integration,
        "entity_id": ended["entity_id"],
        "service_name": "gmail",
        "trigger": "manual",
        "requested_at": ended["requested_at"],
    });
    let attributes = [
        ("ce-type", "dev.nucleus.sync.requested.v1"),
        ("ce-id", "01900000-0000-7000-8000-000000000004"),
        ("CloudPubSubDeadLetterSourceDeliveryCount", "20"),
    ];
    let topic = nucleus::domain::event::SYNC_DEAD_LETTER;
    let data = request.to_string();
    cloud
        .project
        .publish(topic, &attributes, data.as_bytes())
        .await;
    let said = "the broker gave up a request whose run is over";
    assert!(happens(PATIENCE, async || child.stderr().contains(said)).await);
    assert_eq!(cloud.number("SELECT count(*) FROM dead_letters").await, 0);
    end(child).await;
    server.stop().await;
}
