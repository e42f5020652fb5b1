//! What the section `http` means.

use std::{net::SocketAddr, num::NonZeroU32, str::FromStr};

use secrecy::SecretString;

use super::{
    Http, OPERATOR_KEY_MIN_CHARS, RateLimits,
    reader::{Noted, Reader},
    sections::{between, web_url},
};

/// Reads the section.
pub(super) fn http(reader: &mut Reader) -> Result<Http, Noted> {
    let listen = listen(reader);
    let public_url = reader.optional("http.public_url", web_url);
    let operator_key = reader.optional("http.operator_key", |text| {
        if text.chars().count() < OPERATOR_KEY_MIN_CHARS {
            return Err(format!(
                "is shorter than {OPERATOR_KEY_MIN_CHARS} characters: `openssl rand -hex 24` makes one"
            ));
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err("holds a space or a character that no HTTP header carries: \
                        use printable ASCII"
                .to_owned());
        }
        Ok(SecretString::from(text))
    });
    let return_to = reader.list("http.return_to", origin);
    let body_limit_bytes = reader.value("http.body_limit_bytes", |text| {
        between(text, 1024, 64 * 1024 * 1024)
    });
    let rate_limits = rate_limits(reader);
    let trusted_proxies = reader.value("http.trusted_proxies", |text| between(text, 0, 16));
    let http = Http {
        listen: listen?,
        public_url: public_url?,
        operator_key: operator_key?,
        return_to: return_to?,
        body_limit_bytes: body_limit_bytes?,
        rate_limits: rate_limits?,
        trusted_proxies: trusted_proxies?,
    };
    if http.public_url.is_none() && http.listen.ip().is_unspecified() {
        reader.warn(format!(
            "NUCLEUS_HTTP__PUBLIC_URL is not set, and no browser can be sent back to {}: connecting an account by OAuth needs it",
            http.listen
        ));
    }
    Ok(http)
}

fn rate_limits(reader: &mut Reader) -> Result<RateLimits, Noted> {
    // 0 is no limit.
    let mut limit = |name: &str| {
        let read = |text: &str| between(text, 0, 1_000_000).map(NonZeroU32::new);
        reader.value(&format!("http.{name}"), read)
    };
    let per_key = limit("requests_per_key");
    let per_address = limit("requests_per_address");
    let failures_per_address = limit("failures_per_address");
    Ok(RateLimits {
        per_key: per_key?,
        per_address: per_address?,
        failures_per_address: failures_per_address?,
    })
}

fn listen(reader: &mut Reader) -> Result<SocketAddr, Noted> {
    let port = reader.platform("PORT").map(str::to_owned);
    let Some(port) = port.filter(|_| !reader.is_given("http.listen")) else {
        return reader.value("http.listen", |text| {
            SocketAddr::from_str(text).map_err(|_| {
                format!("is {text:?}, not an IP address with a port such as 127.0.0.1:8080")
            })
        });
    };
    // Asked for all the same, so that the list of settings can be checked against what is read.
    reader.optional("http.listen", |_| Ok::<_, String>(()))?;
    match port.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([0, 0, 0, 0], port))),
        Err(_) => Err(reader.refuse("PORT", format!("is {port:?}, not a port number"))),
    }
}

fn origin(text: &str) -> Result<String, String> {
    let url = web_url(text)?;
    if url.path() != "/" {
        return Err(format!(
            "holds {text:?}, which has a path: give the origin alone, {:?}",
            url.origin().ascii_serialization()
        ));
    }
    Ok(url.origin().ascii_serialization())
}
