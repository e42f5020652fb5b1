//! Why Secret Manager did not do what it was asked: its error, or the way to it, as a decision and with
//! its mend. What an error of the client holds besides is dropped here, as it may be a payload.

use std::{error::Error, time::Duration};

use google_cloud_gax::error::{
    CredentialsError, Error as ServiceError,
    rpc::{Code, StatusDetails},
};

use super::SecretError;

/// What is kept of a message of the service, in characters.
const MAX_MESSAGE: usize = 300;

/// How credentials are given.
pub(super) const NO_CREDENTIALS: &str = "run nucleus under a service account of Google Cloud, or \
     `gcloud auth application-default login` once";
const NO_PERMISSION: &str = "grant the service account of this process what docs/secret-manager.md \
     lists for it, and look at NUCLEUS_SECRETS__PROJECT_ID";
const NO_API: &str = "run `gcloud services enable secretmanager.googleapis.com`";
const NO_QUOTA: &str = "it is tried again; if it lasts, ask for more of Secret Manager's quotas in the \
     project";
const NO_ANSWER: &str = "it is tried again; look at the network, at NUCLEUS_SECRETS__ENDPOINT, and at \
     https://status.cloud.google.com";
const NOT_ALLOWED: &str = "look at NUCLEUS_SECRETS__REPLICATION, at the policies of the organisation, \
     and at whether somebody has disabled the version";

/// What was said instead of doing it.
#[derive(Debug, thiserror::Error)]
#[error("{said}{message}: {mend}")]
pub(super) struct Refusal {
    /// What kind of refusal.
    pub(super) code: Code,
    doing: &'static str,
    said: String,
    /// The service's own words after a colon, or nothing.
    message: String,
    mend: &'static str,
}

/// How an error of Secret Manager is mended, if it is one.
pub fn mend(error: &SecretError) -> Option<&'static str> {
    let refusal = error.source()?.downcast_ref::<Refusal>()?;
    Some(refusal.mend)
}

impl Refusal {
    /// What the client says of a call.
    pub(super) fn of(doing: &'static str, error: &ServiceError) -> Self {
        let (code, said) = told(error);
        let words = error.status().map_or("", |status| &status.message);
        let message = match words.chars().take(MAX_MESSAGE).collect::<String>() {
            empty if empty.is_empty() => empty,
            some => format!(": {some}"),
        };
        let mend = match code {
            Code::PermissionDenied if is_disabled(error) => NO_API,
            Code::PermissionDenied => NO_PERMISSION,
            Code::Unauthenticated => NO_CREDENTIALS,
            Code::ResourceExhausted => NO_QUOTA,
            Code::InvalidArgument | Code::FailedPrecondition => NOT_ALLOWED,
            _ => NO_ANSWER,
        };
        Self {
            code,
            doing,
            said,
            message,
            mend,
        }
    }

    /// Without the service's own words: those about a call that carries a payload may repeat it.
    pub(super) fn unquoted(mut self) -> Self {
        self.message.clear();
        self
    }

    pub(super) fn too_slow(doing: &'static str, after: Duration) -> Self {
        Self {
            code: Code::DeadlineExceeded,
            doing,
            said: format!("no answer in {} s", after.as_secs()),
            message: String::new(),
            mend: NO_ANSWER,
        }
    }

    /// The caller's decision.
    pub(super) fn into_error(self) -> SecretError {
        let doing = self.doing.to_owned();
        match self.code {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition => SecretError::Denied {
                doing,
                source: Box::new(self),
            },
            Code::ResourceExhausted => SecretError::Exhausted {
                doing,
                source: Box::new(self),
            },
            _ => SecretError::Unavailable {
                doing,
                source: Box::new(self),
            },
        }
    }
}

/// The kind of an error, and what may be told of it beside the service's message, which names permissions
/// and resources. What else the client has, an answer that it did not understand for instance, is not
/// told.
fn told(error: &ServiceError) -> (Code, String) {
    if let Some(status) = error.status() {
        let code = match (status.code, error.http_status_code()) {
            (Code::Unknown, Some(http)) => code_of(http),
            (code, _) => code,
        };
        return (code, code.to_string());
    }
    if let Some(http) = error.http_status_code() {
        return (code_of(http), format!("status {http} without a reason"));
    }
    if error.is_timeout() {
        return (Code::DeadlineExceeded, "no answer in time".to_owned());
    }
    if error.is_deserialization() {
        return (
            Code::Internal,
            "an answer that is not understood".to_owned(),
        );
    }
    if let Some(inner) = error.source() {
        if let Some(credentials) = inner.downcast_ref::<CredentialsError>() {
            let code = match credentials.is_transient() {
                true => Code::Unavailable,
                false => Code::Unauthenticated,
            };
            return (code, format!("no credentials: {}", causes(credentials)));
        }
        // Nothing was answered, so that this is about the way there.
        return (Code::Unavailable, format!("not reached: {}", root(inner)));
    }
    (Code::Unknown, "an error without a cause".to_owned())
}

/// Google's own table of codes: <https://cloud.google.com/apis/design/errors#handling_errors>
fn code_of(http: u16) -> Code {
    match http {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        429 => Code::ResourceExhausted,
        _ => Code::Unavailable,
    }
}

fn is_disabled(error: &ServiceError) -> bool {
    let details = error.status().map(|status| status.details.as_slice());
    let is_it = |detail: &StatusDetails| match detail {
        StatusDetails::ErrorInfo(info) => info.reason == "SERVICE_DISABLED",
        _ => false,
    };
    details.unwrap_or_default().iter().any(is_it)
}

fn root(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// An error that holds nothing of a secret, with its causes.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    crate::domain::errors::chain(error)
}
