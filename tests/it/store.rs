//! The store, on SQLite and PostgreSQL, by the same test bodies: what each table keeps, who may see
//! it, and what happens when many write at once.

#![expect(clippy::unwrap_used, reason = "tests")]

mod audit;
mod disconnections;
mod idempotency;
mod indexes;
mod integrations;
mod integrations_state;
mod ledgers;
pub mod migrations;
mod outbox;
mod outbox_order;
mod records;
mod records_missing;
mod relay;
mod runs;
mod runs_races;
mod weather;

use chrono::{DateTime, Utc};
use nucleus::{
    db::{
        Db, Limits, Slicing, entity,
        integration::{self, Integration},
        raw_data, sync_run,
    },
    domain::{
        EntityId, IntegrationId, RecordId, RunId, ServiceName,
        record::{Change, ChangedRecord},
        sync::{Mode, Scope, SyncRequested, Trigger},
    },
};
use serde_json::json;

use crate::child::PATIENCE;

/// Text that quoting, encoding or collation could spoil.
const AWKWARD: &str = "O'Brien \"q\" \\ $1 ? % _ \u{1f9ec} é e\u{301} ß 漢字 \u{202e}\t\n;--";

/// A time with microseconds, `seconds` after a fixed one.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456 + seconds * 1_000_000).unwrap()
}

fn first(limit: u64) -> Slicing {
    Slicing { after: None, limit }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// So many connections for a crowd, whose last one is waited for as long as the machine takes.
fn patient(max_connections: u32) -> Limits {
    Limits {
        acquire_timeout: PATIENCE,
        lock_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        ..Limits::of(max_connections)
    }
}

async fn add_entity(db: &Db, name: &str) -> EntityId {
    let row = entity::Entity {
        id: EntityId::new(),
        name: name.to_owned(),
        created_at: at(0),
    };
    let tx = db.begin().await.unwrap();
    entity::insert(&tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    row.id
}

/// An integration that is not in the database yet.
fn integration_of(entity_id: EntityId, service: ServiceName) -> Integration {
    Integration {
        id: IntegrationId::new(),
        entity_id,
        service_name: service.to_string(),
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
        next_sync_at: None,
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
        created_at: at(0),
        updated_at: at(0),
        created_by: None,
    }
}

/// An account that people know by what names it for good.
fn named(account: &str) -> integration::Named<'_> {
    integration::Named {
        id: account,
        name: account,
    }
}

async fn add_integration(db: &Db, row: Integration) -> Integration {
    let tx = db.begin().await.unwrap();
    integration::insert(&tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    row
}

/// A new entity with Gmail connected.
async fn connect_gmail(db: &Db) -> Integration {
    let entity = add_entity(db, "Ada").await;
    add_integration(db, integration_of(entity, ServiceName::Gmail)).await
}

fn new_run(of: &Integration) -> sync_run::NewRun {
    sync_run::NewRun {
        id: RunId::new(),
        integration_id: of.id,
        entity_id: of.entity_id,
        service_name: of.service_name.clone(),
        trigger: Trigger::Manual,
        mode: Mode::Full,
        requested_at: at(0),
        confirm_mass_deletion: false,
        traceparent: None,
    }
}

async fn add_run(db: &Db, of: &Integration) -> RunId {
    let run = new_run(of);
    let tx = db.begin().await.unwrap();
    sync_run::insert(&tx, &run).await.unwrap();
    tx.commit().await.unwrap();
    run.id
}

async fn claim(db: &Db, run: RunId) -> Option<sync_run::Claim> {
    sync_run::claim(db, run, sync_run::WorkerId::new(), at(1))
        .await
        .unwrap()
}

async fn run_status(db: &Db, run: RunId) -> String {
    sync_run::find(db, Scope::Operator, run)
        .await
        .unwrap()
        .status
}

fn request(of: &Integration, run_id: RunId) -> SyncRequested {
    SyncRequested {
        run_id,
        integration_id: of.id,
        entity_id: of.entity_id,
        service_name: of.service().unwrap(),
        trigger: Trigger::Manual,
        requested_at: at(0),
    }
}

fn new_row(of: &Integration, external_id: &str, labels: &[&str]) -> raw_data::NewRow {
    raw_data::NewRow {
        id: RecordId::new(),
        external_id: external_id.to_owned(),
        data_type: "email",
        data_content: format!("text of {external_id}"),
        meta_data: json!({
            "subject": AWKWARD, "labels": labels, "integration_id": of.id, "trust": "untrusted_external",
        }),
        content_hash: format!("hash of {external_id}"),
        message_key: None,
        imported: external_id.starts_with("mid:"),
        label_names: Vec::new(),
    }
}

async fn store(db: &Db, of: &Integration, external_ids: &[&str]) {
    let rows = external_ids.iter().map(|id| new_row(of, id, &["INBOX"]));
    let tx = db.begin().await.unwrap();
    raw_data::upsert(&tx, of.entity_id, of.id, rows.collect(), at(0))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

fn changed(count: usize) -> Vec<ChangedRecord> {
    (0..count)
        .map(|index| ChangedRecord {
            id: RecordId::new(),
            external_id: format!("m{index:04}"),
            data_type: "email".into(),
            change: Change::Created,
            content_hash: "0".repeat(64),
        })
        .collect()
}
