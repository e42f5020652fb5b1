//! `nucleus vault rotate` killed at each of its steps while an `up` reads and writes credentials, and at
//! random while others do nothing else.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::future::join_all;
use nucleus::{
    demo::generate,
    domain::{EntityId, ServiceName},
    secrets::{KeyId, Labels, SecretName, SecretPath, SecretStore, Vault, cipher},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    child::{Child, PATIENCE, World, happens, moment},
    kills::seed,
};

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
    // Each new connection writes credentials; the running program has the tokens of the others in memory.
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
        // A process that starts in the middle knows both keys, and reads everything.
        let is_over = point == "vault.rotate.done";
        let vault = if is_over { "ok" } else { "warn" };
        assert_doctor_reads(&world, vault).await;
        let rotated = world.run(&["vault", "rotate"]).await.ok();
        assert!(
            rotated.contains("the vault is sealed with key"),
            "{rotated}"
        );
        assert_doctor_reads(&world, "ok").await;
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

/// Fails unless the doctor finds the vault so, and reads the credentials of every integration.
async fn assert_doctor_reads(world: &World, vault: &str) {
    let looked = world.run(&["doctor", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&looked.stdout).unwrap();
    for (name, expected) in [("vault", vault), ("credentials", "ok")] {
        let mut checks = report["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == name);
        assert_eq!(check.unwrap()["status"], expected, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_keeps_the_old_key_and_fails_the_command() {
    let mut world = World::embedded(generate::mailbox(1, 1)).await;
    world.keep_in_vault();
    let server = world.listen("up").await;
    server.api.connect(&world).await;
    server.stop().await;
    let vault = world.data_dir().join("vault");
    let secret = std::fs::read_dir(&vault)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let file = secret.join("1");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let done = world.run(&["vault", "rotate"]).await;
    done.assert_fails(1, &["cannot be opened", "1 versions are still sealed"]);
    let next_key = world.data_dir().join("vault.key.next");
    assert!(next_key.exists());
    std::fs::write(&file, whole).unwrap();
    world.run(&["vault", "rotate"]).await.ok();
    assert!(!next_key.exists());
    assert_doctor_reads(&world, "ok").await;
    let mut database = world.database().await;
    let acts: Vec<String> = sqlx::query_scalar(
        "SELECT outcome FROM audit_log WHERE action = 'vault.rotate' ORDER BY position",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    assert_eq!(acts, ["attempt", "failure", "attempt", "success"]);
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

/// Secrets in a vault, with what each has to hold.
struct Load {
    vault: Vault,
    known: Mutex<Vec<(SecretPath, String)>>,
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Load {
    fn any(&self, random: &mut StdRng) -> (usize, SecretPath, String) {
        let known = self.known.lock().unwrap();
        let index = random.random_range(0..known.len());
        let (path, text) = known[index].clone();
        (index, path, text)
    }

    /// The version that takes the place of what is known at `index`, or a new secret's first.
    async fn write(&self, index: Option<usize>, text: String) {
        let entity = match index {
            Some(index) => self.known.lock().unwrap()[index]
                .0
                .name()
                .entity_id()
                .unwrap(),
            None => EntityId::new(),
        };
        let service = ServiceName::Gmail;
        let labels = Labels {
            entity_id: entity,
            service,
        };
        let name = SecretName::new(entity, service);
        let value = text.as_bytes().to_vec().into();
        let path = self.vault.put(&name, value, &labels).await.unwrap();
        let mut known = self.known.lock().unwrap();
        match index {
            Some(index) => known[index] = (path, text),
            None => known.push((path, text)),
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    async fn read(&self, path: &SecretPath, text: &str) {
        let read = self.vault.get(path).await.unwrap();
        assert_eq!(read.expose_secret(), text.as_bytes(), "{path}");
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    async fn read_until(&self, end: &CancellationToken, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !end.is_cancelled() {
            let (_, path, text) = self.any(&mut random);
            self.read(&path, &text).await;
        }
    }

    /// Opens the vault again and again, as processes do that start meanwhile; how often.
    async fn open_until(&self, end: &CancellationToken, folder: &Path, key_file: &Path) -> usize {
        let mut opened = 0;
        while !end.is_cancelled() {
            let open = Vault::open_or_create(folder.to_owned(), key_file.to_owned());
            let (_, is_new) = open.await.unwrap();
            assert!(!is_new);
            opened += 1;
        }
        opened
    }

    /// What was replaced is not destroyed: a reader may have it in mind.
    async fn write_until(&self, end: &CancellationToken, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !end.is_cancelled() {
            let (index, ..) = self.any(&mut random);
            self.write(Some(index), format!("text {}", random.random::<u64>()))
                .await;
        }
    }
}

/// The keys that versions in a vault are sealed with.
fn sealed_with(vault: &Path) -> HashSet<KeyId> {
    let folders = std::fs::read_dir(vault)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut keys = HashSet::new();
    for folder in folders.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(folder).unwrap() {
            let sealed = std::fs::read(file.unwrap().path()).unwrap();
            keys.insert(cipher::key_id(&sealed).unwrap());
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_under_load_fail_no_read_and_the_last_rotation_seals_all_anew() {
    const KILLS: usize = 20;
    let mut random = StdRng::seed_from_u64(seed());
    let mut world = World::embedded(generate::mailbox(1, 1)).await;
    world.keep_in_vault();
    world.run(&["migrate"]).await.ok();
    let (folder, key_file) = (
        world.data_dir().join("vault"),
        world.data_dir().join("vault.key"),
    );
    let next_key = world.data_dir().join("vault.key.next");
    let (vault, _) = Vault::open_or_create(folder.clone(), key_file.clone())
        .await
        .unwrap();
    let load = Load {
        vault,
        known: Mutex::default(),
        reads: AtomicUsize::new(0),
        writes: AtomicUsize::new(0),
    };
    for number in 0..60 {
        load.write(None, format!("text {number}")).await;
    }
    let end = CancellationToken::new();
    let seeds: [u64; 4] = random.random();
    let rotating = async {
        // How long one takes that nobody kills.
        let mut child = Child::spawn(world.command(&["vault", "rotate"]));
        assert!(happens(PATIENCE, async || next_key.exists() || child.has_ended()).await);
        let begun = Instant::now();
        assert!(child.exit(PATIENCE).await.success());
        let whole = begun.elapsed();
        let mut broken_off = 0;
        for kill in 0..KILLS {
            let was_rotating = next_key.exists();
            let mut child = Child::spawn(world.command(&["vault", "rotate"]));
            if !was_rotating {
                assert!(happens(PATIENCE, async || next_key.exists() || child.has_ended()).await);
            }
            // Half of them early: the one that was measured may have taken longer than others.
            let part = random.random::<f64>() / if kill % 2 == 0 { 2.0 } else { 1.0 };
            moment(whole.mul_f64(part)).await;
            child.kill().await;
            broken_off += usize::from(next_key.exists());
        }
        world.run(&["vault", "rotate"]).await.ok();
        end.cancel();
        broken_off
    };
    let (broken_off, opened, ..) = tokio::join!(
        rotating,
        load.open_until(&end, &folder, &key_file),
        join_all(seeds[..3].iter().map(|seed| load.read_until(&end, *seed))),
        load.write_until(&end, seeds[3]),
    );
    let (reads, writes) = (load.reads.into_inner(), load.writes.into_inner());
    println!(
        "{broken_off} of {KILLS} broken off in the middle, {reads} reads, {writes} writes, {opened} times opened"
    );
    assert!(broken_off >= KILLS / 4 && reads > 1_000 && writes > 100 && opened > 100);
    assert!(!next_key.exists());
    let (vault, _) = Vault::open_or_create(folder.clone(), key_file)
        .await
        .unwrap();
    assert_eq!(
        sealed_with(&folder),
        HashSet::from([vault.key_id().unwrap()])
    );
    for (path, text) in load.known.into_inner().unwrap() {
        let read = vault.get(&path).await.unwrap();
        assert_eq!(read.expose_secret(), text.as_bytes(), "{path}");
    }
}
