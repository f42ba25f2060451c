//! All IKE SAs of one member: demultiplexing, admission of new ones, timers.
//!
//! Sans-IO. Every `handle_*` call may queue [`Output`]s; afterwards the driver calls
//! [`Endpoint::poll_output`] until it returns `None`, carries the outputs out in that order, and
//! asks [`Endpoint::poll_timeout`] when to call [`Endpoint::handle_timeout`].
//!
//! # Order
//! A response that depends on state is preceded by everything it depends on: first
//! [`Output::Kernel`] with the CHILD_SA to install; after the kernel's answer [`Output::Delta`] with
//! the record; then [`Output::Transmit`], whose `after` names that delta. A retransmitted response
//! names the same delta: if it has been acknowledged meanwhile, the driver lets it pass at once.
//!
//! A request of ours names the delta whose record has its octets and everything that its response
//! will need; so do its retransmissions. When the response has come, the kernel's answer (if it has
//! to install something) and the delta with the outcome follow.

mod admission;
mod command;
mod cookie;
pub(crate) mod core;
mod counters;
mod demux;
mod hand_over;
mod init;
mod initiation;
mod initiative;
mod lifecycle;
mod linger;
mod outbox;
mod rate;
pub(crate) mod spi;
mod status;
mod stray;
pub(crate) mod timers;
mod unique;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

pub use self::command::{Command, InitiateOrder, Target};
pub use self::counters::Counters;
pub use self::status::{ChildStatus, SaStatus};

use self::admission::HalfOpen;
use self::cookie::Cookies;
use self::core::Core;
use self::initiation::{Initiations, Redirects};
use self::rate::RateLimit;
use self::stray::Scarce;
use crate::config::Config;
use crate::crypto::CryptoProvider;
use crate::output::{DeltaId, EventKind, KernelResult, Output};
use crate::record::{CachedResponse, IkeSaRecord};
use crate::sa::{ExpectInitResponse, IkeSa, State};

/// The IKEv2 engine of one member.
pub struct Endpoint {
    core: Core,
    /// By our SPI.
    sas: BTreeMap<[u8; 8], Box<IkeSa>>,
    /// By our SPI: those that we are initiating, before their IKE_AUTH.
    openings: BTreeMap<[u8; 8], Box<ExpectInitResponse>>,
    /// By our SPI: what IKE_SA_INIT started less than `half_open_timeout` ago.
    negotiations: BTreeMap<[u8; 8], Negotiation>,
    /// Our SPI by IKE_SA_INIT request, for its retransmissions.
    by_request: BTreeMap<RequestKey, [u8; 8]>,
    /// Our SPIs of established IKE SAs by the pair of identities.
    by_identity: BTreeMap<Box<[u8]>, BTreeSet<[u8; 8]>>,
    /// Successors that came by import before their predecessors, by the predecessors' SPIs.
    unconfirmed: BTreeMap<[u8; 8], [u8; 8]>,
    /// By our SPI: closed IKE SAs whose last answer may have been lost.
    lingering: BTreeMap<[u8; 8], Lingering>,
    half_open: HalfOpen,
    initiations: Initiations,
    redirects: Redirects,
    cookies: Cookies,
    cookie_rate: RateLimit,
    error_rate: RateLimit,
    strays: Scarce,
    hints: Scarce,
    /// While [`Self::handle_stray`] runs.
    nobody_has_it: bool,
}

/// Tells IKE_SA_INIT requests apart. RFC 7296 §2.1: SPI and address are not enough, two initiators
/// behind one NAT may have drawn the same SPI; the digest of the whole message is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RequestKey {
    source: IpAddr,
    initiator_spi: [u8; 8],
    digest: [u8; 32],
}

struct Negotiation {
    key: RequestKey,
    deadline: Instant,
    /// Neither established nor failed: it counts as half-open.
    open: bool,
}

struct Lingering {
    response: CachedResponse,
    after: Option<DeltaId>,
    remote_spi: [u8; 8],
    slot: Slot,
    deadline: Instant,
    /// It was established: the other members have it, too.
    replicated: bool,
}

impl Endpoint {
    /// An endpoint without IKE SAs.
    pub fn new(config: Arc<Config>, crypto: Arc<dyn CryptoProvider>, now: Instant) -> Self {
        Self {
            cookies: Cookies::new(&*crypto, now),
            cookie_rate: RateLimit::new(config.limits.cookie_rate, now),
            error_rate: RateLimit::new(config.limits.stateless_error_rate, now),
            strays: Scarce::answers(config.limits.invalid_ike_spi_rate, now),
            hints: Scarce::hints(config.limits.invalid_ike_spi_rate, now),
            nobody_has_it: false,
            core: Core::new(config, crypto),
            sas: BTreeMap::new(),
            openings: BTreeMap::new(),
            negotiations: BTreeMap::new(),
            by_request: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            lingering: BTreeMap::new(),
            half_open: HalfOpen::default(),
            initiations: Initiations::default(),
            redirects: Redirects::default(),
        }
    }

    /// The kernel's answer to an [`crate::output::KernelRequest::Install`]. An answer that nobody
    /// waits for any more is ignored.
    pub fn handle_kernel(&mut self, now: Instant, result: KernelResult) {
        let (child, outcome) = match result {
            KernelResult::Installed(child) => (child, Ok(())),
            KernelResult::Failed { child, reason } => (child, Err(reason)),
        };
        let Some(mut sa) = self
            .core
            .esp_spis
            .owner(&child.spi_in)
            .and_then(|spi| self.sas.remove(&spi))
        else {
            return;
        };
        match sa.handle_kernel(&mut self.core, now, child, outcome) {
            Some(step) => self.settle(now, sa, step),
            None => self.keep(now, sa),
        }
    }

