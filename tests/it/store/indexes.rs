//! Frequent statements find their rows by index in PostgreSQL. The functions themselves run, on
//! well-filled tables, and the server's own count of index scans is read.

use nucleus::{
    db::{
        Db, Limits, Slicing, entity, gap,
        idempotency_key::{self, Claim, Keyed, Standing},
        integration,
        integration::Filter,
        outbox, overview, raw_data, removal, standing, sync_listing,
        sync_run::{self, WorkerId},
    },
    demo::generate,
    domain::{RunId, ServiceName, event::encode_position, sync::Scope},
};
use serde_json::json;

use super::{
    super::{child::World, db::TestDb},
    at, connect_gmail, strings,
};

/// Runs `body` on a connection of its own and asserts that it scanned `index`.
async fn uses(test: &TestDb, index: &str, body: impl AsyncFnOnce(&Db)) {
    let before = scans(test, index).await;
    let db = Db::connect(&test.url, Limits::of(1)).await.unwrap();
    body(&db).await;
    // What a connection counted is told when it ends, at the latest.
    db.close().await.unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'nucleus-index-test'";
    while test.number(running).await > 0 {}
    let after = scans(test, index).await;
    assert!(after > before, "{index} was not used");
}

async fn scans(test: &TestDb, index: &str) -> i64 {
    test.number(&format!(
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
    ))
    .await
}

/// Enough rows that reading a whole table costs more than an index does.
const ROWS: &str = "
    INSERT INTO entity (id, name) SELECT gen_random_uuid(), 'e' FROM generate_series(1, 500);
    INSERT INTO entity_integrations (id, entity_id, service_name, credential_type, status,
            next_sync_at, scopes, config, sync_settings, meta_data, created_at, updated_at)
        SELECT gen_random_uuid(), entity.id, service, 'oauth2',
            CASE WHEN random() < 0.1 THEN 'error' ELSE 'active' END,
            timestamptz '2026-09-21' + random() * interval '365 days',
            '[]', '{}', '{}', '{}', now(), now()
        FROM entity, unnest(ARRAY['gmail', 'github', 'slack', 'notion', 'spotify']) AS service;
    INSERT INTO raw_data (id, entity_id, integration_id, external_id, data_type, meta_data)
        SELECT gen_random_uuid(), entity_id, id, 'm' || number, 'email', '{}'
        FROM entity_integrations, generate_series(1, 12) AS number;
    INSERT INTO sync_runs (id, integration_id, entity_id, service_name, kind, triggered_by, mode,
            status, counts, requested_at, lease_until)
        SELECT gen_random_uuid(), id, entity_id, service_name, 'sync', 'schedule', 'full',
            CASE number WHEN 1 THEN (ARRAY['queued', 'running'])[1 + random()::int]
                ELSE 'success' END, '{}', now(), 9e15
        FROM entity_integrations, generate_series(1, 4) AS number
        WHERE number > 1 OR random() < 0.01;
    INSERT INTO sync_listing (run_id, external_id, outcome)
        SELECT id, 'm' || number, 'stored'
        FROM (SELECT id FROM sync_runs LIMIT 5) AS run, generate_series(1, 4000) AS number;
    INSERT INTO sync_gaps (integration_id, external_id, reason, detail, attempts, given_up, run_id,
            first_failed_at, last_failed_at)
        SELECT id, 'm1', 'fetch_failed', '', 1, false, gen_random_uuid(), now(), now()
        FROM entity_integrations;
    INSERT INTO outbox (id, topic, event_type, entity_id, integration_id, service_name, data,
            created_at, state, available_at, published_at, position)
        SELECT gen_random_uuid(), 'nucleus-dna-analysis', 'x', gen_random_uuid(),
            gen_random_uuid(), 'gmail', '{}', now(), 'published', 0,
            timestamptz '2026-09-21' + number * interval '1 minute', number
        FROM generate_series(1, 8000) AS number;
    INSERT INTO outbox (id, topic, event_type, entity_id, integration_id, service_name, data,
            created_at, state, available_at)
        SELECT gen_random_uuid(), 'nucleus-sync-requests', 'x', gen_random_uuid(),
            gen_random_uuid(), 'gmail', '{}', now(), 'pending', 9e15
        FROM generate_series(1, 200) AS number";

