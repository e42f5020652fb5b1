//! The person at the consent page, where there is no browser: opens the authorization URL, ticks and
//! clicks. It goes through the stand-in's own routes, so that it gets what a browser gets.

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use thiserror::Error;
use tower::ServiceExt;
use url::Url;

use super::google::{StandIn, text};

/// Longest page that is read, in bytes.
const PAGE_BYTES: usize = 1024 * 1024;

/// What the person does on the page. By default they leave it as it is and continue.
#[derive(Debug, Clone, Default)]
pub struct Consent {
    /// The account they choose, in place of the one that is chosen already.
    pub account: Option<String>,
    /// The scopes whose tick they take off.
    pub unticked: Vec<String>,
    /// Whether they cancel.
    pub cancelled: bool,
}

/// The browser was shown a page that leads nowhere.
#[derive(Debug, Error)]
#[error("the authorization endpoint answers {code} and leads nowhere")]
pub struct DeadEnd {
    /// The HTTP status.
    pub code: u16,
    /// The page.
    pub html: String,
}

impl StandIn {
    /// Does what a person does who is sent to `authorization_url`. Gives the address that the
    /// browser is sent back to, which nobody has opened yet.
    pub async fn authorize(
        &self,
        authorization_url: &str,
        consent: &Consent,
    ) -> Result<Url, DeadEnd> {
        let opened = self.browse(Method::GET, authorization_url, String::new());
        let opened = opened.await;
        if opened.status() != StatusCode::OK {
            return sent_back(opened).await;
        }
        let query = authorization_url
            .split_once('?')
            .map_or("", |(_, query)| query);
        let form = self.shared.filled_in(query, consent);
        let answered = self.browse(Method::POST, authorization_url, form).await;
        sent_back(answered).await
    }

    async fn browse(&self, method: Method, url: &str, form: String) -> Response<Body> {
        let path = url.strip_prefix(self.base_url()).unwrap_or("/elsewhere");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(form));
        match request {
            Ok(request) => {
                let answered = self.router.clone().oneshot(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            Err(error) => {
                let mut refused = Response::new(Body::from(error.to_string()));
                *refused.status_mut() = StatusCode::BAD_REQUEST;
                refused
            }
        }
    }
}

/// Where a redirect leads.
async fn sent_back(answer: Response<Body>) -> Result<Url, DeadEnd> {
    let location = text(answer.headers(), header::LOCATION).and_then(|to| Url::parse(to).ok());
    match location {
        Some(location) => Ok(location),
        None => {
            let code = answer.status().as_u16();
            let body = to_bytes(answer.into_body(), PAGE_BYTES).await;
            let html = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            Err(DeadEnd { code, html })
        }
    }
}
