use proptest::prelude::*;

use super::*;
use crate::membership::state::MemberState;
use crate::slot_map::{Mode, SlotMap, Weighted};
use crate::slot_set::SlotSet;
use crate::view::{SyncReport, Tenure, Tenures};
use gateway_common::slot::Slot;

fn id(id: u8) -> MemberId {
    MemberId::new(id).unwrap()
}

fn view(members: u8) -> Box<View> {
    let live: Vec<Weighted> = (1..=members)
        .map(|m| Weighted {
            member: id(m),
            weight: 1,
        })
        .collect();
    Box::new(View {
        epoch: Epoch(7),
        members: live
            .iter()
            .map(|w| (w.member, Incarnation(u64::from(w.member.get()) << 40)))
            .collect(),
        slots: SlotMap::UNSET.next(&live, Mode::LoadSharing),
        tenures: Tenures::all(Tenure::new(2, 3)),
    })
}

fn messages() -> Vec<Message> {
    let ballot = Ballot {
        round: 3,
        proposer: id(2),
    };
    let left = Left {
        settle: 1,
        owners: (1..=63).map(|m| (id(m), u32::MAX)).collect(),
    };
    let heartbeat = Heartbeat {
        epoch: Epoch(u64::MAX),
        admitted: true,
        drained: true,
        state: MemberState::ActiveAttention,
        reason: "interfaces: eth1 is down".into(),
        problems: 2,
        heir: Some(id(63)),
        load: 200,
        heard: [id(1), id(63)].into_iter().collect(),
        links: 5,
        config_hash: 0x0123_4567_89ab_cdef,
        sync: SyncReport {
            complete_from: [id(1)].into(),
            lagging: [id(2), id(63)].into(),
            caught_up: [id(3)].into(),
            levelled: Epoch(9),
        },
        preference: Preference {
            stamp: 4,
            to: Some(id(1)),
        },
        ..Heartbeat::default()
    };
    let basis = Basis::After(Epoch(6));
    vec![
        Message::Heartbeat(Box::default()),
        Message::Heartbeat(Box::new(heartbeat)),
        Message::Ack(Ack {
            epoch: Epoch(6),
            incarnation: Incarnation(1),
            sequence: 2,
            granted: true,
        }),
        Message::Prepare {
            basis: Basis::Cold,
            ballot,
        },
        Message::Promise {
            basis,
            ballot,
            accepted: Some((ballot, view(63))),
            persisted: Persisted {
                epoch: Epoch(5),
                members: [id(1)].into_iter().collect(),
                latest: Tenure::new(4, 300),
            },
        },
        Message::Accept {
            basis,
            ballot,
            view: view(3),
        },
        Message::Accepted {
            basis,
            ballot,
            noted: true,
            left: left.clone(),
        },
        Message::Reject {
            basis,
            promised: ballot,
        },
        Message::Commit {
            view: view(63),
            unsafe_takeover: true,
            left,
        },
        Message::ViewRequest(Epoch(8)),
        Message::Goodbye,
    ]
}

fn datagram(message: Message) -> Datagram {
    Datagram {
        incarnation: Incarnation(17),
        sequence: 4711,
        message,
    }
}

#[test]
fn everything_survives_the_wire_and_fits_a_datagram() {
    for message in messages() {
        let datagram = datagram(message);
        let octets = datagram.encode();
        assert!(octets.len() < 1200, "{} octets", octets.len());
        assert_eq!(decode(&octets), Ok(datagram));
    }
}

/// IPv6's least MTU leaves 1,232 octets to a datagram.
#[test]
fn views_of_16_members_fit_whatever_their_slots_have_been_through() {
    for (spread, jumps) in [(0, 0), (1, 3), (2, 1), (3, 9), (100, 0), (1 << 15, 2)] {
        let mut view = view(16);
        let numbers = std::array::from_fn(|slot| 7 + slot as u64 * spread / 128);
        view.tenures = Tenures::from_numbers(numbers);
        // Slots differ by as much as they can, then all have had some more.
        for _ in 0..jumps {
            view.tenures
                .jump(&[Slot(3), Slot(200)].into_iter().collect(), 2);
        }
        view.tenures.jump(&SlotSet::ALL, 70_000);
        let left = Left {
            settle: 1,
            owners: (1..=16).map(|m| (id(m), u32::MAX)).collect(),
        };
        let datagram = datagram(Message::Commit {
            view,
            unsafe_takeover: false,
            left,
        });
        let octets = datagram.encode();
        assert!(octets.len() < 1200, "{} octets", octets.len());
        assert_eq!(decode(&octets), Ok(datagram));
    }
    let mut widest = view(3);
    let numbers = std::array::from_fn(|slot| if slot == 9 { u64::MAX } else { 1 });
    widest.tenures = Tenures::from_numbers(numbers);
    let datagram = datagram(Message::Commit {
        view: widest,
        unsafe_takeover: false,
        left: Left::default(),
    });
    assert_eq!(decode(&datagram.encode()), Ok(datagram));
}

#[test]
fn the_frequent_ones_are_small() {
    let sizes: Vec<usize> = messages()
        .into_iter()
        .take(3)
        .map(|m| datagram(m).encode().len())
        .collect();
    assert!(sizes[0] <= 110 && sizes[2] <= 48, "{sizes:?}");
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    for message in messages() {
        let datagram = datagram(message);
        let mut octets = datagram.encode();
        // A TLV of an unknown type for heartbeats, octets behind the fields for the others.
        octets.extend([200, 0, 2, 1, 1]);
        assert_eq!(decode(&octets), Ok(datagram));
    }
}

#[test]
fn nothing_that_is_cut_short_is_accepted() {
    // Heartbeats may lack fields: those of the first have the values of missing ones.
    for message in messages().into_iter().skip(1) {
        let whole = datagram(message);
        let octets = whole.encode();
        for length in 0..octets.len() {
            assert_ne!(decode(&octets[..length]), Ok(whole.clone()), "{length}");
        }
    }
}

#[test]
fn an_owner_outside_the_view_is_refused() {
    let mut view = view(3);
    view.members.remove(&id(3));
    let octets = datagram(Message::Commit {
        view,
        unsafe_takeover: false,
        left: Left::default(),
    })
    .encode();
    assert_eq!(decode(&octets), Err(DecodeError::Invalid("owner")));
}

proptest! {
    /// Whatever parses, parses again to the same after it was written.
    #[test]
    fn mutated_datagrams_never_panic(
        which in 0..11usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = datagram(messages().remove(which)).encode();
        for (at, value) in edits {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        octets.truncate(cut.index(octets.len() + 1).max(6));
        if let Ok(parsed) = decode(&octets) {
            prop_assert_eq!(decode(&parsed.encode()), Ok(parsed));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), kind in 0..12u8) {
        let _ = decode(&noise);
        let mut octets = MAGIC.to_vec();
        octets.extend([VERSION, kind]);
        octets.extend(noise);
        let _ = decode(&octets);
    }
}
