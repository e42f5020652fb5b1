//! OAuth 2.0: what is asked of a service's authorization server, the tokens it gives, and whose account
//! they are of. How services differ is in their rows, see [`crate::providers`].

use secrecy::SecretString;
use url::Url;

use crate::providers::Provider;

pub mod account;
pub mod authorization;
pub mod endpoint;
pub mod refresh;
mod revocation;
pub mod tokens;
mod words;

/// The authorization server and API of one service, and who we are to it (RFC 6749, section 2).
#[derive(Debug, Clone)]
pub struct OAuthConfig {
    /// How the service does OAuth.
    pub provider: &'static Provider,
    /// The client's id; absent where the operator has registered none.
    pub client_id: Option<String>,
    /// The client's secret.
    pub client_secret: Option<SecretString>,
    /// Where the person is asked for consent.
    pub authorize_url: Url,
    /// Where codes are exchanged and tokens refreshed.
    pub token_url: Url,
    /// Where tokens are revoked (RFC 7009), if the service has such a place.
    pub revoke_url: Option<Url>,
    /// What stands before the paths of the service's API.
    pub api_url: Url,
}
