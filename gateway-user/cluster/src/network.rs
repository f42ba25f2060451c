//! Address prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::abi;

/// A network behind a peer: a routing zone and an address prefix whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    zone: u32,
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// `address`/`prefix_len` in routing zone `zone` (0 = the main one). Host bits are cleared.
    /// `None` if the prefix is longer than the address (32 or 128 bits).
    pub fn new(zone: u32, address: IpAddr, prefix_len: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                let host = 32u32.checked_sub(u32::from(prefix_len))?;
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let host = 128u32.checked_sub(u32::from(prefix_len))?;
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Some(Self {
            zone,
            address,
            prefix_len,
        })
    }

    /// The fewest prefixes that cover exactly the addresses `start..=end` (a traffic selector's
    /// range, RFC 7296 section 3.13.1): at most 62 for IPv4 and 254 for IPv6. Empty if the families
    /// differ or the range is reversed.
    pub fn cover(zone: u32, start: IpAddr, end: IpAddr) -> Vec<Self> {
        let (mut next, last, width) = match (start, end) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return Vec::new(),
        };
        let mut networks = Vec::new();
        while next <= last {
            // The largest aligned block that starts at `next` and does not pass `last`.
            let fits = (last - next).checked_add(1).map_or(128, u128::ilog2);
            let host = next.trailing_zeros().min(fits).min(width);
            let address = match width {
                // `next` is within 32 bits here.
                32 => IpAddr::V4(Ipv4Addr::from_bits(next as u32)),
                _ => IpAddr::V6(Ipv6Addr::from_bits(next)),
            };
            networks.push(Self {
                zone,
                address,
                prefix_len: (width - host) as u8,
            });
            let Some(following) = 1u128
                .checked_shl(host)
                .and_then(|size| next.checked_add(size))
            else {
                break;
            };
            next = following;
        }
        networks
    }

    /// Routing zone, 0 for the main one.
    pub const fn zone(&self) -> u32 {
        self.zone
    }

    /// First address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Length in bits, 0..=32 or 0..=128.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The key of `REMOTE_NET`: prefix length in bits (the zone's 32 included, and 96 for a mapped
    /// IPv4 prefix) and data.
    pub fn key(&self) -> (u32, abi::RemoteNet) {
        let mapped = if self.address.is_ipv4() { 96 } else { 0 };
        let data = abi::RemoteNet {
            zone: self.zone.to_be_bytes(),
            address: self.address.into(),
        };
        (32 + mapped + u32::from(self.prefix_len), data)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cover(start: &str, end: &str) -> Vec<String> {
        Network::cover(0, start.parse().unwrap(), end.parse().unwrap())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn ranges_become_prefixes() {
        assert_eq!(cover("10.2.0.0", "10.2.255.255"), ["10.2.0.0/16"]);
        assert_eq!(cover("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(cover("::", all), ["::/0"]);
        assert_eq!(cover(all, all), [format!("{all}/128")]);
        assert_eq!(
            cover("10.0.0.1", "10.0.0.6"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert!(cover("10.0.0.2", "10.0.0.1").is_empty());
        assert!(cover("10.0.0.2", "::1").is_empty());
        assert_eq!(cover("0.0.0.1", "255.255.255.254").len(), 62);
        assert_eq!(
            cover("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").len(),
            254
        );
    }

    #[test]
    fn keys_count_the_zone_and_the_mapping() {
        let v4 = Network::new(0, "10.2.3.4".parse().unwrap(), 16).unwrap();
        assert_eq!(v4.to_string(), "10.2.0.0/16");
        assert_eq!(v4.key().0, 32 + 96 + 16);
        let v6 = Network::new(1, "2001:db8::1".parse().unwrap(), 32).unwrap();
        assert_eq!(v6.key().0, 64);
        assert_eq!(v6.key().1.zone, [0, 0, 0, 1]);
        assert!(Network::new(0, "10.0.0.0".parse().unwrap(), 33).is_none());
    }

    proptest! {
        #[test]
        fn a_cover_is_exact(start: u32, length in 0u32..100_000) {
            let end = start.saturating_add(length);
            let networks = Network::cover(0, Ipv4Addr::from_bits(start).into(), Ipv4Addr::from_bits(end).into());
            let mut next = u64::from(start);
            for network in networks {
                let IpAddr::V4(address) = network.address() else { panic!("family") };
                prop_assert_eq!(u64::from(address.to_bits()), next);
                next += 1u64 << (32 - network.prefix_len());
            }
            prop_assert_eq!(next, u64::from(end) + 1);
        }
    }
}
