//! Which member owns which slot.

use std::collections::BTreeMap;

use gateway_common::{member::MemberId, slot::Slot};

/// How slots are spread over the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every member owns its weight's share of the slots (`mode = "load-sharing"`).
    #[default]
    LoadSharing,
    /// The live member with the lowest id owns all slots (`mode = "ha"`).
    HighAvailability,
}

/// HA mode: who is active when a member of higher priority than the active one is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// The active member stays (`failback = "maintain-active"`).
    #[default]
    MaintainActive,
    /// The member with the lowest id becomes active (`failback = "higher-priority"`).
    HigherPriority,
}

/// A member as the slot map sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Who.
    pub member: MemberId,
    /// Relative share of the slots, at least 1 to get any; equal members have equal weights.
    pub weight: u16,
}

/// The owners of the 256 slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotMap {
    owners: [Option<MemberId>; Slot::COUNT],
}

impl Default for SlotMap {
    fn default() -> Self {
        Self::UNSET
    }
}

impl SlotMap {
    /// No slot has an owner.
    pub const UNSET: Self = Self {
        owners: [None; Slot::COUNT],
    };

    /// A map as it was agreed on.
    pub const fn from_owners(owners: [Option<MemberId>; Slot::COUNT]) -> Self {
        Self { owners }
    }

    /// The map that follows `self` when `live` are the members that may own slots: a pure function,
    /// so that all members that agree on its arguments agree on the map.
    ///
    /// Load sharing keeps what it can: every member's share is `256 × weight / sum of weights`,
    /// rounded down or up, and the roundings are chosen so that as few slots as possible move. Slots
    /// change hands only if their owner is not live any more or has more than its share.
    /// A member that is named twice counts once, with its first weight. With nobody live (or all
    /// weights zero) every slot is unset.
    #[must_use]
    pub fn next(&self, live: &[Weighted], mode: Mode) -> Self {
        let mut weights = BTreeMap::new();
        for weighted in live {
            weights.entry(weighted.member).or_insert(weighted.weight);
        }
        weights.retain(|_, weight| *weight > 0);
        match mode {
            Mode::HighAvailability => Self {
                owners: [weights.keys().next().copied(); Slot::COUNT],
            },
            Mode::LoadSharing => self.spread(&weights),
        }
    }

    /// HA mode: all slots on one of `live`, which is `preferred` if it is there, else by `failback`
    /// the one that is active now or the one with the lowest id. Weights do not matter, except that
    /// a member with weight 0 (drained) owns nothing.
    #[must_use]
    pub fn next_active(
        &self,
        live: &[Weighted],
        failback: Failback,
        preferred: Option<MemberId>,
    ) -> Self {
        let usable = |member: &MemberId| live.iter().any(|w| w.member == *member && w.weight > 0);
        let current = (failback == Failback::MaintainActive)
            .then(|| self.iter().find_map(|(_, owner)| owner.filter(usable)))
            .flatten();
        let active = preferred.filter(usable).or(current);
        let lowest = || live.iter().filter(|w| w.weight > 0).map(|w| w.member).min();
        Self {
            owners: [active.or_else(lowest); Slot::COUNT],
        }
    }

    /// Who owns `slot`; `None` if nobody does.
    pub const fn owner(&self, slot: Slot) -> Option<MemberId> {
        self.owners[slot.0 as usize]
    }

    /// Number of slots that `member` owns, 0..=256.
    pub fn owned_by(&self, member: MemberId) -> usize {
        self.owners
            .iter()
            .filter(|owner| **owner == Some(member))
            .count()
    }

