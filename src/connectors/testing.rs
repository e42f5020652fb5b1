//! A clock that jumps and a small server on loopback, for the tests of the connectors.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};

use super::{Access, ApiClient, ConnectorError, Governor, Spending, TokenProvider};
use crate::{
    domain::{Clock, ServiceName},
    metrics::Metrics,
};

/// Jumps ahead instead of waiting.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    /// Starts at a whole second of November 2026.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_795_000_000_000_000)))
    }

    /// Moves the clock, also back.
    pub(super) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        // Who waits until a point in time finds it passed.
        let micros = i64::try_from(duration.as_nanos().div_ceil(1000)).unwrap();
        self.0.fetch_add(micros, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

/// Hands out `token-0`, and after each replacement the next number.
#[derive(Default)]
pub(super) struct TestTokens {
    pub(super) replaced: Mutex<Vec<String>>,
}

#[async_trait]
impl TokenProvider for TestTokens {
    async fn access_token(&self) -> Result<SecretString, ConnectorError> {
        let number = self.replaced.lock().unwrap().len();
        Ok(format!("token-{number}").into())
    }

    async fn replace(&self, rejected: &SecretString) -> Result<SecretString, ConnectorError> {
        let rejected = rejected.expose_secret().to_owned();
        self.replaced.lock().unwrap().push(rejected);
        self.access_token().await
    }

    async fn refused(&self) -> ConnectorError {
        ConnectorError::Revoked("refused".into())
    }
}

/// What the server was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) token: String,
    pub(super) agent: String,
}

impl Asked {
    pub(super) fn get(&self, name: &str) -> &str {
        let mut named = self.query.iter().filter(|(key, _)| key == name);
        named.next().map_or("", |(_, value)| value.as_str())
    }
}

/// What the server answers.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(body: serde_json::Value) -> Self {
        Self::status(200, &body.to_string())
    }

    pub(super) fn status(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// An error in Google's form.
    pub(super) fn google(status: u16, reason: &str) -> Self {
        let body = serde_json::json!({"error": {"code": status, "message": reason,
            "errors": [{"domain": "global", "reason": reason, "message": reason}]}});
        Self::status(status, &body.to_string())
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A running server with everything a connector needs to talk to it.
pub(super) struct TestServer {
    pub(super) access: Access,
    pub(super) clock: Arc<TestClock>,
    pub(super) tokens: Arc<TestTokens>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl TestServer {
    /// Serves `handler` on a free port; no quota is kept.
    pub(super) async fn new(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_clock(TestClock::new(), handler).await
    }

    /// The same for a `handler` that looks at the clock.
    pub(super) async fn with_clock(
        clock: Arc<TestClock>,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(handler);
        let router = Router::new()
            .fallback(answer)
            .with_state((handler, asked.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's server ends with its runtime"
        )]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let tokens = Arc::new(TestTokens::default());
        let access = Access {
            service: ServiceName::Gmail,
            base_url: Url::parse(&base).unwrap(),
            client: ApiClient::new().unwrap(),
            tokens: tokens.clone(),
            governor: Arc::new(Governor::new(None, Spending::default(), clock.clone())),
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new(clock.now(), [])),
            patient_until: clock.now() + TimeDelta::minutes(10),
            include_spam_trash: false,
            leaving: Default::default(),
        };
        Self {
            access,
            clock,
            tokens,
            asked,
        }
    }

    /// What was asked since the last time, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(
    State((handler, asked)): State<(Handler, Arc<Mutex<Vec<Asked>>>)>,
    request: Request,
) -> Response {
    let header = |headers: &HeaderMap, name| {
        let value: Option<&axum::http::HeaderValue> = headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let query = request.uri().query().unwrap_or_default();
    let this = Asked {
        path: request.uri().path().to_owned(),
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        token: header(request.headers(), AUTHORIZATION).replace("Bearer ", ""),
        agent: header(request.headers(), axum::http::header::USER_AGENT),
    };
    asked.lock().unwrap().push(this.clone());
    let answer = handler(&this);
    let mut response = answer.body.into_response();
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