    /// Carries out an order.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::SetCookieSecret { version, secret } => {
                self.cookies.set(now, version, secret);
            }
            Command::SetWallClock { unix_seconds } => {
                self.core.wall_clock = Some((now, unix_seconds));
            }
            Command::SetCrls(crls) => self.core.crls = crls,
            Command::Configure {
                connections,
                secrets,
                ppks,
            } => {
                let (member, incarnation, limits) = {
                    let now = &self.core.config;
                    (now.member, now.incarnation, now.limits)
                };
                self.core.config = Arc::new(Config {
                    member,
                    incarnation,
                    connections,
                    secrets,
                    ppks,
                    limits,
                });
            }
            Command::Import(record) => self.import(now, *record),
            Command::Adopt(record) => self.adopt(now, *record),
            Command::Decide { local_spi, contact } => self.decide(now, local_spi, contact),
            Command::Decided { handle, verdict } => self.decided(now, handle, &verdict),
            Command::Meet(record) => self.meet(now, *record),
            Command::PeerIsNear { local_spi } => self.peer_is_elsewhere(local_spi),
            Command::Initiate(order) => self.initiate(now, &order),
            Command::Relinquish { connection } => self.relinquish(&connection),
            Command::Abort { local_spi } => {
                self.give_up_half_open(now, local_spi, "the operator took it away");
            }
            Command::Forget { local_spi } => self.forget(local_spi),
            Command::Liveness { local_spi } => {
                self.with_sa(now, local_spi, |sa, _| sa.request_liveness());
            }
            Command::Rekey(target) => self.rekey(now, target),
            Command::Terminate(target) => self.terminate(now, target),
            Command::SetDivided(divided) => self.core.divided = divided,
            Command::Reconcile(other) => {
                self.at_sa(now, other.local_spi, |sa, core| {
                    sa.reconcile(core, now, *other)
                });
            }
            Command::SyncMessageIds { local_spi } => self.with_sa(now, local_spi, |sa, _| {
                if !sa.synchronise_in_doubt() {
                    sa.request_liveness();
                }
            }),
            Command::Redirect { local_spi, gateway } => {
                self.with_sa(now, local_spi, |sa, core| {
                    if !sa.redirect(gateway) {
                        let reason = "the peer cannot be redirected".to_owned();
                        sa.event(core, EventKind::ExchangeFailed { reason });
                    }
                });
            }
            Command::Reslot { local_spi, slot } => self.reslot(now, local_spi, slot),
        }
    }

    /// The next effect, in the order in which they have to be carried out. `None`: wait for the next
    /// input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.out.poll()
    }

    /// When [`Self::handle_timeout`] has something to do; `None`: never, as things are. Changes with
    /// every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    /// Established IKE SAs, by our SPI.
    pub fn sas(&self) -> impl Iterator<Item = SaStatus> + '_ {
        self.sas.values().filter_map(|sa| sa.status())
    }

    /// The established IKE SA with our SPI `local_spi`.
    pub fn sa(&self, local_spi: [u8; 8]) -> Option<SaStatus> {
        self.sas.get(&local_spi)?.status()
    }

    /// Half-open IKE SAs.
    pub fn half_open(&self) -> usize {
        self.half_open.total()
    }

    /// Our SPIs of the half-open IKE SAs whose IKE_AUTH a peer has not sent or not completed, with
    /// their slots: nobody else has their secrets.
    pub fn negotiations(&self) -> impl Iterator<Item = ([u8; 8], Slot)> + '_ {
        let open = self.negotiations.iter().filter(|(_, n)| n.open);
        let sas = open.filter_map(|(spi, _)| self.sas.get(spi));
        sas.filter(|sa| matches!(sa.state, State::ExpectAuth(_)))
            .map(|sa| (sa.local_spi, sa.slot))
    }

    /// CHILD_SAs, those included that the kernel has not confirmed yet.
    pub fn child_sas(&self) -> usize {
        self.core.esp_spis.len()
    }

    /// Octets that fragments of unauthenticated peers take, as
    /// [`crate::config::Limits::reassembly_unauthenticated_total`] counts them.
    pub fn reassembling(&self) -> usize {
        self.core.reassembling
    }

    /// What was counted since [`Self::new`].
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// The records of all established IKE SAs, by our SPI: what a joining member needs.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = IkeSaRecord> + '_ {
        self.sas
            .values()
            .filter(|sa| sa.announced)
            .filter_map(move |sa| sa.export(now))
    }

    /// Puts an IKE SA back after an input has been dealt with, and lets it start what is to be
    /// done next.
    fn keep(&mut self, now: Instant, mut sa: Box<IkeSa>) {
        let held_by = sa
            .unconfirmed_successor_of()
            .filter(|old| self.sas.contains_key(old));
        sa.hold(held_by.is_some());
        // Of the two, the peer knows the predecessor.
        let asks = sa.take_held_liveness();
        self.go_on(now, sa);
        if let Some(old) = held_by.filter(|_| asks) {
            self.with_sa(now, old, |old, _| old.request_liveness());
        }
    }

    fn go_on(&mut self, now: Instant, mut sa: Box<IkeSa>) {
        match sa.advance(&mut self.core, now) {
            Some(step) => self.settle(now, sa, step),
            None => {
                self.sas.insert(sa.local_spi, sa);
            }
        }
    }
}
