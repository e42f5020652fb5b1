//! The audit log at the command line: `nucleus audit verify`, on the database of a program that runs, with
//! the heads that it has logged; and what each command writes down.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use nucleus::demo::{Method, generate};
use serde_json::Value;

use crate::{
    child::{Server, World},
    contract::operations,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_told_by_the_command_and_by_the_logged_heads() {
    let mut world = World::embedded(generate::mailbox(3, 1)).await;
    world.set("NUCLEUS_TELEMETRY__FORMAT", "json");
    // Whatever else is left out of the log, the heads are not.
    world.set("NUCLEUS_TELEMETRY__FILTER", "off");
    let server = world.listen("up").await;
    let entity = server.api.entity().await;
    // A key of the operator's, so that there is a second chain.
    world.run(&["key", "create", "--operator"]).await.ok();
    // Passes with housekeeping are a minute apart; one that is asked for is made at once.
    let tick = world.run(&["tick"]).await;
    // What is written after it is logged when the program ends.
    let late = server.api.entity().await;
    let stopped = server.stop().await.stderr;
    assert!(stopped.contains(&late), "{stopped}");
    let log = format!("{stopped}{}", tick.stderr);
    assert_eq!(tick.code, Some(0), "{tick:?}");
    let file = world.folder.path().join("nucleus.log");
    std::fs::write(&file, &log).unwrap();
    let file = file.to_str().unwrap();

    let clean = world
        .run(&["audit", "verify", "--json", "--log", file])
        .await
        .ok();
    let clean: Value = serde_json::from_str(&clean).unwrap();
    assert_eq!(clean["findings"], serde_json::json!([]));
    assert!(clean["rows"].as_u64().unwrap() >= 2, "{clean}");
    let logged = clean["logged_heads"].as_u64().unwrap();
    assert_eq!(logged, log.lines().count() as u64, "{log}");
    assert!(logged >= 2, "{clean}");
    assert!(clean["newest_logged_head"].is_string(), "{clean}");

    let mut database = world.database().await;
    let removed = format!(
        "DELETE FROM audit_log WHERE chain = '{entity}'; DELETE FROM audit_heads WHERE chain = '{entity}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(removed))
        .execute(&mut database)
        .await
        .unwrap();
    world.run(&["audit", "verify"]).await.ok();
    let told = world.run(&["audit", "verify", "--log", file]).await;
    told.assert_fails(1, &["not as it was written"]);
    assert!(
        told.stdout.contains("the row of a logged head is missing"),
        "{told:?}"
    );

    sqlx::query("UPDATE audit_log SET target = 'another' WHERE position = 1")
        .execute(&mut database)
        .await
        .unwrap();
    let told = world.run(&["audit", "verify"]).await;
    told.assert_fails(1, &["not as it was written"]);
    assert!(
        told.stdout.contains("operator  row 1  it was changed"),
        "{told:?}"
    );

    let no_log = world.folder.path().join("empty.log");
    std::fs::write(&no_log, "{}\n").unwrap();
    let refused = world
        .run(&["audit", "verify", "--log", no_log.to_str().unwrap()])
        .await;
    refused.assert_fails(1, &["holds no head of an audit chain"]);
}

/// The rows of the audit log after the first `skip`: what was done, how it ended, by whom, through which
/// interface, and in whose chain.
async fn rows(world: &World, skip: usize) -> Vec<[String; 5]> {
    let all: Vec<(String, String, String, String, String)> = sqlx::query_as(
        "SELECT action, outcome, actor, interface, chain FROM audit_log ORDER BY rowid",
    )
    .fetch_all(&mut world.database().await)
    .await
    .unwrap();
    let rows = all.into_iter().skip(skip);
    rows.map(|(action, outcome, actor, interface, chain)| {
        [action, outcome, actor, interface, chain]
    })
    .collect()
}

/// A world whose folder an `up` has set up, with an API that works nothing off; a connected account with
/// its entity, a letter that was parked, and an archive of mail.
struct LivedIn {
    world: World,
    server: Server,
    entity: String,
    integration: String,
    letter: String,
    archive: String,
}

impl LivedIn {
    async fn new() -> Self {
        let mut world = World::embedded(generate::mailbox(3, 1)).await;
        world.keep_in_vault();
        world.listen("up").await.stop().await;
        let server = world.listen("serve").await;
        // What the doctor would say of a port that each start chooses.
        world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:9");
        let integration = server.api.connect(&world).await;
        let path = format!("/integrations/{integration}");
        let entity = server.api.get(&path).await["entity_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let parked = "INSERT INTO dead_letters (id, topic, event_type, entity_id, integration_id, run_id,
                data, attempts, reason, parked_at)
             SELECT randomblob(16), 'nucleus-sync-requests', 'x', entity_id, id, randomblob(16), '{}',
                10, 'lost', created_at FROM entity_integrations";
        sqlx::query(parked)
            .execute(&mut world.database().await)
            .await
            .unwrap();
        let listed = world.run(&["dead-letter", "list"]).await.ok();
        let letter = listed.split(' ').next().unwrap().to_owned();
        let archive = world.folder.path().join("archive.mbox");
        let mail = "From a@example.com Mon Jan  1 00:00:00 2024\nFrom: a@example.com\n\nHello\n";
        std::fs::write(&archive, mail).unwrap();
        let archive = archive.display().to_string();
        Self {
            world,
            server,
            entity,
            integration,
            letter,
            archive,
        }
    }
}

/// The words of all acts there are, as the source has them.
fn words() -> BTreeSet<String> {
    let source = include_str!("../../src/domain/audit.rs");
    let (_, acts) = source.split_once("impl Action {").unwrap();
    let (acts, _) = acts.split_once("\n}\n").unwrap();
    let quoted = acts.lines().filter_map(|line| line.split('"').nth(1));
    let words: BTreeSet<String> = quoted.map(str::to_owned).collect();
    assert!(words.len() > 20, "{words:?}");
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_writes_down_what_it_does_and_nothing_else() {
    let LivedIn {
        world,
        server,
        entity,
        integration,
        letter,
        archive,
    } = LivedIn::new().await;
    let made = world
        .run(&["key", "create", "--entity", &entity])
        .await
        .ok();
    assert_eq!(made.lines().count(), 1);
    let listed = world.run(&["key", "list"]).await.ok();
    let key = listed.split(' ').next().unwrap().to_owned();
    const OPERATORS: &str = "operator";
    const SECRET_READ: [&str; 2] = ["secret.read attempt", "secret.read success"];
    const ENDED: [&str; 8] = [
        "integration.disconnect success",
        "secret.read attempt",
        "secret.read success",
        "grant.revoke attempt",
        "grant.revoke success",
        "integration.change success",
        "secret.destroy attempt",
        "secret.destroy success",
    ];
    let commands: Vec<(String, i32, &str, &[&str])> = vec![
        ("key list".to_owned(), 0, "", &[]),
        ("entity list".to_owned(), 0, "", &[]),
        ("audit verify".to_owned(), 0, "", &[]),
        ("dead-letter list".to_owned(), 0, "", &[]),
        (format!("dead-letter show {letter}"), 0, "", &[]),
        ("migrate".to_owned(), 0, "", &[]),
        ("openapi".to_owned(), 0, "", &[]),
        ("tick".to_owned(), 0, "", &[]),
        (format!("key revoke {entity}"), 1, "", &[]),
        (
            "key create --operator".to_owned(),
            0,
            OPERATORS,
            &["key.create success"],
        ),
        (
            format!("key create --entity {entity}"),
            0,
            &entity,
            &["key.create success"],
        ),
        (
            format!("key revoke {key}"),
            0,
            &entity,
            &["key.revoke success"],
        ),
        (format!("key revoke {key}"), 0, "", &[]),
        (
            format!("import mbox {archive} --integration {integration}"),
            0,
            &entity,
            &["import.begin success"],
        ),
        (
            format!("dead-letter redrive {letter}"),
            0,
            &entity,
            &["dead_letter.redrive success"],
        ),
        (format!("dead-letter redrive {letter}"), 0, "", &[]),
        ("doctor".to_owned(), 0, &entity, &SECRET_READ),
        (
            "vault rotate".to_owned(),
            0,
            OPERATORS,
            &["vault.rotate attempt", "vault.rotate success"],
        ),
        ("revoke --all --service gmail".to_owned(), 2, "", &[]),
        (
            "revoke --all --service gmail --yes".to_owned(),
            0,
            &entity,
            &ENDED,
        ),
        ("revoke --all --service gmail --yes".to_owned(), 0, "", &[]),
        ("doctor".to_owned(), 0, "", &[]),
    ];
    let mut before = rows(&world, 0).await.len();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (line, code, chain, expected) in commands {
        let finished = world.run(&line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(finished.code, Some(code), "{line}: {finished:#?}");
        let new = rows(&world, before).await;
        before += new.len();
        let expected: Vec<[String; 5]> = expected
            .iter()
            .map(|act| {
                let (action, outcome) = act.split_once(' ').unwrap();
                [action, outcome, "operator", "cli", chain].map(str::to_owned)
            })
            .collect();
        assert_eq!(new, expected, "{line}");
        seen.extend(new.into_iter().map(|[action, ..]| action));
    }
    // The entity that is made is its own chain's first.
    let made = world.run(&["entity", "create", "Ada"]).await.ok();
    let row = ["entity.create", "success", "operator", "cli", made.trim()].map(str::to_owned);
    assert_eq!(rows(&world, before).await, [row]);
    before += 1;
    // At a browser it is a person who acts.
    let other = server.api.entity().await;
    server
        .api
        .connect_in_a_browser(&world, &other)
        .await
        .unwrap();
    let expected = [
        ("entity.create success", "operator"),
        ("oauth.start success", "operator"),
        ("secret.write attempt", "person"),
        ("secret.write success", "person"),
        ("integration.connect success", "person"),
    ];
    let expected = expected.map(|(act, actor)| {
        let (action, outcome) = act.split_once(' ').unwrap();
        [action, outcome, actor, "api", &other].map(str::to_owned)
    });
    assert_eq!(rows(&world, before).await, expected);
    // There is no act but those of commands and those that the document names; the tests of the API and of
    // the broker's resources show the others.
    for operation in operations() {
        let named = operation.described["x-audit"].as_array();
        let named = named
            .into_iter()
            .flatten()
            .map(|word| word.as_str().unwrap().to_owned());
        seen.extend(named);
    }
    seen.extend(["secret.write", "secret.delete", "broker.create"].map(str::to_owned));
    assert_eq!(seen, words());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_written_down_is_not_done() {
    let LivedIn {
        world,
        server,
        entity,
        integration,
        letter,
        archive,
    } = LivedIn::new().await;
    server.stop().await;
    world
        .run(&["key", "create", "--entity", &entity])
        .await
        .ok();
    let listed = world.run(&["key", "list"]).await.ok();
    let key = listed.split(' ').next().unwrap().to_owned();
    let fail = "CREATE TRIGGER no_audit BEFORE INSERT ON audit_log \
                BEGIN SELECT RAISE(ABORT, 'the audit log is broken'); END";
    sqlx::query(fail)
        .execute(&mut world.database().await)
        .await
        .unwrap();
    let look = async || {
        let mut told = Vec::new();
        for arguments in [
            &["key", "list"][..],
            &["entity", "list"],
            &["dead-letter", "list"],
        ] {
            told.push(world.run(arguments).await.ok());
        }
        let runs = "SELECT count(*) FROM sync_runs";
        let runs: i64 = sqlx::query_scalar(runs)
            .fetch_one(&mut world.database().await)
            .await
            .unwrap();
        let vault = files(&world.data_dir().join("vault"));
        let key = std::fs::read(world.data_dir().join("vault.key")).unwrap();
        (told, runs, vault, key, rows(&world, 0).await)
    };
    let before = look().await;
    let revoked = world.google.served(Method::Revoke);
    for line in [
        "key create --operator",
        &format!("key create --entity {entity}"),
        &format!("key revoke {key}"),
        "entity create Ada",
        &format!("import mbox {archive} --integration {integration}"),
        &format!("dead-letter redrive {letter}"),
        "vault rotate",
        "revoke --all --service gmail --yes",
    ] {
        let finished = world.run(&line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(finished.code, Some(1), "{line}: {finished:#?}");
        assert!(look().await == before, "{line} was done");
    }
    assert_eq!(world.google.served(Method::Revoke), revoked);
}

/// What lies in a folder, by path.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}