/// A well-filled database, at an address by which its connections can be told from the test's own.
async fn database() -> TestDb {
    let mut test = TestDb::postgres().await;
    test.sql(ROWS).await;
    test.sql("ANALYZE").await;
    test.url.push_str("?application_name=nucleus-index-test");
    test
}

#[tokio::test]
async fn schedules_and_integrations_are_found_by_index() {
    let test = database().await;
    for index in [
        "entity_integrations_next_sync_at",
        "entity_integrations_next_retry_at",
    ] {
        uses(&test, index, async |db| {
            standing::due(db, at(1), 5).await.unwrap();
        })
        .await;
    }
    uses(&test, "entity_integrations_unscheduled", async |db| {
        let services = [ServiceName::Gmail, ServiceName::Github];
        standing::schedule_forgotten(db, services.into_iter(), at(1))
            .await
            .unwrap();
    })
    .await;
    let row = connect_gmail(&test.db).await;
    uses(&test, "entity_integrations_pkey", async |db| {
        integration::find(db, Scope::Entity(row.entity_id), row.id)
            .await
            .unwrap();
    })
    .await;
    let page = Slicing {
        after: None,
        limit: 5,
    };
    uses(&test, "entity_integrations_pkey", async |db| {
        integration::list(db, Scope::Operator, &Filter::default(), page)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn requests_and_events_are_found_by_index() {
    let test = database().await;
    let row = connect_gmail(&test.db).await;
    let tx = test.db.begin().await.unwrap();
    let request = super::request(&row, RunId::new());
    outbox::append_sync_request(&tx, &request, None, at(0), at(0))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    uses(&test, "outbox_pending", async |db| {
        let leased = outbox::lease_sync_request(db, WorkerId::new(), at(1))
            .await
            .unwrap();
        assert!(leased.is_some());
    })
    .await;
    uses(&test, "outbox_leased", async |db| {
        let tx = db.begin().await.unwrap();
        outbox::free_abandoned(&tx, false).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    for scope in [Scope::Operator, Scope::Entity(row.entity_id)] {
        uses(&test, "outbox_position", async |db| {
            outbox::events_after(db, scope, 0, 50).await.unwrap();
        })
        .await;
    }
    uses(&test, "outbox_position", async |db| {
        outbox::purge(db, at(1), 50).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn records_are_found_by_index() {
    let test = database().await;
    let row = connect_gmail(&test.db).await;
    let ids = strings(&["m1", "m2"]);
    uses(&test, "raw_data_external_id", async |db| {
        raw_data::stored_ids(db, row.id, &ids).await.unwrap();
    })
    .await;
    uses(&test, "raw_data_external_id", async |db| {
        let tx = db.begin().await.unwrap();
        raw_data::lookup(&tx, row.id, &ids).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    let page = Slicing {
        after: None,
        limit: 5,
    };
    uses(&test, "raw_data_integration_id", async |db| {
        raw_data::list(db, Scope::Operator, row.id, false, page)
            .await
            .unwrap();
    })
    .await;
    for index in ["raw_data_integration_id", "raw_data_former_integration_id"] {
        uses(&test, index, async |db| {
            let tx = db.begin().await.unwrap();
            removal::release_some(&tx, row.id, 5).await.unwrap();
            removal::adopt(&tx, row.id, row.id, 5).await.unwrap();
            removal::delete_some(&tx, row.id, 5).await.unwrap();
            tx.commit().await.unwrap();
        })
        .await;
    }
    // Removing the row takes along what is left, by the same index.
    uses(&test, "raw_data_of_entity", async |db| {
        let tx = db.begin().await.unwrap();
        removal::delete_of_entity(&tx, row.entity_id, 5)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    uses(&test, "raw_data_of_entity", async |db| {
        let tx = db.begin().await.unwrap();
        entity::delete(&tx, row.entity_id).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn runs_and_what_they_leave_are_found_by_index() {
    let test = database().await;
    let row = connect_gmail(&test.db).await;
    uses(&test, "sync_runs_one_active", async |db| {
        let tx = db.begin().await.unwrap();
        sync_run::active(&tx, row.id).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    uses(&test, "sync_runs_one_active", async |db| {
        sync_run::count_active(db).await.unwrap();
    })
    .await;
    uses(&test, "sync_runs_lease_until", async |db| {
        let tx = db.begin().await.unwrap();
        sync_run::free_abandoned(&tx, false).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    let page = Slicing {
        after: None,
        limit: 5,
    };
    uses(&test, "sync_runs_integration_id", async |db| {
        sync_run::list(db, Scope::Operator, row.id, page)
            .await
            .unwrap();
    })
    .await;
    uses(&test, "sync_listing_pkey", async |db| {
        sync_listing::sweep(db, 50).await.unwrap();
    })
    .await;
    uses(&test, "sync_gaps_open", async |db| {
        gap::open(db, row.id, RunId::new(), 50).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn requests_under_a_key_are_found_by_index() {
    let test = database().await;
    test.sql(
        "INSERT INTO idempotency_keys (id, caller, method, path, idempotency_key, fingerprint, fence,
                lease_until, created_at)
            SELECT gen_random_uuid(), 'operator', 'POST', '/entities', 'k' || number, 'f', 1, 1,
                timestamptz '2026-09-21' + number * interval '1 minute'
            FROM generate_series(1, 8000) AS number;
         ANALYZE idempotency_keys",
    )
    .await;
    let keyed = Keyed {
        caller: "operator".into(),
        method: "POST".into(),
        path: "/entities".into(),
        key: "k7".into(),
        fingerprint: "f".into(),
    };
    let by_key = "idempotency_keys_caller_method_path_idempotency_key_key";
    uses(&test, by_key, async |db| {
        let found = idempotency_key::look(db, &keyed, at(0)).await.unwrap();
        assert_eq!(found, Standing::Free);
    })
    .await;
    uses(&test, by_key, async |db| {
        let lease = std::time::Duration::from_secs(60);
        let claim = idempotency_key::claim(db, &keyed, at(0), lease).await;
        assert_eq!(claim.unwrap().unwrap().fence, 2);
    })
    .await;
    uses(&test, "idempotency_keys_pkey", async |db| {
        let claim = Claim {
            id: uuid::Uuid::now_v7(),
            fence: 1,
        };
        idempotency_key::free(db, claim).await.unwrap();
    })
    .await;
    uses(&test, "idempotency_keys_created_at", async |db| {
        let later = at(0) + idempotency_key::KEPT;
        idempotency_key::purge(db, later, 5).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_watches_is_found_by_index() {
    let test = database().await;
    test.sql(
        "INSERT INTO sync_gaps (integration_id, external_id, reason, detail, attempts, given_up,
                run_id, first_failed_at, last_failed_at)
            SELECT id, 'old' || number, 'fetch_failed', '', 5, true, gen_random_uuid(), now(), now()
            FROM entity_integrations, generate_series(1, 10) AS number;
         UPDATE sync_runs SET lease_until = 0 WHERE status = 'running'",
    )
    .await;
    test.sql("VACUUM (ANALYZE)").await;
    for index in [
        "sync_runs_one_active",
        "sync_runs_lease_until",
        "outbox_pending",
        "sync_gaps_open",
        "entity_integrations_standing",
        "entity_integrations_next_sync_at",
        "entity_integrations_next_retry_at",
    ] {
        uses(&test, index, async |db| {
            let found = overview::overview(db, at(1)).await.unwrap();
            let counted: i64 = found.integrations.iter().map(|found| found.count).sum();
            assert_eq!(counted, 2500);
        })
        .await;
    }
}

/// Whatever the program does in a day, no statement of it reads a large table from end to end: the
/// server counts that, whichever statement it was.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_program_reads_no_large_table_from_end_to_end() {
    let mut test = database().await;
    // What the rows stand for is not the program's to do.
    test.sql(
        "UPDATE entity_integrations SET next_sync_at = next_sync_at + interval '50 years';
         UPDATE event_position SET position = 8000;
         UPDATE outbox SET published_at = now() WHERE state = 'published';
         SELECT pg_stat_force_next_flush()",
    )
    .await;
    // The program's own pass empties `sync_listing`, and a table that the server has found to be empty is rightly
    // read from end to end: it is not to look in the middle.
    for table in [
        "entity_integrations",
        "outbox",
        "raw_data",
        "sync_gaps",
        "sync_listing",
        "sync_runs",
    ] {
        test.sql(&format!(
            "ALTER TABLE {table} SET (autovacuum_enabled = off)"
        ))
        .await;
    }
    test.sql("VACUUM (ANALYZE)").await;
    // What was counted so far is told now, by each connection that did it, and not in the middle.
    test.sql("SELECT pg_stat_force_next_flush()").await;
    test.url = test
        .url
        .replace("nucleus-index-test", "nucleus-index-test-program");
    let mut world = World::embedded(generate::bench_mailbox(300, 600)).await;
    world.set("NUCLEUS_DATABASE__URL", &test.url);
    let before = whole_reads(&test).await;
    let server = world.listen("up").await;
    let api = &server.api;
    let integration = api.connect(&world).await;
    let found = api.get(&format!("/integrations/{integration}")).await;
    let entity = format!("/entities/{}", found["entity_id"].as_str().unwrap());
    let success = async || {
        let run = api.sync(&integration).await;
        let run = api.ended(&run).await;
        assert_eq!(run["status"], "success", "{run}");
    };
    success().await;
    world.google.with_mailbox(|mailbox| {
        let ids = mailbox.ids();
        mailbox.delete(&ids[0]);
        mailbox.relabel(&ids[1], &["STARRED"], &["INBOX"]);
        mailbox.deliver(generate::arrival(1, 1), &["INBOX"]);
    });
    success().await;
    world
        .google
        .with_mailbox(|mailbox| mailbox.expire_history());
    success().await;
    api.post_under("a key", "/entities", &json!({"name": "Somebody"}))
        .await
        .unwrap();
    // After the events that only fill the table.
    let path = format!("/events?cursor={}", encode_position(8000));
    assert!(!api.get(&path).await["items"].as_array().unwrap().is_empty());
    for path in ["/entities", "/integrations/", "/integrations/?status=error"] {
        api.get(path).await;
    }
    for rest in ["", "/runs", "/records"] {
        api.get(&format!("/integrations/{integration}{rest}")).await;
    }
    world.run(&["tick"]).await.ok();
    // What was erased and what arrived count as well.
    let path = format!("/integrations/{integration}?data=delete");
    let (status, answer) = api.try_send("DELETE", &path, None).await.unwrap();
    assert_eq!((status, &answer["records"]), (200, &json!(301)), "{answer}");
    let (status, _) = api.try_send("DELETE", &entity, None).await.unwrap();
    assert_eq!(status, 200);
    server.stop().await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'nucleus-index-test-program'";
    while test.number(running).await > 0 {}
    assert_eq!(whole_reads(&test).await, before);
}

/// How often each large table was read from end to end.
async fn whole_reads(test: &TestDb) -> Vec<String> {
    test.column(
        "SELECT relname || ' ' || seq_scan FROM pg_stat_user_tables
         WHERE schemaname = 'dna' AND relname IN ('raw_data', 'outbox', 'sync_runs', 'sync_listing',
            'sync_gaps', 'entity_integrations')
         ORDER BY relname",
    )
    .await
}
