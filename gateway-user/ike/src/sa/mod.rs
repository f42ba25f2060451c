//! One IKE SA: its keys, its window, its children, and the exchanges under it.
//!
//! The states are [`ExpectAuth`] (IKE_SA_INIT answered), [`ExpectAuthResponse`] (we have sent
//! IKE_AUTH) and [`Established`] (the peer is authenticated). While somebody else decides whether
//! the peer is let in, the answer waits in [`ExpectDecision`]; while the kernel installs a CHILD_SA,
//! in [`Pending`].

mod child;
mod clock;
mod exchange;
mod follow_up;
mod initiate;
pub(crate) mod iv;
mod mobike;
mod nat;
mod negotiation;
mod open;
mod path;
mod reassembly;
mod record;
mod redirect;
mod respond;
mod status;
pub(crate) mod window;

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use self::clock::Clocks;
use self::follow_up::Awaited;
use self::initiate::{Outstanding, Task};
use self::iv::IvSequence;
use self::open::ExpectAuthResponse;
use self::reassembly::Incoming;
use self::window::{CachedResponse, Window};
use crate::auth::{AuthContext, Transcript};
use crate::config::{Config, Connection, Gateway};
use crate::crypto::{CryptoProvider, KeyExchangeMethod};
use crate::endpoint::core::Core;
use crate::error::IkeError;
use crate::identity::Identity;
use crate::keys::IkeKeys;
use crate::output::{ChildId, ChildSa, Event, EventKind, KernelRequest, Path};
use crate::proposal::IkeProposal;
use crate::record::{ChildState, Contact, NatState, Role, TransportState, Unknown};
use crate::wire::{HeaderRepr, MessageBuilder};

pub(crate) use self::clock::{Clock, jitter};
pub(crate) use self::exchange::decision::ExpectDecision;
pub(crate) use self::exchange::init::InitRequest;
pub(crate) use self::exchange::intermediate::Intermediate;
pub(crate) use self::initiate::Succession;
pub(crate) use self::open::{ExpectInitResponse, Next, Overdue, Plan};
pub(crate) use self::redirect::{is_redirectable, parse_redirect, redirect_data, redirected_from};
pub(crate) use self::respond::Farewell;

/// One IKE SA.
pub(crate) struct IkeSa {
    pub(crate) local_spi: [u8; 8],
    pub(crate) remote_spi: [u8; 8],
    pub(crate) role: Role,
    pub(crate) slot: Slot,
    /// Where the last authentic request came from.
    pub(crate) path: Path,
    pub(crate) nat: NatState,
    /// Its IKE_AUTH response is on its way: a negotiation no more. Set by the endpoint.
    pub(crate) announced: bool,
    /// When its first message came or was sent, if IKE_AUTH has made it.
    pub(crate) began: Option<Instant>,
    pub(crate) proposal: IkeProposal,
    keys: IkeKeys,
    ivs: IvSequence,
    window: Window,
    transport: TransportState,
    incoming: Incoming,
    pub(crate) state: State,
}

/// What an IKE SA waits for.
pub(crate) enum State {
    /// IKE_AUTH.
    ExpectAuth(Box<ExpectAuth>),
    /// The response to our IKE_AUTH.
    ExpectAuthResponse(Box<ExpectAuthResponse>),
    /// Any exchange of an authenticated peer.
    Established(Box<Established>),
}

/// IKE_SA_INIT is answered (RFC 7296 §1.2).
pub(crate) struct ExpectAuth {
    /// What AUTH covers; its `response` is what a retransmitted request gets again.
    pub(crate) transcript: Transcript,
    /// What comes before IKE_AUTH (RFC 9242).
    pub(crate) intermediate: Intermediate,
    /// The connection that the peer's identity belongs to, once it has said it.
    pub(crate) identified: Option<Arc<Connection>>,
    /// IKE_AUTH has come, and its answer waits for somebody's decision.
    pub(crate) decision: Option<Box<ExpectDecision>>,
}

impl ExpectAuth {
    fn new(transcript: Transcript, intermediate: Intermediate) -> Self {
        Self {
            transcript,
            intermediate,
            identified: None,
            decision: None,
        }
    }
}

