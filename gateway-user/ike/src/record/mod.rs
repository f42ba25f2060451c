//! The replicated state of one established IKE SA, and its encoding.
//!
//! A version octet and a sequence of type-length-values. Types that this release does not know are
//! kept and written out again, so that an older member can hold the records of a newer one.

mod decode;
mod encode;
mod follow_up;
mod negotiation;
mod request;
mod tlv;
mod transport;

use std::fmt;
use std::time::Duration;

use gateway_common::slot::Slot;

pub use self::follow_up::{FollowUp, KeyInputs, PeerFollowUp, Settled};
pub use self::negotiation::NegotiationRecord;
pub use self::request::{
    ChildOffer, IkeOffer, KeyExchangeState, OutstandingRequest, Purpose, Rival,
};
pub use self::tlv::Unknown;
pub use self::transport::TransportState;
use crate::identity::Identity;
use crate::keys::IkeKeys;
use crate::output::{ChildSa, Path};
use crate::proposal::IkeProposal;
pub use crate::sa::window::CachedResponse;

/// Version of the encoding. Changes only when old decoders would misread it; additions are new
/// types.
pub const VERSION: u8 = 1;

/// Which side of the IKE SA we are (RFC 7296 §2.2: the "original initiator" or not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We sent the request that made this IKE SA.
    Initiator,
    /// The peer did.
    Responder,
}

/// What NAT detection found (RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatState {
    /// We are behind a NAT: the peer sent to another address than the one we received on.
    pub local: bool,
    /// The peer is behind a NAT.
    pub remote: bool,
}

impl NatState {
    /// Whether there is a NAT on either side, so that ESP goes in UDP.
    pub const fn any(self) -> bool {
        self.local || self.remote
    }

    /// As records have it.
    fn flags(self) -> u8 {
        u8::from(self.local) | u8::from(self.remote) << 1
    }
}

/// Everything a takeover needs of an established IKE SA. Times are ages, because members share no
/// clock.
#[derive(Clone, PartialEq, Eq)]
pub struct IkeSaRecord {
    /// Our SPI, network order.
    pub local_spi: [u8; 8],
    /// The peer's SPI, network order.
    pub remote_spi: [u8; 8],
    /// Our role.
    pub role: Role,
    /// Its slot, also of all children.
    pub slot: Slot,
    /// Name of the connection, also of all children.
    pub connection: String,
    /// Our identity as authenticated.
    pub local_id: Identity,
    /// The peer's identity as authenticated.
    pub remote_id: Identity,
    /// Path of the last authentic request that was allowed to move it.
    pub path: Path,
    /// NAT detection.
    pub nat: NatState,
    /// Negotiated algorithms.
    pub proposal: IkeProposal,
    /// SK_d, SK_e and SK_p of both directions as really used.
    pub keys: IkeKeys,
    /// Counter of the next IV under our key; the prefix of the resuming member makes it unique.
    pub next_iv: u64,
    /// Message ID of our next request.
    pub next_request: u32,
    /// Message ID of the next request expected from the peer.
    pub expected_request: u32,
    /// The response to the peer's last request, as it was sent: in fragments, if it was.
    pub last_response: Option<CachedResponse>,
    /// Our request that the peer has not answered yet.
    pub outstanding: Option<OutstandingRequest>,
    /// It has a successor, which has the children.
    pub replaced: bool,
    /// We are about to delete it.
    pub closing: bool,
    /// Our SPI of the IKE SA that it was made from by rekeying. As long as that one's record does
    /// not know of it, the exchange that made it has not ended, and it does not count.
    pub predecessor: Option<[u8; 8]>,
    /// Both sides can synchronise Message IDs (RFC 6311).
    pub peer_syncs: bool,
    /// Highest Message ID that the peer announced by a synchronisation of its own (RFC 6311 §5.1).
    pub peer_synced: Option<u32>,
    /// Fragmentation, forced encapsulation and mobility.
    pub transport: TransportState,
    /// Time since it was established.
    pub age: Duration,
    /// How long IKE_SA_INIT and IKE_AUTH took, if they made it: what both sides began at the same
    /// time is known by that.
    pub negotiated_in: Option<Duration>,
    /// Age at which we rekey it, jitter included.
    pub rekey_after: Option<Duration>,
    /// Age at which we replace it by one that is authenticated anew, jitter included.
    pub reauth_after: Option<Duration>,
    /// Age at which we delete it.
    pub expires_after: Option<Duration>,
    /// Names of children that are to be made anew.
    pub wanted: Vec<String>,
    /// IKE_AUTH has just made it, and older ones of the same identities in the slot that it goes to
    /// are not dealt with yet.
    pub contact: Option<Contact>,
    /// It is over, its keys are erased, and its last response is given again for so long.
    pub closed: Option<Duration>,
    /// CHILD_SAs, in the order in which they were made.
    pub children: Vec<ChildRecord>,
    /// What the peer makes by additional key exchanges that are under way, oldest first.
    pub follow_ups: Vec<PeerFollowUp>,
    /// What a newer release added.
    pub unknown: Vec<Unknown>,
}

