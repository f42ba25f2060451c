//! What this member knows about another one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;

use crate::config::Limits;
use crate::feed::SnapshotOut;
use crate::frame::{DeltaSeq, Incarnation, Position, Taken};
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::snapshot::SnapshotIn;
use crate::status::{FullSync, PeerCounters, QueuePeaks};
use crate::stream::StreamIn;
use crate::view::Epoch;

/// A peer that was late again and again is given at most 2 to this power times as long.
const MOST_DOUBLINGS: u32 = 4;

/// How far the conversation with a peer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// No connection.
    #[default]
    Down,
    /// Connected, our hello is sent, the peer's has not come.
    Greeting,
    /// Hellos were exchanged and fit.
    Up,
}

/// Something sent and not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) seq: DeltaSeq,
    pub(crate) bytes: usize,
    pub(crate) sent_at: Instant,
}

/// The state of one peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) link: Link,
    pub(crate) out: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) protocol: u16,
    pub(crate) config_differs: bool,
    // Liveness.
    pub(crate) heard: Instant,
    pub(crate) ping: Option<(u64, Instant)>,
    /// When it was last asked because it owes an acknowledgement.
    pub(crate) nudged: Instant,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) counters: PeerCounters,
    pub(crate) peaks: QueuePeaks,
}

/// Our stream to a peer.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// What it has acknowledged; `None` if it has to begin with a snapshot.
    pub(crate) acked: Option<DeltaSeq>,
    /// The view that it had installed then.
    pub(crate) ack_epoch: Epoch,
    /// What it acknowledged in a view that is not later than ours: only that counts for release.
    pub(crate) confirmed: DeltaSeq,
    /// Acknowledgements below are of before a new beginning.
    pub(crate) base: DeltaSeq,
    /// Sent on this connection, or contained in what was sent.
    pub(crate) sent: DeltaSeq,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) in_flight_bytes: usize,
    pub(crate) snapshot: Option<SnapshotOut>,
    /// Snapshots begun on this connection.
    pub(crate) snapshots: u64,
    /// It has to be told what is in `refeed`, for this reason. Nobody inside the view is: who would
    /// have to be is reported as lagging.
    pub(crate) due: Option<FullSync>,
    /// Slots of ours whose content it does not know.
    pub(crate) refeed: SlotSet,
    /// Outside the view: it has been told everything in this one. Inside: it hears our stream
    /// without gap since then.
    pub(crate) complete: bool,
    /// It has once acknowledged everything since then.
    pub(crate) caught: bool,
    pub(crate) lagging: bool,
    /// How often it was late lately, and when it was last.
    pub(crate) lapses: (u32, Instant),
    /// It is not called late before: this member had no time itself to read what it said.
    pub(crate) excused: Instant,
    /// The last epoch in which it is level.
    pub(crate) levelled: Epoch,
    pub(crate) reason: Option<FullSync>,
}

/// A peer's stream to us.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// Its run at the other end of this connection.
    pub(crate) run: Option<Incarnation>,
    /// Outlives the connection.
    pub(crate) stream: Option<StreamIn>,
    pub(crate) snapshot: Option<SnapshotIn>,
    pub(crate) taken: Option<Taken>,
    pub(crate) ack_due: bool,
}

impl Peer {
    /// Forgets what belongs to a connection.
    pub(crate) fn reset(&mut self, now: Instant, link: Link) {
        self.link = link;
        let out = &mut self.out;
        out.sent = out.acked.unwrap_or_default();
        out.in_flight.clear();
        out.in_flight_bytes = 0;
        out.snapshot = None;
        out.snapshots = 0;
        out.caught = false;
        out.lagging = false;
        let incoming = &mut self.incoming;
        incoming.run = None;
        incoming.snapshot = None;
        incoming.taken = None;
        incoming.ack_due = false;
        if let Some(stream) = &mut incoming.stream {
            stream.forget_held();
        }
        self.heard = now;
        self.ping = None;
        self.round_trip = None;
    }

    /// It is connected and has all that we own, as far as that has been released.
    pub(crate) fn in_sync(&self) -> bool {
        let out = &self.out;
        self.link == Link::Up && out.complete && out.caught && !out.lagging && out.due.is_none()
    }

    /// The run that is heard, or that was heard last.
    pub(crate) fn run(&self) -> Option<Incarnation> {
        let stream = self.incoming.stream.as_ref();
        self.incoming.run.or(stream.map(|stream| stream.run))
    }

    /// What we have applied of its stream, if that is all up to there.
    pub(crate) fn received(&self) -> Option<Position> {
        let stream = self.incoming.stream.as_ref();
        stream.filter(|s| s.base).map(StreamIn::position)
    }
}

impl Outgoing {
    /// Whether its acknowledgements are of what was sent since the last new beginning. A snapshot may
    /// be complete before the first of them: deltas that a member holds until it is level count as
    /// received for the snapshot, and are acknowledged later.
    pub(crate) fn has_begun(&self) -> bool {
        self.acked.is_some() || self.snapshot.is_some() || self.complete
    }

    /// The first delta that may be dropped from the outbox is not above this; `None` if the peer
    /// needs none because it gets a snapshot anyway.
    pub(crate) fn needs_after(&self) -> Option<DeltaSeq> {
        self.acked.or(self.has_begun().then_some(self.base))
    }

    /// How long what was sent at `sent` may stay unacknowledged.
    pub(crate) fn patience(&self, sent: Instant, limits: &Limits) -> Duration {
        limits.ack_timeout * (1 << self.recent_lapses(sent, limits).min(MOST_DOUBLINGS))
    }

    /// Notes that it is late.
    pub(crate) fn lapse(&mut self, now: Instant, limits: &Limits) {
        self.lagging = true;
        self.caught = false;
        self.lapses = (self.recent_lapses(now, limits) + 1, now);
    }

    fn recent_lapses(&self, at: Instant, limits: &Limits) -> u32 {
        let (lapses, last) = self.lapses;
        if at < last + limits.forgiven_after {
            lapses
        } else {
            0
        }
    }

    /// When the oldest delta that was sent and not acknowledged was sent.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.sent_at)
    }

    /// Notes a delta as sent.
    pub(crate) fn fly(&mut self, seq: DeltaSeq, frame: &Arc<Secret>, now: Instant) {
        self.sent = seq;
        self.in_flight_bytes += frame.len();
        self.in_flight.push_back(InFlight {
            seq,
            bytes: frame.len(),
            sent_at: now,
        });
    }

    /// Takes what `seq` acknowledges out of flight and measures the round trip.
    pub(crate) fn land(&mut self, seq: DeltaSeq, now: Instant) -> Option<Duration> {
        let mut round_trip = None;
        while let Some(oldest) = self.in_flight.front()
            && oldest.seq <= seq
        {
            self.in_flight_bytes -= oldest.bytes;
            round_trip = Some(now.saturating_since(oldest.sent_at));
            self.in_flight.pop_front();
        }
        round_trip
    }

    /// It lacks something that no queue has any more: it has to be told everything, which is not
    /// possible inside the view.
    pub(crate) fn gap(&mut self, reason: FullSync) {
        self.acked = None;
        self.snapshot = None;
        self.complete = false;
        self.caught = false;
        self.due = Some(reason);
    }

    /// The peer has to begin again with a snapshot, and goes on after `seq`.
    pub(crate) fn start_over(&mut self, seq: DeltaSeq) {
        self.acked = None;
        self.base = seq;
        self.sent = seq;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.complete = false;
        self.caught = false;
    }
}
