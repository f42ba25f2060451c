//! Rules that look at more than one member, and the end: what must hold when all is well again.

use std::collections::BTreeMap;

use gateway_cluster::table::TableChange;
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;

use super::check::Message;
use super::event::Event;
use super::world::World;

impl World {
    /// Invariant 3: after `member`'s SLOT_OWNER or LEASE changed.
    pub(super) fn check_fences(&mut self, member: MemberId) {
        if self.check.halves {
            return;
        }
        let now = self.now;
        for host in self.hosts.values_mut() {
            let clock = host.clock(now);
            host.kernel.set_clock(clock);
        }
        let Some(host) = self.hosts.get(&member) else {
            return;
        };
        let open = |slot: Slot, id: &MemberId| {
            self.hosts
                .get(id)
                .is_some_and(|host| host.powered && host.kernel.may_send(slot))
        };
        if !host.powered || host.kernel.lease <= host.clock(now) {
            return;
        }
        let others: Vec<MemberId> = self
            .hosts
            .values()
            .filter(|o| o.id != member && o.powered && o.kernel.lease > o.clock(now))
            .map(|o| o.id)
            .collect();
        let clash = (0..=u8::MAX).map(Slot).find_map(|slot| {
            let other = others.iter().find(|o| open(slot, o))?;
            open(slot, &member).then_some((slot, *other))
        });
        if let Some((slot, other)) = clash {
            self.check.fail(format!(
                "invariant 3: {slot} is open on {member} and {other}"
            ));
        }
    }

    pub(super) fn note_unsafe(&mut self, unsafe_takeover: bool) {
        if unsafe_takeover && !self.plan.availability {
            self.check
                .fail("a takeover without a majority that nobody allowed".into());
        }
        self.check.halves |= unsafe_takeover;
    }

