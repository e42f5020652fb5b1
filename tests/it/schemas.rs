//! The JSON Schemas of the messages, and every message held against them.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{
    doubles::small_mailbox,
    harness::{Setting, TestApp},
};

const SYNC_REQUESTED: &str = include_str!("../../schemas/dev.nucleus.sync.requested.v1.json");
const DNA_ANALYSIS: &str = include_str!("../../schemas/dev.nucleus.dna.analysis_requested.v1.json");

static SYNC_REQUESTED_V1: LazyLock<Validator> = LazyLock::new(|| read(SYNC_REQUESTED));
static DNA_ANALYSIS_V1: LazyLock<Validator> = LazyLock::new(|| read(DNA_ANALYSIS));

fn read(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Fails unless the event is what the schema of its type says.
pub fn assert_event(event: &Value) {
    assert_valid(&DNA_ANALYSIS_V1, event);
}

fn assert_valid(schema: &Validator, message: &Value) {
    let errors: Vec<String> = schema
        .iter_errors(message)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {message:#}");
}

/// Holds every sync request in the outbox against its schema; says how many there are.
pub async fn assert_sync_requests(app: &TestApp) -> usize {
    let rows = app
        .rows(
            "SELECT json_object('id', lower(hex(id)), 'type', event_type, 'service', service_name,
                'data', json(data)) FROM outbox WHERE topic = 'nucleus-sync-requests'",
            "SELECT json_build_object('id', replace(id::text, '-', ''), 'type', event_type,
                'service', service_name, 'data', data)::text
             FROM dna.outbox WHERE topic = 'nucleus-sync-requests'",
        )
        .await;
    for row in &rows {
        let row: Value = serde_json::from_str(row).unwrap();
        let id: uuid::Uuid = row["id"].as_str().unwrap().parse().unwrap();
        let data = &row["data"];
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": format!("nucleus/{}", row["service"].as_str().unwrap()),
            "type": row["type"],
            "subject": data["integration_id"],
            "time": data["requested_at"],
            "datacontenttype": "application/json",
            "data": data,
        });
        assert_valid(&SYNC_REQUESTED_V1, &event);
    }
    rows.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_and_told_is_what_the_schemas_say() {
    let app = Setting::new(small_mailbox(3)).start().await;
    let id = app.connect().await;
    app.request_sync(&id).await;
    assert_eq!(assert_sync_requests(&app).await, 1);
    app.drain().await;
    assert_eq!(assert_sync_requests(&app).await, 0);
    let events = app.all("/events").await;
    // One, or two where the machine stood still for a while.
    let records = events
        .iter()
        .map(|event| event["data"]["records"].as_array().unwrap().len());
    assert_eq!(records.sum::<usize>(), 3);
    let mut event = events[0].clone();
    assert_event(&event);
    event["data"]["records"][0]["subject"] = json!("content has no place here");
    assert!(!DNA_ANALYSIS_V1.is_valid(&event));
    let mut event = events[0].clone();
    event["data"]["records"] = json!([]);
    assert!(!DNA_ANALYSIS_V1.is_valid(&event));
    let mut event = events[0].clone();
    event["data"]["trust"] = json!("trusted");
    assert!(!DNA_ANALYSIS_V1.is_valid(&event));
}
