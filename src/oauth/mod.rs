//! OAuth 2.0: where a service's authorization server is, what is asked of it, and the tokens it
//! gives.

use secrecy::SecretString;
use url::Url;

pub mod authorization;
pub mod endpoint;
pub mod refresh;
pub mod tokens;

/// The authorization server of one service, and who we are to it (RFC 6749, section 2).
#[derive(Debug, Clone)]
pub struct OAuthConfig {
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
}

/// What a connector wants a person to consent to, and the service's own ways in asking for it.
#[derive(Debug, Clone, Copy)]
pub struct Consent {
    /// The scopes, all of them needed.
    pub scopes: &'static [&'static str],
    /// Parameters of the authorization request beyond those of RFC 6749 and RFC 7636.
    pub parameters: &'static [(&'static str, &'static str)],
    /// The vendor's issuer identifier (RFC 9207).
    pub issuer: &'static str,
}
