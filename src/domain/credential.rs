//! The kinds of credentials with which an account is connected.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an integration authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    /// A consent: tokens that the service's authorization server gave.
    Oauth2,
    /// A key of a person's or an app's own.
    ApiKey,
    /// A user name with a password.
    BasicAuth,
    /// A token that is sent as it is.
    BearerToken,
}

impl CredentialType {
    const ALL: [Self; 4] = [
        Self::Oauth2,
        Self::ApiKey,
        Self::BasicAuth,
        Self::BearerToken,
    ];

    /// The word in bodies and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oauth2 => "oauth2",
            Self::ApiKey => "api_key",
            Self::BasicAuth => "basic_auth",
            Self::BearerToken => "bearer_token",
        }
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The fields of credentials other than OAuth's; all are required.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Oauth2 => &[],
            Self::ApiKey => &["api_key"],
            Self::BasicAuth => &["username", "password"],
            Self::BearerToken => &["token"],
        }
    }
}
