//! `nucleus doctor` on what is well, on what is not there yet and on everything that can be wrong; and
//! that it leaves all of it as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use nucleus::{cli::doctor::PARTS, demo::Method};
use serde_json::Value;
use sqlx::Row;

use crate::{child::World, doubles::small_mailbox, harness::OPERATOR_KEY, takeover::VAULT_KEY};

mod secret_manager;
mod stored;
mod surroundings;

/// What the doctor found.
struct Found {
    code: Option<i32>,
    object: Value,
    text: String,
}

impl Found {
    /// Of `doctor --json`, checked for what holds whatever it found.
    async fn in_world(world: &World) -> Self {
        let finished = world.run(&["doctor", "--json"]).await;
        assert_eq!(finished.stdout.lines().count(), 1, "{finished:#?}");
        let object: Value = serde_json::from_str(&finished.stdout).unwrap();
        let found = Self {
            code: finished.code,
            text: finished.stdout + &finished.stderr,
            object,
        };
        let mut worst = "ok";
        for check in found.checks() {
            let name = check["name"].as_str().unwrap();
            assert!(PARTS.iter().any(|(part, _)| *part == name), "{check}");
            let status = check["status"].as_str().unwrap();
            let needs_mend = status == "warn" || status == "fail";
            assert_eq!(check["mend"].is_string(), needs_mend, "{check}");
            assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
            if status == "fail" || (status == "warn" && worst == "ok") {
                worst = status;
            }
        }
        assert_eq!(found.object["status"], worst);
        let expected = if worst == "fail" { 1 } else { 0 };
        if !found.names().is_subset(&BTreeSet::from(["configuration"])) {
            assert_eq!(found.code, Some(expected), "{}", found.text);
        }
        let secrets = [VAULT_KEY, OPERATOR_KEY, "demo-client-secret", "1//demo"];
        for secret in secrets {
            assert!(!found.text.contains(secret), "{secret}");
        }
        found
    }

    fn checks(&self) -> &[Value] {
        self.object["checks"].as_array().unwrap()
    }

    fn names(&self) -> BTreeSet<&str> {
        let checks = self.checks().iter();
        checks
            .map(|check| check["name"].as_str().unwrap())
            .collect()
    }

    /// Those that stand otherwise than well, by name.
    fn not_ok(&self) -> BTreeMap<&str, &str> {
        let checks = self.checks().iter();
        let told = checks.map(|check| {
            let text = |member: &str| check[member].as_str().unwrap();
            (text("name"), text("status"))
        });
        told.filter(|(_, status)| *status != "ok").collect()
    }

    /// Fails unless one check of this name stands so and says all of this.
    fn assert(&self, name: &str, status: &str, words: &[&str]) {
        let fits = |check: &Value| {
            let text = check.to_string().replace("\\\"", "\"");
            check["name"] == name
                && check["status"] == status
                && words.iter().all(|word| text.contains(word))
        };
        let fitting = self.checks().iter().any(fits);
        assert!(
            fitting,
            "no {name} {status} with {words:?}: {:#}",
            self.object
        );
    }
}

/// A world with a vault; what is said of Secret Manager has tests of its own.
async fn world() -> World {
    let mut world = World::embedded(small_mailbox(5)).await;
    world.keep_in_vault();
    world
}

/// A world whose folder was set up, with one connected account; nothing runs in it.
async fn lived_in() -> (World, String) {
    let mut world = world().await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    server.stop().await;
    world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:9");
    (world, integration)
}

