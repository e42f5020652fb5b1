//! The one HTTP client of the connectors: deadlines, byte caps, retries, quota and tokens.
//!
//! It knows no service: a request brings the rule that says what an answer means. It never logs or
//! reports a token, a query or a body.

mod answer;
mod reach;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::{header::IF_NONE_MATCH, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::Access;
use crate::{
    domain::{address::is_loopback, clock::Stopwatch, errors},
    metrics::CallOutcome,
};
pub use answer::{Class, Classify, ClientError, RetryAfter};
pub use reach::Reached;
// A service's rule reads these; reqwest itself is used here only.
pub use reqwest::{StatusCode, header::HeaderMap};

/// A connection must stand after so long.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// An answer must be there, whole, after so long.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// How often a request is made before its failure is reported.
const ATTEMPTS: usize = 5;
/// The first wait between attempts; it doubles. Google asks for at least a second and a cap of 32 to
/// 64: <https://developers.google.com/workspace/gmail/api/guides/handle-errors>.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between attempts, before jitter.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// So many refusals in a row end a call, although the governor waited after each.
const REFUSALS: u32 = 8;
/// How long a caller is told to stay away after [`REFUSALS`].
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// Of the bodies larger than this, one is in memory at a time.
pub const LARGE_BYTES: usize = 16 * 1024 * 1024;
/// The code of what is redirected once more than is followed.
pub const MOVED_AGAIN: &str = "moved_again";
/// The code of what goes on at another host.
pub const FOREIGN_LINK: &str = "foreign_link";
/// What is read of the body of an error.
const ERROR_BODY_BYTES: usize = 64 * 1024;
/// Google compresses only for agents that name gzip:
/// <https://developers.google.com/workspace/gmail/api/guides/performance#gzip>.
const USER_AGENT: &str = concat!("nucleus/", env!("CARGO_PKG_VERSION"), " (gzip)");

/// A GET request for JSON.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The service's name of the call, for instance `messages.get`: a label of metrics.
    pub method: &'static str,
    /// What is asked for.
    pub target: Target<'a>,
    /// Header fields beyond those of every request.
    pub headers: &'a [(&'static str, &'a str)],
    /// What JSON is expected.
    pub shape: Shape,
    /// What the call costs, each time it is made.
    pub units: u32,
    /// The largest body that is taken, in bytes, after decompression.
    pub cap: usize,
    /// The service's rule for answers that are no success.
    pub classify: Classify,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A path and a query below the base URL.
    Path {
        /// Segment by segment; each is escaped.
        path: &'a [&'a str],
        /// The query; escaped.
        query: &'a [(&'a str, &'a str)],
    },
    /// A URL that an answer gave to go on with. It must be of the base URL's origin: the token goes
    /// nowhere else.
    Link(&'a str),
}

/// What JSON an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An object.
    Object,
    /// An array.
    Array,
}

