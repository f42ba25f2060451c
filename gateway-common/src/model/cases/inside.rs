//! Frames at `gateway_inside`.

use super::super::packet::{IPV4, Packet, ethernet, frame, tagged};
use super::{Case, case, ip, to, world};
use crate::reason::{Program, Reason};

fn inside(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    case(Program::Inside, name, frame, reason)
}

fn clear(destination: &str) -> Packet {
    let source = if destination.contains(':') {
        "fd00:1::5"
    } else {
        "10.1.0.5"
    };
    Packet::new(ip(source), ip(destination), 6, vec![0; 20])
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = addresses();
    cases.extend(frames());
    cases
}

fn addresses() -> Vec<Case> {
    let forwarded = Reason::InsideForwarded;
    let link = Reason::InsideLinkScope;
    let neighbour = Packet::new(ip("fd00:1::5"), ip("fd00:2::1"), 58, vec![135; 24]);
    let echo = Packet::new(ip("fd00:1::5"), ip("fd00:2::1"), 58, vec![128; 24]);
    let mut dhcp = clear("10.2.0.1");
    dhcp.source = ip("0.0.0.0");
    let plain = |destination: &str| clear(destination).frame();
    vec![
        to(
            2,
            inside("to a peer's network", plain("10.2.1.1"), forwarded),
        ),
        to(
            3,
            inside("to a peer's network, IPv6", plain("fd00:2::1"), forwarded),
        ),
        to(3, inside("echo request", echo.frame(), forwarded)),
        inside("neighbour solicitation", neighbour.frame(), link),
        inside(
            "behind this member's SA",
            plain("10.3.1.1"),
            Reason::InsideOwned,
        ),
        inside(
            "owner not alive",
            plain("10.4.1.1"),
            Reason::InsideUnreachable,
        ),
        inside(
            "sync device missing",
            plain("10.5.1.1"),
            Reason::InsideNoSyncDevice,
        ),
        inside(
            "to a prefix that stays local",
            plain("10.2.9.1"),
            Reason::InsideLocalNet,
        ),
        inside("to a VIP", plain("203.0.113.10"), Reason::InsideToVip),
        inside("elsewhere", plain("192.0.2.1"), Reason::InsideUnmatched),
        inside("link-local", plain("169.254.1.1"), link),
        inside("multicast", plain("224.0.0.5"), link),
        inside("limited broadcast", plain("255.255.255.255"), link),
        inside("link-local, IPv6", plain("fe80::1"), link),
        inside("multicast, IPv6", plain("ff02::5"), link),
        inside("unspecified source", dhcp.frame(), link),
    ]
}

fn frames() -> Vec<Case> {
    let packet = clear("10.2.1.1").octets();
    let good = frame(&packet);
    let change = |at: usize, octets: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + octets.len()].copy_from_slice(octets);
        frame
    };
    let mut unconfigured = world().settings;
    unconfigured.member = 0;
    let mut off = world().settings;
    off.enabled = 0;
    let not_ip = Reason::InsideNotIp;
    vec![
        Case {
            settings: Some(unconfigured),
            ..inside(
                "settings not written",
                good.clone(),
                Reason::InsideNotConfigured,
            )
        },
        Case {
            settings: Some(off),
            ..inside("forwarding off", good.clone(), Reason::InsideForwardingOff)
        },
        inside(
            "broadcast frame",
            change(0, &[0xff; 6]),
            Reason::InsideNotOurs,
        ),
        inside("to another host", change(5, &[9]), Reason::InsideNotOurs),
        inside(
            "tag without end",
            tagged(&[], 0x8100, &[]),
            Reason::InsideNotOurs,
        ),
        inside(
            "forwarded before",
            change(6, &[0x02, 0x47, 0x57, 0x46, 9, 3]),
            Reason::InsideAlreadyForwarded,
        ),
        inside("arp", ethernet(0x0806, &[0; 28]), not_ip),
        inside("cut off", good[..50].to_vec(), not_ip),
        inside("empty", ethernet(IPV4, &[]), not_ip),
        to(
            2,
            Case {
                tags: 2,
                ..inside(
                    "two tags",
                    tagged(&[0x88a8, 0x8100], IPV4, &packet),
                    Reason::InsideForwarded,
                )
            },
        ),
    ]
}
