//! Sending peers to another gateway (RFC 5685 §5).

use std::collections::VecDeque;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::config::Gateway;

use crate::batch::{Act, Batch};
use crate::node::Node;
use crate::records::Spi;

impl Node {
    /// Asks the peers of this member's IKE SAs, or of those of one connection, to go to another
    /// gateway: a few at once, the others in the turns that follow. How many it are; those that cannot
    /// be redirected are left out.
    pub fn redirect(&mut self, now: Instant, connection: Option<&str>, gateway: &Gateway) -> usize {
        let mut count = 0;
        for slot in (0..=u8::MAX).map(Slot) {
            if !self.serves(now, slot) {
                continue;
            }
            let all = self.index.in_slot(slot).filter(|spi| {
                self.index.is_redirectable(*spi)
                    && !self.cluster.is_moving(*spi)
                    && connection.is_none_or(|name| self.index.connection(*spi) == Some(name))
            });
            let left: VecDeque<Spi> = all.collect();
            count += left.len();
            let act = Act::Redirect(gateway.clone());
            self.batches.push(Batch {
                since: now,
                slot,
                act,
                left,
            });
        }
        self.work_off(now);
        self.collect(now);
        count
    }
}
