//! Somebody else's object does not exist. Who is refused what is derived from the OpenAPI document:
//! every route, with every id that it takes, asked by everybody who must not have it.

use std::collections::BTreeSet;

use nucleus::{
    db::api_key::{self, KeyScope},
    demo::generate,
    keys,
};
use serde_json::{Value, json};

use super::{
    assert_gives_nothing_away, assert_is_problem, fields, gmail, key_of, key_that_may, start,
    versions,
};
use crate::{
    contract::{Operation, document, operations},
    harness::{OPERATOR_KEY, Setting, TestApp},
};

/// The routes as the document lists them: method and path.
pub(super) fn routes() -> BTreeSet<(String, String)> {
    let operations = operations().into_iter();
    operations
        .map(|operation| (operation.method, operation.path))
        .collect()
}

/// Routes for the operator alone.
const OPERATORS: [(&str, &str); 4] = [
    ("POST", "/entities"),
    ("GET", "/entities"),
    ("DELETE", "/entities/{id}"),
    ("GET", "/metrics"),
];
/// Routes that say the same to every key.
const EVERYBODYS: [(&str, &str); 1] = [("GET", "/services")];

/// Whose a route's objects are, which follows from what the document says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// Only the operator may ask.
    Operators,
    /// An id in the path or in the body names somebody's object.
    Owners,
    /// The answer lists what is the caller's own.
    OwnList,
    /// The state of an OAuth flow names its owner.
    State,
    /// There is nothing in it that is anybody's.
    Everybodys,
    /// It needs no key.
    Open,
    /// Browsers come here without a key, and are told of a wrong state on a page.
    Page,
}

/// The rule of a route; fails for one that has none.
fn rule(operation: &Operation) -> Rule {
    let Operation { method, path, .. } = operation;
    let route = (method.as_str(), path.as_str());
    let fields = body_fields(operation);
    let items = &response_schema(operation)["properties"]["items"];
    match () {
        () if operation.is_callback() => Rule::Page,
        () if !operation.is_for_callers() => Rule::Open,
        () if OPERATORS.contains(&route) => Rule::Operators,
        () if EVERYBODYS.contains(&route) => Rule::Everybodys,
        () if path.contains("{id}") || fields.contains("entity_id") => Rule::Owners,
        () if fields.contains("state") => Rule::State,
        () if items.is_object() => Rule::OwnList,
        () => panic!("{method} {path} has no rule about whose its objects are"),
    }
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(reference) => document()
            .pointer(reference.trim_start_matches('#'))
            .unwrap(),
        None => schema,
    }
}

/// The names of the fields of an operation's JSON body.
fn body_fields(operation: &Operation) -> BTreeSet<&'static str> {
    let schema = &operation.described["requestBody"]["content"]["application/json"]["schema"];
    let properties = resolved(schema)["properties"].as_object();
    let names = properties.into_iter().flatten();
    names.map(|(name, _)| name.as_str()).collect()
}

fn response_schema(operation: &Operation) -> &'static Value {
    resolved(&operation.described["responses"]["200"]["content"]["application/json"]["schema"])
}

