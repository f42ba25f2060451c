//! The packet logic of the XDP programs over the live maps: what they would do with a packet, and
//! by which look-ups. Reads the maps and writes nothing.

use std::cell::RefCell;
use std::fmt::Debug;
use std::net::IpAddr;

use gateway_common::abi::{
    ANY_MESSAGE_ID, Address, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MEMBER_FORWARDABLE,
    MemberValue, NET_LOCAL, NegotiationKey, NegotiationValue, RemoteNet, Settings, SlotValue, map,
    size,
};
use gateway_common::member::MemberId;
use gateway_common::packet::{Direction, Ethernet, Flow, IkeHeader, Octets, Transport, classify};
use gateway_common::reason::{Action, Reason};
use gateway_common::route::{IkeRoute, IkeTables, route_ike};
use gateway_common::slot::Slot;
use gateway_common::steer::{self, Verdict};
use gateway_common::time::Instant;

use super::pages::hex;
use crate::api::model::LookUp;
use crate::steering::{TableError, Tables};

/// The maps at a moment.
pub(super) struct Live<'a> {
    tables: &'a dyn Tables,
    vips: &'a [IpAddr],
    settings: Settings,
    members: Vec<MemberValue>,
    owners: Vec<Option<MemberId>>,
    live: Vec<MemberId>,
    lease: Instant,
    now: Instant,
    steps: RefCell<Vec<LookUp>>,
    failed: RefCell<Option<TableError>>,
}

/// What becomes of a frame.
pub(super) struct Outcome {
    pub(super) reason: Reason,
    /// "pass", "drop" or "forward".
    pub(super) action: &'static str,
    /// Who gets it, as far as it is the cluster's.
    pub(super) member: Option<MemberId>,
    pub(super) steps: Vec<LookUp>,
}

/// What a program decided, without what it borrows.
#[derive(Clone, Copy)]
struct Reached {
    reason: Reason,
    forwarded: Option<MemberId>,
}

impl Reached {
    fn of(verdict: &Verdict<'_>) -> Self {
        let (reason, forwarded) = match verdict {
            Verdict::Stay(reason) => (*reason, None),
            Verdict::Forward(forward) => (forward.reason, member(forward.member)),
        };
        Self { reason, forwarded }
    }
}

impl<'a> Live<'a> {
    pub(super) fn new(
        tables: &'a dyn Tables,
        vips: &'a [IpAddr],
        lease: Instant,
        now: Instant,
    ) -> Result<Self, TableError> {
        let ids = (0..size::MEMBERS as u8).map(MemberId::new);
        let members = ids.map(|id| id.map_or(Ok(MemberValue::default()), |id| tables.member(id)));
        Ok(Self {
            settings: tables.settings()?,
            members: members.collect::<Result<_, _>>()?,
            owners: tables.slot_owners()?,
            live: tables.live()?,
            tables,
            vips,
            lease,
            now,
            steps: RefCell::default(),
            failed: RefCell::default(),
        })
    }

    /// What `gateway_ingress` would do with a frame.
    pub(super) fn ingress(self, frame: &[u8]) -> Result<Outcome, TableError> {
        let verdict = Reached::of(&steer::ingress(&Octets(frame), &self));
        self.outcome(verdict)
    }

    /// What `gateway_inside` would do with a frame.
    pub(super) fn inside(self, frame: &[u8]) -> Result<Outcome, TableError> {
        let verdict = Reached::of(&steer::inside(&Octets(frame), &self));
        self.outcome(verdict)
    }

    fn outcome(self, verdict: Reached) -> Result<Outcome, TableError> {
        let Reached { reason, forwarded } = verdict;
        if let Some(error) = self.failed.into_inner() {
            return Err(error);
        }
        let action = match (forwarded, reason.action()) {
            (Some(_), _) => "forward",
            (None, Action::Drop) => "drop",
            (None, _) => "pass",
        };
        let is_own = reason.is_own() || reason == Reason::InsideOwned;
        let own = member(self.settings.member).filter(|_| is_own);
        Ok(Outcome {
            reason,
            action,
            member: forwarded.or(own),
            steps: self.steps.into_inner(),
        })
    }

