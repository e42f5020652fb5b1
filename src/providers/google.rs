//! Google: one authorization server for Gmail, Calendar and Drive. An account is its e-mail address in
//! all three, because one grant of a client and an account stands for all of them.
//!
//! Source: <https://developers.google.com/identity/protocols/oauth2/web-server>.

use serde_json::Value;

use super::{
    Account, Endpoints, OAuth, Provider, Redirects, Refusal, RefusalKind, Revocation, STANDARD,
    Who, refusal, text,
};
use crate::domain::ServiceName;

/// Reading mail, and nothing else.
pub(super) static GMAIL: Provider = Provider {
    name: ServiceName::Gmail,
    endpoints: endpoints("https://gmail.googleapis.com"),
    oauth: oauth(&["https://www.googleapis.com/auth/gmail.readonly"]),
    who: who("getProfile", 1, "/gmail/v1/users/me/profile", |answer| {
        address(answer, "/emailAddress")
    }),
    by_hand: None,
};

/// Reading calendars. The id of the primary one is the account's address.
pub(super) static CALENDAR: Provider = Provider {
    name: ServiceName::GoogleCalendar,
    endpoints: endpoints("https://www.googleapis.com"),
    oauth: oauth(&["https://www.googleapis.com/auth/calendar.readonly"]),
    who: who(
        "calendarList.get",
        0,
        "/calendar/v3/users/me/calendarList/primary",
        |answer| address(answer, "/id"),
    ),
    by_hand: None,
};

/// Reading files.
pub(super) static DRIVE: Provider = Provider {
    name: ServiceName::GoogleDrive,
    endpoints: endpoints("https://www.googleapis.com"),
    oauth: oauth(&["https://www.googleapis.com/auth/drive.readonly"]),
    who: who("about.get", 0, "/drive/v3/about?fields=user", |answer| {
        address(answer, "/user/emailAddress")
    }),
    by_hand: None,
};

const fn endpoints(api: &'static str) -> Endpoints {
    Endpoints {
        authorize: "https://accounts.google.com/o/oauth2/v2/auth",
        token: "https://oauth2.googleapis.com/token",
        revoke: Some("https://oauth2.googleapis.com/revoke"),
        api,
    }
}

/// A session policy of the account's organisation asks for a new login; the consent stands.
const REFUSALS: &[Refusal] = &[refusal("invalid_rapt", RefusalKind::GrantExpired)];

/// Offline access gives a refresh token, and being asked for consent gives one each time.
const fn oauth(scopes: &'static [&'static str]) -> OAuth {
    OAuth {
        issuer: Some("https://accounts.google.com"),
        scopes,
        parameters: &[("access_type", "offline"), ("prompt", "consent")],
        account_hint: Some("login_hint"),
        // <https://developers.google.com/identity/protocols/oauth2/web-server#uri-validation>
        redirects: Redirects::PublicHosts,
        refusals: REFUSALS,
        revocation: Revocation::Token,
        ..STANDARD
    }
}

const fn who(
    method: &'static str,
    units: u32,
    path: &'static str,
    read: fn(&Value) -> Option<Account>,
) -> Who {
    Who {
        method,
        units,
        is_post: false,
        path,
        headers: &[],
        scopes_header: None,
        read,
    }
}

fn address(answer: &Value, pointer: &str) -> Option<Account> {
    let address = text(answer, pointer)?;
    Some(Account {
        id: address.clone(),
        name: address,
    })
}
