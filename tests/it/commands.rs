//! The commands as people and service managers run them, alone and beside a running `up`.

use std::os::unix::fs::PermissionsExt;

use nucleus::demo::{Mailbox, generate};
use serde_json::{Value, json};

use crate::{
    child::{Child, PATIENCE, Server, World, happens},
    takeover::VAULT_KEY,
};

fn empty() -> Mailbox {
    generate::bench_mailbox(3, 600)
}

/// The line after the one that announces the operator's key.
fn shown_key(stdout: &str) -> Option<&str> {
    let mut lines = stdout.lines();
    lines.find(|line| line.contains("operator's key"))?;
    lines.next()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_of_up_makes_both_keys_and_says_so_once() {
    let mut world = World::embedded(empty()).await;
    world.keep_in_vault();
    world.unset("NUCLEUS_HTTP__OPERATOR_KEY");
    let mut server = world.listen("up").await;
    let key_file = world.data_dir().join("vault.key");
    let key_file_name = key_file.to_str().unwrap();
    // It names the file.
    server.child.says(key_file_name).await;
    let stdout = server.child.stdout();
    let key = shown_key(&stdout).unwrap().to_owned();
    assert!(key.starts_with("nk_") && key.len() == 36, "{stdout}");
    assert_eq!(stdout.matches("nk_").count(), 1);
    let vault_key = std::fs::read(&key_file).unwrap();
    let mode = std::fs::metadata(world.data_dir()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700, "mail is nobody else's");
    server.api = server.api.with_key(&key);
    let integration = server.api.connect(&world).await;
    server.child.kill().await;

    let mut server = world.listen("up").await;
    assert_eq!(shown_key(&server.child.stdout()), None);
    assert_eq!(std::fs::read(&key_file).unwrap(), vault_key);
    server.api = server.api.with_key(&key);
    // The credentials open, and the integration is there.
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let finished = server.stop().await;
    assert!(!finished.stderr.contains(key_file_name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_on_the_same_folder_is_refused_and_the_others_work_beside_it() {
    let world = World::embedded(empty()).await;
    let server = world.listen("up").await;
    let second = world.run(&["up"]).await;
    second.assert_fails(
        1,
        &["another `nucleus up` holds the data folder", "--data-dir"],
    );
    assert_eq!(second.stdout, "");

    let id = world.run(&["entity", "create", " Ada "]).await.ok();
    let listed = world.run(&["entity", "list"]).await.ok();
    assert!(
        listed.contains(id.trim()) && listed.contains("  Ada\n"),
        "{listed}"
    );
    let entities = server.api.all("/entities").await;
    assert_eq!(entities[0]["id"], id.trim());
    // A name is somebody else's text: it begins no line and steers no terminal.
    let name = json!({"name": "Eve\n\u{1b}[2J\u{202e}"});
    server.api.post("/entities", name).await;
    let listed = world.run(&["entity", "list"]).await.ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("Eve\\n\\u{1b}[2J\\u{202e}"), "{listed}");
    world
        .run(&["entity", "create", "  "])
        .await
        .assert_fails(1, &["1 to 255 characters"]);

    let status = world.run(&["migrate", "--status"]).await.ok();
    assert!(
        status.contains("applied  ") && !status.contains("pending"),
        "{status}"
    );
    assert_eq!(world.run(&["migrate"]).await.ok(), status);
    let tick = world.run(&["tick"]).await.ok();
    assert_eq!(tick, "0 syncs requested, 0 abandoned runs queued again\n");
    let mut worker = Child::spawn(world.command(&["work"]));
    worker.says("the worker takes sync requests").await;
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    let status = worker.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", worker.stderr());
    assert_eq!(server.api.get("/readyz").await["status"], "ok");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_take_effect_in_the_api_when_made_and_when_revoked() {
    let mut world = World::embedded(empty()).await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world.unset("NUCLEUS_HTTP__OPERATOR_KEY");
    world.run(&["migrate"]).await.ok();
    let refused = world.run(&["serve"]).await;
    refused.assert_fails(1, &["no operator key", "nucleus key create --operator"]);
    assert_eq!(refused.stdout, "", "it never listened");

    let operator = world.run(&["key", "create", "--operator"]).await.ok();
    assert_eq!(operator.lines().count(), 1);
    let mut server = world.listen("serve").await;
    server.api = server.api.with_key(operator.trim());
    let (one, other) = (server.api.entity().await, server.api.entity().await);
    let key = world.run(&["key", "create", "--entity", &one]).await.ok();
    let as_one = server.api.with_key(key.trim());
    assert_eq!(as_one.all("/integrations").await.len(), 0);
    let (status, _) = as_one.try_send("GET", "/entities", None).await.unwrap();
    assert_eq!(status, 403);

    let listed = world.run(&["key", "list"]).await.ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains(key.trim()) && !listed.contains(operator.trim()));
    let line = listed.lines().find(|line| line.contains(&one)).unwrap();
    assert!(
        line.ends_with("live") && !listed.contains(&other),
        "{listed}"
    );
    let id = line.split("  ").next().unwrap();
    let revoked = world.run(&["key", "revoke", id]).await.ok();
    assert_eq!(revoked, format!("revoked {id}\n"));
    let (status, _) = as_one.try_send("GET", "/integrations", None).await.unwrap();
    assert_eq!(status, 401);
    let listed = world.run(&["key", "list"]).await.ok();
    assert!(listed.contains("revoked 20"), "{listed}");

    let nobody = "01890000-0000-7000-8000-000000000000";
    for (arguments, code, word) in [
        (
            vec!["key", "create", "--entity", nobody],
            1,
            "nucleus entity list",
        ),
        (
            vec!["key", "create", "--entity", "ada"],
            1,
            "not an entity's id",
        ),
        (vec!["key", "create"], 2, "--operator"),
        (
            vec!["key", "create", "--operator", "--entity", nobody],
            2,
            "cannot be used with",
        ),
        (vec!["key", "revoke", nobody], 1, "nucleus key list"),
        (vec!["key", "revoke", "x"], 1, "not a key's id"),
        (vec!["dance"], 2, "unrecognized subcommand"),
        (vec![], 2, "Usage"),
    ] {
        let failed = world.run(&arguments).await;
        failed.assert_fails(code, &[word]);
        assert_eq!(failed.stdout, "", "{arguments:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_says_what_is_pending_and_then_applies_it() {
    let mut world = World::embedded(empty()).await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    let before = world.run(&["migrate", "--status"]).await.ok();
    assert!(!before.contains("applied"), "{before}");
    let steps = before.lines().count();
    assert!(steps > 3 && before.lines().all(|line| line.starts_with("pending  ")));
    for command in [
        vec!["serve"],
        vec!["work"],
        vec!["tick"],
        vec!["entity", "list"],
    ] {
        let refused = world.run(&command).await;
        refused.assert_fails(1, &["the database lacks", "run `nucleus migrate`"]);
    }
    let after = world.run(&["migrate"]).await.ok();
    assert_eq!(after, before.replace("pending", "applied"));
    assert_eq!(world.run(&["migrate", "--status"]).await.ok(), after);
    assert_eq!(world.run(&["entity", "list"]).await.ok(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_asks_for_what_is_due_once() {
    let mut world = World::embedded(empty()).await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world.run(&["migrate"]).await.ok();
    let server = world.listen("serve").await;
    let integration = server.api.connect(&world).await;
    let mut database = world.database().await;
    sqlx::query("UPDATE entity_integrations SET next_sync_at = '2020-01-01T00:00:00+00:00'")
        .execute(&mut database)
        .await
        .unwrap();
    let nothing = "0 syncs requested, 0 abandoned runs queued again\n";
    let first = world.run(&["tick"]).await.ok();
    assert_eq!(first, nothing.replacen('0', "1", 1));
    assert_eq!(world.run(&["tick"]).await.ok(), nothing);
    let path = format!("/integrations/{integration}/runs");
    let runs = server.api.all(&path).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["trigger"], "schedule");

    // A worker dies with it, and a tick after the lease gives it back.
    sqlx::query("UPDATE sync_runs SET status = 'running', lease_until = 1")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(
        world.run(&["tick"]).await.ok(),
        "0 syncs requested, 1 abandoned runs queued again\n"
    );
    let mut worker = Child::spawn(world.command(&["work"]));
    let run = runs[0]["run_id"].as_str().unwrap();
    assert_eq!(server.api.ended(run).await["status"], "success");
    world.assert_matches_ledger(&server.api, &integration).await;
    worker.kill().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_is_honoured_where_nothing_else_is_said() {
    let mut world = World::embedded(empty()).await;
    world.unset("NUCLEUS_HTTP__LISTEN");
    world.set("PORT", "0");
    let server = world.listen("up").await;
    assert!(
        server.api.url.starts_with("http://0.0.0.0:"),
        "{}",
        server.api.url
    );
    assert_eq!(server.api.get("/livez").await["status"], "ok");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_one_object_and_its_figures_add_up() {
    let mut world = World::embedded(empty()).await;
    // What a person has set for their own nucleus has no say in the demo.
    world.set("NUCLEUS_HTTP__LISTEN", "nowhere");
    let stdout = world.run(&["demo", "--once", "--json"]).await.ok();
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1);
    assert_eq!(summary["verified"], true, "{summary}");
    let number = |pointer: &str| summary.pointer(pointer).unwrap().as_u64().unwrap();
    for run in ["first_sync", "second_sync"] {
        crate::harness::assert_adds_up(&summary[run]);
        assert_eq!(summary[run]["status"], "success");
    }
    assert!(number("/messages") >= 2000);
    assert_eq!(
        number("/quota_units"),
        number("/connecting/quota_units")
            + number("/first_sync/quota_units")
            + number("/second_sync/quota_units")
    );
    assert_eq!(number("/second_sync/counts/stored"), 3);
    assert_eq!(number("/second_sync/counts/deleted"), 1);
    assert_eq!(
        number("/events/created"),
        number("/first_sync/counts/stored") + 3
    );
    assert!(
        !world.data_dir().exists(),
        "the demo keeps to its own folder"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_takes_a_mailbox_of_ones_own() {
    let world = World::embedded(empty()).await;
    let file = world.folder.path().join("own.mbox");
    let mail = |n: u32| {
        format!(
            "From ada@example.com Thu Jan  1 00:00:0{n} 2026\nFrom: Ada <ada@example.com>\n\
             To: you@example.com\nSubject: Letter {n}\nMessage-ID: <{n}@example.com>\n\
             Date: Thu, 1 Jan 2026 00:00:0{n} +0000\n\nHello {n}\n\n"
        )
    };
    for count in [1_u32, 3] {
        let text: String = (1..=count).map(mail).collect();
        std::fs::write(&file, text).unwrap();
        let arguments = ["demo", "--mbox", "own.mbox", "--once", "--json"];
        let stdout = world.run(&arguments).await.ok();
        let summary: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(summary["verified"], true, "{summary}");
        assert_eq!(summary["first_sync"]["counts"]["stored"], count);
    }
    let plain = world
        .run(&["demo", "--mbox", "own.mbox", "--once"])
        .await
        .ok();
    assert!(
        plain.contains("messages listed") && plain.contains("stored once"),
        "{plain}"
    );

    std::fs::write(&file, "Dear diary,\n").unwrap();
    std::fs::write(world.folder.path().join("void.mbox"), "").unwrap();
    for (name, word) in [
        ("own.mbox", "is no mbox file"),
        ("void.mbox", "is empty"),
        ("none.mbox", "cannot read none.mbox"),
        (".", "cannot read ."),
    ] {
        let failed = world
            .run(&["demo", "--mbox", name, "--once", "--json"])
            .await;
        failed.assert_fails(1, &[word]);
        assert_eq!(failed.stdout, "", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_stays_up_until_it_is_told_to_end() {
    let world = World::embedded(empty()).await;
    let mut child = Child::spawn(world.command(&["demo"]));
    child.says("It stays up until Ctrl-C").await;
    let stdout = child.stdout();
    let line = stdout
        .lines()
        .find(|line| line.contains("/records"))
        .unwrap();
    let key = line.split("Bearer ").nth(1).unwrap().split('\'').next();
    let url = line.split('\'').nth(3).unwrap();
    let answer = reqwest::Client::new()
        .get(url)
        .bearer_auth(key.unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "the line can be copied: {line}");
    child.signal(nix::sys::signal::Signal::SIGINT);
    let status = child.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", child.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_asked_for_by_the_schedule_of_a_running_up() {
    let world = World::embedded(empty()).await;
    let server: Server = world.listen("up").await;
    let entity = server.api.entity().await;
    let mut body = crate::child::Api::connection(&world, &entity);
    body["sync_settings"] = json!({"interval_minutes": 1});
    let integration = server.api.post("/integrations/", body).await;
    let id = integration["id"].as_str().unwrap();
    let mut database = world.database().await;
    sqlx::query("UPDATE entity_integrations SET next_sync_at = '2020-01-01T00:00:00+00:00'")
        .execute(&mut database)
        .await
        .unwrap();
    let path = format!("/integrations/{id}/runs");
    let asked = happens(PATIENCE, async || {
        let runs = server.api.all(&path).await;
        runs.first().is_some_and(|run| run["status"] == "success")
    });
    assert!(asked.await, "{}", server.child.stderr());
    let after = server.api.get(&format!("/integrations/{id}")).await;
    assert_eq!(after["last_sync_status"], "success");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_printed_without_a_configuration() {
    let mut world = World::embedded(empty()).await;
    world.variables.clear();
    world.set("NUCLEUS_DATABASE__URL", "no address");
    let printed = world.run(&["openapi"]).await.ok();
    assert!(printed == include_str!("../../openapi.json"), "{printed}");
    assert!(!world.data_dir().exists());
}