    /// Whose an IKE message is.
    pub(super) fn route(self, header: &IkeHeader, peer: IpAddr) -> Result<IkeRoute, TableError> {
        let route = route_ike(header, &peer.into(), Direction::Received, &self);
        match self.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(route),
        }
    }

    fn read<T>(&self, found: Result<Option<T>, TableError>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }

    fn note(&self, table: &str, key: String, value: Option<&dyn Debug>) {
        self.steps.borrow_mut().push(LookUp {
            table: table.into(),
            key,
            value: value.map(|value| format!("{value:?}")),
        });
    }
}

fn member(id: u32) -> Option<MemberId> {
    u8::try_from(id).ok().and_then(MemberId::new)
}

fn address(address: &Address) -> IpAddr {
    IpAddr::from(*address)
}

fn hex32(octets: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(octets))
}

impl IkeTables for Live<'_> {
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue> {
        let slot = self.read(self.tables.ike_sa(key));
        let shown = slot.as_ref().map(|slot| slot as &dyn Debug);
        self.note(map::IKE_SA, hex(key.cookie), shown);
        slot.map(|slot| SlotValue::new(slot.0))
    }

    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        let value = self.read(self.tables.negotiation(key));
        let message_id = if key.message_id == ANY_MESSAGE_ID {
            "any".to_owned()
        } else {
            u32::from_be_bytes(key.message_id).to_string()
        };
        let mut shown = format!("{}:{message_id}", hex(key.cookie));
        if key.peer != Address::UNSPECIFIED {
            shown = format!("{shown} of {}", address(&key.peer));
        }
        let value_shown = value.as_ref().map(|value| {
            let over = value.expires_ns <= self.now.as_nanos();
            let expired = if over { ", expired" } else { "" };
            format!("member {}, slot {}{expired}", value.member, value.slot)
        });
        self.steps.borrow_mut().push(LookUp {
            table: map::NEGOTIATIONS.into(),
            key: shown,
            value: value_shown,
        });
        value
    }

    fn slot_owner(&self, slot: Slot) -> u32 {
        let owner = self.owners.get(usize::from(slot.0)).copied().flatten();
        self.steps.borrow_mut().push(LookUp {
            table: map::SLOT_OWNER.into(),
            key: slot.0.to_string(),
            value: owner.map(|owner| format!("member {owner}")),
        });
        owner.map_or(0, |owner| u32::from(owner.get()))
    }

    fn is_alive(&self, member: u32) -> bool {
        let forwardable = |value: &MemberValue| value.flags & MEMBER_FORWARDABLE != 0;
        member != 0
            && (member == self.settings.member
                || self.members.get(member as usize).is_some_and(forwardable))
    }

    fn now_ns(&self) -> u64 {
        self.now.as_nanos()
    }
}

impl steer::Tables for Live<'_> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn is_vip(&self, wanted: &Address) -> bool {
        let is_vip = self.vips.contains(&address(wanted));
        let shown = is_vip.then_some(&1 as &dyn Debug);
        self.note(map::VIP, address(wanted).to_string(), shown);
        is_vip
    }

    fn esp_sa(&self, key: &EspSaKey) -> Option<SlotValue> {
        let slot = self.read(self.tables.esp_sa(key));
        let shown = slot.as_ref().map(|slot| slot as &dyn Debug);
        let named = format!("{} to {}", hex32(key.spi), address(&key.vip));
        self.note(map::ESP_SA, named, shown);
        slot.map(|slot| SlotValue::new(slot.0))
    }

    fn esp_out(&self, key: &EspOutKey) -> Option<EspOutValue> {
        let value = self.read(self.tables.esp_out(key));
        let shown = value.as_ref().map(|value| value as &dyn Debug);
        let named = format!("{} to {}", hex32(key.spi), address(&key.peer));
        self.note(map::ESP_OUT, named, shown);
        value
    }

    fn lease(&self) -> u64 {
        self.lease.as_nanos()
    }

    fn exact_now_ns(&self) -> u64 {
        self.now.as_nanos()
    }

    fn remote_net(&self, key: &RemoteNet) -> Option<SlotValue> {
        let wanted = address(&key.address);
        let zone = u32::from_be_bytes(key.zone);
        let value = self.read(self.tables.remote_net(zone, wanted));
        let shown = value.map(|value| match value.flags & NET_LOCAL {
            0 => format!("slot {}", value.slot),
            _ => "stays here".to_owned(),
        });
        self.steps.borrow_mut().push(LookUp {
            table: map::REMOTE_NET.into(),
            key: wanted.to_string(),
            value: shown,
        });
        value
    }

    fn member(&self, id: u32) -> Option<&MemberValue> {
        self.members.get(id as usize)
    }

    fn live(&self, index: u32) -> u32 {
        let found = self.live.get(index as usize);
        found.map_or(0, |id| u32::from(id.get()))
    }
}

