//! The audit log: what is written down of requests, who may read it, and that nothing is done where it
//! cannot be written down.

mod chain;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use nucleus::{
    audit::{self, Attempt},
    db::audit_log,
    demo::{Consent, Method},
    domain::audit::Action,
};
use serde_json::{Value, json};

use super::{ask, bearer, by_token, good_requests, key_of, start, start_embedded, versions};
use crate::{
    contract,
    harness::{OPERATOR_KEY, TestApp},
};

async fn entries(app: &TestApp) -> Vec<Value> {
    app.all("/audit").await
}

/// What was done and how it ended, the oldest first.
fn acts(entries: &[Value]) -> Vec<String> {
    let act = |entry: &Value| {
        let word = |member: &str| entry[member].as_str().unwrap().to_owned();
        format!("{} {}", word("action"), word("outcome"))
    };
    entries.iter().rev().map(act).collect()
}

/// As what the document says that an operation is written down.
fn described(method: &str, path: &str) -> BTreeSet<String> {
    let operation = contract::operation(method, path).unwrap();
    let actions = operation.described["x-audit"].as_array();
    let actions = actions.into_iter().flatten();
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

/// Where the service told something new.
const TESTED: &[&str] = &[
    "secret.read attempt",
    "secret.read success",
    "integration.change success",
];

/// The rows of the request that is good for a route.
fn rows_of(route: &str) -> &'static [&'static str] {
    match route {
        "POST /entities" => &["entity.create success"],
        "POST /integrations/" => &[
            "secret.write attempt",
            "secret.write success",
            "integration.create success",
        ],
        "PATCH /integrations/{id}" => &["integration.change success"],
        // Whose the account is was not known before.
        "POST /integrations/{id}/test" => TESTED,
        "POST /integrations/{id}/sync" => &[],
        "POST /runs/{id}/cancel" => &["run.cancel success"],
        "POST /integrations/{service}/oauth/start" => &["oauth.start success"],
        "POST /integrations/{service}/oauth/callback" => &[
            "secret.write attempt",
            "secret.write success",
            "integration.connect success",
        ],
        other => panic!("{other} has no rows here"),
    }
}

