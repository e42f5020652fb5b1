//! The pages that a person sees at the end of an OAuth flow: plain HTML, no script, nothing loaded
//! from anywhere.

use askama::Template;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use url::Url;

use super::error::ApiError;
use crate::connect::{Confirmation, Connected};

const STYLE: &str = include_str!("pages/style.css");

/// A page and the status it comes with.
pub(super) trait Page: Template {
    /// The status.
    fn status(&self) -> StatusCode;

    /// Another origin to which a form of the page may lead in the end.
    fn leads_to(&self) -> Option<&str> {
        None
    }

    /// The page as an answer.
    fn into_response(self) -> Response
    where
        Self: Sized,
    {
        let html = match self.render() {
            Ok(html) => html,
            Err(error) => return ApiError::Internal(error.to_string()).into_response(),
        };
        let policy = match HeaderValue::from_str(&policy(self.leads_to())) {
            Ok(policy) => policy,
            Err(error) => return ApiError::Internal(error.to_string()).into_response(),
        };
        let headers: [(HeaderName, HeaderValue); 4] = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // The address of the page holds a code.
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
        ];
        (self.status(), headers, html).into_response()
    }
}

/// Nothing but the page's own style, and forms that go to this site. Browsers hold redirects that
/// follow a form to the same list.
fn policy(leads_to: Option<&str>) -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let origin = leads_to
        .and_then(|url| Url::parse(url).ok())
        .map(|url| format!(" {}", url.origin().ascii_serialization()))
        .unwrap_or_default();
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{origin}; \
         frame-ancestors 'none'; base-uri 'none'"
    )
}

/// Asks whether the account is to be connected.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct Confirm {
    style: &'static str,
    service: &'static str,
    action: String,
    account: String,
    entity_name: String,
    confirmation: String,
    return_to: Option<String>,
}

impl Confirm {
    /// The question; the form goes to `action`.
    pub(super) fn new(service: &'static str, action: String, confirmation: Confirmation) -> Self {
        Self {
            style: STYLE,
            service,
            action,
            account: visible(&confirmation.account),
            entity_name: visible(&confirmation.entity_name),
            confirmation: confirmation.id.to_string(),
            return_to: confirmation.return_to,
        }
    }
}

impl Page for Confirm {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    fn leads_to(&self) -> Option<&str> {
        self.return_to.as_deref()
    }
}

/// Says how it ended.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    style: &'static str,
    title: String,
    text: String,
    way_back: Option<String>,
    status: StatusCode,
}

impl Message {
    fn new(status: StatusCode, title: String, text: String) -> Self {
        Self {
            style: STYLE,
            title,
            text: visible(&text),
            way_back: None,
            status,
        }
    }

    /// The account is connected.
    pub(super) fn connected(service: &str, connected: &Connected) -> Self {
        let sync = if connected.can_sync {
            " The first sync begins now."
        } else {
            ""
        };
        let text = format!(
            "{} is connected for {}.{sync} You can close this page.",
            connected.account, connected.entity_name
        );
        Self::new(StatusCode::OK, format!("{service} is connected"), text)
    }

    /// The person chose not to connect it.
    pub(super) fn cancelled(service: &str, is_revoked: bool) -> Self {
        let text = match is_revoked {
            true => {
                "The account was not connected, and what nucleus was allowed to do with it was \
                 given back. You can close this page."
                    .to_owned()
            }
            false => format!(
                "The account was not connected, and nucleus keeps nothing of it. {service} may still \
                 list what you allowed: you can take it back in your account there. You can close \
                 this page."
            ),
        };
        Self::new(StatusCode::OK, format!("{service} was not connected"), text)
    }

    /// It went wrong.
    pub(super) fn of_error(error: &ApiError) -> Self {
        error.log();
        let (status, _, detail) = error.parts();
        // The names of fields are for programs.
        let mut text = match error {
            ApiError::Invalid(errors) => {
                let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
                messages.join("; ")
            }
            _ => detail,
        };
        if let Some(first) = text.get(..1) {
            text = format!("{}{}.", first.to_uppercase(), &text[1..]);
        }
        Self::new(status, "The account was not connected".to_owned(), text)
    }

    /// With a link to where the person came from.
    pub(super) fn with_way_back(mut self, url: Option<String>) -> Self {
        self.way_back = url;
        self
    }
}

impl Page for Message {
    fn status(&self) -> StatusCode {
        self.status
    }
}

/// A text from outside without what would change how its surroundings are read: control characters
/// and those that turn the direction of writing.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || is_bidi_control(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Unicode's explicit directional formatting characters (UAX #9, section 2).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
