//! Traffic selectors (ranges, RFC 7296 §3.13.1) as XFRM selectors (prefixes and masks).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_ike::output::TrafficSelector;
use gateway_ike::selector::blocks;
use ipnet::IpNet;
use serde::Serialize;

use super::error::XfrmError;
use super::types::Direction;

/// The most selectors that one CHILD_SA may expand to, per direction. An unaligned range is many
/// prefixes, and two of them multiply: a bound keeps a peer from filling the SPD.
pub const MAX_SELECTORS: usize = 256;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Mobility Header: its type stands where a source port would.
const MOBILITY: u8 = 135;

/// Ports that agree with `value` in the bits of `mask`: (0, 0) is any port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortMatch {
    /// Port, host order, zero outside the mask.
    pub value: u16,
    /// Bits that count.
    pub mask: u16,
}

impl PortMatch {
    /// Every port.
    pub const ANY: Self = Self { value: 0, mask: 0 };
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            0 => f.write_str("any"),
            u16::MAX => write!(f, "{}", self.value),
            mask => write!(f, "{}/{mask:#06x}", self.value),
        }
    }
}

/// The flows of a policy, in the direction of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicySelector {
    /// Source network.
    pub src: IpNet,
    /// Destination network, of the same family.
    pub dst: IpNet,
    /// IP protocol, 0 = any.
    pub protocol: u8,
    /// Source port; for ICMP the type.
    pub src_port: PortMatch,
    /// Destination port; for ICMP the code.
    pub dst_port: PortMatch,
}

impl fmt::Display for PolicySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src {} dst {}", self.src, self.dst)?;
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        if self.src_port.mask != 0 {
            write!(f, " sport {}", self.src_port)?;
        }
        if self.dst_port.mask != 0 {
            write!(f, " dport {}", self.dst_port)?;
        }
        Ok(())
    }
}

impl PolicySelector {
    /// Everything between two networks.
    pub fn between(src: IpNet, dst: IpNet) -> Self {
        Self {
            src,
            dst,
            protocol: 0,
            src_port: PortMatch::ANY,
            dst_port: PortMatch::ANY,
        }
    }

    /// Priority of a tunnel policy: the more specific, the smaller and so the stronger. First the
    /// prefixes, then the protocol, then the ports: the order that strongSwan uses, in its range
    /// of values (200,000 to 400,000), so that mixed installations sort alike.
    pub fn priority(&self) -> u32 {
        let prefixes = u32::from(self.src.prefix_len()) + u32::from(self.dst.prefix_len());
        let ports = self.src_port.mask.count_ones() + self.dst_port.mask.count_ones();
        400_000 - prefixes * 512 - u32::from(self.protocol != 0) * 256 - ports * 4
    }
}

/// A flow between our side and the peer's, not yet turned to a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Flow {
    local: IpNet,
    remote: IpNet,
    protocol: u8,
    upper: Upper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Upper {
    Ports { local: PortMatch, remote: PortMatch },
    // An ICMP message has one type and code, the same in both directions.
    Icmp { kind: PortMatch, code: PortMatch },
}

impl Flow {
    /// The flow as packets of `direction` show it.
    pub(super) fn selector(&self, direction: Direction) -> PolicySelector {
        let outwards = direction == Direction::Out;
        let turn = |local, remote| {
            if outwards {
                (local, remote)
            } else {
                (remote, local)
            }
        };
        let (src, dst) = if outwards {
            (self.local, self.remote)
        } else {
            (self.remote, self.local)
        };
        let (src_port, dst_port) = match self.upper {
            Upper::Ports { local, remote } => turn(local, remote),
            Upper::Icmp { kind, code } => (kind, code),
        };
        PolicySelector {
            src,
            dst,
            protocol: self.protocol,
            src_port,
            dst_port,
        }
    }
}

