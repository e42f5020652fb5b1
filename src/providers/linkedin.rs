//! LinkedIn: tokens of sixty days, and a refresh token for approved partners only.
//!
//! Source: <https://learn.microsoft.com/en-us/linkedin/shared/authentication/authorization-code-flow>.

use serde_json::Value;

use super::{Account, Endpoints, OAuth, Provider, STANDARD, Who, text};
use crate::domain::ServiceName;

/// Reading the profile, which is what every app may.
pub(super) static LINKEDIN: Provider = Provider {
    name: ServiceName::Linkedin,
    endpoints: Endpoints {
        authorize: "https://www.linkedin.com/oauth/v2/authorization",
        token: "https://www.linkedin.com/oauth/v2/accessToken",
        revoke: Some("https://www.linkedin.com/oauth/v2/revoke"),
        api: "https://api.linkedin.com",
    },
    oauth: OAuth {
        scopes: &["openid", "profile", "email"],
        // Only apps that LinkedIn has made native ones may send a challenge.
        pkce: false,
        needs_refresh_token: false,
        consent_days: Some(60),
        ..STANDARD
    },
    who: Who {
        method: "userinfo",
        units: 0,
        is_post: false,
        path: "/v2/userinfo",
        headers: &[],
        scopes_header: None,
        read: account,
    },
    by_hand: None,
};

fn account(answer: &Value) -> Option<Account> {
    let id = text(answer, "/sub")?;
    let name = text(answer, "/email").or_else(|| text(answer, "/name"));
    Some(Account {
        name: name.unwrap_or_else(|| id.clone()),
        id,
    })
}
