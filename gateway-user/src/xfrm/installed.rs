//! What the books hold of a CHILD_SA.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use gateway_common::slot::Slot;
use gateway_ike::output::ChildSa;

use super::child::outbound;
use super::replay::{EVENT_EVERY_OUT, Position};
use super::types::{PolicyKey, Replay, Sa, SaId};

/// What is installed of one child.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) sa_in: SaId,
    pub(super) reqid_in: u32,
    pub(super) keys_in: Vec<PolicyKey>,
    /// Absent on a replica that only decrypts.
    pub(super) out: Option<Outbound>,
    pub(super) path: Path,
    pub(super) replay: Replay,
    pub(super) kin: u64,
    /// Highest number that the inbound SA was put at.
    pub(super) stands_in: u64,
    /// Installed as this member's own, and not made a copy since.
    pub(super) owned: bool,
    /// For the outbound SA of a copy: how often its slot had been gained when the books last knew
    /// where it stands. `None`, or another number now: it may have sent on its own.
    pub(super) quiet_since: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) sa: SaId,
    pub(super) reqid: u32,
    pub(super) keys: Vec<PolicyKey>,
    /// Highest number that it was put at.
    pub(super) stands: u64,
    pub(super) event_every: u32,
    /// Low word of the ceiling of its numbers, as far as known.
    pub(super) ceiling: u32,
}

/// What of a child can change while it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) remote: IpAddr,
    pub(super) encap: Option<(u16, u16)>,
    pub(super) slot: Slot,
}

impl Path {
    pub(super) const fn of(child: &ChildSa) -> Self {
        Self {
            remote: child.remote,
            encap: child.encap,
            slot: child.slot,
        }
    }
}

/// Where the SAs of a child start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Last outbound number used up.
    pub(super) sequence_out: u64,
    /// Highest inbound number that is not to be let in; 0 = none.
    pub(super) sequence_in: u64,
    /// Last outbound number reserved.
    pub(super) ceiling: u64,
    /// Packets between events of the outbound SA.
    pub(super) event_every: u32,
}

impl Start {
    /// Of an own child whose outbound numbers up to `sequence_out` are used up.
    pub(super) const fn after(sequence_out: u64) -> Self {
        Self {
            sequence_out,
            sequence_in: 0,
            ceiling: sequence_out,
            event_every: EVENT_EVERY_OUT,
        }
    }

    pub(super) fn inbound(self) -> Position {
        match self.sequence_in {
            0 => Position::default(),
            sequence => Position::received(sequence),
        }
    }
}

impl Installed {
    /// Whether it has both SAs.
    pub(super) const fn is_full(&self) -> bool {
        self.out.is_some()
    }
}

pub(super) fn sa_out(child: &ChildSa, reqid: u32, start: &Start) -> Sa {
    Sa {
        start: Position::sent(start.sequence_out),
        event_every: start.event_every,
        ..outbound(child, reqid)
    }
}

/// Equal for the generations of one CHILD_SA.
pub(super) fn kinship(child: &ChildSa) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&child.connection, &child.name, child.remote, child.local).hash(&mut hasher);
    (&child.local_ts, &child.remote_ts).hash(&mut hasher);
    hasher.finish()
}