/// What the peer said of its other IKE SAs with us in IKE_AUTH (RFC 7296 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contact {
    /// It has none: INITIAL_CONTACT.
    Initial,
    /// Nothing.
    Further,
}

/// A CHILD_SA in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRecord {
    /// Keys, selectors and the rest. `connection` and `slot` are those of the IKE SA.
    pub sa: ChildSa,
    /// Time since the kernel confirmed it; with `sa.hard_lifetime_seconds` the time it has left.
    pub age: Duration,
    /// Age at which we rekey it, jitter included.
    pub rekey_after: Option<Duration>,
    /// Where it stands.
    pub state: ChildState,
    /// What a newer release added.
    pub unknown: Vec<Unknown>,
}

/// Where an installed CHILD_SA stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// In use.
    #[default]
    Current,
    /// It has a successor, or lost against one: the peer will delete it.
    Replaced,
    /// We delete it: the request is on its way or comes next.
    Closing,
}

impl IkeSaRecord {
    /// Lets time pass that the record has spent in a replica. To be called before it is imported:
    /// lifetimes go on while nobody works with it.
    pub fn grow_older(&mut self, by: Duration) {
        self.age = self.age.saturating_add(by);
        self.closed = self.closed.map(|left| left.saturating_sub(by));
        for child in &mut self.children {
            child.age = child.age.saturating_add(by);
        }
        for waiting in &mut self.follow_ups {
            waiting.left = waiting.left.saturating_sub(by);
        }
    }

    /// What is left of an IKE SA that is over: its names, and `response` for the retransmissions of
    /// the request that ended it, for `linger`. RFC 7296 §2.12: who closes it forgets the keys.
    #[must_use]
    pub fn into_tombstone(self, response: CachedResponse, linger: Duration) -> Self {
        Self {
            keys: self.keys.erased(),
            expected_request: response.message_id.saturating_add(1),
            last_response: Some(response),
            outstanding: None,
            replaced: true,
            closing: true,
            rekey_after: None,
            expires_after: None,
            wanted: Vec::new(),
            contact: None,
            closed: Some(linger),
            children: Vec::new(),
            follow_ups: Vec::new(),
            unknown: Vec::new(),
            ..self
        }
    }
}

impl fmt::Debug for IkeSaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IkeSaRecord")
            .field("local_spi", &u64::from_be_bytes(self.local_spi))
            .field("remote_spi", &u64::from_be_bytes(self.remote_spi))
            .field("slot", &self.slot)
            .field("connection", &self.connection)
            .field("path", &self.path)
            .field("expected_request", &self.expected_request)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

