//! More than forty secrets, sent by every route and every wrong way, at trace level: none may come out in
//! any form, be it in an answer, a log line, a trace, the database, an event, a metric or the audit log.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use nucleus::{demo::generate, keys::Key};
use serde_json::{Value, json};

use crate::{
    backends,
    child::{Api, Child, PATIENCE, World},
    contract::{self, Operation},
    harness::OPERATOR_KEY,
    traces::Collector,
};

/// The shortest form that is looked for, and how much of a secret is one: who has this much of two
/// hundred bits has none of it, but somebody has cut a secret for a log line.
const SHORTEST: usize = 10;

/// The services beside the one that is synced.
const BY_HAND: [&str; 8] = [
    "github",
    "notion",
    "slack",
    "spotify",
    "linkedin",
    "twitter",
    "google_drive",
    "google_calendar",
];

/// Secrets by what they are. Each begins at random, so that a beginning tells which it is.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// A new one.
    fn make(&mut self, what: impl Into<String>) -> String {
        let random = Key::generate();
        let secret = format!("{}-canary/+ä\"", &random.expose()[3..27]);
        self.keep(what, &secret);
        secret
    }

    /// One for a header, or whatever else takes plain ASCII alone.
    fn make_plain(&mut self, what: impl Into<String>) -> String {
        let secret = Key::generate().expose()[3..30].to_owned();
        self.keep(what, &secret);
        secret
    }

    /// One that comes from elsewhere.
    fn keep(&mut self, what: impl Into<String>, secret: &str) {
        let what = what.into();
        let before = self.0.insert(what.clone(), secret.to_owned());
        assert!(before.is_none(), "two are called {what}");
    }
}

/// Finds secrets in all their forms.
struct Scanner {
    /// Forms by their first bytes.
    forms: HashMap<[u8; SHORTEST], Vec<(String, Vec<u8>)>>,
}

impl Scanner {
    fn new(canaries: &Canaries) -> Self {
        let mut scanner = Self {
            forms: HashMap::new(),
        };
        for (what, secret) in &canaries.0 {
            for (form, bytes) in forms(secret) {
                let start = bytes[..SHORTEST].try_into().unwrap();
                let known = scanner.forms.entry(start).or_default();
                known.push((format!("{what}, {form}"), bytes));
            }
        }
        scanner
    }

    /// What is found, as secret and form.
    fn found(&self, haystack: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (index, start) in haystack.windows(SHORTEST).enumerate() {
            let start: &[u8; SHORTEST] = start.try_into().unwrap();
            for (what, form) in self.forms.get(start).into_iter().flatten() {
                if haystack[index..].starts_with(form) {
                    found.insert(what.clone());
                }
            }
        }
        found
    }
}

/// A secret in the forms in which it may leak, each by its name.
fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(bytes).collect();
    let prefix: String = secret.chars().take(SHORTEST).collect();
    let mut forms = vec![
        ("raw".to_owned(), secret.to_owned()),
        ("prefix".to_owned(), prefix),
        ("HEX".to_owned(), hex.to_uppercase()),
        ("hex".to_owned(), hex),
        ("url".to_owned(), url),
        (
            "json".to_owned(),
            json!(secret).to_string().trim_matches('"').to_owned(),
        ),
    ];
    // Within something longer, base64 depends on where the secret begins.
    for shift in 0..3 {
        let shifted = [&b"xxx"[..shift], bytes].concat();
        for (name, engine) in [
            ("base64", &STANDARD_NO_PAD),
            ("base64url", &URL_SAFE_NO_PAD),
        ] {
            let encoded = engine.encode(&shifted);
            // The first characters mix with what stands before, the last one with what follows.
            let start = [0, 2, 3][shift];
            let whole = encoded[start..encoded.len() - 1].to_owned();
            forms.push((format!("{name} {shift}"), whole));
        }
    }
    let bytes = |(name, text): (String, String)| (name, text.into_bytes());
    forms.into_iter().map(bytes).collect()
}

