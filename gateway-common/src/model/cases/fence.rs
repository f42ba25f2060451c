//! Frames at the fence.

use super::super::packet::{IPV4, Ike, Packet, esp, ethernet, extensions, tagged, udp};
use super::{
    Case, DEAD, SECOND, SELF, UNSET, case, ip, outbound_spi, peer4, peer6, vip4, vip6, world,
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
    cases.extend(others());
    cases
}

fn owned() -> Vec<Case> {
    let native = out4(ESP, esp(outbound_spi(SELF))).frame();
    let encapsulated = out4(UDP, udp(4500, 61000, &esp(outbound_spi(SELF)))).frame();
    let ike = out4(
        UDP,
        udp(500, 500, &Ike::from_initiator(&[1; 8], &[0; 8]).octets()),
    )
    .frame();
    let keepalive = out4(UDP, udp(4500, 61000, &[0xff])).frame();
    let native6 = Packet::new(vip6(), peer6(), ESP, esp(outbound_spi(SELF))).frame();
    let later = |protocol: u8| {
        Packet {
            fragment: (5, 0x00b9),
            ..out4(protocol, vec![0x77; 32])
        }
        .frame()
    };
    let header = [0, 5, 0xc8, 0, 0, 0, 9];
    let later6 = Packet {
        extra: extensions(&[(44, &header)], ESP),
        ..Packet::new(vip6(), peer6(), ESP, vec![0x77; 32])
    }
    .frame();
    // As a large packet that is still to be segmented may leave: no length.
    let mut giant = native.clone();
    giant[16..18].copy_from_slice(&[0, 0]);
    let tags = tagged(&[0x8100], IPV4, &out4(ESP, esp(9)).octets());
    let kinds = [
        ("esp", native, MARK_SA),
        ("esp in udp", encapsulated, MARK_SA),
        ("ike", ike, MARK_IKE),
        ("keepalive", keepalive, MARK_IKE),
        ("esp, IPv6", native6, MARK_SA),
        ("later fragment of esp", later(ESP), MARK_SA),
        ("later fragment of esp, IPv6", later6, MARK_SA),
        ("later fragment of udp", later(UDP), MARK_SA),
        ("still to be segmented", giant, MARK_SA),
        ("tagged", tags, MARK_SA),
    ];
    let mut cases = Vec::new();
    for (name, frame, kind) in kinds {
        cases.push(fence(
            name,
            frame.clone(),
            mark(kind, SELF),
            Reason::FenceOwned,
        ));
        for slot in [SECOND, DEAD, UNSET] {
            let case = fence(name, frame.clone(), mark(kind, slot), Reason::FenceNotOwner);
            cases.push(Case {
                name: name_of(name, slot),
                ..case
            });
        }
        if name != "later fragment of udp" {
            let foreign = 0x0004_4000;
            let case = fence(name, frame, foreign, Reason::FenceUnmarked);
            cases.push(Case {
                name: name_of(name, 255),
                ..case
            });
        }
    }
    cases
}

/// Names must be `'static`; there are few.
fn name_of(name: &'static str, slot: u8) -> &'static str {
    let what = match slot {
        SECOND => "slot of another member",
        DEAD => "slot of a dead member",
        UNSET => "slot without owner",
        _ => "no mark of ours",
    };
    Box::leak(format!("{name}, {what}").into_boxed_str())
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
