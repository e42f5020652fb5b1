//! `Idempotency-Key`: one effect and one answer, and for whom.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use futures_util::future::join_all;
use nucleus::{
    db::api_key::KeyScope,
    demo::{Mailbox, Method},
    keys,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Answer, NOBODY, OWNER, ask, assert_is_problem, bearer, by_token, fields,
    good_requests::{self, database},
    key_of, pinned, request, start_embedded as start, start_in_vault, versions,
};
use crate::{
    child::in_time,
    contract,
    harness::{OPERATOR_KEY, Setting, TestApp},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const PATIENCE: Duration = Duration::from_secs(20);

/// What a request under a key was answered with.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    status: u16,
    content_type: String,
    /// Without the id of the request, which is each one's own.
    body: Value,
}

/// Sends a POST under a key; whether the answer was kept.
async fn post_as(app: &TestApp, token: &str, key: &str, path: &str, body: &str) -> (Given, bool) {
    let request = app
        .http
        .post(format!("{}{path}", app.url))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(body.to_owned());
    let response = request.send().await.unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let content_type = header("content-type").unwrap();
    let replayed = header("idempotent-replayed");
    assert!(matches!(replayed.as_deref(), None | Some("true")));
    let request_id = header("x-request-id").unwrap();
    let (status, body) = contract::read("POST", path, response).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    if content_type == "application/problem+json" {
        // Kept or not, it names the request that it answers.
        assert_eq!(body["request_id"].take(), request_id);
    }
    let given = Given {
        status,
        content_type,
        body,
    };
    (given, replayed.is_some())
}

async fn post(app: &TestApp, key: &str, path: &str, body: &str) -> (Given, bool) {
    post_as(app, OPERATOR_KEY, key, path, body).await
}

