//! Why an account was not connected.

use crate::{
    db::DbError,
    domain::{ServiceName, errors},
    integrations::{IntegrationError, Revocation},
    oauth::{account::AccountError, endpoint::EndpointError},
    secrets::SecretError,
};

/// Why an account was not connected. Each variant is something else to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The operator has registered no client with the service.
    #[error(
        "no OAuth client of {} is configured: set NUCLEUS_SERVICES__{}__CLIENT_ID and …__CLIENT_SECRET",
        .0.title(),
        .0.as_str().to_uppercase()
    )]
    NoClient(ServiceName),
    /// There is no such entity, or not for this caller.
    #[error("there is no such entity")]
    NoEntity,
    /// No flow has this state, or not at this service, or not for this caller.
    #[error("this answer belongs to no connection that was started here: start again")]
    UnknownState,
    /// The flow has its answer already.
    #[error("this answer was used before: start again")]
    UsedState,
    /// The person took too long.
    #[error("the time for this connection is over: start again")]
    ExpiredState,
    /// Another browser began the flow.
    #[error("this connection was started in another browser: go on there, or start again here")]
    OtherBrowser,
    /// The authorization server said no, in the words of RFC 6749, section 4.1.2.1.
    #[error("access was not granted: {}", [error.as_str(), description].join(" ").trim_end())]
    Denied {
        /// `error`.
        error: String,
        /// `error_description`, which may be empty.
        description: String,
    },
    /// The answer names another authorization server.
    #[error("the answer comes from another authorization server than the one that was asked")]
    OtherIssuer,
    /// The token endpoint does not take the code.
    #[error("the service does not accept this authorization: {0}: start again")]
    CodeRefused(String),
    /// The token endpoint gave no refresh token.
    #[error(
        "the service gave no lasting access: remove nucleus from the account's connected apps, then start again"
    )]
    NoRefreshToken,
    /// The person did not tick everything.
    #[error("not everything that is needed was allowed; start again and leave ticked: {}", .0.join(", "))]
    ScopesMissing(Vec<String>),
    /// The entity has another account of this service.
    #[error(
        "the account {given} was chosen, but {known} is connected here: start again and choose {known}, or disconnect {known} first"
    )]
    OtherAccount {
        /// The account whose records are here.
        known: String,
        /// The account that the person chose.
        given: String,
    },
    /// The account that is connected here is just being disconnected.
    #[error("the access to this account is being ended: start again in some minutes")]
    Ending,
    /// The account was not connected although the service granted it.
    #[error("{reason}{}", of_grant(.grant))]
    Unwanted {
        /// Why not.
        reason: Box<ConnectError>,
        /// What became of the grant.
        grant: Revocation,
    },
    /// The service does not take our client: the operator's to mend.
    #[error("the service refuses this nucleus: {0}")]
    ClientRefused(String),
    /// The service will not say whose the account is.
    #[error("the account cannot be read: {0}")]
    Rejected(String),
    /// The service, or the secret store, does not answer.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The store did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What the person is told of a grant that is not wanted.
fn of_grant(grant: &Revocation) -> &'static str {
    match grant {
        // Nothing is to be done about it.
        Revocation::SharedGrant => "",
        ended if ended.is_ended() => "; what was allowed was given back",
        _ => {
            "; the service may still list what was allowed, which can be taken back in the account there"
        }
    }
}

impl From<IntegrationError> for ConnectError {
    fn from(error: IntegrationError) -> Self {
        match error {
            IntegrationError::Exists => Self::Db(DbError::Conflict),
            IntegrationError::Ending => Self::Ending,
            IntegrationError::Db(error) => Self::Db(error),
            IntegrationError::Secret(error) => error.into(),
        }
    }
}

impl From<SecretError> for ConnectError {
    fn from(error: SecretError) -> Self {
        Self::Unavailable(errors::chain(&error))
    }
}

impl From<EndpointError> for ConnectError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Gone(said) | EndpointError::Expired(said) => Self::CodeRefused(said),
            EndpointError::Client(detail) => Self::ClientRefused(detail),
            EndpointError::Incomplete(_) => Self::Unavailable(error.to_string()),
            EndpointError::Unavailable(detail) => Self::Unavailable(detail),
        }
    }
}

impl From<AccountError> for ConnectError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Unavailable(reason) => Self::Unavailable(reason),
            other => Self::Rejected(other.to_string()),
        }
    }
}

/// An error, and where the person may go from there.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: ConnectError,
    /// Where the flow was to send the browser; known only to those who may finish it.
    pub return_to: Option<String>,
}

impl<E: Into<ConnectError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            return_to: None,
        }
    }
}
