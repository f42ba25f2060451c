use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::change::{Child, Reserved, Sa, Stamp};
use crate::frame::DeltaSeq;
use crate::network::Network;
use crate::secret::Secret;
use crate::view::Epoch;

const A: Instant = Instant::from_nanos(1_000_000_000);

fn member(id: u8) -> MemberId {
    MemberId::new(id).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str, len: u8) -> Network {
    Network::new(0, ip(text), len).unwrap()
}

fn negotiation(n: u8) -> Negotiation {
    Negotiation {
        local_cookie: [n; 8],
        peer_cookie: [0xaa; 8],
        peer: ip("192.0.2.1"),
    }
}

fn sa(n: u8, children: &[u8]) -> Sa {
    Sa {
        local_spi: [n; 8],
        children: children
            .iter()
            .map(|c| Child {
                spi_in: [*c; 4],
                vip: ip("203.0.113.10"),
                spi_out: [*c ^ 0xff; 4],
                peer: ip("192.0.2.1"),
                remote_nets: vec![net("10.2.0.0", 16)],
                reserved: Reserved::default(),
            })
            .collect(),
        record: Secret::new(vec![n, children.len() as u8]),
        ..Sa::default()
    }
}

fn stamp(seq: u64) -> Stamp {
    Stamp {
        epoch: Epoch(1),
        seq: DeltaSeq(seq),
    }
}

const LATER: Stamp = Stamp {
    epoch: Epoch(9),
    seq: DeltaSeq(0),
};

fn put(ownership: &mut Ownership, slot: Slot, sa: Sa) {
    ownership.upsert(Writer::Local, slot, sa, stamp(1));
}

fn remove(ownership: &mut Ownership, n: u8) {
    let slot = ownership.sa([n; 8]).map(|held| held.slot);
    if let Some(slot) = slot {
        assert!(ownership.remove(Writer::Stream, slot, [n; 8], LATER));
    }
}

/// Applies the effects to a model of the maps, so that a missing or wrong write shows.
#[derive(Default, Debug)]
struct Maps {
    tables: BTreeMap<String, TableChange>,
}

impl Maps {
    fn apply(&mut self, ownership: &mut Ownership) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(effect) = ownership.poll_effect() {
            if let Effect::Table(change) = &effect {
                self.write(*change);
            }
            effects.push(effect);
        }
        effects
    }

    fn write(&mut self, change: TableChange) {
        let (key, put) = key_of(&change);
        if put {
            self.tables.insert(key, change);
        } else {
            assert!(
                self.tables.remove(&key).is_some(),
                "{change:?} was not there"
            );
        }
    }

    fn of(ownership: &Ownership) -> BTreeMap<String, TableChange> {
        ownership
            .tables()
            .map(|put| (key_of(&put).0, put))
            .collect()
    }
}

