//! The initiations of an endpoint.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use crate::config::{ChildConfig, Connection};
use crate::endpoint::InitiateOrder;
use crate::endpoint::core::Core;
use crate::endpoint::timers::Timer;
use crate::sa::jitter;

/// A connection that is being brought up.
pub(super) struct Initiation {
    pub(super) connection: Arc<Connection>,
    /// The first one goes with IKE_AUTH, the others follow.
    pub(super) children: Vec<Arc<ChildConfig>>,
    pub(super) initial_contact: bool,
    pub(super) slot: Slot,
    /// Our SPI of the IKE SA that the new one replaces, when it is there (reauthentication).
    pub(super) replaces: Option<[u8; 8]>,
    pub(super) phase: Phase,
    /// The peer has sent us elsewhere (RFC 5685).
    pub(super) redirection: Option<Redirection>,
    persistent: bool,
    /// Attempts so far.
    attempts: usize,
    /// How often all addresses were tried in vain.
    rounds: u32,
}

/// Where a redirection leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redirection {
    /// Our address and the new gateway's.
    pub(super) to: (IpAddr, IpAddr),
    /// The gateway that sent us there (REDIRECTED_FROM).
    pub(super) from: IpAddr,
}

/// Where an initiation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for its turn.
    Queued,
    /// An attempt is under way, with this SPI of ours.
    Running([u8; 8]),
    /// It waits until then for the next attempt.
    Waiting(Instant),
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    NextAddress,
    Pause(Duration),
    GiveUp,
}

impl Initiation {
    pub(super) fn new(
        connection: Arc<Connection>,
        children: Vec<Arc<ChildConfig>>,
        order: &InitiateOrder,
    ) -> Self {
        Self {
            connection,
            children,
            initial_contact: order.initial_contact,
            slot: order
                .slot
                .unwrap_or_else(|| Slot::for_connection(&order.connection)),
            replaces: None,
            phase: Phase::Queued,
            redirection: None,
            persistent: order.persistent,
            attempts: 0,
            rounds: 0,
        }
    }

    /// Another order for the same connection.
    pub(super) fn join(&mut self, children: &[Arc<ChildConfig>], order: &InitiateOrder) {
        for child in children {
            if self.children.iter().all(|known| known.name != child.name) {
                self.children.push(Arc::clone(child));
            }
        }
        self.persistent |= order.persistent;
    }

    /// Our address and the peer's for the attempt that is next or under way.
    pub(super) fn destination(&self) -> Option<(IpAddr, IpAddr)> {
        if let Some(redirection) = self.redirection {
            return Some(redirection.to);
        }
        let all = self.connection.destinations();
        let index = self.attempts.checked_rem(all.len())?;
        all.get(index).copied()
    }

    /// The attempt has failed.
    pub(super) fn failed(&mut self, core: &Core, refused: bool) -> Outlook {
        // Back to where the configuration leads.
        self.redirection = None;
        self.attempts += 1;
        let addresses = self.connection.destinations().len().max(1);
        if !self.attempts.is_multiple_of(addresses) {
            return Outlook::NextAddress;
        }
        let tries = self.connection.initiation.keyingtries;
        let doublings = self.rounds.min(16);
        self.rounds = self.rounds.saturating_add(1);
        let over = refused || (tries != 0 && self.rounds >= tries);
        let limits = &core.config.limits;
        let interval = limits.retry_initiate_interval;
        if over && (!self.persistent || interval.is_zero()) {
            return Outlook::GiveUp;
        }
        let pause = interval
            .saturating_mul(1 << doublings)
            .min(limits.retry_initiate_limit.max(interval));
        Outlook::Pause(pause + jitter(&*core.crypto, pause / 2))
    }
}

/// All of them.
#[derive(Default)]
pub(in crate::endpoint) struct Initiations {
    last_id: u64,
    all: BTreeMap<u64, Initiation>,
    by_name: BTreeMap<String, u64>,
    by_spi: BTreeMap<[u8; 8], u64>,
    queue: VecDeque<u64>,
}

impl Initiations {
    pub(super) fn add(&mut self, initiation: Initiation) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.by_name.insert(initiation.connection.name.clone(), id);
        self.all.insert(id, initiation);
        id
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn running(&self) -> usize {
        self.by_spi.len()
    }

    pub(super) fn by_name(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Initiation> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Initiation> {
        self.all.get_mut(&id)
    }

    /// Our SPI of the attempt that is under way.
    pub(super) fn spi(&self, id: u64) -> Option<[u8; 8]> {
        match self.all.get(&id)?.phase {
            Phase::Running(spi) => Some(spi),
            Phase::Queued | Phase::Waiting(_) => None,
        }
    }

    pub(super) fn is_waiting(&self, id: u64) -> bool {
        let initiation = self.all.get(&id);
        initiation.is_some_and(|i| matches!(i.phase, Phase::Waiting(_)))
    }

    pub(super) fn run(&mut self, id: u64, spi: [u8; 8]) {
        if let Some(initiation) = self.all.get_mut(&id) {
            initiation.phase = Phase::Running(spi);
            self.by_spi.insert(spi, id);
        }
    }

    /// The attempt with this SPI of ours is over.
    pub(super) fn ended(&mut self, spi: [u8; 8]) -> Option<u64> {
        let id = self.by_spi.remove(&spi)?;
        if let Some(initiation) = self.all.get_mut(&id) {
            initiation.phase = Phase::Queued;
        }
        Some(id)
    }

    pub(super) fn enqueue(&mut self, id: u64) {
        if let Some(initiation) = self.all.get_mut(&id) {
            initiation.phase = Phase::Queued;
            self.queue.push_back(id);
        }
    }

    /// The next one whose turn it is, unless it was ended meanwhile.
    pub(super) fn dequeue(&mut self) -> Option<u64> {
        while let Some(id) = self.queue.pop_front() {
            let initiation = self.all.get(&id);
            if initiation.is_some_and(|i| i.phase == Phase::Queued) {
                return Some(id);
            }
        }
        None
    }

    pub(super) fn wait(&mut self, core: &mut Core, id: u64, until: Instant) {
        if let Some(initiation) = self.all.get_mut(&id) {
            initiation.phase = Phase::Waiting(until);
            core.timers.set(until, Timer::Initiation(id));
        }
    }

    pub(super) fn stop_waiting(&mut self, core: &mut Core, id: u64) {
        if let Some(initiation) = self.all.get_mut(&id)
            && let Phase::Waiting(until) = initiation.phase
        {
            core.timers.cancel(until, Timer::Initiation(id));
            initiation.phase = Phase::Queued;
        }
    }

    pub(super) fn take(&mut self, core: &mut Core, id: u64) -> Option<Initiation> {
        self.stop_waiting(core, id);
        let taken = self.all.remove(&id)?;
        self.by_name.remove(&taken.connection.name);
        Some(taken)
    }

    pub(super) fn remove(&mut self, core: &mut Core, id: u64) {
        self.take(core, id);
    }
}
