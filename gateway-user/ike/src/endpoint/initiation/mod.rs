//! Connections that we bring up: whose turn it is, where to, when again.
//!
//! An initiation lasts until its IKE SA is established, until it is given up, or until the peer was
//! faster. It makes one attempt after the other, each with an SPI of its own: all addresses of the
//! peer in turn, then a pause that grows.

mod again;
mod redirect;
mod table;

use std::sync::Arc;

use gateway_common::time::Instant;

pub(super) use self::redirect::Redirects;
pub(super) use self::table::Initiations;
use self::table::{Initiation, Phase};
use super::{Endpoint, InitiateOrder};
use crate::config::{ChildConfig, Connection};
use crate::output::{Change, Event, EventKind, Path};
use crate::sa::{ExpectInitResponse, IkeSa, Next, Overdue, Plan};
use crate::wire::{Message, PORT_IKE};

impl Endpoint {
    /// Initiations under way, those that wait for their next attempt included.
    pub fn initiations(&self) -> usize {
        self.initiations.len()
    }

    /// Whether this connection is being initiated.
    pub fn is_initiating(&self, connection: &str) -> bool {
        self.initiations.by_name(connection).is_some()
    }

    pub(super) fn initiate(&mut self, now: Instant, order: &InitiateOrder) {
        let Some(connection) = self.core.config.connection(&order.connection).cloned() else {
            let reason = format!("there is no connection {}", order.connection);
            return self.tell(&order.connection, reason);
        };
        let children = match wanted_children(&connection, &order.children) {
            Ok(children) => children,
            Err(reason) => return self.tell(&connection.name, reason),
        };
        if let Some(spi) = self.live_sa(&connection) {
            return self.with_sa(now, spi, |sa, _| sa.want_children(&children));
        }
        if let Some(id) = self.initiations.by_name(&connection.name) {
            if let Some(initiation) = self.initiations.get_mut(id) {
                initiation.join(&children, order);
                let hurry = !order.persistent && !order.by_packet;
                if matches!(initiation.phase, Phase::Waiting(_)) && hurry {
                    self.attempt(now, id);
                }
            }
            return;
        }
        let id = self
            .initiations
            .add(Initiation::new(connection, children, order));
        self.attempt(now, id);
    }

    /// An established IKE SA of the connection that can make children.
    fn live_sa(&self, connection: &Connection) -> Option<[u8; 8]> {
        let usable = |sa: &IkeSa| sa.serves(&connection.name);
        match connection.remote_id.exact() {
            Some(remote_id) => self
                .find(&connection.local_id, remote_id)
                .find(|spi| self.sas.get(spi).is_some_and(|sa| usable(sa))),
            None => {
                let mut sas = self.sas.values();
                sas.find(|sa| usable(sa)).map(|sa| sa.local_spi)
            }
        }
    }

    /// Begins the next attempt, or waits for a turn.
    fn attempt(&mut self, now: Instant, id: u64) {
        self.initiations.stop_waiting(&mut self.core, id);
        if self.initiations.running() >= self.core.config.limits.initiations {
            return self.initiations.enqueue(id);
        }
        let Some(initiation) = self.initiations.get_mut(id) else {
            return;
        };
        let Some((local, remote)) = initiation.destination() else {
            let name = initiation.connection.name.clone();
            self.initiations.remove(&mut self.core, id);
            let reason = "it cannot be initiated: remote_addrs has no single address of a family \
                          that we have an address of";
            return self.tell(&name, reason.to_owned());
        };
        let plan = Plan {
            connection: Arc::clone(&initiation.connection),
            child: initiation.children.first().cloned(),
            slot: initiation.slot,
            began: now,
            path: Path::new((local, PORT_IKE).into(), (remote, PORT_IKE).into()),
            initial_contact: initiation.initial_contact,
            redirected_from: initiation.redirection.map(|redirection| redirection.from),
        };
        match ExpectInitResponse::start(&mut self.core, now, plan) {
            Ok(opening) => {
                let spi = opening.local_spi;
                self.initiations.run(id, spi);
                self.openings.insert(spi, Box::new(opening));
            }
            Err(error) => self.attempt_failed(now, id, &error.to_string(), false),
        }
    }

