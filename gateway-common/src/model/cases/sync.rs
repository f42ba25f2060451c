//! Frames at `gateway_sync`.

use super::super::packet::{IPV4, Packet, esp, ethernet, tagged};
use super::{CLUSTER, Case, SECOND, case, inbound_spi, inbound4, inbound6, ip, to, world};
use crate::reason::{Program, Reason};

fn sync(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    case(Program::Sync, name, frame, reason)
}

fn marked(cluster: u8, member: u8, mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&[0x02, 0x47, 0x57, 0x46, cluster, member]);
    frame
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    let vip = inbound4(50, esp(inbound_spi(SECOND))).frame();
    let vip6 = inbound6(50, esp(inbound_spi(SECOND))).frame();
    let clear =
        |destination: &str| Packet::new(ip("10.1.0.5"), ip(destination), 6, vec![0; 20]).frame();
    let from_two = |frame: Vec<u8>| marked(CLUSTER, 2, frame);
    let mut unconfigured = world().settings;
    unconfigured.member = 0;
    let mut off = world().settings;
    off.enabled = 0;
    let mut group = from_two(vip.clone());
    group[0] = 1;
    let mut fragment = inbound4(17, vec![0; 24]);
    fragment.fragment = (1, 7);
    let accepted = Reason::SyncAccepted;
    let wrong = Reason::SyncWrongDestination;
    let malformed = Reason::SyncMalformed;
    let unknown = Reason::SyncUnknownMember;
    vec![
        Case {
            settings: Some(unconfigured),
            ..sync(
                "settings not written",
                from_two(vip.clone()),
                Reason::SyncNotConfigured,
            )
        },
        sync("not marked", vip.clone(), Reason::SyncUnmarked),
        sync(
            "not marked, arp",
            ethernet(0x0806, &[0; 28]),
            Reason::SyncUnmarked,
        ),
        sync(
            "not marked, tag without end",
            tagged(&[], 0x8100, &[]),
            Reason::SyncUnmarked,
        ),
        to(2, sync("to a VIP", from_two(vip.clone()), accepted)),
        to(
            3,
            sync("to a VIP, IPv6", marked(CLUSTER, 3, vip6), accepted),
        ),
        to(
            2,
            sync("fragment to a VIP", from_two(fragment.frame()), accepted),
        ),
        to(
            2,
            sync(
                "cleartext to a peer's network",
                from_two(clear("10.2.1.1")),
                accepted,
            ),
        ),
        to(
            4,
            sync(
                "from a member that is not alive",
                marked(CLUSTER, 4, vip.clone()),
                accepted,
            ),
        ),
        to(
            2,
            Case {
                settings: Some(off),
                ..sync("forwarding off here", from_two(vip.clone()), accepted)
            },
        ),
        sync(
            "another cluster",
            marked(CLUSTER + 1, 2, vip.clone()),
            Reason::SyncForeignCluster,
        ),
        sync("own mark", marked(CLUSTER, 1, vip.clone()), unknown),
        sync("member 0", marked(CLUSTER, 0, vip.clone()), unknown),
        sync(
            "member not configured",
            marked(CLUSTER, 6, vip.clone()),
            unknown,
        ),
        sync(
            "member out of range",
            marked(CLUSTER, 200, vip.clone()),
            unknown,
        ),
        sync("to somewhere else", from_two(clear("192.0.2.1")), wrong),
        sync(
            "to a prefix that stays local",
            from_two(clear("10.2.9.1")),
            wrong,
        ),
        sync("marked group frame", group, malformed),
        sync(
            "marked arp",
            from_two(ethernet(0x0806, &[0; 28])),
            malformed,
        ),
        sync(
            "marked, tag without end",
            from_two(tagged(&[], 0x8100, &[])),
            malformed,
        ),
        sync("marked, cut off", from_two(vip[..40].to_vec()), malformed),
        sync(
            "marked, no packet",
            from_two(ethernet(IPV4, &[0; 20])),
            malformed,
        ),
    ]
}
