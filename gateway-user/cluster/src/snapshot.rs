//! Being told by a member, outside the view, what is in its slots.

use std::collections::BTreeSet;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, Cookie, NEGOTIATION_LIFETIME, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Scope, Taken};
use crate::output::{Event, Violation};
use crate::ownership::Writer;
use crate::stream::StreamIn;

/// A snapshot on its way from a peer. It holds no entries: each is applied when it comes, and what
/// was not named at the end is forgotten.
#[derive(Debug)]
pub(crate) struct SnapshotIn {
    number: u64,
    scope: Scope,
    sweep: u64,
    entries: u64,
    negotiations: BTreeSet<Cookie>,
}

impl SnapshotIn {
    pub(crate) const fn taken(&self) -> Taken {
        Taken {
            snapshot: self.number,
            entries: self.entries,
            complete: false,
        }
    }

    /// Deltas that come meanwhile count as named.
    pub(crate) fn note(&mut self, change: &Change) {
        match change {
            Change::NegotiationOpened { negotiation, .. } => {
                self.negotiations.insert(negotiation.local_cookie);
            }
            Change::NegotiationClosed { local_cookie } => {
                self.negotiations.remove(local_cookie);
            }
            _ => {}
        }
    }
}

impl Cluster {
    pub(crate) fn begin_snapshot(
        &mut self,
        member: MemberId,
        number: u64,
        seq: DeltaSeq,
        scope: Scope,
    ) {
        let sweep = self.ownership.begin_sweep();
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let incoming = &mut peer.incoming;
        let Some(run) = incoming.run else {
            return;
        };
        // One that had begun is given up by its sender.
        incoming.snapshot = Some(SnapshotIn {
            number,
            scope,
            sweep,
            entries: 0,
            negotiations: BTreeSet::new(),
        });
        incoming.ack_due = true;
        let stream = incoming
            .stream
            .get_or_insert_with(|| StreamIn::new(run, seq, scope.epoch));
        if stream.run != run || stream.expected() != seq.next() {
            // What lies between is contained in the snapshot only.
            *stream = StreamIn::new(run, seq, scope.epoch);
        }
        if !self.is_void(member, scope.epoch) {
            // From here on its former owners have nothing to say about a slot.
            for slot in scope.slots.iter() {
                let told = &mut self.told[usize::from(slot.0)];
                *told = scope.epoch.max(*told);
            }
        }
    }

    pub(crate) fn take_entry(
        &mut self,
        now: Instant,
        member: MemberId,
        written: Stamp,
        slot: Slot,
        change: Change,
    ) -> Result<(), Violation> {
        let limit = self.config.limits.half_open_entries;
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        peer.incoming.ack_due = true;
        let Some(snapshot) = &mut peer.incoming.snapshot else {
            return Err(Violation::EntryOutOfPlace);
        };
        snapshot.entries += 1;
        let scope = snapshot.scope;
        match change {
            Change::NegotiationOpened {
                negotiation,
                lifetime,
            } => {
                if snapshot.negotiations.len() >= limit {
                    self.refuse_half_open(member, 1);
                    return Ok(());
                }
                snapshot.negotiations.insert(negotiation.local_cookie);
                let expires = now + lifetime.min(NEGOTIATION_LIFETIME);
                self.ownership
                    .reopen(now, member, slot, negotiation, expires);
            }
            Change::SaUpsert(sa) if self.believes(member, &scope, slot) => {
                if !self.has_moved_since(&scope, slot, &sa) {
                    self.take_sa(Writer::Snapshot, slot, sa, written);
                }
            }
            Change::Checkpoints(checkpoints) if self.believes(member, &scope, slot) => {
                self.take_checkpoints(Writer::Snapshot, &checkpoints, written);
            }
            Change::CookieSecret(secret) => self.take_cookie_secret(written, secret),
            Change::NegotiationClosed { .. } | Change::SaRemoved { .. } | Change::View(_) => {
                return Err(Violation::NotAnEntry);
            }
            Change::SaUpsert(_) | Change::Checkpoints(_) | Change::Unknown { .. } => {}
        }
        Ok(())
    }

    /// Whether what a snapshot of `member` says about `slot` counts: nobody has told of it in a later
    /// view, it is not this member's, and `member` is not out of the view.
    fn believes(&self, member: MemberId, scope: &Scope, slot: Slot) -> bool {
        let checked = !self.config.limits.mutations.no_epoch_check;
        let outdated = checked && self.told[usize::from(slot.0)] > scope.epoch;
        scope.slots.contains(slot)
            && !outdated
            && !self.ready.contains(slot)
            && !self.is_void(member, scope.epoch)
    }

    /// Whether another owner has taken the IKE SA into a slot of its own, which the sender of this
    /// entry had not heard of yet.
    fn has_moved_since(&self, scope: &Scope, slot: Slot, sa: &Sa) -> bool {
        self.ownership.sa(sa.local_spi).is_some_and(|held| {
            let known = (held.written.epoch, held.sa.moves);
            held.slot != slot && (scope.epoch, sa.moves) < known
        })
    }

    pub(crate) fn end_snapshot(
        &mut self,
        now: Instant,
        member: MemberId,
        announced: u64,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        let snapshot = peer.incoming.snapshot.take();
        let got = snapshot.as_ref().map_or(0, |s| s.entries);
        let Some(snapshot) = snapshot.filter(|s| s.entries == announced) else {
            return Err(Violation::SnapshotIncomplete { got, announced });
        };
        peer.counters.snapshots_received += 1;
        peer.incoming.ack_due = true;
        peer.incoming.taken = Some(Taken {
            complete: true,
            ..snapshot.taken()
        });
        let scope = snapshot.scope;
        if let Some(stream) = &mut peer.incoming.stream {
            stream.base = true;
            stream.fed = scope.epoch;
        }
        let slots = scope.slots.iter();
        let slots = slots
            .filter(|slot| self.believes(member, &scope, *slot))
            .collect();
        self.ownership.sweep(snapshot.sweep, &slots);
        self.ownership
            .retain_negotiations(member, &snapshot.negotiations);
        self.event(Event::SnapshotApplied {
            member,
            entries: announced,
        });
        self.level(now);
        Ok(())
    }
}
