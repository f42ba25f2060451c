//! The Traffic Selector payloads (RFC 7296 §3.13).

use std::net::IpAddr;

use super::{EncodeError, Malformation, PayloadType, WireError};
use crate::output::TrafficSelector;

/// Octets before the selectors.
const FIXED_LEN: usize = 4;

/// Octets of a selector before its addresses.
const SELECTOR_FIXED_LEN: usize = 8;

code_points! {
    /// Traffic Selector Types.
    TsType(u8) {
        /// Selector Length 16.
        TS_IPV4_ADDR_RANGE = 7,
        /// Selector Length 40.
        TS_IPV6_ADDR_RANGE = 8,
        /// RFC 4595.
        TS_FC_ADDR_RANGE = 9,
        /// RFC 9478.
        TS_SECLABEL = 10,
    }
}

/// A view of a TSi or TSr payload's body.
#[derive(Clone, Copy, Debug)]
pub struct TsPacket<'a> {
    kind: PayloadType,
    selectors: &'a [u8],
}

impl<'a> TsPacket<'a> {
    /// Checks number and lengths of the selectors. `kind` (TSi or TSr) is only for errors.
    pub fn new_checked(kind: PayloadType, body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = |cause| WireError::Malformed { kind, cause };
        let (fixed, selectors): (&[u8; FIXED_LEN], _) = body
            .split_first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        if fixed[0] == 0 {
            return Err(malformed(Malformation::Empty));
        }
        let mut rest = selectors;
        for _ in 0..fixed[0] {
            (_, _, rest) = split_selector(rest).ok_or(malformed(Malformation::InnerLength))?;
        }
        if !rest.is_empty() {
            return Err(malformed(Malformation::LeftOver));
        }
        Ok(Self { kind, selectors })
    }

    /// Each selector's type, and its octets from the type on.
    pub fn selectors(&self) -> impl Iterator<Item = (TsType, &'a [u8])> + use<'a> {
        let mut rest = self.selectors;
        std::iter::from_fn(move || {
            // At the end of the octets, which were checked, this fails and ends the iteration.
            let (kind, selector, tail) = split_selector(rest)?;
            rest = tail;
            Some((kind, selector))
        })
    }
}

/// Cuts one selector off, of any type: type, one octet that depends on it, length.
fn split_selector(bytes: &[u8]) -> Option<(TsType, &[u8], &[u8])> {
    let &[kind, _, high, low] = bytes.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < 4 {
        return None;
    }
    let (selector, rest) = bytes.split_at_checked(length)?;
    Some((TsType(kind), selector, rest))
}

/// Parses a selector of a known type.
fn parse_range<const N: usize>(selector: &[u8]) -> Result<TrafficSelector, Malformation>
where
    IpAddr: From<[u8; N]>,
{
    let (&[_, protocol, _, _, a, b, c, d], addresses): (&[u8; SELECTOR_FIXED_LEN], _) = selector
        .split_first_chunk()
        .ok_or(Malformation::InnerLength)?;
    let (&start, rest): (&[u8; N], _) = addresses
        .split_first_chunk()
        .ok_or(Malformation::InnerLength)?;
    let end: [u8; N] = rest.try_into().map_err(|_| Malformation::InnerLength)?;
    let selector = TrafficSelector {
        protocol,
        start_port: u16::from_be_bytes([a, b]),
        end_port: u16::from_be_bytes([c, d]),
        start: start.into(),
        end: end.into(),
    };
    if is_ordered(&selector) {
        Ok(selector)
    } else {
        Err(Malformation::ReversedRange)
    }
}

/// Whether the ranges run upwards. OPAQUE ports are 65535–0 (RFC 7296 §3.13.1).
fn is_ordered(selector: &TrafficSelector) -> bool {
    let ports = (selector.start_port, selector.end_port);
    selector.start <= selector.end && (ports.0 <= ports.1 || ports == (u16::MAX, 0))
}

/// Selectors of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsRepr {
    /// IPv4 and IPv6 ranges, in the order of the packet, at most 255. Selectors of other types
    /// are left out when parsed (RFC 7296 §2.9: narrowing may drop any), so this can be empty:
    /// then nothing in the payload is acceptable.
    pub selectors: Vec<TrafficSelector>,
}

impl TsRepr {
    /// Fails if a range has a wrong length ([`Malformation::InnerLength`]) or runs downwards
    /// ([`Malformation::ReversedRange`]).
    pub fn parse(packet: &TsPacket<'_>) -> Result<Self, WireError> {
        let mut selectors = Vec::new();
        for (kind, selector) in packet.selectors() {
            let parsed = match kind {
                TsType::TS_IPV4_ADDR_RANGE => parse_range::<4>(selector),
                TsType::TS_IPV6_ADDR_RANGE => parse_range::<16>(selector),
                _ => continue,
            };
            selectors.push(parsed.map_err(|cause| WireError::Malformed {
                kind: packet.kind,
                cause,
            })?);
        }
        Ok(Self { selectors })
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        let selectors: usize = self
            .selectors
            .iter()
            .map(|selector| usize::from(selector_len(selector)))
            .sum();
        FIXED_LEN + selectors
    }

    /// Appends the body. Fails without selectors, with more than 255, or if one mixes address
    /// families or runs downwards. `kind` (TSi or TSr) is only for the error.
    pub fn encode(&self, kind: PayloadType, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let refused = EncodeError::OutOfRange(kind);
        let count = u8::try_from(self.selectors.len()).map_err(|_| refused)?;
        if count == 0 {
            return Err(refused);
        }
        out.extend_from_slice(&[count, 0, 0, 0]);
        for selector in &self.selectors {
            if selector.start.is_ipv4() != selector.end.is_ipv4() || !is_ordered(selector) {
                return Err(refused);
            }
            encode_selector(selector, out);
        }
        Ok(())
    }
}

const fn selector_len(selector: &TrafficSelector) -> u16 {
    if selector.start.is_ipv4() { 16 } else { 40 }
}

fn encode_selector(selector: &TrafficSelector, out: &mut Vec<u8>) {
    let kind = if selector.start.is_ipv4() {
        TsType::TS_IPV4_ADDR_RANGE
    } else {
        TsType::TS_IPV6_ADDR_RANGE
    };
    out.extend_from_slice(&[kind.0, selector.protocol]);
    out.extend_from_slice(&selector_len(selector).to_be_bytes());
    out.extend_from_slice(&selector.start_port.to_be_bytes());
    out.extend_from_slice(&selector.end_port.to_be_bytes());
    for address in [selector.start, selector.end] {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
}
