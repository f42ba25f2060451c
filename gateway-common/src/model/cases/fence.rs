//! Frames at the fence.

use super::super::packet::{
    IPV4, Ike, Packet, esp, ethernet, extensions, numbered_esp, tagged, udp,
};
use super::{
    BEFORE_THE_WRAP, BEYOND_THE_WRAP, CEILING, Case, DEAD, MOVED_AWAY, MOVED_HERE, SECOND, SELF,
    UNSET, case, ip, outbound_spi, peer4, peer6, vip4, vip6, world,
};
use crate::abi::{MARK_IKE, MARK_SA, mark};
use crate::reason::{Program, Reason};

const UDP: u8 = 17;
const ESP: u8 = 50;

fn fence(name: &'static str, frame: Vec<u8>, mark: u32, reason: Reason) -> Case {
    Case {
        mark,
        ..case(Program::Egress, name, frame, reason)
    }
}

fn out4(protocol: u8, payload: Vec<u8>) -> Packet {
    Packet::new(vip4(), peer4(), protocol, payload)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = owned();
    cases.extend(numbered());
    cases.extend(unknown());
    cases.extend(others());
    cases
}

/// Kinds of traffic that the fence judges: name, frame, kind of mark.
fn kinds() -> Vec<(&'static str, Vec<u8>, u32)> {
    let native = out4(ESP, esp(outbound_spi(SELF))).frame();
    let encapsulated = out4(UDP, udp(4500, 61000, &esp(outbound_spi(SELF)))).frame();
    let message = Ike::from_initiator(&[1; 8], &[0; 8]);
    let later = |protocol: u8| fragment(0x00b9, out4(protocol, vec![0x77; 32])).frame();
    let header = [0, 5, 0xc8, 0, 0, 0, 9];
    let later6 = Packet {
        extra: extensions(&[(44, &header)], ESP),
        ..out6(vec![0x77; 32])
    }
    .frame();
    // As a large packet that is still to be segmented may leave: no length.
    let mut giant = native.clone();
    giant[16..18].copy_from_slice(&[0, 0]);
    let tags = tagged(
        &[0x8100],
        IPV4,
        &out4(ESP, esp(outbound_spi(SELF))).octets(),
    );
    vec![
        ("esp", native, MARK_SA),
        ("esp in udp", encapsulated, MARK_SA),
        (
            "ike",
            out4(UDP, udp(500, 500, &message.octets())).frame(),
            MARK_IKE,
        ),
        (
            "ike behind a NAT",
            out4(UDP, udp(4500, 61000, &message.marked())).frame(),
            MARK_IKE,
        ),
        (
            "keepalive",
            out4(UDP, udp(4500, 61000, &[0xff])).frame(),
            MARK_IKE,
        ),
        ("esp, IPv6", out6(esp(outbound_spi(SELF))).frame(), MARK_SA),
        ("later fragment of esp", later(ESP), MARK_SA),
        ("later fragment of esp, IPv6", later6, MARK_SA),
        ("later fragment of udp", later(UDP), MARK_SA),
        ("still to be segmented", giant, MARK_SA),
        ("tagged", tags, MARK_SA),
    ]
}

/// Slot, lease and mark decide on every kind.
fn owned() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, frame, kind) in kinds() {
        let about = |what: &str, mark, reason| {
            // Names must be `'static`; there are few.
            let name = Box::leak(format!("{name}, {what}").into_boxed_str());
            fence(name, frame.clone(), mark, reason)
        };
        let ours = mark(kind, SELF);
        cases.push(about("own slot", ours, Reason::FenceOwned));
        let copy = if kind == MARK_SA {
            Reason::FenceStandbyCopy
        } else {
            Reason::FenceNotOwner
        };
        for (what, slot, reason) in [
            ("slot of another member", SECOND, copy),
            ("slot of a dead member", DEAD, Reason::FenceNotOwner),
            ("slot without owner", UNSET, Reason::FenceNotOwner),
        ] {
            cases.push(about(what, mark(kind, slot), reason));
        }
        for (what, lease) in [("no lease", 0), ("lease just over", 1_000_000)] {
            cases.push(Case {
                lease: Some(lease),
                ..about(what, ours, Reason::FenceLeaseOver)
            });
        }
        if name != "later fragment of udp" {
            cases.push(about("no mark of ours", 0x0004_4000, Reason::FenceUnmarked));
        }
    }
    cases
}

fn out6(payload: Vec<u8>) -> Packet {
    Packet::new(vip6(), peer6(), ESP, payload)
}

fn fragment(field: u16, packet: Packet) -> Packet {
    Packet {
        fragment: (5, field),
        ..packet
    }
}

