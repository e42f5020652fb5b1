//! `nucleus import` as a person meets it: beside a running `up`, from files, pipes and folders, with
//! mistakes, cancelled, interrupted, and again.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use nix::sys::signal::Signal;
use nucleus::demo::{Mailbox, Method, generate};
use serde_json::{Value, json};

use super::{export, generated};
use crate::{
    child::{Child, PATIENCE, Server, World, happens, in_time},
    harness::assert_adds_up,
    metrics::Scrape,
};

/// A running `up` with a connected account.
async fn up(mailbox: Mailbox) -> (World, Server, String) {
    let world = World::embedded(mailbox).await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    (world, server, integration)
}

fn takeout(world: &World) -> Vec<u8> {
    world
        .google
        .with_mailbox(|mailbox| export::takeout(mailbox))
}

fn file(world: &World, name: &str, content: &[u8]) -> String {
    let path = world.folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

async fn runs(server: &Server, integration: &str) -> Vec<Value> {
    let path = format!("/integrations/{integration}/runs");
    server.api.all(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_before_anything_begins() {
    let (world, server, id) = up(generate::mailbox(3, 1)).await;
    let good = file(&world, "good.mbox", &takeout(&world));
    let bad = file(&world, "bad.mbox", b"PK\x03\x04");
    let missing = world.folder.path().join("missing").display().to_string();
    let folder = world.folder.path().display().to_string();
    let nobody = "01890000-0000-7000-8000-000000000000";
    let entity = server.api.entity().await;
    let other = json!({"entity_id": entity, "service_name": "notion", "credential_type": "bearer_token",
        "credentials": {"token": "secret"}});
    let other = server.api.post("/integrations/", other).await;
    let other = other["id"].as_str().unwrap();
    for (arguments, code, words) in [
        (&["mbox", "--integration", &id][..], 2, &["FILE"][..]),
        (&["mbox", &good], 2, &["--integration"]),
        (&["mbox", &good, "--integration", "mine"], 2, &["mine"]),
        (
            &["mbox", &good, "--integration", nobody],
            1,
            &["no such integration"],
        ),
        (
            &["mbox", &good, "--integration", other],
            1,
            &["notion", "no e-mail"],
        ),
        (
            &["mbox", &good, &missing, "--integration", &id],
            1,
            &["cannot read", "missing"],
        ),
        (
            &["mbox", &folder, "--integration", &id],
            1,
            &["cannot read"],
        ),
        (
            &["mbox", &good, &bad, "--integration", &id],
            1,
            &["bad.mbox", "no mbox file", "\"From \""],
        ),
        (&["mbox", "-", "-", "--integration", &id], 1, &["only once"]),
        (
            &["eml", &missing, "--integration", &id],
            1,
            &["cannot read", "missing"],
        ),
    ] {
        let finished = world.run(&[&["import"], arguments].concat()).await;
        finished.assert_fails(code, words);
    }
    assert!(runs(&server, &id).await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_file_comes_through_a_pipe_beside_a_running_up() {
    let (world, server, id) = up(generated()).await;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&takeout(&world)).unwrap();
    let packed = packed.finish().unwrap();
    let command = world.command(&["import", "mbox", "-", "--integration", &id, "--json"]);
    let (mut child, mut input) = Child::spawn_with_input(command);
    input.write_all(&packed).unwrap();
    drop(input);
    let status = child.exit(PATIENCE).await;
    let summary: Value = serde_json::from_str(&child.finished(status).ok()).unwrap();
    let run = &summary["run"];
    assert_eq!(
        (&run["status"], &run["kind"]),
        (&json!("success"), &json!("import"))
    );
    assert_eq!(summary["bytes"], packed.len());
    assert_eq!(runs(&server, &id).await, std::slice::from_ref(run));
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    world.assert_matches_ledger(&server.api, &id).await;
    assert_eq!(world.google.served(Method::MessagesGet), 0);
    // What the process counted is in the sums of all.
    let metrics = server.api.text("/metrics").await;
    let counted = metrics.lines().any(|line| {
        line.starts_with("nucleus_sync_runs_total")
            && line.contains("import")
            && line.ends_with(" 1")
    });
    assert!(counted, "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_messages_comes_in_once() {
    let (world, server, id) = up(generated()).await;
    let folder = world.folder.path().join("mail");
    std::fs::create_dir_all(folder.join("deeper")).unwrap();
    let mut count = 0;
    world.google.with_mailbox(|mailbox| {
        for (id, message) in export::messages(mailbox) {
            let folder = if id % 2 == 0 {
                folder.clone()
            } else {
                folder.join("deeper")
            };
            std::fs::write(folder.join(format!("{id}.eml")), message.raw.bytes()).unwrap();
            count += 1;
        }
    });
    std::fs::write(folder.join("notes.txt"), "no mail").unwrap();
    let folder = folder.display().to_string();
    for (field, expected) in [("stored", count), ("unchanged", count)] {
        let arguments = ["import", "eml", &folder, "--integration", &id, "--json"];
        let summary = world.run(&arguments).await.ok();
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["run"]["counts"][field], expected, "{summary}");
    }
    // In words, too.
    let said = world
        .run(&["import", "eml", &folder, "--integration", &id])
        .await;
    assert!(said.ok().contains(&format!("{count}  there already")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_waits_for_a_running_sync_and_says_so() {
    let (world, server, id) = up(generated()).await;
    let mbox = file(&world, "takeout.mbox", &takeout(&world));
    world.google.hold(Method::MessagesGet);
    let sync = server.api.sync(&id).await;
    in_time(PATIENCE, world.google.wait_for_held(Method::MessagesGet, 1)).await;
    let mut child = Child::spawn(world.command(&["import", "mbox", &mbox, "--integration", &id]));
    child
        .says(&format!(
            "waiting: a sync of the integration is running (run {sync})"
        ))
        .await;
    assert_eq!(runs(&server, &id).await.len(), 1);
    world.google.release(Method::MessagesGet);
    let status = child.exit(PATIENCE).await;
    child.finished(status).ok();
    let runs = runs(&server, &id).await;
    assert_eq!(
        (&runs[0]["kind"], &runs[0]["counts"]["stored"]),
        (&json!("import"), &json!(0))
    );
    assert_eq!(runs[1]["run_id"], sync);
    world.assert_matches_ledger(&server.api, &id).await;
    server.stop().await;
}

/// An import whose pipe has given half of the messages, some of which are stored.
async fn half(
    world: &World,
    server: &Server,
    id: &str,
) -> (Child, std::process::ChildStdin, String) {
    let mut content = takeout(world);
    content.truncate(content.len() / 2);
    let command = world.command(&["import", "mbox", "-", "--integration", id]);
    let (child, mut input) = Child::spawn_with_input(command);
    input.write_all(&content).unwrap();
    let stored = happens(PATIENCE, async || {
        let runs = runs(server, id).await;
        runs.first().is_some_and(|run| run["counts"]["stored"] != 0)
    });
    assert!(stored.await, "{}", child.stderr());
    let run = runs(server, id).await[0]["run_id"]
        .as_str()
        .unwrap()
        .to_owned();
    (child, input, run)
}

/// The same command finishes what was left, and the API finds nothing to do.
async fn finish(world: &World, server: &Server, id: &str) {
    let mbox = file(world, "takeout.mbox", &takeout(world));
    let finished = world
        .run(&["import", "mbox", &mbox, "--integration", id])
        .await;
    assert!(
        finished.stderr.contains("goes on from there"),
        "{finished:?}"
    );
    finished.ok();
    let runs = runs(server, id).await;
    assert_adds_up(&runs[0]);
    assert_eq!(
        (&runs[0]["status"], &runs[0]["counts"]["unchanged"]),
        (&json!("success"), &json!(0))
    );
    let run = server.api.sync(id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    assert_eq!(world.google.served(Method::MessagesGet), 0);
    world.assert_matches_ledger(&server.api, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_import_ends_and_the_same_command_goes_on() {
    let (world, server, id) = up(generated()).await;
    let (mut child, input, run) = half(&world, &server, &id).await;
    let path = format!("/runs/{run}/cancel");
    assert_eq!(server.api.post(&path, json!({})).await["status"], "running");
    let status = child.exit(PATIENCE).await;
    child
        .finished(status)
        .assert_fails(1, &["the same command goes on"]);
    drop(input);
    assert_eq!(server.api.ended(&run).await["status"], "cancelled");
    let stream = server.api.text(&format!("/runs/{run}/stream")).await;
    assert!(
        stream.contains("event: done") && stream.contains("import"),
        "{stream}"
    );
    finish(&world, &server, &id).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_an_import_after_its_batch_and_the_same_command_goes_on() {
    let (world, server, id) = up(generated()).await;
    let (mut child, _input, run) = half(&world, &server, &id).await;
    child.signal(Signal::SIGINT);
    let status = child.exit(PATIENCE).await;
    child
        .finished(status)
        .assert_fails(1, &["the same command goes on"]);
    assert_eq!(server.api.ended(&run).await["status"], "cancelled");
    finish(&world, &server, &id).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_fails_and_the_sync_that_waited_for_it_follows() {
    let (world, server, id) = up(generated()).await;
    let (mut child, _input, run) = half(&world, &server, &id).await;
    assert_eq!(server.api.sync(&id).await, run, "the sync is to follow");
    child.kill().await;
    let mut database = world.database().await;
    // The lease lasts, however long the start takes.
    sqlx::query("UPDATE sync_runs SET lease_until = 9999999999999 WHERE status = 'running'")
        .execute(&mut database)
        .await
        .unwrap();
    // `up` starts anew: whatever workers held is freed, an import is left its lease.
    server.stop().await;
    let server = world.listen("up").await;
    assert_eq!(
        server.api.get(&format!("/runs/{run}")).await["status"],
        "running"
    );
    sqlx::query("UPDATE sync_runs SET lease_until = 1 WHERE status = 'running'")
        .execute(&mut database)
        .await
        .unwrap();
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["error"]["code"], "import_interrupted", "{ended}");
    assert_adds_up(&ended);
    let followed = runs(&server, &id).await[0].clone();
    assert_eq!(followed["kind"], "sync");
    let followed = server.api.ended(followed["run_id"].as_str().unwrap()).await;
    assert_eq!(followed["status"], "success", "{followed}");
    let labels = [("kind", "import"), ("outcome", "failed")];
    let scrape = Scrape::of(&server.api.url).await;
    assert_eq!(scrape.sum("nucleus_sync_runs_total", &labels), 1.0);
    world.assert_matches_ledger(&server.api, &id).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_is_imported_from_its_start() {
    let (world, server, id) = up(generated()).await;
    let content = takeout(&world);
    let (mut child, _input, _) = half(&world, &server, &id).await;
    child.signal(Signal::SIGINT);
    child.exit(PATIENCE).await;
    // The same first 64 KiB, and what follows moved by a message more.
    let separator = b"\r\nFrom ";
    let middle = 70_000;
    let at = content[middle..]
        .windows(7)
        .position(|bytes| bytes == separator)
        .unwrap();
    let (head, tail) = content.split_at(middle + at + 2);
    let more = b"From 77@xxx Sun Aug 16 06:48:08 +0000 2026\r\nX-Gmail-Labels: Inbox\r\nSubject: more\r\n\r\nText\r\n\r\n";
    let changed = file(&world, "changed.mbox", &[head, more, tail].concat());
    world
        .run(&["import", "mbox", &changed, "--integration", &id])
        .await
        .ok();
    let records = server.api.all(&format!("/integrations/{id}/records")).await;
    assert!(records.iter().any(|record| record["external_id"] == "4d"));
    let wanted = world.google.with_mailbox(|mailbox| {
        let hidden = |message: &nucleus::demo::mailbox::Message| {
            message.has_label("SPAM") || message.has_label("TRASH")
        };
        export::messages(mailbox)
            .filter(|(_, message)| !hidden(message))
            .count()
    });
    assert_eq!(records.len(), wanted + 1);
    server.stop().await;
}
