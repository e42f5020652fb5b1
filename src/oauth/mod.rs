//! OAuth 2.0: where a service's authorization server is, and the tokens it gives.

use secrecy::SecretString;
use url::Url;

pub mod endpoint;
pub mod tokens;

/// The authorization server of one service, and who we are to it (RFC 6749, section 2).
#[derive(Debug, Clone)]
pub struct OAuthConfig {
    /// The client's id; absent where the operator has registered none.
    pub client_id: Option<String>,
    /// The client's secret.
    pub client_secret: Option<SecretString>,
    /// Where tokens are issued and refreshed.
    pub token_url: Url,
    /// Where tokens are revoked (RFC 7009), if the service has such a place.
    pub revoke_url: Option<Url>,
}
