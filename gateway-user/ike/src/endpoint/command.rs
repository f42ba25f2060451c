//! What the driver may ask for.

use std::sync::Arc;

use gateway_common::slot::Slot;

use crate::config::{Connection, Gateway, Ppk, Secret};
use crate::output::{DecisionHandle, Verdict};
use crate::record::{Contact, IkeSaRecord};
use crate::secret::SecretBytes;
use crate::x509::Crl;

/// An order from the driver.
#[derive(Debug)]
pub enum Command {
    /// Mints and accepts cookies under this secret from now on, and accepts those of the one before
    /// (RFC 7296 §2.6). From the first one on the endpoint draws none of its own: all members of a
    /// cluster must agree.
    SetCookieSecret {
        /// Told apart from the last one by this; stands in the cookie.
        version: u32,
        /// At least 16 unpredictable octets.
        secret: SecretBytes,
    },
    /// Tells the time of day, which the validity of certificates is judged by. Without it none is
    /// accepted. To be told again now and then: clocks are set.
    SetWallClock {
        /// Seconds since 1970-01-01 00:00 UTC.
        unix_seconds: u64,
    },
    /// Replaces what may be negotiated from now on. IKE SAs that are there, and negotiations under
    /// way, go on with what they began with; successors of either, too.
    Configure {
        /// Connections, in the order in which they are tried.
        connections: Vec<Arc<Connection>>,
        /// Pre-shared keys.
        secrets: Vec<Secret>,
        /// Post-quantum pre-shared keys.
        ppks: Vec<Ppk>,
    },
    /// Replaces the CRLs. They are verified whenever they are used.
    SetCrls(Vec<Arc<Crl>>),
    /// Goes on with an IKE SA from a record. Nothing is sent at once and the kernel is asked for
    /// nothing: its CHILD_SAs stand there already or are none of the engine's business. What the
    /// record has outstanding is sent again, octet for octet, at the next
    /// `Endpoint::handle_timeout`; what it owes the peer (a DELETE, a rekeying) follows. An IKE SA
    /// with the same SPI is replaced. Ages count from the moment of the import: see
    /// [`IkeSaRecord::grow_older`].
    Import(Box<IkeSaRecord>),
    /// Takes in an IKE SA that another member has just authenticated, because its two identities
    /// have an older one here ("one identity, one slot"). As [`Command::Import`], and then older
    /// ones of the same identities are dealt with as the connection's
    /// [`crate::config::Uniqueness`] and the record's [`IkeSaRecord::contact`] say.
    Adopt(Box<IkeSaRecord>),
    /// Deals with older IKE SAs of the same identities, which were imported since this one was
    /// established.
    Decide {
        /// Our SPI, network order.
        local_spi: [u8; 8],
        /// What the peer said in IKE_AUTH.
        contact: Contact,
    },
    /// Answers [`crate::output::Output::Decide`]. An answer that nobody waits for (any more) is
    /// counted, and otherwise ignored.
    Decided {
        /// The question's.
        handle: DecisionHandle,
        /// Whether the peer is let in.
        verdict: Verdict,
    },
    /// Another member has this IKE SA, and it is established. If one of the engine's was made at the
    /// same time by the other side's initiative, one of the two is too many: both members choose the
    /// same, and the engine that has the loser deletes it.
    Meet(Box<IkeSaRecord>),
    /// The peer has an IKE SA with us, or is about to make one, that only the driver knows of:
    /// this attempt does not say that there is no other (RFC 7296 §2.4). The peer would drop what
    /// it has begun itself, without a word.
    PeerIsNear {
        /// Our SPI of the attempt, network order.
        local_spi: [u8; 8],
    },
    /// Brings up CHILD_SAs of a connection, with an IKE SA if there is none. What is there already
    /// stays as it is. How it ends, an event says.
    Initiate(InitiateOrder),
    /// Gives up what was initiated of this connection and has not come to IKE_AUTH: another member
    /// goes on with it, or the peer's own initiative was faster.
    Relinquish {
        /// The connection's name.
        connection: String,
    },
    /// Gives up a half-open IKE SA of a peer's. Nothing is sent; a delta says so. Nothing happens if
    /// it is established or was initiated here.
    Abort {
        /// Our SPI, network order.
        local_spi: [u8; 8],
    },
    /// Forgets an IKE SA that another member goes on with. Nothing is sent, the kernel is asked
    /// for nothing.
    Forget {
        /// Our SPI, network order.
        local_spi: [u8; 8],
    },
    /// Asks the peer for a sign of life (RFC 7296 §2.4). Without an answer the IKE SA is closed.
    Liveness {
        /// Our SPI, network order.
        local_spi: [u8; 8],
    },
    /// Makes a successor.
    Rekey(Target),
    /// Deletes, with a DELETE to the peer.
    Terminate(Target),
    /// The cluster is divided (split brain), or just not divided any more: another member may be asking
    /// the peers for other things under the same Message IDs. As long as this is so, an answer that
    /// does not fit, or that goes to the other member, costs no IKE SA; what was asked for is asked for
    /// again later, and Message IDs are not synchronised (RFC 6311), since both would in turn.
    SetDivided(bool),
    /// While the cluster was divided another member has served this IKE SA, too, and has left it like
    /// this. Nothing happens if it is not here. Message IDs go on behind those that either has used; CHILD_SAs
    /// that only one of the two knows of are deleted and, if they are of ours, made anew. If the peer has
    /// deleted the IKE SA there it is over.
    Reconcile(Box<IkeSaRecord>),
    /// Agrees with the peer on Message IDs (RFC 6311), because the record that we went on from may
    /// lag behind. A peer that cannot do that, or that may lose the IKE SA by it (it has
    /// answered Message ID 0, and its IVs must not repeat), is asked for a sign of life instead.
    SyncMessageIds {
        /// Our SPI, network order.
        local_spi: [u8; 8],
    },
    /// Asks the peer of an IKE SA to go to another gateway (RFC 5685 §5). Nothing happens if it
    /// cannot be redirected.
    Redirect {
        /// Our SPI, network order.
        local_spi: [u8; 8],
        /// Where to.
        gateway: Gateway,
    },
    /// Moves an IKE SA and its children to another slot, also a half-open one
    /// ([`super::Endpoint::negotiations`]). A delta says so; the kernel, whose SAs carry the slot as
    /// a mark, is the driver's business.
    Reslot {
        /// Our SPI, network order.
        local_spi: [u8; 8],
        /// The slot.
        slot: Slot,
    },
}

/// What [`Command::Initiate`] brings up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitiateOrder {
    /// The connection's name.
    pub connection: String,
    /// Names of its children; empty: all of them.
    pub children: Vec<String>,
    /// The connection is to be up: a failed initiation is repeated for ever, with growing pauses
    /// ([`crate::config::Limits::retry_initiate_interval`]). Otherwise
    /// [`crate::config::Initiation::keyingtries`] counts.
    pub persistent: bool,
    /// A packet asks, and will ask again: the pause before the next attempt is not cut short.
    pub by_packet: bool,
    /// The driver knows of no IKE SA between the two identities, in the whole cluster (RFC 7296
    /// §2.4).
    pub initial_contact: bool,
    /// The slot of the IKE SA; by default [`Slot::for_connection`].
    pub slot: Option<Slot>,
}

/// An SA, by our SPI in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IKE SA.
    Ike([u8; 8]),
    /// A CHILD_SA, by its inbound SPI.
    Child([u8; 4]),
}
