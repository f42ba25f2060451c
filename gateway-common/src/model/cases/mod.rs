//! A small cluster, packets to it, and what must become of them.

mod fence;
mod icmp;
mod ike;
mod ingress;
mod inside;
mod sync;

use core::net::IpAddr;

use super::ModelTables;
use super::packet::{OUR_MAC, Packet};
use crate::abi::{
    ANY_MESSAGE_ID, Address, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MEMBER_FORWARDABLE,
    MEMBER_KNOWN, MemberValue, NegotiationKey, NegotiationState, NegotiationValue, RemoteNet,
    Settings, SlotValue,
};
use crate::reason::{Program, Reason};
use crate::slot::Slot;

/// Cluster id of the world.
pub const CLUSTER: u8 = 9;
/// Slots of member 1 (this one), 2 and 3.
const SELF: u8 = 0;
const SECOND: u8 = 1;
const THIRD: u8 = 2;
/// A slot whose owner is known but cannot be reached.
const DEAD: u8 = 200;
/// A slot without owner.
const UNSET: u8 = 201;
/// A slot whose owner is behind a device that is missing.
const DEVICELESS: u8 = 202;
/// `SYNC_DEV` index of that device; 0 is there.
pub const MISSING_DEVICE: u32 = 7;

/// A frame and what must become of it in [`world`].
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The program that sees it.
    pub program: Program,
    /// What arrives, or at the fence leaves.
    pub frame: Vec<u8>,
    /// `skb->mark` at the fence.
    pub mark: u32,
    /// `skb->gso_segs` at the fence.
    pub segments: u32,
    /// Instead of the world's.
    pub settings: Option<Settings>,
    /// Instead of the world's, which never ends. 0, or 1,000,000, which is now in the world and
    /// long ago in any kernel.
    pub lease: Option<u64>,
    /// The reason it ends in.
    pub reason: Reason,
    /// To whom it is forwarded; at `gateway_sync`, from whom it came; 0 if neither.
    pub member: u32,
    /// VLAN tags that a forwarded frame loses.
    pub tags: usize,
}

impl Case {
    /// The frame as it must leave the program.
    pub fn output(&self) -> Vec<u8> {
        if self.reason.action() != crate::reason::Action::Forward {
            return self.frame.clone();
        }
        let world = world();
        let member = world.member[&self.member];
        let rest = &self.frame[12 + 4 * self.tags..];
        [&member.mac[..], &member.marked_mac[..], rest].concat()
    }
}

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = ingress::cases();
    cases.extend(ike::cases());
    cases.extend(icmp::cases());
    cases.extend(sync::cases());
    cases.extend(inside::cases());
    cases.extend(fence::cases());
    cases
}

fn case(program: Program, name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    Case {
        name,
        program,
        frame,
        mark: 0,
        segments: 0,
        settings: None,
        lease: None,
        reason,
        member: 0,
        tags: 0,
    }
}

fn to(member: u32, case: Case) -> Case {
    Case { member, ..case }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0; 4]))
}

fn peer4() -> IpAddr {
    ip("198.51.100.7")
}

fn vip4() -> IpAddr {
    ip("203.0.113.10")
}

fn peer6() -> IpAddr {
    ip("2001:db8:2::7")
}

fn vip6() -> IpAddr {
    ip("2001:db8:1::10")
}

/// From the IPv4 peer to the IPv4 VIP.
fn inbound4(protocol: u8, payload: Vec<u8>) -> Packet {
    Packet::new(peer4(), vip4(), protocol, payload)
}

/// From the IPv6 peer to the IPv6 VIP.
fn inbound6(protocol: u8, payload: Vec<u8>) -> Packet {
    Packet::new(peer6(), vip6(), protocol, payload)
}

/// A cookie that the decision function gives to a slot of `member`, 1 to 3.
fn cookie_for(member: u32, peer: IpAddr) -> [u8; 8] {
    let owners = world().slot_owner;
    (1u64..)
        .map(u64::to_be_bytes)
        .find(|cookie| {
            let slot = Slot::for_negotiation(&Address::from(peer).octets, cookie);
            owners.get(&slot.0) == Some(&member)
        })
        .unwrap_or([1; 8])
}

