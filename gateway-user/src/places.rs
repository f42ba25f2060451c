//! Places for those who connect: so many in all, and of them so many for one of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is connected, by what tells the ones from the others: an address, a user.
#[derive(Debug)]
pub(crate) struct Places<K: Ord> {
    all: usize,
    each: usize,
    taken: Mutex<BTreeMap<K, usize>>,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place<K: Ord> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Ord + Copy> Places<K> {
    /// `all` at a time, `each` with the same key.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { all, each, taken })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `key`, unless it or all together have too many.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let its = taken.get(&key).copied().unwrap_or(0);
        if all >= self.all || its >= self.each {
            return None;
        }
        taken.insert(key, its + 1);
        let places = Arc::clone(self);
        Some(Place { places, key })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
        }
        taken.retain(|_, count| *count > 0);
    }
}
