//! What holds for every route: bodies, content types, sizes, slashes, methods, headers.

use serde_json::{Value, json};

use super::{
    NOBODY, ask, assert_is_problem, bearer, exchange, fields,
    good_requests::{self, GoodRequest, Watch},
    request,
    scoping::routes,
    start,
};
use crate::{
    contract::operations,
    harness::{OPERATOR_KEY, Setting, TestApp},
};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(app: &TestApp, path: &str, kind: (&str, &str), body: &[u8]) -> super::Answer {
    let key = bearer(OPERATOR_KEY);
    ask(
        app,
        "POST",
        path,
        &[("authorization", key.as_str()), kind],
        body,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_said_to_be_json() {
    let (app, requests) = good_requests::start().await;
    let key = bearer(OPERATOR_KEY);
    let send = async |good: &GoodRequest, headers: &[(&str, &str)]| {
        let headers = [&[("authorization", key.as_str())], headers].concat();
        let body = good.body.to_string();
        ask(&app, good.method, &good.path, &headers, body.as_bytes()).await
    };
    let mut watch = Watch::begin(&app).await;
    let mut refused = 0;
    for good in &requests {
        for kind in [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/octet-stream",
            "application/jsonp",
            "application/json5",
            "application/vnd.api+json",
            "application/xml, application/json",
            "*/*",
            "json",
            ";application/json",
            "",
        ] {
            // The form of the page that asks for a confirmation is sent to the same path.
            if good.route.ends_with("/callback") && kind == "application/x-www-form-urlencoded" {
                continue;
            }
            let answer = send(good, &[("content-type", kind)]).await;
            answer.assert_problem(415, "unsupported_media_type");
            refused += 1;
        }
        let answer = send(good, &[]).await;
        answer.assert_problem(415, "unsupported_media_type");
    }
    assert!(refused >= 100, "{refused}");
    assert!(
        !watch.has_seen(&app).await,
        "something was done all the same"
    );
    let good_kinds = [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON ;q=1",
    ];
    for (number, good) in requests.iter().enumerate() {
        let kind = good_kinds[number % good_kinds.len()];
        let answer = send(good, &[("content-type", kind)]).await;
        let (method, path) = (good.method, &good.path);
        assert_eq!(answer.status, good.status, "{method} {path}: {answer:?}");
    }
    assert!(watch.has_seen(&app).await);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_is_a_bad_request() {
    let app = start().await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep_object = [r#"{"name":"#.repeat(50_000), "1".into(), "}".repeat(50_000)].concat();
    let surrogate = br#"{"name": "\ud800"}"#;
    let bodies: &[&[u8]] = &[
        b"{",
        b"nonsense",
        br#"{"name": "x"} trailing"#,
        br#"{"name": }"#,
        br#"{'name': 'x'}"#,
        b"\xef\xbb\xbf{}",
        b"{\"name\": \"\xff\xfe\"}",
        b"{\"name\": \"line\nfeed\"}",
        b"\0",
        br#"{"name": 1e999}"#,
        surrogate,
        &deep,
        deep_object.as_bytes(),
    ];
    for body in bodies {
        let answer = post(&app, "/entities", JSON, body).await;
        answer.assert_problem(400, "invalid_json");
    }
    assert!(app.all("/entities").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_the_wrong_type_is_named() {
    let app = start().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": 1}), "name"),
        (json!({"name": null}), "name"),
        (json!({"name": ["x"]}), "name"),
        (json!({"name": "x", "extra": 1}), "extra"),
        (json!([]), "body"),
        (json!(["a name"]), "body"),
        (json!("text"), "body"),
        (json!(null), "body"),
    ] {
        let answer = post(&app, "/entities", JSON, body.to_string().as_bytes()).await;
        answer.assert_problem(422, "invalid_fields");
        let named = fields(&answer.body());
        // A missing field has no path of its own; the message names it.
        if body == json!({}) {
            assert!(answer.text.contains("`name`"), "{answer:?}");
        } else {
            assert_eq!(named, [field.to_owned()].into(), "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused() {
    let app = Setting::new(nucleus::demo::Mailbox::new(super::OWNER, 1))
        .variable("NUCLEUS_HTTP__BODY_LIMIT_BYTES", "2048")
        .start()
        .await;
    let mut body = br#"{"name": "x"}"#.to_vec();
    body.resize(2048, b' ');
    assert_eq!(post(&app, "/entities", JSON, &body).await.status, 201);
    body.push(b' ');
    let answer = post(&app, "/entities", JSON, &body).await;
    answer.assert_problem(413, "body_too_large");
    assert!(answer.text.contains("2048"));
    // Announced, never sent.
    let key = bearer(OPERATOR_KEY);
    let headers = [
        ("authorization", key.as_str()),
        JSON,
        ("content-length", "999999999999"),
    ];
    let answer = ask(&app, "POST", "/entities", &headers, b"").await;
    answer.assert_problem(413, "body_too_large");
    // Sent without being announced.
    let chunked = |body: &[u8]| {
        let mut bytes = Vec::new();
        for chunk in body.chunks(100) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        let headers = [
            ("authorization", key.as_str()),
            JSON,
            ("transfer-encoding", "chunked"),
        ];
        request("POST", "/entities", &headers, &bytes)
    };
    let answer = exchange(&app, &chunked(&body)).await.unwrap();
    answer.assert_problem(413, "body_too_large");
    body.pop();
    assert_eq!(exchange(&app, &chunked(&body)).await.unwrap().status, 201);
    assert_eq!(app.all("/entities").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_an_empty_object() {
    let app = start().await;
    let id = app.connect().await;
    let path = format!("/integrations/{id}/sync");
    for (kind, body) in [
        (JSON, b"".as_slice()),
        (("x-nothing", "here"), b""),
        (JSON, b" \n\t"),
        (JSON, b"{}"),
    ] {
        let answer = post(&app, &path, kind, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let answer = post(&app, "/entities", JSON, b"").await;
    answer.assert_problem(422, "invalid_fields");
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_works_with_and_without_the_last_slash() {
    let app = start().await;
    let all = operations();
    assert!(all.len() >= 26, "{all:?}");
    for operation in all {
        let path = operation.at(NOBODY);
        let path = path.trim_end_matches('/');
        for path in [path.to_owned(), format!("{path}/"), format!("{path}/?x=1")] {
            // Without a key a route says 401, and what is no route says 404.
            let answer = ask(&app, &operation.method, &path, &[], b"").await;
            let expected = match operation.is_for_callers() {
                true => 401,
                // A page for a browser that brings nothing.
                false if operation.is_callback() => 422,
                false => 200,
            };
            assert_eq!(answer.status, expected, "{} {path}", operation.method);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems() {
    let app = start().await;
    let key = bearer(OPERATOR_KEY);
    for path in [
        "/",
        "/integration",
        "/integrations/x/y/z",
        "/..%2f..%2fetc/passwd",
        "/%00",
    ] {
        for headers in [&[][..], &[("authorization", key.as_str())]] {
            let answer = ask(&app, "GET", path, headers, b"").await;
            answer.assert_problem(404, "not_found");
        }
    }
    for (method, path, allowed) in [
        ("PUT", "/integrations", &["GET", "POST"][..]),
        ("DELETE", "/integrations", &["GET", "POST"]),
        ("POST", "/integrations/x", &["GET", "PATCH", "DELETE"]),
        ("GET", "/integrations/x/sync", &["POST"]),
        ("PATCH", "/runs/x", &["GET"]),
        ("POST", "/livez", &["GET"]),
        ("OPTIONS", "/entities", &["GET", "POST"]),
        ("BREW", "/entities", &["GET", "POST"]),
    ] {
        let answer = ask(&app, method, path, &[("authorization", key.as_str())], b"").await;
        answer.assert_problem(405, "method_not_allowed");
        let allow = answer.header("allow").unwrap_or_default();
        for method in allowed {
            assert!(allow.contains(method), "{method} {path}: {allow}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nothing_has_and_a_text_that_is_no_id_are_not_found() {
    let app = start().await;
    let key = bearer(OPERATOR_KEY);
    let mut tried = 0;
    for (method, route) in routes() {
        if !route.contains("{id}") {
            continue;
        }
        for id in [
            NOBODY,
            "1",
            "no-id",
            "%00",
            "%ff",
            "%27%20OR%201=1",
            &"9".repeat(5_000),
        ] {
            let path = route.replace("{id}", id);
            let headers = [("authorization", key.as_str()), JSON];
            let answer = ask(&app, &method, &path, &headers, b"").await;
            answer.assert_problem(404, "not_found");
            tried += 1;
        }
    }
    assert!(tried >= 70, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_the_server_owns_are_refused_in_every_body() {
    let app = start().await;
    let entity = app.entity().await;
    let id = app.connect_for(&entity, json!({})).await;
    let run = app.request_sync(&id).await;
    let before = (
        app.integration(&id).await,
        app.get(&format!("/runs/{run}")).await,
    );
    let other = super::by_token(&entity, "github");
    let bodies = [
        ("POST", "/entities".to_owned(), json!({"name": "x"})),
        ("POST", "/integrations".to_owned(), other),
        (
            "PATCH",
            format!("/integrations/{id}"),
            json!({"display_name": "x"}),
        ),
        ("POST", format!("/integrations/{id}/test"), json!({})),
        ("POST", format!("/integrations/{id}/sync"), json!({})),
        ("POST", format!("/runs/{run}/cancel"), json!({})),
    ];
    for (method, path, good) in &bodies {
        for (field, value) in [
            ("id", json!(NOBODY)),
            ("integration_id", json!(NOBODY)),
            ("secret_path", json!("nucleus-credentials-x/versions/1")),
            ("account", json!("me@example.com")),
            ("account_verified", json!(true)),
            ("last_sync_at", json!("2026-01-01T00:00:00Z")),
            ("last_sync_status", json!("success")),
            ("sync_error_message", json!("x")),
            ("sync_failures", json!(0)),
            ("next_sync_at", json!("2026-01-01T00:00:00Z")),
            ("token_expires_at", json!("2026-01-01T00:00:00Z")),
            ("refresh_generation", json!(7)),
            ("meta_data", json!({})),
            ("created_at", json!("2026-01-01T00:00:00Z")),
            ("updated_at", json!("2026-01-01T00:00:00Z")),
            ("created_by", json!("operator")),
            ("run_id", json!(NOBODY)),
            ("trigger", json!("schedule")),
            ("counts", json!({})),
        ] {
            let mut body = good.clone();
            body[field] = value;
            let (status, answer) = app.send(method, path, Some(body)).await;
            assert_eq!(status, 422, "{method} {path} {field}: {answer}");
            assert_eq!(fields(&answer), [field.to_owned()].into());
        }
    }
    for (method, path, field) in [
        ("PATCH", &bodies[2].1, "entity_id"),
        ("PATCH", &bodies[2].1, "service_name"),
        ("PATCH", &bodies[2].1, "credential_type"),
        ("PATCH", &bodies[2].1, "scopes"),
        ("POST", &bodies[1].1, "status"),
        ("POST", &bodies[4].1, "status"),
    ] {
        let mut body = if method == "PATCH" {
            json!({})
        } else {
            json!({field: "x"})
        };
        body[field] = Value::from("x");
        let (status, answer) = app.send(method, path, Some(body)).await;
        assert_eq!(status, 422, "{method} {path} {field}: {answer}");
    }
    let after = (
        app.integration(&id).await,
        app.get(&format!("/runs/{run}")).await,
    );
    assert_eq!(before, after);
    assert_eq!(app.all("/integrations").await.len(), 1);
    assert_eq!(app.all("/entities").await.len(), 1);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monstrous_headers_kill_nothing() {
    let app = start().await;
    let long = "x".repeat(64 * 1024);
    let answer = exchange(&app, &request("GET", "/livez", &[("x-long", &long)], b"")).await;
    assert!(answer.is_none_or(|answer| matches!(answer.status, 200 | 431)));
    let names: Vec<String> = (0..10_000).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = exchange(&app, &request("GET", "/livez", &many, b"")).await;
    assert!(answer.is_none_or(|answer| answer.status == 431));
    let endless = vec![b'a'; 4 * 1024 * 1024];
    let answer = exchange(&app, &endless).await;
    assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)));
    for nonsense in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /entities HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /entities HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    ] {
        let answer = exchange(&app, nonsense).await;
        assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)));
    }
    assert_eq!(ask(&app, "GET", "/livez", &[], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_holds_is_never_sent_back_in_an_error() {
    let app = start().await;
    let entity = app.entity().await;
    let canary = "1//canary-refresh-token";
    let mut bodies = vec![json!(canary), json!([canary])];
    for field in [
        "entity_id",
        "credentials",
        "scopes",
        "config",
        "token_expires_in",
    ] {
        let mut body = super::gmail(&app, &entity);
        body[field] = json!(canary);
        bodies.push(body);
    }
    for field in [
        "refresh_token",
        "access_token",
        "client_id",
        "client_secret",
        "token_uri",
        "scopes",
    ] {
        for value in [
            json!([canary]),
            json!({"a": canary}),
            json!(format!("{canary}\n")),
        ] {
            let mut body = super::gmail(&app, &entity);
            body["credentials"][field] = value;
            if field == "scopes" {
                body["credentials"][field] = json!({"a": canary});
            }
            bodies.push(body);
        }
    }
    for body in bodies {
        let (status, answer) = app.send("POST", "/integrations", Some(body.clone())).await;
        assert_eq!(status, 422, "{body}: {answer}");
        assert_is_problem(&answer, 422, "invalid_fields");
    }
}
