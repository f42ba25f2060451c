//! AEAD IVs that never repeat, whoever holds the IKE SA.

use gateway_common::member::MemberId;

use crate::config::Config;

const COUNTER_BITS: u32 = 42;
const INCARNATION_BITS: u32 = 16;

/// Explicit IVs for the messages that we seal under one key: member (6 bits) ‖ incarnation
/// (16 bits) ‖ counter (42 bits).
///
/// RFC 5282 §3.1 demands only that an IV never comes twice under a key. The counter sees to that
/// within one life of one member; the prefix does when another member, or this one after a
/// restart, resumes the IKE SA from a record that may lag behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IvSequence {
    prefix: u64,
    next: u64,
}

impl IvSequence {
    /// From `next` on, as this run of this member.
    pub(crate) fn of(config: &Config, next: u64) -> Self {
        #[cfg(any(test, feature = "testing"))]
        if config.limits.shared_ivs {
            return Self { prefix: 0, next };
        }
        Self::resume(config.member, config.incarnation, next)
    }

    /// From `next` on, under the prefix of `member` in its `incarnation`.
    fn resume(member: MemberId, incarnation: u16, next: u64) -> Self {
        let prefix = u64::from(member.get()) << INCARNATION_BITS | u64::from(incarnation);
        Self {
            prefix: prefix << COUNTER_BITS,
            next,
        }
    }

    /// The next IV; `None` after 2^42, which 2^32 Message IDs cannot use up.
    pub(crate) fn draw(&mut self) -> Option<u64> {
        if self.next >> COUNTER_BITS != 0 {
            return None;
        }
        let iv = self.prefix | self.next;
        self.next += 1;
        Some(iv)
    }

    /// The counter of the next IV.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_keeps_members_and_incarnations_apart() {
        let member = MemberId::new(63).unwrap();
        let mut ivs = IvSequence::resume(member, 0xfffe, 1);
        assert_eq!(ivs.draw(), Some(0xffff_f800_0000_0001));
        assert_eq!(ivs.position(), 2);
        let mut other = IvSequence::resume(MemberId::new(62).unwrap(), 0xfffe, 1);
        assert_eq!(other.draw(), Some(0xfbff_f800_0000_0001));
    }

    #[test]
    fn exhaustion_is_an_end_and_not_a_repetition() {
        let member = MemberId::new(1).unwrap();
        assert_eq!(IvSequence::resume(member, 0, 1 << 42).draw(), None);
    }
}
