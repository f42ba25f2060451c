//! ICMP errors at `gateway_ingress`.

use super::super::packet::{Ike, Packet, esp, icmp_error, udp};
use super::ingress::ingress;
use super::{
    Case, DEAD, SECOND, SELF, THIRD, established, inbound4, inbound6, ip, outbound_spi, peer4,
    peer6, to, vip4, vip6,
};
use crate::packet::IkeHeader;
use crate::reason::Reason;

const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = icmp();
    cases.extend(icmp_ike());
    cases
}

fn sent4(protocol: u8, payload: Vec<u8>) -> Packet {
    Packet::new(vip4(), peer4(), protocol, payload)
}

/// An ICMP error from a router on the way.
fn error4(kind: u8, quoted: &Packet, limit: usize) -> Vec<u8> {
    let message = icmp_error(kind, quoted, limit);
    Packet::new(ip("192.0.2.1"), vip4(), ICMP, message).frame()
}

#[expect(clippy::too_many_lines, reason = "a table")]
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
