//! What we start by ourselves: when, where to, and how persistently.

use std::net::IpAddr;
use std::time::Duration;

use super::{Connection, RemoteAddress};

/// What makes us initiate a CHILD_SA; swanctl's `start_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartAction {
    /// Nothing but an order.
    #[default]
    None,
    /// That it is configured.
    Start,
    /// The first packet: the driver keeps a policy that asks for the SAs.
    Trap,
}

/// What happens when the peer closes a CHILD_SA; swanctl's `close_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CloseAction {
    /// Nothing.
    #[default]
    None,
    /// We make a new one.
    Start,
}

/// What happens to a CHILD_SA whose peer is dead; swanctl's `dpd_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DpdAction {
    /// It is gone.
    #[default]
    Clear,
    /// We make a new one, under a new IKE SA.
    Restart,
}

/// What we do by ourselves about a CHILD_SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions {
    /// In the beginning.
    pub start: StartAction,
    /// When the peer closes it.
    pub close: CloseAction,
    /// When the peer is dead.
    pub dpd: DpdAction,
}

/// How a connection is initiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// Addresses of ours that we may initiate from, by preference.
    pub source_addrs: Vec<IpAddr>,
    /// How often all addresses of the peer are tried before an initiation is given up; 0 = for
    /// ever. swanctl's `keyingtries`, default 1.
    pub keyingtries: u32,
    /// Age at which an IKE SA is replaced by one that is authenticated anew, less up to
    /// [`Connection::rand_time`]; zero = never.
    pub reauth_time: Duration,
}

impl Default for Initiation {
    fn default() -> Self {
        Self {
            source_addrs: Vec::new(),
            keyingtries: 1,
            reauth_time: Duration::ZERO,
        }
    }
}

/// How much a CHILD_SA may carry, besides its time. Zero = without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Octets after which it is rekeyed, less up to `rand_bytes`.
    pub rekey_bytes: u64,
    /// Bound of what `rekey_bytes` is shortened by at random.
    pub rand_bytes: u64,
    /// Octets after which the kernel drops it.
    pub life_bytes: u64,
    /// Packets after which it is rekeyed, less up to `rand_packets`.
    pub rekey_packets: u64,
    /// Bound of what `rekey_packets` is shortened by at random.
    pub rand_packets: u64,
    /// Packets after which the kernel drops it.
    pub life_packets: u64,
}

impl Connection {
    /// Pairs of our and the peer's address that an initiation tries, in this order.
    pub fn destinations(&self) -> Vec<(IpAddr, IpAddr)> {
        let sources = &self.initiation.source_addrs;
        let remote = self
            .remote_addrs
            .iter()
            .filter_map(|remote| remote.single());
        remote
            .filter_map(|remote| {
                let fits = |source: &&IpAddr| source.is_ipv4() == remote.is_ipv4();
                Some((*sources.iter().find(fits)?, remote))
            })
            .collect()
    }
}

impl RemoteAddress {
    /// The address, if it is one and not many.
    pub fn single(self) -> Option<IpAddr> {
        match self {
            Self::Network {
                address,
                prefix_len,
            } => {
                let width = if address.is_ipv4() { 32 } else { 128 };
                (prefix_len >= width && !address.is_unspecified()).then_some(address)
            }
            Self::Any => None,
        }
    }
}