/// Fails for a place in the document that takes an id and that these tests do not fill.
fn assert_ids_are_known(operation: &Operation) {
    let parameters = operation.described["parameters"].as_array();
    let parameters = parameters.into_iter().flatten();
    let names = parameters.map(|parameter| parameter["name"].as_str().unwrap());
    for name in names.chain(body_fields(operation)) {
        let is_id = name == "id" || name.ends_with("_id") || name.ends_with("_ids");
        // An OAuth client of the service's, which is nobody's object here.
        let is_known = ["id", "entity_id", "client_id"].contains(&name);
        assert!(!is_id || is_known, "{operation:?}: whose is {name}?");
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    /// Nobody: without a key.
    Nobody,
    /// With a key of the owner that was revoked.
    Revoked,
    /// With a key of an entity that was removed.
    Removed,
    /// Another entity.
    Stranger,
    /// Another entity, with a key that may only read.
    ReadingStranger,
    /// The owner, with a key that may only read.
    ReadingOwner,
    /// The operator, for what is not there any more.
    OperatorTooLate,
}

/// What the answer has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Gets {
    Problem(u16, &'static str),
    /// What is asked for, as far as it is the caller's.
    Own,
    /// A page that says that the state is none.
    Page,
}

fn expected(by: By, rule: Rule, method: &str, has_id: bool) -> Option<Gets> {
    let is_reader = matches!(by, By::ReadingStranger | By::ReadingOwner);
    let gets = match (rule, by) {
        (Rule::Open, _) => Gets::Own,
        (Rule::Page, _) => Gets::Page,
        (_, By::Nobody | By::Revoked | By::Removed) => Gets::Problem(401, "unauthorized"),
        _ if is_reader && method != "GET" => Gets::Problem(403, "read_only_key"),
        (Rule::Owners, By::OperatorTooLate) => Gets::Problem(404, "not_found"),
        (Rule::Operators, By::OperatorTooLate) if has_id => Gets::Problem(404, "not_found"),
        // Nothing of what it asks for can be gone.
        (_, By::OperatorTooLate) => return None,
        (Rule::Operators, _) => Gets::Problem(403, "forbidden"),
        (Rule::Everybodys | Rule::OwnList, _) | (_, By::ReadingOwner) => Gets::Own,
        (Rule::Owners, _) => Gets::Problem(404, "not_found"),
        (Rule::State, _) => Gets::Problem(422, "invalid_fields"),
    };
    Some(gets)
}

/// A body that is good but for whose objects it names.
fn body(operation: &Operation, victim: &Victim) -> Option<Value> {
    let fields = body_fields(operation);
    operation.described.get("requestBody")?;
    let all = match operation.path.as_str() {
        "/integrations/" => json!({
            "entity_id": victim.entity,
            "service_name": "gmail",
            "credential_type": "oauth2",
            "credentials": {"refresh_token": "1//of-whoever-asks"},
        }),
        "/integrations/{id}" => json!({"display_name": "taken over", "status": "inactive"}),
        _ => json!({
            "name": "x",
            "entity_id": victim.entity,
            "state": victim.state,
            "code": "4/made-up",
        }),
    };
    let mut taken = all.as_object().unwrap().clone();
    taken.retain(|name, _| fields.contains(name.as_str()));
    Some(Value::Object(taken))
}

/// Where an operation is, with the ids of what is the victim's.
fn target(operation: &Operation, victim: &Victim) -> String {
    let id = match operation.path.split('/').nth(1).unwrap() {
        "entities" => &victim.entity,
        "integrations" => &victim.integration,
        // It would be followed until it ends.
        "runs" if operation.path.ends_with("/stream") => &victim.ended_run,
        "runs" => &victim.run,
        "records" => &victim.record,
        _ if !operation.path.contains("{id}") => &victim.entity,
        other => panic!("of what is the id under /{other}?"),
    };
    let mut path = operation.at(id);
    let parameters = operation.described["parameters"].as_array();
    for parameter in parameters.into_iter().flatten() {
        if parameter["in"] == "query" && parameter["name"] == "entity_id" {
            path.push_str(&format!("?entity_id={}", victim.entity));
        }
    }
    path
}

struct Victim {
    entity: String,
    integration: String,
    /// Queued, so that there is something to cancel.
    run: String,
    ended_run: String,
    record: String,
    /// Of a flow that its owner has begun.
    state: String,
}

async fn victim(app: &TestApp) -> Victim {
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    let ended = app.sync(&integration).await;
    let record = app.records(&integration).await[0]["id"].clone();
    let run = app.request_sync(&integration).await;
    let body = json!({"entity_id": entity});
    let begun = app.post("/integrations/gmail/oauth/start", body).await;
    Victim {
        entity,
        integration,
        run,
        ended_run: ended["run_id"].as_str().unwrap().to_owned(),
        record: record.as_str().unwrap().to_owned(),
        state: begun["state"].as_str().unwrap().to_owned(),
    }
}

/// Everything that a stranger might change.
async fn state(app: &TestApp, victim: &Victim) -> Value {
    let id = &victim.integration;
    json!({
        "entities": app.all("/entities").await,
        "integrations": app.all("/integrations").await,
        "runs": app.all(&format!("/integrations/{id}/runs")).await,
        "records": app.records(id).await,
        "events": app.all("/events").await,
        "audit": app.all("/audit").await,
        "keys": app.rows(
            "SELECT hex(id) || scope || coalesce(revoked_at, '') FROM api_keys ORDER BY id",
            "SELECT id::text || scope || coalesce(revoked_at::text, '') FROM dna.api_keys ORDER BY id",
        ).await,
        "flows": app.rows(
            "SELECT hex(id) || status || expires_at FROM oauth_sessions ORDER BY id",
            "SELECT id::text || status || expires_at::text FROM dna.oauth_sessions ORDER BY id",
        ).await,
        "versions": versions(app).await,
        "provider": app.google.requests().len(),
    })
}

/// Asks every operation with a key for what is the victim's, and fails unless each is answered as it
/// must be; gives how many were refused.
async fn ask_everything(app: &TestApp, by: By, key: Option<&str>, victim: &Victim) -> usize {
    let mut refused = 0;
    for operation in operations() {
        assert_ids_are_known(&operation);
        let rule = rule(&operation);
        let method = operation.method.as_str();
        let has_id = operation.path.contains("{id}");
        let Some(gets) = expected(by, rule, method, has_id) else {
            continue;
        };
        let path = target(&operation, victim);
        let sent = body(&operation, victim);
        let (status, answer) = app.send_as(key, method, &path, sent).await;
        let what = format!("{by:?}: {method} {path}: {answer}");
        match gets {
            Gets::Problem(expected, code) => {
                assert_eq!(status, expected, "{what}");
                assert_is_problem(&answer, expected, code);
                if rule == Rule::State && status == 422 {
                    assert_eq!(fields(&answer), BTreeSet::from(["state".to_owned()]));
                }
                refused += 1;
            }
            Gets::Own => assert_eq!(status, 200, "{what}"),
            Gets::Page => assert_eq!((status, &answer), (422, &Value::Null), "{what}"),
        }
        if by != By::ReadingOwner && operation.path != "/openapi.json" {
            assert_gives_nothing_away(&answer.to_string());
            let of_victim = [
                &victim.entity,
                &victim.integration,
                &victim.run,
                &victim.record,
            ];
            let told = answer["items"].to_string();
            assert!(!of_victim.iter().any(|id| told.contains(*id)), "{what}");
        }
    }
    refused
}

/// Revokes a key that is in use.
async fn revoke(app: &TestApp, key: &str) {
    let db = &app.app.engine.db;
    let row = api_key::find(db, &keys::hash(key)).await.unwrap().unwrap();
    let tx = db.begin().await.unwrap();
    api_key::revoke(&tx, row.id, app.app.now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_route_a_strangers_object_does_not_exist() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let victim = victim(&app).await;
    let stranger = app.entity().await;
    let strangers_key = key_of(&app, &stranger).await;
    let strangers_reading = key_that_may(&app, &stranger, KeyScope::Read).await;
    let owners_reading = key_that_may(&app, &victim.entity, KeyScope::Read).await;
    let revoked = key_of(&app, &victim.entity).await;
    revoke(&app, &revoked).await;
    let removed = app.entity().await;
    let removed_key = key_of(&app, &removed).await;
    let path = format!("/entities/{removed}");
    assert_eq!(app.send("DELETE", &path, None).await.0, 200);
    let before = state(&app, &victim).await;
    let mut refused = 0;
    for (by, key) in [
        (By::Nobody, None),
        (By::Revoked, Some(&revoked)),
        (By::Removed, Some(&removed_key)),
        (By::Stranger, Some(&strangers_key)),
        (By::ReadingStranger, Some(&strangers_reading)),
        (By::ReadingOwner, Some(&owners_reading)),
    ] {
        let key = key.map(String::as_str);
        refused += ask_everything(&app, by, key, &victim).await;
        assert_eq!(
            state(&app, &victim).await,
            before,
            "{by:?} changed something"
        );
    }
    assert!(refused > 80, "{refused}");
    app.drain().await;
    // What is gone does not exist for the operator either.
    let path = format!("/entities/{}", victim.entity);
    assert_eq!(app.send("DELETE", &path, None).await.0, 200);
    ask_everything(&app, By::OperatorTooLate, Some(OPERATOR_KEY), &victim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_cursors_show_nobody_elses_objects() {
    let app = Setting::new(generate::mailbox(8, 2)).start().await;
    let victim = victim(&app).await;
    let stranger = app.entity().await;
    let key = key_of(&app, &stranger).await;
    let entity = &victim.entity;
    let first = app.get("/events?limit=1").await;
    let cursor = first["resume_cursor"].as_str().unwrap();
    for path in [
        format!("/integrations?entity_id={entity}"),
        "/integrations?service_name=gmail&status=active".to_owned(),
        format!("/events?cursor={cursor}"),
        "/events?limit=1000".to_owned(),
    ] {
        let (status, body) = app.send_as(Some(&key), "GET", &path, None).await;
        assert_eq!((status, &body["items"]), (200, &json!([])), "{path}");
    }
    // What does not exist and what is another's look the same, but for the request's own id.
    let look = async |id: &str| {
        let path = format!("/integrations/{id}");
        let (status, mut body) = app.send_as(Some(&key), "GET", &path, None).await;
        body["request_id"].take();
        (status, body)
    };
    assert_eq!(look(super::NOBODY).await, look(&victim.integration).await);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_own_key_an_entity_does_everything_to_its_own() {
    let app = Setting::new(generate::mailbox(8, 3)).start().await;
    let entity = app.entity().await;
    let key = key_of(&app, &entity).await;
    let own = async |method: &str, path: &str, body: Option<Value>| {
        let (status, answer) = app.send_as(Some(&key), method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    };
    let made = own("POST", "/integrations", Some(gmail(&app, &entity))).await;
    let path = format!("/integrations/{}", made["id"].as_str().unwrap());
    assert_ne!(made["created_by"], "operator");
    assert_eq!(own("GET", "/integrations", None).await["items"][0], made);
    assert_eq!(own("GET", &path, None).await, made);
    own("PATCH", &path, Some(json!({"description": "mine"}))).await;
    let tested = own("POST", &format!("{path}/test"), None).await;
    assert_eq!(tested["is_valid"], true);
    let run = own("POST", &format!("{path}/sync"), None).await;
    app.drain().await;
    let run = run["run_id"].as_str().unwrap();
    assert_eq!(
        own("GET", &format!("/runs/{run}"), None).await["status"],
        "success"
    );
    let runs = own("GET", &format!("{path}/runs"), None).await;
    assert_eq!(runs["items"].as_array().unwrap().len(), 1);
    let records = own("GET", &format!("{path}/records"), None).await;
    let record = records["items"][0]["id"].as_str().unwrap();
    own("GET", &format!("/records/{record}"), None).await;
    let events = own("GET", "/events", None).await;
    assert_eq!(events["items"][0]["data"]["entity_id"], entity);
    let run = own("POST", &format!("{path}/sync"), None).await;
    let cancel = format!("/runs/{}/cancel", run["run_id"].as_str().unwrap());
    own("POST", &cancel, None).await;
    own("DELETE", &path, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_operator_may_confirm_is_refused_to_an_entity() {
    let app = start().await;
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    let key = key_of(&app, &entity).await;
    let path = format!("/integrations/{integration}/sync");
    let body = Some(json!({"confirm_mass_deletion": true}));
    let (status, answer) = app.send_as(Some(&key), "POST", &path, body.clone()).await;
    assert_eq!(status, 403);
    assert_is_problem(&answer, 403, "forbidden");
    assert!(
        app.all(&format!("/integrations/{integration}/runs"))
            .await
            .is_empty()
    );
    let (status, _) = app.send("POST", &path, body).await;
    assert_eq!(status, 202);
    app.drain().await;
}
