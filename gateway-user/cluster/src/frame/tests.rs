use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::tlv::Writer;
use super::*;
use crate::change::{Child, Marker, Negotiation, Reached, Reserved, Sa};
use crate::network::Network;
use crate::view::Tenure;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|v4| Ipv4Addr::from(v4).into()),
        any::<[u8; 16]>().prop_map(|v6| Ipv6Addr::from(v6).into()),
    ]
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (address(), any::<u16>()).prop_map(SocketAddr::from)
}

fn network() -> impl Strategy<Value = Network> {
    (any::<u32>(), address(), 0u8..=128).prop_filter_map("prefix", |(zone, address, len)| {
        Network::new(zone, address, len)
    })
}

fn child() -> impl Strategy<Value = Child> {
    let nets = prop::collection::vec(network(), 0..4);
    (
        any::<[u8; 4]>(),
        address(),
        any::<[u8; 4]>(),
        address(),
        nets,
        reserved(),
    )
        .prop_map(
            |(spi_in, vip, spi_out, peer, remote_nets, reserved)| Child {
                spi_in,
                vip,
                spi_out,
                peer,
                remote_nets,
                reserved,
            },
        )
}

fn reserved() -> impl Strategy<Value = Reserved> {
    (any::<u8>(), any::<u64>(), any::<u64>(), any::<u16>()).prop_map(
        |(slot, tenure, ceiling, blocks)| Reserved {
            slot: Slot(slot),
            tenure: Tenure(tenure),
            ceiling,
            block: u32::from(blocks) * Reserved::UNIT,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (cookie(), cookie(), address(), any::<u32>()).prop_map(|(ours, theirs, peer, ms)| {
            Change::NegotiationOpened {
                negotiation: Negotiation {
                    local_cookie: ours,
                    peer_cookie: theirs,
                    peer,
                },
                lifetime: Duration::from_millis(u64::from(ms)),
            }
        }),
        cookie().prop_map(|local_cookie| Change::NegotiationClosed { local_cookie }),
        sa().prop_map(Change::SaUpsert),
        marker().prop_map(Change::View),
        prop::collection::vec(checkpoint(), 1..4).prop_map(Change::Checkpoints),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|octets| Change::CookieSecret(Secret::new(octets))),
        (37u16..=39, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, octets)| {
            let body = Secret::new(octets);
            Change::Unknown { kind, body }
        }),
        cookie().prop_map(|local_spi| Change::SaRemoved { local_spi }),
    ]
}

fn cookie() -> impl Strategy<Value = Cookie> {
    any::<[u8; 8]>()
}

fn sa() -> impl Strategy<Value = Sa> {
    let record = prop::collection::vec(any::<u8>(), 0..200);
    let unknown = prop::option::of((500u16.., prop::collection::vec(any::<u8>(), 0..30)));
    let children = prop::collection::vec(child(), 0..4);
    let identities = any::<Option<[u8; 16]>>();
    (
        cookie(),
        children,
        record,
        identities,
        any::<u32>(),
        unknown,
    )
        .prop_map(
            |(local_spi, children, record, identities, moves, unknown)| {
                let mut writer = Writer::with_capacity(0);
                if let Some((kind, value)) = unknown {
                    writer.tlv(kind, &value);
                }
                Sa {
                    local_spi,
                    children,
                    identities,
                    moves,
                    record: Secret::new(record),
                    unknown: Secret::new(writer.finish()),
                }
            },
        )
}

fn member() -> impl Strategy<Value = MemberId> {
    (1u8..=63).prop_map(|id| MemberId::new(id).unwrap())
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u64>()).prop_map(|(incarnation, seq)| Position {
        incarnation: Incarnation(incarnation),
        seq: DeltaSeq(seq),
    })
}

fn reached() -> impl Strategy<Value = Reached> {
    (member(), position(), any::<u64>()).prop_map(|(member, position, ended)| Reached {
        member,
        position,
        ended: Epoch(ended),
    })
}

fn marker() -> impl Strategy<Value = Marker> {
    let reached = prop::collection::vec(reached(), 0..5);
    (any::<u64>(), any::<u64>(), reached).prop_map(|(epoch, whole, reached)| Marker {
        epoch: Epoch(epoch),
        whole: Epoch(whole),
        reached,
    })
}

fn checkpoint() -> impl Strategy<Value = crate::change::Checkpoint> {
    (cookie(), any::<[u8; 4]>(), reserved(), any::<u64>()).prop_map(
        |(local_spi, spi_in, reserved, sequence_in)| crate::change::Checkpoint {
            local_spi,
            spi_in,
            reserved,
            sequence_in,
        },
    )
}

