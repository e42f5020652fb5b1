//! The HTTP API from outside: every route, happy and sad. Requests that a well-behaved client would
//! not send go over a bare socket.

use std::collections::BTreeSet;

use nucleus::{
    db::{Slicing, api_key::KeyScope, integration, integration::Filter},
    demo::Mailbox,
    domain::sync::Scope,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    contract::{self, Got},
    harness::{OPERATOR_KEY, Setting, TestApp},
};

mod audit;
mod authentication;
mod changes;
mod connections;
mod creating;
mod docs;
mod edge;
mod entities;
mod events;
mod forged_targets;
mod good_requests;
mod hang_up;
mod health;
mod idempotency;
mod limits;
mod lists;
mod oauth;
mod removing;
mod runs;
mod scoping;
mod server_owned;
mod stream;
mod testing;
mod wire;

/// Whose mailbox the empty stand-in has.
const OWNER: &str = "owner@example.com";
/// An id that nothing has.
const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

/// The program with an empty mailbox.
async fn start() -> TestApp {
    Setting::new(Mailbox::new(OWNER, 1)).start().await
}

/// As [`start`], for what happens to the files of the vault.
async fn start_in_vault() -> TestApp {
    let setting = Setting::new(Mailbox::new(OWNER, 1)).in_vault();
    setting.start().await
}

/// As [`start`], on embedded parts whatever the tester has chosen: for who looks into the file.
async fn start_embedded() -> TestApp {
    let setting = Setting::new(Mailbox::new(OWNER, 1));
    setting.embedded().start().await
}

/// What a client got.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    text: String,
}

impl Answer {
    fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Fails unless it is a problem with this status and code that gives nothing away.
    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        assert_is_problem(&self.body(), status, code);
    }
}

/// Fails unless the body is that of a problem, and gives nothing away.
fn assert_is_problem(body: &Value, status: u16, code: &str) {
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["type"], "about:blank", "{body}");
    for member in ["title", "detail"] {
        let text = body[member].as_str().unwrap();
        assert!(!text.is_empty(), "{member}: {body}");
    }
    assert_eq!(body["errors"].is_array(), status == 422, "{body}");
    assert!(body["request_id"].is_string(), "{body}");
    assert_gives_nothing_away(&body.to_string());
}

/// No statement, no place on disk and no secret in what leaves.
fn assert_gives_nothing_away(text: &str) {
    for leak in [
        "SELECT",
        "INSERT",
        "UPDATE ",
        "sqlx",
        "sqlite",
        "/tmp",
        ".db",
        "vault",
        "canary",
        "secret_path",
        "nucleus-credentials",
        "versions/",
        OPERATOR_KEY,
    ] {
        assert!(!text.contains(leak), "{leak:?} is in {text}");
    }
}

/// The names of the fields that a 422 complains of.
fn fields(body: &Value) -> BTreeSet<String> {
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    errors
        .iter()
        .map(|error| {
            assert!(!error["message"].as_str().unwrap().is_empty());
            error["field"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Sends bytes as they are and reads until the server closes; none where it closes without a word.
async fn exchange(app: &TestApp, bytes: &[u8]) -> Option<Answer> {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before everything is written.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer {
        status,
        head: head.to_owned(),
        text: body.to_owned(),
    };
    let got = Got {
        status,
        content_type: answer.header("content-type"),
        body: body.as_bytes(),
    };
    // What is not understood as a request reaches no route; the HTTP library answers it bare.
    let is_bare = got.content_type.is_none() && matches!(status, 400 | 414 | 431);
    if !is_bare {
        let line = String::from_utf8_lossy(bytes);
        let mut words = line.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        contract::assert_described(method, target, got);
    }
    Some(answer)
}

/// A request with these headers, without any of its own but `host` and the length of its body.
fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: nucleus\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let chunked = headers.iter().any(|(name, _)| *name == "transfer-encoding");
    if !body.is_empty() && !chunked {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends a request over a bare socket.
async fn ask(
    app: &TestApp,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let bytes = request(method, path, headers, body);
    exchange(app, &bytes).await.unwrap()
}

/// The header of a key.
fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// A key of an entity.
async fn key_of(app: &TestApp, entity: &str) -> String {
    key_that_may(app, entity, KeyScope::Write).await
}

/// A key of an entity with this scope.
async fn key_that_may(app: &TestApp, entity: &str, scope: KeyScope) -> String {
    let entity = Some(entity.parse().unwrap());
    let key = app.app.create_key(entity, scope).await;
    key.unwrap().expose_secret().to_owned()
}

/// A body that connects Gmail.
fn gmail(app: &TestApp, entity: &str) -> Value {
    json!({
        "entity_id": entity,
        "service_name": "gmail",
        "credential_type": "oauth2",
        "credentials": {"refresh_token": app.google.refresh_token().unwrap()},
    })
}

/// A body that connects a service by a token: one by hand where the service knows such, which nobody
/// answers for, else a refresh token.
fn by_token(entity: &str, service: &str) -> Value {
    let (kind, field) = match service {
        "github" | "notion" | "slack" => ("bearer_token", "token"),
        _ => ("oauth2", "refresh_token"),
    };
    json!({
        "entity_id": entity,
        "service_name": service,
        "credential_type": kind,
        "credentials": {field: "canary-token"},
    })
}

/// The names of the members of an object.
fn keys(object: &Value) -> Vec<&str> {
    let members = object.as_object().unwrap().keys();
    let mut names: Vec<&str> = members.map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Fails unless the names are these, in whatever order.
fn assert_keys(object: &Value, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(keys(object), expected, "{object}");
}

/// Fails unless it is RFC 3339, UTC, with six decimals and `Z`.
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
    assert_eq!(
        (text.len(), &text[19..20], &text[26..]),
        (27, ".", "Z"),
        "{text}"
    );
}

/// Fails unless it is a UUID v7.
fn assert_id(value: &Value) {
    let text = value.as_str().unwrap();
    assert_eq!((text.len(), &text[14..15]), (36, "7"), "{text}");
}

/// The live versions in the secret store, as rows name them.
async fn versions(app: &TestApp) -> BTreeSet<String> {
    app.live_versions().await
}

/// The versions that rows have pinned.
async fn pinned(app: &TestApp) -> BTreeSet<String> {
    let all = Slicing {
        after: None,
        limit: 10_000,
    };
    let db = &app.app.engine.db;
    let rows = integration::list(db, Scope::Operator, &Filter::default(), all).await;
    let rows = rows.unwrap().items.into_iter();
    rows.map(|row| row.secret_path.unwrap()).collect()
}
