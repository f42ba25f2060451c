//! Snapshots: everything in some slots, sent entry by entry while changes go on.

use std::collections::{BTreeSet, VecDeque};

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, Cookie, NEGOTIATION_LIFETIME, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Incarnation, Scope, Taken, encode_entry, encode_sa_entry};
use crate::output::{Event, Violation};
use crate::ownership::Writer;
use crate::peer::Link;
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::status::FullSync;
use crate::stream::StreamIn;
use crate::view::Epoch;

/// What comes next in a snapshot; the order is that of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    CookieSecret,
    /// After the negotiation with this cookie.
    Negotiations(Option<Cookie>),
    /// After the IKE SA with this SPI.
    Sas(Option<Cookie>),
    /// What is reserved for the CHILD_SAs of the IKE SA with this SPI.
    Reservations(Cookie),
    Done,
}

/// A snapshot on its way to a peer. It holds no entries: each is read when it is sent.
#[derive(Debug)]
pub(crate) struct SnapshotOut {
    pub(crate) number: u64,
    pub(crate) scope: Scope,
    cursor: Cursor,
    /// Sizes of the entries sent and not acknowledged.
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    entries: u64,
    acked: u64,
    pub(crate) end_sent: bool,
}

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

impl SnapshotOut {
    pub(crate) fn new(number: u64, scope: Scope) -> Self {
        Self {
            number,
            scope,
            cursor: match scope.fills {
                Some(_) => Cursor::Sas(None),
                None => Cursor::CookieSecret,
            },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            entries: 0,
            acked: 0,
            end_sent: false,
        }
    }

    /// Takes the entries that `count` (cumulative) acknowledges out of flight.
    fn land(&mut self, count: u64) {
        while self.acked < count
            && let Some(bytes) = self.in_flight.pop_front()
        {
            self.in_flight_bytes -= bytes;
            self.acked += 1;
        }
    }
}

impl Cluster {
    /// Begins to send everything that this member owns, as it stands at each moment.
    pub(crate) fn start_snapshot(&mut self, member: MemberId, reason: FullSync) {
        let mut slots = self.owned();
        let flushed = self.outbox.flushed();
        let epoch = self.view.epoch;
        let wrote = self.written_by(self.config.local);
        let colleague = self.admitted() && self.others().any(|other| other == member);
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        let anew = out.acked.is_none();
        if anew {
            out.start_over(flushed);
            // What this member wrote before slots left it is in deltas that the peer will not see.
            if colleague && out.levelled < epoch {
                slots = slots.union(&wrote);
            }
        }
        out.due = None;
        out.reason = Some(reason);
        let scope = Scope {
            epoch,
            slots: slots.union(&out.refeed),
            fills: None,
        };
        let seq = out.sent;
        self.begin(member, scope, seq);
        self.event(Event::FullSync { member, reason });
        if anew {
            // Markers before this beginning were not seen.
            self.repeat_marker();
        }
    }

