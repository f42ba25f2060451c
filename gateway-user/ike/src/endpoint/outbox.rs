//! The one queue of effects. Order is part of the contract: what is pushed first comes out first.

use std::collections::VecDeque;

use gateway_common::slot::Slot;

use crate::output::{
    Change, Delta, DeltaId, Event, EventKind, KernelRequest, Output, Path, Question, Transmit,
};
use crate::wire::messages;

/// Effects not yet polled.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    last_delta: u64,
}

impl Outbox {
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// Queues a message. One in fragments, whose messages stand one after the other in `octets`, is
    /// as many datagrams.
    pub(crate) fn transmit(
        &mut self,
        path: Path,
        octets: Vec<u8>,
        slot: Slot,
        after: Option<DeltaId>,
    ) {
        let mut datagram = |bytes| {
            self.queue.push_back(Output::Transmit(Transmit {
                path,
                bytes,
                slot,
                after,
            }));
        };
        if messages(&octets).nth(1).is_none() {
            return datagram(octets);
        }
        for message in messages(&octets) {
            datagram(message.to_vec());
        }
    }

    pub(crate) fn kernel(&mut self, request: KernelRequest) {
        self.queue.push_back(Output::Kernel(request));
    }

    pub(crate) fn decide(&mut self, question: Question) {
        self.queue.push_back(Output::Decide(Box::new(question)));
    }

    /// Numbers and queues a change.
    pub(crate) fn delta(&mut self, slot: Slot, change: Change) -> DeltaId {
        self.last_delta += 1;
        let id = DeltaId(self.last_delta);
        self.queue
            .push_back(Output::Delta(Delta { id, slot, change }));
        id
    }

    /// An event that concerns no IKE SA of ours.
    pub(crate) fn event(&mut self, path: Path, kind: EventKind) {
        self.sa_event(Event {
            local_spi: None,
            path: Some(path),
            connection: None,
            kind,
        });
    }

    pub(crate) fn sa_event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }
}