/// Every pair of a local and a remote selector as flows, without duplicates. Pairs that no packet
/// can match (families or protocols differ) are left out.
///
/// # Errors
/// [`XfrmError::Unsupported`] when nothing is left, when more than [`MAX_SELECTORS`] would be
/// needed, and for what XFRM has no words for (OPAQUE ports, ICMP ranges across types).
pub(super) fn flows(
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Result<Vec<Flow>, XfrmError> {
    let mut flows = BTreeSet::new();
    for l in local {
        for r in remote {
            let Some(protocol) = common_protocol(l, r) else {
                continue;
            };
            let locals = prefixes(l.start, l.end)?;
            let remotes = prefixes(r.start, r.end)?;
            let uppers = uppers(protocol, l, r)?;
            let product = locals.len() * remotes.len() * uppers.len();
            if flows.len() + product > MAX_SELECTORS {
                return Err(XfrmError::Unsupported(format!(
                    "the traffic selectors expand to more than {MAX_SELECTORS} policies: align \
                     their ranges to prefixes"
                )));
            }
            for &local in &locals {
                for &remote in &remotes {
                    for &upper in &uppers {
                        flows.insert(Flow {
                            local,
                            remote,
                            protocol,
                            upper,
                        });
                    }
                }
            }
        }
    }
    if flows.is_empty() {
        return Err(XfrmError::Unsupported(
            "no local and remote traffic selector have family and protocol in common".into(),
        ));
    }
    Ok(flows.into_iter().collect())
}

fn common_protocol(a: &TrafficSelector, b: &TrafficSelector) -> Option<u8> {
    if a.start.is_ipv4() != b.start.is_ipv4() {
        return None;
    }
    match (a.protocol, b.protocol) {
        (0, protocol) | (protocol, 0) => Some(protocol),
        (p, q) if p == q => Some(p),
        _ => None,
    }
}

fn is_any_port(ts: &TrafficSelector) -> bool {
    ts.start_port == 0 && ts.end_port == u16::MAX
}

fn uppers(
    protocol: u8,
    local: &TrafficSelector,
    remote: &TrafficSelector,
) -> Result<Vec<Upper>, XfrmError> {
    for ts in [local, remote] {
        if ts.start_port > ts.end_port {
            return Err(XfrmError::Unsupported(
                "OPAQUE ports (RFC 7296 §3.13.1) cannot be expressed as an XFRM policy".into(),
            ));
        }
    }
    match protocol {
        ICMP | ICMPV6 | MOBILITY => icmp(local, remote),
        _ => {
            let locals = port_masks(local.start_port, local.end_port);
            let remotes = port_masks(remote.start_port, remote.end_port);
            Ok(locals
                .iter()
                .flat_map(|&local| {
                    remotes
                        .iter()
                        .map(move |&remote| Upper::Ports { local, remote })
                })
                .collect())
        }
    }
}

/// RFC 7296 §3.13.1: the type in the upper octet of the port fields, the code in the lower one;
/// both sides say the same, or one says "any".
fn icmp(local: &TrafficSelector, remote: &TrafficSelector) -> Result<Vec<Upper>, XfrmError> {
    let ts = match (is_any_port(local), is_any_port(remote)) {
        (true, _) => remote,
        (_, true) => local,
        _ if (local.start_port, local.end_port) == (remote.start_port, remote.end_port) => local,
        _ => {
            return Err(XfrmError::Unsupported(
                "local and remote ICMP selectors name different types".into(),
            ));
        }
    };
    let [first_kind, first_code] = ts.start_port.to_be_bytes();
    let [last_kind, last_code] = ts.end_port.to_be_bytes();
    let octets =
        |first: u8, last: u8| -> Vec<PortMatch> { port_masks(u16::from(first), u16::from(last)) };
    let any_code = first_code == 0 && last_code == u8::MAX;
    if any_code && first_kind == 0 && last_kind == u8::MAX {
        return Ok(vec![Upper::Icmp {
            kind: PortMatch::ANY,
            code: PortMatch::ANY,
        }]);
    }
    let upper = |kind, code| Upper::Icmp { kind, code };
    if any_code {
        let kinds = octets(first_kind, last_kind);
        return Ok(kinds
            .into_iter()
            .map(|k| upper(k, PortMatch::ANY))
            .collect());
    }
    if first_kind != last_kind {
        return Err(XfrmError::Unsupported(
            "an ICMP selector's range crosses from one type into another".into(),
        ));
    }
    let kind = PortMatch {
        value: u16::from(first_kind),
        mask: u16::MAX,
    };
    let codes = octets(first_code, last_code);
    Ok(codes.into_iter().map(|code| upper(kind, code)).collect())
}

/// The masks that cover a range of ports.
pub(super) fn port_masks(first: u16, last: u16) -> Vec<PortMatch> {
    blocks(u128::from(first), u128::from(last))
        .into_iter()
        .map(|(value, bits)| PortMatch {
            value: value as u16,
            mask: u16::MAX.checked_shl(u32::from(bits)).unwrap_or(0),
        })
        .collect()
}

/// The prefixes that cover an address range.
pub(super) fn prefixes(first: IpAddr, last: IpAddr) -> Result<Vec<IpNet>, XfrmError> {
    let malformed = || XfrmError::Unsupported(format!("{first} to {last} is no address range"));
    let (low, high, width): (u128, u128, u8) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return Err(malformed()),
    };
    if low > high {
        return Err(malformed());
    }
    blocks(low, high)
        .into_iter()
        .map(|(start, bits)| {
            let address = if width == 32 {
                IpAddr::V4(Ipv4Addr::from_bits(start as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(start))
            };
            IpNet::new(address, width - bits).map_err(|_| malformed())
        })
        .collect()
}