    /// All slots with their owners, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, Option<MemberId>)> + '_ {
        (0..=u8::MAX).map(|slot| (Slot(slot), self.owner(Slot(slot))))
    }

    fn spread(&self, weights: &BTreeMap<MemberId, u16>) -> Self {
        let mut room = self.quotas(weights);
        let mut next = Self::UNSET;
        for (index, owner) in self.owners.iter().enumerate() {
            if let Some((member, left)) = owner.and_then(|m| Some((m, room.get_mut(&m)?)))
                && *left > 0
            {
                *left -= 1;
                next.owners[index] = Some(member);
            }
        }
        // Free slots go round the members that still have room, so that neighbouring slots of a
        // dead member do not all end up in one place.
        let mut free = next.owners.iter_mut().filter(|owner| owner.is_none());
        loop {
            let mut placed = false;
            for (member, left) in room.iter_mut().filter(|(_, left)| **left > 0) {
                let Some(owner) = free.next() else {
                    return next;
                };
                *owner = Some(*member);
                *left -= 1;
                placed = true;
            }
            if !placed {
                return next;
            }
        }
    }

    /// How many slots each member shall own; the sum is 256 unless there are no members.
    fn quotas(&self, weights: &BTreeMap<MemberId, u16>) -> BTreeMap<MemberId, usize> {
        let total: usize = weights.values().map(|weight| usize::from(*weight)).sum();
        if total == 0 {
            return BTreeMap::new();
        }
        let mut quotas = BTreeMap::new();
        let mut round_up = Vec::new();
        for (member, weight) in weights {
            let share = Slot::COUNT * usize::from(*weight);
            let (floor, remainder) = (share / total, share % total);
            quotas.insert(*member, floor);
            if remainder > 0 {
                // Rounding up where a member already has more than its floor saves a move.
                let saves_no_move = self.owned_by(*member) <= floor;
                round_up.push((saves_no_move, total - remainder, *member));
            }
        }
        round_up.sort_unstable();
        let missing = Slot::COUNT - quotas.values().sum::<usize>();
        for (_, _, member) in round_up.iter().take(missing) {
            if let Some(quota) = quotas.get_mut(member) {
                *quota += 1;
            }
        }
        quotas
    }
}

