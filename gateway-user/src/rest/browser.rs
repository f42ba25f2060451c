//! What other pages in an operator's browser may not do with the operator's rights.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::problem::Problem;

/// Refuses changes that another origin's page asks for (every browser names the origin then), and,
/// over the Unix socket, requests for a host that has a domain name: behind a forwarded port, a
/// foreign name that resolves to the loopback address would make a foreign page our own.
pub(super) fn check(method: &Method, headers: &HeaderMap, local: bool) -> Result<(), Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if local && host.is_some_and(has_domain) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "over the Unix socket the host is an address or a name without dots, such as localhost",
        ));
    }
    if method.is_safe() {
        return Ok(());
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    match origin {
        Some((_, authority)) if Some(authority) == host => Ok(()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "another site's page asks for this change; only this gateway's own pages may",
        )),
    }
}

fn has_domain(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return true;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.contains('.') && address.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_are_domains_and_addresses_are_not() {
        for host in [
            "gw",
            "localhost:8080",
            "127.0.0.1:80",
            "[::ffff:192.0.2.1]:8080",
            "[::1]",
        ] {
            assert!(!has_domain(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.",
            "a b",
        ] {
            assert!(has_domain(host), "{host}");
        }
    }
}
