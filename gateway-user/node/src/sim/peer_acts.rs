//! What peers do of their own accord.

use super::event::Event;
use super::world::World;

impl World {
    /// A peer connects, or does something with what it has.
    pub(super) fn peer_acts(&mut self, peer: usize) {
        let now = self.now;
        if self.peers[peer].established() == 0 && !self.peers[peer].is_connecting() {
            self.peers[peer].connect(now);
        }
        self.after_peer(peer);
        let pause = self.rng.millis(100, 900);
        self.after(pause, Event::PeerActs { peer });
    }
}
