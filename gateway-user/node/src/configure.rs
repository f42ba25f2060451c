//! Connections that come and go while the member runs.

use std::sync::Arc;

use gateway_cluster::secret::Secret;
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::config::{Connection, Ppk, Secret as PresharedKey};
use gateway_ike::endpoint::Command;

use crate::node::Node;

/// First octet of what [`Node::share`] sends; no order has it.
pub(crate) const SHARED: u8 = 0x80;

/// What peers may negotiate.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Connections, in the order in which they are tried.
    pub connections: Vec<Arc<Connection>>,
    /// Pre-shared keys.
    pub secrets: Vec<PresharedKey>,
    /// Post-quantum pre-shared keys.
    pub ppks: Vec<Ppk>,
}

impl Node {
    /// Replaces what may be negotiated. IKE SAs stay as they are; what was being initiated of a
    /// connection that is gone or has changed is given up, and what is to be up and is not is started,
    /// if its slot is this member's.
    pub fn configure(&mut self, now: Instant, configuration: Configuration) {
        let Configuration {
            connections,
            secrets,
            ppks,
        } = configuration;
        for connection in self.start.replace(&connections) {
            self.endpoint
                .handle_command(now, Command::Relinquish { connection });
        }
        let command = Command::Configure {
            connections,
            secrets,
            ppks,
        };
        self.endpoint.handle_command(now, command);
        // Which of the new connections are up already.
        for (spi, connection) in self.index.staying() {
            self.start.stays(spi, connection);
        }
        let all = (0..=u8::MAX).map(Slot);
        let served: Vec<Slot> = all.filter(|slot| self.serves(now, *slot)).collect();
        self.start_connections(now, &served);
        self.collect(now);
    }

    /// The digest of what has to be alike on all members has changed.
    pub fn set_config_hash(&mut self, hash: [u8; 32]) {
        self.cluster.set_config_hash(hash);
    }

    /// Makes `octets` known to all members, those that come later too, in place of what was shared
    /// before: [`crate::effect::Effect::Shared`] comes out there. They are kept in memory alone.
    pub fn share(&mut self, now: Instant, octets: &[u8]) {
        self.shared = Some(framed(octets));
        for member in self.cluster.reachable() {
            self.share_with(member);
        }
        self.collect(now);
    }

    /// As [`Node::share`] for what another member has shared, which sent it to all itself: only
    /// members that come later get it.
    pub fn keep_shared(&mut self, octets: &[u8]) {
        self.shared = Some(framed(octets));
    }

    pub(crate) fn share_with(&mut self, member: MemberId) {
        if let Some(octets) = self.shared.clone() {
            self.cluster.tell(member, octets);
        }
    }
}

fn framed(octets: &[u8]) -> Secret {
    let mut framed = Vec::with_capacity(1 + octets.len());
    framed.push(SHARED);
    framed.extend_from_slice(octets);
    Secret::new(framed)
}

/// What [`Node::share`] was given, of what [`crate::effect::Effect::Shared`] has.
pub fn shared_octets(framed: &Secret) -> &[u8] {
    framed.expose().get(1..).unwrap_or_default()
}