fn snapshot_frame() -> impl Strategy<Value = Frame> {
    let slots = any::<[u8; 32]>().prop_map(|octets| SlotSet::from_octets(&octets));
    let epoch = || any::<u64>().prop_map(Epoch);
    let taken = (any::<u64>(), any::<u64>(), any::<bool>());
    prop_oneof![
        (any::<u64>(), any::<u64>(), epoch(), slots).prop_map(|(snapshot, seq, epoch, slots)| {
            Frame::SnapshotBegin {
                snapshot,
                seq: DeltaSeq(seq),
                scope: Scope { epoch, slots },
            }
        }),
        (epoch(), any::<u64>(), any::<u8>(), change()).prop_map(|(epoch, seq, slot, change)| {
            let seq = DeltaSeq(seq);
            Frame::Entry {
                written: Stamp { epoch, seq },
                slot: Slot(slot),
                change,
            }
        }),
        (any::<u64>(), epoch(), epoch(), prop::option::of(taken)).prop_map(
            |(seq, epoch, levelled, taken)| Frame::Ack {
                seq: DeltaSeq(seq),
                epoch,
                levelled,
                taken: taken.map(|(snapshot, entries, complete)| Taken {
                    snapshot,
                    entries,
                    complete,
                }),
            }
        ),
        (
            member(),
            any::<u64>(),
            prop::collection::vec(any::<u8>(), 0..90)
        )
            .prop_map(|(member, run, delta)| Frame::Tail {
                member,
                incarnation: Incarnation(run),
                delta: Secret::new(delta),
            }),
        (any::<u8>(), sa()).prop_map(|(slot, sa)| Frame::Move {
            slot: Slot(slot),
            sa: Box::new(sa),
        }),
        (cookie(), any::<bool>()).prop_map(|(local_spi, taken)| Frame::Moved { local_spi, taken }),
    ]
}

fn hello() -> impl Strategy<Value = Frame> {
    let position = prop::option::of((any::<u64>(), any::<u64>()));
    (
        any::<u16>(),
        1u8..=63,
        any::<u64>(),
        any::<u8>(),
        "[a-z0-9äöü.-]{0,40}",
        any::<[u8; 32]>(),
        position,
    )
        .prop_map(
            |(protocol, member, incarnation, cluster_id, cluster_name, config_hash, p)| {
                Frame::Hello(Hello {
                    protocol,
                    member: MemberId::new(member).unwrap(),
                    incarnation: Incarnation(incarnation),
                    cluster_id,
                    cluster_name,
                    config_hash,
                    received: p.map(|(incarnation, seq)| Position {
                        incarnation: Incarnation(incarnation),
                        seq: DeltaSeq(seq),
                    }),
                })
            },
        )
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hello(),
        (any::<u64>(), any::<u8>(), change()).prop_map(|(seq, slot, change)| Frame::Delta {
            seq: DeltaSeq(seq),
            slot: Slot(slot),
            change,
        }),
        snapshot_frame(),
        any::<u64>().prop_map(|entries| Frame::SnapshotEnd { entries }),
        (
            socket(),
            socket(),
            prop::collection::vec(any::<u8>(), 0..300)
        )
            .prop_map(|(local, remote, datagram)| Frame::Relay {
                path: Path { local, remote },
                datagram,
            }),
        any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        (100u8..).prop_map(Frame::Unknown),
    ]
}

proptest! {
    #[test]
    fn round_trip(frame in frame()) {
        let encoded = frame.encode();
        prop_assert_eq!(Frame::decode(encoded.expose()), Ok(frame));
    }

    #[test]
    fn secrets_are_not_copied_by_growing_buffers(change in change()) {
        let bound = 64 + change::capacity(&change);
        let encoded = encode_delta(DeltaSeq(1), Slot(1), &change);
        prop_assert!(encoded.len() <= bound, "{} > {bound}", encoded.len());
    }

    #[test]
    fn every_prefix_is_refused_or_another_frame(frame in frame(), cut in any::<prop::sample::Index>()) {
        let encoded = frame.encode();
        let shorter = &encoded.expose()[..cut.index(encoded.len())];
        prop_assert_ne!(Frame::decode(shorter), Ok(frame));
    }

    #[test]
    fn unknown_tlvs_are_skipped(frame in frame(), kind in 1000u16.., value: Vec<u8>) {
        prop_assume!(value.len() < 1000);
        let mut encoded = frame.encode().expose().to_vec();
        let mut later = Writer::with_capacity(0);
        later.tlv(kind, &value);
        encoded.extend(later.finish());
        prop_assert_eq!(Frame::decode(&encoded), Ok(frame));
    }

    #[test]
    fn garbage_never_panics(mut octets: Vec<u8>, kind in 0u8..16) {
        let _ = Frame::decode(&octets);
        octets.splice(0..0, [FRAME_VERSION, kind]);
        let _ = Frame::decode(&octets);
    }

    #[test]
    fn mutated_frames_never_panic(frame in frame(), at in any::<prop::sample::Index>(), octet: u8) {
        let mut encoded = frame.encode().expose().to_vec();
        let at = at.index(encoded.len());
        encoded[at] = octet;
        if let Ok(decoded) = Frame::decode(&encoded) {
            // Whatever is accepted has one canonical form.
            let canonical = decoded.encode();
            prop_assert_eq!(Frame::decode(canonical.expose()), Ok(decoded));
        }
    }
}