fn key_of(change: &TableChange) -> (String, bool) {
    match change {
        TableChange::PutNegotiation { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveNegotiation(key) => (format!("{key:?}"), false),
        TableChange::PutIkeSa { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveIkeSa(key) => (format!("{key:?}"), false),
        TableChange::PutEspSa { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveEspSa(key) => (format!("{key:?}"), false),
        TableChange::PutEspOut { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveEspOut(key) => (format!("{key:?}"), false),
        TableChange::PutRemoteNet {
            prefix_len, net, ..
        } => (format!("{prefix_len} {net:?}"), true),
        TableChange::RemoveRemoteNet { prefix_len, net } => {
            (format!("{prefix_len} {net:?}"), false)
        }
    }
}

#[test]
fn a_negotiation_has_two_keys_and_ends_with_its_sa() {
    let mut ownership = Ownership::new();
    let mut maps = Maps::default();
    let later = A + Duration::from_secs(120);
    ownership.open(A, member(2), Slot(7), negotiation(1), later);
    assert_eq!(maps.apply(&mut ownership).len(), 2);
    let keys: Vec<_> = negotiation(1).keys().collect();
    assert_eq!(keys[0].message_id, [0xff; 4]);
    assert_eq!(IpAddr::from(keys[1].peer), ip("192.0.2.1"));
    for key in &keys {
        let value = ownership.negotiation(key).unwrap();
        assert_eq!((value.member, value.slot), (2, 7));
        assert_eq!(value.created_ns, A.as_nanos());
        assert_eq!(value.expires_ns, later.as_nanos());
    }
    put(&mut ownership, Slot(7), sa(1, &[9]));
    let effects = maps.apply(&mut ownership);
    let position = |wanted: fn(&TableChange) -> bool| {
        effects
            .iter()
            .position(|e| matches!(e, Effect::Table(change) if wanted(change)))
            .unwrap()
    };
    let put = position(|change| matches!(change, TableChange::PutIkeSa { .. }));
    let removed = position(|change| matches!(change, TableChange::RemoveNegotiation(_)));
    assert!(put < removed, "no gap in between: {effects:?}");
    assert_eq!(ownership.half_open(member(2)), 0);
    assert_eq!(ownership.ike_sa([1; 8]), Some(Slot(7)));
    assert_eq!(ownership.next_expiry(), None);
    assert_eq!(maps.tables, Maps::of(&ownership));
}

#[test]
fn negotiations_expire_by_timer() {
    let mut ownership = Ownership::new();
    let at = |seconds| A + Duration::from_secs(seconds);
    ownership.open(A, member(1), Slot(1), negotiation(1), at(120));
    ownership.open(A, member(2), Slot(1), negotiation(2), at(60));
    assert_eq!(ownership.next_expiry(), Some(at(60)));
    ownership.expire(at(60));
    assert_eq!(
        (
            ownership.half_open(member(1)),
            ownership.half_open(member(2))
        ),
        (1, 0)
    );
    // Announced again: the new expiry counts.
    ownership.open(at(60), member(1), Slot(1), negotiation(1), at(180));
    assert_eq!(ownership.next_expiry(), Some(at(180)));
    ownership.expire(at(179));
    assert_eq!(ownership.half_open(member(1)), 1);
    ownership.expire(at(180));
    assert_eq!(ownership.half_open(member(1)), 0);
    assert_eq!(ownership.tables().count(), 0);
}

#[test]
fn remote_networks_are_counted_per_child() {
    let mut ownership = Ownership::new();
    let mut maps = Maps::default();
    let nets = |maps: &Maps| {
        maps.tables
            .values()
            .filter(|put| matches!(put, TableChange::PutRemoteNet { .. }))
            .count()
    };
    // A child and its rekeyed successor share the network; the successor survives the first.
    put(&mut ownership, Slot(3), sa(1, &[10, 11]));
    put(&mut ownership, Slot(3), sa(1, &[11]));
    maps.apply(&mut ownership);
    assert_eq!(nets(&maps), 1);
    // So does a successor IKE SA that inherits the child.
    put(&mut ownership, Slot(3), sa(2, &[11]));
    ownership.remove(Writer::Stream, Slot(3), [1; 8], LATER);
    maps.apply(&mut ownership);
    assert_eq!(nets(&maps), 1);
    assert!(ownership.remove(Writer::Stream, Slot(3), [2; 8], LATER));
    assert!(!ownership.remove(Writer::Stream, Slot(3), [2; 8], LATER));
    maps.apply(&mut ownership);
    assert_eq!(maps.tables.len(), 0);
}

#[test]
fn a_sweep_forgets_what_was_not_named_in_its_slots() {
    let mut ownership = Ownership::new();
    let mut maps = Maps::default();
    for n in 1..=4 {
        put(&mut ownership, Slot(n % 2), sa(n, &[n]));
    }
    maps.apply(&mut ownership);
    let sweep = ownership.begin_sweep();
    ownership.upsert(Writer::Snapshot, Slot(1), sa(3, &[3]), stamp(1));
    let odd = [Slot(1)].into_iter().collect();
    assert_eq!(ownership.sweep(sweep, &odd), 1);
    let effects = maps.apply(&mut ownership);
    let gone = Effect::RecordRemoved {
        slot: Slot(1),
        local_spi: [1; 8],
    };
    let records: Vec<_> = effects
        .iter()
        .filter(|effect| !matches!(effect, Effect::Table(_) | Effect::ChildGone(_)))
        .collect();
    assert_eq!(records, [&gone], "an unchanged record is not told again");
    assert_eq!(ownership.sas().count(), 3);
    assert_eq!(maps.tables, Maps::of(&ownership));
}

#[test]
fn what_is_newer_is_not_undone_whatever_the_order() {
    let mut ownership = Ownership::new();
    let put = |o: &mut Ownership, n: u8, at| {
        let mut sa = sa(1, &[n]);
        sa.moves = u32::from(n > 7);
        o.upsert(Writer::Stream, Slot(n), sa, at)
    };
    let epoch = |epoch, seq| Stamp {
        epoch: Epoch(epoch),
        seq: DeltaSeq(seq),
    };
    assert!(put(&mut ownership, 1, epoch(1, 9)));
    assert!(!put(&mut ownership, 2, epoch(1, 8)));
    assert!(put(&mut ownership, 3, epoch(2, 1)), "a later epoch");
    assert!(put(&mut ownership, 8, epoch(2, 0)), "moved to another slot");
    let remove = |o: &mut Ownership, slot, at| o.remove(Writer::Stream, Slot(slot), [1; 8], at);
    assert!(
        !remove(&mut ownership, 3, epoch(2, 2)),
        "not in that slot any more"
    );
    assert!(remove(&mut ownership, 8, epoch(2, 5)));
    ownership.bury([1; 8], 0, epoch(2, 5));
    assert!(!put(&mut ownership, 1, epoch(2, 4)), "no resurrection");
    ownership.settle(Epoch(3));
    assert!(put(&mut ownership, 1, epoch(2, 4)));
}

#[test]
fn sas_are_found_by_the_identities_of_their_peers() {
    let mut ownership = Ownership::new();
    let with = |n, pair: u8| Sa {
        identities: Some([pair; 16]),
        ..sa(n, &[n])
    };
    put(&mut ownership, Slot(1), with(1, 5));
    put(&mut ownership, Slot(2), with(2, 5));
    put(&mut ownership, Slot(2), with(3, 6));
    let found = |o: &Ownership, pair: u8| {
        let found = o.by_identities([pair; 16]);
        found.map(|held| held.sa.local_spi[0]).collect::<Vec<_>>()
    };
    assert_eq!(found(&ownership, 5), [1, 2]);
    put(&mut ownership, Slot(1), with(1, 6));
    ownership.remove(Writer::Local, Slot(2), [3; 8], LATER);
    assert_eq!(
        (found(&ownership, 5), found(&ownership, 6)),
        (vec![2], vec![1])
    );
}

#[derive(Clone, Debug)]
enum Step {
    Open(u8, u8, u8),
    Close(u8, u8),
    Upsert(u8, u8, Vec<u8>),
    Remove(u8),
    Ceiling(u8, u32),
    Expire(u64),
    Replace(Vec<(u8, u8, Vec<u8>)>),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1u8..4;
    let what = 0u8..5;
    let kids = || prop::collection::vec(0u8..4, 0..3);
    prop_oneof![
        (who.clone(), 0u8..4, what.clone()).prop_map(|(m, s, n)| Step::Open(m, s, n)),
        (who.clone(), what.clone()).prop_map(|(m, n)| Step::Close(m, n)),
        (0u8..4, what.clone(), kids()).prop_map(|(s, n, k)| Step::Upsert(s, n, k)),
        what.clone().prop_map(Step::Remove),
        (0u8..4, 0u32..3).prop_map(|(child, ceiling)| Step::Ceiling(child, ceiling)),
        (0u64..200).prop_map(Step::Expire),
        prop::collection::vec((0u8..4, what, kids()), 0..4).prop_map(Step::Replace),
    ]
}

fn run(ownership: &mut Ownership, now: &mut Instant, step: Step) {
    let expires = *now + Duration::from_secs(120);
    match step {
        Step::Open(m, s, n) => ownership.open(*now, member(m), Slot(s), negotiation(n), expires),
        Step::Close(m, n) => {
            ownership.close(member(m), [n; 8]);
        }
        Step::Upsert(s, n, kids) => put(ownership, Slot(s), sa(n, &kids)),
        Step::Remove(n) => remove(ownership, n),
        Step::Ceiling(child, ceiling) => {
            let with = |held: &&Held| held.sa.children.iter().any(|c| c.spi_in == [child; 4]);
            let spi = ownership.sas().find(with).map(|held| held.sa.local_spi);
            if let Some(spi) = spi {
                ownership.set_ceiling([child; 4], spi, ceiling);
            }
        }
        Step::Expire(seconds) => {
            *now = *now + Duration::from_secs(seconds);
            ownership.expire(*now);
        }
        Step::Replace(entries) => {
            let sweep = ownership.begin_sweep();
            for (slot, n, kids) in entries {
                ownership.upsert(Writer::Snapshot, Slot(slot), sa(n, &kids), stamp(1));
            }
            ownership.sweep(sweep, &(0..=255).map(Slot).collect());
        }
    }
}

proptest! {
    #[test]
    fn the_stream_of_effects_leads_to_the_tables(steps in prop::collection::vec(step(), 0..40)) {
        let mut ownership = Ownership::new();
        let mut maps = Maps::default();
        let mut now = A;
        for step in steps {
            run(&mut ownership, &mut now, step);
            maps.apply(&mut ownership);
            prop_assert_eq!(&maps.tables, &Maps::of(&ownership));
        }
        // The tables are a function of what is announced now, not of how it came about.
        let mut rebuilt = Ownership::new();
        for (announcer, opened) in ownership.negotiations() {
            rebuilt.open(opened.created, announcer, opened.slot, opened.negotiation, opened.expires);
        }
        for held in ownership.sas() {
            put(&mut rebuilt, held.slot, held.sa.clone());
        }
        for child in 0..4 {
            rebuilt.copy_ceiling([child; 4], &ownership);
        }
        let (a, b) = (Maps::of(&ownership), Maps::of(&rebuilt));
        prop_assert_eq!(a, b);
        // And nothing is left over when all is gone.
        for n in 0..5 {
            remove(&mut ownership, n);
            for announcer in 1..4 {
                ownership.close(member(announcer), [n; 8]);
            }
        }
        maps.apply(&mut ownership);
        prop_assert!(maps.tables.is_empty() && ownership.next_expiry().is_none());
    }
}

#[test]
fn an_entry_by_hand_goes_before_negotiations_and_never_before_an_sa() {
    let mut own = Ownership::new();
    let later = A + Duration::from_secs(120);
    own.open(A, member(1), Slot(1), negotiation(5), later);
    let key = negotiation(5).keys().next().unwrap();
    let pin = Pin {
        member: member(3),
        slot: Slot(9),
        created: A,
        expires: later,
    };
    let in_effect = |own: &Ownership| own.negotiation(&key).map(|v| (v.member, v.state));
    let (half_open, by_hand) = (
        NegotiationState::HalfOpen as u8,
        NegotiationState::Static as u8,
    );
    own.pin(key, pin);
    assert_eq!(in_effect(&own), Some((3, by_hand)));
    let other = Pin {
        member: member(2),
        ..pin
    };
    own.pin(key, other);
    own.pin(key, other);
    assert_eq!(in_effect(&own), Some((2, by_hand)));
    assert_eq!(own.unpin(&key), Some(other));
    assert_eq!(in_effect(&own), Some((1, half_open)));
    own.pin(key, pin);
    let mut last = None;
    while let Some(effect) = own.poll_effect() {
        if let Effect::Table(TableChange::PutNegotiation { key: put, value }) = effect
            && put == key
        {
            last = Some((value.member, value.state));
        }
    }
    assert_eq!(last, Some((3, by_hand)), "what the map holds");
    own.upsert(Writer::Local, Slot(1), sa(5, &[]), Stamp::default());
    assert_eq!((in_effect(&own), own.pinned(&key)), (None, None));
}

#[test]
fn an_entry_by_hand_is_forgotten_like_every_other() {
    let mut own = Ownership::new();
    let pin = Pin {
        member: member(3),
        slot: Slot(9),
        created: A,
        expires: A + Duration::from_secs(120),
    };
    let key = negotiation(5).keys().next().unwrap();
    own.pin(key, pin);
    assert_eq!(own.next_expiry(), Some(pin.expires));
    own.expire(A + Duration::from_secs(119));
    assert!(own.negotiation(&key).is_some());
    own.expire(pin.expires);
    assert_eq!((own.negotiation(&key), own.next_expiry()), (None, None));
}
