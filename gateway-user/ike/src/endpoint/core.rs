//! What the exchanges of every IKE SA share: configuration, library, tables, timers, output.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::counters::Counters;
use super::outbox::Outbox;
use super::spi::EspSpis;
use super::timers::{Timer, Timers};
use crate::config::Config;
use crate::crypto::CryptoProvider;
use crate::sa::{Child, Clock, Pending};
use crate::x509::Crl;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

/// Shared by the endpoint and its IKE SAs.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) crypto: Arc<dyn CryptoProvider>,
    pub(crate) out: Outbox,
    pub(crate) counters: Counters,
    pub(crate) timers: Timers,
    /// Our SPIs of all IKE SAs, also of those that only linger.
    pub(crate) ike_spis: BTreeSet<[u8; 8]>,
    pub(crate) esp_spis: EspSpis,
    /// No IKE SA that comes (back) draws IVs below it: this run may have drawn them already, if the
    /// record is of a member that did not know.
    pub(crate) iv_floor: u64,
    /// Octets that incomplete messages of unauthenticated peers take.
    pub(crate) reassembling: usize,
    pub(crate) crls: Vec<Arc<Crl>>,
    /// A moment, and the time of day that it was, in seconds since 1970.
    pub(crate) wall_clock: Option<(Instant, u64)>,
    /// The slot of what is answered now, if the decision function is not to say it.
    pub(crate) slot: Option<Slot>,
    /// Another member may serve the same IKE SAs, under the same Message IDs.
    pub(crate) divided: bool,
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, crypto: Arc<dyn CryptoProvider>) -> Self {
        Self {
            config,
            crypto,
            out: Outbox::default(),
            counters: Counters::default(),
            timers: Timers::default(),
            ike_spis: BTreeSet::new(),
            esp_spis: EspSpis::default(),
            iv_floor: 0,
            reassembling: 0,
            crls: Vec::new(),
            wall_clock: None,
            slot: None,
            divided: false,
        }
    }

    /// The time of day in seconds since 1970, if the driver has told it.
    pub(crate) fn unix_time(&self, now: Instant) -> Option<u64> {
        let (then, unix) = self.wall_clock?;
        Some(unix.saturating_add(now.saturating_since(then).as_secs()))
    }

    /// Starts the clock of a question to the kernel.
    pub(crate) fn await_kernel(&mut self, local_spi: [u8; 8], pending: &Pending) {
        self.timers.set(pending.deadline, Timer::Kernel(local_spi));
    }

    /// The kernel answered, or nobody waits any more.
    pub(crate) fn stop_waiting(&mut self, local_spi: [u8; 8], pending: &Pending) {
        self.timers
            .cancel(pending.deadline, Timer::Kernel(local_spi));
    }

    /// Starts the clocks of an installed child.
    pub(crate) fn start_lifetime(&mut self, child: &Child) {
        self.timers
            .set(child.expires_at, Timer::Child(child.sa.spi_in));
        if let Some(at) = child.rekey_at {
            self.timers.set(at, Timer::RekeyChild(child.sa.spi_in));
        }
    }

    /// Stops them.
    pub(crate) fn cancel_lifetime(&mut self, child: &Child) {
        self.timers
            .cancel(child.expires_at, Timer::Child(child.sa.spi_in));
        if let Some(at) = child.rekey_at {
            self.timers.cancel(at, Timer::RekeyChild(child.sa.spi_in));
        }
    }

    /// Sets a deadline of an IKE SA.
    pub(crate) fn set_clock(&mut self, local_spi: [u8; 8], clock: Clock, at: Instant) {
        self.timers.set(at, Timer::Sa(local_spi, clock));
    }

    /// Takes it back.
    pub(crate) fn stop_clock(&mut self, local_spi: [u8; 8], clock: Clock, at: Instant) {
        self.timers.cancel(at, Timer::Sa(local_spi, clock));
    }
}
