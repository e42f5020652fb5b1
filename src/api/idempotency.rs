//! `Idempotency-Key`: a POST request that a client repeats has one effect and one answer.
//!
//! A request under a key is taken in the table `idempotency_keys`, carried out to its end although
//! the client hangs up, and its answer is kept for a day. Who repeats it gets that answer. Where the
//! process dies in between, the repeat is carried out again, with the same id for what it makes; what
//! handlers do with [`NewId`] makes that harmless.
//!
//! The words are those of <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, to_bytes},
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    caller::{Caller, bearer_token},
    deadlines::Deadlines,
    error::{ApiError, PROBLEM_JSON, Problem},
    extract::read_body,
    oauth::is_form,
    to_the_end,
};
use crate::{
    app::App,
    db::{
        DbError,
        idempotency_key::{self, Answer, Claim, Keyed, Standing},
    },
    domain::errors,
    keys,
};

/// Names a request; its repeats bring the same.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was kept.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest key, in characters.
pub(super) const MAX_KEY_CHARS: usize = 255;
/// What the table holds of a path. A longer one names nothing.
const MAX_PATH_BYTES: usize = 255;
/// A request is held so long without a word of its process. Less than a repeat waits, so that a
/// repeat after a death is carried out.
const LEASE: Duration = Duration::from_secs(9);
/// How often its process gives word.
const RENEW: Duration = Duration::from_secs(3);
/// A repeat looks after so long, and then after twice as long each time,
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// up to this.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// The id of what a request makes: a new one, or the one that the request had when it was carried out
/// before, by a process that died before it could answer. What is found under it is the request's own.
pub(super) struct NewId(pub(super) Uuid);

/// The id as a claim gives it.
#[derive(Clone, Copy)]
struct Given(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for NewId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.extensions.get::<Given>();
        Ok(Self(given.map_or_else(Uuid::now_v7, |given| given.0)))
    }
}

