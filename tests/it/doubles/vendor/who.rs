//! The call that says whose a token is.

use super::*;

/// Answers whatever is asked of the API.
pub(super) async fn who(
    State(vendor): State<Vendor>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut inner = vendor.lock();
    inner.whos += 1;
    if let Some((status, body)) = &inner.mood.who_answer {
        return answer(*status, body);
    }
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let path = uri.path_and_query().map(ToString::to_string).unwrap();
    let expected = match vendor.service {
        ServiceName::Gmail => "/gmail/v1/users/me/profile",
        ServiceName::GoogleCalendar => "/calendar/v3/users/me/calendarList/primary",
        ServiceName::GoogleDrive => "/drive/v3/about?fields=user",
        ServiceName::Github => "/user",
        ServiceName::Notion => "/v1/users/me",
        ServiceName::Slack => "/api/auth.test",
        ServiceName::Linkedin => "/v2/userinfo",
        ServiceName::Twitter => "/2/users/me",
        ServiceName::Spotify => "/v1/me",
    };
    let is_post = vendor.service == ServiceName::Slack;
    if path != expected || (method == Method::POST) != is_post {
        inner.wrongs.push(format!("api: {path}"));
        return StatusCode::NOT_FOUND.into_response();
    }
    if vendor.service == ServiceName::Github && text("user-agent").is_empty() {
        inner.wrongs.push("api: no user agent".to_owned());
        return StatusCode::FORBIDDEN.into_response();
    }
    if vendor.service == ServiceName::Notion && text("notion-version").is_empty() {
        inner.wrongs.push("api: no version".to_owned());
        return answer(
            400,
            &json!({"object": "error", "status": 400, "code": "missing_version"}),
        );
    }
    let authorization = text("authorization");
    let held = authorization
        .strip_prefix("Bearer ")
        .and_then(|token| inner.tokens.get(token));
    let Some(Token {
        account, scopes, ..
    }) = held
    else {
        return match vendor.service {
            ServiceName::Slack => {
                let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
                let error = match inner.expired.contains(token) {
                    true => "token_expired",
                    false => "invalid_auth",
                };
                answer(200, &json!({"ok": false, "error": error}))
            }
            ServiceName::Github => {
                answer(401, &json!({"message": "Bad credentials", "status": "401"}))
            }
            ServiceName::Notion => answer(
                401,
                &json!({"object": "error", "status": 401, "code": "unauthorized", "message": "API token is invalid."}),
            ),
            _ => answer(
                401,
                &json!({"error": {"code": 401, "message": "Invalid Credentials"}}),
            ),
        };
    };
    let body = match vendor.service {
        ServiceName::Gmail => {
            json!({"emailAddress": mail(*account), "messagesTotal": 0, "threadsTotal": 0, "historyId": "1"})
        }
        ServiceName::GoogleCalendar => {
            json!({"kind": "calendar#calendarListEntry", "id": mail(*account), "primary": true})
        }
        ServiceName::GoogleDrive => json!({"user": {"emailAddress": mail(*account)}}),
        ServiceName::Github => json!({"id": 100 + account, "login": format!("ada{account}")}),
        ServiceName::Notion => json!({"object": "user", "id": format!("b{account}"), "type": "bot",
            "bot": {"owner": {"type": "user", "user": {"name": format!("Ada {account}")}}, "workspace_name": "Engines"}}),
        ServiceName::Slack => {
            json!({"ok": true, "url": "https://engines.slack.com/", "team": "Engines",
            "user": format!("ada{account}"), "team_id": "T1", "user_id": format!("U{account}")})
        }
        ServiceName::Linkedin => json!({"sub": format!("s{account}"), "email": mail(*account)}),
        ServiceName::Twitter => {
            json!({"data": {"id": format!("{}", 200 + account), "name": "Ada", "username": format!("ada{account}")}})
        }
        ServiceName::Spotify => {
            json!({"id": format!("p{account}"), "display_name": format!("Ada {account}")})
        }
    };
    let scopes = scopes.clone();
    let mut response = answer(200, &body);
    if let Some(scopes) = scopes {
        let name = header::HeaderName::from_static("x-oauth-scopes");
        response.headers_mut().insert(name, scopes.parse().unwrap());
    }
    response
}
