//! What happens in a world.

use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::membership::{LinkId, Sender};
use gateway_cluster::secret::Secret;
use gateway_common::member::MemberId;
use gateway_ike::output::Path;

use super::esp::Packet;

/// Something that happens at a time.
pub(super) enum Event {
    /// The agent's timer, of its `run`.
    AgentTimer {
        member: MemberId,
        run: u64,
    },
    /// A pause is over.
    Resume {
        member: MemberId,
        run: u64,
    },
    /// An agent (and its host, if it is off) starts.
    Start {
        member: MemberId,
    },
    /// An IKE datagram at a member's public interface; `hops` of steering lie behind it.
    IkeAtMember {
        member: MemberId,
        path: Path,
        bytes: Vec<u8>,
        hops: u8,
    },
    IkeAtPeer {
        peer: usize,
        bytes: Vec<u8>,
    },
    EspAtMember {
        member: MemberId,
        peer: usize,
        packet: Packet,
        hops: u8,
    },
    EspAtPeer {
        peer: usize,
        packet: Packet,
    },
    /// Cleartext for a peer's network at a member's inside interface.
    ClearAtMember {
        member: MemberId,
        peer: usize,
        count: u64,
        hops: u8,
    },
    Heartbeat {
        from: Sender,
        to: Sender,
        link: LinkId,
        octets: Arc<[u8]>,
    },
    /// A frame of the sync connection number `connection`.
    Frame {
        from: MemberId,
        to: MemberId,
        connection: u64,
        frame: Arc<Secret>,
    },
    /// The transport tries again to deliver what it could not.
    Retry {
        from: MemberId,
        to: MemberId,
        connection: u64,
    },
    /// A pair tries to connect.
    Dial {
        a: MemberId,
        b: MemberId,
    },
    /// The end of sync connection number `connection` reaches a member.
    Hangup {
        member: MemberId,
        other: MemberId,
        connection: u64,
    },
    PeerTimer {
        peer: usize,
    },
    /// A peer does something.
    PeerActs {
        peer: usize,
    },
    /// Some traffic both ways.
    Traffic {
        peer: usize,
    },
    /// Somebody sends forged datagrams.
    Junk,
    Fault(Fault),
    /// A fault ends.
    Heal(Cut),
    Undrain {
        member: MemberId,
    },
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; the kernel goes on until the agent starts again.
    KillAgent(Duration),
    /// Power off.
    CrashHost(Duration),
    /// SIGSTOP.
    Pause(Duration),
    /// The main loop stands still, the membership's thread does not.
    Slow(Duration),
    /// The host's clock jumps ahead.
    ClockJump(Duration),
    Cut(CutKind, Duration),
    Drain(Duration),
    RestartWitness,
    /// Two crashes in a row, the second so long after the first.
    TwoCrashes(Duration),
    /// One of three is cut off, so that the other two go on without it.
    Sides,
    /// Somebody rekeys a CHILD_SA under traffic, and may fail while it does.
    Rekeying,
    /// Power off, of this one.
    LossOf(MemberId),
    /// Then the one and the first of the two change places, and the agent of the second, on whose
    /// vote it depends who goes on, starts anew at once.
    ChangeSides {
        first: MemberId,
        second: MemberId,
    },
}

/// What kind of cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutKind {
    /// One member from all others, everything.
    Isolate,
    /// Into two groups, everything.
    Split,
    /// One direction between two members, everything.
    OneWay,
    /// Two members from each other, everything.
    Pair,
    /// The sync channel of two members, heartbeats alive.
    Sync,
    /// All heartbeats of one member, sync channel alive.
    Heartbeats,
    /// The sync network of one member; heartbeats have another interface.
    SyncNetwork,
    /// One member from the peers.
    Public,
}

/// A cut in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) number: u64,
}