/// The tables that the cases speak of. `now_ns` is 1,000,000; entries have expired before it or
/// never expire.
pub fn world() -> ModelTables {
    let mut world = ModelTables {
        now_ns: 1_000_000,
        lease: u64::MAX,
        ..ModelTables::default()
    };
    world.share(CLUSTER, &[1, 2, 3]);
    world.settings.macs[0][..6].copy_from_slice(&OUR_MAC);
    world.settings.macs[1][..6].copy_from_slice(&[0, 0, 0x5e, 0, 1, 7]);
    for (id, device, flags) in [
        (4, 0, MEMBER_KNOWN),
        (5, MISSING_DEVICE, MEMBER_KNOWN | MEMBER_FORWARDABLE),
    ] {
        let value = MemberValue {
            device,
            flags,
            ..world.member[&2]
        };
        world.member.insert(id, value);
    }
    world.slot_owner.insert(DEAD, 4);
    world.slot_owner.insert(UNSET, 0);
    world.slot_owner.insert(DEVICELESS, 5);
    world.vip = [vip4(), vip6()].map(Address::from).into();
    add_sas(&mut world);
    add_odd_sas(&mut world);
    add_negotiations(&mut world);
    add_networks(&mut world);
    world
}

/// Up to where the world's outbound SAs may count.
const CEILING: u32 = 1000;

/// The SPI and the cookie of the SA in `slot` say the slot.
fn add_sas(world: &mut ModelTables) {
    for slot in [SELF, SECOND, THIRD, DEAD, UNSET, DEVICELESS] {
        let value = SlotValue::new(slot);
        world.ike_sa.insert(
            IkeSaKey {
                cookie: established(slot),
            },
            value,
        );
        for (vip, peer) in [(vip4(), peer4()), (vip6(), peer6())] {
            let spi = inbound_spi(slot).to_be_bytes();
            world.esp_sa.insert(
                EspSaKey {
                    spi,
                    vip: vip.into(),
                },
                value,
            );
            let spi = outbound_spi(slot).to_be_bytes();
            world.esp_out.insert(
                EspOutKey {
                    spi,
                    peer: peer.into(),
                },
                EspOutValue::new(slot, CEILING),
            );
        }
    }
}

/// Outbound SAs that are not like the others: their SPIs, slots and ceilings.
const ODD_SAS: [(u32, u8, u32); 4] = [
    (BEYOND_THE_WRAP, SELF, 5),
    (BEFORE_THE_WRAP, SELF, u32::MAX - 5),
    (MOVED_HERE, SELF + 3, CEILING),
    (MOVED_AWAY, SECOND, CEILING),
];
const BEYOND_THE_WRAP: u32 = 0xd0ff_0001;
const BEFORE_THE_WRAP: u32 = 0xd0ff_0002;
/// Its packets are marked with [`SELF`], but it is in another slot of this member.
const MOVED_HERE: u32 = 0xd0ff_0003;
/// Its packets are marked with [`SELF`], but it is in a slot of another member.
const MOVED_AWAY: u32 = 0xd0ff_0004;

fn add_odd_sas(world: &mut ModelTables) {
    for (spi, slot, ceiling) in ODD_SAS {
        let key = EspOutKey {
            spi: spi.to_be_bytes(),
            peer: peer4().into(),
        };
        world.esp_out.insert(key, EspOutValue::new(slot, ceiling));
    }
}

fn established(slot: u8) -> [u8; 8] {
    [b'e', b's', b't', b'a', b'b', b'l', b':', slot]
}

fn inbound_spi(slot: u8) -> u32 {
    0xc000_0000 | u32::from(slot)
}

fn outbound_spi(slot: u8) -> u32 {
    0xd000_0000 | u32::from(slot)
}

