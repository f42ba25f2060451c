//! What a member does to the world, as values.

use std::sync::Arc;

use gateway_cluster::output::Class;
use gateway_cluster::secret::Secret;
use gateway_cluster::table::TableChange;
use gateway_common::{member::MemberId, slot::Slot};
use gateway_ike::output::{ChildId, ChildSa, KernelRequest, Question, Transmit};

/// One effect. They have to be carried out in the order in which they come, each before the next:
/// an acknowledgement to another member comes after the kernel and table writes that it stands for.
#[derive(Debug)]
pub enum Effect {
    /// Send an IKE datagram. Everything that it had to wait for has happened.
    Transmit(Transmit),
    /// Hand a frame to the sync channel.
    Frame {
        /// To whom.
        to: MemberId,
        /// The frame; it may hold key material.
        frame: Arc<Secret>,
        /// What to do when the transport cannot keep up.
        class: Class,
    },
    /// Close the sync connection to this member.
    Disconnect(MemberId),
    /// Write to a steering map. `SLOT_OWNER` is never among them: the membership writes it.
    Table(TableChange),
    /// Change the SAs of the kernel.
    Kernel(KernelOp),
    /// Another member shares what was configured at run time. Whether it is newer than what is
    /// known here only the driver can tell.
    Shared {
        /// Who sent it.
        from: MemberId,
        /// As given to `Node::share` there; may hold secrets.
        octets: Secret,
    },
    /// Ask somebody whether a peer is let in; answered with `Node::handle_command` and
    /// `Command::Decided`.
    Decide(Box<Question>),
    /// Something for the log.
    Event(Event),
    /// What the membership has to know of this member's synchronisation; sent on every change.
    Report(gateway_cluster::view::SyncReport),
}

/// A change of the kernel's SAs.
#[derive(Debug)]
pub enum KernelOp {
    /// A CHILD_SA of this member: the engine's request; `Install` is answered with
    /// `Node::handle_kernel`. The outbound SA starts at `start` (0 for one that was never used). It is
    /// not used before all members of the view know of it: the fence has no ceiling for it until then,
    /// and `Promote` comes after that.
    Own {
        /// The engine's request.
        request: KernelRequest,
        /// Last outbound sequence number used up: the SA goes on after it.
        start: u64,
    },
    /// A copy of a CHILD_SA of another member, both directions and policies: installed, or adjusted
    /// if it stands there already. What it sends the fence stops, until its slot is this member's.
    Copy {
        /// The CHILD_SA; its keys are the owner's.
        child: Box<ChildSa>,
        /// Where the copies of its SAs stand.
        standing: Standing,
    },
    /// Moves the copy of a CHILD_SA of another member, forwards only. Not to be carried out if
    /// this member owns the slot by then (a late one would repeat sequence numbers).
    MoveCopy {
        /// Which.
        child: ChildId,
        /// Its outbound SPI, network order.
        spi_out: [u8; 4],
        /// Its slot.
        slot: Slot,
        /// Where to.
        standing: Standing,
    },
    /// The outbound SA of a CHILD_SA of this member goes on after `to`, forwards: another member may
    /// have used what lies between, as the other half of a view. A higher ceiling follows as an
    /// [`Effect::Table`].
    Advance {
        /// Which.
        child: ChildId,
        /// Its outbound SPI, network order.
        spi_out: [u8; 4],
        /// Its slot.
        slot: Slot,
        /// The last number that counts as used.
        to: u64,
    },
    /// Removes a copy.
    RemoveCopy(ChildId),
}

pub use gateway_cluster::reservation::Standing;

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// XFRM replay event of an outbound SA, or what a dump showed: it has used up this number.
    SentUpTo {
        /// Which.
        child: ChildId,
        /// Last sequence number used.
        sequence: u64,
    },
    /// XFRM replay event of an inbound SA.
    ReceivedUpTo {
        /// Which.
        child: ChildId,
        /// Highest sequence number received.
        sequence: u64,
    },
    /// A lifetime ran out (XFRM EXPIRE).
    Expired {
        /// Which.
        child: ChildId,
        /// Hard: the kernel has removed the SA. Soft: time to rekey.
        hard: bool,
    },
}

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of the IKE engine.
    Engine(gateway_ike::output::Event),
    /// Of the cluster core.
    Cluster(gateway_cluster::output::Event),
    /// The sync channel to a member is up.
    PeerUp(MemberId),
    /// The sync channel to a member is down.
    PeerDown(MemberId),
    /// An IKE SA stays on this member alone: its record cannot be mirrored.
    NotMirrored(gateway_cluster::PublishError),
    /// An order was given up: nobody has served these slots in time.
    OrderLapsed {
        /// The order.
        order: crate::order::Order,
        /// Whose SAs it was about.
        slots: Vec<Slot>,
    },
    /// Another member's record cannot be read: versions differ.
    UnreadableRecord {
        /// Which IKE SA.
        local_spi: [u8; 8],
        /// Why.
        error: gateway_ike::record::RecordError,
    },
}
