//! What the engine is configured with. Values, checked by whoever builds them from a file.

mod authentication;
mod authorization;
mod transport;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;

mod initiation;

pub use self::initiation::{Actions, CloseAction, DpdAction, Initiation, StartAction, Volume};

use crate::identity::{Identity, IdentityPattern};
use crate::mark::Marks;
use crate::output::TrafficSelector;
use crate::proposal::{EspProposal, IkeProposal};
use crate::secret::SecretBytes;
use crate::selector::SelectorConfig;

pub use self::authentication::{
    Authentication, Credential, LocalAuth, PolicyTextError, Ppk, PpkPolicy, RemoteAuth,
    RemotePublicKey, SendCert, SignaturePolicy,
};
pub use self::authorization::Authorization;
pub use self::transport::{Childless, Fragmentation, Gateway, Transport};

/// Configuration of an `Endpoint`.
#[derive(Debug)]
pub struct Config {
    /// This member: it stands in the SPIs and IVs that are drawn here.
    pub member: MemberId,
    /// Differs between any two runs of this member that may hold the same IKE SA; stands in the
    /// IVs. The epoch under which the member was admitted serves.
    pub incarnation: u16,
    /// Connections, in the order in which they are tried.
    pub connections: Vec<Arc<Connection>>,
    /// Pre-shared keys.
    pub secrets: Vec<Secret>,
    /// Post-quantum pre-shared keys (RFC 8784).
    pub ppks: Vec<Ppk>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what unauthenticated and authenticated peers can make us hold and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Half-open IKE SAs from which on cookies are demanded; 0 = always. Default 30.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs at which further IKE_SA_INIT requests are dropped. Default 1000.
    pub half_open_limit: usize,
    /// The same per source address. Default 64.
    pub half_open_limit_per_source: usize,
    /// How long IKE_AUTH may take to complete. Default 30 s.
    pub half_open_timeout: Duration,
    /// How long the kernel may take to confirm a CHILD_SA. Default 5 s.
    pub kernel_timeout: Duration,
    /// How long a closed IKE SA still answers the retransmission of its last request. Default
    /// 30 s.
    pub linger: Duration,
    /// Closed IKE SAs of which the other members know the last answer, too; beyond, the oldest is
    /// forgotten. 0: none is remembered. Default 4096.
    pub tombstones: usize,
    /// CHILD_SAs per IKE SA. Default 64.
    pub children_per_ike_sa: usize,
    /// COOKIE answers per second. Default 50,000: one costs microseconds and is smaller than what
    /// it answers, and whoever is behind a flood of forged requests waits for his.
    pub cookie_rate: u32,
    /// All other unprotected error answers per second. Default 1000.
    pub stateless_error_rate: u32,
    /// INVALID_IKE_SPI answers per second to requests for IKE SAs that nobody has, and at most one
    /// per second and source address; as many liveness checks because a peer says so, and at most
    /// one per minute and peer. Default 0: such requests are dropped, such hints ignored.
    pub invalid_ike_spi_rate: u32,
    /// How long a request of ours waits before it is sent again for the first time; after each
    /// time 1.8 times as long (RFC 7296 §2.4: "increase exponentially"). Default 4 s.
    pub retransmit_timeout: Duration,
    /// How often a request is sent again before the peer is given up. Default 5: with the
    /// default time-out after 165 s.
    pub retransmit_tries: u32,
    /// How long an exchange waits that the peer refused for the time being. Default 10 s; up to
    /// half as long again at random.
    pub retry_delay: Duration,
    /// For how long the peer may say TEMPORARY_FAILURE (RFC 7296 §2.25: "several minutes") or
    /// STATE_NOT_FOUND (RFC 9370 §2.2.4: "several retries") before the IKE SA is closed. Default
    /// 180 s.
    pub temporary_failures: Duration,
    /// How long a CREATE_CHILD_SA exchange that is answered waits for the peer's next additional key
    /// exchange (RFC 9370 §2.2.4: 5 to 20 seconds). Default 20 s.
    pub follow_up_timeout: Duration,
    /// CREATE_CHILD_SA exchanges of one peer that may wait so at the same time. Default 16.
    pub follow_ups_per_ike_sa: usize,
    /// Initiations under way at the same time; others wait for their turn. Default 100.
    pub initiations: usize,
    /// How long a connection that is to be up waits after a failed initiation, twice as long after
    /// each further one, and up to half as long again at random; zero = it is given up. swanctl's
    /// `retry_initiate_interval`. Default 10 s.
    pub retry_initiate_interval: Duration,
    /// The longest of these waits. Default 300 s.
    pub retry_initiate_limit: Duration,
    /// How long an IKE SA that has a successor waits for the peer's DELETE. Default 60 s.
    pub replaced_timeout: Duration,
    /// Octets that the fragments of one message (RFC 7383) may take of a peer that is not
    /// authenticated yet, a fixed cost for each of them included. Default 32,768: a chain of
    /// certificates with post-quantum signatures.
    pub reassembly_unauthenticated: usize,
    /// The same for all unauthenticated peers together. Default 8 MiB.
    pub reassembly_unauthenticated_total: usize,
    /// The same for each direction of an established IKE SA: its peer is known, and can be
    /// configured away. Default 65,536, which no message exceeds by much.
    pub reassembly_authenticated: usize,
    /// How long an incomplete message of an established IKE SA is kept. Default 30 s.
    pub reassembly_timeout: Duration,
    /// For tests of tests: IVs without the member and its run. Default: off.
    #[cfg(any(test, feature = "testing"))]
    pub shared_ivs: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cookie_threshold: 30,
            half_open_limit: 1000,
            half_open_limit_per_source: 64,
            half_open_timeout: Duration::from_secs(30),
            kernel_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(30),
            tombstones: 4096,
            children_per_ike_sa: 64,
            cookie_rate: 50_000,
            stateless_error_rate: 1000,
            invalid_ike_spi_rate: 0,
            retransmit_timeout: Duration::from_secs(4),
            retransmit_tries: 5,
            retry_delay: Duration::from_secs(10),
            temporary_failures: Duration::from_secs(180),
            follow_up_timeout: Duration::from_secs(20),
            follow_ups_per_ike_sa: 16,
            initiations: 100,
            retry_initiate_interval: Duration::from_secs(10),
            retry_initiate_limit: Duration::from_secs(300),
            replaced_timeout: Duration::from_secs(60),
            reassembly_unauthenticated: 32 << 10,
            reassembly_unauthenticated_total: 8 << 20,
            reassembly_authenticated: 64 << 10,
            reassembly_timeout: Duration::from_secs(30),
            #[cfg(any(test, feature = "testing"))]
            shared_ivs: false,
        }
    }
}

