//! Following a peer that sends us to another gateway (RFC 5685).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;

use super::table::{Initiation, Redirection};
use crate::config::{ChildConfig, Connection, Gateway};
use crate::endpoint::{Endpoint, InitiateOrder};
use crate::sa::{Answer, Cause, IkeSa};

/// MAX_REDIRECTS of RFC 5685 §7.
const MAX_REDIRECTS: usize = 5;
/// REDIRECT_LOOP_DETECT_PERIOD of RFC 5685 §7.
const PERIOD: Duration = Duration::from_secs(300);

/// When each connection was redirected, within the last period.
#[derive(Default)]
pub(in crate::endpoint) struct Redirects(BTreeMap<String, Vec<Instant>>);

impl Redirects {
    /// Whether the connection may follow once more.
    fn allow(&mut self, now: Instant, connection: &str) -> bool {
        self.0.retain(|_, times| {
            times.retain(|at| now.saturating_since(*at) < PERIOD);
            !times.is_empty()
        });
        let times = self.0.entry(connection.to_owned()).or_default();
        let allowed = times.len() < MAX_REDIRECTS;
        if allowed {
            times.push(now);
        }
        allowed
    }
}

impl Endpoint {
    /// IKE_SA_INIT of an initiation was answered with REDIRECT; the attempt is over.
    pub(super) fn follow(&mut self, now: Instant, id: u64, from: IpAddr, gateway: &Gateway) {
        let Some(initiation) = self.initiations.get_mut(id) else {
            return;
        };
        let connection = Arc::clone(&initiation.connection);
        match self.redirection(now, &connection, from, gateway) {
            Ok(redirection) => {
                if let Some(initiation) = self.initiations.get_mut(id) {
                    initiation.redirection = Some(redirection);
                }
                self.attempt(now, id);
            }
            Err(reason) => {
                self.attempt_failed(now, id, &reason, false);
                self.next_in_queue(now);
            }
        }
    }

    /// IKE_AUTH of ours was answered with REDIRECT: the peer is authenticated, and the IKE SA is to
    /// be deleted (RFC 5685 §6).
    pub(in crate::endpoint) fn opened_elsewhere(
        &mut self,
        now: Instant,
        mut sa: Box<IkeSa>,
        gateway: &Gateway,
    ) {
        sa.announced = true;
        let initiation = self
            .initiations
            .ended(sa.local_spi)
            .and_then(|id| self.initiations.take(&mut self.core, id));
        self.book_established(now, &mut sa);
        let children = initiation.map(|i| i.children).unwrap_or_default();
        self.leave(now, sa, children, gateway);
        self.next_in_queue(now);
    }

    /// The peer of an established IKE SA sends us elsewhere (RFC 5685 §5).
    pub(in crate::endpoint) fn sent_elsewhere(
        &mut self,
        now: Instant,
        mut sa: Box<IkeSa>,
        answer: Answer,
        gateway: &Gateway,
    ) {
        if !sa.answer(&mut self.core, now, answer) {
            return self.close(
                now,
                sa,
                (Cause::Failure, "its answer cannot be sealed"),
                None,
            );
        }
        let children = sa.configured_children();
        self.leave(now, sa, children, gateway);
    }

    /// Deletes an IKE SA and begins anew at another gateway, unless that would be a loop.
    fn leave(
        &mut self,
        now: Instant,
        mut sa: Box<IkeSa>,
        children: Vec<Arc<ChildConfig>>,
        gateway: &Gateway,
    ) {
        let from = sa.path.remote.ip();
        let connection = sa.established().map(|e| Arc::clone(&e.connection));
        let Some(connection) = connection else {
            return self.keep(now, sa);
        };
        let redirection = self.redirection(now, &connection, from, gateway);
        if redirection.is_ok() {
            sa.terminate();
        }
        self.keep(now, sa);
        match redirection {
            Ok(redirection) => {
                let order = InitiateOrder::default();
                let mut initiation = Initiation::new(connection, children, &order);
                initiation.redirection = Some(redirection);
                let id = self.initiations.add(initiation);
                self.attempt(now, id);
            }
            Err(reason) => self.tell(&connection.name, reason),
        }
    }

    /// Our address and the new gateway's. An error if it is not to be followed.
    fn redirection(
        &mut self,
        now: Instant,
        connection: &Connection,
        from: IpAddr,
        gateway: &Gateway,
    ) -> Result<Redirection, String> {
        let Gateway::Address(remote) = gateway else {
            return Err(format!(
                "{from} redirects us to {gateway}; only addresses are followed"
            ));
        };
        let fits = |source: &&IpAddr| source.is_ipv4() == remote.is_ipv4();
        let sources = &connection.initiation.source_addrs;
        let Some(local) = sources.iter().find(fits).copied() else {
            return Err(format!(
                "{from} redirects us to {remote}, and we have no address of that family"
            ));
        };
        if !self.redirects.allow(now, &connection.name) {
            return Err(format!(
                "{from} redirects us to {remote}: more than {MAX_REDIRECTS} redirections in {} s, \
                 which looks like a loop",
                PERIOD.as_secs()
            ));
        }
        self.tell(&connection.name, format!("{from} redirects us to {remote}"));
        Ok(Redirection {
            to: (local, *remote),
            from,
        })
    }
}
