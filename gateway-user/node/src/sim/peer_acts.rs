//! What peers do of their own accord.

use gateway_ike::endpoint::{Command, Target};

use super::event::Event;
use super::world::World;

impl World {
    /// A peer connects, or does something with what it has.
    pub(super) fn peer_acts(&mut self, peer: usize) {
        let now = self.now;
        if self.peers[peer].established() == 0 {
            if !self.peers[peer].is_connecting() {
                self.peers[peer].connect(now);
            }
        } else {
            self.exchange(peer);
        }
        self.after_peer(peer);
        let pause = self.rng.millis(100, 900);
        self.after(pause, Event::PeerActs { peer });
    }

    /// Liveness checks mostly, sometimes rekeying, seldom reauthentication: a new IKE SA beside the
    /// old one, which is then deleted.
    fn exchange(&mut self, peer: usize) {
        let now = self.now;
        let sas = self.peers[peer].own_spis();
        let Some((local_spi, children)) = sas.last().cloned() else {
            return;
        };
        let act = self.rng.below(if self.calm { 10 } else { 20 });
        let command = match act {
            0..10 => Command::Liveness { local_spi },
            10..14 => match children.last() {
                Some(spi) => Command::Rekey(Target::Child(*spi)),
                None => return,
            },
            14..16 => Command::Rekey(Target::Ike(local_spi)),
            16 if sas.len() == 1 && !self.peers[peer].is_connecting() => {
                self.peers[peer].connect(now);
                return;
            }
            _ if sas.len() > 1 => match sas.first() {
                Some((oldest, _)) => Command::Terminate(Target::Ike(*oldest)),
                None => return,
            },
            _ => return,
        };
        self.trace(|| format!("peer {peer} begins {command:?}"));
        self.peers[peer].command(now, command);
    }
}