    /// A response to IKE_SA_INIT. RFC 7296 §2.21.4: what fits nothing is dropped.
    pub(super) fn handle_init_response(&mut self, now: Instant, path: Path, message: &Message<'_>) {
        let header = message.header();
        let opening = if header.from_initiator {
            None
        } else {
            self.openings.remove(&header.initiator_spi)
        };
        let Some(opening) = opening else {
            return self.drop_response(path);
        };
        let spi = opening.local_spi;
        let mut opening = opening;
        opening.plan.initial_contact &= !self.peer_is_near(&opening.plan);
        match opening.handle_response(&mut self.core, now, path, message) {
            Next::Wait(opening, useless) => {
                self.openings.insert(spi, opening);
                if let Some(reason) = useless {
                    self.drop_datagram(
                        path,
                        |c| &mut c.dropped_unexpected_response,
                        || reason.to_owned(),
                    );
                }
            }
            Next::Opened(sa) => {
                self.sas.insert(spi, sa);
            }
            Next::Redirected(opening, gateway) => {
                let from = opening.plan.path.remote.ip();
                opening.release(&mut self.core);
                if let Some(id) = self.initiations.ended(spi) {
                    self.follow(now, id, from, &gateway);
                }
            }
            Next::Failed(opening, error) => {
                opening.release(&mut self.core);
                self.opening_failed(now, spi, &error.to_string(), true);
            }
        }
    }

    /// Name of the connection that is being initiated with this SPI of ours and waits for the answer
    /// to IKE_SA_INIT.
    pub fn opening(&self, local_spi: [u8; 8]) -> Option<&str> {
        let opening = self.openings.get(&local_spi)?;
        Some(&opening.plan.connection.name)
    }

    pub(super) fn peer_is_elsewhere(&mut self, local_spi: [u8; 8]) {
        if let Some(opening) = self.openings.get_mut(&local_spi) {
            opening.plan.initial_contact = false;
        }
    }

    /// Whether the peer has an IKE SA with us, or is about to make one (RFC 7296 §2.4: initial
    /// contact says that there is no other).
    fn peer_is_near(&self, plan: &Plan) -> bool {
        let connection = &plan.connection;
        let held = connection.remote_id.exact().is_some_and(|remote_id| {
            let mut held = self.find(&connection.local_id, remote_id);
            held.next().is_some()
        });
        held || self.half_open.from(plan.path.remote.ip()) > 0
    }

    /// The request of an attempt has waited long enough.
    pub(super) fn opening_overdue(&mut self, now: Instant, spi: [u8; 8]) {
        if let Some(mut opening) = self.openings.remove(&spi) {
            match opening.overdue(&mut self.core, now) {
                Overdue::Again => {
                    self.openings.insert(spi, opening);
                }
                Overdue::GivenUp => {
                    opening.release(&mut self.core);
                    let reason = opening.why();
                    self.opening_failed(now, spi, &reason, false);
                }
            }
        } else if let Some(mut sa) = self.sas.remove(&spi) {
            match sa.auth_overdue(&mut self.core, now) {
                Overdue::Again => {
                    self.sas.insert(spi, sa);
                }
                Overdue::GivenUp => {
                    self.unopened(now, &sa, "IKE_AUTH: the peer does not answer", false);
                }
            }
        }
    }

    /// An initiation has waited long enough for its next attempt.
    pub(super) fn initiation_due(&mut self, now: Instant, id: u64) {
        if self.initiations.is_waiting(id) {
            self.attempt(now, id);
        }
    }

    /// IKE_AUTH has failed; `sa` is not in the table.
    pub(super) fn unopened(&mut self, now: Instant, sa: &IkeSa, reason: &str, refused: bool) {
        sa.release_opening(&mut self.core);
        let spi = sa.local_spi;
        self.core.ike_spis.remove(&spi);
        self.core.out.delta(
            sa.slot,
            Change::NegotiationClosed {
                local_cookie: spi,
                peer_cookie: [0; 8],
                peer: sa.path.remote.ip(),
            },
        );
        self.opening_failed(now, spi, reason, refused);
    }

    /// An attempt has come to nothing. `refused`: the peer said so under protection, or it is our
    /// own fault; the same attempt once more would end the same way.
    fn opening_failed(&mut self, now: Instant, spi: [u8; 8], reason: &str, refused: bool) {
        if let Some(id) = self.initiations.ended(spi) {
            self.attempt_failed(now, id, reason, refused);
        }
        self.next_in_queue(now);
    }

