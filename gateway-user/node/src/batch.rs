//! What is to be done about very many IKE SAs, a few at a time: each has to be opened, which takes some
//! 50 to 100 µs, and heartbeats and exchanges are not to wait for all of them.

use std::collections::VecDeque;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::config::Gateway;
use gateway_ike::endpoint::Command;

use crate::node::Node;
use crate::order::Pending;
use crate::records::Spi;

/// IKE SAs in one turn: some 2 ms.
const TURN: usize = 16;

/// What is done with each.
#[derive(Debug)]
pub(crate) enum Act {
    /// An order about one slot.
    Order(Pending),
    /// The peer is asked to go to another gateway.
    Redirect(Gateway),
}

/// The IKE SAs of a slot that something is done with.
#[derive(Debug)]
pub(crate) struct Batch {
    /// When it was begun.
    pub(crate) since: Instant,
    pub(crate) slot: Slot,
    pub(crate) act: Act,
    pub(crate) left: VecDeque<Spi>,
}

/// What is not done yet, in its order.
#[derive(Debug, Default)]
pub(crate) struct Batches(VecDeque<Batch>);

impl Batches {
    pub(crate) fn push(&mut self, batch: Batch) {
        self.0.push_back(batch);
    }

    /// When there is something to do: at once, if there is anything.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.front().map(|batch| batch.since)
    }
}

impl Node {
    /// Does what one turn has time for.
    pub(crate) fn work_off(&mut self, now: Instant) {
        let mut room = TURN;
        while let Some(mut batch) = self.batches.0.pop_front() {
            while room > 0
                && self.serves(now, batch.slot)
                && let Some(spi) = batch.left.pop_front()
            {
                room -= 1;
                self.act(now, batch.slot, &batch.act, spi);
            }
            if batch.left.is_empty() {
                continue;
            }
            if self.serves(now, batch.slot) {
                self.batches.0.push_front(batch);
                return;
            }
            // Whoever serves the slot now sees to it; the order may be older than its patience.
            if let Act::Order(pending) = batch.act {
                self.put_off(now, pending.anew(now));
            }
        }
    }

    fn act(&mut self, now: Instant, slot: Slot, act: &Act, spi: Spi) {
        match act {
            Act::Order(pending) => self.carry_out_one(now, slot, pending, spi),
            Act::Redirect(gateway) => {
                if self.wake(now, spi) {
                    let gateway = gateway.clone();
                    let local_spi = spi;
                    let command = Command::Redirect { local_spi, gateway };
                    self.endpoint.handle_command(now, command);
                }
            }
        }
    }
}
