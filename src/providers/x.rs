//! X: codes that live thirty seconds, refresh tokens that are good once, and a void one called an invalid
//! request.
//!
//! Source: <https://docs.x.com/resources/fundamentals/authentication/oauth-2-0/authorization-code>.

use serde_json::Value;

use super::{
    Account, ClientAuthentication, Endpoints, OAuth, Provider, Refusal, RefusalKind, STANDARD, Who,
    text,
};
use crate::domain::ServiceName;

/// Reading posts, likes, bookmarks and who is followed.
pub(super) static X: Provider = Provider {
    name: ServiceName::Twitter,
    endpoints: Endpoints {
        authorize: "https://x.com/i/oauth2/authorize",
        token: "https://api.x.com/2/oauth2/token",
        revoke: Some("https://api.x.com/2/oauth2/revoke"),
        api: "https://api.x.com",
    },
    oauth: OAuth {
        scopes: &[
            "tweet.read",
            "users.read",
            "like.read",
            "bookmark.read",
            "follows.read",
            "list.read",
            "offline.access",
        ],
        client_authentication: ClientAuthentication::Basic,
        refusals: &[
            void("Value passed for the token was invalid"),
            void("Value passed for the authorization code was invalid"),
        ],
        rotates: true,
        ..STANDARD
    },
    who: Who {
        method: "users.me",
        units: 0,
        is_post: false,
        path: "/2/users/me",
        headers: &[],
        scopes_header: None,
        read: account,
    },
    by_hand: None,
};

const fn void(says: &'static str) -> Refusal {
    Refusal {
        code: "invalid_request",
        says,
        kind: RefusalKind::GrantGone,
    }
}

/// People may change their user name; the number stays.
fn account(answer: &Value) -> Option<Account> {
    Some(Account {
        id: text(answer, "/data/id")?,
        name: format!("@{}", text(answer, "/data/username")?),
    })
}
