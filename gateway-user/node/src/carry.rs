//! From the outputs of the two cores to effects, in the order that both contracts demand.

use gateway_cluster::output::Output as ClusterOutput;
use gateway_cluster::route::Origin;
use gateway_cluster::secret::Secret;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::endpoint::Command;
use gateway_ike::output::{
    Change, ChildId, ChildSa, Delta, DeltaId, KernelRequest, Output, Path, Transmit,
};
use gateway_ike::record::IkeSaRecord;

use crate::effect::{Effect, Event, KernelOp};
use crate::moves::{Place, our_spi};
use crate::node::Node;
use crate::records::Spi;
use crate::translate;

impl Node {
    /// Takes the outputs of both cores until they have none left.
    pub(crate) fn collect(&mut self, now: Instant) {
        self.take_over_negotiations(now);
        loop {
            if let Some(output) = self.endpoint.poll_output() {
                self.take_engine(now, output);
            } else if let Some(output) = self.cluster.poll_output() {
                self.take_cluster(now, output);
            } else {
                return;
            }
        }
    }

    fn take_engine(&mut self, now: Instant, output: Output) {
        match output {
            Output::Transmit(mut transmit) => {
                // Its IKE SA may have joined another slot than its negotiation was in.
                if let Some(held) =
                    our_spi(&transmit.bytes).and_then(|spi| self.cluster.ownership().sa(spi))
                {
                    transmit.slot = held.slot;
                }
                if let Some(transmit) = self.moves.admit(transmit) {
                    self.depart(now, transmit);
                }
            }
            Output::Kernel(request) => self.own(request),
            Output::Delta(delta) => self.publish(now, delta),
            Output::Decide(question) => self.effects.push_back(Effect::Decide(question)),
            Output::Event(event) => self.effects.push_back(Effect::Event(Event::Engine(event))),
        }
    }

    fn own(&mut self, request: KernelRequest) {
        match &request {
            KernelRequest::Install { child, .. } => self.fresh.installed(child),
            KernelRequest::Remove { child } => {
                self.fresh.settled(*child);
            }
            // With the record that names it.
            KernelRequest::Promote { child } if self.fresh.promoted(*child) => return,
            KernelRequest::Promote { .. } | KernelRequest::Update { .. } => {}
        }
        let start = match &request {
            KernelRequest::Install { child, .. } => self.cluster.first_number(child.slot),
            _ => 0,
        };
        let op = KernelOp::Own { request, start };
        self.effects.push_back(Effect::Kernel(op));
    }

    fn publish(&mut self, now: Instant, Delta { id, slot, change }: Delta) {
        match change {
            Change::Upsert(record) => self.publish_sa(now, id, *record),
            Change::Removed { local_spi } => {
                let known = self.cluster.ownership().sa(local_spi);
                let slot = known.map_or(slot, |held| held.slot);
                if let Some(awake) = self.awake.get_mut(&slot) {
                    awake.remove(&local_spi);
                }
                self.children.remove(local_spi);
                self.index.remove(local_spi);
                self.start.gone(local_spi);
                self.send_change(now, id, slot, Change::Removed { local_spi });
            }
            change => {
                self.send_change(now, id, slot, change);
            }
        }
    }

    /// The engine changed an IKE SA of this member, or established one.
    fn publish_sa(&mut self, now: Instant, id: DeltaId, mut record: IkeSaRecord) {
        let spi = record.local_spi;
        let held = self.cluster.ownership().sa(spi);
        let known = held.is_some();
        let place = match held {
            Some(held) => Some(Place {
                here: held.slot,
                there: None,
            }),
            None => self.place(now, &record),
        };
        let Some(place) = place else {
            return self.give_up(now, id, &record);
        };
        let moved = record.slot != place.here;
        record.slot = place.here;
        let children: Vec<&ChildSa> = record.children.iter().map(|child| &child.sa).collect();
        self.children.set(spi, &children);
        let promoted: Vec<ChildId> = children
            .iter()
            .map(|child| child.id())
            .filter(|child| self.fresh.settled(*child))
            .collect();
        self.awake.entry(place.here).or_default().insert(spi);
        self.index.put(spi, place.here, now, Some(&record));
        self.start.note(&record);
        let contact = record.contact;
        if place.there.is_none() {
            // Decided here, if it is new as far as those of the same identities are awake.
            record.contact = None;
        }
        let change = Change::Upsert(Box::new(record.clone()));
        if !self.send_change(now, id, place.here, change) {
            return;
        }
        let promoted = self.held.promote(id, place.here, promoted);
        self.promote(promoted);
        if moved {
            self.mark_children(&record, place.here);
            let slot = place.here;
            let reslot = Command::Reslot {
                local_spi: spi,
                slot,
            };
            self.endpoint.handle_command(now, reslot);
        }
        match (place.there, contact) {
            (Some(there), _) => self.begin_move(spi, there),
            (None, Some(contact)) => self.meet_kin(now, spi, place.here, contact, known),
            (None, None) => {}
        }
    }

