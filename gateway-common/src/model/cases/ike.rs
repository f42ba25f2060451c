//! IKE and ESP at `gateway_ingress`.

use super::super::packet::{Ike, esp, udp};
use super::ingress::{esp_to, ingress};
use super::{
    Case, DEAD, DEVICELESS, SECOND, SELF, THIRD, UNSET, cookie_for, established, inbound_spi,
    inbound4, inbound6, peer4, peer6, to, world,
};
use crate::reason::Reason;

const UDP: u8 = 17;
const ESP: u8 = 50;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = ike();
    cases.extend(negotiations());
    cases.extend(ike_v1());
    cases.extend(esp_cases());
    cases
}

fn ike500(message: &Ike) -> Vec<u8> {
    inbound4(UDP, udp(500, 500, &message.octets())).frame()
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
        crate::slot::Slot::for_negotiation(&crate::abi::Address::from(peer6()).octets, b"neg-peer");
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