/// The IKE header and the source of a frame; `None` if it carries no IKE message.
pub(super) fn ike_of(frame: &[u8]) -> Option<(IkeHeader, IpAddr)> {
    let octets = Octets(frame);
    let ethernet = Ethernet::read(&octets).ok()?;
    let packet = classify(&octets, &ethernet).ok()?;
    let Flow::Transport(Transport::Ike { at, available }) = packet.flow else {
        return None;
    };
    let header = IkeHeader::read(&octets, at, available).ok()?;
    Some((header, address(&packet.ip.source(&octets))))
}

/// An IKE message as it comes from the wire on port 500, to the Ethernet address `to`. `None` if
/// the addresses are of two families, or no packet is that long.
pub(super) fn frame(
    message: &[u8],
    source: IpAddr,
    destination: IpAddr,
    to: [u8; 6],
) -> Option<Vec<u8>> {
    const PORT: [u8; 2] = gateway_common::packet::IKE_PORT.to_be_bytes();
    let length = u16::try_from(8 + message.len()).ok()?;
    let mut udp = [PORT, PORT, length.to_be_bytes(), [0, 0]].concat();
    udp.extend(message);
    ip_frame(UDP, &udp, source, destination, to)
}

/// The first ESP packet of an SA as it comes from the wire; as [`frame`].
pub(super) fn esp_frame(
    spi: [u8; 4],
    source: IpAddr,
    destination: IpAddr,
    to: [u8; 6],
) -> Option<Vec<u8>> {
    let mut esp = spi.to_vec();
    esp.extend(1u32.to_be_bytes());
    // Ciphertext and its check value, which steering never reads.
    esp.extend([0; 32]);
    ip_frame(ESP, &esp, source, destination, to)
}

/// Cleartext as it comes from an inside network; as [`frame`].
pub(super) fn inside_frame(source: IpAddr, destination: IpAddr, to: [u8; 6]) -> Option<Vec<u8>> {
    // Discard, to and from (RFC 863): only the addresses are read.
    let udp = [0, 9, 0, 9, 0, 8, 0, 0];
    ip_frame(UDP, &udp, source, destination, to)
}

const UDP: u8 = 17;
const ESP: u8 = 50;