impl std::fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut counts: BTreeMap<Option<MemberId>, usize> = BTreeMap::new();
        for owner in self.owners {
            *counts.entry(owner).or_default() += 1;
        }
        f.debug_struct("SlotMap").field("counts", &counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gateway_common::abi::Address;
    use proptest::prelude::*;

    use super::*;

    fn id(id: u8) -> MemberId {
        MemberId::new(id).unwrap()
    }

    fn equal(members: &[u8]) -> Vec<Weighted> {
        members
            .iter()
            .map(|m| Weighted {
                member: id(*m),
                weight: 1,
            })
            .collect()
    }

    fn moves(from: &SlotMap, to: &SlotMap) -> usize {
        from.iter()
            .zip(to.iter())
            .filter(|(a, b)| a.1 != b.1)
            .count()
    }

    #[test]
    fn three_equal_members_from_nothing() {
        let map = SlotMap::UNSET.next(&equal(&[1, 2, 3]), Mode::LoadSharing);
        let counts = [1, 2, 3].map(|m| map.owned_by(id(m)));
        assert_eq!(counts, [86, 85, 85]);
    }

    #[test]
    fn a_death_moves_only_the_slots_of_the_dead() {
        let before = SlotMap::UNSET.next(&equal(&[1, 2, 3]), Mode::LoadSharing);
        let after = before.next(&equal(&[1, 3]), Mode::LoadSharing);
        for (slot, owner) in before.iter().filter(|(_, owner)| *owner != Some(id(2))) {
            assert_eq!(after.owner(slot), owner);
        }
        assert_eq!((after.owned_by(id(1)), after.owned_by(id(3))), (128, 128));
    }

    /// Peers behind consecutive addresses, with consecutive cookies: the least random there are.
    #[test]
    fn a_thousand_peers_are_shared_and_a_death_moves_only_those_of_the_dead() {
        let slot = |n: u32| {
            let source = Address::from(IpAddr::from((0xc633_6400 + n).to_be_bytes()));
            Slot::for_negotiation(&source.octets, &u64::from(n + 1).to_be_bytes())
        };
        for members in [&[1, 2][..], &[1, 2, 3], &[1, 2, 3, 4]] {
            let live = equal(members);
            let before = SlotMap::UNSET.next(&live, Mode::LoadSharing);
            let peers = |map: &SlotMap, m: u8| {
                let own = |n: &u32| map.owner(slot(*n)) == Some(id(m));
                (0..1000).filter(own).collect::<Vec<u32>>()
            };
            for member in members {
                let share = peers(&before, *member).len() * members.len();
                assert!((850..=1150).contains(&share), "{share} of {members:?}");
                let left = live.iter().filter(|w| w.member != id(*member)).copied();
                let after = before.next(&left.collect::<Vec<_>>(), Mode::LoadSharing);
                for other in members.iter().filter(|other| *other != member) {
                    let kept = peers(&before, *other);
                    let now = peers(&after, *other);
                    assert!(kept.iter().all(|peer| now.contains(peer)));
                }
            }
        }
    }

    #[test]
    fn high_availability_puts_all_on_the_lowest_id() {
        let map = SlotMap::UNSET.next(&equal(&[7, 4, 9]), Mode::HighAvailability);
        assert_eq!(map.owned_by(id(4)), 256);
        let map = map.next(&[], Mode::HighAvailability);
        assert_eq!(map, SlotMap::UNSET);
    }

    #[test]
    fn the_active_member_stays_or_the_highest_priority_takes_over() {
        let before = SlotMap::UNSET.next_active(&equal(&[2, 3]), Failback::MaintainActive, None);
        assert_eq!(before.owned_by(id(2)), 256);
        let next = |members: &[u8], failback, preferred: Option<u8>| {
            let map = before.next_active(&equal(members), failback, preferred.map(id));
            map.owner(Slot(0))
        };
        let (maintain, higher) = (Failback::MaintainActive, Failback::HigherPriority);
        assert_eq!(next(&[1, 2, 3], maintain, None), Some(id(2)));
        assert_eq!(next(&[1, 2, 3], higher, None), Some(id(1)));
        assert_eq!(next(&[1, 2, 3], maintain, Some(3)), Some(id(3)));
        assert_eq!(next(&[1, 2, 3], higher, Some(4)), Some(id(1)), "not there");
        assert_eq!(next(&[1, 3], maintain, None), Some(id(1)));
        assert_eq!(next(&[], maintain, None), None);
    }

    #[test]
    fn a_drained_member_owns_nothing() {
        let mut live = equal(&[1, 2, 3]);
        let before = SlotMap::UNSET.next(&live, Mode::LoadSharing);
        live[0].weight = 0;
        let after = before.next(&live, Mode::LoadSharing);
        assert_eq!([1, 2, 3].map(|m| after.owned_by(id(m))), [0, 128, 128]);
        assert_eq!(moves(&before, &after), before.owned_by(id(1)));
        let active = SlotMap::UNSET.next_active(&live, Failback::HigherPriority, Some(id(1)));
        assert_eq!(active.owned_by(id(2)), 256);
    }

    fn members() -> impl Strategy<Value = Vec<Weighted>> {
        prop::collection::btree_map(1u8..=8, 1u16..=20, 1..=6).prop_map(|weights| {
            weights
                .into_iter()
                .map(|(m, weight)| Weighted {
                    member: id(m),
                    weight,
                })
                .collect()
        })
    }

    /// The fewest moves that any map within floor and ceiling of every share needs, by trying all
    /// choices of who is rounded up.
    fn fewest_moves(previous: &SlotMap, live: &[Weighted]) -> usize {
        let total: usize = live.iter().map(|w| usize::from(w.weight)).sum();
        let floor = |w: &Weighted| 256 * usize::from(w.weight) / total;
        let exact = |w: &Weighted| (256 * usize::from(w.weight)).is_multiple_of(total);
        (0..1u32 << live.len())
            .filter_map(|choice| {
                let mut kept = 0;
                let mut sum = 0;
                for (i, weighted) in live.iter().enumerate() {
                    let up = choice >> i & 1 == 1;
                    if up && exact(weighted) {
                        return None;
                    }
                    let quota = floor(weighted) + usize::from(up);
                    sum += quota;
                    kept += quota.min(previous.owned_by(weighted.member));
                }
                (sum == 256).then_some(256 - kept)
            })
            .min()
            .unwrap()
    }

    proptest! {
        #[test]
        fn everyone_gets_its_share_with_the_fewest_moves(
            history in prop::collection::vec(members(), 1..6)
        ) {
            let mut map = SlotMap::UNSET;
            for live in history {
                let next = map.next(&live, Mode::LoadSharing);
                let total: usize = live.iter().map(|w| usize::from(w.weight)).sum();
                for weighted in &live {
                    let share = 256 * usize::from(weighted.weight);
                    let owned = next.owned_by(weighted.member) * total;
                    prop_assert!(owned.abs_diff(share) < total, "{next:?} {live:?}");
                }
                prop_assert!(next.iter().all(|(_, owner)| owner.is_some()));
                prop_assert_eq!(moves(&map, &next), fewest_moves(&map, &live));
                map = next;
            }
        }

        #[test]
        fn the_order_of_the_members_does_not_matter(
            before in members(),
            mut live in members().prop_shuffle(),
        ) {
            let map = SlotMap::UNSET.next(&before, Mode::LoadSharing);
            let next = map.next(&live, Mode::LoadSharing);
            live.reverse();
            prop_assert_eq!(&map.next(&live, Mode::LoadSharing), &next);
            // Settled: asking again moves nothing.
            prop_assert_eq!(&next.next(&live, Mode::LoadSharing), &next);
        }
    }
}