/// ESP of this member's slot, by its sequence numbers.
fn numbered() -> Vec<Case> {
    let (owned, above) = (Reason::FenceOwned, Reason::FenceAboveCeiling);
    let ours = outbound_spi(SELF);
    let native = |spi, sequence| out4(ESP, numbered_esp(spi, sequence)).frame();
    let in_udp = |sequence| out4(UDP, udp(4500, 61000, &numbered_esp(ours, sequence))).frame();
    let v6 = |sequence| out6(numbered_esp(ours, sequence)).frame();
    let first = |sequence| fragment(0x2000, out4(ESP, numbered_esp(ours, sequence))).frame();
    let case = |name, frame, reason| fence(name, frame, mark(MARK_SA, SELF), reason);
    let cut = |name, frame, segments, reason| Case {
        segments,
        ..case(name, frame, reason)
    };
    let ike_mark = Case {
        mark: mark(MARK_IKE, SELF),
        ..case(
            "one above, with the mark of IKE",
            native(ours, CEILING + 1),
            above,
        )
    };
    vec![
        case("at the ceiling", native(ours, CEILING), owned),
        case("one above the ceiling", native(ours, CEILING + 1), above),
        case("in udp, at the ceiling", in_udp(CEILING), owned),
        case("in udp, one above the ceiling", in_udp(CEILING + 1), above),
        case("IPv6, at the ceiling", v6(CEILING), owned),
        case("IPv6, one above the ceiling", v6(CEILING + 1), above),
        case("first fragment, at the ceiling", first(CEILING), owned),
        case("first fragment, one above", first(CEILING + 1), above),
        ike_mark,
        cut("one segment", native(ours, CEILING), 1, owned),
        cut(
            "segments up to the ceiling",
            native(ours, CEILING - 31),
            32,
            owned,
        ),
        cut(
            "the last segment is above",
            native(ours, CEILING - 30),
            32,
            above,
        ),
        cut(
            "in udp, the last segment is above",
            in_udp(CEILING - 30),
            32,
            above,
        ),
        cut(
            "segments across the wrap",
            native(BEYOND_THE_WRAP, u32::MAX - 1),
            8,
            owned,
        ),
        cut(
            "too many across the wrap",
            native(BEYOND_THE_WRAP, u32::MAX - 1),
            9,
            above,
        ),
        case(
            "before the wrap, ceiling beyond",
            native(BEYOND_THE_WRAP, u32::MAX - 9),
            owned,
        ),
        case(
            "beyond the wrap, at the ceiling",
            native(BEYOND_THE_WRAP, 5),
            owned,
        ),
        case("beyond the wrap, above", native(BEYOND_THE_WRAP, 6), above),
        case(
            "beyond the wrap, ceiling before",
            native(BEFORE_THE_WRAP, 0),
            above,
        ),
    ]
}

/// ESP of this member's slot that no ceiling covers.
fn unknown() -> Vec<Case> {
    let (no_sa, malformed) = (Reason::FenceUnknownSa, Reason::FenceMalformed);
    let case = |name, frame, reason| fence(name, frame, mark(MARK_SA, SELF), reason);
    let ours = outbound_spi(SELF);
    let elsewhere = Packet {
        destination: ip("198.51.100.8"),
        ..out4(ESP, esp(ours))
    };
    let in_udp = |payload: &[u8]| out4(UDP, udp(4500, 61000, payload)).frame();
    let half = fragment(0x2000, out4(UDP, udp(4500, 61000, &[0; 40])[..8].to_vec()));
    let portless = fragment(0x2000, out4(UDP, vec![0x11]));
    vec![
        case("unknown SPI", out4(ESP, esp(9)).frame(), no_sa),
        case("unknown SPI in udp", in_udp(&esp(9)), no_sa),
        case("known SPI to another peer", elsewhere.frame(), no_sa),
        case(
            "moved to another slot of ours",
            out4(ESP, esp(MOVED_HERE)).frame(),
            Reason::FenceOwned,
        ),
        case(
            "moved to another member's slot",
            out4(ESP, esp(MOVED_AWAY)).frame(),
            Reason::FenceStandbyCopy,
        ),
        case(
            "seven octets of esp",
            out4(ESP, esp(ours)[..7].to_vec()).frame(),
            malformed,
        ),
        case(
            "seven octets of esp in udp",
            in_udp(&esp(ours)[..7]),
            malformed,
        ),
        case("no octet behind port 4500", half.frame(), malformed),
        case("no ports", portless.frame(), malformed),
        case(
            "three octets on port 4500",
            in_udp(&[1; 3]),
            Reason::FenceOwned,
        ),
    ]
}

fn others() -> Vec<Case> {
    let other = Reason::FenceOther;
    let not_ours = mark(MARK_SA, SECOND);
    let mut unconfigured = world().settings;
    unconfigured.member = 0;
    let native = out4(ESP, esp(1));
    let foreign = Packet {
        source: ip("203.0.113.99"),
        ..native.clone()
    };
    let unmarked_later = Packet {
        fragment: (5, 0x00b9),
        ..out4(UDP, vec![0x77; 32])
    };
    vec![
        Case {
            settings: Some(unconfigured),
            ..fence(
                "settings not written",
                native.frame(),
                0,
                Reason::FenceNotConfigured,
            )
        },
        fence("esp from another address", foreign.frame(), not_ours, other),
        fence(
            "tcp from a VIP",
            out4(6, vec![0; 20]).frame(),
            not_ours,
            other,
        ),
        fence(
            "another port",
            out4(UDP, udp(53, 500, &[0; 8])).frame(),
            not_ours,
            other,
        ),
        fence(
            "later fragment of somebody's udp",
            unmarked_later.frame(),
            0,
            other,
        ),
        Case {
            lease: Some(0),
            ..fence(
                "esp from another address, no lease",
                foreign.frame(),
                mark(MARK_SA, SELF),
                other,
            )
        },
        fence("arp", ethernet(0x0806, &[0; 28]), not_ours, other),
        fence("no packet", ethernet(IPV4, &[0; 40]), not_ours, other),
        fence(
            "forwarded by a member",
            Packet::new(peer4(), vip4(), ESP, esp(1)).frame(),
            0,
            other,
        ),
    ]
}
