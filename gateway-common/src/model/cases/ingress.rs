//! Frames at `gateway_ingress`: link, network layer, fragments.

use super::super::packet::{IPV4, Ike, Packet, esp, ethernet, extensions, tagged, udp};
use super::{Case, SECOND, case, inbound_spi, inbound4, inbound6, ip, to, world};
use crate::reason::{Program, Reason};

const UDP: u8 = 17;
const ESP: u8 = 50;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = link();
    cases.extend(network());
    cases.extend(fragments());
    cases
}

pub(super) fn ingress(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    case(Program::Ingress, name, frame, reason)
}

pub(super) fn esp_to(slot: u8) -> Packet {
    inbound4(ESP, esp(inbound_spi(slot)))
}

fn with_settings(case: Case, change: impl FnOnce(&mut crate::abi::Settings)) -> Case {
    let mut settings = world().settings;
    change(&mut settings);
    Case {
        settings: Some(settings),
        ..case
    }
}

fn link() -> Vec<Case> {
    let esp = esp_to(SECOND);
    let good = esp.frame();
    let change = |at: usize, octets: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + octets.len()].copy_from_slice(octets);
        frame
    };
    let packet = esp.octets();
    let q_in_q = tagged(&[0x88a8, 0x8100], IPV4, &packet);
    let forwarded = Reason::EspForwarded;
    vec![
        with_settings(
            ingress("settings not written", good.clone(), Reason::NotConfigured),
            |settings| settings.member = 0,
        ),
        with_settings(
            ingress("forwarding off", good.clone(), Reason::ForwardingOff),
            |settings| settings.enabled = 0,
        ),
        ingress("broadcast", change(0, &[0xff; 6]), Reason::NotUnicast),
        ingress("group address", change(0, &[1]), Reason::NotUnicast),
        ingress("to another host", change(5, &[2]), Reason::ForeignMac),
        to(
            2,
            ingress(
                "virtual address",
                change(0, &[0, 0, 0x5e, 0, 1, 7]),
                forwarded,
            ),
        ),
        to(
            2,
            with_settings(
                ingress("own addresses unknown", change(5, &[2]), forwarded),
                |settings| settings.macs = [[0; 8]; 8],
            ),
        ),
        ingress(
            "forwarded before",
            change(6, &[0x02, 0x47, 0x57, 0x46, 9, 3]),
            Reason::AlreadyForwarded,
        ),
        ingress(
            "tag without end",
            tagged(&[0x8100], 0x8100, &[]),
            Reason::ShortFrame,
        ),
        ingress(
            "three tags",
            tagged(&[0x88a8, 0x8100, 0x8100], IPV4, &packet),
            Reason::TooManyTags,
        ),
        to(
            2,
            Case {
                tags: 1,
                ..ingress("one tag", tagged(&[0x8100], IPV4, &packet), forwarded)
            },
        ),
        to(
            2,
            Case {
                tags: 2,
                ..ingress("two tags", q_in_q, forwarded)
            },
        ),
        ingress("arp", ethernet(0x0806, &[0; 28]), Reason::NotIp),
        ingress(
            "nothing behind the header",
            ethernet(IPV4, &[]),
            Reason::IpMalformed,
        ),
        to(
            2,
            ingress(
                "padding behind the packet",
                [&good[..], &[0; 9]].concat(),
                forwarded,
            ),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn network() -> Vec<Case> {
    let good = esp_to(SECOND).frame();
    let change = |at: usize, octets: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + octets.len()].copy_from_slice(octets);
        frame
    };
    let options = Packet {
        extra: vec![1; 40],
        ..esp_to(SECOND)
    };
    let chain = |headers: &[(u8, &[u8])]| Packet {
        extra: extensions(headers, ESP),
        ..inbound6(ESP, esp(inbound_spi(SECOND)))
    };
    let pad: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let long: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routed: &[u8] = &[0, 4, 1, 0, 0, 0, 0];
    let atomic: &[u8] = &[0, 0, 0, 0, 0, 0, 5];
    let mobility_end: &[u8] = &[0, 0, 0, 0, 0, 0, 0];
    let six = [
        (0, pad),
        (60, pad),
        (43, mobility_end),
        (60, long),
        (44, atomic),
        (135, pad),
    ];
    let seven = [
        (0, pad),
        (60, pad),
        (60, pad),
        (60, pad),
        (60, pad),
        (60, pad),
        (60, pad),
    ];
    let cut = &good[..good.len() - 1];
    let forwarded = Reason::EspForwarded;
    vec![
        ingress("version 5", change(14, &[0x55]), Reason::IpMalformed),
        ingress(
            "version 6 in an IPv4 frame",
            change(14, &[0x65]),
            Reason::IpMalformed,
        ),
        ingress("header length 16", change(14, &[0x44]), Reason::IpMalformed),
        ingress(
            "total length below the header",
            change(16, &[0, 19]),
            Reason::IpMalformed,
        ),
        ingress("cut off", cut.to_vec(), Reason::IpMalformed),
        ingress(
            "cut off in the header",
            good[..33].to_vec(),
            Reason::IpMalformed,
        ),
        to(2, ingress("all options", options.frame(), forwarded)),
        to(
            2,
            ingress("six extension headers", chain(&six).frame(), forwarded),
        ),
        ingress(
            "seven extension headers",
            chain(&seven).frame(),
            Reason::TooManyHeaders,
        ),
        ingress(
            "routed further",
            chain(&[(43, routed)]).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "extension header beyond the packet",
            chain(&[(60, &[255, 1, 4, 0, 0, 0, 0])]).frame(),
            Reason::IpMalformed,
        ),
        ingress(
            "tcp",
            inbound4(6, vec![0; 20]).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "no next header",
            inbound6(59, vec![]).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "another udp port",
            inbound4(UDP, udp(500, 501, &[0; 32])).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "esp to another address",
            Packet {
                destination: ip("203.0.113.99"),
                ..esp_to(SECOND)
            }
            .frame(),
            Reason::NotToVip,
        ),
        ingress(
            "ike to another address",
            Packet {
                destination: ip("2001:db8:1::99"),
                ..inbound6(
                    UDP,
                    udp(500, 500, &Ike::from_initiator(&[1; 8], &[0; 8]).octets()),
                )
            }
            .frame(),
            Reason::NotToVip,
        ),
    ]
}

