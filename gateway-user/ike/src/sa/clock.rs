//! The deadlines of one IKE SA, at most one of each kind.

use std::time::Duration;

use gateway_common::time::Instant;

use super::IkeSa;
use crate::config::Volume;
use crate::crypto::CryptoProvider;
use crate::endpoint::core::Core;
use crate::output::Quota;

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
    /// The peer has not gone on with additional key exchanges.
    FollowUp,
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
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(below(crypto, nanos))
}

/// A random number below `bound`, or 0.
fn below(crypto: &dyn CryptoProvider, bound: u64) -> u64 {
    let mut octets = [0; 4];
    crypto.random(&mut octets);
    let fraction = u64::from(u32::from_be_bytes(octets));
    // Below 2^64: the product of 64 and 32 bits, shifted back by 32.
    let below = (u128::from(bound) * u128::from(fraction)) >> 32;
    u64::try_from(below).unwrap_or(u64::MAX)
}

/// What a CHILD_SA may carry: soft bounds have jitter, as lifetimes do. Without bounds nothing is
/// drawn.
pub(super) fn draw_quota(crypto: &dyn CryptoProvider, volume: Volume) -> Quota {
    let soft = |rekey: u64, rand: u64| match rekey {
        0 => 0,
        _ => rekey.saturating_sub(below(crypto, rand)).max(1),
    };
    Quota {
        soft_bytes: soft(volume.rekey_bytes, volume.rand_bytes),
        hard_bytes: volume.life_bytes,
        soft_packets: soft(volume.rekey_packets, volume.rand_packets),
        hard_packets: volume.life_packets,
    }
}
