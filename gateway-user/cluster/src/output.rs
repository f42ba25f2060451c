//! The core's effects, as values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::{member::MemberId, slot::Slot};

use crate::change::{Cookie, Sa, Stamp};
use crate::frame::{DeltaSeq, FrameError, Path};
use crate::reservation::Standing;
use crate::secret::Secret;
use crate::status::FullSync;
use crate::table::TableChange;
use crate::view::{Epoch, SyncReport};

/// One effect. They have to be carried out in the order in which they come: an acknowledgement
/// comes after the table writes and records that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Hand a frame to the transport.
    Send {
        /// To whom.
        to: MemberId,
        /// The frame; it may hold key material.
        frame: Arc<Secret>,
        /// What to do when the transport cannot keep up.
        class: Class,
    },
    /// Close the connection to this member; the transport dials again as usual.
    Disconnect(MemberId),
    /// Every delta up to and including this one is on all members of the view: what waits for them
    /// may leave. The ceilings that waited for them have been written by the tables before this.
    Released(DeltaSeq),
    /// No delta up to and including this one that was not released ever will be: this member was out
    /// of the view. What waits for them must not leave.
    Discarded(DeltaSeq),
    /// Write to a steering map.
    Table(TableChange),
    /// An IKE SA is new or changed, not by this member's engine: install or update its copies. It may
    /// be in a slot of this member's: what it is told before it is level, or what was moved to it.
    RecordUpserted {
        /// Its slot.
        slot: Slot,
        /// When it was written.
        written: Stamp,
        /// The SA with its record.
        sa: Sa,
    },
    /// An IKE SA is gone, not by this member's engine: remove its copies.
    RecordRemoved {
        /// Its slot.
        slot: Slot,
        /// Which.
        local_spi: Cookie,
    },
    /// The copies of a CHILD_SA's SAs, which another member owns, go on from here. Forwards only,
    /// and never when this member owns the slot by then.
    Moved {
        /// Our IKE SPI.
        local_spi: Cookie,
        /// Its inbound SPI, network order.
        spi_in: [u8; 4],
        /// Its slot.
        slot: Slot,
        /// Where they stand.
        standing: Standing,
    },
    /// This member's own outbound SA of a CHILD_SA has to go on after the number `to`, forwards:
    /// ownerships of the slot were left out, which others may have had. The higher ceiling follows.
    Advance {
        /// Our IKE SPI.
        local_spi: Cookie,
        /// Its inbound SPI, network order.
        spi_in: [u8; 4],
        /// The last number that is used up.
        to: u64,
    },
    /// The end of a [`crate::Cluster::move_sa`].
    MoveEnded {
        /// Our IKE SPI.
        local_spi: Cookie,
        /// It is not this member's any more; otherwise it stays, unchanged.
        gone: bool,
    },
    /// The cookie secret of the cluster (RFC 7296 §2.6) is this one from now on.
    CookieSecret(Secret),
    /// Another member received this datagram and thinks that it is ours. Ask
    /// [`crate::Cluster::route`] with [`crate::route::Origin::Relayed`].
    Relayed {
        /// Who relayed it.
        from: MemberId,
        /// How it came to the cluster.
        path: Path,
        /// The IKE message, without non-ESP marker.
        datagram: Vec<u8>,
    },
    /// Another member wants this seen to ([`crate::Cluster::order`]).
    Order {
        /// Who.
        from: MemberId,
        /// What, in the driver's octets.
        octets: Secret,
    },
    /// A member can be spoken to: hellos were exchanged and fit.
    PeerUp(MemberId),
    /// A member cannot be spoken to any more.
    PeerDown(MemberId),
    /// What the membership has to know; comes on every change.
    Report(SyncReport),
    /// Something for the log.
    Event(Event),
}

/// Classes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Numbered or answering to something numbered: must arrive or the connection ends.
    Stream,
    /// A relayed datagram: may be dropped, as the network may drop datagrams.
    Datagram,
}

