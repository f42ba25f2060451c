//! `gateway_egress` in a modelled kernel: the real decision code, asked about real octets.

use std::net::IpAddr;

use gateway_common::abi::{
    Address, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MARK_IKE, MARK_SA, MemberValue,
    NegotiationKey, NegotiationValue, RemoteNet, Settings, SlotValue, mark,
};
use gateway_common::packet::Octets;
use gateway_common::reason::Reason;
use gateway_common::route::IkeTables;
use gateway_common::slot::Slot;
use gateway_common::steer::{Leaving, Link, Tables, fence};

use super::esp::Packet;
use super::kernel::Kernel;
use super::world::VIP;

const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;

impl Kernel {
    /// What the fence says about an IKE message of `slot` to `peer`.
    pub(super) fn fence_ike(&self, slot: Slot, peer: IpAddr) -> Reason {
        // Ports 500, length 36, no checksum; the message itself is none of the fence's business.
        let udp = [0x01, 0xf4, 0x01, 0xf4, 0, 36, 0, 0];
        self.judge(&packet(PROTOCOL_UDP, peer, &udp), mark(MARK_IKE, slot.0), 1)
    }

    /// What the fence says about `segments` ESP packets from `first` on.
    fn fence_esp(&self, peer: IpAddr, esp: &Packet, segments: u64) -> Reason {
        let mut header = [0; 8];
        header[..4].copy_from_slice(&esp.spi);
        header[4..].copy_from_slice(&(esp.first as u32).to_be_bytes());
        let segments = u32::try_from(segments).unwrap_or(u32::MAX);
        let frame = packet(PROTOCOL_ESP, peer, &header);
        self.judge(&frame, mark(MARK_SA, esp.slot.0), segments)
    }

    /// As many of the packets as the fence lets out; none with the reason why.
    pub(super) fn fence_all(&self, peer: IpAddr, mut esp: Packet) -> Result<Packet, Reason> {
        let count = esp.last - esp.first + 1;
        let passes = |n| self.fence_esp(peer, &esp, n) == Reason::FenceOwned;
        let (mut most, mut beyond) = (0, count + 1);
        while beyond - most > 1 {
            let middle = if most == 0 && beyond == count + 1 {
                count
            } else {
                most + (beyond - most) / 2
            };
            if passes(middle) {
                most = middle;
            } else {
                beyond = middle;
            }
        }
        if most == 0 {
            return Err(self.fence_esp(peer, &esp, 1));
        }
        esp.last = esp.first + most - 1;
        Ok(esp)
    }

    fn judge(&self, frame: &[u8], mark: u32, segments: u32) -> Reason {
        let leaving = Leaving {
            link: Link::Ip(ETHERTYPE_IPV4),
            mark,
            segments,
        };
        fence(&Octets(frame), &leaving, self)
    }
}

/// An IPv4 packet from the VIP.
fn packet(protocol: u8, peer: IpAddr, payload: &[u8; 8]) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[0] = 0x45;
    frame[3] = 64;
    frame[8] = 64;
    frame[9] = protocol;
    if let (IpAddr::V4(vip), IpAddr::V4(peer)) = (VIP, peer) {
        frame[12..16].copy_from_slice(&vip.octets());
        frame[16..20].copy_from_slice(&peer.octets());
    }
    frame[20..28].copy_from_slice(payload);
    frame
}

impl IkeTables for Kernel {
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue> {
        self.ike_sa.get(key).copied()
    }

    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        self.negotiations.get(key).copied()
    }

    fn slot_owner(&self, slot: Slot) -> u32 {
        let owner = self.slot_owner.owner(slot);
        owner.map_or(0, |member| u32::from(member.get()))
    }

    fn is_alive(&self, member: u32) -> bool {
        member == self.settings.member || self.alive.iter().any(|m| u32::from(m.get()) == member)
    }

    fn now_ns(&self) -> u64 {
        self.now.as_nanos()
    }
}

impl Tables for Kernel {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn is_vip(&self, address: &Address) -> bool {
        *address == VIP.into()
    }

    fn esp_sa(&self, key: &EspSaKey) -> Option<SlotValue> {
        self.esp_sa.get(key).copied()
    }

    fn esp_out(&self, key: &EspOutKey) -> Option<EspOutValue> {
        self.esp_out.get(key).copied()
    }

    fn lease(&self) -> u64 {
        self.lease.as_nanos()
    }

    fn exact_now_ns(&self) -> u64 {
        self.now.as_nanos()
    }

    fn remote_net(&self, key: &RemoteNet) -> Option<SlotValue> {
        let found = self.remote_net.iter().find(|((_, net), _)| net == key);
        found.map(|(_, value)| *value)
    }

    fn member(&self, _id: u32) -> Option<&MemberValue> {
        None
    }

    fn live(&self, index: u32) -> u32 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.alive.get(index).map_or(0, |m| u32::from(m.get()))
    }
}
