//! Numbers that link SAs to policies.

use std::collections::BTreeMap;

use gateway_ike::mark::Mark;
use gateway_ike::output::{ChildSa, TrafficSelector};

/// All our reqids are `REQID_BASE | 1..=0xff_ffff`: what an earlier process left behind can be
/// told from what others installed.
const REQID_BASE: u32 = 0x4700_0000;
const REQID_MASK: u32 = 0xff00_0000;

/// Never drawn: no policy asks for it.
pub(super) const PROBE: u32 = REQID_BASE;

/// Whether a reqid is one of ours.
pub(super) const fn is_ours(reqid: u32) -> bool {
    reqid & REQID_MASK == REQID_BASE
}

/// What children have in common that may share an inbound reqid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Profile {
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    if_id: u32,
    mark: Mark,
}

impl Profile {
    fn of(child: &ChildSa) -> Self {
        Self {
            local: child.local_ts.clone(),
            remote: child.remote_ts.clone(),
            if_id: child.if_id_in,
            mark: child.marks.inbound,
        }
    }
}

/// Draws and returns reqids.
///
/// *Outbound* every SA has its own, so that the policy says exactly which SA is used. *Inbound* a
/// child shares the number of the one it rekeys and of every other with equal selectors: while two
/// generations overlap, the policy must let through what either decrypted. Children with other
/// selectors do not share it, or a peer could send the one's addresses through the other's SA.
#[derive(Debug, Default)]
pub(super) struct Reqids {
    last: u32,
    in_use: BTreeMap<u32, usize>,
    shared: BTreeMap<Profile, u32>,
    profiles: BTreeMap<u32, Vec<Profile>>,
}

impl Reqids {
    /// A number nobody else has.
    pub(super) fn unique(&mut self) -> u32 {
        loop {
            self.last = self.last % (!REQID_MASK) + 1;
            let reqid = REQID_BASE | self.last;
            // 16,777,215 numbers; the SAD would be out of memory long before they run out.
            if let std::collections::btree_map::Entry::Vacant(free) = self.in_use.entry(reqid) {
                free.insert(1);
                return reqid;
            }
        }
    }

    /// The inbound number of `child`, which rekeys a child with the inbound number `inherited`.
    pub(super) fn inbound(&mut self, child: &ChildSa, inherited: Option<u32>) -> u32 {
        let profile = Profile::of(child);
        let reqid = match self.shared.get(&profile).copied().or(inherited) {
            Some(reqid) => {
                *self.in_use.entry(reqid).or_default() += 1;
                reqid
            }
            None => self.unique(),
        };
        if self.shared.insert(profile.clone(), reqid).is_none() {
            self.profiles.entry(reqid).or_default().push(profile);
        }
        reqid
    }

    /// A number that SAs of an earlier process have: nobody else gets it.
    pub(super) fn reserve(&mut self, reqid: u32) {
        self.in_use.entry(reqid).or_insert(0);
    }

    /// Frees the reserved numbers that were not taken over.
    pub(super) fn finish_reservation(&mut self) {
        self.in_use.retain(|_, uses| *uses > 0);
    }

    /// Takes the reserved numbers of both SAs of `child` over, unless its selectors have another
    /// inbound number by now, or somebody else has its outbound one. Whether it did.
    pub(super) fn adopt(&mut self, child: &ChildSa, inbound: u32, outbound: u32) -> bool {
        let profile = Profile::of(child);
        let other = self.shared.get(&profile).is_some_and(|r| *r != inbound);
        if other || inbound == outbound || self.in_use.get(&outbound).is_some_and(|n| *n > 0) {
            return false;
        }
        self.in_use.insert(outbound, 1);
        self.inbound(child, Some(inbound));
        true
    }

    /// Gives back one use of `reqid`.
    pub(super) fn release(&mut self, reqid: u32) {
        let Some(uses) = self.in_use.get_mut(&reqid) else {
            return;
        };
        *uses -= 1;
        if *uses == 0 {
            self.in_use.remove(&reqid);
            for profile in self.profiles.remove(&reqid).unwrap_or_default() {
                self.shared.remove(&profile);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xfrm::tests::child;

    #[test]
    fn numbers_are_unique_ours_and_not_zero() {
        let mut reqids = Reqids::default();
        let (a, b) = (reqids.unique(), reqids.unique());
        assert_ne!(a, b);
        assert!(is_ours(a) && is_ours(b));
        assert_ne!(a, REQID_BASE);
        assert!(!is_ours(1) && !is_ours(0x4800_0001));
    }

    #[test]
    fn equal_selectors_share_and_the_last_one_out_gives_the_number_back() {
        let mut reqids = Reqids::default();
        let (a, mut other) = (child(1), child(2));
        let first = reqids.inbound(&a, None);
        assert_eq!(reqids.inbound(&child(3), None), first);
        other.remote_ts = other.local_ts.clone();
        assert_ne!(reqids.inbound(&other, None), first);
        reqids.release(first);
        assert_eq!(reqids.inbound(&a, None), first);
        reqids.release(first);
        reqids.release(first);
        assert!(!reqids.in_use.contains_key(&first));
        assert_ne!(reqids.inbound(&a, None), first, "a new life, a new number");
    }

    #[test]
    fn a_rekey_inherits_even_when_its_selectors_changed() {
        let mut reqids = Reqids::default();
        let first = reqids.inbound(&child(1), None);
        let mut narrowed = child(2);
        narrowed.local_ts = narrowed.remote_ts.clone();
        assert_eq!(reqids.inbound(&narrowed, Some(first)), first);
        reqids.release(first);
        assert_eq!(reqids.inbound(&narrowed, None), first);
    }

    #[test]
    fn numbers_in_use_are_skipped_when_the_counter_wraps() {
        let mut reqids = Reqids::default();
        let first = reqids.unique();
        reqids.last = !REQID_MASK;
        assert_ne!(reqids.unique(), first);
    }
}