#[test]
fn errors_name_the_field() {
    assert_eq!(Frame::decode(&[]), Err(FrameError::Truncated));
    assert_eq!(Frame::decode(&[1, 1]), Err(FrameError::Version(1)));
    assert_eq!(
        Frame::decode(&[FRAME_VERSION, kind::PING]),
        Err(FrameError::Missing("nonce"))
    );
    let mut twice = Frame::Ping { nonce: 1 }.encode().expose().to_vec();
    twice.extend_from_within(2..);
    assert_eq!(Frame::decode(&twice), Err(FrameError::Duplicate("nonce")));
    assert_eq!(
        Frame::decode(&[FRAME_VERSION, kind::PING, 4, 1, 9]),
        Err(FrameError::Invalid("nonce"))
    );
    assert_eq!(
        Frame::decode(&vec![1; MAX_FRAME + 1]),
        Err(FrameError::TooLong)
    );
    // A length that no frame can have is refused without being believed, and so is a type.
    for header in [
        &[4, 0xff, 0xff, 0xff, 0x7f][..],
        &[
            4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        &[0x84, 0x80, 0x04, 0],
        &[4, 0x80],
    ] {
        let frame = [&[FRAME_VERSION, kind::PING], header].concat();
        assert_eq!(Frame::decode(&frame), Err(FrameError::Truncated));
    }
}

#[test]
fn an_sa_costs_little_more_than_its_record() {
    let v4 = |last| IpAddr::from([192, 0, 2, last]);
    let sa = Sa {
        local_spi: [1; 8],
        children: vec![Child {
            spi_in: [1; 4],
            vip: v4(1),
            spi_out: [2; 4],
            peer: v4(2),
            remote_nets: vec![Network::new(0, v4(0), 24).unwrap()],
            reserved: Reserved::default(),
        }],
        record: Secret::new(vec![0; 1000]),
        ..Sa::default()
    };
    let encoded = encode_delta(DeltaSeq(1), Slot(1), &Change::SaUpsert(sa));
    assert!(encoded.len() - 1000 <= 90, "{}", encoded.len());
}

#[test]
fn a_raised_ceiling_costs_64_octets_at_most() {
    let checkpoint = crate::change::Checkpoint {
        local_spi: [1; 8],
        spi_in: [2; 4],
        reserved: Reserved {
            slot: Slot(255),
            tenure: Tenure(u64::MAX),
            ceiling: u64::MAX,
            block: u32::MAX,
        },
        sequence_in: u64::MAX,
    };
    let frame = |n| {
        let change = Change::Checkpoints(vec![checkpoint; n]);
        encode_delta(DeltaSeq(u64::MAX), Slot(255), &change).len()
    };
    assert!(frame(1) <= 64, "{}", frame(1));

    // As they are after some raises.
    let usual = crate::change::Checkpoint {
        reserved: Reserved {
            slot: Slot(255),
            tenure: Tenure(100),
            ceiling: 2_000_000,
            block: 65_536,
        },
        sequence_in: 2_000_000,
        ..checkpoint
    };
    let octets = |n| {
        let change = Change::Checkpoints(vec![usual; n]);
        encode_delta(DeltaSeq(u64::MAX), Slot(255), &change).len()
    };
    assert!(octets(1) <= 40, "{}", octets(1));
    assert!(octets(100) - octets(99) <= 22, "together they cost less");
}

#[test]
fn what_a_later_release_adds_is_carried_on() {
    let mut later = Writer::with_capacity(0);
    later.tlv(777, b"certificate");
    let sa = Sa {
        local_spi: [1; 8],
        record: Secret::new(vec![1; 20]),
        unknown: Secret::new(later.finish()),
        ..Sa::default()
    };
    let encoded = encode_delta(DeltaSeq(1), Slot(1), &Change::SaUpsert(sa.clone()));
    let Ok(Frame::Delta { change, .. }) = Frame::decode(encoded.expose()) else {
        panic!("not a delta");
    };
    assert_eq!(change, Change::SaUpsert(sa));
    let mut change = Writer::with_capacity(0);
    change.raw(&[FRAME_VERSION, kind::DELTA]);
    change.tlv(field::SEQ, &5_u64.to_be_bytes());
    change.tlv(field::SLOT, &[1]);
    change.tlv(39, b"lease of an address pool");
    let decoded = Frame::decode(&change.finish());
    assert!(
        matches!(&decoded, Ok(Frame::Delta { seq: DeltaSeq(5), change: Change::Unknown { kind: 39, body }, .. }) if body.len() == 24),
        "{decoded:?}"
    );
}

#[test]
fn the_wire_format_is_fixed() {
    let encoded = Frame::Ack {
        seq: DeltaSeq(0x0102),
        epoch: Epoch(3),
        levelled: Epoch(2),
        taken: None,
    }
    .encode();
    let expected = [
        2, 3, 1, 8, 0, 0, 0, 0, 0, 0, 1, 2, 40, 8, 0, 0, 0, 0, 0, 0, 0, 3, 41, 8, 0, 0, 0, 0, 0, 0,
        0, 2,
    ];
    assert_eq!(encoded.expose(), expected);
}
