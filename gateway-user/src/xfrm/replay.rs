//! Where the sequence numbers of SAs stand, how they are moved, and when the kernel tells of them.
//!
//! XFRM knows two layouts: `xfrm_replay_state` (32-bit numbers, a window of at most 32 packets) and
//! `xfrm_replay_state_esn` (everything else). Which one an SA has is decided when it is installed.

use serde::Serialize;

use super::types::{Replay, SaId};

/// Packets after which a new outbound SA tells where it stands, owner's and copy's alike: a quarter
/// of the smallest reservation (16,384 numbers), so that half of it is noticed before three
/// quarters are gone. See [`super::Tunnels::pace`] for larger reservations.
pub const EVENT_EVERY_OUT: u32 = 4096;

/// Packets after which an inbound SA tells where it stands. Coarse: a late inbound checkpoint only
/// widens what [`InboundPolicy::Learn`] lets be replayed, and every replica carries it out.
pub const EVENT_EVERY_IN: u32 = 16_384;

/// The same under [`InboundPolicy::Strict`], whose price is counted in these.
pub const EVENT_EVERY_IN_STRICT: u32 = 256;

/// What a member that takes over does about packets that the former owner may have received after
/// its last inbound checkpoint (RFC 6027 §3.3.3). In each of them what lies at or below the checkpoint
/// is refused, and so is a packet that the new owner itself has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundPolicy {
    /// The window stands at the checkpoint and follows the traffic. No packet of the peer is lost;
    /// a packet that came after the checkpoint ([`EVENT_EVERY_IN`] at most, and what the checkpoint
    /// took to get here) can be replayed once.
    #[default]
    Learn,
    /// The window stands two checkpoint intervals ([`EVENT_EVERY_IN_STRICT`]) ahead of the
    /// checkpoint: what the former owner may have received is refused, unless checkpoints were
    /// later than that. Up to twice the interval of the peer's packets are lost at a takeover, and a
    /// slow peer stays unheard until its SA is rekeyed: whoever sets this rekeys after a takeover.
    Strict,
    /// As `Learn` in the kernel; the new owner rekeys at once, which ends what can be replayed.
    Rekey,
}

impl InboundPolicy {
    /// Where the window of a copy stands for a checkpoint at `sequence_in` (0 = none was made).
    pub(super) fn window_top(self, sequence_in: u64) -> u64 {
        match self {
            Self::Learn | Self::Rekey => sequence_in,
            Self::Strict => sequence_in.saturating_add(2 * u64::from(EVENT_EVERY_IN_STRICT)),
        }
    }

    pub(super) const fn event_every(self) -> u32 {
        match self {
            Self::Learn | Self::Rekey => EVENT_EVERY_IN,
            Self::Strict => EVENT_EVERY_IN_STRICT,
        }
    }
}

/// Which packets of an anti-replay window count as received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// None: a new SA.
    #[default]
    Nothing,
    /// All: nobody here knows which, so none is let in again.
    All,
    /// These, in the kernel's own layout, as it was read from an SA with the same window.
    Bitmap(Vec<u32>),
}

impl Seen {
    /// The word at `index` of the bitmap.
    pub(super) fn word(&self, index: usize) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::All => u32::MAX,
            Self::Bitmap(words) => words.get(index).copied().unwrap_or(u32::MAX),
        }
    }
}

/// Where an SA stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Last sequence number sent; without ESN below 2³², more stands for "none left".
    pub sequence_out: u64,
    /// Highest sequence number received; without ESN below 2³².
    pub sequence_in: u64,
    /// What of the window beneath it was received.
    pub seen: Seen,
}

impl Position {
    /// Of an outbound SA that goes on after `sequence`.
    pub const fn sent(sequence: u64) -> Self {
        Self {
            sequence_out: sequence,
            sequence_in: 0,
            seen: Seen::Nothing,
        }
    }

    /// Of an inbound SA that takes nothing up to `sequence`.
    pub const fn received(sequence: u64) -> Self {
        Self {
            sequence_out: 0,
            sequence_in: sequence,
            seen: Seen::All,
        }
    }

    /// The numbers as the wire has them: without ESN they end at 2³² − 1, where XFRM sends nothing
    /// more (RFC 4303 §3.3.3: it must not cycle).
    pub(super) fn fitted(&self, replay: Replay) -> (u64, u64) {
        let limit = if replay.esn {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        (self.sequence_out.min(limit), self.sequence_in.min(limit))
    }
}

/// Puts an installed SA somewhere else (`XFRM_MSG_NEWAE`). The kernel does it whatever the SA has
/// sent meanwhile, also backwards: only for SAs whose packets nobody lets out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub id: SaId,
    /// Window and kind of its sequence numbers, as it was installed.
    pub replay: Replay,
    /// Where to.
    pub position: Position,
}

/// What an SA answers about its sequence numbers (`XFRM_MSG_GETAE`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standpoint {
    /// Where it stands.
    pub position: Position,
    /// Packets between two of its events; 0 = none.
    pub event_every: u32,
    /// Whether it also tells by the clock, which ours never do: a timer that was switched off after
    /// it had gone idle makes the kernel tell of every single packet.
    pub timed: bool,
}

/// When an outbound SA has to tell, for `reserved` numbers: a quarter, within what is useful. 0: it
/// is not known yet how many.
pub(super) fn event_every(reserved: u64) -> u32 {
    if reserved == 0 {
        return EVENT_EVERY_OUT;
    }
    let quarter = (reserved / 4).clamp(64, 1 << 24);
    quarter as u32
}
