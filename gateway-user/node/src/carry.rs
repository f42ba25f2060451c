//! From the outputs of the two cores to effects, in the order that both contracts demand.

use gateway_cluster::change::Change as ClusterChange;
use gateway_cluster::output::Output as ClusterOutput;
use gateway_cluster::route::Origin;
use gateway_cluster::secret::Secret;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::output::{Change, ChildSa, Delta, KernelRequest, Output, Path, Transmit};
use gateway_ike::record::IkeSaRecord;

use crate::effect::{Effect, Event, KernelOp, Standing};
use crate::node::Node;
use crate::records::Spi;
use crate::translate;

impl Node {
    /// Takes the outputs of both cores until they have none left.
    pub(crate) fn collect(&mut self, now: Instant) {
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
            Output::Transmit(transmit) => {
                if let Some(transmit) = self.held.admit(transmit) {
                    self.transmit(now, transmit);
                }
            }
            Output::Kernel(request) => self.own(request),
            Output::Delta(delta) => self.publish(now, delta),
            Output::Event(event) => self.effects.push_back(Effect::Event(Event::Engine(event))),
        }
    }

    fn own(&mut self, request: KernelRequest) {
        let op = KernelOp::Own { request, start: 0 };
        self.effects.push_back(Effect::Kernel(op));
    }

    fn publish(&mut self, now: Instant, Delta { id, slot, change }: Delta) {
        match &change {
            Change::Upsert(record) => self.keep_own(record),
            Change::Removed { local_spi } => self.drop_own(slot, *local_spi),
            Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. } => {}
        }
        let change = translate::change(now, change);
        if let ClusterChange::SaUpsert(sa) = &change {
            let octets = Secret::from(sa.record.expose());
            self.records.put(sa.local_spi, slot, octets, now);
        }
        let mirror = translate::mirror(&change);
        match self.cluster.publish(now, slot, change, mirror) {
            Ok(sequence) => self.held.published(id, sequence),
            Err(error) => self
                .effects
                .push_back(Effect::Event(Event::NotMirrored(error))),
        }
    }

    /// The engine changed an IKE SA of this member; it has written its CHILD_SAs to the kernel
    /// itself.
    fn keep_own(&mut self, record: &IkeSaRecord) {
        let awake = self.awake.entry(record.slot).or_default();
        awake.insert(record.local_spi);
        let children: Vec<&ChildSa> = record.children.iter().map(|child| &child.sa).collect();
        self.children.set(record.local_spi, &children);
    }

    fn drop_own(&mut self, slot: Slot, local_spi: Spi) {
        if let Some(awake) = self.awake.get_mut(&slot) {
            awake.remove(&local_spi);
        }
        self.records.remove(local_spi);
        self.children.remove(local_spi);
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
                for transmit in self.held.release(sequence) {
                    self.transmit(now, transmit);
                }
            }
            ClusterOutput::Table(change) => self.effects.push_back(Effect::Table(change)),
            ClusterOutput::RecordUpserted { slot, sa, .. } => {
                self.keep_copy(now, slot, sa.local_spi, sa.record);
            }
            ClusterOutput::RecordRemoved { local_spi, .. } => {
                self.records.remove(local_spi);
                let gone = self.children.remove(local_spi);
                self.remove_copies(gone);
            }
            ClusterOutput::Relayed {
                from,
                path,
                datagram,
            } => {
                let path = Path::new(path.local, path.remote);
                self.receive(now, Origin::Relayed(from), path, &datagram);
            }
            ClusterOutput::Discarded(_)
            | ClusterOutput::Moved { .. }
            | ClusterOutput::Advance { .. }
            | ClusterOutput::MoveEnded { .. }
            | ClusterOutput::CookieSecret(_) => {}
            ClusterOutput::Report(report) => self.effects.push_back(Effect::Report(report)),
            ClusterOutput::PeerUp(member) => {
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

    /// Another member's IKE SA: its record is kept sealed, its CHILD_SAs stand by in the kernel.
    fn keep_copy(&mut self, now: Instant, slot: Slot, local_spi: Spi, octets: Secret) {
        match IkeSaRecord::decode(octets.expose()) {
            Ok(record) => {
                let children: Vec<&ChildSa> =
                    record.children.iter().map(|child| &child.sa).collect();
                let difference = self.children.set(local_spi, &children);
                for index in difference.put {
                    let Some(child) = children.get(index) else {
                        continue;
                    };
                    let standing = self.standing(child);
                    let child = Box::new((*child).clone());
                    let op = KernelOp::Copy { child, standing };
                    self.effects.push_back(Effect::Kernel(op));
                }
                self.remove_copies(difference.gone);
            }
            Err(error) => {
                self.counters.unreadable_records += 1;
                let event = Event::UnreadableRecord { local_spi, error };
                self.effects.push_back(Effect::Event(event));
            }
        }
        self.records.put(local_spi, slot, octets, now);
    }

    fn standing(&self, _child: &ChildSa) -> Standing {
        Standing {
            sequence_out: 0,
            ceiling: 0,
            sequence_in: 0,
        }
    }

    fn remove_copies(&mut self, gone: Vec<gateway_ike::output::ChildId>) {
        for child in gone {
            let op = KernelOp::RemoveCopy(child);
            self.effects.push_back(Effect::Kernel(op));
        }
    }

    /// What a slot's owner alone may send. Answers of negotiations go by the negotiation's member:
    /// its slot may have gone elsewhere since IKE_SA_INIT.
    fn transmit(&mut self, now: Instant, transmit: Transmit) {
        if now < self.lease {
            self.effects.push_back(Effect::Transmit(transmit));
        } else {
            self.counters.without_lease_dropped += 1;
        }
    }
}
