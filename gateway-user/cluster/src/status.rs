//! What `gatewayctl members`, `gatewayctl sync` and the counters show.

use std::fmt;
use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use crate::frame::{DeltaSeq, Position};
use crate::view::Epoch;

/// Counts per peer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Deltas sent for the first time.
    pub deltas_sent: u64,
    /// Deltas sent again after a reconnect.
    pub deltas_resent: u64,
    /// Deltas of the peer applied.
    pub deltas_received: u64,
    /// Deltas of the peer that had been applied before.
    pub deltas_duplicate: u64,
    /// Snapshots sent completely.
    pub snapshots_sent: u64,
    /// Snapshots of the peer applied.
    pub snapshots_received: u64,
    /// Times it did not acknowledge in time.
    pub lagged: u64,
    /// Times it was asked for a sign of life because it owed an acknowledgement: about how often the
    /// network loses something.
    pub nudged: u64,
    /// Times it went on where it was after a reconnect, with deltas that it had missed.
    pub resumptions: u64,
    /// Times a connection came up.
    pub connections: u64,
    /// Connections closed because of what it sent.
    pub protocol_errors: u64,
    /// Datagrams relayed to it.
    pub relayed_out: u64,
    /// Datagrams relayed by it.
    pub relayed_in: u64,
    /// Its half-open entries that were not kept.
    pub half_open_refused: u64,
}

/// The most that a queue has held since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePeaks {
    /// Deltas.
    pub deltas: usize,
    /// Octets.
    pub octets: usize,
}

impl QueuePeaks {
    pub(crate) fn note(&mut self, deltas: usize, octets: usize) {
        self.deltas = self.deltas.max(deltas);
        self.octets = self.octets.max(octets);
    }
}

/// How far a peer is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Deltas that it has not acknowledged.
    pub deltas: u64,
    /// Octets sent to it and not acknowledged.
    pub octets: usize,
    /// When the oldest delta that it has not acknowledged was sent to it.
    pub since: Option<Instant>,
}

/// Why a peer was sent everything in some slots instead of the deltas that it lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullSync {
    /// It had nothing.
    Joined,
    /// It had deltas of an earlier run of this member only.
    Restarted,
    /// What it lacked was not in the queue any more.
    QueueOverrun,
    /// The view changed while it was outside.
    SlotsMoved,
    /// It was inside the view without all that it had to know there.
    Incomplete,
}

impl fmt::Display for FullSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => f.write_str("it joined"),
            Self::Restarted => f.write_str("this member was restarted"),
            Self::QueueOverrun => f.write_str("what it missed was not in the queue any more"),
            Self::SlotsMoved => f.write_str("the view changed while it was outside"),
            Self::Incomplete => f.write_str("it was in the view without all that it had to know"),
        }
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub member: MemberId,
    /// Hellos were exchanged and fit.
    pub connected: bool,
    /// It has been told everything, has once acknowledged all of it, and acknowledges in time.
    pub in_sync: bool,
    /// The level of the protocol that it speaks ([`crate::frame::PROTOCOL`]).
    pub protocol: u16,
    /// Its configuration differs in what has to be alike.
    pub config_differs: bool,
    /// Number of the last delta sent to it, or contained in what was sent.
    pub sent: DeltaSeq,
    /// Number of the last delta that it acknowledged.
    pub acknowledged: DeltaSeq,
    /// How far it is behind.
    pub lag: Lag,
    /// The most that was sent to it and not acknowledged.
    pub peaks: QueuePeaks,
    /// Why it was last sent everything.
    pub last_full_sync: Option<FullSync>,
    /// Everything that it owns is known here.
    pub complete: bool,
    /// Last delta of its stream that was applied here.
    pub received: Option<Position>,
    /// Last measured time from a delta or probe to its answer.
    pub round_trip: Option<Duration>,
    /// Slots that it owns.
    pub slots: usize,
    /// Counts.
    pub counters: PeerCounters,
}

/// This member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who.
    pub member: MemberId,
    /// Slots that it owns.
    pub slots: usize,
    /// The installed view.
    pub epoch: Epoch,
    /// The last view in which this member is level.
    pub levelled: Epoch,
    /// Number of the last delta published.
    pub published: DeltaSeq,
    /// Number of the last delta released.
    pub released: DeltaSeq,
    /// Deltas kept for peers that have not got them, and their octets.
    pub retained: (usize, usize),
    /// The most that were ever kept.
    pub peaks: QueuePeaks,
    /// Half-open negotiations of this member in the tables.
    pub half_open: usize,
    /// Half-open negotiations that were kept from the other members by rate or threshold.
    pub half_open_suppressed: u64,
    /// Half-open negotiations that were not even kept here.
    pub half_open_refused: u64,
    /// The others, by id.
    pub peers: Vec<PeerStatus>,
}
