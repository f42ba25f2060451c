//! Which messages get through.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use gateway_cluster::secret::Secret;
use gateway_common::member::MemberId;

/// What a cut blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocked {
    /// Heartbeats over the sync interface, by direction.
    pub(super) link0: BTreeSet<(MemberId, MemberId)>,
    /// Heartbeats over the other interface.
    pub(super) link1: BTreeSet<(MemberId, MemberId)>,
    /// Frames and forwarded packets.
    pub(super) sync: BTreeSet<(MemberId, MemberId)>,
    /// Members that the peers do not reach.
    pub(super) public: BTreeSet<MemberId>,
    /// Members that do not reach the witness.
    pub(super) witness: BTreeSet<MemberId>,
}

impl Blocked {
    /// Everything from `a` to `b`.
    pub(super) fn all(&mut self, a: MemberId, b: MemberId) {
        self.link0.insert((a, b));
        self.link1.insert((a, b));
        self.sync.insert((a, b));
    }

    /// Everything between `a` and `b`.
    pub(super) fn both(&mut self, a: MemberId, b: MemberId) {
        self.all(a, b);
        self.all(b, a);
    }
}

/// The networks, and the sync connections over them.
#[derive(Debug, Default)]
pub(super) struct Net {
    cuts: BTreeMap<u64, Blocked>,
    number: u64,
    /// By pair, the lower member first: the connection's number.
    pub(super) connections: BTreeMap<(MemberId, MemberId), u64>,
    connected: u64,
    /// Frames that a cut holds up, by direction.
    pub(super) waiting: BTreeMap<(MemberId, MemberId), VecDeque<Arc<Secret>>>,
}

impl Net {
    pub(super) fn cut(&mut self, blocked: Blocked) -> u64 {
        self.number += 1;
        self.cuts.insert(self.number, blocked);
        self.number
    }

    pub(super) fn heal(&mut self, number: u64) {
        self.cuts.remove(&number);
    }

    pub(super) fn heal_all(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    pub(super) fn heartbeat_passes(&self, from: MemberId, to: MemberId, link: u8) -> bool {
        !self.cuts.values().any(|cut| {
            let blocked = if link == 0 { &cut.link0 } else { &cut.link1 };
            blocked.contains(&(from, to))
        })
    }

    pub(super) fn sync_passes(&self, from: MemberId, to: MemberId) -> bool {
        !self.cuts.values().any(|cut| cut.sync.contains(&(from, to)))
    }

    pub(super) fn public_passes(&self, member: MemberId) -> bool {
        !self.cuts.values().any(|cut| cut.public.contains(&member))
    }

    pub(super) fn witness_passes(&self, member: MemberId) -> bool {
        !self.cuts.values().any(|cut| cut.witness.contains(&member))
    }

    pub(super) fn connection(&self, a: MemberId, b: MemberId) -> Option<u64> {
        self.connections.get(&pair(a, b)).copied()
    }

    pub(super) fn connect(&mut self, a: MemberId, b: MemberId) {
        self.connected += 1;
        self.connections.insert(pair(a, b), self.connected);
    }

    /// The number of the connection that there was.
    pub(super) fn disconnect(&mut self, a: MemberId, b: MemberId) -> Option<u64> {
        self.waiting.remove(&(a, b));
        self.waiting.remove(&(b, a));
        self.connections.remove(&pair(a, b))
    }
}

fn pair(a: MemberId, b: MemberId) -> (MemberId, MemberId) {
    (a.min(b), a.max(b))
}
