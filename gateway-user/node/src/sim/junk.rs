//! Invariant 9: datagrams of strangers, who have seen everything that is on the wire.

use std::net::{Ipv4Addr, SocketAddr};

use gateway_common::member::MemberId;
use gateway_ike::output::Path;

use super::event::Event;
use super::host::{Input, NodeInput};
use super::world::{VIP, World};

/// Messages that somebody has recorded.
const CAPTURED: usize = 32;

impl World {
    /// Keeps a message that was on the wire for later forgeries.
    pub(super) fn capture(&mut self, bytes: &[u8]) {
        if self.captured.len() < CAPTURED {
            self.captured.push(bytes.to_vec());
        } else {
            let at = self.rng.below(CAPTURED as u64);
            self.captured[usize::try_from(at).unwrap_or(0)] = bytes.to_vec();
        }
    }

    /// One forged datagram for every member.
    pub(super) fn junk(&mut self) {
        let bytes = self.forge();
        let from = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 66).into(), 500);
        let path = Path::new(SocketAddr::new(VIP, 500), from);
        let ready: Vec<MemberId> = self
            .hosts
            .values()
            .filter(|host| host.is_healthy())
            .map(|host| host.id)
            .collect();
        for member in ready {
            let before = self.state_of_sas(member);
            let bytes = bytes.clone();
            self.input(member, Input::Node(NodeInput::Datagram { path, bytes }));
            let after = self.state_of_sas(member);
            if after != before {
                self.check.fail(format!(
                    "invariant 9: a forged datagram changed {member}: {before:?}, then {after:?}"
                ));
            }
        }
        let pause = self.rng.millis(50, 400);
        self.after(pause, Event::Junk);
    }

    /// Tells whether anything about established SAs has changed: writes of the kernel's SAs, IKE SAs,
    /// and octets of their records.
    fn state_of_sas(&self, member: MemberId) -> Option<(u64, usize, u64)> {
        let host = self.hosts.get(&member)?;
        let status = host.agent.as_ref()?.node.status();
        let octets = u64::try_from(status.record_octets).unwrap_or(0);
        Some((host.kernel.sa_writes, status.ike_sas, octets))
    }

    fn forge(&mut self) -> Vec<u8> {
        let captured = self.rng.below(self.captured.len() as u64);
        let captured = usize::try_from(captured).unwrap_or(0);
        let mut bytes = self.captured.get(captured).cloned().unwrap_or_default();
        match self.rng.below(4) {
            // Noise.
            0 => {
                let length = self.rng.below(200);
                bytes = (0..length).map(|_| self.rng.next() as u8).collect();
            }
            // One octet is different, anywhere.
            1 | 2 if !bytes.is_empty() => {
                let at = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap_or(0);
                bytes[at] ^= 1 << self.rng.below(8);
            }
            // The header of a real one, then noise.
            _ => {
                bytes.truncate(28);
                bytes.extend((0..64).map(|_| self.rng.next() as u8));
                let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
                if let Some(field) = bytes.get_mut(24..28) {
                    field.copy_from_slice(&length);
                }
            }
        }
        bytes
    }
}
