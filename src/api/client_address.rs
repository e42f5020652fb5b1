//! The address a request comes from: that of the connection, or where trusted proxies stand before the
//! API, the one that the outermost of them has noted.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName},
};

/// Each proxy appends the address of its client. What stands before that is the client's own word.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address a request comes from, left with the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) Option<IpAddr>);

impl ClientAddress {
    /// Of a request that has come through so many trusted proxies.
    pub(super) fn of(request: &Request, trusted_proxies: usize) -> Self {
        let connection = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let connection = connection.map(|ConnectInfo(address)| address.ip());
        Self(noted(request.headers(), trusted_proxies).or(connection))
    }
}

/// What the outermost trusted proxy has noted; nothing where it did not, or what it notes is no address.
/// What stands to the left of that is not looked at, so that no client can have it ignored.
fn noted(headers: &HeaderMap, trusted_proxies: usize) -> Option<IpAddr> {
    let index = trusted_proxies.checked_sub(1)?;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let address = str::from_utf8(entries.nth(index)?).ok()?.trim();
    // Some write a port, and IPv6 in brackets.
    let with_port = || address.parse::<SocketAddr>().ok().map(|found| found.ip());
    address.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn noted_in(lines: &[&str], trusted_proxies: usize) -> Option<String> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        noted_in_bytes(&lines, trusted_proxies)
    }

    fn noted_in_bytes(lines: &[&[u8]], trusted_proxies: usize) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        noted(&headers, trusted_proxies).map(|address| address.to_string())
    }

    #[test]
    fn only_what_a_trusted_proxy_has_noted_is_believed() {
        let forged = "10.0.0.1, 192.0.2.1";
        assert_eq!(noted_in(&[forged], 0), None);
        assert_eq!(noted_in(&[forged], 1).as_deref(), Some("192.0.2.1"));
        assert_eq!(noted_in(&[forged], 2).as_deref(), Some("10.0.0.1"));
        assert_eq!(noted_in(&[forged], 3), None);
        assert_eq!(
            noted_in(&["10.0.0.1", "192.0.2.1"], 1).as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(noted_in(&[], 1), None);
    }

    #[test]
    fn what_a_client_writes_to_the_left_does_not_matter() {
        for left in [
            &b"\xff\xfe"[..],
            b"\xc3\xa4",
            b",,,",
            b"\"a",
            b"192.0.2.9\t",
        ] {
            let one_line = [left, b", 192.0.2.1"].concat();
            for lines in [&[&one_line[..]][..], &[left, b"192.0.2.1"]] {
                let noted = noted_in_bytes(lines, 1);
                assert_eq!(noted.as_deref(), Some("192.0.2.1"), "{lines:?}");
            }
        }
        assert_eq!(noted_in_bytes(&[b"192.0.2.1, \xff"], 1), None);
    }

    #[test]
    fn ports_and_brackets_are_taken_off_and_what_is_no_address_is_none() {
        assert_eq!(
            noted_in(&["192.0.2.1:4711"], 1).as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(
            noted_in(&["[2001:db8::1]:80"], 1).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(
            noted_in(&["2001:db8::1"], 1).as_deref(),
            Some("2001:db8::1")
        );
        for text in ["unknown", "", "a, ", "192.0.2"] {
            assert_eq!(noted_in(&[text], 1), None, "{text:?}");
        }
    }
}
