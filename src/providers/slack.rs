//! Slack: the person's own token, which stands in `authed_user`, and errors with the status 200. Tokens
//! expire and rotate only where the app has switched that on, once and for all.
//!
//! Source: <https://docs.slack.dev/authentication/installing-with-oauth>.

use serde_json::Value;

use super::{
    Account, ByHand, ClientAuthentication, Endpoints, OAuth, Provider, Redirects, Refusal,
    RefusalKind, Revocation, STANDARD, TOKEN, Who, refusal, text,
};
use crate::domain::ServiceName;

/// Reading what the person can read; a bot would see only the channels it is a member of.
pub(super) static SLACK: Provider = Provider {
    name: ServiceName::Slack,
    endpoints: Endpoints {
        authorize: "https://slack.com/oauth/v2/authorize",
        token: "https://slack.com/api/oauth.v2.access",
        revoke: None,
        api: "https://slack.com",
    },
    oauth: OAuth {
        scopes: &[
            "channels:read",
            "groups:read",
            "im:read",
            "mpim:read",
            "channels:history",
            "groups:history",
            "im:history",
            "mpim:history",
            "users:read",
            "team:read",
            "reactions:read",
            "files:read",
        ],
        scope_parameter: "user_scope",
        scope_separator: ",",
        redirects: Redirects::HttpsOnly,
        // A challenge makes the app a public client for ever.
        pkce: false,
        client_authentication: ClientAuthentication::Basic,
        // A refreshed token of a person may stand in either place.
        tokens_at: &["/authed_user", ""],
        errors_in_200: true,
        revocation: Revocation::OwnToken,
        refusals: REFUSALS,
        rotates: true,
        needs_refresh_token: false,
        ..STANDARD
    },
    who: Who {
        method: "auth.test",
        units: 0,
        is_post: true,
        path: "/api/auth.test",
        headers: &[],
        scopes_header: Some("x-oauth-scopes"),
        read: account,
    },
    by_hand: Some(ByHand {
        what: "the user or bot token of an app of one's own",
        types: TOKEN,
        scopes: &["channels:read", "channels:history", "users:read"],
    }),
};

/// <https://docs.slack.dev/reference/methods/oauth.v2.access> and `auth.test`.
const REFUSALS: &[Refusal] = &[
    refusal("invalid_code", RefusalKind::GrantGone),
    refusal("code_already_used", RefusalKind::GrantGone),
    refusal("invalid_refresh_token", RefusalKind::GrantExpired),
    refusal("invalid_grant", RefusalKind::GrantExpired),
    refusal("token_expired", RefusalKind::GrantExpired),
    refusal("token_revoked", RefusalKind::GrantGone),
    refusal("account_inactive", RefusalKind::GrantGone),
    refusal("invalid_auth", RefusalKind::GrantGone),
    refusal("not_authed", RefusalKind::GrantGone),
    refusal("ratelimited", RefusalKind::Transient),
    refusal("rate_limited", RefusalKind::Transient),
    refusal("request_timeout", RefusalKind::Transient),
    refusal("service_unavailable", RefusalKind::Transient),
    refusal("internal_error", RefusalKind::Transient),
    refusal("fatal_error", RefusalKind::Transient),
];

/// A person has an account in each workspace.
fn account(answer: &Value) -> Option<Account> {
    let (team_id, user_id) = (text(answer, "/team_id")?, text(answer, "/user_id")?);
    let user = text(answer, "/user").unwrap_or_else(|| user_id.clone());
    let team = text(answer, "/team").unwrap_or_else(|| team_id.clone());
    Some(Account {
        id: format!("{team_id}/{user_id}"),
        name: format!("{user} in {team}"),
    })
}
