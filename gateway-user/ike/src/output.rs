//! The engine's effects, as values.

use std::net::{IpAddr, SocketAddr};

use gateway_common::{slot::Slot, time::Instant};

use crate::config::Authorization;
use crate::crypto::Encryption;
use crate::mark::Marks;
use crate::secret::SecretBytes;

/// One effect. They come out of one queue, and their order is part of the contract: the driver
/// carries them out in this order.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Change the kernel's SAs; answered with
    /// `Endpoint::handle_kernel`.
    Kernel(KernelRequest),
    /// Replicated state changed: mirror it.
    Delta(Delta),
    /// Ask somebody whether a peer is let in; answered with `Command::Decided`.
    Decide(Box<Question>),
    /// Something an operator wants to know.
    Event(Event),
}

/// Names a [`Question`]; tells it apart from all others of the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionHandle {
    /// Our SPI of the negotiation, network order.
    pub local_spi: [u8; 8],
    /// Message ID of the request that waits.
    pub message_id: u32,
}

/// Whether a peer that has proved who it is may have an IKE SA. Its request waits for
/// `Command::Decided`; who never decides, refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// To be given back with the answer.
    pub handle: DecisionHandle,
    /// Who is to be asked, and how long.
    pub authorization: Authorization,
    /// Name of the connection.
    pub connection: String,
    /// The identity that the peer has proved, as text.
    pub remote_id: String,
    /// Ours, as text.
    pub local_id: String,
    /// Where the request came from.
    pub path: Path,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer is let in.
    Accept,
    /// It gets AUTHENTICATION_FAILED.
    Refuse {
        /// For the log; the peer is not told.
        reason: String,
    },
}

/// Where a datagram came from or goes to. The local port says whether it needs the non-ESP marker
/// (4500); the engine never sees or writes the marker itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address (a VIP) and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl Path {
    /// The way back.
    pub const fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote }
    }

    /// Our address and the peer's.
    pub const fn ends(&self) -> (IpAddr, IpAddr) {
        (self.local.ip(), self.remote.ip())
    }
}

/// A datagram to send.
#[derive(Debug)]
pub struct Transmit {
    /// Over which addresses and ports.
    pub path: Path,
    /// The IKE message, without non-ESP marker; or [`crate::wire::NAT_KEEPALIVE`], which leaves as it
    /// is, from port 4500.
    pub bytes: Vec<u8>,
    /// The slot whose owner may send it.
    pub slot: Slot,
    /// Not before every in-sync replica has acknowledged this delta (flush and ack).
    /// `None`: at once (retransmissions, and what depends on no state).
    pub after: Option<DeltaId>,
}

/// Numbers the deltas of one endpoint, from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaId(pub u64);

/// One change of replicated state.
#[derive(Debug)]
pub struct Delta {
    /// Its number.
    pub id: DeltaId,
    /// The slot it belongs to.
    pub slot: Slot,
    /// The change.
    pub change: Change,
}

/// What changed.
#[derive(Debug)]
pub enum Change {
    /// IKE_SA_INIT was answered, or is sent: until IKE_AUTH is complete only this member can serve
    /// it. One that we begin comes again whenever its request is sent again.
    NegotiationOpened {
        /// Our SPI, network order.
        local_cookie: [u8; 8],
        /// The peer's SPI, network order; zero if we are the initiator.
        peer_cookie: [u8; 8],
        /// The peer's address.
        peer: IpAddr,
        /// When the half-open entry is given up.
        expires: Instant,
    },
    /// The negotiation failed or timed out (an established one ends with `Upsert` instead).
    NegotiationClosed {
        /// Our SPI, network order.
        local_cookie: [u8; 8],
        /// The peer's SPI, network order; zero if we are the initiator.
        peer_cookie: [u8; 8],
        /// The peer's address.
        peer: IpAddr,
    },
    /// An established IKE SA appeared or changed. Ends its negotiation.
    Upsert(Box<crate::record::IkeSaRecord>),
    /// An established IKE SA and its children are gone.
    Removed {
        /// Our IKE SPI, network order.
        local_spi: [u8; 8],
    },
}

/// Identifies a CHILD_SA within the cluster: our inbound SPI (unique by partition) and our address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId {
    /// Inbound ESP SPI, network order.
    pub spi_in: [u8; 4],
    /// Our outer address, a VIP.
    pub local: IpAddr,
}

