//! What the log says of requests: one line each, under the request's id, whatever a client sends.

use nucleus::demo::Mailbox;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    child::{Api, PATIENCE, Server, World, happens, in_time},
    harness::OPERATOR_KEY,
    logs::lines,
};

/// A second line of a log that was never written, and what steers a terminal or turns text around.
const HOSTILE: &str = "a\r\n{\"severity\":\"ERROR\",\"message\":\"forged\",\"timestamp\":\"x\",\
                       \"target\":\"x\"}\r\n\u{1b}[31m\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{2066}\
                       \u{2028}\u{85}\u{200f}";

async fn start(format: &str, filter: &str) -> (World, Server) {
    let mut world = World::new(Mailbox::new("me@example.com", 1)).await;
    world.set("NUCLEUS_TELEMETRY__FORMAT", format);
    world.set("NUCLEUS_TELEMETRY__FILTER", filter);
    let server = world.listen("up").await;
    (world, server)
}

/// Sends bytes as they are; gives the status.
async fn send_raw(server: &Server, bytes: &[u8]) -> u16 {
    let address = server.api.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = in_time(PATIENCE, socket.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn request(method: &str, target: &str, headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {OPERATOR_KEY}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"content-length: 0\r\n\r\n");
    bytes
}

/// The lines that tell of requests.
fn of_requests(lines: &[Value]) -> Vec<&Value> {
    let told = [
        "a request was answered",
        "a client hung up before its request was answered",
    ];
    lines
        .iter()
        .filter(|line| told.iter().any(|message| line["message"] == *message))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_change_something_leaves_a_line() {
    let (_world, server) = start("json", "info").await;
    server.api.get("/entities").await;
    let path = "/entities/01890000-0000-7000-8000-000000000000?secret=canary-query";
    let callback = "/integrations/gmail/oauth/callback?state=canary-query&code=canary-query";
    for (method, path, id, expected) in [
        ("DELETE", path, "one", 404),
        ("POST", "/no/such/path?code=canary-query", "two", 404),
        ("POST", "/entities/?state=canary-query", "three", 422),
        ("GET", callback, "four", 422),
    ] {
        let bytes = request(method, path, &[("x-request-id", id.as_bytes())]);
        assert_eq!(send_raw(&server, &bytes).await, expected);
    }
    let finished = server.stop().await;
    assert!(!finished.stderr.contains("canary-query"));
    let lines = lines(&finished.stderr);
    let found = of_requests(&lines);
    let expected = [
        ("one", "DELETE", json!("/entities/{id}"), 404),
        ("two", "POST", json!(null), 404),
        ("three", "POST", json!("/entities"), 422),
        (
            "four",
            "GET",
            json!("/integrations/{service}/oauth/callback"),
            422,
        ),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (id, method, route, status)) in found.iter().zip(expected) {
        assert_eq!(line["request.id"], id);
        assert_eq!(line["http.method"], method);
        assert_eq!(line["http.route"], route);
        assert_eq!(line["http.status"], status);
        assert_eq!(line["client.address"], "127.0.0.1");
        assert_eq!(line["severity"], "INFO");
        assert!(line["duration_ms"].is_u64(), "{line}");
        assert!(line["logging.googleapis.com/trace"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_leaves_one_where_that_is_asked_for() {
    let (_world, server) = start("json", "nucleus=debug").await;
    server.api.get("/entities?limit=7").await;
    server.api.get("/livez").await;
    let finished = server.stop().await;
    let lines = lines(&finished.stderr);
    let found = of_requests(&lines);
    let told: Vec<_> = found
        .iter()
        .map(|line| (&line["http.path"], &line["http.status"], &line["severity"]))
        .collect();
    let (ok, debug) = (json!(200), json!("DEBUG"));
    assert_eq!(
        told,
        [
            (&json!("/entities"), &ok, &debug),
            (&json!("/livez"), &ok, &debug)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_a_line_too() {
    let (world, server) = start("json", "info").await;
    let id = server.api.connect(&world).await;
    world.google.hold(nucleus::demo::Method::GetProfile);
    let path = format!("/integrations/{id}/test");
    let address = server.api.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let bytes = request("POST", &path, &[("x-request-id", b"gone")]);
    socket.write_all(&bytes).await.unwrap();
    let held = nucleus::demo::Method::GetProfile;
    world.google.wait_for_held(held, 1).await;
    drop(socket);
    let said = happens(PATIENCE, async || server.child.stderr().contains("hung up"));
    assert!(said.await);
    world.google.release(held);
    let finished = server.stop().await;
    let lines = lines(&finished.stderr);
    let found = of_requests(&lines);
    let line = found.last().unwrap();
    assert_eq!(line["request.id"], "gone");
    assert_eq!(line["http.status"], Value::Null);
    assert_eq!(line["http.route"], "/integrations/{id}/test");
}

/// Bodies with the hostile text in each place that takes text, and in those that do not.
fn hostile_bodies(world: &World, entity: &str, id: &str) -> Vec<(&'static str, String, Value)> {
    let mut bodies = vec![
        ("POST", "/entities".to_owned(), json!({"name": HOSTILE})),
        ("POST", "/entities".to_owned(), json!({HOSTILE: 1})),
        ("POST", "/entities".to_owned(), json!(HOSTILE)),
    ];
    let good = Api::connection(world, entity);
    for field in good.as_object().unwrap().keys() {
        let mut body = good.clone();
        body[field] = json!(HOSTILE);
        bodies.push(("POST", "/integrations".to_owned(), body));
    }
    for field in ["refresh_token", "client_id", "token_uri", HOSTILE] {
        let mut body = good.clone();
        body["credentials"][field] = json!(HOSTILE);
        bodies.push(("POST", "/integrations".to_owned(), body));
    }
    let texts = json!({
        "display_name": HOSTILE,
        "description": HOSTILE,
        "service_type": HOSTILE,
        "config": {HOSTILE: HOSTILE},
        "sync_settings": {HOSTILE: HOSTILE},
        "scopes": [HOSTILE],
    });
    for (field, value) in texts.as_object().unwrap() {
        let mut body = good.clone();
        body[field] = value.clone();
        bodies.push(("POST", "/integrations".to_owned(), body));
        let body = json!({field: value});
        bodies.push(("PATCH", format!("/integrations/{id}"), body));
    }
    let body = json!({"confirm_mass_deletion": HOSTILE});
    bodies.push(("POST", format!("/integrations/{id}/sync"), body));
    bodies
}

/// Sends the hostile text wherever a client can put text.
async fn attack(world: &World, server: &Server) {
    let id = server.api.connect(world).await;
    let entity = server.api.entity().await;
    for (method, path, body) in hostile_bodies(world, &entity, &id) {
        let (status, _) = server
            .api
            .try_send(method, &path, Some(body))
            .await
            .unwrap();
        assert!(status < 500, "{method} {path}: {status}");
        // What was made of it goes again, so that the next one is made too.
        for made in server.api.all("/integrations").await {
            if made["entity_id"] == json!(entity) {
                let path = format!("/integrations/{}", made["id"].as_str().unwrap());
                server.api.try_send("DELETE", &path, None).await.unwrap();
            }
        }
    }
    let encoded: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let encoded = encoded.replace('+', "%20");
    for target in [
        format!("/{encoded}"),
        format!("/integrations/{encoded}"),
        format!("/runs/{encoded}/cancel"),
        format!("/entities?cursor={encoded}&limit={encoded}&{encoded}={encoded}"),
    ] {
        for method in ["GET", "POST"] {
            let status = send_raw(server, &request(method, &target, &[])).await;
            assert!((400..500).contains(&status), "{target}: {status}");
        }
    }
    // Of these a header takes what is no control character, and as bytes.
    let bidi = "\u{202e}a\u{2066}\u{2028}\u{85}".as_bytes();
    for value in [bidi, b"\xff\xfe\t\x9b2J", HOSTILE.as_bytes(), b"\x1b[31m"] {
        for name in [
            "x-request-id",
            "idempotency-key",
            "traceparent",
            "user-agent",
            "content-type",
            "authorization",
            "origin",
            "cookie",
            "host",
            "expect",
        ] {
            for method in ["GET", "POST"] {
                let bytes = request(method, "/entities", &[(name, value)]);
                let status = send_raw(server, &bytes).await;
                assert!(status < 500, "{name}: {status}");
            }
        }
        let bytes = [
            b"GET /",
            value,
            b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ]
        .concat();
        assert!(send_raw(server, &bytes).await < 500);
    }
}

fn steers(character: char) -> bool {
    (character.is_control() && character != '\n')
        || ('\u{200e}'..='\u{200f}').contains(&character)
        || ('\u{2028}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_forges_no_line_and_steers_no_terminal() {
    for format in ["json", "text"] {
        let (world, server) = start(format, "trace").await;
        attack(&world, &server).await;
        let finished = server.stop().await;
        let steering: Vec<&str> = finished
            .stderr
            .lines()
            .filter(|line| line.contains(steers))
            .collect();
        assert!(steering.is_empty(), "{steering:?}");
        // It was there to be seen: a path is logged as it was sent.
        assert!(finished.stderr.contains("/runs/a%0D%0A"), "{format}");
        if format == "json" {
            let lines = lines(&finished.stderr);
            assert!(of_requests(&lines).len() > 100);
            for line in lines {
                assert_ne!(line["message"], "forged", "{line}");
                assert_ne!(line["target"], "x", "{line}");
            }
        } else {
            for line in finished.stderr.lines() {
                let time = line.split(' ').next().unwrap();
                assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{line}");
            }
        }
    }
}
