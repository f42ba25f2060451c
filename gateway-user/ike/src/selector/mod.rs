//! Traffic selectors as sets: intersection, narrowing, prefixes (RFC 7296 §2.9, §3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::output::TrafficSelector;

mod configured;
mod narrow;
mod prefixes;
mod text;

pub use configured::SelectorConfig;
pub use narrow::{
    MAX_PAIRS, MAX_SELECTORS, Narrowed, SelectorsError, TsUnacceptable, narrow, narrow_both,
    validate,
};
pub use prefixes::{PortMask, Prefix, blocks};
pub use text::SelectorError;

/// Protocol numbers whose packets have ports, or a type and code in their place (RFC 4301 §4.4.1.1).
const WITH_PORTS: [u8; 8] = [
    protocol::ICMP,
    protocol::TCP,
    protocol::UDP,
    protocol::DCCP,
    protocol::ICMPV6,
    protocol::SCTP,
    protocol::MH,
    protocol::UDPLITE,
];

/// IANA protocol numbers.
mod protocol {
    pub(super) const ANY: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const SCTP: u8 = 132;
    pub(super) const MH: u8 = 135;
    pub(super) const UDPLITE: u8 = 136;
}

/// Position of an address in its family's address space.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address at position `number` of the family of `like`; positions beyond it saturate.
pub(super) fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// Bits of an address.
pub(super) const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl TrafficSelector {
    /// All protocols and ports of an address range. `None` if the ends are of different families
    /// or in the wrong order.
    pub fn range(start: IpAddr, end: IpAddr) -> Option<Self> {
        let ordered = start.is_ipv4() == end.is_ipv4() && start <= end;
        ordered.then_some(Self {
            protocol: protocol::ANY,
            start_port: 0,
            end_port: u16::MAX,
            start,
            end,
        })
    }

    /// All protocols and ports of the prefix of length `len` that contains `address`; a `len`
    /// beyond the family's width (32 or 128) means that width.
    pub fn prefix(address: IpAddr, len: u8) -> Self {
        let Prefix { address, len } = Prefix::containing(address, len);
        let last = number(address) | prefixes::host_mask(width(address) - len);
        Self {
            protocol: protocol::ANY,
            start_port: 0,
            end_port: u16::MAX,
            start: address,
            end: self::address(last, address),
        }
    }

    /// All protocols and ports of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::prefix(address, width(address))
    }

    /// The same addresses, with this protocol (0 = any) and all its ports only.
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// The same addresses and protocol, with these ports only.
    pub fn with_ports(self, start_port: u16, end_port: u16) -> Self {
        Self {
            start_port,
            end_port,
            ..self
        }
    }

    /// Whether the addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.start.is_ipv4()
    }

    /// Whether it covers every port.
    pub fn is_any_port(&self) -> bool {
        (self.start_port, self.end_port) == (0, u16::MAX)
    }

    /// Whether it stands for a set of packets that a policy can match: ranges that run upwards, and
    /// ports only with a protocol that has them. OPAQUE ports (65535–0, RFC 7296 §3.13.1) are out:
    /// Linux cannot tell a packet without accessible ports from one with port 0.
    pub fn is_enforceable(&self) -> bool {
        self.start.is_ipv4() == self.end.is_ipv4()
            && self.start <= self.end
            && self.start_port <= self.end_port
            && (self.is_any_port() || WITH_PORTS.contains(&self.protocol))
    }

    /// Whether a packet of this protocol (not 0) with this address and port is in the set.
    pub fn matches(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.start.is_ipv4() == address.is_ipv4()
            && (self.start..=self.end).contains(&address)
            && (self.protocol == protocol::ANY || self.protocol == protocol)
            && (self.start_port..=self.end_port).contains(&port)
    }

    /// Whether every packet of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.start <= other.start
            && other.end <= self.end
            && (self.protocol == protocol::ANY || self.protocol == other.protocol)
            && self.start_port <= other.start_port
            && other.end_port <= self.end_port
    }

    /// What is in both sets; `None` if nothing is, or if one of them cannot be enforced.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if !(self.is_enforceable() && other.is_enforceable()) || self.is_ipv4() != other.is_ipv4() {
            return None;
        }
        let both = Self {
            protocol: common_protocol(self.protocol, other.protocol)?,
            start_port: self.start_port.max(other.start_port),
            end_port: self.end_port.min(other.end_port),
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        both.is_enforceable().then_some(both)
    }
}

/// The protocol that both allow.
fn common_protocol(a: u8, b: u8) -> Option<u8> {
    match (a, b) {
        (protocol::ANY, other) | (other, protocol::ANY) => Some(other),
        (a, b) => (a == b).then_some(a),
    }
}