/// How many rows a table has.
async fn count(app: &TestApp, table: &str) -> i64 {
    let mut database = database(app).await;
    let sql = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(&mut database)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_have_one_effect_and_one_answer_on_every_route() {
    let (mut app, requests) = good_requests::start().await;
    let entities = count(&app, "entity").await;
    let integrations = count(&app, "entity_integrations").await;
    let sessions = count(&app, "oauth_sessions").await;
    let runs = count(&app, "sync_runs").await;
    let asked = app.calls(Method::GetProfile);
    let mut answers = Vec::new();
    for good in requests.iter().filter(|good| good.method == "POST") {
        let (path, body) = (good.path.clone(), good.body.to_string());
        let all = join_all((0..100).map(|_| post(&app, "the same", &path, &body))).await;
        let given = all[0].0.clone();
        assert_eq!(given.status, good.status, "{path}: {given:?}");
        assert!(all.iter().all(|(other, _)| *other == given), "{path}");
        let first = all.iter().filter(|(_, replayed)| !replayed).count();
        assert_eq!(first, 1, "{path}");
        answers.push((path, body, given));
    }
    app.restart().await;
    for (path, body, given) in &answers {
        let again = post(&app, "the same", path, body).await;
        assert_eq!(again, (given.clone(), true), "{path}");
    }
    assert_eq!(count(&app, "entity").await, entities + 1);
    assert_eq!(count(&app, "oauth_sessions").await, sessions + 1);
    // One by its request, and one by the account that was connected.
    assert_eq!(count(&app, "sync_runs").await, runs + 2);
    // One by its credentials, and one by OAuth.
    assert_eq!(count(&app, "entity_integrations").await, integrations + 2);
    assert_eq!(versions(&app).await, pinned(&app).await);
    assert_eq!(count(&app, "secret_intents").await, 0);
    // The test asks for the account, and so does the end of an OAuth flow.
    assert_eq!(app.calls(Method::GetProfile), asked + 2);
    let kept = count(&app, "idempotency_keys").await;
    assert_eq!(kept, answers.len() as i64);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_of_a_caller_a_method_and_a_path() {
    let app = start().await;
    let (one, two) = (app.entity().await, app.entity().await);
    let before = count(&app, "entity").await;
    let second = app.app.create_key(None, KeyScope::Write).await.unwrap();
    let second = secrecy::ExposeSecret::expose_secret(&second).to_owned();
    let name = r#"{"name": "Ada"}"#;
    let (first, replayed) = post(&app, "k", "/entities", name).await;
    assert!(!replayed);
    let (given, replayed) = post_as(&app, &second, "k", "/entities", name).await;
    assert!(!replayed && given.body["id"] != first.body["id"]);
    for path in ["/entities/", "/entities/?x=1", "/entities"] {
        assert_eq!(post(&app, "k", path, name).await, (first.clone(), true));
    }
    assert_eq!(count(&app, "entity").await, before + 2);
    // The same key of two entities, on the same path.
    let mut made = BTreeSet::new();
    for entity in [&one, &two] {
        let token = key_of(&app, entity).await;
        let body = by_token(entity, "github").to_string();
        for replayed in [false, true] {
            let (given, kept) = post_as(&app, &token, "k", "/integrations", &body).await;
            assert_eq!((given.status, kept), (201, replayed));
            assert_eq!(given.body["entity_id"], *entity);
            made.insert(given.body["id"].to_string());
        }
    }
    assert_eq!(made.len(), 2);
    // Other methods may be repeated as they are, and take no notice of the key.
    let path = format!("/entities/{one}");
    let (key, rows) = (bearer(OPERATOR_KEY), count(&app, "idempotency_keys").await);
    let headers = [("authorization", key.as_str()), ("idempotency-key", "k")];
    for status in [200, 404] {
        let answer = ask(&app, "DELETE", &path, &headers, b"").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("idempotent-replayed"), None);
    }
    assert_eq!(count(&app, "idempotency_keys").await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_under_the_same_key_is_refused() {
    let app = start().await;
    let (first, _) = post(&app, "k", "/entities", r#"{"name": "Ada"}"#).await;
    for body in [
        r#"{"name": "Bob"}"#,
        r#"{"name":"Ada"}"#,
        "{}",
        "",
        "nonsense",
    ] {
        let (given, replayed) = post(&app, "k", "/entities", body).await;
        assert_is_problem(&named(given.body.clone()), 422, "invalid_fields");
        let expected = BTreeSet::from(["Idempotency-Key".to_owned()]);
        assert_eq!((fields(&given.body), replayed), (expected, false), "{body}");
    }
    let again = post(&app, "k", "/entities", r#"{"name": "Ada"}"#).await;
    assert_eq!(again, (first, true));
    assert_eq!(app.all("/entities").await.len(), 1);
    // An empty body is an empty object here, too.
    let id = app.connect().await;
    let path = format!("/integrations/{id}/sync");
    let (first, _) = post(&app, "k", &path, "").await;
    for body in ["{}", "", "  \n"] {
        assert_eq!(post(&app, "k", &path, body).await, (first.clone(), true));
    }
    app.drain().await;
}

/// The body of a problem as it was before its request's id was taken out.
fn named(mut body: Value) -> Value {
    body["request_id"] = json!("taken out");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_1_to_255_printable_ascii_characters() {
    let app = start().await;
    let operator = bearer(OPERATOR_KEY);
    let with = async |keys: &[&str]| -> Answer {
        let mut headers = vec![("authorization", operator.as_str()), JSON];
        headers.extend(keys.iter().map(|key| ("idempotency-key", *key)));
        ask(&app, "POST", "/entities", &headers, br#"{"name": "Ada"}"#).await
    };
    let longest = "k".repeat(255);
    for key in ["k", "\"quoted\"", "with a space", "~!@#$%^&*()", &longest] {
        for replayed in [None, Some("true")] {
            let answer = with(&[key]).await;
            assert_eq!(answer.status, 201, "{key}: {answer:?}");
            assert_eq!(answer.header("idempotent-replayed"), replayed, "{key}");
        }
    }
    let before = count(&app, "idempotency_keys").await;
    let too_long = "k".repeat(256);
    for keys in [
        &[""][..],
        &["   "],
        &["a\tb"],
        &["schl\u{fc}ssel"],
        &[&too_long],
        &["a", "a"],
        &["a", "b"],
        &["", "a"],
    ] {
        let answer = with(keys).await;
        answer.assert_problem(422, "invalid_fields");
        let expected = BTreeSet::from(["Idempotency-Key".to_owned()]);
        assert_eq!(fields(&answer.body()), expected, "{keys:?}");
    }
    // Whoever calls comes first: a stranger learns nothing of it and gets into no table.
    for key in ["good", &too_long] {
        for authorization in ["", "Bearer nobody", "Basic x"] {
            let headers = [
                ("authorization", authorization),
                JSON,
                ("idempotency-key", key),
            ];
            let answer = ask(&app, "POST", "/entities", &headers, b"{").await;
            answer.assert_problem(401, "unauthorized");
        }
    }
    // Nor does a path that names nothing.
    let far = format!("/integrations/{}/sync", "x".repeat(5_000));
    for path in ["/nothing", far.as_str()] {
        let headers = [
            ("authorization", operator.as_str()),
            ("idempotency-key", "good"),
        ];
        let answer = ask(&app, "POST", path, &headers, b"").await;
        answer.assert_problem(404, "not_found");
    }
    assert_eq!(count(&app, "idempotency_keys").await, before);
    assert_eq!(app.all("/entities").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_answer_like_another() {
    let app = start().await;
    let entity = app.entity().await;
    let token = key_of(&app, &entity).await;
    let github = by_token(&entity, "github").to_string();
    let made = app.post("/integrations", by_token(&entity, "github")).await;
    let gone = format!("/integrations/{NOBODY}/sync");
    for (token, path, body, status, code) in [
        (OPERATOR_KEY, "/entities", "{", 400, "invalid_json"),
        (
            token.as_str(),
            "/entities",
            r#"{"name": "x"}"#,
            403,
            "forbidden",
        ),
        (OPERATOR_KEY, gone.as_str(), "", 404, "not_found"),
        (
            OPERATOR_KEY,
            "/integrations",
            &github,
            409,
            "integration_exists",
        ),
        (
            OPERATOR_KEY,
            "/entities",
            r#"{"name": " "}"#,
            422,
            "invalid_fields",
        ),
    ] {
        let key = format!("of {code}");
        let (first, replayed) = post_as(&app, token, &key, path, body).await;
        assert!(!replayed);
        assert_is_problem(&named(first.body.clone()), status, code);
        assert_eq!(post_as(&app, token, &key, path, body).await, (first, true));
    }
    // It stays the answer although the reason is gone.
    let path = format!("/integrations/{}", made["id"].as_str().unwrap());
    assert_eq!(app.send("DELETE", &path, None).await.0, 200);
    let again = post(&app, "of integration_exists", "/integrations", &github).await;
    assert_eq!((again.0.status, again.1), (409, true));
    let other = post(&app, "another", "/integrations", &github).await;
    assert_eq!((other.0.status, other.1), (201, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_come_again_is_carried_out_when_one_does() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .embedded()
        .variable("NUCLEUS_HTTP__BODY_LIMIT_BYTES", "1024")
        .start()
        .await;
    let operator = bearer(OPERATOR_KEY);
    let name = br#"{"name": "Ada"}"#.as_slice();
    let long = [name, &[b' '; 2000]].concat();
    let ask_as = async |authorization: &str, kind: &str, key: &str, body: &[u8]| {
        let headers = [
            ("authorization", authorization),
            ("content-type", kind),
            ("idempotency-key", key),
        ];
        ask(&app, "POST", "/entities", &headers, body).await
    };
    let json = "application/json";
    let refused = [
        ask_as("Bearer nobody", json, "401", name).await,
        ask_as(&operator, json, "413", &long).await,
        ask_as(&operator, "text/plain", "415", name).await,
    ];
    for (answer, status) in refused.iter().zip([401, 413, 415]) {
        assert_eq!(answer.status, status, "{answer:?}");
        for replayed in [None, Some("true")] {
            let again = ask_as(&operator, json, &status.to_string(), name).await;
            assert_eq!(again.status, 201, "{again:?}");
            assert_eq!(again.header("idempotent-replayed"), replayed);
        }
    }
    assert_eq!(app.all("/entities").await.len(), 3);
    // A path that knows no POST keeps the header that says what it knows.
    for _ in 0..2 {
        let headers = [
            ("authorization", operator.as_str()),
            ("idempotency-key", "k"),
        ];
        let answer = ask(&app, "POST", "/events", &headers, b"").await;
        answer.assert_problem(405, "method_not_allowed");
        assert!(answer.header("allow").is_some());
        assert_eq!(answer.header("idempotent-replayed"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_the_key_is_free() {
    let app = start_in_vault().await;
    let entity = app.entity().await;
    // A file where the vault is to make a folder.
    let name = format!("nucleus-credentials-{entity}-github");
    let in_the_way = app.folder.path().join("vault").join(name);
    std::fs::write(&in_the_way, "").unwrap();
    let body = by_token(&entity, "github").to_string();
    for _ in 0..2 {
        for key in ["k", "l"] {
            let (given, replayed) = post(&app, key, "/integrations", &body).await;
            assert_eq!((given.status, replayed), (503, false), "{given:?}");
        }
    }
    std::fs::remove_file(&in_the_way).unwrap();
    let other = by_token(&entity, "slack").to_string();
    for (key, body) in [("k", &body), ("l", &other)] {
        for replayed in [false, true] {
            let (given, kept) = post(&app, key, "/integrations", body).await;
            assert_eq!((given.status, kept), (201, replayed), "{given:?}");
        }
    }
    assert_eq!(app.all("/integrations").await.len(), 2);
    assert_eq!(versions(&app).await, pinned(&app).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_too_early_waits_and_is_then_sent_away() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .embedded()
        .deadlines(|deadlines| deadlines.repeat = Duration::from_millis(300))
        .start()
        .await;
    let id = app.connect().await;
    let path = format!("/integrations/{id}/test");
    app.google.hold(Method::GetProfile);
    let asking = async {
        app.google.wait_for_held(Method::GetProfile, 1).await;
        let begin = app.real_time();
        let (given, replayed) = post(&app, "k", &path, "").await;
        assert!(!replayed && begin.elapsed() >= Duration::from_millis(300));
        assert_is_problem(&named(given.body), 409, "idempotency_in_flight");
        // With another body there is nothing to wait for.
        let (given, _) = post(&app, "k", &path, r#"{"x": 1}"#).await;
        assert_eq!(given.status, 422);
        // And nobody else has to.
        let (given, _) = post(&app, "k", "/entities", r#"{"name": "x"}"#).await;
        assert_eq!(given.status, 201);
        let patient = async {
            loop {
                let given = post(&app, "k", &path, "").await;
                if given.0.status != 409 {
                    return given;
                }
            }
        };
        let release = async { app.google.release(Method::GetProfile) };
        tokio::join!(in_time(PATIENCE, patient), release).0
    };
    let (first, patient) = tokio::join!(post(&app, "k", &path, ""), asking);
    assert_eq!((first.0.status, first.1), (200, false));
    assert_eq!(patient, (first.0, true));
    assert_eq!(app.calls(Method::GetProfile), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_kept_for_a_client_that_has_hung_up_or_was_sent_away() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .embedded()
        .deadlines(|deadlines| deadlines.answer = Duration::from_secs(3))
        .start()
        .await;
    let id = app.connect().await;
    let path = format!("/integrations/{id}/test");
    app.google.hold(Method::GetProfile);
    let key = bearer(OPERATOR_KEY);
    let headers = [("authorization", key.as_str()), ("idempotency-key", "gone")];
    let mut socket = TcpStream::connect(app.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    socket
        .write_all(&request("POST", &path, &headers, b""))
        .await
        .unwrap();
    app.google.wait_for_held(Method::GetProfile, 1).await;
    drop(socket);
    // The answer does not come in time, and is wanted again.
    let (given, replayed) = post(&app, "late", &path, "").await;
    assert_eq!((given.status, replayed), (503, false), "{given:?}");
    app.google.release(Method::GetProfile);
    for key in ["gone", "late"] {
        let again = async {
            loop {
                let (given, replayed) = post(&app, key, &path, "").await;
                if given.status != 503 {
                    return (given, replayed);
                }
            }
        };
        let (given, replayed) = in_time(PATIENCE, again).await;
        assert_eq!((given.status, replayed), (200, true), "{key}: {given:?}");
        assert_eq!(given.body["is_valid"], true);
    }
    assert_eq!(app.calls(Method::GetProfile), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_body_has_room_under_a_key_too() {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .embedded()
        .variable("NUCLEUS_HTTP__BODY_LIMIT_BYTES", "67108864")
        .start()
        .await;
    let mut body = r#"{"name": "Ada"}"#.to_owned();
    body.push_str(&" ".repeat(67_108_864 - body.len()));
    let (first, _) = post(&app, "k", "/entities", &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(post(&app, "k", "/entities", &body).await, (first, true));
    body.pop();
    let (given, _) = post(&app, "k", "/entities", &body).await;
    assert_eq!(given.status, 422, "{given:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_for_a_day() {
    let app = start().await;
    let name = r#"{"name": "Ada"}"#;
    let (first, _) = post(&app, "k", "/entities", name).await;
    app.clock.advance(TimeDelta::hours(23));
    app.tick().await;
    assert_eq!(
        post(&app, "k", "/entities", name).await,
        (first.clone(), true)
    );
    app.clock.advance(TimeDelta::hours(1));
    // Whether it was swept or not.
    let (second, replayed) = post(&app, "k", "/entities", r#"{"name": "Bob"}"#).await;
    assert_eq!((second.status, replayed), (201, false));
    assert_ne!(second.body["id"], first.body["id"]);
    post(&app, "l", "/entities", name).await;
    assert_eq!(count(&app, "idempotency_keys").await, 2);
    app.clock.advance(TimeDelta::hours(24));
    app.tick().await;
    assert_eq!(count(&app, "idempotency_keys").await, 0);
    assert_eq!(app.all("/entities").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_worth_nothing_without_the_callers_key() {
    let app = start().await;
    let entity = app.entity().await;
    let token = key_of(&app, &entity).await;
    let body = json!({"entity_id": entity}).to_string();
    let path = "/integrations/gmail/oauth/start";
    let (begun, _) = post_as(&app, &token, "k", path, &body).await;
    assert_eq!(
        post_as(&app, &token, "k", path, &body).await,
        (begun.clone(), true)
    );
    let connection = by_token(&entity, "github").to_string();
    let (made, _) = post_as(&app, &token, "k", "/integrations", &connection).await;
    assert_eq!(made.status, 201);
    assert_eq!(count(&app, "idempotency_keys").await, 2);
    let mut bytes = Vec::new();
    for file in ["nucleus.db", "nucleus.db-wal"] {
        bytes.extend(std::fs::read(app.folder.path().join(file)).unwrap());
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    let state = begun.body["state"].as_str().unwrap();
    assert!(!holds(state) && !holds("canary-token"));
    // Nor can who guesses a body see that it was that one.
    assert!(!holds(&keys::hash(&connection)) && !holds(&keys::hash(&body)));
    assert!(holds(&keys::fingerprint(&token, body.as_bytes())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browsers_cookie_is_not_kept_and_its_form_has_no_key() {
    let app = start().await;
    let entity = app.entity().await;
    let operator = bearer(OPERATOR_KEY);
    let own_page = [
        ("authorization", operator.as_str()),
        JSON,
        ("idempotency-key", "k"),
        ("sec-fetch-site", "same-origin"),
        ("origin", app.url.as_str()),
    ];
    let body = json!({"entity_id": entity}).to_string();
    let mut states = BTreeSet::new();
    for _ in 0..2 {
        let path = "/integrations/gmail/oauth/start";
        let answer = ask(&app, "POST", path, &own_page, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("set-cookie").is_some());
        assert_eq!(answer.header("idempotent-replayed"), None);
        states.insert(answer.body()["state"].to_string());
    }
    assert_eq!(states.len(), 2);
    let before = count(&app, "idempotency_keys").await;
    let form = [
        ("authorization", operator.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("idempotency-key", "k"),
    ];
    for _ in 0..2 {
        let path = "/integrations/gmail/oauth/callback";
        let answer = ask(&app, "POST", path, &form, b"decision=connect").await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(answer.header("idempotent-replayed"), None);
    }
    assert_eq!(count(&app, "idempotency_keys").await, before);
}
