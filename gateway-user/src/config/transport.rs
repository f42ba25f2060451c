//! How a connection's messages and packets travel: `fragmentation`, `encap`, `mobike`, … with
//! swanctl's meanings and defaults.

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::config::{Childless, Fragmentation, Gateway, Transport};

use super::error::ConfigError;
use super::{lifetimes, raw, value};

/// Below it the headers take more than the content. No link needs less than 576 (RFC 7383 §2.5.1);
/// tunnels in tunnels may.
const SMALLEST_FRAGMENT: u32 = 200;
const LARGEST_DATAGRAM: u32 = 65_535;
const KEEPALIVE: Duration = Duration::from_secs(20);
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// What the length octet of a REDIRECT can say (RFC 5685 §9.2).
const LONGEST_NAME: usize = 255;

pub(super) fn check(key: &str, raw: &raw::Connection) -> Result<Transport, ConfigError> {
    let size = value::in_range(
        &format!("{key}.fragment_size"),
        raw.fragment_size,
        SMALLEST_FRAGMENT,
        LARGEST_DATAGRAM,
    )?;
    let redirect_to = raw.redirect_to.as_ref();
    Ok(Transport {
        fragmentation: match raw.fragmentation {
            raw::Fragmentation::Yes => Fragmentation::Yes,
            raw::Fragmentation::Accept => Fragmentation::Accept,
            raw::Fragmentation::Force => Fragmentation::Force,
            raw::Fragmentation::No => Fragmentation::No,
        },
        fragment_size: u16::try_from(size).unwrap_or(u16::MAX),
        encap: raw.encap,
        keepalive: lifetimes::zero_or(
            &format!("{key}.keepalive"),
            raw.keepalive.as_ref(),
            (SECOND, LONGEST_KEEPALIVE),
        )?
        .unwrap_or(KEEPALIVE),
        mobike: raw.mobike,
        childless: match raw.childless {
            raw::Childless::Allow => Childless::Allow,
            raw::Childless::Prefer => Childless::Prefer,
            raw::Childless::Force => Childless::Force,
            raw::Childless::Never => Childless::Never,
        },
        redirect_to: redirect_to
            .map(|text| gateway(&format!("{key}.redirect_to"), text))
            .transpose()?,
        follow_redirects: raw.follow_redirects,
    })
}

/// A gateway by address or name, for commands.
///
/// # Errors
/// A line that says what is allowed.
pub(crate) fn gateway_of_text(text: &str) -> Result<Gateway, String> {
    gateway("the gateway to go to", text).map_err(|error| error.to_string())
}

/// A gateway by address or name.
fn gateway(key: &str, text: &str) -> Result<Gateway, ConfigError> {
    if let Ok(address) = text.parse::<IpAddr>()
        && !address.is_unspecified()
    {
        return Ok(Gateway::Address(address));
    }
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.len() <= 63 && label.chars().all(good)
    };
    let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !numeric && text.len() <= LONGEST_NAME && text.split('.').all(label) {
        return Ok(Gateway::Fqdn(text.to_owned()));
    }
    Err(ConfigError::new(
        key,
        format!("is \"{text}\""),
        "an IPv4 or IPv6 address, or a domain name",
    ))
}
