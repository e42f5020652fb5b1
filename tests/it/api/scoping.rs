//! Somebody else's object does not exist: every route, with a key of another entity.

use std::collections::BTreeSet;

use nucleus::demo::generate;
use serde_json::{Value, json};

use super::{assert_gives_nothing_away, assert_is_problem, fields, gmail, key_of, start, versions};
use crate::{
    contract::operations,
    harness::{Setting, TestApp},
};

/// The routes as the document lists them: method and path.
pub(super) fn routes() -> BTreeSet<(String, String)> {
    let operations = operations().into_iter();
    operations
        .map(|operation| (operation.method, operation.path))
        .collect()
}

/// What another entity's key gets.
#[derive(Clone, Copy, PartialEq)]
enum Gets {
    /// 404.
    Nothing,
    /// 403.
    Refusal,
    /// 200 and an empty list.
    EmptyList,
    /// 422 for the state, as for one that does not exist.
    NoState,
    /// A page for people, that says the same.
    Page,
    /// What everybody gets.
    Everything,
}

/// Every route, with what stands for `{id}` and a body that would be good.
fn table(
    app: &TestApp,
    victim: &Victim,
) -> Vec<(&'static str, &'static str, Value, Option<Value>, Gets)> {
    let Victim {
        entity,
        integration,
        run,
        record,
        state,
    } = victim;
    let change = json!({"display_name": "taken over", "status": "inactive"});
    vec![
        (
            "POST",
            "/entities",
            json!(""),
            Some(json!({"name": "x"})),
            Gets::Refusal,
        ),
        ("GET", "/entities", json!(""), None, Gets::Refusal),
        (
            "DELETE",
            "/entities/{id}",
            json!(entity),
            None,
            Gets::Refusal,
        ),
        (
            "POST",
            "/integrations/",
            json!(""),
            Some(gmail(app, entity)),
            Gets::Nothing,
        ),
        ("GET", "/integrations/", json!(""), None, Gets::EmptyList),
        (
            "GET",
            "/integrations/{id}",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "PATCH",
            "/integrations/{id}",
            json!(integration),
            Some(change),
            Gets::Nothing,
        ),
        (
            "DELETE",
            "/integrations/{id}",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "POST",
            "/integrations/{id}/test",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "POST",
            "/integrations/{id}/sync",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "GET",
            "/integrations/{id}/runs",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "GET",
            "/integrations/{id}/records",
            json!(integration),
            None,
            Gets::Nothing,
        ),
        (
            "POST",
            "/integrations/{service}/oauth/start",
            json!("gmail"),
            Some(json!({"entity_id": entity})),
            Gets::Nothing,
        ),
        (
            "POST",
            "/integrations/{service}/oauth/callback",
            json!("gmail"),
            Some(json!({"state": state, "code": "4/made-up"})),
            Gets::NoState,
        ),
        (
            "GET",
            "/integrations/{service}/oauth/callback",
            json!("gmail"),
            None,
            Gets::Page,
        ),
        ("GET", "/services", json!(""), None, Gets::Everything),
        ("GET", "/runs/{id}", json!(run), None, Gets::Nothing),
        ("POST", "/runs/{id}/cancel", json!(run), None, Gets::Nothing),
        ("GET", "/runs/{id}/stream", json!(run), None, Gets::Nothing),
        ("GET", "/records/{id}", json!(record), None, Gets::Nothing),
        ("GET", "/events", json!(""), None, Gets::EmptyList),
        ("GET", "/health", json!(""), None, Gets::Everything),
        ("GET", "/livez", json!(""), None, Gets::Everything),
        ("GET", "/metrics", json!(""), None, Gets::Refusal),
        ("GET", "/readyz", json!(""), None, Gets::Everything),
        ("GET", "/openapi.json", json!(""), None, Gets::Everything),
        ("GET", "/docs", json!(""), None, Gets::Everything),
        (
            "GET",
            "/docs/{file}",
            json!("start.js"),
            None,
            Gets::Everything,
        ),
    ]
}

struct Victim {
    entity: String,
    integration: String,
    run: String,
    record: String,
    /// Of a flow that its owner has begun.
    state: String,
}

async fn victim(app: &TestApp) -> Victim {
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    app.sync(&integration).await;
    let record = app.records(&integration).await[0]["id"].clone();
    // Queued, so that there is something to cancel.
    let run = app.request_sync(&integration).await;
    let body = json!({"entity_id": entity});
    let begun = app.post("/integrations/gmail/oauth/start", body).await;
    Victim {
        entity,
        integration,
        run,
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
        "versions": versions(app).await,
        "provider": app.google.requests().len(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_route_a_strangers_object_does_not_exist() {
    let app = Setting::new(generate::mailbox(8, 1)).start().await;
    let victim = victim(&app).await;
    let stranger = app.entity().await;
    let key = key_of(&app, &stranger).await;
    let before = state(&app, &victim).await;
    let mut seen = BTreeSet::new();
    for (method, route, id, body, gets) in table(&app, &victim) {
        seen.insert((method.to_owned(), route.to_owned()));
        let id = id.as_str().unwrap();
        let path = route.replace("{id}", id).replace("{service}", id);
        let path = path.replace("{file}", id);
        let (status, answer) = app.send_as(Some(&key), method, &path, body).await;
        let what = format!("{method} {path}: {answer}");
        match gets {
            Gets::Nothing => {
                assert_eq!(status, 404, "{what}");
                assert_is_problem(&answer, 404, "not_found");
            }
            Gets::Refusal => {
                assert_eq!(status, 403, "{what}");
                assert_is_problem(&answer, 403, "forbidden");
            }
            Gets::EmptyList => {
                assert_eq!(status, 200, "{what}");
                assert_eq!(answer["items"], json!([]), "{what}");
                assert_eq!(answer["next_cursor"], Value::Null, "{what}");
            }
            Gets::NoState => {
                assert_is_problem(&answer, 422, "invalid_fields");
                assert_eq!(fields(&answer), BTreeSet::from(["state".to_owned()]));
            }
            Gets::Page => assert_eq!((status, &answer), (422, &Value::Null), "{what}"),
            Gets::Everything => assert_eq!(status, 200, "{what}"),
        }
        if route != "/openapi.json" {
            assert_gives_nothing_away(&answer.to_string());
        }
    }
    assert_eq!(seen, routes(), "a route has no row in this table");
    assert_eq!(
        state(&app, &victim).await,
        before,
        "a stranger changed something"
    );
    app.drain().await;
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
