//! What has happened: for those who listen now, and for those who ask later.

mod failovers;

use std::collections::VecDeque;
use std::time::Duration;

use gateway_cluster::membership;
use gateway_cluster::view::View;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::output::{Event, EventKind as Kind};
use tokio::sync::broadcast;

use self::failovers::Failovers;
pub(super) use self::failovers::{Change, Circumstances};
use crate::api::event::{ApiEvent, EventKind};
use crate::api::model::{Failover, FailoverHistory, History};

/// Events that a slow listener may be behind.
const BEHIND: usize = 1024;
/// Events that the history holds.
const KEPT: usize = 256;

/// Tells events to everybody who listens, and keeps those about the cluster.
#[derive(Debug)]
pub(super) struct Journal {
    listeners: broadcast::Sender<ApiEvent>,
    kept: VecDeque<ApiEvent>,
    failovers: Failovers,
}

impl Journal {
    /// The journal of this member.
    pub(super) fn new(local: MemberId) -> Self {
        Self {
            listeners: broadcast::Sender::new(BEHIND),
            kept: VecDeque::new(),
            failovers: Failovers::new(local),
        }
    }

    /// Where listeners subscribe.
    pub(super) const fn listeners(&self) -> &broadcast::Sender<ApiEvent> {
        &self.listeners
    }

    /// Newest first.
    pub(super) fn history(&self) -> History {
        History {
            failovers: self.failovers.total(),
            events: self.kept.iter().rev().cloned().collect(),
        }
    }

    /// The failovers, newest first.
    pub(super) fn failovers(&self) -> FailoverHistory {
        self.failovers.history()
    }

    /// How many failovers there were, since when, and the last one.
    pub(super) fn last_failover(&self) -> (u64, f64, Option<&Failover>) {
        let failovers = &self.failovers;
        (failovers.total(), failovers.since(), failovers.last())
    }

    /// The last change of a member's state.
    pub(super) fn last_change(&self, member: MemberId) -> Option<&Change> {
        self.failovers.last_change(member)
    }

    /// This member serves its slots of the view of this epoch.
    pub(super) fn served(&mut self, now: Instant, epoch: u64) {
        self.failovers.served(now, epoch);
    }

    fn tell(&self, event: ApiEvent) {
        // Nobody may be listening.
        let _ = self.listeners.send(event);
    }

    fn keep(&mut self, event: ApiEvent) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        self.tell(event);
    }

    /// A view follows another.
    pub(super) fn view(
        &mut self,
        now: Instant,
        before: &View,
        after: &View,
        circumstances: &Circumstances,
    ) {
        if after.epoch <= before.epoch {
            return;
        }
        let members: Vec<String> = after
            .members
            .keys()
            .map(|id| id.get().to_string())
            .collect();
        let event = ApiEvent {
            epoch: Some(after.epoch.0),
            ..ApiEvent::now(
                EventKind::View,
                format!("view {} of members {}", after.epoch, members.join(", ")),
            )
        };
        self.keep(event);
        let Some(failover) = self.failovers.view(now, before, after, circumstances) else {
            return;
        };
        let gone: Vec<String> = before
            .members
            .keys()
            .filter(|id| !after.members.contains_key(id))
            .map(|id| format!("member {}", id.get()))
            .collect();
        let why = if gone.is_empty() {
            "handed over".to_owned()
        } else {
            format!("{} is gone", gone.join(", "))
        };
        let event = ApiEvent {
            epoch: Some(after.epoch.0),
            slots: Some(failover.slots),
            ..ApiEvent::now(
                EventKind::Failover,
                format!("{} slots have another owner: {why}", failover.slots),
            )
        };
        self.keep(event);
    }

    /// The membership tells something. `silent`: how long the member that it is about has not been
    /// heard.
    pub(super) fn membership(
        &mut self,
        now: Instant,
        event: &membership::Event,
        silent: Option<Duration>,
    ) {
        if let membership::Event::State {
            member,
            from,
            to,
            reason,
        } = event
        {
            let change = Change {
                from: from.to_string(),
                to: to.to_string(),
                reason: reason.clone(),
                at: now,
                silent,
            };
            self.failovers.change(*member, change);
            let text = format!("{from} -> {to}: {reason}");
            self.keep(ApiEvent {
                member: Some(member.get()),
                ..ApiEvent::now(EventKind::MemberState, text)
            });
        }
    }

    /// The sync channel to a member came or went.
    pub(super) fn peer(&mut self, member: MemberId, up: bool) {
        let (kind, text) = if up {
            (EventKind::PeerUp, "sync channel up")
        } else {
            (EventKind::PeerDown, "sync channel down")
        };
        self.tell(ApiEvent {
            member: Some(member.get()),
            ..ApiEvent::now(kind, text)
        });
    }

    /// The engine tells something that stands in the log, too.
    pub(super) fn engine(&self, event: &Event) {
        let (kind, text) = match &event.kind {
            Kind::IkeSaEstablished { remote_id } => {
                (EventKind::IkeSaUp, format!("established with {remote_id}"))
            }
            Kind::IkeSaClosed { reason } => (EventKind::IkeSaDown, reason.clone()),
            Kind::ChildSaInstalled { child, replaces } => {
                let rekeyed = if replaces.is_some() { " (rekeyed)" } else { "" };
                let spi = u32::from_be_bytes(child.spi_in);
                let text = format!("CHILD_SA {spi:08x} installed{rekeyed}");
                (EventKind::ChildSaUp, text)
            }
            Kind::ChildSaRemoved { child, reason } => {
                let spi = u32::from_be_bytes(child.spi_in);
                let text = format!("CHILD_SA {spi:08x} removed: {reason}");
                (EventKind::ChildSaDown, text)
            }
            Kind::ExchangeFailed { reason } => (EventKind::Failure, reason.clone()),
            Kind::DatagramDropped { .. } => return,
        };
        self.tell(ApiEvent {
            connection: event.connection.as_deref().map(str::to_owned),
            peer: event.path.map(|path| path.remote.to_string()),
            local_spi: event
                .local_spi
                .map(|spi| format!("{:016x}", u64::from_be_bytes(spi))),
            ..ApiEvent::now(kind, text)
        });
    }
}

#[cfg(test)]
mod tests {
    use gateway_cluster::view::Epoch;

    use super::*;

    #[test]
    fn the_history_is_bounded_and_counts_failovers() {
        let mut journal = Journal::new(MemberId::new(1).unwrap());
        let now = Instant::from_nanos(1);
        let circumstances = Circumstances::default();
        let mut listener = journal.listeners().subscribe();
        let mut before = View::default();
        for epoch in 1..=300 {
            let mut after = before.clone();
            after.epoch = Epoch(epoch);
            journal.view(now, &before, &after, &circumstances);
            // The same view again is none.
            journal.view(now, &after, &after, &circumstances);
            before = after;
        }
        let history = journal.history();
        assert_eq!((history.events.len(), history.failovers), (KEPT, 0));
        assert_eq!(history.events[0].epoch, Some(300));
        assert_eq!(listener.try_recv().unwrap().epoch, Some(1));
    }
}
