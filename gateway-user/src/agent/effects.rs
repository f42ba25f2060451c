//! Carries out what the node decided, in its order.

use gateway_common::{slot::Slot, time::Instant};
use gateway_ike::output::{KernelRequest, Transmit};
use gateway_node::PATIENCE;
use gateway_node::effect::{Effect, Event, KernelOp};

use super::{Agent, log};
use crate::clock;

impl Agent {
    /// Carries out effects until there are none left.
    pub(super) fn carry_out(&mut self) {
        let mut ops = Vec::new();
        loop {
            let effect = self.node.poll_effect();
            if let Some(Effect::Kernel(op)) = effect {
                let answered = is_answered(&op);
                ops.push(op);
                if !answered {
                    continue;
                }
                self.change_kernel(&mut ops);
                continue;
            }
            // What follows may stand for the changes before it.
            self.change_kernel(&mut ops);
            match effect {
                Some(effect) => self.carry_out_one(clock::now(), effect),
                // An answer of the kernel may have had effects.
                None if ops.is_empty() => return,
                None => {}
            }
        }
    }

    fn change_kernel(&mut self, ops: &mut Vec<KernelOp>) {
        if ops.is_empty() {
            return;
        }
        let results = self.tunnels.carry_out_all(ops);
        ops.clear();
        let now = clock::now();
        for result in results {
            self.node.handle_kernel(now, result);
        }
    }

    fn carry_out_one(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::Transmit(transmit) => self.send(&transmit),
            Effect::Frame { to, frame, class } => {
                // The transport counts what it refuses, and ends the connection if it has to.
                if let Err(error) = self.transport.send(to, frame, class) {
                    tracing::debug!(%to, "frame not sent: {error}");
                }
            }
            Effect::Disconnect(member) => self.transport.disconnect(member),
            Effect::Table(change) => self.write_table(&change),
            Effect::Kernel(op) => drop(self.tunnels.carry_out(&op)),
            Effect::Report(report) => self.membership.report(report),
            Effect::Shared { from, octets } => {
                self.take_loaded(from, gateway_node::shared_octets(&octets));
            }
            Effect::Decide(question) => self.porters.ask(*question),
            Effect::Event(event) => self.note(now, &event),
        }
    }

    fn note(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Engine(event) => {
                if self.log.write(now, event) {
                    self.journal.engine(event);
                }
                self.tell_vici(now, event);
            }
            Event::Cluster(event) => {
                log::cluster(event);
                if let gateway_cluster::output::Event::SnapshotApplied { member, .. } = event {
                    self.drop_inherited(*member);
                }
            }
            Event::PeerUp(member) => {
                tracing::info!(%member, "sync channel up");
                self.journal.peer(*member, true);
                // The channel's first packets had the kernel resolve its address: not one frame
                // has to take the slower way through the agent until the next look.
                if let Err(error) = self.look_for_members() {
                    tracing::error!("{error}");
                }
            }
            Event::PeerDown(member) => {
                tracing::warn!(%member, "sync channel down");
                self.journal.peer(*member, false);
            }
            Event::NotMirrored(error) => {
                tracing::error!("an IKE SA stays on this member alone: {error}");
            }
            Event::OrderLapsed { order, slots } => tracing::warn!(
                connection = order.connection,
                "\"{order}\" was given up: for {} s nobody served slot {}; \"gatewayctl view\" shows \
                 who owns it, then order it again",
                PATIENCE.as_secs(),
                slots
                    .iter()
                    .map(Slot::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Event::UnreadableRecord { local_spi, error } => tracing::warn!(
                spi = format!("{:016x}", u64::from_be_bytes(*local_spi)),
                "a record cannot be read ({error}): do versions differ?"
            ),
        }
    }

    fn send(&mut self, transmit: &Transmit) {
        if let Err(error) = self
            .sockets
            .send(transmit.path, transmit.slot, &transmit.bytes)
        {
            self.send_errors += 1;
            tracing::debug!(peer = %transmit.path.remote, "send: {error}");
        }
    }
}

/// The engine goes on only when it knows whether the SAs stand.
const fn is_answered(op: &KernelOp) -> bool {
    matches!(
        op,
        KernelOp::Own {
            request: KernelRequest::Install { .. },
            ..
        }
    )
}
