//! The decision function: which of the 256 slots a new negotiation falls into.

use core::fmt;

/// One of the 256 buckets of the decision function. Chosen at IKE_SA_INIT, stored, inherited by
/// the CHILD_SAs and by successor IKE SAs, never recomputed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Slot {
    /// Number of slots.
    pub const COUNT: usize = 256;

    /// slot = hash(source address, initiator cookie). `source` is the IPv6 or IPv4-mapped form
    /// ([`crate::abi::Address`]), without the port: a NAT may move the port between exchanges.
    ///
    /// The finaliser of MurmurHash3 over three folded words: a few cycles in XDP, and every input
    /// bit reaches every slot bit.
    #[inline(always)]
    pub const fn for_negotiation(source: &[u8; 16], initiator_cookie: &[u8; 8]) -> Self {
        let high = u64::from_be_bytes([
            source[0], source[1], source[2], source[3], source[4], source[5], source[6], source[7],
        ]);
        let low = u64::from_be_bytes([
            source[8], source[9], source[10], source[11], source[12], source[13], source[14],
            source[15],
        ]);
        let cookie = u64::from_be_bytes(*initiator_cookie);
        let mixed = mix(mix(mix(high) ^ low) ^ cookie);
        Self((mixed >> 56) as u8)
    }

    /// slot = hash(connection name): of IKE SAs that we initiate. Only its owner does.
    pub const fn for_connection(name: &str) -> Self {
        // FNV-1a, and the finaliser for its weak upper bits.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut rest = name.as_bytes();
        while let [octet, tail @ ..] = rest {
            hash = (hash ^ *octet as u64).wrapping_mul(0x0100_0000_01b3);
            rest = tail;
        }
        Self((mix(hash) >> 56) as u8)
    }
}

#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_peers_spread_within_fifteen_percent_over_three_members() {
        let mut load = [0u32; 3];
        for peer in 0..3000u32 {
            let source =
                crate::abi::Address::from(core::net::Ipv4Addr::from_bits(0x0a00_0000 + peer));
            let slot = Slot::for_negotiation(&source.octets, &u64::from(peer).to_be_bytes());
            load[usize::from(slot.0) % 3] += 1;
        }
        for members_load in load {
            assert!((850..=1150).contains(&members_load), "{load:?}");
        }
    }

    #[test]
    fn a_thousand_connections_spread_too() {
        let mut load = [0u32; 3];
        for number in 0..3000 {
            load[usize::from(Slot::for_connection(&std::format!("site-{number}")).0) % 3] += 1;
        }
        for members_load in load {
            assert!((850..=1150).contains(&members_load), "{load:?}");
        }
    }
}