/// Something that an operator wants to know; `Display` is the log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer's hello does not fit; the connection is closed.
    PeerRefused {
        /// Which.
        member: MemberId,
        /// Why.
        reason: String,
    },
    /// A peer's configuration differs in what has to be alike.
    ConfigurationDiffers {
        /// Which.
        member: MemberId,
    },
    /// A peer came back and the deltas that it missed are sent again.
    Resumed {
        /// Which.
        member: MemberId,
        /// How many.
        deltas: u64,
    },
    /// A peer is sent everything in some slots, because deltas cannot help it.
    FullSync {
        /// To whom.
        member: MemberId,
        /// Why.
        reason: FullSync,
    },
    /// This member has all that the members of earlier views have left behind: it serves IKE.
    Levelled {
        /// In which view.
        epoch: Epoch,
    },
    /// Everything that this member owns is sent to a peer.
    SnapshotSent {
        /// To whom.
        member: MemberId,
        /// Number of entries.
        entries: u64,
    },
    /// Everything that a peer owns was received and is in effect.
    SnapshotApplied {
        /// Whose.
        member: MemberId,
        /// Number of entries.
        entries: u64,
    },
    /// A peer acknowledged everything.
    InSync {
        /// Which.
        member: MemberId,
    },
    /// A peer did not acknowledge in time.
    Lagging {
        /// Which.
        member: MemberId,
        /// Age of the oldest delta that it has not acknowledged.
        behind: Duration,
    },
    /// A peer sent something that it may not; the connection is closed.
    ProtocolError {
        /// Which.
        member: MemberId,
        /// What.
        violation: Violation,
    },
    /// Nothing was heard from a peer; the connection is closed.
    Silent {
        /// Which.
        member: MemberId,
    },
    /// A peer has more half-open negotiations than are kept.
    HalfOpenRefused {
        /// Which.
        member: MemberId,
    },
}

/// What a peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not a frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] FrameError),
    /// Something else before the hello, or a second hello.
    #[error("hello out of place")]
    HelloOutOfPlace,
    /// A delta of a run whose snapshot did not come first.
    #[error("delta before the first snapshot")]
    NoSnapshot,
    /// A delta is missing in between.
    #[error("delta {got} after delta {after}")]
    Gap {
        /// The last one.
        after: u64,
        /// The one that came.
        got: u64,
    },
    /// An acknowledgement of what was not sent.
    #[error("acknowledgement of delta {got}, sent up to {sent}")]
    AckOfUnsent {
        /// What was acknowledged.
        got: u64,
        /// What was sent.
        sent: u64,
    },
    /// The end of a snapshot that did not begin, or that has another number of entries.
    #[error("snapshot with {got} entries ended after {announced}")]
    SnapshotIncomplete {
        /// Entries that arrived.
        got: u64,
        /// Entries that its end announced.
        announced: u64,
    },
    /// An entry without a snapshot.
    #[error("entry outside a snapshot")]
    EntryOutOfPlace,
    /// A removal within a snapshot.
    #[error("snapshot with an entry that is none")]
    NotAnEntry,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Ordinary.
    Info,
    /// To be looked at.
    Warning,
}

impl Event {
    /// How much it matters.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Resumed { .. }
            | Self::FullSync { .. }
            | Self::Levelled { .. }
            | Self::SnapshotSent { .. }
            | Self::SnapshotApplied { .. }
            | Self::InSync { .. } => Severity::Info,
            Self::PeerRefused { .. }
            | Self::ConfigurationDiffers { .. }
            | Self::Lagging { .. }
            | Self::ProtocolError { .. }
            | Self::Silent { .. }
            | Self::HalfOpenRefused { .. } => Severity::Warning,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerRefused { member, reason } => write!(f, "member {member} refused: {reason}"),
            Self::ConfigurationDiffers { member } => write!(
                f,
                "member {member} has another configuration: compare its file with this member's"
            ),
            Self::Resumed { member, deltas } => {
                write!(f, "member {member} is back, sending {deltas} deltas again")
            }
            Self::FullSync { member, reason } => {
                write!(f, "full sync to member {member}: {reason}")
            }
            Self::Levelled { epoch } => write!(f, "level in view {epoch}"),
            Self::SnapshotSent { member, entries } => {
                write!(f, "sent all {entries} own entries to member {member}")
            }
            Self::SnapshotApplied { member, entries } => {
                write!(f, "took over all {entries} entries of member {member}")
            }
            Self::InSync { member } => write!(f, "member {member} is in sync"),
            Self::Lagging { member, behind } => write!(
                f,
                "member {member} is out of sync: no acknowledgement for {} ms",
                behind.as_millis()
            ),
            Self::ProtocolError { member, violation } => {
                write!(f, "disconnecting member {member}: {violation}")
            }
            Self::Silent { member } => write!(f, "disconnecting member {member}: silent"),
            Self::HalfOpenRefused { member } => write!(
                f,
                "member {member} announces more half-open negotiations than are kept"
            ),
        }
    }
}