/// Why octets are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version of the encoding.
    #[error("record version {0} is not supported, only {VERSION}")]
    Version(u8),
    /// A length points behind the end.
    #[error("record is truncated")]
    Truncated,
    /// A mandatory value is missing.
    #[error("record lacks its {0}")]
    Missing(&'static str),
    /// A value that must be unique comes twice.
    #[error("record has two values of type {0}")]
    Duplicate(u16),
    /// A value is out of range or has the wrong length.
    #[error("record has an invalid {0}")]
    Value(&'static str),
}

/// Types at the top level.
mod kind {
    pub(super) const SPIS: u16 = 1;
    pub(super) const ROLE: u16 = 2;
    pub(super) const SLOT: u16 = 3;
    pub(super) const CONNECTION: u16 = 4;
    pub(super) const LOCAL_ID: u16 = 5;
    pub(super) const REMOTE_ID: u16 = 6;
    pub(super) const PATH: u16 = 7;
    pub(super) const NAT: u16 = 8;
    pub(super) const TRANSFORMS: u16 = 9;
    pub(super) const SK_D: u16 = 10;
    pub(super) const SK_EI: u16 = 11;
    pub(super) const SK_ER: u16 = 12;
    pub(super) const SK_PI: u16 = 13;
    pub(super) const SK_PR: u16 = 14;
    pub(super) const COUNTERS: u16 = 15;
    pub(super) const LAST_RESPONSE: u16 = 16;
    pub(super) const AGE: u16 = 17;
    pub(super) const CHILD: u16 = 18;
    pub(super) const REPLACED: u16 = 19;
    pub(super) const OUTSTANDING: u16 = 20;
    pub(super) const CLOSING: u16 = 21;
    pub(super) const REKEY_AFTER: u16 = 22;
    pub(super) const EXPIRES_AFTER: u16 = 23;
    pub(super) const WANTED: u16 = 24;
    pub(super) const PEER_SYNCS: u16 = 25;
    pub(super) const PEER_SYNCED: u16 = 26;
    pub(super) const PREDECESSOR: u16 = 27;
    pub(super) const REAUTH_AFTER: u16 = 30;
    /// Integrity algorithm, absent with combined-mode ones.
    pub(super) const INTEGRITY: u16 = 40;
    /// Additional key exchanges: seven transform ids, 0 for none; absent if there is none.
    pub(super) const ADDITIONAL_KES: u16 = 41;
    pub(super) const FRAGMENTS: u16 = 60;
    pub(super) const FORCED_ENCAP: u16 = 61;
    pub(super) const MOBIKE: u16 = 62;
    pub(super) const PEER_ADDRESS: u16 = 63;
    pub(super) const REDIRECTABLE: u16 = 64;
    pub(super) const ORIGINAL_INITIATOR: u16 = 65;
    pub(super) const CONTACT: u16 = 70;
    pub(super) const CLOSED: u16 = 71;
    pub(super) const NEGOTIATED_IN: u16 = 72;
    /// One value for all of them: decoders that do not know the type keep it, but not twice.
    pub(super) const FOLLOW_UPS: u16 = 73;
}

/// Types within what additional key exchanges make; its algorithms have those of the top level.
mod follow_up_kind {
    pub(super) const NONCE_I: u16 = 100;
    pub(super) const NONCE_R: u16 = 101;
    pub(super) const SHARED: u16 = 102;
    pub(super) const PENDING: u16 = 103;
    pub(super) const CHILD: u16 = 104;
    pub(super) const REKEYS: u16 = 105;
    pub(super) const IKE_SPIS: u16 = 106;
    pub(super) const LINK: u16 = 107;
    pub(super) const LEFT: u16 = 108;
}

/// Types that only records of negotiations have.
mod negotiation_kind {
    pub(super) const REMAINING: u16 = 200;
    pub(super) const REQUEST: u16 = 201;
    pub(super) const RESPONSE: u16 = 202;
}

/// Types within a child.
mod child_kind {
    pub(super) const NAME: u16 = 1;
    pub(super) const SPIS: u16 = 2;
    pub(super) const ADDRESSES: u16 = 3;
    pub(super) const ENCAP: u16 = 4;
    pub(super) const TRANSFORMS: u16 = 5;
    pub(super) const KEY_IN: u16 = 6;
    pub(super) const KEY_OUT: u16 = 7;
    pub(super) const REPLAY_WINDOW: u16 = 8;
    pub(super) const LOCAL_TS: u16 = 9;
    pub(super) const REMOTE_TS: u16 = 10;
    pub(super) const IF_IDS: u16 = 11;
    pub(super) const LIFETIME: u16 = 12;
    pub(super) const AGE: u16 = 13;
    pub(super) const REKEY_AFTER: u16 = 14;
    pub(super) const STATE: u16 = 15;
    pub(super) const QUOTA: u16 = 30;
    /// Integrity algorithm, absent with combined-mode ones.
    pub(super) const INTEGRITY: u16 = 40;
    /// Absent without any.
    pub(super) const MARKS: u16 = 41;
}

/// Types within an outstanding request.
mod request_kind {
    pub(super) const MESSAGE_ID: u16 = 1;
    pub(super) const BYTES: u16 = 2;
    pub(super) const PURPOSE: u16 = 3;
    pub(super) const SPIS: u16 = 4;
    pub(super) const NAME: u16 = 5;
    pub(super) const REKEYS: u16 = 6;
    pub(super) const KEY_EXCHANGE: u16 = 7;
    pub(super) const RIVAL: u16 = 8;
    pub(super) const DELETED: u16 = 9;
    pub(super) const NONCE: u16 = 10;
    pub(super) const FOLLOW_UP: u16 = 11;
    pub(super) const PATH: u16 = 60;
}
