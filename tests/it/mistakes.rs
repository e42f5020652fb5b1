//! Bad input at the door, by name: each mistake has its exit code, says how it is mended, and
//! leaves nothing half made.

use std::{collections::BTreeSet, path::Path};

use nucleus::demo::generate;
use tokio::net::TcpListener;

use crate::{child::World, takeover::VAULT_KEY};

/// Its vault is among what goes wrong.
async fn world() -> World {
    let mut world = World::embedded(generate::bench_mailbox(3, 600)).await;
    world.keep_in_vault();
    world
}

/// The names in a folder, except what SQLite keeps beside an open database.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_the_configuration_is_told_at_once_with_the_near_miss() {
    let mut world = world().await;
    world.set("NUCLEUS_HTTP__LISTNE", "127.0.0.1:1");
    world.set("NUCLEUS_HTTP__LISTEN", "localhost");
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "many");
    world.set("NUCLEUS_SECRETS__VAULT_KEY", "c2hvcnQ=");
    world.set("NUCLEUS_HTTP__OPERATOR_KEY", "hunter2");
    world.set(
        "NUCLEUS_SERVICES__GMAIL__API_URL",
        "http://gmail.example.com",
    );
    std::fs::write(
        world.folder.path().join("nucleus.toml"),
        "[databse]\nurl = \"sqlite:x.db\"\n[http]\nbody_limit_byte = 5\n",
    )
    .unwrap();
    let failed = world.run(&["up"]).await;
    failed.assert_fails(
        2,
        &[
            "NUCLEUS_HTTP__LISTNE is no setting, did you mean NUCLEUS_HTTP__LISTEN?",
            "NUCLEUS_HTTP__LISTEN is \"localhost\"",
            "NUCLEUS_SYNC__MAX_ATTEMPTS",
            "NUCLEUS_SECRETS__VAULT_KEY is not base64 of 32 bytes",
            "NUCLEUS_HTTP__OPERATOR_KEY is shorter than 32",
            "NUCLEUS_SERVICES__GMAIL__API_URL",
            "http.body_limit_byte in nucleus.toml is no setting, did you mean http.body_limit_bytes?",
            "databse in nucleus.toml",
        ],
    );
    assert!(!failed.stderr.contains("c2hvcnQ") && !failed.stderr.contains("hunter2"));
    assert_eq!(failed.stdout, "");
    assert!(!world.data_dir().exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_a_platform_injects_is_only_warned_of() {
    let mut world = world().await;
    world.set("NUCLEUS_SERVICE_HOST", "10.0.0.1");
    let migrated = world.run(&["migrate"]).await;
    assert!(
        migrated
            .stderr
            .contains("NUCLEUS_SERVICE_HOST is no setting")
    );
    migrated.ok();
    world
        .run(&["migrate", "--config", "none.toml"])
        .await
        .assert_fails(2, &["none.toml", "cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_nothing_is_made() {
    let mut world = world().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let any = world.variables["NUCLEUS_HTTP__LISTEN"].clone();
    world.set("NUCLEUS_HTTP__LISTEN", &address);
    world.unset("NUCLEUS_HTTP__OPERATOR_KEY");
    let failed = world.run(&["up"]).await;
    failed.assert_fails(1, &[&address, "NUCLEUS_HTTP__LISTEN", "in use"]);
    assert_eq!(failed.stdout, "");
    let left = names(&world.data_dir());
    assert_eq!(left, BTreeSet::from(["nucleus.lock".to_owned()]));
    // The first start that works is the first start.
    world.set("NUCLEUS_HTTP__LISTEN", any);
    let mut server = world.listen("up").await;
    assert!(server.child.stdout().contains("shown this once"));
    server.child.says("vault.key").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_one_is_named() {
    let mut world = world().await;
    let file = world.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    // Tests may run as root, whom permissions do not stop.
    for folder in [file.clone(), file.join("under")] {
        let path = folder.to_str().unwrap().to_owned();
        world.set("NUCLEUS_DATA_DIR", &path);
        for command in ["up", "migrate", "tick"] {
            let mut call = world.command(&[command]);
            call.env("NUCLEUS_DATA_DIR", &path);
            let mut child = crate::child::Child::spawn(call);
            let status = child.exit(crate::child::PATIENCE).await;
            let failed = child.finished(status);
            failed.assert_fails(1, &[&path, "cannot be written to", "--data-dir"]);
        }
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(
        names(world.folder.path()),
        BTreeSet::from(["file".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_folder_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let world = world().await;
    world.run(&["migrate"]).await.ok();
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.data_dir(), mode).unwrap();
    };
    mode(0o555);
    let may_write_anyway = std::fs::write(world.data_dir().join("probe"), "").is_ok();
    if !may_write_anyway {
        let failed = world.run(&["up"]).await;
        failed.assert_fails(1, &["cannot be written to", "--data-dir"]);
    }
    mode(0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_left_alone() {
    let mut world = world().await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world.run(&["migrate"]).await.ok();
    let mut database = world.database().await;
    sqlx::query("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m999_more', 0)")
        .execute(&mut database)
        .await
        .unwrap();
    for command in [
        vec!["up"],
        vec!["serve"],
        vec!["work"],
        vec!["tick"],
        vec!["migrate"],
    ] {
        let failed = world.run(&command).await;
        failed.assert_fails(
            1,
            &["made by a newer nucleus", "m999_more", "use that version"],
        );
    }
    let status = world.run(&["migrate", "--status"]).await;
    assert!(status.stdout.contains("applied  m999_more"), "{status:?}");
    assert!(!world.data_dir().join("vault").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_key_that_is_missing_or_wrong_stops_the_start_and_changes_nothing() {
    let mut world = world().await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    server.stop().await;
    let (key_file, away) = (
        world.data_dir().join("vault.key"),
        world.folder.path().join("away"),
    );
    std::fs::rename(&key_file, &away).unwrap();
    for command in ["up", "serve", "work"] {
        let failed = world.run(&[command]).await;
        failed.assert_fails(1, &["vault.key is missing", "put it back"]);
        assert!(!key_file.exists(), "{command} made another key");
    }
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    for command in ["up", "serve", "work"] {
        let failed = world.run(&[command]).await;
        failed.assert_fails(1, &["sealed with key", "give the key it was sealed with"]);
        assert!(!failed.stderr.contains(VAULT_KEY));
    }
    world.unset("NUCLEUS_SECRETS__VAULT_KEY");
    std::fs::write(&key_file, "not a key").unwrap();
    let failed = world.run(&["up"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("vault.key") && !failed.stderr.contains("not a key\n"));
    std::fs::rename(&away, &key_file).unwrap();
    let server = world.listen("up").await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_named_and_kept() {
    let world = world().await;
    std::fs::create_dir(world.data_dir()).unwrap();
    let file = world.data_dir().join("nucleus.db");
    let text =
        "a shopping list, not a database, and longer than a header of SQLite's is: ".repeat(9);
    std::fs::write(&file, &text).unwrap();
    let failed = world.run(&["up"]).await;
    failed.assert_fails(1, &["database", "not a database"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}
