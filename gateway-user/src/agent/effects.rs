//! Carries out what the cores decided, in their order.

use std::collections::{BTreeMap, VecDeque};

use gateway_cluster::change::{Change, Mirror};
use gateway_cluster::frame::DeltaSeq;
use gateway_cluster::output::{Event, Output as ClusterOutput, Severity};
use gateway_cluster::route::Origin;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::output::{Delta, DeltaId, Output, Path, Transmit};
use gateway_ike::record::IkeSaRecord;

use super::replica::Replica;
use super::{Agent, clock, translate};

/// Datagrams that may not leave before the delta behind them is on every in-sync replica.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The cluster's number of each of the engine's deltas that is not released yet.
    sequence: BTreeMap<DeltaId, DeltaSeq>,
    released: DeltaSeq,
    waiting: VecDeque<(DeltaSeq, Transmit)>,
}

impl Held {
    fn published(&mut self, id: DeltaId, sequence: DeltaSeq) {
        self.sequence.insert(id, sequence);
    }

    /// The datagram, if it may leave now.
    fn admit(&mut self, transmit: Transmit) -> Option<Transmit> {
        let sequence = transmit
            .after
            .and_then(|id| self.sequence.get(&id).copied());
        match sequence {
            Some(sequence) if sequence > self.released => {
                self.waiting.push_back((sequence, transmit));
                None
            }
            _ => Some(transmit),
        }
    }

    /// What may leave, now that everything up to `sequence` is released.
    fn release(&mut self, sequence: DeltaSeq) -> Vec<Transmit> {
        self.released = self.released.max(sequence);
        let released = self.released;
        self.sequence.retain(|_, waiting| *waiting > released);
        let (free, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(s, _)| *s <= released);
        self.waiting = waiting;
        let free: VecDeque<(DeltaSeq, Transmit)> = free;
        free.into_iter().map(|(_, transmit)| transmit).collect()
    }
}

impl Agent {
    /// Carries out outputs until both cores have none left.
    pub(super) fn carry_out(&mut self) {
        loop {
            let now = clock::now();
            if let Some(output) = self.endpoint.poll_output() {
                self.carry_out_engine(now, output);
            } else if let Some(output) = self.cluster.poll_output() {
                self.carry_out_cluster(now, output);
            } else {
                return;
            }
        }
    }

    fn carry_out_engine(&mut self, now: Instant, output: Output) {
        match output {
            Output::Transmit(transmit) => {
                if let Some(transmit) = self.held.admit(transmit) {
                    self.send(&transmit);
                }
            }
            Output::Kernel(request) => {
                if let Some(result) = self.tunnels.perform(&request) {
                    self.endpoint.handle_kernel(now, result);
                }
            }
            Output::Delta(Delta { id, slot, change }) => {
                let change = translate::change(now, change);
                let mirror = mirror(&change);
                match self.cluster.publish(now, slot, change, mirror) {
                    Ok(sequence) => self.held.published(id, sequence),
                    Err(error) => tracing::error!("an IKE SA stays on this member alone: {error}"),
                }
            }
            Output::Event(event) => self.log.write(now, &event),
        }
    }

    fn carry_out_cluster(&mut self, now: Instant, output: ClusterOutput) {
        match output {
            ClusterOutput::Send { to, frame, class } => {
                // The transport counts what it refuses, and ends the connection if it has to.
                if let Err(error) = self.transport.send(to, frame, class) {
                    tracing::debug!(%to, "frame not sent: {error}");
                }
            }
            ClusterOutput::Disconnect(member) => self.transport.disconnect(member),
            ClusterOutput::Released(sequence) => {
                for transmit in self.held.release(sequence) {
                    self.send(&transmit);
                }
            }
            ClusterOutput::Table(change) => self.write_table(&change),
            ClusterOutput::RecordUpserted { slot, sa, .. } => {
                if let Some(owner) = self.cluster.slots().owner(slot) {
                    self.mirror(now, owner, sa.record.expose());
                }
            }
            ClusterOutput::RecordRemoved { slot, local_spi } => {
                if let Some(owner) = self.cluster.slots().owner(slot) {
                    self.forget(owner, local_spi);
                }
            }
            ClusterOutput::Relayed {
                from,
                path,
                datagram,
            } => {
                let path = Path::new(path.local, path.remote);
                self.receive(now, Origin::Relayed(from), path, &datagram);
            }
            ClusterOutput::Report(_)
            | ClusterOutput::Discarded(_)
            | ClusterOutput::Moved { .. }
            | ClusterOutput::Advance { .. }
            | ClusterOutput::MoveEnded { .. }
            | ClusterOutput::CookieSecret(_) => {}
            ClusterOutput::PeerUp(member) => tracing::info!(%member, "sync channel up"),
            ClusterOutput::PeerDown(member) => tracing::warn!(%member, "sync channel down"),
            ClusterOutput::Event(event) => {
                match event.severity() {
                    Severity::Info => tracing::info!("{event}"),
                    Severity::Warning => tracing::warn!("{event}"),
                }
                if let Event::SnapshotApplied { member, .. } = event {
                    self.drop_inherited(member);
                }
            }
        }
    }

    fn send(&mut self, transmit: &Transmit) {
        if let Err(error) = self
            .sockets
            .send(transmit.path, transmit.slot, &transmit.bytes)
        {
            self.counters.send_errors += 1;
            tracing::debug!(peer = %transmit.path.remote, "send: {error}");
        }
    }

    /// Another member's IKE SA: this member decrypts what reaches it of its children.
    fn mirror(&mut self, now: Instant, owner: MemberId, record: &[u8]) {
        let record = match IkeSaRecord::decode(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%owner, "a record cannot be read ({error}): do versions differ?");
                return;
            }
        };
        let replica = Replica::new(record, now);
        for child in replica.children() {
            if let Err(error) = self.tunnels.install_inbound_copy(child) {
                tracing::warn!(%owner, "inbound copy of a CHILD_SA: {error}");
            }
        }
        let gone = self.replicas.upsert(owner, replica);
        self.remove_copies(&gone);
    }

    fn forget(&mut self, owner: MemberId, local_spi: [u8; 8]) {
        let gone = self.replicas.remove(owner, local_spi);
        self.remove_copies(&gone);
    }

    fn remove_copies(&mut self, gone: &[gateway_ike::output::ChildId]) {
        for id in gone {
            if let Err(error) = self.tunnels.remove_child(*id) {
                tracing::warn!("inbound copy of a CHILD_SA: {error}");
            }
        }
    }
}

/// An IKE message waits for everything but half-open negotiations.
fn mirror(change: &Change) -> Mirror {
    match change {
        Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. } => Mirror::Background,
        _ => Mirror::Urgent,
    }
}
