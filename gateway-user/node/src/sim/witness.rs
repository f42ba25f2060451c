//! The witness on a third host, if the plan has one.

use std::sync::Arc;

use gateway_cluster::frame::Incarnation;
use gateway_cluster::membership::witness::{Witness, WitnessOutput};
use gateway_cluster::membership::{LinkId, Sender, Via};
use gateway_common::member::MemberId;

use super::event::Event;
use super::world::World;

/// The responder, its disk, and how often it has started.
#[derive(Debug, Default)]
pub(super) struct Third {
    witness: Option<Witness>,
    disk: Vec<u8>,
    runs: u64,
}

impl Third {
    /// Whether there is one.
    pub(super) const fn is_there(&self) -> bool {
        self.witness.is_some()
    }
}

impl World {
    /// The witness starts, or starts again.
    pub(super) fn start_witness(&mut self) {
        let members: Vec<MemberId> = self.hosts.keys().copied().collect();
        let third = &mut self.third;
        third.runs += 1;
        third.witness = Some(Witness::new(
            self.plan.timing,
            Incarnation(third.runs),
            &members,
            self.now,
            &third.disk,
        ));
        self.trace(|| "the witness starts".into());
        self.pump_witness();
    }

    /// A datagram reaches the witness.
    pub(super) fn at_witness(&mut self, from: Sender, link: LinkId, octets: &[u8]) {
        let now = self.now;
        if let (Some(witness), Sender::Member(from)) = (&mut self.third.witness, from) {
            witness.handle_datagram(now, from, link, octets);
            self.pump_witness();
        }
    }

    fn pump_witness(&mut self) {
        while let Some(output) = self.third.witness.as_mut().and_then(Witness::poll_output) {
            match output {
                WitnessOutput::Persist(state) => self.third.disk = state,
                WitnessOutput::Send { to, via, datagram } => {
                    let links = match via {
                        Via::All => vec![LinkId(0), LinkId(1)],
                        Via::One(link) => vec![link],
                    };
                    let octets: Arc<[u8]> = datagram.into();
                    for link in links {
                        if !self.net.witness_passes(to) {
                            continue;
                        }
                        let delay = self.hop();
                        let event = Event::Heartbeat {
                            from: Sender::Witness,
                            to: Sender::Member(to),
                            link,
                            octets: Arc::clone(&octets),
                        };
                        self.after(delay, event);
                    }
                }
            }
        }
    }
}
