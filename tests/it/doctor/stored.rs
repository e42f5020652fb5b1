//! What the doctor says of folder, vault and database, and of what is stuck in it.

use std::fs;

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::{Found, lived_in, set_mode, snapshot, world};
use crate::{db::PostgresDatabase, takeover::VAULT_KEY};

#[tokio::test(flavor = "multi_thread")]
async fn folder_key_and_sealed_files_that_cannot_be_used_are_named() {
    let (mut world, _) = lived_in().await;
    let data_dir = world.data_dir();
    let key_file = data_dir.join("vault.key");
    set_mode(&data_dir, 0o755);
    let found = Found::in_world(&world).await;
    let mend = format!("chmod 700 {}", data_dir.display());
    found.assert("data_dir", "warn", &["0755", &mend]);
    set_mode(&data_dir, 0o700);

    set_mode(&key_file, 0o644);
    let found = Found::in_world(&world).await;
    found.assert("vault", "fail", &["0644", "chmod 600"]);
    found.assert("credentials", "fail", &["1 integrations", "put the vault"]);
    set_mode(&key_file, 0o600);
    set_mode(&data_dir.join("vault"), 0o750);
    let found = Found::in_world(&world).await;
    found.assert("vault", "fail", &["0750", "chmod 700"]);
    set_mode(&data_dir.join("vault"), 0o700);

    let away = world.folder.path().join("away");
    fs::rename(&key_file, &away).unwrap();
    let found = Found::in_world(&world).await;
    found.assert("vault", "fail", &["is missing", "put it back"]);
    assert!(!key_file.exists(), "no other key was made");
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    let found = Found::in_world(&world).await;
    found.assert("vault", "fail", &["sealed with key", "give the key"]);
    world.unset("NUCLEUS_SECRETS__VAULT_KEY");
    fs::write(&key_file, "not a key").unwrap();
    set_mode(&key_file, 0o600);
    let found = Found::in_world(&world).await;
    found.assert("vault", "fail", &["is not base64", "openssl rand"]);
    fs::rename(&away, &key_file).unwrap();

    let sealed = snapshot(&data_dir.join("vault"));
    let (file, (_, bytes)) = sealed
        .iter()
        .find(|(name, _)| name.ends_with("gmail/1"))
        .unwrap();
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(file, damaged).unwrap();
    let found = Found::in_world(&world).await;
    found.assert("vault", "ok", &[]);
    found.assert("credentials", "fail", &["1 of 1", "they are damaged"]);
    fs::remove_file(file).unwrap();
    let found = Found::in_world(&world).await;
    found.assert(
        "credentials",
        "fail",
        &["they are missing", "connect the acc"],
    );
    fs::remove_dir_all(data_dir.join("vault")).unwrap();
    let found = Found::in_world(&world).await;
    found.assert("credentials", "fail", &["1 integrations", "put the vault"]);

    let file = world.folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let mut command = world.command(&["doctor", "--json"]);
    command.env("NUCLEUS_DATA_DIR", &file);
    let mut child = crate::child::Child::spawn(command);
    let status = child.exit(crate::child::PATIENCE).await;
    let stdout = child.finished(status).stdout;
    assert!(
        stdout.contains("is no folder") && stdout.contains("--data-dir"),
        "{stdout}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_named() {
    let (world, _) = lived_in().await;
    let file = world.data_dir().join("nucleus.db");
    let good = fs::read(&file).unwrap();

    let mut database = world.database().await;
    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m999_more', 0)";
    database.execute(newer).await.unwrap();
    database.close().await.unwrap();
    let found = Found::in_world(&world).await;
    found.assert("schema", "fail", &["m999_more", "use that version"]);
    found.assert("integrations", "skip", &["the schema is another"]);
    let mut database = world.database().await;
    let older = "DELETE FROM seaql_migrations WHERE version LIKE 'm999%' OR version LIKE 'm010%'";
    database.execute(older).await.unwrap();
    database
        .execute("PRAGMA journal_mode = delete")
        .await
        .unwrap();
    database.close().await.unwrap();
    let found = Found::in_world(&world).await;
    found.assert("schema", "fail", &["lacks m010", "run `nucleus migrate`"]);
    found.assert("database", "warn", &["journal delete", "local disk"]);
    assert!(fs::read(&file).unwrap().len() >= good.len());

    let mut damaged = good.clone();
    let last_page = damaged.len() - 4096;
    damaged[last_page..].fill(0xa5);
    fs::write(&file, damaged).unwrap();
    let found = Found::in_world(&world).await;
    found.assert("integrity", "fail", &["put a copy of the database back"]);

    fs::write(&file, "a shopping list, not a database at all; ".repeat(99)).unwrap();
    let found = Found::in_world(&world).await;
    found.assert("database", "fail", &["not a database", "put a copy back"]);
    found.assert("queue", "skip", &["cannot be used"]);

    fs::write(&file, good).unwrap();
    let mut database = world.database().await;
    database.execute("BEGIN IMMEDIATE").await.unwrap();
    let found = Found::in_world(&world).await;
    found.assert("database", "fail", &["no transaction can begin", "locked"]);
    database.execute("ROLLBACK").await.unwrap();
    found.assert("schema", "ok", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_is_told_with_what_to_do() {
    let (world, integration) = lived_in().await;
    let mut database = world.database().await;
    for statement in [
        // A worker that is gone, a request that nobody takes, a sync that nobody asks for.
        "UPDATE sync_runs SET status = 'running', lease_until = 1",
        "INSERT INTO outbox (id, topic, event_type, entity_id, integration_id, service_name, data,
            created_at, state, available_at)
         SELECT randomblob(16), 'nucleus-sync-requests', 'x', entity_id, id, 'gmail', '{}',
            created_at, 'pending', 1 FROM entity_integrations",
        "INSERT INTO dead_letters (id, topic, event_type, entity_id, integration_id, run_id, data,
            attempts, reason, parked_at)
         SELECT randomblob(16), 'nucleus-sync-requests', 'x', entity_id, id, randomblob(16), '{}',
            10, 'the disk was full\nok', created_at FROM entity_integrations",
        "INSERT INTO secret_intents (id, secret_name, created_at)
         VALUES (randomblob(16), 'nucleus-credentials-x-gmail', '2020-01-01T00:00:00+00:00')",
        "UPDATE entity_integrations SET status = 'error', next_sync_at = '2020-01-01T00:00:00+00:00',
            sync_error_message = 'no permission to read'",
    ] {
        let done = sqlx::query(statement).execute(&mut database).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{statement}");
    }
    let found = Found::in_world(&world).await;
    assert_eq!(
        found.object["status"], "warn",
        "none of it is the program's fault"
    );
    found.assert(
        "runs",
        "warn",
        &["the workers of 1 are gone", "nucleus work"],
    );
    found.assert(
        "queue",
        "warn",
        &["1 sync requests due", "start `nucleus up`"],
    );
    found.assert("schedule", "warn", &["1 integrations", "nucleus tick"]);
    found.assert(
        "dead_letters",
        "warn",
        &["the disk was full", "dead-letter redrive"],
    );
    found.assert("secret_intents", "warn", &["1 versions", "nucleus tick"]);
    let named = ["1 error", integration.as_str(), "no permission to read"];
    found.assert("integrations", "warn", &named);
    // A text of somebody else begins no line.
    let lines = world.run(&["doctor"]).await.ok();
    assert!(lines.contains("the disk was full\\nok"), "{lines}");

    for (status, mend) in [
        ("revoked", "connect the account again"),
        ("expired", "connect the account again"),
        ("active", "sync_error_message"),
    ] {
        let update = format!(
            "UPDATE entity_integrations SET status = '{status}', last_sync_status = 'failed'"
        );
        sqlx::query(AssertSqlSafe(update))
            .execute(&mut database)
            .await
            .unwrap();
        let found = Found::in_world(&world).await;
        found.assert("integrations", "warn", &[status, mend]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_looked_at_for_what_keeps_commits() {
    let mut world = world().await;
    let postgres = PostgresDatabase::create().await;
    world.set("NUCLEUS_DATABASE__URL", postgres.url.clone());
    let found = Found::in_world(&world).await;
    found.assert("schema", "fail", &["lacks m001", "run `nucleus migrate`"]);
    let mut conn = sqlx::PgConnection::connect(&postgres.url).await.unwrap();
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'dna'";
    let made: i64 = sqlx::query_scalar(schemas)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(made, 0, "nothing was made");

    world.run(&["migrate"]).await.ok();
    let name = postgres.url.rsplit('/').next().unwrap().to_owned();
    for (setting, status, word) in [
        (
            "synchronous_commit = off",
            "fail",
            "synchronous_commit = on",
        ),
        ("synchronous_commit = on", "warn", "fsync"),
        (
            "default_transaction_read_only = on",
            "fail",
            "takes no writes",
        ),
    ] {
        let alter = format!("ALTER DATABASE {name} SET {setting}");
        sqlx::query(AssertSqlSafe(alter))
            .execute(&mut conn)
            .await
            .unwrap();
        let found = Found::in_world(&world).await;
        found.assert("database", status, &["PostgreSQL 1", word]);
        found.assert("connections", "ok", &["of 297", "up to 10"]);
        found.assert("schema", "ok", &["current"]);
        found.assert("integrity", "skip", &["PostgreSQL"]);
        found.assert("clock", "ok", &["the database"]);
        found.assert("integrations", "ok", &["0 active"]);
    }
    for (pool, status) in [("297", "warn"), ("298", "fail")] {
        world.set("NUCLEUS_DATABASE__MAX_CONNECTIONS", pool);
        let found = Found::in_world(&world).await;
        found.assert(
            "connections",
            status,
            &[
                &format!("up to {pool}"),
                "NUCLEUS_DATABASE__MAX_CONNECTIONS",
            ],
        );
    }
    let mut nowhere = url::Url::parse(&postgres.url).unwrap();
    nowhere.set_path("nucleus_test_nowhere");
    world.set("NUCLEUS_DATABASE__URL", nowhere.to_string());
    let found = Found::in_world(&world).await;
    found.assert(
        "database",
        "fail",
        &["nucleus_test_nowhere", "start the server"],
    );
    let password = nowhere.password().unwrap();
    assert!(!found.text.contains(password));
}
