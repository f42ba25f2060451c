//! Connections that the cluster brings up by itself: by the owner of their slot, and by whoever takes
//! that over, if they are not up then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gateway_cluster::slot_set::SlotSet;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::config::{Config, Connection, StartAction};
use gateway_ike::endpoint::{Command, InitiateOrder};
use gateway_ike::record::IkeSaRecord;

use crate::node::Node;
use crate::records::Spi;
use crate::translate;

/// What can be initiated, and what of it is up.
#[derive(Debug, Default)]
pub(crate) struct Start {
    connections: BTreeMap<String, Arc<Connection>>,
    /// Live IKE SAs of these, of the whole cluster.
    up: BTreeMap<String, BTreeSet<Spi>>,
    by_spi: BTreeMap<Spi, String>,
}

impl Start {
    pub(crate) fn new(config: &Config) -> Self {
        let initiable = |connection: &&Arc<Connection>| !connection.destinations().is_empty();
        let connections = config.connections.iter().filter(initiable);
        Self {
            connections: connections
                .map(|connection| (connection.name.clone(), Arc::clone(connection)))
                .collect(),
            ..Self::default()
        }
    }

    /// Other connections from now on. Returns the names of those that are gone or not the same.
    pub(crate) fn replace(&mut self, connections: &[Arc<Connection>]) -> Vec<String> {
        let initiable = connections.iter().filter(|c| !c.destinations().is_empty());
        let new: BTreeMap<String, Arc<Connection>> = initiable
            .map(|connection| (connection.name.clone(), Arc::clone(connection)))
            .collect();
        let old = std::mem::replace(&mut self.connections, new);
        let changed = old
            .into_iter()
            .filter(|(name, before)| self.connections.get(name) != Some(before));
        changed.map(|(name, _)| name).collect()
    }

    /// A record came or changed.
    pub(crate) fn note(&mut self, record: &IkeSaRecord) {
        let spi = record.local_spi;
        let over = record.closed.is_some() || record.replaced || record.closing;
        if over || !self.connections.contains_key(&record.connection) {
            return self.gone(spi);
        }
        self.stays(spi, &record.connection);
    }

    /// An IKE SA of a connection is there to stay.
    pub(crate) fn stays(&mut self, spi: Spi, connection: &str) {
        if self.connections.contains_key(connection) {
            self.by_spi.insert(spi, connection.to_owned());
            self.up
                .entry(connection.to_owned())
                .or_default()
                .insert(spi);
        }
    }

    /// A record is gone.
    pub(crate) fn gone(&mut self, spi: Spi) {
        if let Some(name) = self.by_spi.remove(&spi)
            && let Some(up) = self.up.get_mut(&name)
        {
            up.remove(&spi);
            if up.is_empty() {
                self.up.remove(&name);
            }
        }
    }

    pub(crate) fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.get(name)
    }

    /// A live IKE SA of a connection.
    pub(crate) fn live(&self, name: &str) -> Option<Spi> {
        self.up.get(name)?.first().copied()
    }
}

impl Node {
    /// Slots have become this member's: what is to be up and is not is started.
    pub(crate) fn start_connections(&mut self, now: Instant, slots: &[Slot]) {
        let wanted = |connection: &&Arc<Connection>| {
            slots.contains(&Slot::for_connection(&connection.name))
                && self.start.live(&connection.name).is_none()
        };
        let all = self.start.connections.values();
        let orders: Vec<InitiateOrder> = all
            .filter(wanted)
            .filter_map(|connection| {
                let children = children_to_start(connection);
                (!children.is_empty())
                    .then(|| self.initiate_order(connection, children, true, false))
            })
            .collect();
        for order in orders {
            self.endpoint.handle_command(now, Command::Initiate(order));
        }
    }

    /// Another member goes on with what was begun in these slots.
    pub(crate) fn leave_connections(&mut self, now: Instant, slots: &SlotSet) {
        let names: Vec<String> = self.start.connections.keys().cloned().collect();
        for connection in names {
            if slots.contains(Slot::for_connection(&connection)) {
                self.endpoint
                    .handle_command(now, Command::Relinquish { connection });
            }
        }
    }

    /// A record of another member came: perhaps its connection is up now, by the peer's initiative.
    pub(crate) fn note_elsewhere(&mut self, now: Instant, record: &IkeSaRecord) {
        self.start.note(record);
        if self.start.live(&record.connection) == Some(record.local_spi) {
            let connection = record.connection.clone();
            self.endpoint
                .handle_command(now, Command::Relinquish { connection });
        }
    }

    /// An answer came to an attempt with our SPI `local_spi`: by now the peer may have begun, too, at
    /// whatever member.
    pub(crate) fn look_for_peer(&mut self, now: Instant, local_spi: Spi, peer: IpAddr) {
        let Some(connection) = self.endpoint.opening(local_spi) else {
            return;
        };
        let mut begun = self.cluster.ownership().negotiations();
        // Without the peer's cookie it is one of our own attempts.
        let near = self.start.live(connection).is_some()
            || begun.any(|(_, opened)| {
                let negotiation = &opened.negotiation;
                negotiation.peer == peer && negotiation.peer_cookie != [0; 8]
            });
        if near {
            self.endpoint
                .handle_command(now, Command::PeerIsNear { local_spi });
        }
    }

    pub(crate) fn initiate_order(
        &self,
        connection: &Connection,
        children: Vec<String>,
        persistent: bool,
        by_packet: bool,
    ) -> InitiateOrder {
        // RFC 7296 §2.4: of these identities, in the whole cluster.
        let held = connection.remote_id.exact().is_some_and(|remote_id| {
            let crypto = &*self.crypto;
            let pair = translate::identity_pair(crypto, &connection.local_id, remote_id);
            let mut held = self.cluster.ownership().by_identities(pair);
            held.next().is_some()
        });
        InitiateOrder {
            connection: connection.name.clone(),
            children,
            persistent,
            by_packet,
            initial_contact: !held && self.start.live(&connection.name).is_none(),
            slot: None,
        }
    }
}

fn children_to_start(connection: &Connection) -> Vec<String> {
    let children = connection.children.iter();
    children
        .filter(|child| child.actions.start == StartAction::Start)
        .map(|child| child.name.clone())
        .collect()
}
