//! The notation of swanctl.conf: `10.1.0.0/16`, `10.1.0.1-10.1.0.9`, `2001:db8::/32[tcp/80]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Prefix, TrafficSelector, protocol, width};

/// Names of protocols; the first of a number is printed.
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", protocol::ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("dccp", protocol::DCCP),
    ("gre", 47),
    ("ipv6-icmp", protocol::ICMPV6),
    ("icmpv6", protocol::ICMPV6),
    ("ospf", 89),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", protocol::SCTP),
    ("udplite", protocol::UDPLITE),
];

/// A traffic selector in the configuration that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("traffic selector \"{text}\": {problem}")]
pub struct SelectorError {
    /// The whole text.
    pub text: String,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
}

/// Reads an address, a prefix or a range (`a-b` or `a..b`), followed by `[protocol]` or
/// `[protocol/port]` if wanted. A port is a number or `first-last`; for ICMP it is `type` or
/// `type(code)`. Bits behind a prefix must be zero.
impl FromStr for TrafficSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).map_err(|problem| SelectorError {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<TrafficSelector, String> {
    let (addresses, rest) = text.split_at(text.find('[').unwrap_or(text.len()));
    parse_upper(parse_addresses(addresses.trim_end())?, rest)
}

/// Adds what stands in brackets, if anything does.
pub(super) fn parse_upper(
    selector: TrafficSelector,
    text: &str,
) -> Result<TrafficSelector, String> {
    let Some(rest) = text.strip_prefix('[') else {
        return match text {
            "" => Ok(selector),
            _ => Err(format!(
                "\"{text}\" is no protocol in brackets, like \"[tcp/443]\""
            )),
        };
    };
    let rest = rest
        .strip_suffix(']')
        .ok_or("\"[\" without \"]\" at the end")?;
    parse_protocol(selector, rest)
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not an IP address"))
}

fn parse_addresses(text: &str) -> Result<TrafficSelector, String> {
    if let Some((address, len)) = text.split_once('/') {
        let address = parse_address(address)?;
        let len = len
            .parse()
            .ok()
            .filter(|len| *len <= width(address))
            .ok_or_else(|| {
                let most = width(address);
                format!("\"/{len}\" is not a prefix length; allowed are /0 to /{most}")
            })?;
        let prefix = Prefix::containing(address, len);
        if prefix.address != address {
            return Err(format!("bits behind the prefix are set; write {prefix}"));
        }
        return Ok(TrafficSelector::prefix(address, len));
    }
    if let Some((start, end)) = text.split_once("..").or_else(|| text.split_once('-')) {
        let (start, end) = (parse_address(start)?, parse_address(end)?);
        return TrafficSelector::range(start, end)
            .ok_or_else(|| format!("{start} to {end} is not a range that runs upwards"));
    }
    Ok(TrafficSelector::host(parse_address(text)?))
}

fn parse_protocol(selector: TrafficSelector, text: &str) -> Result<TrafficSelector, String> {
    let (name, port) = match text.split_once('/') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let number = PROTOCOLS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, number)| *number)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| {
            let known: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            format!("\"{name}\" is not a protocol; allowed are 0 to 255, {known}")
        })?;
    let selector = selector.with_protocol(number);
    let Some(port) = port.filter(|port| !port.eq_ignore_ascii_case("any")) else {
        return Ok(selector);
    };
    let (start, end) = parse_ports(number, port)?;
    let selector = selector.with_ports(start, end);
    if !selector.is_enforceable() {
        return Err(format!("protocol {name} has no ports"));
    }
    Ok(selector)
}

fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// First and last port. For ICMP the type is the high octet and the code the low one (RFC 7296
/// §3.13.1).
fn parse_ports(number: u8, text: &str) -> Result<(u16, u16), String> {
    let split = || -> Option<(u16, u16)> {
        if is_icmp(number) {
            let (kind, code) = match text.strip_suffix(')') {
                Some(text) => {
                    let (kind, code) = text.split_once('(')?;
                    (kind, Some(code.parse::<u8>().ok()?))
                }
                None => (text, None),
            };
            let kind: u8 = kind.parse().ok()?;
            let port = |code| u16::from_be_bytes([kind, code]);
            return Some((port(code.unwrap_or(0)), port(code.unwrap_or(u8::MAX))));
        }
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        (start <= end).then_some((start, end))
    };
    split().ok_or_else(|| {
        if is_icmp(number) {
            format!("\"{text}\" is not an ICMP type; write 8, or 3(4) with a code, each 0 to 255")
        } else {
            format!("\"{text}\" is not a port; write 80, or 8000-8080, each 0 to 65535")
        }
    })
}

/// In the notation that [`TrafficSelector::from_str`] reads; an OPAQUE port range, which it does
/// not read, as `opaque`.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_prefix() {
            Some(prefix) => write!(f, "{prefix}")?,
            None => write!(f, "{}..{}", self.start, self.end)?,
        }
        write_upper(self, f)
    }
}

/// Protocol and ports in brackets; nothing if they do not matter.
pub(super) fn write_upper(selector: &TrafficSelector, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if selector.protocol == protocol::ANY && selector.is_any_port() {
        return Ok(());
    }
    match PROTOCOLS
        .iter()
        .find(|(_, number)| *number == selector.protocol)
    {
        Some((name, _)) => write!(f, "[{name}")?,
        None => write!(f, "[{}", selector.protocol)?,
    }
    write_ports(selector, f)?;
    f.write_str("]")
}

fn write_ports(selector: &TrafficSelector, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (start, end) = (selector.start_port, selector.end_port);
    if selector.is_any_port() {
        return Ok(());
    }
    if start > end {
        return f.write_str("/opaque");
    }
    let ([kind, code], [last_kind, last_code]) = (start.to_be_bytes(), end.to_be_bytes());
    if is_icmp(selector.protocol) && kind == last_kind {
        if (code, last_code) == (0, u8::MAX) {
            return write!(f, "/{kind}");
        }
        if code == last_code {
            return write!(f, "/{kind}({code})");
        }
    }
    if start == end {
        write!(f, "/{start}")
    } else {
        write!(f, "/{start}-{end}")
    }
}
