//! What has happened: for those who listen now, and for those who ask later.

mod failovers;

use std::collections::VecDeque;
use std::time::Duration;

use gateway_cluster::membership::{self, MemberState};
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

/// States of members of a view.
const FIT: [MemberState; 4] = [
    MemberState::Backup,
    MemberState::Standby,
    MemberState::Active,
    MemberState::ActiveAttention,
];

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

    /// Newest first, each failover with what is known of its reason by now.
    pub(super) fn history(&self) -> History {
        let told = |event: &ApiEvent| {
            let failover = self.failover_of(event);
            ApiEvent {
                text: failover.map_or_else(|| event.text.clone(), Failover::told),
                ..event.clone()
            }
        };
        History {
            failovers: self.failovers.total(),
            events: self.kept.iter().rev().map(told).collect(),
        }
    }

    fn failover_of(&self, event: &ApiEvent) -> Option<&Failover> {
        let epoch = event.epoch.filter(|_| event.kind == EventKind::Failover)?;
        self.failovers.of_view(epoch)
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
        let event = ApiEvent {
            epoch: Some(after.epoch.0),
            slots: Some(failover.slots),
            ..ApiEvent::now(EventKind::Failover, failover.told())
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
                fit: FIT.contains(to),
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
        self.keep(ApiEvent {
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
    #[test]
    fn a_failover_is_told_as_its_own_history_tells_it() {
        let member = |n| MemberId::new(n).unwrap();
        let mut journal = Journal::new(member(1));
        let mut listener = journal.listeners().subscribe();
        let view = |epoch, owner: u8, members: &[u8]| View {
            epoch: Epoch(epoch),
            members: members
                .iter()
                .map(|n| (member(*n), gateway_cluster::frame::Incarnation(1)))
                .collect(),
            slots: gateway_cluster::slot_map::SlotMap::from_owners([Some(member(owner)); 256]),
            ..View::default()
        };
        let (before, after) = (view(1, 2, &[1, 2]), view(2, 1, &[1]));
        let now = Instant::from_nanos(1);
        journal.view(now, &before, &after, &Circumstances::default());
        let told: Vec<ApiEvent> = std::iter::from_fn(|| listener.try_recv().ok()).collect();
        assert_eq!(told[1].text, "2 -> 1 (256): member lost");
        // The reason comes after the view.
        let lost = Change {
            from: "ACTIVE".into(),
            to: "LOST".into(),
            reason: "silent".into(),
            at: now,
            silent: None,
            fit: false,
        };
        journal.failovers.change(member(2), lost);
        let shown = &journal.history().events[0];
        assert_eq!(
            shown.text,
            "2 -> 1 (256): member lost: member 2 is LOST: silent"
        );
        journal.peer(member(2), true);
        assert_eq!(journal.history().events[0].text, "sync channel up");
    }
}
