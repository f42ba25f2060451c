//! Frames at `gateway_ingress`.

use super::super::packet::{IPV4, Ike, Packet, esp, ethernet, extensions, icmp_error, tagged, udp};
use super::{
    Case, DEAD, DEVICELESS, SECOND, SELF, THIRD, UNSET, case, cookie_for, established, inbound_spi,
    inbound4, inbound6, ip, outbound_spi, peer4, peer6, to, vip4, vip6, world,
};
use crate::packet::IkeHeader;
use crate::reason::{Program, Reason};

const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = link();
    cases.extend(network());
    cases.extend(fragments());
    cases.extend(ike());
    cases.extend(negotiations());
    cases.extend(ike_v1());
    cases.extend(esp_cases());
    cases.extend(icmp());
    cases.extend(icmp_ike());
    cases
}

fn ingress(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    case(Program::Ingress, name, frame, reason)
}

fn esp_to(slot: u8) -> Packet {
    inbound4(ESP, esp(inbound_spi(slot)))
}

fn ike500(message: &Ike) -> Vec<u8> {
    inbound4(UDP, udp(500, 500, &message.octets())).frame()
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

fn ike() -> Vec<Case> {
    let established = |slot| Ike::from_initiator(b"peer-spi", &established(slot));
    let good = ike500(&established(SECOND));
    let change = |at: usize, octets: &[u8]| {
        let mut frame = good.clone();
        frame[42 + at..42 + at + octets.len()].copy_from_slice(octets);
        frame
    };
    let udp_length = |length: u16| {
        let mut frame = good.clone();
        frame[38..40].copy_from_slice(&length.to_be_bytes());
        frame
    };
    let ours_initiated = Ike::from_responder(&super::established(THIRD), b"peer-spi");
    let nat = |payload: &[u8]| inbound4(UDP, udp(61000, 4500, payload)).frame();
    let ipv6 = inbound6(UDP, udp(500, 500, &established(THIRD).octets())).frame();
    let forwarded = Reason::IkeSaForwarded;
    vec![
        to(2, ingress("ike of another member", good.clone(), forwarded)),
        to(
            3,
            ingress("we initiated", ike500(&ours_initiated), forwarded),
        ),
        to(3, ingress("ike over IPv6", ipv6, forwarded)),
        to(
            2,
            ingress("ike on 4500", nat(&established(SECOND).marked()), forwarded),
        ),
        ingress(
            "ike of this member",
            ike500(&established(SELF)),
            Reason::IkeSaLocal,
        ),
        ingress(
            "owner not alive",
            ike500(&established(DEAD)),
            Reason::IkeUnreachable,
        ),
        ingress(
            "slot without owner",
            ike500(&established(UNSET)),
            Reason::IkeUnreachable,
        ),
        ingress(
            "sync device missing",
            ike500(&established(DEVICELESS)),
            Reason::NoSyncDevice,
        ),
        ingress(
            "initiator cookie zero",
            change(0, &[0; 8]),
            Reason::IkeMalformed,
        ),
        ingress("version 3", change(17, &[0x30]), Reason::IkeVersion),
        ingress(
            "length below the header",
            change(24, &[0, 0, 0, 27]),
            Reason::IkeMalformed,
        ),
        ingress(
            "length beyond the datagram",
            change(24, &[0, 0, 0, 45]),
            Reason::IkeMalformed,
        ),
        ingress(
            "absurd length",
            change(24, &[0xff; 4]),
            Reason::IkeMalformed,
        ),
        ingress(
            "cut off in the ike header",
            inbound4(UDP, udp(500, 500, &[1; 27])).frame(),
            Reason::IkeMalformed,
        ),
        ingress("udp length 7", udp_length(7), Reason::UdpMalformed),
        ingress(
            "udp length beyond the packet",
            udp_length(53),
            Reason::UdpMalformed,
        ),
        ingress(
            "udp header cut off",
            inbound4(UDP, vec![1, 244, 1]).frame(),
            Reason::UdpMalformed,
        ),
        ingress("keepalive", nat(&[0xff]), Reason::NatKeepalive),
        ingress(
            "one octet, no keepalive",
            nat(&[0xfe]),
            Reason::UdpMalformed,
        ),
        ingress("three octets on 4500", nat(&[0; 3]), Reason::UdpMalformed),
        ingress("marker only", nat(&[0; 4]), Reason::IkeMalformed),
    ]
}

fn negotiations() -> Vec<Case> {
    let auth = |cookie: &[u8; 8]| Ike::from_initiator(&cookie_for(3, peer4()), cookie);
    let exact = |cookie: &[u8; 8]| {
        ike500(&Ike {
            message_id: 7,
            ..auth(cookie)
        })
    };
    let init = |cookie: &[u8; 8]| Ike {
        message_id: 0,
        ..Ike::from_initiator(cookie, &[0; 8])
    };
    let forwarded = Reason::NegotiationForwarded;
    let new = Reason::NewIkeForwarded;
    let peer_cookie_v6 = inbound6(UDP, udp(500, 500, &init(b"neg-peer").octets())).frame();
    let by_decision = inbound6(UDP, udp(500, 500, &init(&cookie_for(2, peer6())).octets())).frame();
    let decision =
        crate::slot::Slot::for_negotiation(&crate::abi::Address::from(peer6()).0, b"neg-peer");
    let other = world().slot_owner[&decision.0];
    let other_reason = if other == 1 { Reason::NewIkeLocal } else { new };
    vec![
        to(
            2,
            ingress(
                "negotiation, any message",
                ike500(&auth(b"neg-two:")),
                forwarded,
            ),
        ),
        to(
            3,
            ingress("negotiation, exact message", exact(b"neg-both"), forwarded),
        ),
        to(
            2,
            ingress(
                "negotiation, other message",
                ike500(&auth(b"neg-both")),
                forwarded,
            ),
        ),
        ingress(
            "own negotiation",
            ike500(&auth(b"neg-self")),
            Reason::NegotiationLocal,
        ),
        to(
            3,
            ingress("exact entry expired", exact(b"neg-stay"), forwarded),
        ),
        to(3, ingress("entry expired", ike500(&auth(b"neg-late")), new)),
        to(
            3,
            ingress("entry's member dead", ike500(&auth(b"neg-dead")), new),
        ),
        to(
            3,
            ingress("entry's member unset", ike500(&auth(b"neg-none")), new),
        ),
        to(
            2,
            ingress("first message again", ike500(&init(b"neg-peer")), forwarded),
        ),
        to(
            if other == 1 { 0 } else { other },
            ingress(
                "same cookie from another peer",
                peer_cookie_v6,
                other_reason,
            ),
        ),
        to(
            2,
            ingress("first message", ike500(&init(&cookie_for(2, peer4()))), new),
        ),
        to(2, ingress("first message, IPv6", by_decision, new)),
        ingress(
            "first message for this member",
            ike500(&init(&cookie_for(1, peer4()))),
            Reason::NewIkeLocal,
        ),
        to(
            3,
            ingress("unknown cookie", ike500(&auth(b"unheard!")), new),
        ),
    ]
}

fn ike_v1() -> Vec<Case> {
    let v1 = |initiator: &[u8; 8], responder: &[u8; 8]| {
        ike500(&Ike {
            version: 0x10,
            flags: 0,
            ..Ike::from_initiator(initiator, responder)
        })
    };
    let forwarded = Reason::IkeV1Forwarded;
    vec![
        to(
            2,
            ingress(
                "v1, responder cookie",
                v1(b"v1-init:", b"v1-ours:"),
                forwarded,
            ),
        ),
        to(
            3,
            ingress(
                "v1, initiator cookie",
                v1(b"v1-init:", b"unheard!"),
                forwarded,
            ),
        ),
        to(
            2,
            ingress("v1, peer's cookie", v1(b"neg-peer", &[0; 8]), forwarded),
        ),
        to(
            3,
            ingress("v1, new", v1(&cookie_for(3, peer4()), &[0; 8]), forwarded),
        ),
        ingress(
            "v1, local",
            v1(&cookie_for(1, peer4()), &[0; 8]),
            Reason::IkeV1Local,
        ),
        to(
            2,
            ingress(
                "v1, established",
                v1(b"peer-spi", &established(SECOND)),
                forwarded,
            ),
        ),
    ]
}

fn esp_cases() -> Vec<Case> {
    let nat = |payload: &[u8]| inbound4(UDP, udp(61000, 4500, payload)).frame();
    let forwarded = Reason::EspForwarded;
    vec![
        to(2, ingress("esp", esp_to(SECOND).frame(), forwarded)),
        to(
            3,
            ingress(
                "esp over IPv6",
                inbound6(ESP, esp(inbound_spi(THIRD))).frame(),
                forwarded,
            ),
        ),
        to(
            2,
            ingress("esp in udp", nat(&esp(inbound_spi(SECOND))), forwarded),
        ),
        ingress("esp of this member", esp_to(SELF).frame(), Reason::EspLocal),
        ingress(
            "esp, owner not alive",
            esp_to(DEAD).frame(),
            Reason::EspUnreachable,
        ),
        ingress(
            "esp, slot without owner",
            esp_to(UNSET).frame(),
            Reason::EspUnreachable,
        ),
        ingress(
            "esp, sync device missing",
            esp_to(DEVICELESS).frame(),
            Reason::NoSyncDevice,
        ),
        ingress("unknown spi", esp_to(77).frame(), Reason::EspUnknown),
        ingress(
            "unknown spi in udp",
            nat(&esp(0x0101_0101)),
            Reason::EspUnknown,
        ),
        ingress(
            "esp without sequence",
            inbound4(ESP, vec![0xc0; 7]).frame(),
            Reason::EspMalformed,
        ),
        ingress(
            "esp in udp, seven octets",
            nat(&[0xc0; 7]),
            Reason::EspMalformed,
        ),
    ]
}

fn sent4(protocol: u8, payload: Vec<u8>) -> Packet {
    Packet::new(vip4(), peer4(), protocol, payload)
}

/// An ICMP error from a router on the way.
fn error4(kind: u8, quoted: &Packet, limit: usize) -> Vec<u8> {
    let message = icmp_error(kind, quoted, limit);
    Packet::new(ip("192.0.2.1"), vip4(), ICMP, message).frame()
}

fn icmp() -> Vec<Case> {
    let sent = |slot| sent4(ESP, esp(outbound_spi(slot)));
    let encapsulated = sent4(UDP, udp(4500, 61000, &esp(outbound_spi(SECOND))));
    let sent6 = Packet::new(vip6(), peer6(), ESP, esp(outbound_spi(THIRD)));
    let too_big = icmp_error(2, &sent6, 1200);
    let error6 = Packet::new(ip("2001:db8::1"), vip6(), ICMPV6, too_big);
    let echo = Packet::new(peer6(), vip6(), ICMPV6, vec![128, 0, 0, 0, 0, 0, 0, 1]);
    let mut foreign = sent(SECOND);
    foreign.source = ip("203.0.113.99");
    let mut to_other = Packet::new(ip("192.0.2.1"), vip4(), ICMP, vec![]);
    to_other.destination = foreign.source;
    to_other.payload = icmp_error(3, &foreign, 576);
    let later = Packet {
        fragment: (1, 0x00b9),
        ..sent(SECOND)
    };
    let first = Packet {
        fragment: (1, 0x2000),
        ..sent(SECOND)
    };
    let options = Packet {
        extra: vec![1; 8],
        ..sent(SECOND)
    };
    let forwarded = Reason::IcmpForwarded;
    let unrelated = Reason::IcmpUnrelated;
    vec![
        to(
            2,
            ingress(
                "fragmentation needed",
                error4(3, &sent(SECOND), 28),
                forwarded,
            ),
        ),
        to(
            2,
            ingress("time exceeded", error4(11, &sent(SECOND), 576), forwarded),
        ),
        to(
            2,
            ingress("quoted options", error4(3, &options, 36), forwarded),
        ),
        to(
            2,
            ingress("quoted first fragment", error4(3, &first, 28), forwarded),
        ),
        ingress("quoted later fragment", error4(3, &later, 28), unrelated),
        to(
            3,
            ingress("packet too big, IPv6", error6.frame(), forwarded),
        ),
        to(
            2,
            ingress("quoted esp in udp", error4(3, &encapsulated, 32), forwarded),
        ),
        ingress(
            "quoted udp header only",
            error4(3, &encapsulated, 28),
            unrelated,
        ),
        ingress(
            "about this member's",
            error4(3, &sent(SELF), 28),
            Reason::IcmpLocal,
        ),
        ingress(
            "about a dead member's",
            error4(3, &sent(DEAD), 28),
            Reason::IcmpUnreachable,
        ),
        ingress("unknown quoted spi", error4(3, &sent(77), 28), unrelated),
        ingress(
            "quoted source not the destination",
            error4(3, &foreign, 28),
            unrelated,
        ),
        ingress("quote cut off", error4(3, &sent(SECOND), 23), unrelated),
        ingress("quote missing", error4(3, &sent(SECOND), 0), unrelated),
        ingress(
            "echo request",
            error4(8, &sent(SECOND), 28),
            Reason::OtherTraffic,
        ),
        ingress(
            "redirect",
            error4(5, &sent(SECOND), 28),
            Reason::OtherTraffic,
        ),
        ingress("echo request, IPv6", echo.frame(), Reason::OtherTraffic),
        ingress(
            "icmpv6 in IPv4",
            inbound4(ICMPV6, vec![2; 64]).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "icmp in IPv6",
            inbound6(ICMP, vec![3; 64]).frame(),
            Reason::OtherTraffic,
        ),
        ingress(
            "error to another address",
            to_other.frame(),
            Reason::NotToVip,
        ),
        ingress(
            "quoted tcp",
            error4(3, &sent4(6, vec![1; 20]), 40),
            unrelated,
        ),
    ]
}

fn icmp_ike() -> Vec<Case> {
    let quoted = |message: &Ike, port: u16| {
        let payload = if port == 500 {
            message.octets()
        } else {
            message.marked()
        };
        sent4(UDP, udp(port, port, &payload))
    };
    // What we sent as the original responder carries our cookie second, without the flag.
    let response = Ike::from_responder(b"peer-spi", &established(SECOND));
    let request = Ike::from_initiator(&established(THIRD), b"peer-spi");
    let other_port = sent4(UDP, udp(501, 500, &response.octets()));
    let absurd = IkeHeader::LENGTH + 28 - 1;
    let mut version = quoted(&response, 500);
    version.payload[8 + 17] = 0x50;
    let mut to_other = quoted(&response, 500);
    to_other.source = vip4();
    to_other.destination = ip("192.0.2.55");
    let forwarded = Reason::IcmpForwarded;
    vec![
        to(
            2,
            ingress(
                "quoted ike, we responded",
                error4(3, &quoted(&response, 500), 576),
                forwarded,
            ),
        ),
        to(
            3,
            ingress(
                "quoted ike, we initiated",
                error4(3, &quoted(&request, 500), 576),
                forwarded,
            ),
        ),
        to(
            2,
            ingress(
                "quoted ike on 4500",
                error4(3, &quoted(&response, 4500), 576),
                forwarded,
            ),
        ),
        to(
            2,
            ingress(
                "quoted ike to any peer",
                error4(3, &to_other, 576),
                forwarded,
            ),
        ),
        ingress(
            "quoted ike header cut off",
            error4(3, &quoted(&response, 500), absurd),
            Reason::IcmpUnrelated,
        ),
        ingress(
            "quoted ike version 5",
            error4(3, &version, 576),
            Reason::IcmpUnrelated,
        ),
        ingress(
            "quoted udp of another port",
            error4(3, &other_port, 576),
            Reason::IcmpUnrelated,
        ),
    ]
}