    /// Outbound traffic goes through these from now on.
    fn promote(&mut self, children: Vec<ChildId>) {
        for child in children {
            let request = KernelRequest::Promote { child };
            let op = KernelOp::Own { request, start: 0 };
            self.effects.push_back(Effect::Kernel(op));
        }
    }

    /// There is no slot for an IKE SA that was just established: its peer has to begin again.
    fn give_up(&mut self, now: Instant, id: DeltaId, record: &IkeSaRecord) {
        self.held.refused(id);
        for child in &record.children {
            self.fresh.settled(child.sa.id());
            let op = KernelOp::RemoveCopy(child.sa.id());
            self.effects.push_back(Effect::Kernel(op));
        }
        let local_spi = record.local_spi;
        self.endpoint
            .handle_command(now, Command::Forget { local_spi });
    }

    /// Publishes a change; `false` if that is impossible.
    fn send_change(&mut self, now: Instant, id: DeltaId, slot: Slot, change: Change) -> bool {
        let change = translate::change(&*self.crypto, now, change);
        let mirror = translate::mirror(&change);
        match self.cluster.publish(now, slot, change, mirror) {
            Ok(sequence) => {
                self.held.published(id, sequence);
                true
            }
            Err(error) => {
                self.held.refused(id);
                self.effects
                    .push_back(Effect::Event(Event::NotMirrored(error)));
                false
            }
        }
    }

    fn take_cluster(&mut self, now: Instant, output: ClusterOutput) {
        match output {
            ClusterOutput::Send { to, frame, class } => {
                self.effects.push_back(Effect::Frame { to, frame, class });
            }
            ClusterOutput::Disconnect(member) => {
                self.effects.push_back(Effect::Disconnect(member));
            }
            ClusterOutput::Released(sequence) => {
                let free = self.held.release(sequence);
                let promotable = self.held.promotable();
                self.promote(promotable);
                for transmit in free {
                    self.transmit(now, transmit);
                }
            }
            ClusterOutput::Discarded(sequence) => self.held.discard(sequence),
            ClusterOutput::Table(change) => self.effects.push_back(Effect::Table(change)),
            ClusterOutput::RecordUpserted { slot, written, sa } => {
                let spi = sa.local_spi;
                let before = self.index.slot(spi).unwrap_or(slot);
                self.put_to_sleep(now, before, spi);
                self.keep_copy(now, slot, spi, &sa.record);
                self.welcome(now, spi, written);
            }
            ClusterOutput::RecordRemoved { slot, local_spi } => {
                self.put_to_sleep(now, slot, local_spi);
                self.index.remove(local_spi);
                self.start.gone(local_spi);
                let gone = self.children.remove(local_spi);
                self.remove_copies(gone);
            }
            ClusterOutput::Moved {
                local_spi,
                spi_in,
                slot,
                standing,
            } => {
                if let Some((child, spi_out)) = self.child(local_spi, spi_in) {
                    let op = KernelOp::MoveCopy {
                        child,
                        spi_out,
                        slot,
                        standing,
                    };
                    self.effects.push_back(Effect::Kernel(op));
                }
            }
            ClusterOutput::Advance {
                local_spi,
                spi_in,
                to,
            } => {
                if let Some((child, spi_out)) = self.child(local_spi, spi_in)
                    && let Some(slot) = self.index.slot(local_spi)
                {
                    let op = KernelOp::Advance {
                        child,
                        spi_out,
                        slot,
                        to,
                    };
                    self.effects.push_back(Effect::Kernel(op));
                }
            }
            ClusterOutput::MoveEnded { local_spi, gone } => self.end_move(now, local_spi, gone),
            ClusterOutput::CookieSecret(secret) => self.take_cookie_secret(now, &secret),
            ClusterOutput::Relayed {
                from,
                path,
                datagram,
            } => {
                let path = Path::new(path.local, path.remote);
                self.receive(now, Origin::Relayed(from), path, &datagram);
            }
            ClusterOutput::Order { from, octets } => self.take_order(now, from, octets),
            ClusterOutput::Report(report) => self.effects.push_back(Effect::Report(report)),
            ClusterOutput::PeerUp(member) => {
                self.tell_pins(now, member);
                self.share_with(member);
                self.effects.push_back(Effect::Event(Event::PeerUp(member)));
            }
            ClusterOutput::PeerDown(member) => {
                self.effects
                    .push_back(Effect::Event(Event::PeerDown(member)));
            }
            ClusterOutput::Event(event) => {
                self.effects.push_back(Effect::Event(Event::Cluster(event)));
            }
        }
    }