/// The peer is authenticated.
pub(crate) struct Established {
    pub(crate) connection: Arc<Connection>,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    pub(crate) established_at: Instant,
    pub(crate) children: Vec<Child>,
    pub(crate) pending: Option<Box<Pending>>,
    /// What the peer makes by additional key exchanges that are under way, oldest first.
    follow_ups: Vec<Awaited>,
    /// Message ID of our next request. 64 bits for the same reason as in [`Window`].
    next_request: u64,
    /// Our request that waits for its response: a window of one (RFC 7296 §2.3).
    outstanding: Option<Box<Outstanding>>,
    /// What to ask for next, most urgent first.
    tasks: BTreeSet<Task>,
    /// What to ask for later.
    deferred: Vec<(Instant, Task)>,
    /// CHILD_SAs that only the peer has: our inbound SPIs, to be deleted.
    unwanted: Vec<[u8; 4]>,
    /// It has a successor; it waits to be deleted.
    replaced: bool,
    /// We delete it.
    closing: bool,
    /// We delete it because something went wrong.
    failed: bool,
    /// Our SPI of the IKE SA that it was made from.
    pub(crate) predecessor: Option<[u8; 8]>,
    /// The peer has said something under it.
    heard: bool,
    /// The peer may not know it yet, and may still be asking under its predecessor: no request of
    /// ours goes out.
    held: bool,
    /// Since when it has a successor, as far as this member knows.
    replaced_since: Option<Instant>,
    /// What the first record says of it, and no later one.
    pub(crate) contact: Option<Contact>,
    /// Its record has changed since it was published.
    dirty: bool,
    pub(crate) peer_syncs: bool,
    peer_synced: Option<u32>,
    /// It goes on from a record, which may lack what the peer has seen.
    pub(super) resumed: bool,
    /// Our answer to the peer's last synchronisation, which is outside the window.
    last_sync: Option<CachedResponse>,
    /// When it is to be rekeyed, and when it ends.
    rekey_at: Option<Instant>,
    /// When it is to be authenticated anew.
    reauth_at: Option<Instant>,
    expires_at: Option<Instant>,
    /// When the last authentic message came.
    heard_at: Instant,
    /// Since when the peer says TEMPORARY_FAILURE.
    refused_since: Option<Instant>,
    /// The key exchange that the peer wants instead of the one we guessed (INVALID_KE_PAYLOAD).
    wanted_ke: Option<KeyExchangeMethod>,
    /// The request was made again because of that.
    retried: bool,
    clocks: Clocks,
    unknown: Vec<Unknown>,
}

impl Established {
    /// Without children, at the beginning of its Message IDs.
    fn new(
        connection: Arc<Connection>,
        local_id: Identity,
        remote_id: Identity,
        now: Instant,
    ) -> Self {
        Self {
            connection,
            local_id,
            remote_id,
            established_at: now,
            children: Vec::new(),
            pending: None,
            follow_ups: Vec::new(),
            next_request: 0,
            outstanding: None,
            tasks: BTreeSet::new(),
            deferred: Vec::new(),
            unwanted: Vec::new(),
            replaced: false,
            closing: false,
            failed: false,
            predecessor: None,
            heard: false,
            held: false,
            replaced_since: None,
            contact: None,
            dirty: false,
            peer_syncs: false,
            peer_synced: None,
            resumed: false,
            last_sync: None,
            rekey_at: None,
            reauth_at: None,
            expires_at: None,
            heard_at: now,
            refused_since: None,
            wanted_ke: None,
            retried: false,
            clocks: Clocks::default(),
            unknown: Vec::new(),
        }
    }

    /// The child with our inbound SPI `spi`.
    fn child_mut(&mut self, spi: [u8; 4]) -> Option<&mut Child> {
        self.children
            .iter_mut()
            .find(|child| child.sa.spi_in == spi)
    }

    fn child(&self, spi: [u8; 4]) -> Option<&Child> {
        self.children.iter().find(|child| child.sa.spi_in == spi)
    }
}

/// An installed CHILD_SA.
pub(crate) struct Child {
    pub(crate) sa: ChildSa,
    pub(crate) installed_at: Instant,
    pub(crate) expires_at: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) state: ChildState,
    unknown: Vec<Unknown>,
}

/// What an answer needs of its request.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) header: HeaderRepr,
    pub(crate) path: Path,
    /// SHA-256 of the datagram.
    pub(crate) digest: [u8; 32],
}

/// An answer that waits for the kernel.
pub(crate) struct Pending {
    request: Request,
    pub(crate) child: Box<ChildSa>,
    pub(crate) replaces: Option<ChildId>,
    /// Our own rekeying of the same CHILD_SA has won meanwhile (RFC 7296 §2.8.1).
    lost: bool,
    /// The answer if the kernel installs the child, …
    installed: MessageBuilder,
    /// … and the beginning of the answer if it does not; the NOTIFY follows.
    refused: MessageBuilder,
    pub(crate) deadline: Instant,
    /// The request is IKE_AUTH: with the answer the IKE SA is established.
    establishes: Option<Establishment>,
}

