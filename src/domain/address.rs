//! Addresses that stay on this machine.

use url::{Host, Url};

/// Whether a URL's host is this machine and nothing else. Names other than `localhost` are not looked
/// up.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
