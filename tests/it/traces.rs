//! Traces, as a collector gets them: one from a request through the message to the event, nothing in
//! them that is not ours to tell, and nothing at all where none is configured.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use nucleus::demo::{Method, generate};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::Value;
use sqlx::SqliteConnection;

use crate::{
    child::{Api, Child, PATIENCE, World, happens, in_time},
    harness::OPERATOR_KEY,
    logs::lines,
    takeover::VAULT_KEY,
};

const REFRESH_TOKEN: &str = "1//canary-refresh-token-4b1d07";
const CLIENT_SECRET: &str = "canary-client-secret-93ee21";
/// The trace and the span of whoever asks.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ASKING: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
pub struct Collector {
    sent: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    /// Starts one; gives its address.
    pub async fn start(&self) -> String {
        let take = async |State(collector): State<Self>, body: Bytes| {
            collector.sent.lock().unwrap().push(body);
        };
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        format!("http://{address}")
    }

    /// The bodies as they came.
    pub fn sent(&self) -> Vec<Bytes> {
        self.sent.lock().unwrap().clone()
    }

    /// Every span, with the name of the service that told it.
    fn spans(&self) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        for body in self.sent() {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for told in request.resource_spans {
                let attributes = told.resource.unwrap().attributes;
                let name = attributes.iter().find(|pair| pair.key == "service.name");
                let name = format!("{:?}", name.unwrap().value);
                for scope in told.scope_spans {
                    spans.extend(scope.spans.into_iter().map(|span| (name.clone(), span)));
                }
            }
        }
        spans
    }
}

