//! Errors as problem details (RFC 9457). The only place that picks status codes.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::edge::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::{
    connect::ConnectError,
    db::DbError,
    domain::errors,
    integrations::IntegrationError,
    sync::{RequestError, settings::InvalidSettings},
};

/// When a client may come back after it was told that there is too much or that a part is away, in
/// seconds.
const RETRY_AFTER_SECONDS: u64 = 5;
/// The media type of problem details.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Problem details as RFC 9457 has them, with a stable code.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: `code` says what kind of problem it is.
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    /// The name of the status.
    title: Cow<'static, str>,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What kind of problem. Stable: programs may rely on it.
    code: Cow<'static, str>,
    /// What is wrong and how to mend it, for people.
    detail: String,
    /// Each field or parameter that cannot be taken. Only with 422.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
    /// The request's id, as in the header `X-Request-Id`. The log names it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = true)]
    request_id: Option<String>,
}

impl Problem {
    /// What a client is told of an error.
    pub(super) fn new(error: &ApiError) -> Self {
        let (status, code, detail) = error.parts();
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            code: code.into(),
            detail,
            errors: match error {
                ApiError::Invalid(errors) => Some(errors.clone()),
                _ => None,
            },
            request_id: None,
        }
    }

    /// The same, with the request's id.
    pub(super) fn naming(self, request_id: &str) -> Self {
        Self {
            request_id: Some(request_id.to_owned()),
            ..self
        }
    }
}

/// A field of the request that cannot be taken, and how to mend it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, ToSchema)]
pub struct FieldError {
    /// The field, from the body's or the query's root down.
    pub field: String,
    /// What is wrong and what is right.
    pub message: String,
}

impl FieldError {
    /// Names a field and what is wrong with it.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub enum ApiError {
    /// The body is not JSON.
    InvalidJson(String),
    /// A cursor that this API did not give.
    InvalidCursor,
    /// No key, or one that is not valid.
    Unauthorized,
    /// The key may not do this.
    Forbidden(&'static str),
    /// The key may only look.
    ReadOnlyKey,
    /// It does not exist, or not for this key.
    NotFound,
    /// The path knows other methods only.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// It contradicts how things stand.
    Conflict(&'static str, String),
    /// The cursor points to events that are past retention.
    CursorExpired,
    /// The body is too large; the limit in bytes.
    TooLarge(usize),
    /// The request's headers are too many or too long.
    HeadersTooLarge,
    /// Too much of this is under way; what it is.
    TooMany(&'static str),
    /// The caller has sent too many requests; how long it has to wait, in seconds.
    RateLimited(u64),
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// Fields that cannot be taken.
    Invalid(Vec<FieldError>),
    /// A part of the program does not answer.
    Unavailable(String),
    /// A defect, or a broken store; the text is for the log alone.
    Internal(String),
}

impl ApiError {
    /// One field that cannot be taken.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// Status, stable code, and what the client is told.
    pub(super) fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::InvalidJson(detail) => (
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!("the body is not JSON: {detail}"),
            ),
            Self::InvalidCursor => (
                StatusCode::BAD_REQUEST,
                "invalid_cursor",
                "the cursor was not given by this list: leave it out to start over".to_owned(),
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "send one `Authorization: Bearer` header with a valid key".to_owned(),
            ),
            Self::Forbidden(detail) => (StatusCode::FORBIDDEN, "forbidden", (*detail).to_owned()),
            Self::ReadOnlyKey => (
                StatusCode::FORBIDDEN,
                "read_only_key",
                "this key may only read: use one of scope write".to_owned(),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such thing here".to_owned(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "the path exists, but not with this method".to_owned(),
            ),
            Self::Timeout => (
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the request did not arrive in time".to_owned(),
            ),
            Self::Conflict(code, detail) => (StatusCode::CONFLICT, code, detail.clone()),
            Self::CursorExpired => (
                StatusCode::GONE,
                "cursor_expired",
                "the events after this cursor are past retention: read the records instead, and \
                 start over without a cursor"
                    .to_owned(),
            ),
            Self::TooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is larger than {limit} bytes"),
            ),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                format!(
                    "send at most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes together"
                ),
            ),
            Self::TooMany(what) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many",
                format!("too many {what} are open: try again later"),
            ),
            Self::RateLimited(seconds) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                format!("too many requests: wait {seconds} s"),
            ),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send the body as `Content-Type: application/json`".to_owned(),
            ),
            Self::Invalid(errors) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_fields",
                errors
                    .iter()
                    .map(|error| format!("{}: {}", error.field, error.message))
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            Self::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "a part of nucleus does not answer: try again later".to_owned(),
            ),
            Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "this is a defect of nucleus or of its store: the log tells more".to_owned(),
            ),
        }
    }

    /// The stable code.
    pub(super) fn code(&self) -> &'static str {
        self.parts().1
    }

    /// Logs what the client is not told.
    pub(super) fn log(&self) {
        match self {
            Self::Internal(cause) => tracing::error!(error = cause, "a request failed"),
            Self::Unavailable(cause) => tracing::warn!(error = cause, "a request was refused"),
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = Problem::new(&self).into_response();
        let status = response.status();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            let seconds = match self {
                Self::RateLimited(seconds) => seconds,
                _ => RETRY_AFTER_SECONDS,
            };
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = answer_with(&self);
        // For whoever knows the request.
        response.extensions_mut().insert(self);
        response
    }
}