/// What the endpoint must know when an IKE SA is established.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Establishment {
    /// What the peer says of its other IKE SAs with us.
    pub(crate) contact: Contact,
}

/// Why an IKE SA ends: what is made anew depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// We want it so.
    OurWill,
    /// The peer wants it so.
    PeersWill,
    /// The peer is dead, or something went wrong.
    Failure,
}

/// What a request has come to, as far as the endpoint has a part in it.
pub(crate) enum Step {
    /// The answer waits for the kernel.
    Waiting,
    /// The state changed; here is the answer.
    Answer(Answer),
    /// The datagram changed nothing.
    Dropped(Silence),
    /// IKE_AUTH is complete; the endpoint does its part and then calls [`IkeSa::answer`].
    Establish(Establishment, Answer),
    /// The IKE SA is over; this is its last answer.
    Close(Answer, Cause, &'static str),
    /// The IKE SA has a successor that took the children (RFC 7296 §2.18); the endpoint adds it
    /// and then calls [`IkeSa::answer`].
    Rekeyed(Box<IkeSa>, Answer),
    /// The IKE SA is over, and nobody waits for an answer.
    Gone(Cause, &'static str),
    /// The IKE SA is to be replaced by one that is authenticated anew.
    Reauthenticate,
    /// The peer has answered IKE_AUTH and is authenticated.
    Opened,
    /// Our IKE_AUTH was answered with REDIRECT: the peer is authenticated, and there is no CHILD_SA.
    OpenedElsewhere(Gateway),
    /// The peer asks us to go to another gateway; the answer is due first.
    SentElsewhere(Answer, Gateway),
    /// It has answered, and there will be no IKE SA.
    Unopened(String),
    /// We have rekeyed the IKE SA.
    Succeeded(Box<Succession>),
    /// We cannot rekey the IKE SA, and the peer has (RFC 7296 §2.8.2): our SPI of its successor.
    Conceded([u8; 8]),
}

/// An answer not yet sealed.
pub(crate) struct Answer {
    request: Request,
    message: MessageBuilder,
}

/// Why a datagram got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The integrity check failed, or the message is not even encrypted.
    Integrity,
    /// Outside the window.
    MessageId,
    /// The exchange does not fit the state.
    UnexpectedExchange,
    /// The first one is still being worked on.
    InProgress,
    /// A response to nothing that is outstanding.
    UnexpectedResponse,
    /// A fragment that nobody asked for, or that is held already.
    Fragment,
    /// A fragment that would exceed a limit.
    FragmentLimit,
}

impl IkeSa {
    /// The authenticated side of it.
    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            State::ExpectAuth(_) | State::ExpectAuthResponse(_) => None,
        }
    }

    fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.state {
            State::Established(established) => Some(established),
            State::ExpectAuth(_) | State::ExpectAuthResponse(_) => None,
        }
    }

    /// The peer has just authenticated it: its first record says so, for the member whose slot it
    /// may have to go to.
    pub(crate) fn note_contact(&mut self, contact: Contact) {
        if let Some(established) = self.established_mut() {
            established.contact = Some(contact);
        }
    }

    /// The older ones of its identities are about to be dealt with.
    pub(crate) fn settle_contact(&mut self) {
        if let Some(established) = self.established_mut() {
            established.dirty |= established.contact.take().is_some();
        }
    }

    /// Below it its IVs are used up.
    pub(crate) fn iv_position(&self) -> u64 {
        self.ivs.position()
    }

    /// Our inbound SPIs of its children.
    pub(crate) fn child_spis(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        let children = self.established().into_iter().flat_map(|e| &e.children);
        children.map(|child| child.sa.spi_in)
    }

    /// Name of the connection, once it is known.
    fn connection_name(&self) -> Option<String> {
        let connection = match &self.state {
            State::Established(established) => &established.connection,
            State::ExpectAuth(init) => init.identified.as_ref()?,
            State::ExpectAuthResponse(_) => &self.opening()?.connection,
        };
        Some(connection.name.clone())
    }

    /// What an authentication is made with, in our role.
    fn auth_context<'a>(
        &'a self,
        core: &'a Core,
        now: Instant,
        transcript: &'a Transcript,
    ) -> AuthContext<'a> {
        AuthContext {
            core,
            now,
            role: self.role,
            prf: self.proposal.prf,
            keys: &self.keys,
            transcript,
        }
    }

    /// Queues an event about this IKE SA.
    pub(crate) fn event(&self, core: &mut Core, kind: EventKind) {
        core.out.sa_event(Event {
            local_spi: Some(self.local_spi),
            path: Some(self.path),
            connection: self.connection_name(),
            kind,
        });
    }

    /// Removes all children, installed or about to be, from kernel and tables, and stops all
    /// clocks: the IKE SA is over.
    pub(crate) fn drop_children(&mut self, core: &mut Core, reason: &str) {
        self.discard_fragments(core);
        self.drop_outstanding(core);
        self.release_follow_ups(core);
        self.stop_clocks(core);
        let Some(established) = self.established_mut() else {
            return;
        };
        let children = std::mem::take(&mut established.children);
        let pending = established.pending.take();
        for child in children {
            core.cancel_lifetime(&child);
            self.remove_child(core, &child.sa, reason);
        }
        if let Some(pending) = pending {
            core.stop_waiting(self.local_spi, &pending);
            core.esp_spis.release(&pending.child.spi_in);
            core.out.kernel(KernelRequest::Remove {
                child: pending.child.id(),
            });
        }
    }

    /// Stops to account for the children; the kernel keeps them.
    pub(crate) fn release_children(&mut self, core: &mut Core) {
        self.discard_fragments(core);
        self.forget_outstanding(core);
        self.release_follow_ups(core);
        self.stop_clocks(core);
        let Some(established) = self.established_mut() else {
            return;
        };
        let children = std::mem::take(&mut established.children);
        let pending = established.pending.take();
        for child in children {
            core.cancel_lifetime(&child);
            core.esp_spis.release(&child.sa.spi_in);
        }
        if let Some(pending) = pending {
            core.stop_waiting(self.local_spi, &pending);
            core.esp_spis.release(&pending.child.spi_in);
        }
    }

    /// Takes one child out of the kernel and the tables; it is no longer in the list.
    fn remove_child(&self, core: &mut Core, child: &ChildSa, reason: &str) {
        core.esp_spis.release(&child.spi_in);
        core.out.kernel(KernelRequest::Remove { child: child.id() });
        self.event(
            core,
            EventKind::ChildSaRemoved {
                child: child.id(),
                reason: reason.to_owned(),
            },
        );
    }

    /// Seals a message that leaves over `path`: in fragments if it is too large, the peer takes them
    /// and the connection wants it. Those then stand one after the other, as
    /// [`crate::wire::messages`] takes them apart; that is how they are remembered, too.
    fn seal_message(
        &mut self,
        core: &mut Core,
        path: Path,
        message: MessageBuilder,
    ) -> Result<Vec<u8>, IkeError> {
        core.counters.sent(message.header());
        let connection = match (self.established(), self.opening()) {
            (Some(established), _) => Some(&established.connection),
            (None, opening) => opening.map(|plan| &plan.connection),
        };
        let limit = connection
            .map(|connection| &connection.transport)
            .filter(|transport| self.transport.fragments && transport.fragmentation.sends())
            .map_or(usize::MAX, |transport| transport.message_size(path.local));
        let key = match self.role {
            Role::Initiator => &self.keys.ei,
            Role::Responder => &self.keys.er,
        };
        let ivs = &mut self.ivs;
        let encryption = self.proposal.encryption;
        Ok(
            message.seal_within(&*core.crypto, encryption, key.expose(), limit, || {
                ivs.draw()
            })?,
        )
    }

    /// Our key, with which we seal, and the peer's, with which we open.
    fn sk_e(&self) -> (&[u8], &[u8]) {
        match self.role {
            Role::Initiator => (self.keys.ei.expose(), self.keys.er.expose()),
            Role::Responder => (self.keys.er.expose(), self.keys.ei.expose()),
        }
    }
}

/// A new IKE SA's IVs.
fn fresh_ivs(config: &Config) -> IvSequence {
    IvSequence::of(config, 0)
}

/// A nonce of ours: 32 octets, at least 128 bits and half the key of every PRF that we have
/// (RFC 7296 §2.10).
fn draw_nonce(crypto: &dyn CryptoProvider) -> [u8; 32] {
    let mut nonce = [0; 32];
    crypto.random(&mut nonce);
    nonce
}