async fn world() -> World {
    let mut world = World::embedded_with(generate::bench_mailbox(120, 600), |options| {
        options.refresh_token = REFRESH_TOKEN.to_owned();
        options.client_secret = CLIENT_SECRET.to_owned();
    })
    .await;
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    world
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is of the trace of whoever asks, and has this name.
fn is_of_trace(span: &Span, name: &str) -> bool {
    span.name == name && hex(&span.trace_id) == TRACE
}

/// What a row says of its trace, in order, without those that say nothing.
async fn traceparents(database: &mut SqliteConnection, table: &'static str) -> Vec<String> {
    let sql = format!("SELECT traceparent FROM {table} WHERE traceparent IS NOT NULL");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_all(database)
        .await
        .unwrap()
}

/// The names of a process's threads, as far as the kernel keeps them.
fn has_sender(child: &Child) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    names
        .flatten()
        .any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_through_the_message_to_the_event() {
    let mut world = world().await;
    let collector = Collector::default();
    world.set("NUCLEUS_TELEMETRY__OTLP_ENDPOINT", collector.start().await);
    // What is left out of the log is traced all the same.
    world.set("NUCLEUS_TELEMETRY__FILTER", "nucleus::sync=info");
    world.run(&["migrate"]).await.ok();
    let server = world.listen("serve").await;
    let mut worker = Child::spawn(world.command(&["work"]));
    let integration = server.api.connect(&world).await;
    world.google.hold(Method::MessagesList);
    let path = format!("/integrations/{integration}/sync");
    let asked = reqwest::Client::new()
        .post(format!("{}{path}", server.api.url))
        .bearer_auth(OPERATOR_KEY)
        .header("traceparent", format!("00-{TRACE}-{ASKING}-01"))
        .send()
        .await
        .unwrap();
    let asked: Value = asked.json().await.unwrap();
    let run = asked["run_id"].as_str().unwrap();
    let held = world.google.wait_for_held(Method::MessagesList, 1);
    in_time(PATIENCE, held).await;
    // The message is still there while its run goes on.
    let mut database = world.database().await;
    let told = traceparents(&mut database, "outbox").await;
    assert_eq!(told, traceparents(&mut database, "sync_runs").await);
    world.google.release(Method::MessagesList);
    assert_eq!(server.api.ended(run).await["status"], "success");
    let events = server.api.all("/events").await;
    let mut subjects = Vec::new();
    for record in server
        .api
        .all(&format!("/integrations/{integration}/records"))
        .await
    {
        subjects.push(record["meta_data"]["subject"].as_str().unwrap().to_owned());
    }
    assert!(has_sender(&worker) && has_sender(&server.child));
    // At its end a process gives what is left a second, which a machine with much to do may exceed.
    let names = ["POST /integrations/{id}/sync", "batch", "sync"];
    let sent = happens(PATIENCE, async || {
        let spans = collector.spans();
        let came = |name| spans.iter().any(|(_, span)| is_of_trace(span, name));
        names.into_iter().all(came)
    });
    assert!(sent.await, "{:?}", collector.spans());
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    worker.exit(PATIENCE).await;
    server.stop().await;

    let spans = collector.spans();
    let of_trace: Vec<&Span> = spans
        .iter()
        .map(|(service, span)| {
            assert!(service.contains("nucleus"), "{service}");
            span
        })
        .filter(|span| hex(&span.trace_id) == TRACE)
        .collect();
    let mut by_name: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in &of_trace {
        by_name.entry(&span.name).or_default().push(span);
    }
    let told_names: Vec<&str> = by_name.keys().copied().collect();
    assert_eq!(told_names, names);
    let [request] = by_name["POST /integrations/{id}/sync"][..] else {
        panic!("{by_name:?}");
    };
    assert_eq!(hex(&request.parent_span_id), ASKING);
    assert_eq!(request.kind, SpanKind::Server as i32);
    let [sync] = by_name["sync"][..] else {
        panic!("{by_name:?}");
    };
    assert_eq!(sync.parent_span_id, request.span_id);
    assert_eq!(sync.kind, SpanKind::Consumer as i32);
    for batch in &by_name["batch"] {
        assert_eq!(batch.parent_span_id, sync.span_id);
    }
    assert_eq!(told, [format!("00-{TRACE}-{}-01", hex(&request.span_id))]);
    assert!(!events.is_empty());
    for event in &events {
        let expected = format!("00-{TRACE}-{}-01", hex(&sync.span_id));
        assert_eq!(event["traceparent"], expected, "{event}");
    }
    // The log has the same name for it.
    let log = lines(&worker.stderr());
    let of_run: Vec<&Value> = log
        .iter()
        .filter(|line| line["sync_run.id"] == run)
        .collect();
    assert!(!of_run.is_empty());
    for line in of_run {
        assert_eq!(line["logging.googleapis.com/trace"], TRACE, "{line}");
        let fields = line.as_object().unwrap().keys();
        assert!(
            fields.into_iter().all(|field| !field.starts_with("otel.")),
            "{line}"
        );
    }

    // Ids are told; secrets and mail are not.
    let sent: Vec<u8> = collector.sent().concat();
    let holds = |text: &str| sent.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(&integration) && holds(run));
    assert_eq!(subjects.len(), 120);
    let mail = subjects
        .iter()
        .map(String::as_str)
        .filter(|subject| subject.len() > 3);
    for secret in [
        REFRESH_TOKEN,
        CLIENT_SECRET,
        // What access tokens begin with.
        "ya29.",
        OPERATOR_KEY,
        VAULT_KEY,
    ]
    .into_iter()
    .chain(mail)
    {
        assert!(!holds(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_of_it_is_there() {
    let world = world().await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    for event in server.api.all("/events").await {
        assert!(event.get("traceparent").is_none(), "{event}");
    }
    let mut database = world.database().await;
    for table in ["outbox", "sync_runs"] {
        let told = traceparents(&mut database, table).await;
        assert!(told.is_empty(), "{table}: {told:?}");
    }
    assert!(!has_sender(&server.child));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_keeps_nobody_waiting() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    for (address, is_away) in [(silent_address.as_str(), false), ("127.0.0.1:9", true)] {
        let mut world = world().await;
        // The variable that every exporter knows.
        world.set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        let mut server = world.listen("up").await;
        let integration = server.api.connect(&world).await;
        let run = server.api.sync(&integration).await;
        let api: &Api = &server.api;
        assert_eq!(api.ended(&run).await["status"], "success");
        if is_away {
            server.child.says("the collector takes no traces").await;
        }
        let stderr = server.stop().await.stderr;
        let troubles = stderr.matches("the collector takes no traces").count();
        assert!(troubles <= 1, "{stderr}");
        assert!(!stderr.contains("not everything ended in time"), "{stderr}");
    }
}