/// Whom we talk to, as whom, and about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Addresses of ours that it is served on; empty = all.
    pub local_addrs: Vec<IpAddr>,
    /// Addresses of the peer.
    pub remote_addrs: Vec<RemoteAddress>,
    /// IKE proposals, by preference.
    pub proposals: Vec<IkeProposal>,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's identity.
    pub remote_id: IdentityPattern,
    /// How both sides authenticate.
    pub auth: Authentication,
    /// CHILD_SAs, in the order in which they are tried.
    pub children: Vec<Arc<ChildConfig>>,
    /// Age at which an IKE SA is rekeyed, less up to [`Self::rand_time`]; zero = never.
    pub rekey_time: Duration,
    /// So much older than `rekey_time` it is deleted, if `rekey_time` is not zero.
    pub over_time: Duration,
    /// Bound of what `rekey_time` is shortened by at random, so that the two sides do not rekey at
    /// the same time (RFC 7296 §2.8).
    pub rand_time: Duration,
    /// After this much silence of the peer it is asked whether it is alive (RFC 7296 §2.4);
    /// zero = never.
    pub dpd_delay: Duration,
    /// What a new IKE SA does to older ones of the same two identities.
    pub unique: Uniqueness,
    /// Fragmentation, NAT traversal, MOBIKE, redirection.
    pub transport: Transport,
    /// How we initiate it.
    pub initiation: Initiation,
}

/// What a new IKE SA does to older ones of the same two identities; swanctl's `unique`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Uniqueness {
    /// They stay, whatever the peer says.
    Never,
    /// They stay, unless the peer makes initial contact (RFC 7296 §2.4).
    #[default]
    No,
    /// They are deleted, with a DELETE to the peer.
    Replace,
    /// The new one is deleted, unless the peer makes initial contact.
    Keep,
}

/// One kind of CHILD_SA of a connection. Tunnel mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// Its name.
    pub name: String,
    /// Traffic of our side.
    pub local_ts: Vec<SelectorConfig>,
    /// Traffic of the peer's side.
    pub remote_ts: Vec<SelectorConfig>,
    /// ESP proposals, by preference.
    pub esp_proposals: Vec<EspProposal>,
    /// Anti-replay window in packets.
    pub replay_window: u32,
    /// After this the SAs are dropped.
    pub life_time: Duration,
    /// Age at which a CHILD_SA is rekeyed, less up to [`Self::rand_time`]; zero = never.
    pub rekey_time: Duration,
    /// Bound of what `rekey_time` is shortened by at random.
    pub rand_time: Duration,
    /// XFRM interface id of inbound traffic, 0 = none.
    pub if_id_in: u32,
    /// XFRM interface id of outbound traffic, 0 = none.
    pub if_id_out: u32,
    /// Marks of its packets.
    pub marks: Marks,
    /// What we do about it by ourselves.
    pub actions: Actions,
    /// How much it may carry.
    pub volume: Volume,
}

