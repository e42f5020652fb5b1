//! `nucleus vault rotate` killed at each of its steps, while an `up` reads and writes credentials.

use std::collections::BTreeSet;

use nucleus::demo::generate;
use serde_json::json;

use crate::child::{Child, PATIENCE, World};

/// Where a rotation may die.
const POINTS: [&str; 5] = [
    "vault.rotate.made",
    "vault.rotate.announced",
    "vault.rotate.version",
    "vault.rotate.sealed",
    "vault.rotate.done",
];

#[tokio::test(flavor = "multi_thread")]
async fn however_a_rotation_dies_everything_opens_and_the_next_goes_on() {
    if !cfg!(feature = "failpoints") {
        panic!("the crash points are not compiled in: run with --features failpoints");
    }
    let mut world = World::embedded(generate::mailbox(4, 1)).await;
    world.keep_in_vault();
    let server = world.listen("up").await;
    let mut integrations = BTreeSet::new();
    for _ in 0..3 {
        integrations.insert(server.api.connect(&world).await);
    }
    // Each test of an integration reads its credentials, and each new connection writes some.
    let all_work = async |integrations: &BTreeSet<String>| {
        for id in integrations {
            let path = format!("/integrations/{id}/test");
            let tested = server.api.post(&path, json!({})).await;
            assert_eq!(tested["is_valid"], true, "{tested}");
        }
    };
    for point in POINTS {
        let mut command = world.command(&["vault", "rotate"]);
        command.env("FAILPOINTS", format!("{point}=panic"));
        let mut child = Child::spawn(command);
        let status = child.exit(PATIENCE).await;
        assert!(!status.success(), "{point}");
        let said = child.finished(status);
        assert!(
            said.stderr.contains(&format!("failpoint {point} panic")),
            "{said:?}"
        );
        integrations.insert(server.api.connect(&world).await);
        all_work(&integrations).await;
        // A process that starts in the middle knows both keys.
        let looked = world.run(&["doctor", "--json"]).await;
        assert!(looked.stdout.contains("\"vault\""), "{looked:?}");
        let rotated = world.run(&["vault", "rotate"]).await.ok();
        assert!(
            rotated.contains("the vault is sealed with key"),
            "{rotated}"
        );
        all_work(&integrations).await;
    }
    assert!(!world.data_dir().join("vault.key.next").exists());
    // A worker's access tokens are in memory; after a restart everything is read anew.
    server.stop().await;
    let server = world.listen("up").await;
    for id in &integrations {
        let path = format!("/integrations/{id}/test");
        let tested = server.api.post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{tested}");
    }
    let audit = world.run(&["audit", "verify", "--json"]).await.ok();
    let audit: serde_json::Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(audit["findings"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_leaves_no_core_dump() {
    let world = World::embedded(generate::mailbox(1, 1)).await;
    let server = world.listen("up").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let values: Vec<&str> = line.split_whitespace().skip(4).take(2).collect();
    assert!(
        values.iter().all(|value| ["0", "1"].contains(value)),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_key_is_replaced_by_telling_both() {
    let mut world = World::embedded(generate::mailbox(1, 1)).await;
    world.keep_in_vault();
    let (first, second) = ("AQ".repeat(21), "Ag".repeat(21));
    let key = |text: &str| format!("{}E=", &text[..42]);
    world.set("NUCLEUS_SECRETS__VAULT_KEY", key(&first));
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let refused = world.run(&["vault", "rotate"]).await;
    refused.assert_fails(1, &["NUCLEUS_SECRETS__PREVIOUS_VAULT_KEY"]);
    server.stop().await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", key(&second));
    world.set("NUCLEUS_SECRETS__PREVIOUS_VAULT_KEY", key(&first));
    let server = world.listen("up").await;
    world.run(&["vault", "rotate"]).await.ok();
    let path = format!("/integrations/{integration}/test");
    assert_eq!(server.api.post(&path, json!({})).await["is_valid"], true);
    server.stop().await;
    world.unset("NUCLEUS_SECRETS__PREVIOUS_VAULT_KEY");
    let server = world.listen("up").await;
    assert_eq!(server.api.post(&path, json!({})).await["is_valid"], true);
}
