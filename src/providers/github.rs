//! GitHub, as an OAuth app: errors with the status 200, scopes separated by commas, and tokens that
//! expire only where the app says so.
//!
//! Source: <https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps>.

use serde_json::Value;

use super::{
    Account, ByHand, Endpoints, OAuth, Provider, Refusal, RefusalKind, Revocation, STANDARD, TOKEN,
    Who, refusal, text,
};
use crate::domain::ServiceName;

/// Reading what a person does there. There is no scope that reads private repositories and may not
/// write; a fine-grained token by hand can be held to reading.
pub(super) static GITHUB: Provider = Provider {
    name: ServiceName::Github,
    endpoints: Endpoints {
        authorize: "https://github.com/login/oauth/authorize",
        token: "https://github.com/login/oauth/access_token",
        revoke: None,
        api: "https://api.github.com",
    },
    oauth: OAuth {
        scopes: &["read:user", "repo", "gist"],
        // <https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps>:
        // what a person granted earlier is merged, and the larger scope stands for the smaller.
        includes: &[("user", &["read:user"])],
        account_hint: Some("login"),
        errors_in_200: true,
        revocation: Revocation::GrantOfClient,
        refusals: REFUSALS,
        rotates: true,
        needs_refresh_token: false,
        ..STANDARD
    },
    who: Who {
        method: "user.get",
        units: 0,
        is_post: false,
        path: "/user",
        headers: &[("X-GitHub-Api-Version", "2022-11-28")],
        scopes_header: Some("x-oauth-scopes"),
        read: account,
    },
    by_hand: Some(ByHand {
        what: "a personal access token, classic or fine-grained",
        types: TOKEN,
        scopes: &["repo"],
    }),
};

/// <https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors>.
const REFUSALS: &[Refusal] = &[
    refusal("bad_verification_code", RefusalKind::GrantGone),
    refusal("unverified_user_email", RefusalKind::GrantGone),
    refusal("bad_refresh_token", RefusalKind::GrantGone),
    refusal("incorrect_client_credentials", RefusalKind::Configuration),
    refusal("redirect_uri_mismatch", RefusalKind::Configuration),
];

/// People may change their login; the number stays.
fn account(answer: &Value) -> Option<Account> {
    Some(Account {
        id: text(answer, "/id")?,
        name: text(answer, "/login")?,
    })
}