    /// Invariant 4: a message of an IKE SA leaves `member`.
    pub(super) fn check_replicas(&mut self, member: MemberId, bytes: &[u8]) {
        let Some(message) = Message::read(bytes).filter(|m| m.iv.is_some()) else {
            return;
        };
        let now = self.now;
        let spi = message.sender_spi();
        let Some(agent) = self.hosts.get(&member).and_then(|host| host.agent.as_ref()) else {
            return;
        };
        let clock = self.hosts[&member].clock(now);
        let own = agent.node.record(clock, spi);
        if let Some(record) = &own {
            self.check.learn(record);
        }
        let view = agent.node.view().clone();
        for (other, incarnation) in &view.members {
            if *other == member {
                continue;
            }
            let Some(host) = self.hosts.get(other) else {
                continue;
            };
            let Some(replica) = host
                .agent
                .as_ref()
                .filter(|a| a.incarnation == *incarnation)
            else {
                continue;
            };
            let there = replica.node.record(host.clock(now), spi);
            let problem = match (&own, &there) {
                (None, Some(_)) => Some("still knows the IKE SA"),
                (Some(_), None) => Some("does not know the IKE SA"),
                (Some(_), Some(record)) if message.response => {
                    (record.expected_request <= message.id).then_some("lacks the response")
                }
                (Some(_), Some(record)) => {
                    (record.next_request <= message.id).then_some("lacks the request")
                }
                (None, None) => None,
            };
            if let Some(problem) = problem {
                let what = super::agent::summary(Some(message));
                self.check.fail(format!(
                    "invariant 4: {member} sends {what}, {other} {problem}"
                ));
                return;
            }
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.calm = true;
        self.net.heal_all();
        self.trace(|| "HEAL".into());
        let off: Vec<MemberId> = self
            .hosts
            .values()
            .filter(|host| host.agent.is_none())
            .map(|host| host.id)
            .collect();
        for member in off {
            self.after(
                std::time::Duration::from_millis(10),
                Event::Start { member },
            );
        }
    }

    /// What is not yet as it must be in the end; `None`: all is well.
    pub(super) fn unsettled(&self) -> Option<String> {
        let mut reference: Option<(MemberId, u64, Vec<TableChange>)> = None;
        for host in self.hosts.values() {
            let id = host.id;
            let Some(agent) = host.agent.as_ref().filter(|_| host.is_healthy()) else {
                return Some(format!("{id} is not up"));
            };
            let view = agent.node.view();
            if view.members.len() != self.hosts.len() {
                return Some(format!(
                    "{id} has view {} with {} members",
                    view.epoch,
                    view.members.len()
                ));
            }
            if !view.admits(id, agent.incarnation) {
                return Some(format!("the view of {id} is not for this run of it"));
            }
            if host.kernel.lease <= host.clock(self.now) {
                return Some(format!("{id} has no lease"));
            }
            if agent.node.status().held > 0 {
                return Some(format!("{id} holds messages back"));
            }
            let tables = comparable(agent.node.cluster().ownership().tables());
            match &reference {
                None => reference = Some((id, view.epoch.0, tables)),
                Some((first, epoch, _)) if *epoch != view.epoch.0 => {
                    return Some(format!("{first} and {id} are in different views"));
                }
                Some((first, _, expected)) if *expected != tables => {
                    return Some(format!(
                        "invariant 7: tables of {first} and {id} differ: {}",
                        difference(expected, &tables)
                    ));
                }
                Some(_) => {}
            }
            if let Some(problem) = host.kernel.differs(&agent.node) {
                return Some(format!("invariant 7: maps of {id}: {problem}"));
            }
        }
        self.peers_unsettled()
    }

    fn peers_unsettled(&self) -> Option<String> {
        if self.excused {
            return None;
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.notes.inits == 0 {
                return Some(format!("peer {index} has not begun"));
            }
            if peer.is_connecting() {
                return Some(format!("peer {index} negotiates"));
            }
            if peer.established() == 0 {
                return Some(format!("invariant 5: peer {index} has no IKE SA"));
            }
            for host in self.hosts.values() {
                let Some(agent) = &host.agent else { continue };
                let clock = host.clock(self.now);
                // Older ones are about to be deleted.
                if let Some(spi) = peer.gateway_spi()
                    && agent
                        .node
                        .record(clock, spi)
                        .is_none_or(|record| record.closed.is_some())
                {
                    return Some(format!(
                        "invariant 5: IKE SA {spi:02x?} of peer {index} is not on {}",
                        host.id
                    ));
                }
                for spi in peer.child_spis() {
                    if !host.kernel.sas.keys().any(|id| id.spi_in == spi) {
                        return Some(format!(
                            "invariant 5: CHILD_SA {spi:02x?} of peer {index} is not on {}",
                            host.id
                        ));
                    }
                }
            }
        }
        None
    }

    /// No peer had to begin again.
    pub(super) fn check_peers(&mut self) {
        if self.excused {
            return;
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.notes.inits_after_loss > 0 {
                self.check
                    .fail(format!("invariant 5: peer {index} had to begin again"));
                return;
            }
        }
    }
}

/// Tables without times and ceilings, which are each member's own.
fn comparable(tables: impl Iterator<Item = TableChange>) -> Vec<TableChange> {
    tables
        .map(|change| match change {
            TableChange::PutNegotiation { key, mut value } => {
                value.created_ns = 0;
                value.expires_ns = 0;
                TableChange::PutNegotiation { key, value }
            }
            // Each member has a ceiling of its own.
            TableChange::PutEspOut { key, slot, .. } => TableChange::PutEspOut {
                key,
                slot,
                ceiling: 0,
            },
            other => other,
        })
        .collect()
}

fn difference(a: &[TableChange], b: &[TableChange]) -> String {
    let count = |list: &[TableChange]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for change in list {
            *counts.entry(format!("{change:?}")).or_default() += 1;
        }
        counts
    };
    let (a, b) = (count(a), count(b));
    let only = |x: &BTreeMap<String, usize>, y: &BTreeMap<String, usize>| {
        let missing: Vec<String> = x.keys().filter(|k| !y.contains_key(*k)).cloned().collect();
        missing.join(", ")
    };
    format!(
        "only the first: {}; only the second: {}",
        only(&a, &b),
        only(&b, &a)
    )
}