/// Lets a POST request under a key through once.
pub(super) async fn once(
    State(app): State<Arc<App>>,
    Extension(deadlines): Extension<Deadlines>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let is_concerned = request.method() == Method::POST
        && headers.contains_key(IDEMPOTENCY_KEY)
        && request.extensions().get::<MatchedPath>().is_some()
        && request.uri().path().len() <= MAX_PATH_BYTES
        // A person's word in a browser, with a cookie in place of a key.
        && !is_form(headers);
    if !is_concerned {
        return next.run(request).await;
    }
    match under_key(app, deadlines, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn under_key(
    app: Arc<App>,
    deadlines: Deadlines,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    // As the handler would, and before it: nobody else gets into the table.
    let caller = Caller::from_request_parts(&mut parts, &app).await?;
    let token = bearer_token(&parts.headers).ok_or(ApiError::Unauthorized)?;
    let token = token.to_owned();
    let key = key_of(&parts.headers)?;
    let arrived = read_body(&app, &parts, body, app.body_limit_bytes).await?;
    let repeatable = Arc::new(Repeatable {
        keyed: Keyed {
            caller: caller.name,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            key,
            // An operator whose key was changed since is refused as with another body, and told the
            // right thing: to take another key.
            fingerprint: keys::fingerprint(&token, meant(&arrived.bytes)),
        },
        token: token.into(),
        app: Arc::clone(&app),
    });
    parts.extensions.insert(arrived);
    let mut request = Request::from_parts(parts, Body::empty());
    loop {
        if let Some(response) = repeatable.answer(deadlines.repeat).await? {
            return Ok(response);
        }
        let carrying = Arc::clone(&repeatable).carry_out(request, next.clone());
        match to_the_end(&app, carrying).await? {
            Carried::Out(response) => return Ok(response),
            Carried::ByAnother(back) => request = back,
        }
    }
}

/// The key of a request.
fn key_of(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
    let is_key = values.next().is_none()
        && (1..=MAX_KEY_CHARS).contains(&value.len())
        && value.iter().all(|byte| (b' '..=b'~').contains(byte));
    match std::str::from_utf8(value) {
        Ok(key) if is_key => Ok(key.to_owned()),
        _ => Err(refused(format!(
            "must be given once, with 1 to {MAX_KEY_CHARS} printable ASCII characters"
        ))),
    }
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::field("Idempotency-Key", message)
}

/// An empty body is an empty object.
fn meant(body: &[u8]) -> &[u8] {
    if body.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        body
    }
}

/// A request under a key.
struct Repeatable {
    app: Arc<App>,
    keyed: Keyed,
    /// The caller's key: under it the answer is kept.
    token: SecretString,
}

/// What came of carrying a request out.
enum Carried {
    /// It was.
    Out(Response),
    /// Another was faster; the request is still whole.
    ByAnother(Request),
}

impl Repeatable {
    /// The answer of a request that was carried out, or is and is soon done; `None` where it is to be
    /// carried out.
    async fn answer(&self, patience: Duration) -> Result<Option<Response>, ApiError> {
        let mut waited = Duration::ZERO;
        let mut until_look = FIRST_LOOK;
        loop {
            let now = self.app.now();
            match idempotency_key::look(&self.app.engine.db, &self.keyed, now).await? {
                Standing::Free => return Ok(None),
                Standing::Answered(id, answer) => return self.replay(id, &answer).map(Some),
                Standing::OtherBody => {
                    return Err(refused(
                        "was used with another body: take a new key for another request",
                    ));
                }
                Standing::InFlight if waited >= patience => {
                    return Err(ApiError::Conflict(
                        "idempotency_in_flight",
                        "the request with this `Idempotency-Key` is still being carried out: repeat \
                         it later"
                            .to_owned(),
                    ));
                }
                Standing::InFlight => {
                    let pausing = until_look.min(patience - waited);
                    pause(pausing).await;
                    waited += pausing;
                    until_look = (until_look * 2).min(LAST_LOOK);
                }
            }
        }
    }

    /// Takes the request and lets the handler carry it out.
    async fn carry_out(
        self: Arc<Self>,
        mut request: Request,
        next: Next,
    ) -> Result<Carried, ApiError> {
        let db = &self.app.engine.db;
        let claim = idempotency_key::claim(db, &self.keyed, self.app.now(), LEASE).await?;
        let Some(claim) = claim else {
            return Ok(Carried::ByAnother(request));
        };
        fail::fail_point!("idempotency.claimed");
        request.extensions_mut().insert(Given(claim.id));
        let response = self.hold(claim, next.run(request)).await;
        fail::fail_point!("idempotency.carried_out");
        let response = self.keep(claim, response).await?;
        fail::fail_point!("idempotency.kept");
        Ok(Carried::Out(response))
    }

    /// Waits for the handler, and keeps the request from being taken by another meanwhile.
    async fn hold(&self, claim: Claim, answering: impl Future<Output = Response>) -> Response {
        let mut answering = pin!(answering);
        loop {
            tokio::select! {
                response = &mut answering => return response,
                () = pause(RENEW) => {}
            }
            // Where another has it by now, both come to the same.
            if let Err(error) = idempotency_key::renew(&self.app.engine.db, claim, LEASE).await {
                log(&error, "the lease of a request was not renewed");
            }
        }
    }

    /// Keeps an answer, if it is one to be kept. Otherwise, and where the database does not take it,
    /// the next repeat is carried out.
    async fn keep(&self, claim: Claim, response: Response) -> Result<Response, ApiError> {
        let db = &self.app.engine.db;
        if !is_kept(&response) {
            if let Err(error) = idempotency_key::free(db, claim).await {
                log(&error, "a key was not freed");
            }
            return Ok(response);
        }
        let broken = |error: String| ApiError::Internal(format!("an answer to be kept: {error}"));
        let (parts, body) = response.into_parts();
        // Whole in memory already, as every handler of a POST gives it.
        let bytes = to_bytes(body, usize::MAX).await;
        let bytes = bytes.map_err(|error| broken(error.to_string()))?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let status = parts.status.as_u16();
        let name = name(claim.id, status);
        let answer = Answer {
            status,
            content_type: content_type.unwrap_or_default().to_owned(),
            body: keys::seal(self.token.expose_secret(), &name, &bytes)
                .map_err(|error| broken(error.to_string()))?,
        };
        if let Err(error) = idempotency_key::finish(db, claim, answer).await {
            log(&error, "an answer was not kept");
        }
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }

    /// Gives a kept answer again.
    fn replay(&self, id: Uuid, answer: &Answer) -> Result<Response, ApiError> {
        let broken = |error: String| ApiError::Internal(format!("a kept answer: {error}"));
        let name = name(id, answer.status);
        let body = keys::open(self.token.expose_secret(), &name, &answer.body);
        let body = body.map_err(|error| broken(error.to_string()))?;
        let mut response = if answer.content_type == PROBLEM_JSON {
            // It names the request that it answers now.
            let problem: Problem =
                serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
            problem.into_response()
        } else {
            let status = StatusCode::from_u16(answer.status).map_err(|e| broken(e.to_string()))?;
            let content_type = HeaderValue::from_str(&answer.content_type);
            let content_type = content_type.map_err(|error| broken(error.to_string()))?;
            let headers = [(header::CONTENT_TYPE, content_type)];
            (status, headers, body).into_response()
        };
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// Whether a repeat is to get this answer. One that says to come again does not, nor does one that
/// lives in its headers, and a cookie is a secret.
fn is_kept(response: &Response) -> bool {
    let status = response.status();
    let says_come_again = matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::TOO_MANY_REQUESTS
    );
    !status.is_server_error()
        && !says_come_again
        && !response.headers().contains_key(header::SET_COOKIE)
}

/// What a sealed answer is bound to.
fn name(id: Uuid, status: u16) -> Vec<u8> {
    [id.as_bytes().as_slice(), &status.to_be_bytes()].concat()
}

fn log(error: &DbError, what: &'static str) {
    tracing::warn!(error = errors::chain(error), "{what}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "clients and processes wait on the machine's clock"
)]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