impl ChildConfig {
    /// Its selectors, ours and the peer's, in a tunnel from our address to the peer's. The peer's is
    /// the one that we see: behind a NAT, that of the NAT.
    pub fn selectors(
        &self,
        ends: (IpAddr, IpAddr),
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let resolve = |selectors: &[SelectorConfig], host| {
            selectors.iter().map(|ts| ts.resolve(host)).collect()
        };
        (
            resolve(&self.local_ts, ends.0),
            resolve(&self.remote_ts, ends.1),
        )
    }
}

/// Addresses of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAddress {
    /// `%any`.
    Any,
    /// All addresses whose first `prefix_len` bits are those of `address`. A single address has
    /// all of its bits (32 or 128).
    Network {
        /// Address; bits behind the prefix are ignored.
        address: IpAddr,
        /// Length of the prefix in bits; more than the family has match like all of them.
        prefix_len: u8,
    },
}

impl RemoteAddress {
    /// How specifically this covers `address`: 0 for `%any`, 1 + prefix length for a network, `None`
    /// if not at all.
    fn specificity(self, address: IpAddr) -> Option<u16> {
        match self {
            Self::Any => Some(0),
            Self::Network {
                address: network,
                prefix_len,
            } => {
                let differing = match (network, address) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        (a.to_bits() ^ b.to_bits()).leading_zeros().min(32)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
                    _ => return None,
                };
                let width: u32 = if network.is_ipv4() { 32 } else { 128 };
                let prefix_len = u16::from(prefix_len);
                (differing >= u32::from(prefix_len).min(width)).then_some(1 + prefix_len)
            }
        }
    }
}

/// A pre-shared key.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Whose it is. Two or more: both sides' identities must be among them. One: either side's.
    /// None: anyone's.
    pub ids: Vec<Identity>,
    /// The key.
    pub secret: SecretBytes,
}

impl Secret {
    /// How well this secret fits a pair of identities; the largest wins.
    fn fit(&self, local: &Identity, remote: Option<&Identity>) -> Option<u8> {
        let has_local = self.ids.contains(local);
        let has_remote = remote.is_some_and(|remote| self.ids.contains(remote));
        match self.ids.len() {
            0 => Some(0),
            // The peer's name says more than ours, which many secrets may share.
            1 if has_remote => Some(2),
            1 if has_local => Some(1),
            1 => None,
            _ => (has_local && has_remote).then_some(3),
        }
    }
}

impl Config {
    /// Connections for a pair of addresses, the most specific remote address first, otherwise in
    /// configured order.
    pub(crate) fn candidates(&self, local: IpAddr, remote: IpAddr) -> Vec<&Arc<Connection>> {
        let mut found: Vec<_> = self
            .connections
            .iter()
            .filter_map(|connection| Some((connection.specificity(local, remote)?, connection)))
            .collect();
        found.sort_by_key(|(specificity, _)| std::cmp::Reverse(*specificity));
        found
            .into_iter()
            .map(|(_, connection)| connection)
            .collect()
    }

    /// The pre-shared key that fits a pair of identities best; `remote` is `None` if it is not
    /// known who the peer will be.
    pub(crate) fn secret(
        &self,
        local: &Identity,
        remote: Option<&Identity>,
    ) -> Option<&SecretBytes> {
        self.secrets
            .iter()
            .rev() // of equals, `max_by_key` takes the last: here the one configured first
            .filter_map(|secret| Some((secret.fit(local, remote)?, secret)))
            .max_by_key(|(fit, _)| *fit)
            .map(|(_, secret)| &secret.secret)
    }

    /// A connection by name, for the import of a record.
    pub(crate) fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.iter().find(|c| c.name == name)
    }
}

impl Connection {
    fn specificity(&self, local: IpAddr, remote: IpAddr) -> Option<u16> {
        if !self.local_addrs.is_empty() && !self.local_addrs.contains(&local) {
            return None;
        }
        self.remote_addrs
            .iter()
            .filter_map(|pattern| pattern.specificity(remote))
            .max()
    }
}