    /// An IKE SA that this member's engine did not write: its record stays sealed, its CHILD_SAs
    /// stand by in the kernel.
    fn keep_copy(&mut self, now: Instant, slot: Slot, local_spi: Spi, octets: &Secret) {
        let mut record = match IkeSaRecord::decode(octets.expose()) {
            Ok(record) => record,
            Err(error) => {
                self.index.put(local_spi, slot, now, None);
                self.counters.unreadable_records += 1;
                let event = Event::UnreadableRecord { local_spi, error };
                self.effects.push_back(Effect::Event(event));
                return;
            }
        };
        self.index.put(local_spi, slot, now, Some(&record));
        self.note_elsewhere(now, &record);
        self.meet_twins(now, slot, &record);
        for child in &mut record.children {
            child.sa.slot = slot;
        }
        let children: Vec<&ChildSa> = record.children.iter().map(|child| &child.sa).collect();
        let difference = self.children.set(local_spi, &children);
        for index in difference.put {
            let Some(child) = children.get(index) else {
                continue;
            };
            let Some(standing) = self.cluster.standing(child.spi_in) else {
                continue;
            };
            let child = Box::new((*child).clone());
            let op = KernelOp::Copy { child, standing };
            self.effects.push_back(Effect::Kernel(op));
        }
        self.remove_copies(difference.gone);
    }

    /// A CHILD_SA of an IKE SA, by its inbound SPI, and its outbound SPI.
    fn child(&self, local_spi: Spi, spi_in: [u8; 4]) -> Option<(ChildId, [u8; 4])> {
        let held = self.cluster.ownership().sa(local_spi)?;
        let child = held.sa.children.iter().find(|c| c.spi_in == spi_in)?;
        let local = child.vip;
        Some((ChildId { spi_in, local }, child.spi_out))
    }

    fn remove_copies(&mut self, gone: Vec<ChildId>) {
        for child in gone {
            let op = KernelOp::RemoveCopy(child);
            self.effects.push_back(Effect::Kernel(op));
        }
    }

    /// Sends a message when the delta behind it is on all members. One that repeats what an earlier owner
    /// of its slot wrote is dropped until all members know of that: it will be wanted again.
    pub(crate) fn depart(&mut self, now: Instant, transmit: Transmit) {
        let Some(transmit) = self.held.admit(transmit) else {
            return;
        };
        let known = our_spi(&transmit.bytes).and_then(|spi| self.cluster.ownership().sa(spi));
        if known.is_none_or(|held| self.cluster.shares(held.slot)) {
            self.transmit(now, transmit);
        } else {
            self.counters.not_shared_dropped += 1;
        }
    }

    /// What a slot's owner alone may send. Answers of negotiations go by the negotiation's member:
    /// its slot may have gone elsewhere since IKE_SA_INIT.
    pub(crate) fn transmit(&mut self, now: Instant, transmit: Transmit) {
        if now < self.lease {
            self.effects.push_back(Effect::Transmit(transmit));
        } else {
            self.counters.without_lease_dropped += 1;
        }
    }
}
