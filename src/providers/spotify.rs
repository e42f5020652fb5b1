//! Spotify: a consent that ends six months after the person gave it, whatever is refreshed meanwhile, and
//! no way to revoke it from here.
//!
//! Sources: <https://developer.spotify.com/documentation/web-api/tutorials/code-flow>,
//! <https://developer.spotify.com/blog/2026-06-18-refresh-token-expiration>.

use serde_json::Value;

use super::{
    Account, ClientAuthentication, Endpoints, OAuth, Provider, Redirects, Revocation, STANDARD,
    Who, text,
};
use crate::domain::ServiceName;

/// Reading what the person hears, keeps and follows.
pub(super) static SPOTIFY: Provider = Provider {
    name: ServiceName::Spotify,
    endpoints: Endpoints {
        authorize: "https://accounts.spotify.com/authorize",
        token: "https://accounts.spotify.com/api/token",
        revoke: None,
        api: "https://api.spotify.com",
    },
    oauth: OAuth {
        scopes: &[
            "user-read-private",
            "user-read-email",
            "user-library-read",
            "user-read-recently-played",
            "user-top-read",
            "playlist-read-private",
            "playlist-read-collaborative",
            "user-follow-read",
            "user-read-playback-position",
        ],
        redirects: Redirects::NoLocalhost,
        client_authentication: ClientAuthentication::Basic,
        // Six months have 181 days at least.
        consent_days: Some(181),
        revocation: Revocation::NotOffered,
        ..STANDARD
    },
    who: Who {
        method: "me",
        units: 0,
        is_post: false,
        path: "/v1/me",
        headers: &[],
        scopes_header: None,
        read: account,
    },
    by_hand: None,
};

fn account(answer: &Value) -> Option<Account> {
    let id = text(answer, "/id")?;
    let name = text(answer, "/display_name");
    Some(Account {
        name: name.unwrap_or_else(|| id.clone()),
        id,
    })
}
