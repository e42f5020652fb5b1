//! What the server decides, a client cannot: each field of an answer that is no field of the request
//! is refused in the request's body, and nothing changes.

use std::collections::BTreeSet;

use nucleus::demo::generate;
use serde_json::{Value, json};

use super::{assert_is_problem, fields, gmail};
use crate::harness::{Setting, TestApp};

fn document() -> Value {
    serde_json::from_str(include_str!("../../../openapi.json")).unwrap()
}

/// The names of a schema's properties.
fn properties(document: &Value, schema: &Value) -> BTreeSet<String> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let named = schema["properties"].as_object();
    named
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

/// Every operation with a JSON body: method, path, and the fields that only its answer has.
fn operations() -> Vec<(String, String, BTreeSet<String>)> {
    let document = document();
    let json = |content: &Value| content["content"]["application/json"]["schema"].clone();
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["post", "put", "patch"] {
            let Some(operation) = operations.get(method) else {
                continue;
            };
            let taken = properties(&document, &json(&operation["requestBody"]));
            let answers = operation["responses"].as_object().unwrap().iter();
            let given: BTreeSet<String> = answers
                .filter(|(status, _)| status.starts_with('2'))
                .flat_map(|(_, answer)| properties(&document, &json(answer)))
                .collect();
            let owned = given.difference(&taken).cloned().collect();
            found.push((method.to_uppercase(), path.clone(), owned));
        }
    }
    found
}

/// A body that would be good, for operations that need one.
fn good_body(app: &TestApp, path: &str, entity: &str) -> Value {
    match path {
        "/entities" => json!({"name": "x"}),
        "/integrations/" => gmail(app, entity),
        "/integrations/{service}/oauth/start" => json!({"entity_id": entity}),
        "/integrations/{service}/oauth/callback" => json!({"state": "s", "code": "c"}),
        _ => json!({}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_owns_no_body_changes() {
    let app = Setting::new(generate::mailbox(5, 3)).start().await;
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    app.sync(&integration).await;
    let run = app.request_sync(&integration).await;
    let another = app.entity().await;
    let state = async || {
        json!({
            "entities": app.all("/entities").await,
            "integrations": app.all("/integrations").await,
            "runs": app.all(&format!("/integrations/{integration}/runs")).await,
            "records": app.records(&integration).await,
            "calls": app.google.requests().len(),
        })
    };
    let before = state().await;
    let mut tried = 0;
    for (method, path, owned) in operations() {
        let id = if path.starts_with("/runs") {
            &run
        } else {
            &integration
        };
        let to = path.replace("{id}", id).replace("{service}", "gmail");
        assert!(!owned.is_empty(), "{method} {path}");
        for field in owned {
            for value in [json!(entity), json!("active"), json!(1), Value::Null] {
                let mut body = good_body(&app, &path, &another);
                body[&field] = value;
                let (status, answer) = app.send(&method, &to, Some(body)).await;
                assert_eq!(status, 422, "{method} {path} {field}: {answer}");
                assert_is_problem(&answer, 422, "invalid_fields");
                assert!(fields(&answer).contains(&field), "{field}: {answer}");
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
    assert_eq!(state().await, before);
    app.drain().await;
}
