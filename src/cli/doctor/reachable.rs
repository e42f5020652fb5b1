//! Whether programs and browsers reach this nucleus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use url::{Host, Url};

use super::report::Check;
use crate::{
    config::Config,
    connectors::{ApiClient, Reached},
    domain::address::is_loopback,
    traces,
};

/// Whether the operator has registered a client with any service.
pub(super) fn is_any_configured(config: &Config) -> bool {
    let mut services = config.services.values();
    services.any(|service| service.client_id.is_some())
}

/// Whether the API answers on this machine.
pub(super) async fn api(client: &ApiClient, config: &Config, is_locked: bool) -> Check {
    const NAME: &str = "api";
    let address = on_this_machine(config.http.listen);
    if address.port() == 0 {
        return Check::skip(
            NAME,
            "each start chooses a port: NUCLEUS_HTTP__LISTEN names 0",
        );
    }
    let base = format!("http://{address}");
    let reached = match look(client, &format!("{base}/livez")).await {
        Ok(reached) => reached,
        Err(reason) if is_locked => {
            return Check::fail(
                NAME,
                format!("an `up` has the data folder, and nothing answers at {base}: {reason}"),
                "give this command the NUCLEUS_HTTP__LISTEN of that process, or look into its log",
            );
        }
        Err(_) => {
            let detail = format!("nothing answers at {base}: `nucleus up` is not running");
            return Check::skip(NAME, detail);
        }
    };
    if !is_nucleus(&reached) {
        return Check::fail(
            NAME,
            format!("another program answers at {base}"),
            "stop it, or choose another port with NUCLEUS_HTTP__LISTEN",
        );
    }
    match look(client, &format!("{base}/readyz")).await {
        Ok(reached) if reached.status == 200 => Check::ok(NAME, format!("ready at {base}")),
        Ok(reached) => {
            let said = serde_json::from_slice::<Value>(&reached.body).unwrap_or_default();
            let said = said["detail"].as_str().unwrap_or("it does not say why");
            let detail = format!("not ready at {base}: {said}");
            Check::fail(
                NAME,
                detail,
                "look into the log of that process, and restart it",
            )
        }
        Err(reason) => Check::fail(
            NAME,
            format!("{base}/readyz does not answer: {reason}"),
            "look into the log of that process, and restart it",
        ),
    }
}

/// Whether the collector of traces takes them.
pub(super) async fn collector(endpoint: Option<&Url>) -> Check {
    const NAME: &str = "traces";
    let Some(endpoint) = endpoint else {
        return Check::ok(NAME, "none are sent: no collector is configured");
    };
    match traces::look(endpoint).await {
        Ok(()) => Check::ok(NAME, format!("the collector at {endpoint} takes them")),
        // Nothing but the traces is lost.
        Err(reason) => Check::warn(
            NAME,
            format!("the collector at {endpoint} takes none: {reason}"),
            "start it, or correct NUCLEUS_TELEMETRY__OTLP_ENDPOINT: the address before /v1/traces, \
             OTLP over HTTP (usually port 4318, not gRPC's 4317)",
        ),
    }
}

/// Whether browsers can be sent back to the public URL.
pub(super) async fn public_url(client: &ApiClient, config: &Config) -> Check {
    const NAME: &str = "public_url";
    let text = config.http.public_url_at(config.http.listen);
    let parsed = Url::parse(&text);
    if let Some(problem) = parsed
        .as_ref()
        .map_or(Some("is no URL"), |url| problem_of(url))
    {
        let detail = format!("{text} {problem}");
        let mend = "set NUCLEUS_HTTP__PUBLIC_URL to the https address at which browsers reach it";
        // Whoever connects nothing by OAuth needs none.
        return match is_any_configured(config) {
            true => Check::fail(NAME, detail, mend),
            false => Check::warn(NAME, detail, mend),
        };
    }
    if config.http.public_url.is_none() {
        return Check::ok(NAME, format!("{text}, this machine"));
    }
    match look(client, &format!("{text}/livez")).await {
        Ok(reached) if is_nucleus(&reached) => Check::ok(NAME, format!("{text} answers")),
        Ok(reached) => Check::warn(
            NAME,
            format!(
                "{text}/livez answers {}, and not as nucleus does",
                reached.status
            ),
            "look whether the proxy before nucleus hands every path on",
        ),
        Err(reason) => Check::warn(
            NAME,
            format!("{text} cannot be reached from this machine: {reason}"),
            "start nucleus; if it runs, look at the name's address and the proxy before it",
        ),
    }
}

/// Why no browser can be sent back to this URL.
fn problem_of(url: &Url) -> Option<&'static str> {
    let is_nowhere = match url.host() {
        Some(Host::Ipv4(address)) => address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_unspecified(),
        _ => false,
    };
    if is_nowhere {
        return Some("is no address that a browser can be sent to");
    }
    if url.port() == Some(0) {
        return Some("has a port that each start chooses anew");
    }
    // OAuth 2.1, 10.3.3: plain http is for this machine alone.
    if url.scheme() != "https" && !is_loopback(url) {
        return Some("is plain http to another machine, which authorization servers refuse");
    }
    None
}

/// Where a server that listens on `address` is reached from here.
fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn look(client: &ApiClient, url: &str) -> Result<Reached, String> {
    match Url::parse(url) {
        Ok(url) => client.reach(&url).await,
        Err(error) => Err(error.to_string()),
    }
}

/// Whether `/livez` was answered as this program answers it.
fn is_nucleus(reached: &Reached) -> bool {
    let body = serde_json::from_slice::<Value>(&reached.body).unwrap_or_default();
    reached.status == 200 && body["status"] == "ok"
}
