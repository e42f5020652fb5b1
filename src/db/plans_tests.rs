//! How SQLite carries out what is asked of it again and again: each statement is run, and its
//! `EXPLAIN QUERY PLAN` is read. PostgreSQL's side of this is among the tests of the store.

use std::{cell::RefCell, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{
    Db, Limits, Slicing, Tx, api_key, audit_log, entity, gap, idempotency_key, integration,
    integration::{Filter, Integration},
    metric_total, oauth_session, outbox, quota_window,
    raw_data::{self, NewRow},
    removal, schema, secret_intent,
    sql::PLANS,
    standing, sync_cursor, sync_listing,
    sync_run::{self, NewRun, WorkerId},
};
use crate::domain::{
    EntityId, IntegrationId, RecordId, RunId, ServiceName,
    record::{Change, ChangedRecord},
    sync::{Counts, Mode, Scope, SyncRequested, Trigger},
};

const PAGE: Slicing = Slicing {
    after: None,
    limit: 50,
};

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

async fn in_one<T>(db: &Db, work: impl AsyncFnOnce(&Tx) -> T) -> T {
    let tx = db.begin().await.unwrap();
    let done = work(&tx).await;
    tx.commit().await.unwrap();
    done
}

async fn connect(db: &Db) -> Integration {
    let owner = entity::Entity {
        id: EntityId::new(),
        name: "Ada".to_owned(),
        created_at: now(),
    };
    let row = Integration {
        id: IntegrationId::new(),
        entity_id: owner.id,
        service_name: ServiceName::Gmail.to_string(),
        service_type: None,
        display_name: None,
        description: None,
        secret_path: None,
        credential_type: "oauth2".into(),
        status: "active".into(),
        account: None,
        account_name: None,
        account_verified: false,
        last_sync_at: None,
        last_sync_status: None,
        sync_error_message: None,
        sync_failures: 0,
        next_sync_at: Some(now()),
        token_expires_at: None,
        consent_expires_at: None,
        refresh_generation: 0,
        credentials_generation: 0,
        access_ended_at: None,
        next_check_at: None,
        scopes: json!([]),
        config: json!({}),
        sync_settings: json!({}),
        meta_data: json!({}),
        created_at: now(),
        updated_at: now(),
        created_by: None,
    };
    in_one(db, async |tx| {
        entity::insert(tx, &owner).await.unwrap();
        integration::insert(tx, &row).await.unwrap();
    })
    .await;
    row
}

/// What a worker does for one run, from its message to its end.
async fn run_once(db: &Db, of: &Integration) {
    let run = NewRun {
        id: RunId::new(),
        integration_id: of.id,
        entity_id: of.entity_id,
        service_name: of.service_name.clone(),
        trigger: Trigger::Schedule,
        mode: Mode::Full,
        requested_at: now(),
        confirm_mass_deletion: false,
        traceparent: None,
    };
    let request = SyncRequested {
        run_id: run.id,
        integration_id: of.id,
        entity_id: of.entity_id,
        service_name: ServiceName::Gmail,
        trigger: Trigger::Schedule,
        requested_at: now(),
    };
    in_one(db, async |tx| {
        integration::find_in(tx, Scope::Operator, of.id)
            .await
            .unwrap();
        sync_cursor::exists(tx, of.id).await.unwrap();
        sync_run::active(tx, of.id).await.unwrap();
        sync_run::insert(tx, &run).await.unwrap();
        sync_run::ask_again(tx, run.id, now(), false).await.unwrap();
        outbox::append_sync_request(tx, &request, None, now(), now())
            .await
            .unwrap();
    })
    .await;
    let worker = WorkerId::new();
    let leased = outbox::lease_sync_request(db, worker, now())
        .await
        .unwrap()
        .unwrap();
    let claim = sync_run::claim(db, run.id, worker, now())
        .await
        .unwrap()
        .unwrap();
    outbox::renew_lease(db, leased.id, worker).await.unwrap();
    sync_run::renew(db, run.id, claim.fence).await.unwrap();
    sync_run::cancel_requested(db, run.id).await.unwrap();
    sync_cursor::load(db, of.id, "main").await.unwrap();
    quota_window::load(db, of.id).await.unwrap();
    gap::open(db, of.id, run.id, 50).await.unwrap();
    raw_data::has_any(db, of.id).await.unwrap();
    raw_data::newest_id(db, of.id).await.unwrap();
    let ids: Vec<String> = (0..100).map(|number| format!("m{number}")).collect();
    raw_data::stored_ids(db, of.id, &ids).await.unwrap();
    let rows = ids.iter().map(|id| NewRow {
        id: RecordId::new(),
        external_id: id.clone(),
        data_type: "email",
        data_content: String::new(),
        meta_data: json!({}),
        content_hash: String::new(),
        message_key: None,
        imported: false,
        label_names: Vec::new(),
    });
    let source = outbox::Source {
        entity_id: of.entity_id,
        integration_id: of.id,
        service_name: of.service_name.clone(),
        run_id: Some(run.id),
        traceparent: None,
    };
    let changed = ChangedRecord {
        id: RecordId::new(),
        external_id: "m1".into(),
        data_type: "email".into(),
        change: Change::Created,
        content_hash: String::new(),
    };
    in_one(db, async |tx| {
        sync_run::fence(tx, run.id, claim.fence).await.unwrap();
        raw_data::lookup(tx, of.id, &ids).await.unwrap();
        sync_listing::lookup(tx, run.id, &ids).await.unwrap();
        raw_data::upsert(tx, of.entity_id, of.id, rows.collect(), now())
            .await
            .unwrap();
        gap::record(tx, of.id, run.id, "m1", "", now())
            .await
            .unwrap();
        gap::close(tx, of.id, &ids).await.unwrap();
        quota_window::save(tx, of.id, json!([])).await.unwrap();
        outbox::append_dna_events(tx, &source, vec![changed], now())
            .await
            .unwrap();
        let counts = Counts::default();
        sync_run::save_progress(tx, run.id, Mode::Full, &counts, 1, 1, true)
            .await
            .unwrap();
        raw_data::count_missing(tx, of.id, run.id, "email")
            .await
            .unwrap();
        for confirmed_only in [false, true] {
            raw_data::missing(tx, of.id, run.id, "email", confirmed_only, 100)
                .await
                .unwrap();
        }
        raw_data::listed_labels(tx, of.id, run.id, "", 100)
            .await
            .unwrap();
        gap::count_open(tx, of.id).await.unwrap();
        sync_run::requeue(tx, run.id, None, None).await.unwrap();
    })
    .await;
    outbox::ack(db, leased.id, worker).await.unwrap();
}

/// What happens by the clock.
async fn tick(db: &Db, of: &Integration) {
    let due = standing::due(db, now(), 100).await.unwrap();
    assert_eq!(due.len(), 1);
    in_one(db, async |tx| {
        standing::move_next_sync(tx, of.id, now(), now())
            .await
            .unwrap();
        outbox::free_abandoned(tx, false).await.unwrap();
        sync_run::free_abandoned(tx, false).await.unwrap();
    })
    .await;
    let services = [ServiceName::Gmail, ServiceName::Github];
    standing::schedule_forgotten(db, services.into_iter(), now())
        .await
        .unwrap();
    sync_listing::sweep(db, 100).await.unwrap();
    outbox::purge(db, now(), 100).await.unwrap();
    idempotency_key::purge(db, now(), 100).await.unwrap();
    for which in [
        oauth_session::Which::Over(now()),
        oauth_session::Which::OfEntity(of.entity_id),
    ] {
        oauth_session::waiting(db, which).await.unwrap();
    }
    oauth_session::purge(db, now(), 100).await.unwrap();
    secret_intent::has_younger(db, "name", now()).await.unwrap();
}

/// What is left of records when their connection and their owner go.
async fn remove(db: &Db, of: &Integration) {
    in_one(db, async |tx| {
        removal::release_some(tx, of.id, 500).await.unwrap();
        removal::adopt(tx, of.id, of.id, 500).await.unwrap();
        removal::delete_some(tx, of.id, 500).await.unwrap();
        removal::delete_of_entity(tx, of.entity_id, 500)
            .await
            .unwrap();
    })
    .await;
}

/// What clients ask for.
async fn answer(db: &Db, of: &Integration) {
    api_key::find(db, "hash").await.unwrap();
    for scope in [Scope::Operator, Scope::Entity(of.entity_id)] {
        entity::list(db, scope, PAGE).await.unwrap();
        audit_log::list(db, scope, None, now(), PAGE).await.unwrap();
        integration::list(db, scope, &Filter::default(), PAGE)
            .await
            .unwrap();
        integration::find(db, scope, of.id).await.unwrap();
        sync_run::list(db, scope, of.id, PAGE).await.unwrap();
        raw_data::list(db, scope, of.id, false, PAGE).await.unwrap();
        outbox::follow(db, scope, None, 50).await.unwrap();
    }
    let keyed = idempotency_key::Keyed {
        caller: "operator".into(),
        method: "POST".into(),
        path: "/entities".into(),
        key: "k".into(),
        fingerprint: "f".into(),
    };
    idempotency_key::look(db, &keyed, now()).await.unwrap();
    idempotency_key::claim(db, &keyed, now(), Duration::from_secs(9))
        .await
        .unwrap();
    oauth_session::by_state(db, "hash").await.unwrap();
}

/// Whether a step goes through all of a table. One that follows an index in order ends with the page.
fn reads_all(step: &str) -> bool {
    step.starts_with("SCAN ")
        && !step.contains(" INDEX ")
        && !step.contains("VIRTUAL TABLE")
        && !step.contains("CONSTANT ROW")
        && !step.contains("VALUES CLAUSE")
        // One row, and lists that the statement itself has made, as long as its limit.
        && !["SCAN event_position", "SCAN old", "SCAN listed"].contains(&step)
}

#[tokio::test]
async fn sqlite_finds_by_index_what_is_asked_for_again_and_again() {
    let db = Db::connect("sqlite::memory:", Limits::of(1)).await.unwrap();
    schema::migrate(&db, "sqlite::memory:").await.unwrap();
    let plans = RefCell::default();
    let plans = PLANS
        .scope(plans, async {
            let row = connect(&db).await;
            run_once(&db, &row).await;
            tick(&db, &row).await;
            answer(&db, &row).await;
            remove(&db, &row).await;
            // A statement that does read all is found.
            metric_total::all(&db).await.unwrap();
            PLANS.with(RefCell::take)
        })
        .await;
    assert!(plans.len() > 60, "{} statements", plans.len());
    let mut found = Vec::new();
    for (statement, steps) in &plans {
        for step in steps.iter().filter(|step| reads_all(step)) {
            found.push(format!("{step}: {statement}"));
        }
    }
    let planted = found.pop().unwrap();
    assert!(planted.contains("metric_totals"), "{planted}");
    assert!(found.is_empty(), "{found:#?}");
}
