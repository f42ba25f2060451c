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
    use super::*;

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
}
