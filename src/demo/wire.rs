//! Answers as bytes on the connection: whole with their length, or broken as a [`Fault`] says. It
//! knows nothing of what is in them but the names that a fault gives.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use serde_json::Value;
use url::Url;

use super::faults::Fault;
use crate::domain::Clock;

/// What a body that is to be huge is made of.
static FILLER: [u8; 64 * 1024] = [b'a'; 64 * 1024];
/// A slow body goes out in so many pieces a second.
const SLOW_PIECES: u32 = 10;
/// What a proxy in between may answer.
const PAGE: &str = "<!DOCTYPE html><html><head><title>Sign in to the network</title></head><body>Please accept the terms.</body></html>";

/// An answer before it is sent.
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The body.
    pub body: Bytes,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The Retry-After header, in seconds.
    pub retry_after_seconds: Option<u32>,
    /// The Location header.
    pub location: Option<String>,
}

impl Answer {
    /// JSON with a status.
    pub fn json(code: u16, body: impl Into<Bytes>) -> Self {
        Self::of(code, "application/json; charset=UTF-8", body.into())
    }

    /// A page with a status.
    pub fn page(code: u16, html: String) -> Self {
        Self::of(code, "text/html; charset=utf-8", html.into())
    }

    /// 302 to an address.
    pub fn redirect(location: String) -> Self {
        Self {
            location: Some(location),
            ..Self::page(302, String::new())
        }
    }

    fn of(code: u16, content_type: &'static str, body: Bytes) -> Self {
        Self {
            code,
            body,
            content_type,
            retry_after_seconds: None,
            location: None,
        }
    }

    /// Takes a member of the JSON, or a parameter of the Location, away, or gives it another value.
    fn change(&mut self, name: &str, value: Option<&Value>) {
        if let Some(mut location) = self.location.as_deref().and_then(|to| Url::parse(to).ok()) {
            let pairs = location.query_pairs().into_owned();
            let mut kept: Vec<_> = pairs.filter(|(own, _)| own != name).collect();
            if let Some(value) = value {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                kept.push((name.to_owned(), text));
            }
            location.query_pairs_mut().clear().extend_pairs(kept);
            self.location = Some(location.into());
        } else if let Ok(Value::Object(mut members)) = serde_json::from_slice(&self.body) {
            match value {
                Some(value) => members.insert(name.to_owned(), value.clone()),
                None => members.remove(name),
            };
            self.body = Value::Object(members).to_string().into();
        }
    }
}

/// The response for an answer, broken where a fault says so.
pub fn respond(mut answer: Answer, fault: Option<Fault>, clock: &Arc<dyn Clock>) -> Response {
    match &fault {
        Some(Fault::Lacks(name)) => answer.change(name, None),
        Some(Fault::Says(name, value)) => answer.change(name, Some(value)),
        Some(Fault::Redirect { code, location }) => {
            answer.code = *code;
            answer.location = Some(location.clone());
        }
        _ => {}
    }
    let whole = answer.body.len() as u64;
    let (length, body) = match fault {
        None
        | Some(
            Fault::Status { .. }
            | Fault::Hang
            | Fault::Lacks(_)
            | Fault::Says(..)
            | Fault::Redirect { .. },
        ) => (whole, Body::from(answer.body)),
        Some(Fault::Json(body)) => {
            answer.code = 200;
            (body.len() as u64, Body::from(body))
        }
        Some(Fault::TruncatedJson) => {
            let half = answer.body.slice(..answer.body.len() / 2);
            (half.len() as u64, Body::from(half))
        }
        Some(Fault::EmptyBody) => (0, Body::empty()),
        Some(Fault::NotJson) => {
            answer.code = 200;
            answer.content_type = "text/html; charset=utf-8";
            (PAGE.len() as u64, Body::from(PAGE))
        }
        Some(Fault::ResetConnection) => {
            let half = answer.body.slice(..answer.body.len() / 2);
            (whole, broken_after(half))
        }
        Some(Fault::Slow { bytes_per_second }) => {
            (whole, slow(answer.body, bytes_per_second, clock.clone()))
        }
        Some(Fault::HugeBody { bytes }) => {
            answer.code = 200;
            (bytes, huge(bytes))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(answer.content_type),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(seconds) = answer.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(location) = answer.location
        && let Ok(location) = HeaderValue::try_from(location)
    {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// These bytes, and then the connection breaks.
fn broken_after(sent: Bytes) -> Body {
    let pieces = stream::unfold(Some(sent), |left| async move {
        if let Some(bytes) = left {
            return Some((Ok(bytes), None));
        }
        // The server sends what it has while it waits, so that the client sees the beginning.
        tokio::task::yield_now().await;
        let broken = io::Error::from(io::ErrorKind::ConnectionReset);
        Some((Err(broken), None))
    });
    Body::from_stream(pieces)
}

/// `body` in pieces with pauses between them, by the clock.
fn slow(body: Bytes, bytes_per_second: u32, clock: Arc<dyn Clock>) -> Body {
    let piece = (bytes_per_second / SLOW_PIECES).max(1) as usize;
    let pause = Duration::from_secs(1) / SLOW_PIECES;
    let pieces = stream::unfold((body, clock), move |(mut left, clock)| async move {
        if left.is_empty() {
            return None;
        }
        clock.sleep(pause).await;
        let sent = left.split_to(piece.min(left.len()));
        Some((Ok::<Bytes, Infallible>(sent), (left, clock)))
    });
    Body::from_stream(pieces)
}

/// One JSON string of that many bytes, quotes included, made as it goes.
fn huge(bytes: u64) -> Body {
    let inner = bytes.saturating_sub(2);
    let pieces = stream::unfold(0u64, move |sent| async move {
        let piece = if sent == 0 {
            Bytes::from_static(b"\"")
        } else if sent <= inner {
            let left = usize::try_from(inner + 1 - sent).unwrap_or(usize::MAX);
            Bytes::from_static(&FILLER[..left.min(FILLER.len())])
        } else if sent < bytes {
            Bytes::from_static(b"\"")
        } else {
            return None;
        };
        let total = sent + piece.len() as u64;
        Some((Ok::<Bytes, Infallible>(piece), total))
    });
    Body::from_stream(pieces)
}
