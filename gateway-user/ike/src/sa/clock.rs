//! The deadlines of one IKE SA, at most one of each kind.

use std::time::Duration;

use gateway_common::time::Instant;

use super::IkeSa;
use crate::crypto::CryptoProvider;
use crate::endpoint::core::Core;

/// What is due. The order is that in which things are done that are due at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clock {
    /// The outstanding request has to be sent again, or given up.
    Retransmit,
    /// The kernel did not answer for a CHILD_SA of ours.
    Install,
    /// It has been replaced, and the peer should have deleted it.
    Replaced,
    /// It has reached the end of its life.
    Expire,
    /// It has to be rekeyed.
    Rekey,
    /// It has to be authenticated anew.
    Reauthenticate,
    /// Something that the peer refused is to be tried again.
    Retry,
    /// The peer has been silent.
    Idle,
    /// The rest of a message in fragments has not come.
    Reassembly,
    /// The NAT before us must not forget the mapping.
    Keepalive,
}

/// Deadlines that are set.
#[derive(Debug, Default)]
pub(super) struct Clocks(Vec<(Clock, Instant)>);

impl IkeSa {
    /// Sets a deadline in place of the one of its kind.
    pub(super) fn set_clock(&mut self, core: &mut Core, clock: Clock, at: Instant) {
        self.stop_clock(core, clock);
        let spi = self.local_spi;
        if let Some(established) = self.established_mut() {
            established.clocks.0.push((clock, at));
            core.set_clock(spi, clock, at);
        }
    }

    /// Takes one back.
    pub(super) fn stop_clock(&mut self, core: &mut Core, clock: Clock) {
        let spi = self.local_spi;
        if let Some(established) = self.established_mut() {
            established.clocks.0.retain(|(kind, at)| {
                if *kind == clock {
                    core.stop_clock(spi, clock, *at);
                }
                *kind != clock
            });
        }
    }

    /// Takes all back: the IKE SA is over, or another member's.
    pub(crate) fn stop_clocks(&mut self, core: &mut Core) {
        let spi = self.local_spi;
        if let Some(established) = self.established_mut() {
            for (clock, at) in std::mem::take(&mut established.clocks.0) {
                core.stop_clock(spi, clock, at);
            }
        }
    }
}

/// A random duration below `bound`.
pub(crate) fn jitter(crypto: &dyn CryptoProvider, bound: Duration) -> Duration {
    let mut octets = [0; 4];
    crypto.random(&mut octets);
    let fraction = u64::from(u32::from_be_bytes(octets));
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    // Below 2^64: the product of 64 and 32 bits, shifted back by 32.
    let below = (u128::from(nanos) * u128::from(fraction)) >> 32;
    Duration::from_nanos(u64::try_from(below).unwrap_or(u64::MAX))
}
