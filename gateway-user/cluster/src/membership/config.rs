//! What the membership has to know before it starts.

use std::time::Duration;

use gateway_common::member::MemberId;

use crate::frame::Incarnation;
use crate::slot_map::{Failback, Mode, Weighted};

/// The cluster as this member was configured, and this run of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub local: MemberId,
    /// This run of the agent: larger than that of every earlier run of this member.
    pub incarnation: Incarnation,
    /// All members, this one included. The lower the id, the higher the priority.
    pub members: Vec<Weighted>,
    /// How slots are spread.
    pub mode: Mode,
    /// HA mode: what happens when a member of higher priority than the active one comes back.
    pub failback: Failback,
    /// Load sharing with the VIPs on one member only, the pivot (ClusterXL's Load Sharing Unicast).
    pub pivot: bool,
    /// A witness on a third host votes in views with an even number of members.
    pub witness: bool,
    /// What the survivor of two does if no witness is configured.
    pub two_member: TwoMember,
    /// A cold start needs no majority: for clusters that may not wait for an operator. Two members
    /// that start without hearing each other both serve then.
    pub boot_alone: bool,
    /// Digest of what has to be configured alike on all members; a difference is reported.
    pub config_hash: u64,
    /// Intervals.
    pub timing: Timing,
    /// Safety mechanisms that are switched off, to prove that the tests notice.
    #[cfg(any(test, feature = "mutations"))]
    pub mutations: Mutations,
}

impl Config {
    /// A load-sharing cluster with default timing.
    pub fn new(local: MemberId, incarnation: Incarnation, members: Vec<Weighted>) -> Self {
        Self {
            local,
            incarnation,
            members,
            mode: Mode::LoadSharing,
            failback: Failback::default(),
            pivot: false,
            witness: false,
            two_member: TwoMember::default(),
            boot_alone: false,
            config_hash: 0,
            timing: Timing::default(),
            #[cfg(any(test, feature = "mutations"))]
            mutations: Mutations::default(),
        }
    }

    /// Refuses what cannot work or is not safe.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.members.iter().all(|m| m.member != self.local) {
            return Err(ConfigError::LocalMissing);
        }
        self.timing.validate()
    }
}

/// The switches of [`Mutations`]; all off where they are not compiled in.
impl Config {
    pub(super) const fn ignores_lease(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.no_lease;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }

    pub(super) const fn counts_from_receipt(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.lease_from_receipt;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }

    pub(super) const fn skips_activation_wait(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.no_activation_wait;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }

    pub(super) const fn skips_incarnations(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.no_incarnation_check;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }

    pub(super) const fn never_jumps(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.no_jump;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }

    pub(super) const fn skips_epochs(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutations.no_epoch_check;
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }
}

/// What the survivor does when one of two members is lost and no witness is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TwoMember {
    /// It stops: nobody serves until the other is back or an operator decides.
    #[default]
    Consistency,
    /// It takes over when the other's lease has ended, its own probes are good and the other answers
    /// no ARP or ND on any interface. Sequence numbers have to jump and keys to change then
    /// ([`super::Output::Install`]): both may be serving.
    Availability,
}

/// Intervals. All members need the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A heartbeat goes out so often.
    pub heartbeat: Duration,
    /// A member may transmit for so long after it sent the heartbeat that a majority acknowledged.
    pub lease: Duration,
    /// A member that was not heard for so long is LOST.
    pub silence: Duration,
    /// Bound on how long a packet that passed the fence may wait in a queue: what an owner's lease
    /// covers is given to another only so long after it ended.
    pub residence: Duration,
    /// How long a starting member listens for a live view.
    pub cold_start: Duration,
    /// Least time between two view changes, unless a member died.
    pub damping: Duration,
}

impl Timing {
    /// Profile `default`: LOST after 300 ms.
    pub const DEFAULT: Self = Self {
        heartbeat: Duration::from_millis(50),
        lease: Duration::from_millis(200),
        silence: Duration::from_millis(300),
        residence: Duration::from_millis(50),
        cold_start: Duration::from_secs(10),
        damping: Duration::from_millis(50),
    };

    /// Profile `fast`: LOST after 50 ms. Needs a real-time scheduled agent.
    pub const FAST: Self = Self {
        heartbeat: Duration::from_millis(10),
        lease: Duration::from_millis(35),
        silence: Duration::from_millis(50),
        residence: Duration::from_millis(10),
        cold_start: Duration::from_secs(10),
        damping: Duration::from_millis(50),
    };

    /// All intervals except the cold start `factor` times as long, for slow machines.
    #[must_use]
    pub fn stretched(self, factor: u32) -> Self {
        Self {
            heartbeat: self.heartbeat * factor,
            lease: self.lease * factor,
            silence: self.silence * factor,
            residence: self.residence * factor,
            damping: self.damping * factor,
            ..self
        }
    }

    /// What an acknowledged lease lasts at most on another member's clock, queues included: clocks
    /// may run 1 % fast or slow.
    pub fn lease_bound(&self) -> Duration {
        self.lease + self.lease / 32 + self.residence
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.heartbeat < Duration::from_millis(1) {
            return Err(ConfigError::Heartbeat);
        }
        // Two heartbeats have to fit, so that a single lost one does not stop an owner.
        if self.lease < self.heartbeat * 3 {
            return Err(ConfigError::Lease);
        }
        if self.silence < self.lease_bound() {
            return Err(ConfigError::Silence);
        }
        if self.cold_start < self.silence * 2 {
            return Err(ConfigError::ColdStart);
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What [`Config::validate`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// This member is not among the members.
    #[error("this member is not among the configured members")]
    LocalMissing,
    /// Too short.
    #[error("the heartbeat interval has to be at least 1 ms")]
    Heartbeat,
    /// Too short.
    #[error("the lease has to last at least three heartbeats")]
    Lease,
    /// A member would be replaced while its lease runs.
    #[error("the silence time has to be at least the lease, 1/32 of it and the queue residence")]
    Silence,
    /// Too short.
    #[error("the cold start has to last at least twice the silence time")]
    ColdStart,
}

/// Safety mechanisms that can be switched off. Each has to make the simulation find a violation.
#[cfg(any(test, feature = "mutations"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// The lease never ends.
    pub no_lease: bool,
    /// Leases count from the time the acknowledgement came.
    pub lease_from_receipt: bool,
    /// Gained slots are served at once.
    pub no_activation_wait: bool,
    /// A new run takes itself for the old one, and others do as well.
    pub no_incarnation_check: bool,
    /// Grants are given and counted whatever their epoch, and after another view was accepted.
    pub no_epoch_check: bool,
    /// Half of a view goes on where the other half does.
    pub no_jump: bool,
}
