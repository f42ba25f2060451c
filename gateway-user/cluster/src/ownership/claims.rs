//! Entries that several announcers may claim.

use std::collections::BTreeMap;

/// For each key the claims on it, in order; the first one is in effect. Because the claims decide
/// and not the order in which they arrived, members that know the same claims hold equal tables.
#[derive(Clone, Debug)]
pub(super) struct Claims<K, C> {
    entries: BTreeMap<K, Held<C>>,
}

/// Nearly every key has one claim, which then needs no allocation of its own.
#[derive(Clone, Debug)]
enum Held<C> {
    One(C),
    /// Sorted, at least two.
    Many(Vec<C>),
}

impl<C> Held<C> {
    fn first(&self) -> Option<&C> {
        match self {
            Self::One(claim) => Some(claim),
            Self::Many(claims) => claims.first(),
        }
    }
}

/// What became of a key after a claim was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn<C> {
    /// Another claim was and stays in effect, or there was no such claim.
    Unchanged,
    /// This one is in effect now.
    Now(C),
    /// Nobody claims the key any more.
    Gone,
}

impl<K, C> Default for Claims<K, C> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy, C: Ord + Copy> Claims<K, C> {
    /// Adds a claim. `true` if it is in effect now and was not before.
    pub(super) fn add(&mut self, key: K, claim: C) -> bool {
        let Some(held) = self.entries.get_mut(&key) else {
            self.entries.insert(key, Held::One(claim));
            return true;
        };
        match held {
            Held::One(present) if *present == claim => false,
            Held::One(present) => {
                let mut claims = vec![*present, claim];
                claims.sort_unstable();
                let first = claims[0] == claim;
                *held = Held::Many(claims);
                first
            }
            Held::Many(claims) => match claims.binary_search(&claim) {
                Ok(_) => false,
                Err(position) => {
                    claims.insert(position, claim);
                    position == 0
                }
            },
        }
    }

    /// Withdraws a claim.
    pub(super) fn withdraw(&mut self, key: K, claim: &C) -> Withdrawn<C> {
        match self.entries.get_mut(&key) {
            Some(Held::One(present)) if present == claim => {
                self.entries.remove(&key);
                Withdrawn::Gone
            }
            Some(held @ Held::Many(_)) => withdraw_from(held, claim),
            Some(Held::One(_)) | None => Withdrawn::Unchanged,
        }
    }

    /// The claim in effect.
    pub(super) fn get(&self, key: &K) -> Option<&C> {
        self.entries.get(key)?.first()
    }

    /// All keys with the claims in effect, in key order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &C)> {
        self.entries
            .iter()
            .filter_map(|(key, held)| Some((key, held.first()?)))
    }
}

fn withdraw_from<C: Ord + Copy>(held: &mut Held<C>, claim: &C) -> Withdrawn<C> {
    let Held::Many(claims) = held else {
        return Withdrawn::Unchanged;
    };
    let Ok(position) = claims.binary_search(claim) else {
        return Withdrawn::Unchanged;
    };
    claims.remove(position);
    let first = claims[0];
    if claims.len() == 1 {
        *held = Held::One(first);
    }
    if position == 0 {
        Withdrawn::Now(first)
    } else {
        Withdrawn::Unchanged
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_claim_is_in_effect_whatever_the_order() {
        let mut claims = Claims::default();
        assert!(claims.add("key", 5));
        assert!(claims.add("key", 3));
        assert!(!claims.add("key", 4));
        assert!(!claims.add("key", 3));
        assert_eq!(claims.withdraw("key", &4), Withdrawn::Unchanged);
        assert_eq!(claims.withdraw("key", &9), Withdrawn::Unchanged);
        assert_eq!(claims.withdraw("key", &3), Withdrawn::Now(5));
        assert_eq!(claims.withdraw("key", &5), Withdrawn::Gone);
        assert_eq!(claims.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn behaves_as_an_ordered_set(
            steps in prop::collection::vec((any::<bool>(), 0u8..6), 0..60)
        ) {
            let mut claims = Claims::default();
            let mut model = BTreeSet::new();
            for (add, claim) in steps {
                let before = model.first().copied();
                if add {
                    model.insert(claim);
                    let changed = claims.add((), claim);
                    prop_assert_eq!(changed, before != model.first().copied());
                } else {
                    model.remove(&claim);
                    let after = model.first().copied();
                    let expected = match after {
                        _ if after == before => Withdrawn::Unchanged,
                        Some(first) => Withdrawn::Now(first),
                        None => Withdrawn::Gone,
                    };
                    prop_assert_eq!(claims.withdraw((), &claim), expected);
                }
                prop_assert_eq!(claims.get(&()).copied(), model.first().copied());
            }
        }
    }
}