/// A request, what it is answered with, and its rows.
type Written<'a> = (&'static str, String, Value, u16, &'a [&'static str]);

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_says_is_written_down_is_and_nothing_else() {
    let (app, good) = good_requests::start().await;
    let (entity, other) = (app.entity().await, app.entity().await);
    let first = app.connect_for(&entity, json!({})).await;
    let second = app.connect_for(&other, json!({})).await;
    let mut requests: Vec<Written<'_>> = good
        .into_iter()
        .map(|good| {
            let rows = rows_of(&format!("{} {}", good.method, good.route));
            (good.method, good.path, good.body, good.status, rows)
        })
        .collect();
    let credentials = json!({"credentials": super::gmail(&app, &entity)["credentials"]});
    let confirmed = json!({"confirm_mass_deletion": true});
    let (first, second) = (
        format!("/integrations/{first}"),
        format!("/integrations/{second}"),
    );
    const REPLACED: &[&str] = &[
        "secret.write attempt",
        "secret.write success",
        "integration.replace_credentials success",
        "secret.destroy attempt",
        "secret.destroy success",
        "integration.change success",
    ];
    const REMOVED: &[&str] = &[
        "integration.disconnect success",
        "secret.read attempt",
        "secret.read success",
        "grant.revoke attempt",
        "grant.revoke success",
        "integration.remove success",
        "secret.destroy attempt",
        "secret.destroy success",
    ];
    // The secrets of all services are removed, whether there are some or not.
    let deleted = ["secret.delete attempt", "secret.delete success"].repeat(9);
    let of_entity = [
        &["entity.removal_begin success"],
        REMOVED,
        &["entity.remove success"],
        &deleted,
    ]
    .concat();
    requests.extend([
        ("PATCH", first.clone(), credentials, 200, REPLACED),
        (
            "POST",
            format!("{first}/sync"),
            confirmed,
            202,
            &["mass_deletion.confirm success"][..],
        ),
        ("POST", format!("{first}/test"), json!({}), 200, TESTED),
        ("DELETE", first.clone(), Value::Null, 200, REMOVED),
        (
            "DELETE",
            format!("/entities/{other}"),
            Value::Null,
            200,
            &of_entity,
        ),
    ]);
    for path in [
        "/entities",
        "/integrations",
        "/events",
        "/audit",
        "/services",
        "/metrics",
        second.as_str(),
    ] {
        let status = if path == second { 404 } else { 200 };
        requests.push(("GET", path.to_owned(), Value::Null, status, &[]));
    }
    let mut before = entries(&app).await.len();
    let mut done: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for (method, path, body, status, expected) in requests {
        let key = bearer(OPERATOR_KEY);
        let headers = [
            ("authorization", key.as_str()),
            ("content-type", "application/json"),
            ("x-request-id", "asked-for"),
        ];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        if path == format!("{first}/test") {
            app.google.expire_access_tokens();
            app.google.revoke_grant();
        } else if method == "DELETE" {
            app.google.set_refresh_token("1//demo-refresh-token");
        }
        let answer = ask(&app, method, &path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let all = entries(&app).await;
        let new = &all[..all.len() - before];
        before = all.len();
        assert_eq!(acts(new), expected, "{method} {path}");
        for entry in new {
            assert_eq!(entry["interface"], "api", "{entry}");
            assert_eq!(entry["actor"], "operator", "{entry}");
            assert_eq!(entry["request_id"], "asked-for", "{entry}");
            assert_eq!(entry["address"], "127.0.0.1", "{entry}");
        }
        let operation = contract::operation(method, &path).unwrap();
        let name = operation.described["operationId"].as_str().unwrap();
        let (actions, of_document) = done.entry(name.to_owned()).or_default();
        of_document.extend(described(method, &path));
        let new = new.iter().map(|entry| entry["action"].as_str().unwrap());
        actions.extend(
            new.filter(|action| !action.starts_with("secret."))
                .map(str::to_owned),
        );
    }
    // Each thing that the document says was done here, and no other.
    for (name, (actions, of_document)) in done {
        assert_eq!(actions, of_document, "{name}");
    }
    let verified = audit::verify(&app.app.engine.db, None).await.unwrap();
    assert!(
        verified.findings.is_empty() && verified.rows > 20,
        "{verified:?}"
    );
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_use_of_a_secret_has_an_attempt_and_an_end() {
    let app = start().await;
    let integration = app.connect().await;
    app.sync(&integration).await;
    let (status, _) = app
        .send("DELETE", &format!("/integrations/{integration}"), None)
        .await;
    assert_eq!(status, 200);
    let all = entries(&app).await;
    let of = |action: &str, outcome: &str| -> Vec<&Value> {
        let fitting = all.iter();
        fitting
            .filter(|entry| entry["action"] == action && entry["outcome"] == outcome)
            .collect()
    };
    for action in [
        "secret.write",
        "secret.read",
        "secret.destroy",
        "grant.revoke",
    ] {
        let (attempts, ends) = (of(action, "attempt"), of(action, "success"));
        assert!(!ends.is_empty(), "{action}: {all:#?}");
        let attempts: BTreeSet<_> = attempts.iter().map(|entry| entry["id"].as_str()).collect();
        let ended: BTreeSet<_> = ends
            .iter()
            .map(|entry| entry["attempt_id"].as_str())
            .collect();
        assert_eq!(attempts, ended, "{action}");
    }
    // The run is the worker's, the removal the operator's.
    let readers: BTreeSet<_> = of("secret.read", "success")
        .iter()
        .map(|entry| {
            (
                entry["actor"].as_str().unwrap(),
                entry["interface"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        readers,
        BTreeSet::from([("system", "worker"), ("operator", "api")])
    );
    assert!(of("secret.read", "unknown").is_empty());
}

fn outcomes(entries: &[Value]) -> Vec<&str> {
    let outcome = entries.iter().map(|entry| &entry["outcome"]);
    outcome.map(|outcome| outcome.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_without_an_end_is_unknown() {
    let app = start().await;
    let entity = app.entity().await;
    let db = &app.app.engine.db;
    let owner = Some(entity.parse().unwrap());
    let attempt = Attempt::begin(db, app.clock.as_ref(), owner, Action::SecretWrite, "a").await;
    // Its process dies.
    assert!(attempt.is_ok());
    let attempt = Attempt::begin(db, app.clock.as_ref(), owner, Action::SecretWrite, "b").await;
    attempt.unwrap().end(false, "b").await;
    let all = app.all(&format!("/audit?entity_id={entity}")).await;
    // It may be under way still.
    assert_eq!(outcomes(&all), ["failure", "attempt", "attempt", "success"]);
    let unknown = async || {
        audit_log::unknown_attempts(db, app.app.now())
            .await
            .unwrap()
    };
    assert_eq!(unknown().await, 0);
    app.clock.advance(TimeDelta::minutes(11));
    let all = app.all(&format!("/audit?entity_id={entity}")).await;
    assert_eq!(outcomes(&all), ["failure", "attempt", "unknown", "success"]);
    assert_eq!(unknown().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_reads_its_own_and_not_where_secrets_lie() {
    let app = start().await;
    let (entity, other) = (app.entity().await, app.entity().await);
    let integration = app.connect_for(&entity, json!({})).await;
    app.connect_for(&other, json!({})).await;
    let key = key_of(&app, &entity).await;
    let path = format!("/integrations/{integration}");
    let change = Some(json!({"description": "mine"}));
    assert_eq!(app.send_as(Some(&key), "PATCH", &path, change).await.0, 200);
    for path in ["/audit".to_owned(), format!("/audit?entity_id={entity}")] {
        let (status, body) = app.send_as(Some(&key), "GET", &path, None).await;
        assert_eq!(status, 200);
        let own = body["items"].as_array().unwrap();
        assert!(own.len() > 4, "{own:#?}");
        for entry in own {
            assert_eq!(entry["entity_id"], entity.as_str(), "{entry}");
            let is_place = entry["action"].as_str().unwrap().starts_with("secret.");
            assert_eq!(entry["target"].is_null(), is_place, "{entry}");
            let by_itself = entry["actor"] == "entity";
            assert_eq!(entry["address"].is_string(), by_itself, "{entry}");
        }
        assert_eq!(own[0]["action"], "integration.change");
        assert_eq!(own[0]["actor"], "entity");
        assert!(own[0]["key_id"].is_string());
    }
    let path = format!("/audit?entity_id={other}");
    let (status, body) = app.send_as(Some(&key), "GET", &path, None).await;
    assert_eq!((status, &body["items"]), (200, &json!([])));
    let operators = app.all("/audit").await;
    let places = operators.iter().filter(|entry| entry["target"].is_null());
    assert_eq!(places.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_not_done() {
    let app = start_embedded().await;
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    let run = app.request_sync(&integration).await;
    let other = app.entity().await;
    let start = json!({"entity_id": other});
    let begun = app
        .post("/integrations/gmail/oauth/start", start.clone())
        .await;
    let url = begun["authorization_url"].as_str().unwrap();
    let consented = app
        .google
        .authorize(url, &Consent::default())
        .await
        .unwrap();
    let callback: BTreeMap<String, String> = consented
        .query_pairs()
        .filter(|(name, _)| name == "state" || name == "code")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let look = async || {
        json!({
            "entities": app.all("/entities").await,
            "integrations": app.all("/integrations").await,
            "runs": app.all(&format!("/integrations/{integration}/runs")).await,
            "versions": versions(&app).await,
            "audit": app.all("/audit").await,
        })
    };
    let before = look().await;
    let mut database = good_requests::database(&app).await;
    let fail = "CREATE TRIGGER no_audit BEFORE INSERT ON audit_log \
                BEGIN SELECT RAISE(ABORT, 'the audit log is broken'); END";
    sqlx::query(fail).execute(&mut database).await.unwrap();
    let revoked = app.calls(Method::Revoke);
    for (method, path, body) in [
        ("POST", "/entities".to_owned(), Some(json!({"name": "x"}))),
        ("DELETE", format!("/entities/{entity}"), None),
        (
            "POST",
            "/integrations".to_owned(),
            Some(by_token(&entity, "github")),
        ),
        (
            "PATCH",
            format!("/integrations/{integration}"),
            Some(json!({"description": "x"})),
        ),
        ("DELETE", format!("/integrations/{integration}"), None),
        (
            "POST",
            format!("/integrations/{integration}/sync"),
            Some(json!({"confirm_mass_deletion": true})),
        ),
        ("POST", format!("/runs/{run}/cancel"), None),
        (
            "POST",
            "/integrations/gmail/oauth/start".to_owned(),
            Some(start),
        ),
        (
            "POST",
            "/integrations/gmail/oauth/callback".to_owned(),
            Some(json!(callback)),
        ),
    ] {
        let (status, answer) = app.send(method, &path, body).await;
        assert!(
            matches!(status, 500 | 503),
            "{method} {path}: {status} {answer}"
        );
        assert_eq!(look().await, before, "{method} {path}");
    }
    assert_eq!(app.calls(Method::Revoke), revoked);
    // Nor is a secret read: the provider is asked nothing by a test or a sync.
    app.google.clear_requests();
    let path = format!("/integrations/{integration}/test");
    let (status, answer) = app.send("POST", &path, None).await;
    assert_eq!(
        (status, &answer["is_valid"]),
        (200, &json!(false)),
        "{answer}"
    );
    assert_eq!(app.integration(&integration).await["status"], "active");
    app.drain().await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "failed", "{run}");
    let asked = app.google.requests();
    assert!(asked.is_empty(), "{asked:?}");
    let owner = Some(entity.parse().unwrap());
    let key = app
        .app
        .create_key(owner, nucleus::db::api_key::KeyScope::Read);
    assert!(key.await.is_err());
    sqlx::query("DROP TRIGGER no_audit")
        .execute(&mut database)
        .await
        .unwrap();
    let (status, _) = app
        .send("DELETE", &format!("/integrations/{integration}"), None)
        .await;
    assert_eq!(status, 200);
}
