//! Telling a member outside the view what is in this one's slots, entry by entry while changes go on.

use std::collections::VecDeque;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, Cookie, Stamp};
use crate::cluster::Cluster;
use crate::frame::{Frame, Scope, Taken, encode_entry, encode_sa_entry};
use crate::output::Event;
use crate::peer::Link;
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::status::FullSync;

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
    number: u64,
    scope: Scope,
    cursor: Cursor,
    /// Sizes of the entries sent and not acknowledged.
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    entries: u64,
    acked: u64,
    pub(crate) end_sent: bool,
}

impl SnapshotOut {
    const fn new(number: u64, scope: Scope) -> Self {
        Self {
            number,
            scope,
            cursor: Cursor::CookieSecret,
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
    /// Begins the snapshot that a peer needs, if this member may tell it anything by now: the peer
    /// has installed the view, too, and is outside, and this member knows all that is in its slots.
    pub(crate) fn start_snapshot(&mut self, member: MemberId) {
        if !self.may_feed() || self.is_inside(member) {
            return;
        }
        let (epoch, flushed) = (self.view.epoch, self.outbox.flushed());
        let owned = self.owned();
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        // In an earlier view it may still serve slots that are not its own any more.
        let ready = peer.link == Link::Up && out.ack_epoch == epoch;
        if out.snapshot.is_some() || !ready {
            return;
        }
        let Some(reason) = out.due.take() else {
            return;
        };
        if out.acked.is_none() {
            out.start_over(flushed);
            out.refeed = owned;
        }
        out.reason = Some(reason);
        out.snapshots += 1;
        let (snapshot, seq) = (out.snapshots, out.sent);
        let slots = out.refeed;
        let scope = Scope { epoch, slots };
        out.snapshot = Some(SnapshotOut::new(snapshot, scope));
        let begin = Frame::SnapshotBegin {
            snapshot,
            seq,
            scope,
        };
        self.send(member, begin.encode());
        self.event(Event::FullSync { member, reason });
    }

    /// Sends what the window allows of the snapshot under way.
    pub(crate) fn pump_snapshot(&mut self, now: Instant, member: MemberId) {
        let window = self.config.limits.snapshot_window_bytes;
        loop {
            let Some(snapshot) = self
                .peers
                .get(&member)
                .and_then(|p| p.out.snapshot.as_ref())
            else {
                return;
            };
            let full = !snapshot.in_flight.is_empty() && snapshot.in_flight_bytes >= window;
            if snapshot.end_sent || full {
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

    /// A peer says how much of a snapshot it has taken.
    pub(crate) fn snapshot_taken(&mut self, member: MemberId, taken: Taken) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        let Some(snapshot) = out.snapshot.as_mut().filter(|s| s.number == taken.snapshot) else {
            return;
        };
        snapshot.land(taken.entries);
        if taken.complete && snapshot.end_sent {
            out.snapshot = None;
            out.refeed = SlotSet::EMPTY;
            out.complete = true;
        }
    }

    /// What a peer has of our stream says what it needs: outside the view what changed hands, or
    /// everything if it has nothing to build on. Inside it has to have all.
    pub(crate) fn plan_snapshot(&mut self, member: MemberId, nothing: Option<FullSync>) {
        let inside = self.is_inside(member);
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        if let Some(reason) = nothing {
            out.gap(reason);
        } else if !inside {
            out.complete = false;
            out.due = Some(FullSync::SlotsMoved);
        } else if !out.complete {
            out.gap(FullSync::Incomplete);
        }
    }
}