fn ip_frame(
    protocol: u8,
    payload: &[u8],
    source: IpAddr,
    destination: IpAddr,
    to: [u8; 6],
) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok()?;
    let mut frame = to.to_vec();
    frame.extend([0x02, 0, 0, 0, 0, 1]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = length.checked_add(20)?;
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(total.to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return None,
    }
    frame.extend(payload);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::MemoryTables;
    use gateway_common::abi::{MEMBER_KNOWN, NegotiationState};

    fn message() -> Vec<u8> {
        let mut message = vec![0; 28];
        message[..8].copy_from_slice(b"initiatr");
        message[17] = 0x20;
        message[18] = 34;
        message[19] = IkeHeader::INITIATOR;
        message[27] = 28;
        message
    }

    #[test]
    fn a_message_is_found_in_its_frame() {
        for (source, destination) in [("192.0.2.1", "203.0.113.1"), ("2001:db8::1", "2001:db8::2")]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let frame = frame(&message(), source, destination, [2; 6]).unwrap();
            let (header, from) = ike_of(&frame).unwrap();
            assert_eq!((&header.initiator, from), (b"initiatr", source));
        }
        let families = frame(
            &[],
            "192.0.2.1".parse().unwrap(),
            "::1".parse().unwrap(),
            [2; 6],
        );
        assert_eq!(families, None);
    }

    #[test]
    fn an_esp_packet_has_its_spi() {
        let tables = MemoryTables::new(64);
        let vip: IpAddr = "2001:db8::2".parse().unwrap();
        let frame = esp_frame([0xc0, 0, 0, 1], "2001:db8::1".parse().unwrap(), vip, [2; 6]);
        let settings = Settings {
            member: 1,
            enabled: 1,
            ..Settings::default()
        };
        tables.set_settings(settings).unwrap();
        let now = Instant::from_nanos(100);
        let vips = [vip];
        let live = Live::new(&tables, &vips, now, now).unwrap();
        let outcome = live.ingress(&frame.unwrap()).unwrap();
        assert_eq!(outcome.reason, Reason::EspUnknown);
        let keys: Vec<_> = outcome.steps.iter().map(|step| step.key.as_str()).collect();
        assert!(keys.contains(&"c0000001 to 2001:db8::2"), "{keys:?}");
    }

    #[test]
    fn cleartext_goes_to_the_owner_of_the_longest_prefix() {
        let tables = MemoryTables::new(64);
        let settings = Settings {
            member: 1,
            enabled: 1,
            ..Settings::default()
        };
        tables.set_settings(settings).unwrap();
        let mut owners = [None; Slot::COUNT];
        (owners[7], owners[8]) = (MemberId::new(1), MemberId::new(2));
        tables.set_slot_owners(&owners).unwrap();
        let reachable = MemberValue {
            flags: MEMBER_KNOWN | MEMBER_FORWARDABLE,
            ..MemberValue::default()
        };
        let two = MemberId::new(2).unwrap();
        tables.set_member(two, &reachable).unwrap();
        for (net, slot) in [("10.2.0.0/16", 7), ("10.2.3.0/24", 8)] {
            let net = net.parse().unwrap();
            tables.put_remote_net(0, net, Slot(slot)).unwrap();
        }
        tables
            .put_local_net(0, "10.2.9.0/24".parse().unwrap())
            .unwrap();
        let now = Instant::from_nanos(100);
        for (to, reason, action, member) in [
            ("10.2.4.1", Reason::InsideOwned, "pass", Some(1)),
            ("10.2.3.1", Reason::InsideForwarded, "forward", Some(2)),
            ("10.2.9.1", Reason::InsideLocalNet, "pass", None),
            ("10.3.0.1", Reason::InsideUnmatched, "pass", None),
        ] {
            let source = "192.0.2.1".parse().unwrap();
            let frame = inside_frame(source, to.parse().unwrap(), [2; 6]).unwrap();
            let live = Live::new(&tables, &[], now, now).unwrap();
            let outcome = live.inside(&frame).unwrap();
            assert_eq!((outcome.reason, outcome.action), (reason, action), "{to}");
            assert_eq!(outcome.member, member.and_then(MemberId::new), "{to}");
            assert_eq!(outcome.steps[0].table, map::REMOTE_NET);
        }
    }

    #[test]
    fn the_look_ups_lead_to_the_member_of_an_entry() {
        let id = |n| MemberId::new(n).unwrap();
        let tables = MemoryTables::new(64);
        let vip: IpAddr = "203.0.113.1".parse().unwrap();
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        tables
            .set_settings(Settings {
                member: 1,
                enabled: 1,
                ..Settings::default()
            })
            .unwrap();
        let reachable = MemberValue {
            flags: MEMBER_KNOWN | MEMBER_FORWARDABLE,
            ..MemberValue::default()
        };
        tables.set_member(id(2), &reachable).unwrap();
        let key = NegotiationKey {
            cookie: *b"initiatr",
            message_id: [0; 4],
            peer: peer.into(),
        };
        let value = |expires_ns| NegotiationValue {
            member: 2,
            slot: 9,
            state: NegotiationState::Static as u8,
            reserved: [0; 5],
            created_ns: 0,
            expires_ns,
        };
        let frame = frame(&message(), peer, vip, [2; 6]).unwrap();
        let look = || {
            let now = Instant::from_nanos(100);
            let vips = [vip];
            let live = Live::new(&tables, &vips, now, now).unwrap();
            live.ingress(&frame).unwrap()
        };
        tables.put_negotiation(&key, &value(101)).unwrap();
        let outcome = look();
        assert_eq!(outcome.member, Some(id(2)));
        assert_eq!(
            (outcome.action, outcome.reason),
            ("forward", Reason::NegotiationForwarded)
        );
        let last = outcome.steps.last().unwrap();
        assert_eq!(last.key, "696e697469617472:0 of 192.0.2.1");
        // Expired: the decision function says who, and here that is nobody.
        tables.put_negotiation(&key, &value(100)).unwrap();
        let outcome = look();
        assert_eq!((outcome.member, outcome.action), (None, "pass"));
        assert_eq!(outcome.steps.last().unwrap().table, map::SLOT_OWNER);
    }
}
