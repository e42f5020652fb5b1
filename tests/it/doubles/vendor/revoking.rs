//! What each vendor revokes, by which token and at whose word.

use super::*;

/// By the one call that the vendor has for it.
pub(super) async fn revoke(
    State(vendor): State<Vendor>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    use ServiceName::{Github, Linkedin, Notion, Slack, Spotify, Twitter};
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let authorization = authorization.unwrap_or_default();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let form = pairs(std::str::from_utf8(&body).unwrap());
    let in_form = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let in_json = |name: &str| json[name].as_str().unwrap_or_default();
    let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let is_basic = authorization.strip_prefix("Basic ") == Some(&basic);
    let in_body = (in_form("client_id"), in_form("client_secret")) == (CLIENT_ID, CLIENT_SECRET);
    let github = format!("/applications/{CLIENT_ID}/grant");
    let (path, token, is_client) = match vendor.service {
        Github => (github.as_str(), in_json("access_token"), is_basic),
        Notion => ("/revoke", in_json("token"), is_basic),
        Slack => (
            "/api/auth.revoke",
            authorization.strip_prefix("Bearer ").unwrap_or_default(),
            true,
        ),
        Twitter => ("/revoke", in_form("token"), is_basic),
        Linkedin => ("/revoke", in_form("token"), in_body),
        Spotify => ("", "", true),
        // Google asks for no client.
        _ => ("/revoke", in_form("token"), true),
    };
    let by_refresh_token = vendor.is_google() || matches!(vendor.service, Twitter | Linkedin);
    let mut inner = vendor.lock();
    if uri.path() != path || !is_client {
        inner
            .wrongs
            .push(format!("revoke: at {} or by another client", uri.path()));
        return StatusCode::NOT_FOUND.into_response();
    }
    let of_access = inner.tokens.get(token).map(|token| token.consent);
    let of_refresh = inner.grants.get(token).filter(|_| by_refresh_token);
    let Some(consent) = of_access.or(of_refresh.map(|grant| grant.consent)) else {
        inner.wrongs.push("revoke: another token".to_owned());
        return refuse(&vendor, "invalid_token", "");
    };
    inner.revocations += 1;
    if vendor.service == Slack && inner.mood.expires {
        // One token, and not what it came of.
        inner.tokens.remove(token);
        return answer(200, &json!({"ok": true, "revoked": true}));
    }
    inner.tokens.retain(|_, token| token.consent != consent);
    inner.grants.retain(|_, grant| grant.consent != consent);
    match vendor.service {
        Slack => answer(200, &json!({"ok": true, "revoked": true})),
        Github => StatusCode::NO_CONTENT.into_response(),
        _ => answer(200, &json!({})),
    }
}
