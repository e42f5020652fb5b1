//! Traces for an OpenTelemetry collector, where one is configured: which spans are told, how a trace
//! goes on from one process to the next, and how the last spans are sent at the end.
//!
//! Without a collector nothing of this is started. Spans carry ids, routes and numbers; what stands in a
//! log line, a mail or a secret is in none.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use reqwest::header::CONTENT_TYPE;
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::FilterFn, registry::LookupSpan};
use url::Url;

use crate::domain::errors;

/// The field of a span that holds its trace's id, by which logs and traces are put together.
pub const TRACE_ID: &str = "trace.id";

/// Spans of these modules are told; those of libraries may hold what is not ours to tell.
const OURS: &str = "nucleus";
/// A collector that takes longer loses what it was sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end of the process the last spans may take this long.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// So much of a collector's answer is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Carries a trace over to the next process: <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: &str = "traceparent";

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The way to the collector could not be set up.
    #[error("the collector's address cannot be used")]
    Exporter(#[from] ExporterBuildError),
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// The traces of this process, on their way to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send what is traced to `{endpoint}/v1/traces`, in OTLP over HTTP. To be called within
    /// the runtime that lives as long as the process.
    pub fn start(endpoint: &Url) -> Result<Self, TracesError> {
        let client = client()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender {
                client,
                runtime: Handle::current(),
                is_failing: AtomicBool::new(false),
            })
            .with_endpoint(traces_url(endpoint))
            .with_timeout(SEND_TIMEOUT)
            .build()?;
        let resource = Resource::builder()
            .with_service_name("nucleus")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// What listens to spans.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("nucleus"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_told))
    }

    /// Sends what is left, within a second, whether the collector answers or not.
    pub async fn end(self) {
        let provider = self.provider;
        // It waits on a thread for its own thread, which needs this runtime for sending.
        let ended =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(END_TIMEOUT));
        match tokio::time::timeout(END_TIMEOUT, ended).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("the last traces were not sent"),
        }
    }
}

/// Sends a collector no traces, and says why it does not take them.
pub async fn look(endpoint: &Url) -> Result<(), String> {
    // In protobuf a request without spans is a body without bytes.
    let sent = async {
        let client = client()?;
        let request = client.post(traces_url(endpoint));
        let request = request.header(CONTENT_TYPE, "application/x-protobuf");
        send(client, request.build()?).await
    };
    match sent.await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("it answers {}", answer.status())),
        Err(error) => Err(errors::chain(&error)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the collector is called with a deadline of its own, and little of its answer is read"
)]
fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(SEND_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// Where traces go, by the rule for a base address:
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>
fn traces_url(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}

/// Spans only: log lines go where logs go.
fn is_told(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with(OURS)
}

/// Lets a span go on with the trace that `traceparent` names, and writes the trace's id where logs
/// look for it. Changes nothing where no traces are sent.
pub fn go_on(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let context = TraceContextPropagator::new().extract(&carrier);
        // Refused where no traces are sent.
        let _ = span.set_parent(context);
    }
    let context = span.context();
    let told = context.span().span_context().clone();
    if told.is_valid() {
        span.record(TRACE_ID, told.trace_id().to_string());
    }
}

/// How the trace of this span goes on elsewhere; `None` where no traces are sent.
pub fn traceparent(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Sends from the exporter's own thread, which has no runtime, by way of the program's.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the collector did not take what was sent last: that is told once.
    is_failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let answer = self.runtime.spawn(send(self.client.clone(), request));
        let answer = answer.await?;
        let trouble = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(errors::chain(error)),
        };
        let was_failing = self.is_failing.swap(trouble.is_some(), Ordering::Relaxed);
        if let Some(trouble) = trouble.filter(|_| !was_failing) {
            tracing::warn!(error = trouble, "the collector takes no traces");
        }
        Ok(answer?)
    }
}

async fn send(
    client: reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, reqwest::Error> {
    let mut answer = client.execute(request).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    let mut told = Response::new(Bytes::from(body));
    *told.status_mut() = answer.status();
    Ok(told)
}