/// A request to the kernel's SAD and SPD.
#[derive(Debug)]
pub enum KernelRequest {
    /// Install both SAs of a CHILD_SA and its policies; answered by `KernelResult::Installed` or
    /// `Failed`. `replaces` names a child whose policies the new one takes over (rekey).
    Install {
        /// The CHILD_SA.
        child: Box<ChildSa>,
        /// The rekeyed child, still installed.
        replaces: Option<ChildId>,
    },
    /// Remove the SAs, and the policies unless a successor took them over. Not answered.
    Remove {
        /// Which.
        child: ChildId,
    },
    /// The peer has the SAs of this successor too: outbound traffic goes through it from now on
    /// (RFC 7296 §2.8). Not answered.
    Promote {
        /// The successor, installed with `replaces`.
        child: ChildId,
    },
    /// A NAT gave the peer another address or port (RFC 7296 §2.23): move both SAs and the
    /// policies' templates. Everything but `remote` and `encap` is as installed; the sequence
    /// numbers go on. Not answered.
    Update {
        /// The CHILD_SA with its new addresses and ports.
        child: Box<ChildSa>,
    },
}

/// The kernel's answer to `KernelRequest::Install`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelResult {
    /// Both SAs and the policies stand.
    Installed(ChildId),
    /// Nothing was installed; `reason` is for the log.
    Failed {
        /// Which.
        child: ChildId,
        /// The kernel's words.
        reason: String,
    },
}

/// Everything the kernel and a replica need of a CHILD_SA. Tunnel mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// Configured name of the child.
    pub name: String,
    /// Configured name of the connection.
    pub connection: String,
    /// The slot it inherited from its IKE SA.
    pub slot: Slot,
    /// Inbound SPI, network order.
    pub spi_in: [u8; 4],
    /// Outbound SPI, network order.
    pub spi_out: [u8; 4],
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// UDP encapsulation (RFC 3948): our port and the peer's, when a NAT was detected.
    pub encap: Option<(u16, u16)>,
    /// ESP transform.
    pub encryption: Encryption,
    /// Inbound key ‖ salt.
    pub key_in: SecretBytes,
    /// Outbound key ‖ salt.
    pub key_out: SecretBytes,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Anti-replay window in packets.
    pub replay_window: u32,
    /// Our side's selectors after narrowing.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side's selectors after narrowing.
    pub remote_ts: Vec<TrafficSelector>,
    /// XFRM interface id, 0 = none.
    pub if_id_in: u32,
    /// XFRM interface id, 0 = none.
    pub if_id_out: u32,
    /// Marks of its packets.
    pub marks: Marks,
    /// Seconds after installation at which the kernel drops the SAs.
    pub hard_lifetime_seconds: u64,
    /// How much the SAs may carry.
    pub quota: Quota,
}

/// How much each SA of a CHILD_SA may carry; 0 = without bound. The kernel counts, and says so with
/// an XFRM EXPIRE. Whoever takes over begins to count anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Octets after which it is rekeyed.
    pub soft_bytes: u64,
    /// Octets after which the kernel drops it.
    pub hard_bytes: u64,
    /// Packets after which it is rekeyed.
    pub soft_packets: u64,
    /// Packets after which the kernel drops it.
    pub hard_packets: u64,
}

impl ChildSa {
    /// Its identity in the cluster.
    pub fn id(&self) -> ChildId {
        ChildId {
            spi_in: self.spi_in,
            local: self.local,
        }
    }
}

/// A traffic selector (RFC 7296 §3.13.1): an address range, a port range and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// IP protocol, 0 = any.
    pub protocol: u8,
    /// First port (for ICMP: type and code).
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
}

/// Something that happened, for the log (one line each) and the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Our SPI of the IKE SA concerned, if any; network order.
    pub local_spi: Option<[u8; 8]>,
    /// Over which path.
    pub path: Option<Path>,
    /// Name of the connection, once it is known.
    pub connection: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// Kinds of events. Each names the cause and, where there is one, the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// IKE_AUTH completed.
    IkeSaEstablished {
        /// The peer's identity as text.
        remote_id: String,
    },
    /// Gone, with the reason ("deleted by peer", "hard lifetime", …).
    IkeSaClosed {
        /// Why.
        reason: String,
    },
    /// A CHILD_SA was installed.
    ChildSaInstalled {
        /// Its identity.
        child: ChildId,
        /// The rekeyed child.
        replaces: Option<ChildId>,
    },
    /// A CHILD_SA is gone.
    ChildSaRemoved {
        /// Its identity.
        child: ChildId,
        /// Why.
        reason: String,
    },
    /// An exchange failed: what, why, what was offered, what we would have taken.
    ExchangeFailed {
        /// One line for the operator.
        reason: String,
    },
    /// A datagram was dropped without an answer.
    DatagramDropped {
        /// One line for the operator; rate-limited by the driver.
        reason: String,
    },
}
