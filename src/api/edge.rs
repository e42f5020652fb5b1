//! What every request meets first and every answer carries: the request's id, its line in the log,
//! a bound on its headers, a deadline, and the headers that tell browsers to be careful.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::{
    client_address::ClientAddress,
    deadlines::Deadlines,
    error::{ApiError, Problem, name_request},
    site::Site,
};
use crate::{app::App, domain::clock::Stopwatch, traces};

/// Header fields of one request: several times what proxies and browsers send together.
pub(super) const MAX_HEADERS: usize = 100;
/// Names and values of the header fields together.
pub(super) const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID_CHARS: usize = 64;

/// Names one request: in the answer, in the log, and in errors.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What an answer carries unless its handler has set it: nothing is loaded, framed, cached, guessed
/// or told to other sites. Pages set a policy of their own.
///
/// Source: <https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers>
const CAREFUL: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];
/// Behind TLS: a year of nothing else. Other hosts of the domain are not this program's business.
const ONLY_TLS: &str = "max-age=31536000";

/// The id of a request: its client's own, or a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(value), None) if is_request_id(value.as_bytes()) => {
                Self(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            _ => Self(Uuid::now_v7().to_string()),
        }
    }
}

fn is_request_id(bytes: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_CHARS).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Names the request, puts what is logged for it under its ids, and makes the answer careful.
pub(super) async fn enter(
    State(app): State<Arc<App>>,
    Extension(site): Extension<Site>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = ClientAddress::of(&request, app.trusted_proxies);
    request.extensions_mut().insert(address);
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let traceparent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let trace_id = traceparent
        .and_then(trace_id_of)
        .map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
    let route = request.extensions().get::<MatchedPath>();
    let span = tracing::info_span!(
        "request",
        otel.name = route.map(|route| format!("{} {}", request.method(), route.as_str())),
        otel.kind = "server",
        trace.id = trace_id,
        request.id = id.0,
        http.method = %request.method(),
        http.path = request.uri().path(),
        client.address = address.0.map(tracing::field::display),
    );
    traces::go_on(&span, traceparent);
    let mut line = Line::begin(&request, span.clone());
    let answer = next.run(request).instrument(span).await;
    line.status = Some(answer.status());
    let mut answer = name_request(answer, &id.0);
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, value);
    }
    be_careful(headers, site.is_https());
    answer
}

fn be_careful(headers: &mut HeaderMap, is_https: bool) {
    for (name, value) in CAREFUL {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if is_https {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static(ONLY_TLS));
    }
}

/// A request's line in the log, written when it is answered or given up: at `info` for what may
/// change something, an OAuth callback among that, else at `debug`. Never its query: codes and states of OAuth are in there.
struct Line {
    span: Span,
    route: Option<MatchedPath>,
    changes: bool,
    watch: Stopwatch,
    /// Absent where the client hung up before there was an answer.
    status: Option<StatusCode>,
}

impl Line {
    fn begin(request: &Request, span: Span) -> Self {
        let looks = [Method::GET, Method::HEAD, Method::OPTIONS];
        let route = request.extensions().get::<MatchedPath>().cloned();
        let is_callback = |route: &MatchedPath| route.as_str().ends_with("/oauth/callback");
        Self {
            span,
            changes: !looks.contains(request.method()) || route.as_ref().is_some_and(is_callback),
            route,
            watch: Stopwatch::start(),
            status: None,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let route = self.route.as_ref().map(MatchedPath::as_str);
        let status = self.status.map(|status| status.as_u16());
        let duration_ms = (self.watch.seconds() * 1000.0).round() as u64;
        let what = match status {
            Some(_) => "a request was answered",
            None => "a client hung up before its request was answered",
        };
        if self.changes {
            tracing::info!(
                http.route = route,
                http.status = status,
                duration_ms,
                "{what}"
            );
        } else {
            tracing::debug!(
                http.route = route,
                http.status = status,
                duration_ms,
                "{what}"
            );
        }
    }
}

/// Refuses headers that are too many or too long, well below what hyper refuses without a word.
pub(super) async fn within_header_bounds(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return ApiError::HeadersTooLarge.into_response();
    }
    next.run(request).await
}

pub(super) async fn within_deadline(
    Extension(deadlines): Extension<Deadlines>,
    request: Request,
    next: Next,
) -> Response {
    let limit = deadlines.answer;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Unavailable(format!("no answer in {limit:?}")).into_response(),
    }
}

/// The answer to a request whose head did not arrive in time, as it goes over the wire: hyper has
/// seen no request that could be answered otherwise.
pub(super) fn slow_head_answer() -> String {
    let (status, _, _) = ApiError::Timeout.parts();
    let id = Uuid::now_v7().to_string();
    let body = json!(Problem::new(&ApiError::Timeout).naming(&id)).to_string();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n{X_REQUEST_ID}: {id}\r\n",
        body.len(),
    );
    for (name, value) in CAREFUL {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer + "\r\n" + &body
}

/// The trace id of a `traceparent` header: version, trace id, parent id, flags.
///
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>
fn trace_id_of(header: &str) -> Option<&str> {
    let id = header.split('-').nth(1)?;
    let valid = id.len() == 32
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && id.bytes().any(|byte| byte != b'0');
    valid.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_over_only_if_it_is_one() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let header = format!("00-{id}-b7ad6b7169203331-01");
        assert_eq!(trace_id_of(&header), Some(id));
        let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let upper = header.to_uppercase();
        for wrong in ["", "00", "00-xyz-1-01", zeros.as_str(), upper.as_str()] {
            assert_eq!(trace_id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_that_a_handler_has_set_stays() {
        let mut headers = HeaderMap::new();
        let own = HeaderValue::from_static("default-src 'self'");
        headers.insert(header::CONTENT_SECURITY_POLICY, own.clone());
        be_careful(&mut headers, false);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], own);
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!headers.contains_key(header::STRICT_TRANSPORT_SECURITY));
        be_careful(&mut headers, true);
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], ONLY_TLS);
        assert_eq!(headers.len(), CAREFUL.len() + 1);
    }

    #[test]
    fn a_slow_head_is_answered_in_http() {
        let answer = slow_head_answer();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "timeout");
        assert!(head.contains(body["request_id"].as_str().unwrap()));
    }
}
