//! ESP packets as numbers: which key, which sequence numbers.

use std::collections::BTreeMap;

use gateway_common::slot::Slot;

/// Identifies a key without being it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyId(u64);

/// The identity of key material.
pub(super) fn key_id(key: &[u8]) -> KeyId {
    KeyId(key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// Packets of one SA with consecutive sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) spi: [u8; 4],
    pub(super) key: KeyId,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The output mark; a peer's packets have none.
    pub(super) slot: Slot,
}

/// Disjoint ranges of numbers that were used up.
#[derive(Debug, Default)]
pub(super) struct Used(BTreeMap<u64, u64>);

impl Used {
    /// The highest of them; 0 if there is none.
    pub(super) fn top(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, to)| *to)
    }

    /// Notes first..=last; the first number of them that had been used before, if any.
    pub(super) fn take(&mut self, first: u64, last: u64) -> Option<u64> {
        if let Some((from, to)) = self.0.range(..=last).next_back()
            && *to >= first
        {
            return Some(first.max(*from));
        }
        // Grown in place: traffic mostly goes on where it was.
        if let Some((_, to)) = self.0.range_mut(..first).next_back()
            && *to + 1 == first
        {
            *to = last;
        } else {
            self.0.insert(first, last);
        }
        None
    }
}

/// An inbound SA's anti-replay state: the highest number and which of the numbers below it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound {
    top: u64,
    /// Bit n: `top - n` has come.
    seen: u128,
}

impl Inbound {
    /// At a checkpoint: all up to `top` count as seen.
    pub(super) const fn at(top: u64) -> Self {
        Self {
            top,
            seen: u128::MAX,
        }
    }

    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// Whether any of the packets is new. Many at once move the window as one.
    pub(super) fn accept(&mut self, packet: &Packet) -> bool {
        let last = packet.last;
        if last > self.top {
            let shift = u32::try_from(last - self.top).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.top = last;
            return true;
        }
        let behind = u32::try_from(self.top - last).unwrap_or(u32::MAX);
        match 1u128.checked_shl(behind) {
            Some(bit) if self.seen & bit == 0 => {
                self.seen |= bit;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_found_wherever_it_lies() {
        let mut used = Used::default();
        for (first, last) in [(10, 19), (20, 29), (1, 5), (100, 200)] {
            assert_eq!(used.take(first, last), None);
        }
        assert_eq!(used.take(29, 31), Some(29));
        assert_eq!(used.take(5, 6), Some(5));
        assert_eq!(used.take(90, 300), Some(100));
        assert_eq!(used.take(6, 9), None);
        assert_eq!(used.take(150, 150), Some(150));
        assert_eq!(used.top(), 200);
    }
}
