//! Notion: a token endpoint that takes JSON and Basic authentication, no scopes, and a refresh token only
//! sometimes. What may be read, the person chooses page by page.
//!
//! Source: <https://developers.notion.com/docs/authorization>.

use serde_json::Value;

use super::{
    Account, ByHand, ClientAuthentication, Encoding, Endpoints, OAuth, Provider, RefusalKind,
    Revocation, STANDARD, TOKEN, Who, refusal, text,
};
use crate::domain::ServiceName;

/// The connection's bot is the account: one for each workspace and person.
pub(super) static NOTION: Provider = Provider {
    name: ServiceName::Notion,
    endpoints: Endpoints {
        authorize: "https://api.notion.com/v1/oauth/authorize",
        token: "https://api.notion.com/v1/oauth/token",
        revoke: Some("https://api.notion.com/v1/oauth/revoke"),
        api: "https://api.notion.com",
    },
    oauth: OAuth {
        parameters: &[("owner", "user")],
        pkce: false,
        client_authentication: ClientAuthentication::Basic,
        revocation: Revocation::AccessTokenOfClient,
        encoding: Encoding::Json,
        refusals: &[
            refusal("rate_limited", RefusalKind::Transient),
            refusal("conflict_error", RefusalKind::Transient),
        ],
        rotates: true,
        needs_refresh_token: false,
        ..STANDARD
    },
    who: Who {
        method: "users.me",
        units: 0,
        is_post: false,
        path: "/v1/users/me",
        headers: &[("Notion-Version", "2025-09-03")],
        scopes_header: None,
        read: account,
    },
    by_hand: Some(ByHand {
        what: "the secret of an internal integration, with which pages are shared",
        types: TOKEN,
        scopes: &[],
    }),
};

fn account(answer: &Value) -> Option<Account> {
    let id = text(answer, "/id")?;
    let workspace = text(answer, "/bot/workspace_name");
    let person = text(answer, "/bot/owner/user/name");
    let name = match (person, workspace) {
        (Some(person), Some(workspace)) => format!("{person} in {workspace}"),
        (None, Some(workspace)) => workspace,
        (Some(person), None) => person,
        (None, None) => text(answer, "/name").unwrap_or_else(|| id.clone()),
    };
    Some(Account { id, name })
}
