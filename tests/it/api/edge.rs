//! What every answer carries, whatever was asked: the request's id and the headers that tell browsers
//! to be careful. And what no answer carries: leave for other sites.

use super::{Answer, NOBODY, ask, assert_id, bearer, exchange, request, scoping::routes, start};
use crate::harness::{OPERATOR_KEY, Setting, TestApp};

fn path_of(route: &str) -> String {
    let path = route.replace("{id}", NOBODY).replace("{service}", "gmail");
    path.replace("{file}", "start.js")
}

/// Fails if the answer is a problem whose body does not name the request.
fn assert_problem_names(answer: &Answer, id: &str, what: &str) {
    if answer.header("content-type") == Some("application/problem+json") && !answer.text.is_empty()
    {
        assert_eq!(answer.body()["request_id"], id, "{what}");
    }
}

/// The answers of every route with a key and without one, and those that no route gives.
async fn answers(app: &TestApp, headers: &[(&str, &str)]) -> Vec<(String, Answer)> {
    let key = bearer(OPERATOR_KEY);
    let with_key = [headers, &[("authorization", key.as_str())]].concat();
    let mut requests: Vec<(String, String)> = routes()
        .into_iter()
        .map(|(method, route)| (method, path_of(&route)))
        .collect();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/no/such/path"),
        ("PUT", "/entities"),
        ("OPTIONS", "/integrations"),
        ("HEAD", "/livez"),
        ("POST", "/entities?limit=%00"),
    ] {
        requests.push((method.to_owned(), path.to_owned()));
    }
    let mut answers = Vec::new();
    for (method, path) in requests {
        for headers in [headers, &with_key] {
            let answer = ask(app, &method, &path, headers, b"").await;
            answers.push((format!("{method} {path} {}", headers.len()), answer));
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request() {
    let app = start().await;
    let mut seen = std::collections::BTreeSet::new();
    for (what, answer) in answers(&app, &[]).await {
        let id = answer.header("x-request-id").unwrap_or_default().to_owned();
        assert_id(&serde_json::json!(id));
        assert_problem_names(&answer, &id, &what);
        assert!(seen.insert(id), "{what}: an id was given twice");
    }
    assert!(seen.len() > 40, "{}", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_request_id_is_kept_if_it_is_one() {
    let app = start().await;
    let longest = "a".repeat(64);
    for id in ["1", "Req-7.a_b", NOBODY, &longest] {
        for (what, answer) in answers(&app, &[("x-request-id", id)]).await {
            assert_eq!(answer.header("x-request-id"), Some(id), "{what}");
            assert_problem_names(&answer, id, &what);
        }
    }
    let too_long = "a".repeat(65);
    for id in [
        "",
        " ",
        "a b",
        "a/b",
        "a\"b",
        "<b>",
        "\u{e9}",
        "a\u{1b}[31m",
        &too_long,
    ] {
        let answer = exchange(
            &app,
            &request("GET", "/livez", &[("x-request-id", id)], b""),
        )
        .await;
        // hyper itself refuses a control character.
        let Some(answer) = answer.filter(|answer| answer.status == 200) else {
            assert!(id.contains('\u{1b}'), "{id:?}");
            continue;
        };
        assert_id(&serde_json::json!(answer.header("x-request-id").unwrap()));
    }
    let twice = [("x-request-id", "a"), ("x-request-id", "a")];
    let answer = ask(&app, "GET", "/livez", &twice, b"").await;
    assert_id(&serde_json::json!(answer.header("x-request-id").unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_to_be_careful() {
    let app = start().await;
    for (what, answer) in answers(&app, &[("origin", "https://evil.example")]).await {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{what}: {name}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{what}: {policy}");
        }
        assert_eq!(answer.header("strict-transport-security"), None, "{what}");
        // Other sites may ask nothing: there is no word of CORS in any answer.
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control-"), "{what}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_an_unknown_method() {
    let app = start().await;
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    for (_, route) in routes() {
        let path = path_of(&route);
        let answer = ask(&app, "OPTIONS", &path, &headers, b"").await;
        answer.assert_problem(405, "method_not_allowed");
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control-"), "{path}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_browsers_are_told_to_stay_there() {
    let app = Setting::new(nucleus::demo::Mailbox::new(super::OWNER, 1))
        .variable("NUCLEUS_HTTP__PUBLIC_URL", "https://nucleus.example")
        .start()
        .await;
    for (what, answer) in answers(&app, &[]).await {
        let header = answer.header("strict-transport-security");
        assert_eq!(header, Some("max-age=31536000"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_many_or_too_long_are_a_problem() {
    let app = start().await;
    let names: Vec<String> = (0..150).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    // `host` and `connection` are two more.
    let most = ask(&app, "GET", "/livez", &many[..98], b"").await;
    assert_eq!(most.status, 200);
    let answer = ask(&app, "GET", "/livez", &many[..99], b"").await;
    answer.assert_problem(431, "headers_too_large");
    ask(&app, "GET", "/entities", &many, b"")
        .await
        .assert_problem(431, "headers_too_large");
    let long = "x".repeat(32 * 1024 - 100);
    let answer = ask(&app, "GET", "/livez", &[("x-long", &long)], b"").await;
    assert_eq!(answer.status, 200);
    let long = "x".repeat(32 * 1024);
    let answer = ask(&app, "GET", "/livez", &[("x-long", &long)], b"").await;
    answer.assert_problem(431, "headers_too_large");
    // What hyper refuses itself comes without a body, and yet comes.
    let names: Vec<String> = (0..10_000).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let long = "x".repeat(1024 * 1024);
    for headers in [&many[..], &[("x-long", &long)]] {
        let answer = ask(&app, "GET", "/livez", headers, b"").await;
        assert_eq!(answer.status, 431);
    }
}