    fn attempt_failed(&mut self, now: Instant, id: u64, reason: &str, refused: bool) {
        let Some(initiation) = self.initiations.get(id) else {
            return;
        };
        let connection = Arc::clone(&initiation.connection);
        // The peer was faster, and our own attempt had come too far to be called back.
        let reauthenticates = initiation.replaces.is_some();
        if let Some(spi) = self.live_sa(&connection).filter(|_| !reauthenticates) {
            let taken = self.initiations.take(&mut self.core, id);
            let children = taken.map(|taken| taken.children).unwrap_or_default();
            return self.with_sa(now, spi, |sa, _| sa.want_children(&children));
        }
        let Some(initiation) = self.initiations.get_mut(id) else {
            return;
        };
        let name = connection.name.clone();
        let to = initiation
            .destination()
            .map_or_else(String::new, |(_, remote)| format!(" to {remote}"));
        let next = initiation.failed(&self.core, refused);
        let outlook = match next {
            table::Outlook::NextAddress => "next: its other address".to_owned(),
            table::Outlook::Pause(pause) => format!("again in {} s", pause.as_secs().max(1)),
            table::Outlook::GiveUp => "given up".to_owned(),
        };
        self.tell(&name, format!("initiation{to} failed: {reason}; {outlook}"));
        match next {
            table::Outlook::NextAddress => self.attempt(now, id),
            table::Outlook::Pause(pause) => {
                self.initiations.wait(&mut self.core, id, now + pause);
            }
            table::Outlook::GiveUp => self.initiations.remove(&mut self.core, id),
        }
    }

    fn next_in_queue(&mut self, now: Instant) {
        while self.initiations.running() < self.core.config.limits.initiations {
            let Some(id) = self.initiations.dequeue() else {
                return;
            };
            self.attempt(now, id);
        }
    }

    /// Our IKE_AUTH was answered, the peer is authenticated, and its first CHILD_SA stands, if there
    /// is one.
    pub(super) fn opened(&mut self, now: Instant, mut sa: Box<IkeSa>) {
        sa.announced = true;
        let initiation = self
            .initiations
            .ended(sa.local_spi)
            .and_then(|id| self.initiations.take(&mut self.core, id));
        let mut replaces = None;
        if let Some(initiation) = initiation {
            sa.want_children(&initiation.children);
            replaces = initiation.replaces;
        }
        self.book_established(now, &mut sa);
        self.settle_twins(now, &mut sa);
        sa.publish(&mut self.core, now);
        self.keep(now, sa);
        if let Some(old) = replaces {
            self.at_sa(now, old, |old, _| old.terminate());
        }
        self.next_in_queue(now);
    }

    /// The IKE SA is to be authenticated anew: make before break. Only if we can reach its peer by
    /// ourselves; otherwise it is the peer's business.
    pub(super) fn reauthenticate(&mut self, now: Instant, sa: &IkeSa) {
        let Some(established) = sa.established() else {
            return;
        };
        let connection = Arc::clone(&established.connection);
        if connection.destinations().is_empty()
            || self.initiations.by_name(&connection.name).is_some()
        {
            return;
        }
        let order = InitiateOrder {
            connection: connection.name.clone(),
            persistent: true,
            slot: Some(sa.slot),
            ..InitiateOrder::default()
        };
        let mut initiation = Initiation::new(connection, sa.children_to_be(), &order);
        initiation.replaces = Some(sa.local_spi);
        let id = self.initiations.add(initiation);
        self.attempt(now, id);
    }

    /// The peer has brought up the connection by itself, or another member goes on with it. An
    /// attempt that has sent IKE_AUTH goes on: the peer may have established its IKE SA.
    pub(super) fn relinquish(&mut self, connection: &str) {
        self.take_initiation(connection);
    }

    /// Ends an initiation whose IKE_AUTH is not sent, and says which children it was for.
    pub(super) fn take_initiation(&mut self, connection: &str) -> Vec<Arc<ChildConfig>> {
        let Some(id) = self.initiations.by_name(connection) else {
            return Vec::new();
        };
        if let Some(spi) = self.initiations.spi(id) {
            let Some(opening) = self.openings.remove(&spi) else {
                return Vec::new();
            };
            opening.release(&mut self.core);
            self.initiations.ended(spi);
        }
        let taken = self.initiations.take(&mut self.core, id);
        taken.map(|taken| taken.children).unwrap_or_default()
    }

    fn tell(&mut self, connection: &str, reason: String) {
        self.core.out.sa_event(Event {
            local_spi: None,
            path: None,
            connection: Some(connection.to_owned()),
            kind: EventKind::ExchangeFailed { reason },
        });
    }
}

fn wanted_children(
    connection: &Connection,
    names: &[String],
) -> Result<Vec<Arc<ChildConfig>>, String> {
    if names.is_empty() {
        return Ok(connection.children.clone());
    }
    names
        .iter()
        .map(|name| {
            let mut children = connection.children.iter();
            children
                .find(|child| child.name == *name)
                .cloned()
                .ok_or_else(|| format!("connection {} has no child {name}", connection.name))
        })
        .collect()
}
