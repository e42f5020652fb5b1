//! One service: whether it answers, accepts the client, and where it is to send browsers back to.

use chrono::TimeDelta;
use url::{Host, Url};

use super::{
    database::skew,
    report::{Check, Report},
};
use crate::{
    app,
    config::Service,
    connectors::ApiClient,
    domain::{Clock, ServiceName, SystemClock, address::is_loopback},
    oauth::{
        authorization,
        endpoint::{EndpointError, TokenEndpoint},
    },
    providers::{self, Redirects},
};

/// No authorization server has given this out.
const MADE_UP_TOKEN: &str = "1//made-up-by-nucleus-doctor";
/// Why nothing is said of a client.
const UNANSWERED: &str = "the token endpoint does not answer";
/// What one who has registered no client reads.
const REGISTER: &str =
    "register one: the README's section \"Connect your own Gmail\" goes through it";

/// With what services are looked at.
pub(super) struct Look<'a> {
    pub(super) client: &'a ApiClient,
    /// The error is why no secure connection can be made.
    pub(super) endpoint: Result<TokenEndpoint, String>,
    /// How browsers reach nucleus, without a slash at the end.
    pub(super) public_url: String,
    /// Whether a client of any service is configured.
    pub(super) is_any_configured: bool,
}

impl Look<'_> {
    /// Looks at a service. One without a client is passed over where another has one.
    pub(super) async fn at(&self, report: &mut Report, name: ServiceName, service: &Service) {
        let title = name.title();
        if service.client_id.is_none() {
            // Where there is none at all, one service stands for all: the one that the README begins with.
            if self.is_any_configured || name != ServiceName::Gmail {
                return;
            }
            report.add(self.redirect_uri(name, service).of(name));
            let detail = format!("no OAuth client is configured, so no {title} can be connected");
            report.add(Check::warn("client", detail, REGISTER).of(name));
            for part in ["token_endpoint", "api_url"] {
                report.add(Check::skip(part, "there is no client to use it with").of(name));
            }
            return;
        }
        report.add(self.redirect_uri(name, service).of(name));
        for check in self.client(name, service).await {
            report.add(check.of(name));
        }
        for check in self.api_url(name, service).await {
            report.add(check.of(name));
        }
    }

    fn redirect_uri(&self, name: ServiceName, service: &Service) -> Check {
        const NAME: &str = "redirect_uri";
        let uri = authorization::redirect_uri(&self.public_url, name);
        let problem =
            Url::parse(&uri).map_or(Some("is no URL".to_owned()), |url| problem_of(&url, name));
        let Some(problem) = problem else {
            return Check::ok(NAME, uri);
        };
        let detail = format!("{uri} {problem}");
        let mend = "set NUCLEUS_HTTP__PUBLIC_URL to an https address with a name of the public DNS";
        match service.client_id {
            Some(_) => Check::fail(NAME, detail, mend),
            None => Check::warn(NAME, detail, mend),
        }
    }

    /// Asks for a refresh with a token that does not exist. The client is authenticated before the
    /// token is looked at (RFC 6749, section 6), so `invalid_grant` says that the client is right.
    async fn client(&self, name: ServiceName, service: &Service) -> [Check; 2] {
        const ENDPOINT: &str = "token_endpoint";
        let url = &service.token_url;
        let answers = Check::ok(ENDPOINT, format!("{url} answers"));
        let endpoint = match &self.endpoint {
            Ok(endpoint) => endpoint,
            Err(reason) => {
                let mend = "install the system's root certificates (package ca-certificates)";
                return [
                    Check::fail(ENDPOINT, format!("cannot be called: {reason}"), mend),
                    Check::skip("client", UNANSWERED),
                ];
            }
        };
        let config = app::oauth_client(name, service);
        let token = MADE_UP_TOKEN.into();
        let asked = endpoint.refresh(&config, &token, SystemClock.now());
        let variable = format!("NUCLEUS_SERVICES__{}", name.as_str().to_uppercase());
        match asked.await {
            Err(EndpointError::Gone(_) | EndpointError::Expired(_)) => [
                answers,
                Check::ok("client", "the service accepts the client"),
            ],
            Err(EndpointError::Client(said)) => {
                let detail = format!("the service refuses the client: {}", said.trim());
                let mend = format!(
                    "compare {variable}__CLIENT_ID and {variable}__CLIENT_SECRET with the client that is registered there"
                );
                [answers, Check::fail("client", detail, mend)]
            }
            Err(error @ (EndpointError::Incomplete(_) | EndpointError::Unavailable(_))) => [
                Check::fail(
                    ENDPOINT,
                    format!("{url}: {error}"),
                    format!("look at the network and its proxy, and at {variable}__TOKEN_URL"),
                ),
                Check::skip("client", UNANSWERED),
            ],
            Ok(_) => [
                Check::fail(
                    ENDPOINT,
                    format!("{url} gives an access token for a refresh token that does not exist"),
                    format!("correct {variable}__TOKEN_URL: this is not the service's endpoint"),
                ),
                Check::skip("client", "the token endpoint is not the service's"),
            ],
        }
    }

    async fn api_url(&self, name: ServiceName, service: &Service) -> Vec<Check> {
        const NAME: &str = "api_url";
        let url = &service.api_url;
        let before = SystemClock.now();
        let reached = match self.client.reach(url).await {
            Ok(reached) => reached,
            Err(reason) => {
                let mend = format!(
                    "look at the network and its proxy, and at NUCLEUS_SERVICES__{}__API_URL",
                    name.as_str().to_uppercase()
                );
                return vec![Check::fail(NAME, format!("{url}: {reason}"), mend)];
            }
        };
        let mut checks = vec![if reached.status < 500 {
            Check::ok(NAME, format!("{url} answers"))
        } else {
            Check::warn(
                NAME,
                format!("{url} answers {}", reached.status),
                "wait: the service has trouble; runs are tried again by themselves",
            )
        }];
        if let Some(date) = reached.date {
            // The date was written between the two, and has no fraction of a second.
            let halfway = before + (SystemClock.now() - before) / 2;
            let ahead = date + TimeDelta::milliseconds(500) - halfway;
            checks.push(skew(name.title(), ahead));
        }
        checks
    }
}

/// Why this cannot be registered with the service.
fn problem_of(uri: &Url, name: ServiceName) -> Option<String> {
    let title = name.title();
    if uri.port() == Some(0) {
        return Some("has a port that each start chooses anew".to_owned());
    }
    let redirects = providers::of(name).oauth.redirects;
    let is_https = uri.scheme() == "https";
    if is_loopback(uri) && !is_https {
        return match redirects {
            Redirects::HttpsOnly => Some(format!("is not https: {title} refuses it")),
            Redirects::NoLocalhost if matches!(uri.host(), Some(Host::Domain(_))) => Some(format!(
                "names this machine: {title} wants its address, 127.0.0.1"
            )),
            _ => None,
        };
    }
    if !is_https {
        return Some(format!(
            "is not https, and not on this machine: {title} refuses it"
        ));
    }
    if redirects != Redirects::PublicHosts || is_loopback(uri) {
        return None;
    }
    match uri.host() {
        Some(Host::Domain(name)) if name.trim_end_matches('.').contains('.') => None,
        Some(Host::Domain(_)) => Some(format!(
            "has a host without a public domain: {title} refuses it"
        )),
        _ => Some(format!("has an IP address for a host: {title} refuses it")),
    }
}