/// The member that reassembles is a matter of the hash: found out by trying identifications.
fn fragments() -> Vec<Case> {
    let live = world().settings;
    let member_of = |frame: &[u8]| {
        let tables = world();
        match crate::steer::ingress(&crate::packet::Octets(frame), &tables) {
            crate::steer::Verdict::Forward(forward) => forward.member,
            crate::steer::Verdict::Stay(_) => live.member,
        }
    };
    let v4 = |id: u16, field: u16| {
        Packet {
            fragment: (id, field),
            ..inbound4(UDP, vec![0x5a; 24])
        }
        .frame()
    };
    let v6 = |id: u8, field: u8| {
        let header = [0, 0, field, 0, 0, 0, id];
        let extra = extensions(&[(44, &header)], UDP);
        Packet {
            extra,
            ..inbound6(UDP, vec![0x5a; 24])
        }
        .frame()
    };
    let find = |member: u32| {
        (0..500)
            .find(|id| member_of(&v4(*id, 0x2000)) == member)
            .unwrap_or(0)
    };
    let find6 = |member: u32| {
        (0..250)
            .find(|id| member_of(&v6(*id, 1)) == member)
            .unwrap_or(0)
    };
    let forwarded = Reason::FragmentForwarded;
    let mut elsewhere = Packet {
        fragment: (1, 0x2000),
        ..inbound4(UDP, vec![0x5a; 24])
    };
    elsewhere.destination = ip("203.0.113.99");
    vec![
        to(2, ingress("first fragment", v4(find(2), 0x2000), forwarded)),
        to(
            2,
            ingress("middle fragment", v4(find(2), 0x2003), forwarded),
        ),
        to(2, ingress("last fragment", v4(find(2), 0x0007), forwarded)),
        to(
            3,
            ingress(
                "fragment of another datagram",
                v4(find(3), 0x0007),
                forwarded,
            ),
        ),
        ingress(
            "fragment for this member",
            v4(find(1), 0x0007),
            Reason::FragmentLocal,
        ),
        to(
            2,
            ingress("first fragment, IPv6", v6(find6(2), 1), forwarded),
        ),
        to(
            2,
            ingress("last fragment, IPv6", v6(find6(2), 0xf0), forwarded),
        ),
        ingress(
            "fragment to another address",
            elsewhere.frame(),
            Reason::NotToVip,
        ),
        with_settings(
            ingress(
                "fragment without live members",
                v4(1, 7),
                Reason::FragmentUnreachable,
            ),
            |settings| settings.live_members = 0,
        ),
    ]
}