impl Shape {
    /// With what its text ends.
    fn end(self) -> u8 {
        match self {
            Self::Object => b'}',
            Self::Array => b']',
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its header fields.
    pub headers: HeaderMap,
    /// JSON of the expected shape, as far as its last character shows.
    pub body: Bytes,
    /// Held as long as the body is in memory, if it has more than [`LARGE_BYTES`].
    pub large: Option<OwnedSemaphorePermit>,
}

/// The machine's TLS or resolver cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the HTTP client")]
pub struct ClientSetupError(#[source] reqwest::Error);

/// Makes the calls of all connectors. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient {
    /// For services; the error is why there is none, told when a service is called.
    services: Result<reqwest::Client, String>,
    /// For loopback hosts, which no proxy can reach and which need no certificates.
    loopback: reqwest::Client,
    large: Arc<Semaphore>,
}

/// What one attempt is made with beside its request.
struct Attempt<'a> {
    url: &'a Url,
    token: &'a SecretString,
    etag: Option<&'a str>,
    now: DateTime<Utc>,
}

/// What became of one attempt that gave no reply.
enum Failure {
    /// May pass.
    Transient(String, Option<Duration>),
    /// Too much was asked for.
    Refused(Option<Duration>),
    /// The token is not accepted.
    Unauthorized,
    /// The body is large and another large one is in memory.
    Crowded,
    /// What was asked for stands there now, at the same origin.
    Moved(Url),
    /// Asking again does not help.
    Final(ClientError),
}

impl ApiClient {
    /// A client that trusts the certificates that the system trusts.
    pub fn new() -> Result<Self, ClientSetupError> {
        Self::with_deadline(REQUEST_DEADLINE)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the place where calls to services are made"
    )]
    fn with_deadline(deadline: Duration) -> Result<Self, ClientSetupError> {
        // An error only says that the process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(CONNECT_DEADLINE)
                .timeout(deadline)
                // Where a redirect points is looked at before a token travels there, and every attempt is
                // counted here.
                .redirect(redirect::Policy::none())
                .retry(retry::never())
        };
        Ok(Self {
            services: builder().build().map_err(describe),
            loopback: builder()
                .no_proxy()
                .tls_certs_only([])
                .build()
                .map_err(ClientSetupError)?,
            large: Arc::new(Semaphore::new(1)),
        })
    }

    /// Makes `request` until there is a whole reply or no sense in going on. Dropping the future at
    /// any point is safe; the units of the attempt under way stay counted.
    pub async fn get(&self, access: &Access, request: Request<'_>) -> Result<Reply, ClientError> {
        let reply = self.get_if_changed(access, request, None).await?;
        reply.ok_or_else(|| ClientError::Unavailable("nothing was answered".into()))
    }

    /// As [`ApiClient::get`]; none where the service says that what it gave with `etag` has not changed
    /// since (RFC 9110, 15.4.5), which costs no units.
    pub async fn get_if_changed(
        &self,
        access: &Access,
        request: Request<'_>,
        etag: Option<&str>,
    ) -> Result<Option<Reply>, ClientError> {
        let mut url = address(&access.base_url, &request.target)?;
        let mut has_moved = false;
        let mut waits = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(LONGEST_WAIT)
            .with_max_times(ATTEMPTS - 1)
            .build();
        let mut refusals = 0;
        let mut replacement: Option<SecretString> = None;
        let mut permit = None;
        loop {
            let token = match &replacement {
                Some(token) => token.clone(),
                None => access
                    .tokens
                    .access_token()
                    .await
                    .map_err(ClientError::Access)?,
            };
            // After the token: a call that cannot be made costs nothing.
            let asked = access.clock.now();
            let ticket = access.governor.acquire(request.units).await;
            let now = access.clock.now();
            let waited = (now - asked).as_seconds_f64();
            let (service, method) = (access.service, request.method);
            let metrics = &access.metrics;
            metrics.call_begins(service, method, request.units, waited);
            let watch = Stopwatch::start();
            let attempt = Attempt {
                url: &url,
                token: &token,
                etag,
                now,
            };
            let result = self.attempt(attempt, &request, &mut permit).await;
            metrics.call_ended(service, method, outcome(&result), watch.seconds());
            let failure = match result {
                Ok(None) => {
                    access.governor.not_charged(ticket);
                    return Ok(None);
                }
                Ok(Some((headers, body))) => {
                    access.governor.accepted(ticket);
                    let large = permit.filter(|_| body.len() > LARGE_BYTES);
                    return Ok(Some(Reply {
                        headers,
                        body,
                        large,
                    }));
                }
                Err(failure) => failure,
            };
            permit = None;
            match failure {
                Failure::Refused(retry_after) => access.governor.refused(ticket, retry_after),
                _ => drop(ticket),
            }
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Moved(_) if has_moved => {
                    return Err(ClientError::Rejected {
                        status: 0,
                        code: MOVED_AGAIN,
                        detail: "the service says of what moved that it has moved again".into(),
                    });
                }
                Failure::Moved(to) => {
                    has_moved = true;
                    url = to;
                }
                Failure::Crowded => permit = self.large.clone().acquire_owned().await.ok(),
                Failure::Unauthorized if replacement.is_some() => {
                    return Err(ClientError::Access(access.tokens.refused().await));
                }
                Failure::Unauthorized => {
                    let other = access.tokens.replace(&token).await;
                    replacement = Some(other.map_err(ClientError::Access)?);
                }
                Failure::Refused(retry_after) => {
                    check(access, retry_after)?;
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return Err(ClientError::RateLimited {
                            retry_after: REFUSED_WAIT,
                        });
                    }
                    tracing::debug!(refusals, "the service refused a call for its rate");
                }
                Failure::Transient(reason, retry_after) => {
                    check(access, retry_after)?;
                    let Some(wait) = waits.next() else {
                        return Err(ClientError::Unavailable(reason));
                    };
                    let wait = wait.max(retry_after.unwrap_or_default());
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::debug!(reason, wait_ms, "a call failed and is repeated");
                    access.clock.sleep(wait).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        attempt: Attempt<'_>,
        request: &Request<'_>,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Option<(HeaderMap, Bytes)>, Failure> {
        let Attempt {
            url,
            token,
            etag,
            now,
        } = attempt;
        let client = self.client_for(url).map_err(Failure::Final)?;
        let mut call = client.get(url.clone()).bearer_auth(token.expose_secret());
        for (name, value) in request.headers {
            call = call.header(*name, *value);
        }
        if let Some(etag) = etag {
            call = call.header(IF_NONE_MATCH, etag);
        }
        let response = call.send().await.map_err(failed)?;
        let status = response.status();
        let headers = response.headers().clone();
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(None);
        }
        if let Some(location) = answer::moved_to(status, &headers) {
            return Err(followed(url, location).map_or_else(Failure::Final, Failure::Moved));
        }
        if status.is_success() {
            let body = self.read(response, request.cap, permit).await?;
            // Another last character means that the rest is missing.
            if body.trim_ascii_end().last() != Some(&request.shape.end()) {
                return Err(Failure::Transient("the answer is truncated".into(), None));
            }
            return Ok(Some((headers, body)));
        }
        let body = read_start(response).await;
        let mut retry_after = answer::retry_after(&headers).map(|after| after.wait(now));
        match (request.classify)(status, &headers, &body) {
            Class::Retry => {
                let reason = format!("the service answered {}", status.as_u16());
                Err(Failure::Transient(reason, retry_after))
            }
            Class::RateLimited(named) => {
                retry_after = retry_after.max(named.map(|after| after.wait(now)));
                Err(Failure::Refused(retry_after))
            }
            Class::Unauthorized => Err(Failure::Unauthorized),
            Class::NotFound => Err(Failure::Final(ClientError::NotFound)),
            Class::Rejected { code, detail } => Err(Failure::Final(ClientError::Rejected {
                status: status.as_u16(),
                code,
                detail,
            })),
        }
    }

    fn client_for(&self, url: &Url) -> Result<&reqwest::Client, ClientError> {
        if is_loopback(url) {
            return Ok(&self.loopback);
        }
        self.services.as_ref().map_err(|reason| ClientError::Rejected {
            status: 0,
            code: "tls_unavailable",
            detail: format!(
                "cannot make secure connections: {reason}; install the system's root certificates (package ca-certificates) and restart"
            ),
        })
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        cap: usize,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, Failure> {
        let announced = response.content_length().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        self.admit(announced, cap, permit)?;
        let mut body = Vec::with_capacity(announced);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            self.admit(body.len() + chunk.len(), cap, permit)?;
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// Checks a body's size so far. It does not wait for a permit: the deadline of a connection that
    /// nobody reads would run out meanwhile.
    fn admit(
        &self,
        bytes: usize,
        cap: usize,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Failure> {
        if bytes > cap {
            return Err(Failure::Final(ClientError::TooLarge(cap)));
        }
        if bytes > LARGE_BYTES && permit.is_none() {
            let taken = self.large.clone().try_acquire_owned();
            *permit = Some(taken.map_err(|_| Failure::Crowded)?);
        }
        Ok(())
    }
}

fn outcome<T>(result: &Result<T, Failure>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Ok,
        Err(Failure::Transient(..)) => CallOutcome::Unavailable,
        Err(Failure::Refused(_)) => CallOutcome::RateLimited,
        Err(Failure::Unauthorized) => CallOutcome::Unauthorized,
        Err(Failure::Crowded) => CallOutcome::Postponed,
        Err(Failure::Moved(_)) => CallOutcome::Ok,
        Err(Failure::Final(ClientError::NotFound)) => CallOutcome::NotFound,
        Err(Failure::Final(_)) => CallOutcome::Rejected,
    }
}

fn address(base: &Url, target: &Target<'_>) -> Result<Url, ClientError> {
    let (path, query) = match *target {
        Target::Path { path, query } => (path, query),
        Target::Link(link) => return followed(base, link),
    };
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut segments) => {
            segments.pop_if_empty().extend(path);
        }
        Err(()) => {
            return Err(ClientError::Rejected {
                status: 0,
                code: "invalid_api_url",
                detail: "the service's API URL takes no path; use one like https://host".into(),
            });
        }
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// A link of an answer, if it leads to where the token may go.
fn followed(base: &Url, link: &str) -> Result<Url, ClientError> {
    match base.join(link) {
        Ok(mut url) if url.origin() == base.origin() => {
            // What was asked for is the same.
            if url.query().is_none() {
                url.set_query(base.query());
            }
            Ok(url)
        }
        _ => Err(ClientError::Rejected {
            status: 0,
            code: FOREIGN_LINK,
            detail: format!(
                "an answer of {base} goes on at another host, which must not be given the token: \
                 check the service's API URL"
            ),
        }),
    }
}

/// Whether a wait that the service asked for, on top of those before, is waited for here. Beyond it the
/// caller is told to come back later.
fn check(access: &Access, retry_after: Option<Duration>) -> Result<(), ClientError> {
    let left = (access.patient_until - access.clock.now()).to_std();
    match retry_after {
        Some(retry_after) if retry_after > left.unwrap_or_default() => {
            Err(ClientError::RateLimited { retry_after })
        }
        _ => Ok(()),
    }
}

/// The beginning of an error's body, as much of it as there is.
async fn read_start(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let left = ERROR_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == ERROR_BODY_BYTES {
            break;
        }
    }
    body
}

fn failed(error: reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::Final(ClientError::Rejected {
            status: 0,
            code: "invalid_request",
            detail: "the access token or the API URL cannot be sent over HTTP".into(),
        });
    }
    Failure::Transient(describe(error), None)
}

/// The error and its causes, without the URL, whose query is not for logs.
fn describe(error: reqwest::Error) -> String {
    errors::chain(&error.without_url())
}