    fn begin(&mut self, member: MemberId, scope: Scope, seq: DeltaSeq) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.out.snapshots += 1;
        let snapshot = peer.out.snapshots;
        peer.out.snapshot = Some(SnapshotOut::new(snapshot, scope));
        let begin = Frame::SnapshotBegin {
            snapshot,
            seq,
            scope,
        };
        self.send(member, begin.encode());
    }

    /// Begins the next snapshot that a peer needs, unless one is under way. `true` if one began.
    pub(crate) fn next_snapshot(&mut self, member: MemberId) -> bool {
        let Some(peer) = self.peers.get_mut(&member) else {
            return false;
        };
        if peer.out.snapshot.is_some() || peer.link != Link::Up {
            return false;
        }
        if let Some(reason) = peer.out.due {
            self.start_snapshot(member, reason);
            return true;
        }
        let Some((reached, slots)) = peer.out.fills.pop_front() else {
            return false;
        };
        let seq = peer.out.sent;
        let scope = Scope {
            epoch: self.view.epoch,
            slots,
            fills: Some(reached),
        };
        self.begin(member, scope, seq);
        let reason = FullSync::Fill(reached.member);
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.out.reason = Some(reason);
        }
        self.event(Event::FullSync { member, reason });
        true
    }

    /// Sends what the window allows of the snapshot under way.
    pub(crate) fn pump_snapshot(&mut self, now: Instant, member: MemberId) {
        let window = self.config.limits.snapshot_window_bytes;
        loop {
            let ready = self.may_feed(member);
            let Some(snapshot) = self
                .peers
                .get(&member)
                .and_then(|p| p.out.snapshot.as_ref())
            else {
                return;
            };
            let full = !snapshot.in_flight.is_empty() && snapshot.in_flight_bytes >= window;
            if snapshot.end_sent || full || !ready {
                return;
            }
            let (entry, cursor) = self.next_entry(now, snapshot);
            let Some(snapshot) = self
                .peers
                .get_mut(&member)
                .and_then(|p| p.out.snapshot.as_mut())
            else {
                return;
            };
            snapshot.cursor = cursor;
            if let Some(entry) = entry {
                snapshot.in_flight.push_back(entry.len());
                snapshot.in_flight_bytes += entry.len();
                snapshot.entries += 1;
                self.send(member, entry);
            } else if cursor == Cursor::Done {
                snapshot.end_sent = true;
                let entries = snapshot.entries;
                if let Some(peer) = self.peers.get_mut(&member) {
                    peer.counters.snapshots_sent += 1;
                }
                self.send(member, Frame::SnapshotEnd { entries }.encode());
                self.event(Event::SnapshotSent { member, entries });
            }
        }
    }

    /// The entry at the cursor, if there is one, and the cursor after it.
    fn next_entry(&self, now: Instant, snapshot: &SnapshotOut) -> (Option<Secret>, Cursor) {
        match snapshot.cursor {
            Cursor::CookieSecret => {
                let entry = self.cookie_secret.as_ref().map(|(written, secret)| {
                    let change = Change::CookieSecret(secret.clone());
                    encode_entry(*written, Slot(0), &change)
                });
                (entry, Cursor::Negotiations(None))
            }
            Cursor::Negotiations(after) => {
                let Some(opened) = self.ownership.negotiation_after(self.local(), after) else {
                    return (None, Cursor::Sas(None));
                };
                let cookie = opened.negotiation.local_cookie;
                let entry = self.gate.is_mirrored(&cookie).then(|| {
                    let change = Change::NegotiationOpened {
                        negotiation: opened.negotiation,
                        lifetime: opened.remaining(now),
                    };
                    encode_entry(Stamp::default(), opened.slot, &change)
                });
                (entry, Cursor::Negotiations(Some(cookie)))
            }
            Cursor::Sas(after) => {
                let Some(held) = self.ownership.sa_after(after, &snapshot.scope.slots) else {
                    return (None, Cursor::Done);
                };
                let entry = encode_sa_entry(held.written, held.slot, &held.sa);
                (Some(entry), Cursor::Reservations(held.sa.local_spi))
            }
            Cursor::Reservations(local_spi) => {
                let entry = self.reservation_entry(local_spi);
                (entry, Cursor::Sas(Some(local_spi)))
            }
            Cursor::Done => (None, Cursor::Done),
        }
    }

    /// A peer says how much of a snapshot it has taken. `true` if that was the end of it.
    pub(crate) fn snapshot_taken(&mut self, member: MemberId, taken: Taken) -> bool {
        let Some(peer) = self.peers.get_mut(&member) else {
            return false;
        };
        let out = &mut peer.out;
        let Some(snapshot) = out.snapshot.as_mut().filter(|s| s.number == taken.snapshot) else {
            return false;
        };
        snapshot.land(taken.entries);
        if !(taken.complete && snapshot.end_sent) {
            return false;
        }
        if snapshot.scope.fills.is_none() {
            out.refeed = out.refeed.difference(&snapshot.scope.slots);
            out.complete = true;
        }
        out.snapshot = None;
        true
    }

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
            .get_or_insert_with(|| StreamIn::new(run, seq));
        if stream.run != run || stream.expected() != seq.next() {
            // What lies between is contained in the snapshot only.
            let before = std::mem::replace(stream, StreamIn::new(run, seq));
            stream.refeed = before.refeed;
            stream.void = before.void.filter(|_| before.run == run);
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
            Change::SaUpsert(sa) if self.accepts(member, &scope, slot) => {
                let writer = match scope.fills {
                    Some(_) => Writer::Stream,
                    None => Writer::Snapshot,
                };
                self.take_sa(writer, slot, sa, written);
            }
            Change::Checkpoints(checkpoints) if self.accepts(member, &scope, slot) => {
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

    /// Whether an entry of a snapshot of `member` counts: it stands for its slot, and this member
    /// does not know better.
    fn accepts(&self, member: MemberId, scope: &Scope, slot: Slot) -> bool {
        scope.slots.contains(slot)
            && !self.knows_better(member, scope, slot)
            && !self.is_void(member, scope)
    }

    /// Its own slots, and those that `member` gave up before this member was level: their owner of
    /// now has written since.
    fn knows_better(&self, member: MemberId, scope: &Scope, slot: Slot) -> bool {
        let level = self.levelled >= scope.epoch && self.view.epoch == scope.epoch;
        let given_up = self.slots().owner(slot) != Some(member);
        self.ready.contains(slot) || (scope.fills.is_none() && level && given_up)
    }

    /// Whether `member` is out of the view: what it thinks it owns does not count.
    fn is_void(&self, member: MemberId, scope: &Scope) -> bool {
        let checked = !self.config.limits.mutations.no_epoch_check;
        let stream = self
            .peers
            .get(&member)
            .and_then(|p| p.incoming.stream.as_ref());
        checked
            && stream.is_some_and(|stream| {
                let known = scope.epoch <= self.view.epoch;
                stream.void.is_some() || known && !self.view.admits(member, stream.run)
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
            snapshot: snapshot.number,
            entries: snapshot.entries,
            complete: true,
        });
        let scope = snapshot.scope;
        let void = self.is_void(member, &scope);
        let (epoch, ready) = (self.view.epoch, self.ready);
        let all = (0..=u8::MAX).map(Slot);
        let better: SlotSet = all
            .filter(|slot| self.knows_better(member, &scope, *slot))
            .collect();
        if let Some(reached) = scope.fills {
            self.ownership.sweep(snapshot.sweep, &scope.slots, |held| {
                held.written.epoch >= epoch || ready.contains(held.slot)
            });
            self.fill(reached);
        } else {
            if !void {
                self.ownership.sweep(snapshot.sweep, &scope.slots, |held| {
                    better.contains(held.slot)
                });
                self.note_told(&scope);
            }
            self.ownership
                .retain_negotiations(member, &snapshot.negotiations);
            self.fed(member, scope.epoch);
        }
        self.event(Event::SnapshotApplied {
            member,
            entries: announced,
        });
        self.level(now);
        Ok(())
    }

    /// Between members of a view levelling brings order into their streams. Who is out of it may hear
    /// what earlier owners wrote after what the present one told, if they come back late.
    fn note_told(&mut self, scope: &Scope) {
        if self.admitted() || self.view.is_static() || scope.epoch != self.view.epoch {
            return;
        }
        for slot in scope.slots.iter() {
            self.told[usize::from(slot.0)] = scope.epoch;
        }
    }

    fn fed(&mut self, member: MemberId, epoch: Epoch) {
        let stream = self.peers.get_mut(&member).map(|p| &mut p.incoming.stream);
        if let Some(Some(stream)) = stream {
            stream.base = true;
            stream.fed = epoch;
        }
    }
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

/// A run of a member.
pub(crate) type Run = (MemberId, Incarnation);
