//! What this member knows about another one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;

use crate::frame::{DeltaSeq, Incarnation, Position};
use crate::ownership::Announcement;
use crate::secret::Secret;
use crate::status::PeerCounters;

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

/// Whether messages wait for the peer's acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They do not.
    #[default]
    Out,
    /// They do not; they will as soon as it has acknowledged `target`.
    CatchingUp {
        target: DeltaSeq,
        /// It lagged: one answer in time is needed before it is trusted again.
        suspect: bool,
    },
    /// They do, but it has not acknowledged all that left before they did.
    Joining { until: DeltaSeq },
    /// They do, and it has everything that ever left.
    InSync,
}

impl Standing {
    pub(crate) const fn blocks(self) -> bool {
        matches!(self, Self::Joining { .. } | Self::InSync)
    }
}

/// Something sent and not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) seq: DeltaSeq,
    pub(crate) bytes: usize,
    pub(crate) sent_at: Instant,
}

/// A snapshot on its way to the peer.
#[derive(Debug)]
pub(crate) struct SnapshotOut {
    /// What it contains the effect of.
    pub(crate) seq: DeltaSeq,
    /// Entries not sent yet.
    pub(crate) rest: VecDeque<Arc<Secret>>,
    /// Sizes of the entries sent and not acknowledged.
    pub(crate) in_flight: VecDeque<usize>,
    pub(crate) in_flight_bytes: usize,
    /// Number of entries, and how many of them are acknowledged.
    pub(crate) entries: u64,
    pub(crate) acked: u64,
    pub(crate) end_sent: bool,
}

/// A snapshot on its way from the peer.
#[derive(Debug)]
pub(crate) struct SnapshotIn {
    pub(crate) seq: DeltaSeq,
    pub(crate) entries: Vec<Announcement>,
}

/// The state of one peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) link: Link,
    // Our stream to it.
    pub(crate) standing: Standing,
    /// What it has of our stream, if that is known; outlives the connection.
    pub(crate) acked: Option<DeltaSeq>,
    /// Sent on this connection, or contained in what was sent.
    pub(crate) sent: DeltaSeq,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) in_flight_bytes: usize,
    pub(crate) snapshot_out: Option<SnapshotOut>,
    // Its stream to us.
    /// Its run at the other end of this connection.
    pub(crate) run: Option<Incarnation>,
    /// What we have of that run's stream: nothing before its first snapshot is applied, because
    /// entries of an earlier run may be left to replace. Outlives the connection.
    pub(crate) received: Option<Position>,
    pub(crate) snapshot_in: Option<SnapshotIn>,
    pub(crate) ack_due: bool,
    pub(crate) config_differs: bool,
    // Liveness.
    pub(crate) heard: Instant,
    pub(crate) ping: Option<(u64, Instant)>,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) counters: PeerCounters,
}

impl Peer {
    /// Forgets what belongs to a connection.
    pub(crate) fn reset(&mut self, now: Instant, link: Link) {
        self.link = link;
        self.standing = Standing::Out;
        self.sent = self.acked.unwrap_or_default();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.snapshot_out = None;
        self.run = None;
        self.snapshot_in = None;
        self.ack_due = false;
        self.heard = now;
        self.ping = None;
        self.round_trip = None;
    }

    /// The first delta that may be dropped from the outbox is not above this; `None` if the peer
    /// needs none because it gets a snapshot anyway.
    pub(crate) fn needs_after(&self) -> Option<DeltaSeq> {
        match &self.snapshot_out {
            Some(snapshot) => Some(snapshot.seq),
            None => self.acked,
        }
    }

    /// When the oldest delta that was sent and not acknowledged was sent.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.sent_at)
    }

    /// Notes a delta as sent.
    pub(crate) fn fly(&mut self, seq: DeltaSeq, bytes: usize, now: Instant) {
        self.sent = seq;
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            seq,
            bytes,
            sent_at: now,
        });
    }

    /// Takes what `seq` acknowledges out of flight and measures the round trip.
    pub(crate) fn land(&mut self, seq: DeltaSeq, now: Instant) {
        while let Some(oldest) = self.in_flight.front()
            && oldest.seq <= seq
        {
            self.in_flight_bytes -= oldest.bytes;
            self.round_trip = Some(now.saturating_since(oldest.sent_at));
            self.in_flight.pop_front();
        }
    }
}

impl SnapshotOut {
    pub(crate) fn new(seq: DeltaSeq, entries: VecDeque<Arc<Secret>>) -> Self {
        Self {
            seq,
            entries: entries.len() as u64,
            rest: entries,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            acked: 0,
            end_sent: false,
        }
    }

    /// Takes the entries that `count` (cumulative) acknowledges out of flight.
    pub(crate) fn land(&mut self, count: u64) {
        while self.acked < count
            && let Some(bytes) = self.in_flight.pop_front()
        {
            self.in_flight_bytes -= bytes;
            self.acked += 1;
        }
    }
}
