//! Sending peers to another gateway (RFC 5685 §5).

use gateway_cluster::ownership::Held;
use gateway_common::time::Instant;
use gateway_ike::config::Gateway;
use gateway_ike::endpoint::Command;

use crate::node::Node;
use crate::records::Spi;

impl Node {
    /// Asks the peers of this member's IKE SAs, or of those of one connection, to go to another
    /// gateway. How many were asked; those that cannot be redirected are left out.
    pub fn redirect(&mut self, now: Instant, connection: Option<&str>, gateway: &Gateway) -> usize {
        let local = self.local();
        let view = self.view();
        let held = self.cluster.ownership().sas();
        let ours = held.filter(|held| view.slots.owner(held.slot) == Some(local));
        let known = |held: &&Held| self.index.connection(held.sa.local_spi);
        let ours = ours.filter(|held| connection.is_none_or(|name| known(held) == Some(name)));
        let asked: Vec<Spi> = ours
            .filter_map(|held| self.index.open(now, held).ok())
            .filter(|record| record.transport.redirectable && !record.replaced)
            .map(|record| record.local_spi)
            .collect();
        let mut count = 0;
        for local_spi in asked {
            if self.wake(now, local_spi) {
                let gateway = gateway.clone();
                let command = Command::Redirect { local_spi, gateway };
                self.endpoint.handle_command(now, command);
                count += 1;
            }
        }
        self.collect(now);
        count
    }
}
