//! What members tell each other about the state that they own.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::abi::{ANY_MESSAGE_ID, Address, NEGOTIATION_SECONDS, NegotiationKey};
use gateway_common::{member::MemberId, slot::Slot};

use crate::frame::{DeltaSeq, Position};
use crate::network::Network;
use crate::secret::Secret;
use crate::view::{Epoch, Tenure};

/// An IKE SPI as it stands on the wire.
pub type Cookie = [u8; 8];

/// How long a negotiation is remembered at most: 120 s.
pub const NEGOTIATION_LIFETIME: Duration = Duration::from_secs(NEGOTIATION_SECONDS);

/// An IKE negotiation that is not established yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Negotiation {
    /// Our SPI.
    pub local_cookie: Cookie,
    /// The initiator's SPI; zero while we are the initiator, whose first message needs no entry.
    pub peer_cookie: Cookie,
    /// The peer's address, without the port: a NAT may move the port between exchanges.
    pub peer: IpAddr,
}

impl Negotiation {
    /// Its keys in `SEP_my_IKE_packet`: everything with our cookie, and retransmissions of the
    /// IKE_SA_INIT request (message id 0), which do not carry our cookie yet.
    pub fn keys(&self) -> impl Iterator<Item = NegotiationKey> {
        let ours = NegotiationKey {
            cookie: self.local_cookie,
            message_id: ANY_MESSAGE_ID,
            peer: Address::UNSPECIFIED,
        };
        let first = NegotiationKey {
            cookie: self.peer_cookie,
            message_id: [0; 4],
            peer: self.peer.into(),
        };
        let first = (self.peer_cookie != [0; 8]).then_some(first);
        [ours].into_iter().chain(first)
    }
}

/// What a CHILD_SA contributes to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Inbound SPI, network order.
    pub spi_in: [u8; 4],
    /// Our outer address, a VIP.
    pub vip: IpAddr,
    /// Outbound SPI, network order.
    pub spi_out: [u8; 4],
    /// The peer's outer address.
    pub peer: IpAddr,
    /// The networks behind the peer.
    pub remote_nets: Vec<Network>,
    /// What was reserved when this was written; kept by the cluster core, whatever is published.
    pub reserved: Reserved,
}

/// Whose which outbound sequence numbers of a CHILD_SA are ([`crate::reservation`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The slot that the SA is in.
    pub slot: Slot,
    /// Of this ownership of the slot are the numbers up to
    pub tenure: Tenure,
    /// this one.
    pub ceiling: u64,
    /// Of each ownership after it, so many more; a multiple of [`Reserved::UNIT`].
    pub block: u32,
}

impl Reserved {
    /// Blocks are multiples of so many numbers.
    pub const UNIT: u32 = 256;
}

/// An established IKE SA, complete: it replaces what was said about it before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sa {
    /// Our IKE SPI.
    pub local_spi: Cookie,
    /// Its CHILD_SAs.
    pub children: Vec<Child>,
    /// Digest of the pair of identities, for one identity, one slot; `None` if it is not told.
    pub identities: Option<Identities>,
    /// How often it has moved to another slot; kept by the cluster core, whatever is published.
    pub moves: u32,
    /// The engine's record, opaque here.
    pub record: Secret,
    /// What a later release says about it beyond all this: carried on as it came.
    pub unknown: Secret,
}

/// Digest of a pair of identities (ours, the peer's).
pub type Identities = [u8; 16];

/// When and by whom a record was written: within an epoch a slot has one writer, whose deltas are
/// numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The epoch that the writer's stream had come to.
    pub epoch: Epoch,
    /// Number in the writer's stream.
    pub seq: DeltaSeq,
}

/// How far a member has come in the stream of one that is not in the view any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whose stream.
    pub member: MemberId,
    /// Of which run, up to which delta.
    pub position: Position,
    /// The first view of the speaker that it is not in.
    pub ended: Epoch,
}

/// A member installed a view: what follows on its stream belongs to `epoch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// The view.
    pub epoch: Epoch,
    /// The speaker knows all of what streams contain that ended in this view or before.
    pub whole: Epoch,
    /// Positions in the streams that ended and are not yet known to be level everywhere.
    pub reached: Vec<Reached>,
}

/// How far the numbers of a CHILD_SA may go: about 21 octets on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Our IKE SPI.
    pub local_spi: Cookie,
    /// Its inbound SPI, network order.
    pub spi_in: [u8; 4],
    /// The outbound sequence numbers.
    pub reserved: Reserved,
    /// Highest inbound sequence number that the owner has seen.
    pub sequence_in: u64,
}

/// One change of replicated state. Each stands for itself: applying a stream of changes again, in
/// order, leads to the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// IKE_SA_INIT was answered: until IKE_AUTH is complete only the announcing member can serve it.
    NegotiationOpened {
        /// Its keys.
        negotiation: Negotiation,
        /// How long from now on it is remembered, at most [`NEGOTIATION_LIFETIME`]; whole
        /// milliseconds reach the other members.
        lifetime: Duration,
    },
    /// The negotiation failed or was given up. (An established one ends with its
    /// [`Change::SaUpsert`].)
    NegotiationClosed {
        /// Our SPI.
        local_cookie: Cookie,
    },
    /// An established IKE SA appeared or changed. Ends the negotiation with the same SPI.
    SaUpsert(Sa),
    /// An established IKE SA and its children are gone.
    SaRemoved {
        /// Our IKE SPI.
        local_spi: Cookie,
    },
    /// The sender installed a view.
    View(Marker),
    /// The numbers of CHILD_SAs, in whatever slots.
    Checkpoints(Vec<Checkpoint>),
    /// The secret behind the cookies of IKE_SA_INIT (RFC 7296 §2.6), for the whole cluster.
    CookieSecret(Secret),
    /// Something that this release does not know; it has a number like everything else.
    Unknown {
        /// Its type.
        kind: u16,
        /// Its value.
        body: Secret,
    },
}

/// How urgently a change is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// At once: an IKE message waits for its acknowledgement.
    Urgent,
    /// With the next urgent change or after a few milliseconds.
    Background,
}
