//! What the doctor says of services, browsers and of whatever answers in nucleus' place.

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use nucleus::demo::{Match, Method};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::json;

use super::{Found, world};
use crate::doubles::serve;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_the_client_or_does_not_answer_is_named() {
    let mut world = world().await;
    world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:9");
    world.set("NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET", "another");
    let found = Found::in_world(&world).await;
    found.assert("token_endpoint", "ok", &[]);
    found.assert(
        "client",
        "fail",
        &["invalid_client", "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET"],
    );
    assert!(
        found.text.contains("error: 1 check failed"),
        "{}",
        found.text
    );

    world.unset("NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET");
    let found = Found::in_world(&world).await;
    found.assert("client", "fail", &["CLIENT_SECRET"]);

    let nobody = "http://127.0.0.1:9";
    world.set(
        "NUCLEUS_SERVICES__GMAIL__TOKEN_URL",
        format!("{nobody}/token"),
    );
    world.set("NUCLEUS_SERVICES__GMAIL__API_URL", nobody);
    let found = Found::in_world(&world).await;
    let refused = "Connection refused";
    found.assert("token_endpoint", "fail", &[refused, "GMAIL__TOKEN_URL"]);
    found.assert("client", "skip", &["does not answer"]);
    found.assert("api_url", "fail", &[refused, "GMAIL__API_URL"]);

    // What takes any token is no authorization server.
    let yes = || async { axum::Json(json!({"access_token": "x", "token_type": "Bearer"})) };
    let url = serve(Router::new().route("/token", axum::routing::post(yes))).await;
    world.set("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", format!("{url}/token"));
    let found = Found::in_world(&world).await;
    found.assert("token_endpoint", "fail", &["does not exist", "TOKEN_URL"]);
    // A service of which nothing is synced yet is looked at too.
    world.set("NUCLEUS_SERVICES__SLACK__CLIENT_ID", "of another service");
    let found = Found::in_world(&world).await;
    found.assert("token_endpoint", "fail", &["slack", "SLACK__TOKEN_URL"]);
    found.assert("redirect_uri", "fail", &["slack"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_no_traces_is_named() {
    const ENDPOINT: &str = "NUCLEUS_TELEMETRY__OTLP_ENDPOINT";
    let mut world = world().await;
    let found = Found::in_world(&world).await;
    found.assert("traces", "ok", &["no collector is configured"]);
    // It reads protobuf, as collectors do, and no JSON.
    let take = async |headers: HeaderMap, body: Bytes| {
        let is_protobuf = headers["content-type"] == "application/x-protobuf";
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) if is_protobuf && request.resource_spans.is_empty() => StatusCode::OK,
            _ => StatusCode::BAD_REQUEST,
        }
    };
    let url = serve(Router::new().route("/v1/traces", post(take))).await;
    world.set(ENDPOINT, url.clone());
    let found = Found::in_world(&world).await;
    found.assert("traces", "ok", &["takes them", &url]);
    world.set(ENDPOINT, format!("{url}/elsewhere"));
    let found = Found::in_world(&world).await;
    found.assert("traces", "warn", &["404", ENDPOINT]);
    world.set(ENDPOINT, "http://127.0.0.1:9");
    let found = Found::in_world(&world).await;
    found.assert("traces", "warn", &["refused", "4318"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_seen_by_the_service_s_date() {
    let mut world = world().await;
    for (date, words) in [
        ("Thu, 01 Jan 2026 00:00:00 GMT", "s ahead of that of Gmail"),
        ("Fri, 01 Jan 2100 00:00:00 GMT", "s behind that of Gmail"),
    ] {
        let answer = move || async move { ([("date", date)], StatusCode::NOT_FOUND) };
        let url = serve(Router::new().fallback(answer)).await;
        world.set("NUCLEUS_SERVICES__GMAIL__API_URL", url);
        let found = Found::in_world(&world).await;
        found.assert("clock", "warn", &[words, "set-ntp"]);
    }
    let answer = || async { StatusCode::SERVICE_UNAVAILABLE };
    let url = serve(Router::new().fallback(answer)).await;
    world.set("NUCLEUS_SERVICES__GMAIL__API_URL", url);
    let found = Found::in_world(&world).await;
    found.assert("api_url", "warn", &["answers 503"]);
    found.assert("clock", "ok", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_that_browsers_cannot_be_sent_to_is_named() {
    let mut world = world().await;
    for (url, part, word) in [
        ("http://nucleus.example", "public_url", "plain http"),
        ("http://0.0.0.0:8080", "public_url", "no address"),
        ("http://nucleus.example", "redirect_uri", "not https"),
        ("https://192.0.2.1", "redirect_uri", "IP address"),
        ("https://[2001:db8::1]", "redirect_uri", "IP address"),
        ("https://nucleus", "redirect_uri", "public domain"),
    ] {
        world.set("NUCLEUS_HTTP__PUBLIC_URL", url);
        let found = Found::in_world(&world).await;
        found.assert(part, "fail", &[word, "NUCLEUS_HTTP__PUBLIC_URL"]);
    }
    world.unset("NUCLEUS_HTTP__PUBLIC_URL");
    let found = Found::in_world(&world).await;
    found.assert("public_url", "fail", &["each start chooses"]);
    found.assert("redirect_uri", "fail", &["each start chooses"]);
    found.assert("api", "skip", &["each start chooses"]);

    // Whoever has no client is only told.
    world.unset("NUCLEUS_SERVICES__GMAIL__CLIENT_ID");
    world.unset("NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET");
    world.set("NUCLEUS_HTTP__PUBLIC_URL", "http://nucleus.example");
    let found = Found::in_world(&world).await;
    found.assert("public_url", "warn", &["plain http"]);
    found.assert("redirect_uri", "warn", &["not https"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_place_of_nucleus_or_is_not_ready_is_told_apart() {
    let mut world = world().await;
    let listen = |url: &str| url.trim_start_matches("http://").to_owned();
    let other = serve(Router::new()).await;
    world.set("NUCLEUS_HTTP__LISTEN", listen(&other));
    world.set("NUCLEUS_HTTP__PUBLIC_URL", other);
    let found = Found::in_world(&world).await;
    found.assert("api", "fail", &["another program", "NUCLEUS_HTTP__LISTEN"]);
    found.assert("public_url", "warn", &["answers 404", "proxy"]);

    let alive = || async { axum::Json(json!({"status": "ok"})) };
    let ready = || async {
        let problem = json!({"detail": "the worker has ended"});
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(problem))
    };
    let router = Router::new().route("/livez", get(alive));
    let unready = serve(router.route("/readyz", get(ready))).await;
    world.set("NUCLEUS_HTTP__LISTEN", listen(&unready));
    world.set("NUCLEUS_HTTP__PUBLIC_URL", "http://127.0.0.1:9");
    let found = Found::in_world(&world).await;
    found.assert("api", "fail", &["the worker has ended", "restart"]);
    found.assert("public_url", "warn", &["cannot be reached"]);

    // An `up` that listens elsewhere than this command is told.
    world.unset("NUCLEUS_HTTP__PUBLIC_URL");
    world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0");
    let server = world.listen("up").await;
    world.set("NUCLEUS_HTTP__LISTEN", "127.0.0.1:9");
    let found = Found::in_world(&world).await;
    found.assert("lock", "ok", &["an `up` has"]);
    found.assert("api", "fail", &["nothing answers", "NUCLEUS_HTTP__LISTEN"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_in_trouble_is_not_called_a_wrong_client() {
    let world = world().await;
    world.google.inject_times(
        Match::method(Method::Token),
        nucleus::demo::Fault::status(503, "server_error"),
        10,
    );
    let found = Found::in_world(&world).await;
    found.assert("token_endpoint", "fail", &["status 503"]);
    found.assert("client", "skip", &[]);
}