/// A token endpoint that passes everything on to another and keeps the secrets of both sides: those that
/// no test chooses, as verifiers and access tokens.
#[derive(Clone)]
struct Eavesdropper {
    behind: String,
    heard: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Eavesdropper {
    /// Starts one before this endpoint; gives it with its address.
    async fn start(behind: String) -> (Self, String) {
        let heard = Arc::default();
        let own = Self { behind, heard };
        let routes = Router::new().fallback(Self::pass).with_state(own.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (own, format!("http://{address}/token"))
    }

    async fn pass(
        State(own): State<Self>,
        headers: HeaderMap,
        body: String,
    ) -> (axum::http::StatusCode, HeaderMap, String) {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let mut request = reqwest::Client::new().post(&own.behind).body(body.clone());
        for name in ["authorization", "content-type", "accept"] {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        for (name, value) in url::form_urlencoded::parse(body.as_bytes()) {
            if name == "code_verifier" || name == "refresh_token" {
                own.keep(&name, &value);
            }
        }
        let told: Value = json(&text);
        for name in ["access_token", "refresh_token"] {
            if let Some(value) = told[name].as_str() {
                own.keep(name, value);
            }
        }
        let json = [(
            "content-type".parse().unwrap(),
            "application/json".parse().unwrap(),
        )];
        (status, HeaderMap::from_iter(json), text)
    }

    fn keep(&self, name: &str, secret: &str) {
        let mut heard = self.heard.lock().unwrap();
        heard.insert(secret.to_owned(), name.to_owned());
    }

    /// What was heard and is no canary yet, by kind and number.
    fn tell(&self, canaries: &mut Canaries) {
        let known: BTreeSet<String> = canaries.0.values().cloned().collect();
        for (number, (secret, name)) in self.heard.lock().unwrap().iter().enumerate() {
            if !known.contains(secret) {
                canaries.keep(format!("{name} {number} of the token endpoint"), secret);
            }
        }
    }
}

/// Requests past the client of the other tests: what matters here is what comes back, whatever it is.
struct Client {
    url: String,
    answers: Vec<u8>,
    sent: usize,
}

impl Client {
    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: String) {
        let url = format!("{}{path}", self.url);
        let length = body.len();
        // A connection of its own: whoever is sent too much closes it.
        let http = reqwest::Client::new();
        let mut request = http.request(method.parse().unwrap(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sent += 1;
        let is_too_long = length > 1024 * 1024;
        let answer = match request.send().await {
            // Whoever is sent too much answers and closes before it has come.
            Err(_) if is_too_long => return,
            answer => answer.unwrap(),
        };
        for (name, value) in answer.headers() {
            self.answers.extend_from_slice(name.as_str().as_bytes());
            self.answers.extend_from_slice(value.as_bytes());
        }
        self.answers
            .extend_from_slice(&answer.bytes().await.unwrap());
    }
}

/// Every wrong way to ask for an operation, each with secrets of its own.
async fn ask_wrongly(
    client: &mut Client,
    operation: &Operation,
    canaries: &mut Canaries,
    id: &str,
) {
    let (method, path) = (operation.method.as_str(), operation.at(id));
    let name = operation.described["operationId"].as_str().unwrap();
    let json = ("content-type", "application/json");
    let operator = format!("Bearer {OPERATOR_KEY}");
    let key = canaries.make_plain(format!("{name}: a key that is none"));
    let basic = canaries.make_plain(format!("{name}: a password"));
    let bearer = format!("Bearer {key}");
    let basic = format!("Basic {basic}");
    client
        .send(method, &path, &[("authorization", &bearer)], String::new())
        .await;
    client
        .send(method, &path, &[("authorization", &basic)], String::new())
        .await;
    let twice = [
        ("authorization", bearer.as_str()),
        ("authorization", &operator),
    ];
    client.send(method, &path, &twice, String::new()).await;
    let cookie = canaries.make_plain(format!("{name}: a cookie"));
    let cookie = format!("nucleus={cookie}");
    let queried = canaries.make_plain(format!("{name}: a token in the query"));
    let in_query = format!("{path}?access_token={queried}&cursor={queried}&code={queried}");
    client
        .send(
            method,
            &in_query,
            &[("authorization", &operator), ("cookie", &cookie)],
            String::new(),
        )
        .await;
    if operation.described.get("requestBody").is_none() {
        return;
    }
    let value = canaries.make(format!("{name}: a credential"));
    let keyed = [("authorization", operator.as_str()), json];
    for body in [
        json!({"credentials": {"token": value, "refresh_token": [value]}}).to_string(),
        json!({"credentials": value, "state": value, "code": value, "name": [value]}).to_string(),
        json!({"unknown": value, "entity_id": value, "status": value}).to_string(),
        format!("{{\"credentials\": {}", json!(value)),
        format!("[{}]", json!(value)),
        json!({"credentials": {"refresh_token": value}}).to_string() + &" ".repeat(2_000_000),
    ] {
        client.send(method, &path, &keyed, body).await;
    }
    let text = [
        ("authorization", operator.as_str()),
        ("content-type", "text/plain"),
    ];
    client
        .send(
            method,
            &path,
            &text,
            json!({"credentials": value}).to_string(),
        )
        .await;
}

/// What commands say that cannot reach their database, or do not understand where it is.
async fn refuse_databases(world: &World, canaries: &mut Canaries) -> String {
    let mut children = Vec::new();
    for (what, place) in [
        ("of a server that is not there", "127.0.0.1:9/nucleus"),
        ("before a wrong port", "127.0.0.1:port/nucleus"),
        ("before a wrong option", "127.0.0.1:9/nucleus?sslmode=maybe"),
    ] {
        let password = canaries.make_plain(format!("a password {what}"));
        let url = format!("postgres://nucleus:{password}@{place}");
        for arguments in [&["migrate", "--status"][..], &["serve"], &["doctor"]] {
            let mut command = world.command(arguments);
            command.env("NUCLEUS_DATABASE__URL", &url);
            children.push(Child::spawn(command));
        }
    }
    let mut said = String::new();
    for mut child in children {
        let status = child.exit(PATIENCE).await;
        let finished = child.finished(status);
        assert_ne!(finished.code, Some(0), "{finished:#?}");
        said += &finished.stdout;
        said += &finished.stderr;
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_by_any_route_in_any_form() {
    let mut canaries = Canaries::default();
    let refresh_token = canaries.make_plain("the account's refresh token");
    let client_secret = canaries.make_plain("the client's secret");
    let mut world = World::with(generate::mailbox(6, 1), |options| {
        options.refresh_token = refresh_token.clone();
        options.client_secret = client_secret.clone();
    })
    .await;
    world.set("NUCLEUS_TELEMETRY__FILTER", "trace");
    let collector = Collector::default();
    world.set("NUCLEUS_TELEMETRY__OTLP_ENDPOINT", collector.start().await);
    let (eavesdropper, url) = Eavesdropper::start(world.google.token_url()).await;
    world.set("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", url);
    if let Some(url) = world.variables.get("NUCLEUS_DATABASE__URL") {
        let url: url::Url = url.parse().unwrap();
        canaries.keep("the database's password", url.password().unwrap());
    }
    for service in BY_HAND {
        // The stand-in knows no such account.
        let name = format!("NUCLEUS_SERVICES__{}__API_URL", service.to_uppercase());
        let url = world.google.base_url().to_owned();
        world.set(&name, url);
    }
    let server = world.listen("up").await;
    canaries.keep("the operator's key", OPERATOR_KEY);
    let entity = server.api.entity().await;
    let mut printed = Vec::new();
    for (what, scope) in [
        ("writing", "write"),
        ("reading", "read"),
        ("revoked", "read"),
    ] {
        let made = world
            .run(&["key", "create", "--entity", &entity, "--scope", scope])
            .await
            .ok();
        canaries.keep(format!("the {what} key"), made.trim());
        printed.push(made);
    }
    // The right ways: a mailbox, a token by hand at every other service, other credentials, a browser.
    let mut body = Api::connection(&world, &entity);
    body["credentials"]["access_token"] = canaries.make_plain("an access token").into();
    let integration = server.api.post("/integrations/", body).await;
    let id = integration["id"].as_str().unwrap().to_owned();
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let mut answers = integration.to_string();
    for service in BY_HAND {
        for kind in ["bearer_token", "api_key", "basic_auth"] {
            let secret = canaries.make(format!("{service}: {kind}"));
            let body = json!({
                "entity_id": entity,
                "service_name": service,
                "credential_type": kind,
                "credentials": {"token": secret, "api_key": secret, "password": secret, "username": "u"},
            });
            let sent = server
                .api
                .try_send("POST", "/integrations/", Some(body))
                .await;
            let (status, answer) = sent.unwrap();
            assert!(status < 500, "{answer}");
            answers += &answer.to_string();
        }
    }
    let replaced = canaries.make_plain("a refresh token that is none");
    let path = format!("/integrations/{id}");
    let change = json!({"credentials": {"refresh_token": replaced}});
    answers += &server
        .api
        .try_send("PATCH", &path, Some(change))
        .await
        .unwrap()
        .1
        .to_string();
    let run = server.api.sync(&id).await;
    assert_eq!(server.api.ended(&run).await["status"], "failed");
    let stream = server.api.text(&format!("/runs/{run}/stream")).await;
    assert!(stream.contains("event: done"), "{stream}");
    answers += &stream;
    let other = server.api.entity().await;
    let of_the_flow = server
        .api
        .connect_in_a_browser(&world, &other)
        .await
        .unwrap();
    for (what, secret) in ["the state", "the code", "the cookie"]
        .iter()
        .zip(&of_the_flow)
    {
        // What they begin with may be the same each time.
        canaries.keep(*what, &secret[secret.len() - 12..]);
    }
    // The wrong ways.
    let mut client = Client {
        url: server.api.url.clone(),
        answers: answers.into_bytes(),
        sent: 0,
    };
    for operation in contract::operations() {
        ask_wrongly(&mut client, &operation, &mut canaries, &id).await;
    }
    let refusals = refuse_databases(&world, &mut canaries).await;
    let looked = world.run(&["doctor"]).await;
    let listed = world.run(&["key", "list"]).await;
    let verified = world.run(&["audit", "verify", "--json"]).await;
    let metrics = server.api.text("/metrics").await;
    let events = json!(server.api.all("/events").await).to_string();
    let audit = json!(server.api.all("/audit").await).to_string();
    // Whatever a secret is sent in, an answer that has to name it is not written down.
    let finished = server.stop().await;
    let database = backends::database_bytes(&world.variables, &world.data_dir()).await;
    eavesdropper.tell(&mut canaries);
    let of_kind = |kind: &str| canaries.0.keys().any(|what| what.starts_with(kind));
    assert!(of_kind("code_verifier") && of_kind("access_token"));
    assert!(
        canaries.0.len() > 100 && client.sent > 150,
        "{}",
        client.sent
    );
    let sinks = [
        ("the answers", client.answers),
        ("the log", finished.stderr.into_bytes()),
        ("standard output", finished.stdout.into_bytes()),
        ("the database", database),
        ("the traces", collector.sent().concat()),
        ("the metrics", metrics.into_bytes()),
        ("the events", events.into_bytes()),
        ("the audit log", audit.into_bytes()),
        ("what refuses to start", refusals.into_bytes()),
        (
            "doctor",
            format!("{}{}", looked.stdout, looked.stderr).into_bytes(),
        ),
        (
            "the list of keys",
            format!("{}{}", listed.stdout, listed.stderr).into_bytes(),
        ),
        (
            "audit verify",
            format!("{}{}", verified.stdout, verified.stderr).into_bytes(),
        ),
    ];
    let scanner = Scanner::new(&canaries);
    // The one output that is meant to hold a secret.
    assert_eq!(
        scanner.found(printed[0].as_bytes()).len(),
        4,
        "{:?}",
        scanner.found(printed[0].as_bytes())
    );
    for (name, bytes) in &sinks {
        assert!(!bytes.is_empty(), "nothing came by way of {name}");
        assert_eq!(scanner.found(bytes), BTreeSet::new(), "in {name}");
        assert_planted_is_found(&scanner, &canaries, name, bytes);
    }
}

/// Fails unless every form of a secret is found in the middle of what a sink holds.
fn assert_planted_is_found(scanner: &Scanner, canaries: &Canaries, name: &str, sink: &[u8]) {
    let what = "github: bearer_token";
    for (form, bytes) in forms(&canaries.0[what]) {
        let middle = sink.len() / 2;
        // A part is enough: what is scanned is the same everywhere.
        let (before, after) = (&sink[middle.saturating_sub(500)..middle], &sink[middle..]);
        let after = &after[..after.len().min(500)];
        let planted = [before, &bytes, after].concat();
        let found = scanner.found(&planted);
        assert!(
            found.contains(&format!("{what}, {form}")),
            "{form} in {name}: {found:?}"
        );
    }
}

/// What callers may choose freely comes out where it is meant to, so that a scan that finds nothing has
/// looked in the right places.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_in_each_place_is_found_there() {
    let mut canaries = Canaries::default();
    let name = canaries.make("an entity's name");
    let request = canaries.make_plain("a request's id");
    let mut world = World::embedded(generate::mailbox(2, 1)).await;
    world.set("NUCLEUS_TELEMETRY__FILTER", "trace");
    let server = world.listen("up").await;
    let mut client = Client {
        url: server.api.url.clone(),
        answers: Vec::new(),
        sent: 0,
    };
    let operator = format!("Bearer {OPERATOR_KEY}");
    let headers = [
        ("authorization", operator.as_str()),
        ("content-type", "application/json"),
        ("x-request-id", &request),
    ];
    let body = json!({"name": name}).to_string();
    client.send("POST", "/entities", &headers, body).await;
    let audit = json!(server.api.all("/audit").await).to_string();
    let finished = server.stop().await;
    let database = std::fs::read(world.data_dir().join("nucleus.db")).unwrap();
    let wal = std::fs::read(world.data_dir().join("nucleus.db-wal")).unwrap_or_default();
    let scanner = Scanner::new(&canaries);
    let holds = |bytes: &[u8], form: &str| scanner.found(bytes).contains(form);
    assert!(holds(&client.answers, "an entity's name, json"));
    assert!(holds(&client.answers, "a request's id, raw"));
    assert!(holds(finished.stderr.as_bytes(), "a request's id, raw"));
    assert!(holds(audit.as_bytes(), "a request's id, raw"));
    let database = [database, wal].concat();
    assert!(holds(&database, "an entity's name, raw"));
    assert!(holds(&database, "a request's id, prefix"));
    let value: Value = serde_json::from_str(&audit).unwrap();
    assert!(value.as_array().is_some_and(|entries| !entries.is_empty()));
}