fn answer_with(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or_default();
    let mut response = (status, Json(problem)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}

/// Puts the request's id into the body of a problem, once.
pub(super) fn name_request(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(problem) = parts.extensions.remove::<Problem>() else {
        return Response::from_parts(parts, body);
    };
    let named = answer_with(&problem.naming(request_id));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, named.into_body())
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound => Self::NotFound,
            DbError::Conflict => Self::Conflict(
                "conflict",
                "somebody else changed this at the same time: read it again".to_owned(),
            ),
            DbError::Unavailable(_) => Self::Unavailable(errors::chain(&error)),
            DbError::Fenced | DbError::Schema(_) | DbError::Unfit(_) | DbError::Other(_) => {
                Self::Internal(errors::chain(&error))
            }
        }
    }
}

impl From<IntegrationError> for ApiError {
    fn from(error: IntegrationError) -> Self {
        match error {
            IntegrationError::Exists => Self::Conflict(
                "integration_exists",
                "this entity has this service connected: change or remove that integration"
                    .to_owned(),
            ),
            IntegrationError::Ending => Self::Conflict("integration_ending", error.to_string()),
            IntegrationError::Db(error) => error.into(),
            IntegrationError::Secret(error) => Self::Unavailable(errors::chain(&error)),
        }
    }
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        let code = match error {
            ConnectError::Db(error) => return error.into(),
            ConnectError::Unavailable(cause) => return Self::Unavailable(cause),
            ConnectError::Unwanted { .. } => return of_unwanted(error),
            ConnectError::NoEntity => return Self::NotFound,
            ConnectError::UnknownState => return Self::field("state", error.to_string()),
            ConnectError::OtherIssuer => return Self::field("iss", error.to_string()),
            ConnectError::CodeRefused(_) => return Self::field("code", error.to_string()),
            ConnectError::NoClient(_) => "client_not_configured",
            ConnectError::UsedState => "state_used",
            ConnectError::ExpiredState => "state_expired",
            ConnectError::OtherBrowser => "other_browser",
            ConnectError::Denied { .. } => "access_denied",
            ConnectError::NoRefreshToken => "no_refresh_token",
            ConnectError::ScopesMissing(_) => "scopes_missing",
            ConnectError::OtherAccount { .. } => "other_account",
            ConnectError::Ending => "integration_ending",
            ConnectError::ClientRefused(_) => "client_refused",
            ConnectError::Rejected(_) => "account_unreadable",
        };
        Self::Conflict(code, error.to_string())
    }
}

/// The reason with its code, and what became of the grant.
fn of_unwanted(error: ConnectError) -> ApiError {
    let told = error.to_string();
    let ConnectError::Unwanted { reason, .. } = error else {
        return error.into();
    };
    match ApiError::from(*reason) {
        ApiError::Conflict(code, _) => ApiError::Conflict(code, told),
        other => other,
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Db(error) => error.into(),
            RequestError::NotSyncable(status) => {
                let (code, mend) = match status.as_str() {
                    "inactive" => ("integration_inactive", "set its status to active first"),
                    "expired" => ("integration_expired", "connect the account again first"),
                    _ => ("integration_revoked", "connect the account again first"),
                };
                Self::Conflict(code, format!("{error}: {mend}"))
            }
        }
    }
}

impl From<InvalidSettings> for ApiError {
    fn from(error: InvalidSettings) -> Self {
        Self::field(error.field, error.message)
    }
}