fn add_negotiations(world: &mut ModelTables) {
    let exact = 7u32.to_be_bytes();
    let none = Address::UNSPECIFIED;
    for (cookie, message_id, peer, member, expires_ns) in [
        (b"neg-self", ANY_MESSAGE_ID, none, 1, u64::MAX),
        (b"neg-two:", ANY_MESSAGE_ID, none, 2, u64::MAX),
        (b"neg-both", ANY_MESSAGE_ID, none, 2, u64::MAX),
        (b"neg-both", exact, none, 3, u64::MAX),
        (b"neg-late", ANY_MESSAGE_ID, none, 2, 999_999),
        (b"neg-stay", ANY_MESSAGE_ID, none, 3, u64::MAX),
        (b"neg-stay", exact, none, 2, 999_999),
        (b"neg-dead", ANY_MESSAGE_ID, none, 4, u64::MAX),
        (b"neg-none", ANY_MESSAGE_ID, none, 0, u64::MAX),
        (b"neg-peer", ANY_MESSAGE_ID, peer4().into(), 2, u64::MAX),
        (b"v1-ours:", ANY_MESSAGE_ID, none, 2, u64::MAX),
        (b"v1-init:", ANY_MESSAGE_ID, none, 3, u64::MAX),
    ] {
        let key = NegotiationKey {
            cookie: *cookie,
            message_id,
            peer,
        };
        let value = NegotiationValue {
            member,
            slot: SELF,
            state: NegotiationState::HalfOpen as u8,
            reserved: [0; 5],
            created_ns: 0,
            expires_ns,
        };
        world.negotiations.insert(key, value);
    }
}

fn add_networks(world: &mut ModelTables) {
    for (prefix, length, value) in [
        ("10.2.0.0", 16, SlotValue::new(SECOND)),
        ("10.2.9.0", 24, SlotValue::local()),
        ("10.3.0.0", 16, SlotValue::new(SELF)),
        ("10.4.0.0", 16, SlotValue::new(DEAD)),
        ("10.5.0.0", 16, SlotValue::new(DEVICELESS)),
        ("203.0.113.0", 24, SlotValue::new(SECOND)),
        ("fd00:2::", 32, SlotValue::new(THIRD)),
    ] {
        let address = ip(prefix);
        let above = if address.is_ipv4() { 32 + 96 } else { 32 };
        let key = RemoteNet {
            zone: [0; 4],
            address: address.into(),
        };
        world.remote_net.push((above + length, key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Octets;
    use crate::steer::{self, Leaving, Link, Verdict};
    use std::collections::HashSet;

    /// Reason, member and tags.
    fn run(case: &Case) -> (Reason, u32, usize) {
        let mut tables = world();
        if let Some(settings) = case.settings {
            tables.settings = settings;
        }
        tables.lease = case.lease.unwrap_or(tables.lease);
        let frame = Octets(&case.frame);
        let verdict = match case.program {
            Program::Ingress => steer::ingress(&frame, &tables),
            Program::Inside => steer::inside(&frame, &tables),
            Program::Sync => {
                let received = steer::sync(&frame, &tables);
                return (received.reason, received.member, 0);
            }
            Program::Egress => {
                let leaving = Leaving {
                    link: Link::Ethernet,
                    mark: case.mark,
                    segments: case.segments,
                };
                let reason = steer::fence(&frame, &leaving, &tables);
                return (reason, 0, 0);
            }
        };
        match verdict {
            Verdict::Stay(reason) => (reason, 0, 0),
            Verdict::Forward(forward) if forward.value.device == MISSING_DEVICE => {
                (steer::without_device(case.program), 0, 0)
            }
            Verdict::Forward(forward) => {
                (forward.reason, forward.member, usize::from(forward.tags))
            }
        }
    }

    #[test]
    fn every_case_ends_as_it_must() {
        for case in all() {
            let expected = (case.reason, case.member, case.tags);
            assert_eq!(run(&case), expected, "{:?}: {}", case.program, case.name);
        }
    }

    #[test]
    fn every_reason_has_a_case() {
        let seen: HashSet<_> = all().iter().map(|case| case.reason).collect();
        for reason in Reason::ALL {
            assert!(seen.contains(reason), "{reason}");
        }
    }

    #[test]
    fn names_are_unique() {
        let cases = all();
        let names: HashSet<_> = cases.iter().map(|c| (c.program, c.name)).collect();
        assert_eq!(names.len(), cases.len());
    }
}