/// Every file below a folder: its mode and what it holds.
fn snapshot(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let name = path.to_str().unwrap().to_owned();
            if path.is_dir() {
                files.insert(name, (mode, Vec::new()));
                folders.push(path);
            } else {
                files.insert(name, (mode, fs::read(&path).unwrap()));
            }
        }
    }
    files
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_start_it_says_what_is_to_come_and_makes_nothing() {
    let mut world = world().await;
    let variables = ["CLIENT_ID", "CLIENT_SECRET"];
    for variable in variables {
        world.unset(&format!("NUCLEUS_SERVICES__GMAIL__{variable}"));
    }
    world.unset("NUCLEUS_HTTP__LISTEN");
    world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:9");
    let found = Found::in_world(&world).await;
    found.assert("data_dir", "skip", &["made by the first `nucleus up`"]);
    found.assert("database", "skip", &["made by the first `nucleus up`"]);
    found.assert("vault", "skip", &["made by the first `nucleus up`"]);
    found.assert("api", "skip", &["127.0.0.1:9", "not running"]);
    found.assert("client", "warn", &["gmail", "Connect your own Gmail"]);
    let uri = "http://127.0.0.1:9/integrations/gmail/oauth/callback";
    found.assert("redirect_uri", "ok", &[uri]);
    assert!(!world.data_dir().exists(), "nothing was made");
    let readme = include_str!("../../README.md");
    assert!(readme.contains("## Connect your own Gmail"));
    let lines = world.run(&["doctor"]).await.ok();
    for words in ["warn  client gmail", "mend: register one", "0 failed"] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_up_all_is_well_and_every_part_is_named() {
    let mut world = world().await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let address = server.api.url.trim_start_matches("http://").to_owned();
    world.set("NUCLEUS_HTTP__LISTEN", address);
    world.set("NUCLEUS_HTTP__PUBLIC_URL", server.api.url.clone());
    world.google.clear_requests();
    let found = Found::in_world(&world).await;
    // SQLite has no clock of its own.
    assert_eq!(found.not_ok(), BTreeMap::from([("clock", "skip")]));
    let mut parts: BTreeSet<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    assert!(parts.remove("secret_manager"), "in place of `vault`");
    assert_eq!(found.names(), parts);
    found.assert("lock", "ok", &["an `up` has"]);
    found.assert("api", "ok", &["ready"]);
    found.assert("credentials", "ok", &["those of 1 integrations"]);
    found.assert("database", "ok", &["journal wal", "synchronous full"]);
    let calls = world.google.requests();
    assert_eq!(calls.len(), 1, "a token that does not exist: {calls:?}");
    assert_eq!((calls[0].method, calls[0].status), (Method::Token, 400));

    let lines = world.run(&["doctor"]).await.ok();
    assert!(
        lines.ends_with(" 0 to look at, 0 failed, 1 not checked\n"),
        "{lines}"
    );
    assert_eq!(lines.lines().count(), found.checks().len() + 1);
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    server.stop().await;
}

/// Every row of every table but the audit log's, in words, and the rows of that.
async fn tables(world: &World) -> (Vec<String>, Vec<(String, String, String, String)>) {
    let mut database = world.database().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'audit\\_%' ESCAPE '\\'
         ORDER BY name",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut rows = Vec::new();
    for table in tables {
        let every = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"));
        for row in sqlx::query(every).fetch_all(&mut database).await.unwrap() {
            let values = (0..row.len()).map(|column| {
                let value: Option<Vec<u8>> = row.try_get_unchecked(column).unwrap();
                value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            });
            rows.push(format!("{table} {:?}", values.collect::<Vec<_>>()));
        }
    }
    let audit = "SELECT action, outcome, actor, interface FROM audit_log ORDER BY id";
    let audit = sqlx::query_as(audit).fetch_all(&mut database).await;
    (rows, audit.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_left_as_it_was_and_what_was_read_is_written_down() {
    let (world, _) = lived_in().await;
    let files = || {
        let mut files = snapshot(&world.data_dir());
        files.retain(|name, _| !name.contains("nucleus.db"));
        files
    };
    let (before, (rows, log)) = (files(), tables(&world).await);
    let found = Found::in_world(&world).await;
    assert_eq!(found.object["status"], "ok", "{:#}", found.object);
    assert!(before == files(), "{:?}", before.keys());
    let (rows_after, log_after) = tables(&world).await;
    assert_eq!(rows, rows_after);
    assert_eq!(log_after[..log.len()], log);
    let word = str::to_owned;
    let read = |outcome| {
        (
            word("secret.read"),
            word(outcome),
            word("operator"),
            word("cli"),
        )
    };
    assert_eq!(log_after[log.len()..], [read("attempt"), read("success")]);

    // What cannot be written down is not read.
    let fail = "CREATE TRIGGER no_audit BEFORE INSERT ON audit_log \
                BEGIN SELECT RAISE(ABORT, 'the audit log is broken'); END";
    sqlx::query(fail)
        .execute(&mut world.database().await)
        .await
        .unwrap();
    let found = Found::in_world(&world).await;
    found.assert("credentials", "skip", &["without a row in the audit log"]);
    assert_eq!(tables(&world).await, (rows, log_after));
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_configuration_end_it_as_every_command() {
    let mut world = world().await;
    world.set("NUCLEUS_SERVICE_HOST", "10.0.0.1");
    let found = Found::in_world(&world).await;
    found.assert("configuration", "warn", &["NUCLEUS_SERVICE_HOST"]);
    world.set("NUCLEUS_HTTP__LISTEN", "nowhere");
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "many");
    let found = Found::in_world(&world).await;
    assert_eq!(found.code, Some(2));
    assert_eq!(found.names(), BTreeSet::from(["configuration"]));
    found.assert(
        "configuration",
        "fail",
        &["NUCLEUS_HTTP__LISTEN", "nowhere"],
    );
    found.assert("configuration", "fail", &["NUCLEUS_SYNC__MAX_ATTEMPTS"]);
    let failed = world.run(&["doctor"]).await;
    failed.assert_fails(2, &["NUCLEUS_HTTP__LISTEN", "NUCLEUS_SYNC__MAX_ATTEMPTS"]);
    assert_eq!(failed.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_does_not_keep_an_up_from_starting() {
    let world = world().await;
    world.listen("up").await.stop().await;
    let mut lock = fs::File::open(world.data_dir().join("nucleus.lock")).unwrap();
    lock.lock_shared().unwrap();
    let starting = world.listen("up");
    let let_go = async {
        crate::child::moment(std::time::Duration::from_millis(60)).await;
        lock = fs::File::open("/dev/null").unwrap();
    };
    let (server, ()) = tokio::join!(starting, let_go);
    server.stop().await;
    drop(lock);
}
