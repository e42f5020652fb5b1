//! How browsers see this program: its public URL, and what follows from it.

use axum::http::{HeaderMap, header};
use url::Url;

use crate::{domain::ServiceName, oauth::authorization};

/// The program as a web site.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Without a slash at the end.
    url: String,
    /// Scheme, host and port.
    origin: String,
}

impl Site {
    /// The site at this public URL, which is one of http or https.
    pub(super) fn new(public_url: &str) -> Self {
        let origin = Url::parse(public_url).map(|url| url.origin().ascii_serialization());
        Self {
            url: public_url.trim_end_matches('/').to_owned(),
            origin: origin.unwrap_or_default(),
        }
    }

    /// Whether browsers come over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// Where a service's authorization server sends browsers back to; it is registered there letter by
    /// letter.
    pub(super) fn redirect_uri(&self, service: ServiceName) -> String {
        authorization::redirect_uri(&self.url, service)
    }

    /// The cookie's name. With the prefix a browser takes it from this very host over TLS only.
    ///
    /// Source: RFC 6265bis, section 4.1.3.2
    pub(super) fn cookie_name(&self) -> &'static str {
        if self.is_https() {
            "__Host-nucleus-oauth"
        } else {
            "nucleus-oauth"
        }
    }

    /// Whether a script of a page of this site asks, by what only browsers write.
    pub(super) fn is_asked_by_own_page(&self, headers: &HeaderMap) -> bool {
        match text(headers, "sec-fetch-site") {
            Some(site) => site == "same-origin",
            None => text(headers, header::ORIGIN.as_str()) == Some(&self.origin),
        }
    }

    /// Whether a form may have been sent by a page of this site. Our pages send no referrer, and then
    /// browsers write the origin `null`.
    pub(super) fn is_own_form(&self, headers: &HeaderMap) -> bool {
        match text(headers, "sec-fetch-site") {
            Some(site) => site == "same-origin",
            None => text(headers, header::ORIGIN.as_str())
                .is_none_or(|origin| origin == "null" || origin == self.origin),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn forms_of_other_sites_are_told_from_our_own() {
        let site = Site::new("https://n.example");
        for (pairs, own) in [
            (
                &[("sec-fetch-site", "same-origin"), ("origin", "null")][..],
                true,
            ),
            (&[("origin", "https://n.example")], true),
            (&[("origin", "null")], true),
            (&[], true),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://n.example"),
                ],
                false,
            ),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "https://n.example.attacker.example")], false),
            (&[("origin", "http://n.example")], false),
        ] {
            assert_eq!(site.is_own_form(&headers(pairs)), own, "{pairs:?}");
        }
        assert!(!site.is_asked_by_own_page(&headers(&[])));
        assert!(site.is_asked_by_own_page(&headers(&[("origin", "https://n.example")])));
        assert!(!site.is_asked_by_own_page(&headers(&[("sec-fetch-site", "cross-site")])));
    }

    #[test]
    fn a_public_url_may_have_a_path() {
        let site = Site::new("https://n.example/nucleus/");
        assert_eq!(
            site.redirect_uri(ServiceName::Gmail),
            "https://n.example/nucleus/integrations/gmail/oauth/callback"
        );
        assert_eq!(site.cookie_name(), "__Host-nucleus-oauth");
        assert_eq!(
            Site::new("http://127.0.0.1:8080").cookie_name(),
            "nucleus-oauth"
        );
    }
}
