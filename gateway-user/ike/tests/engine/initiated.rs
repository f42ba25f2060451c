//! Exchanges that the endpoint initiates, against another endpoint.

use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::output::ChildId;
use gateway_ike::record::IkeSaRecord;

use crate::pair::{Order, Pair, Weather};

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(300);

fn record(pair: &Pair, side: usize) -> IkeSaRecord {
    pair.sides[side].records(pair.now).remove(0)
}

fn child(pair: &Pair, side: usize) -> ChildId {
    record(pair, side).children[0].sa.id()
}

#[test]
fn liveness_and_rekeying_by_either_role() {
    for side in 0..2 {
        let mut pair = Pair::new(1);
        let before = [record(&pair, 0), record(&pair, 1)];
        pair.order_now(side, Order::Liveness);
        pair.settle(SOON);
        assert_eq!(record(&pair, side).local_spi, before[side].local_spi);
        assert_eq!(
            record(&pair, side).next_request,
            before[side].next_request + 1
        );

        pair.order_now(side, Order::RekeyChild);
        pair.settle(SOON);
        pair.assert_well("child rekeyed");
        assert_ne!(child(&pair, 0), before[0].children[0].sa.id());
        assert_ne!(child(&pair, 1), before[1].children[0].sa.id());

        let old = child(&pair, 0);
        pair.order_now(side, Order::RekeyIke);
        pair.settle(SOON);
        pair.assert_well("IKE SA rekeyed");
        assert_ne!(record(&pair, 0).local_spi, before[0].local_spi);
        assert_eq!(child(&pair, 0), old, "the children are inherited");
        // The successor can do all of it again, in its new roles.
        for order in [Order::RekeyChild, Order::RekeyIke] {
            for side in 0..2 {
                pair.order_now(side, order);
                pair.settle(SOON);
                pair.assert_well("again");
            }
        }
    }
}

/// RFC 7296 §2.8.1, §2.8.2: whoever has the lowest nonce closes what it made.
#[test]
fn both_rekey_at_once() {
    for seed in 0..60 {
        for order in [Order::RekeyChild, Order::RekeyIke] {
            let mut pair = Pair::new(seed);
            pair.weather.delay_ms = 1 + seed % 30;
            pair.order_now(0, order);
            pair.order_now(1, order);
            pair.settle(LONG);
            pair.assert_well(&format!("{order:?} collision, seed {seed}"));
        }
    }
}

/// RFC 7296 §2.25: everything against everything, at all distances in time.
#[test]
fn exchanges_that_overlap() {
    for first in [Order::RekeyChild, Order::RekeyIke] {
        for second in [Order::RekeyChild, Order::RekeyIke, Order::Liveness] {
            for distance in 0..24 {
                let mut pair = Pair::new(distance);
                pair.weather.delay_ms = 4;
                pair.order_now(0, first);
                pair.order(1, Duration::from_millis(distance), second);
                pair.settle(LONG);
                pair.assert_well(&format!("{first:?}, {distance} ms later {second:?}"));
            }
        }
    }
}

#[test]
fn nobody_answers() {
    let mut pair = Pair::new(3);
    pair.weather = Weather {
        loss: 100,
        ..Weather::FAIR
    };
    let sent = pair.wire.repeated;
    pair.order_now(0, Order::Liveness);
    pair.settle(Duration::from_secs(3600));
    assert_eq!(pair.wire.repeated - sent, 8, "every retransmission");
    assert!(pair.sides[0].spis().is_empty());
    assert!(pair.sides[0].kernel.is_empty());
    assert!(pair.sides[0].replica().is_empty());
    assert_eq!(pair.sides[0].endpoint.counters().peers_lost, 1);
    assert_eq!(pair.sides[0].endpoint.poll_timeout(), None);
    // The other side does not know yet.
    assert_eq!(pair.sides[1].spis().len(), 1);
}

#[test]
fn terminated_by_either_side() {
    for side in 0..2 {
        let mut pair = Pair::new(4);
        let target = Target::Child(child(&pair, side).spi_in);
        pair.command(side, Command::Terminate(target));
        pair.settle(SOON);
        for side in &pair.sides {
            assert!(side.kernel.is_empty());
            assert_eq!(side.records(pair.now)[0].children, []);
        }
        let target = Target::Ike(record(&pair, side).local_spi);
        pair.command(side, Command::Terminate(target));
        pair.settle(LONG);
        for side in &pair.sides {
            assert!(side.spis().is_empty() && side.replica().is_empty());
            assert_eq!(side.endpoint.poll_timeout(), None);
        }
    }
    // Both at once.
    let mut pair = Pair::new(5);
    for side in 0..2 {
        let target = Target::Ike(record(&pair, side).local_spi);
        pair.command(side, Command::Terminate(target));
    }
    pair.settle(LONG);
    assert!(pair.sides.iter().all(|side| side.spis().is_empty()));
}

#[test]
fn expiry_told_by_the_kernel() {
    for side in 0..2 {
        let mut pair = Pair::new(6);
        let before = child(&pair, side);
        pair.expire(side, before, false);
        pair.settle(SOON);
        pair.assert_well("soft");
        let after = child(&pair, side);
        assert_ne!(after, before);
        // The kernel has dropped it: the peer is told, and a new one made.
        pair.expire(side, after, true);
        assert!(!pair.sides[side].kernel.contains_key(&after));
        pair.settle(SOON);
        pair.assert_well("hard");
        assert_ne!(child(&pair, side), after);
        // An SA that is not known is none of our business.
        pair.expire(side, before, true);
        pair.settle(SOON);
        pair.assert_well("unknown");
    }
}

/// Soft lifetimes, and what is left of them after a takeover.
#[test]
fn rekeyed_in_time_and_also_by_the_next_member() {
    for dies in [false, true] {
        let mut pair = Pair::tweaked(7, |side, connection, children| {
            if side == 0 {
                connection.rekey_time = Duration::from_secs(1000);
                connection.over_time = Duration::from_secs(100);
                connection.rand_time = Duration::from_secs(100);
                children.rekey_time = Duration::from_secs(300);
                children.life_time = Duration::from_secs(330);
                children.rand_time = Duration::from_secs(30);
            }
        });
        // The children of the record have no soft lifetime: the first successor has.
        pair.order_now(0, Order::RekeyChild);
        pair.order_now(0, Order::RekeyIke);
        pair.settle(SOON);
        pair.assert_well("first");
        let before = (record(&pair, 0), child(&pair, 0));
        pair.settle(Duration::from_secs(200));
        if dies {
            pair.order_now(0, Order::Die);
        }
        assert_eq!(child(&pair, 0), before.1, "not before its time");
        pair.settle(Duration::from_secs(110));
        assert_ne!(child(&pair, 0), before.1);
        assert_eq!(record(&pair, 0).local_spi, before.0.local_spi);
        pair.settle(Duration::from_secs(700));
        assert_ne!(record(&pair, 0).local_spi, before.0.local_spi);
        pair.assert_well("rekeyed in time");
    }
}

/// RFC 7296 §1.3: the responder wants another group than the one that was guessed.
#[test]
fn the_peer_wants_another_key_exchange() {
    let mut pair = Pair::tweaked(8, |side, connection, child| {
        let (ike, esp) = if side == 0 {
            ("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519-ecp256")
        } else {
            ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256")
        };
        let mut suites = gateway_ike::proposal::IkeProposal::parse(ike).unwrap();
        if side == 0 {
            suites.extend(
                gateway_ike::proposal::IkeProposal::parse("aes128gcm16-prfsha256-ecp256").unwrap(),
            );
        }
        connection.proposals = suites;
        child.esp_proposals = gateway_ike::proposal::EspProposal::parse(esp).unwrap();
    });
    let before = (record(&pair, 0).local_spi, child(&pair, 0));
    pair.order_now(0, Order::RekeyChild);
    pair.settle(SOON);
    assert_ne!(child(&pair, 0), before.1);
    pair.order_now(0, Order::RekeyIke);
    pair.settle(SOON);
    assert_ne!(record(&pair, 0).local_spi, before.0);
    pair.assert_well("both with the peer's group");
}

/// With an algorithm that lets Message ID 0 be answered as often as it is asked.
const RANDOM_IVS: &str = "aes128-sha256-x25519";

/// RFC 6311: the replica lags behind, and the sides agree again.
#[test]
fn message_ids_after_a_takeover_from_a_stale_replica() {
    for side in 0..2 {
        let mut pair = Pair::offering(9, RANDOM_IVS);
        let stale = pair.sides[side].snapshot();
        for initiator in [0, 1, side] {
            pair.order_now(initiator, Order::Liveness);
            pair.settle(SOON);
        }
        pair.sides[side].restore(stale);
        // Not a sign of life, which the peer would take for an old request.
        let now = pair.now;
        pair.sides[side].take_over(now);
        pair.order_now(side, Order::Sync);
        pair.settle(SOON);
        pair.assert_well("synchronised");
        // And once more by the next member, from a replica that is up to date.
        pair.order_now(side, Order::Die);
        pair.order_now(side, Order::Sync);
        pair.settle(SOON);
        pair.assert_well("twice");
        pair.order_now(side, Order::RekeyChild);
        pair.settle(SOON);
        pair.assert_well("and goes on");
    }
}

/// What is outstanding when Message IDs are synchronised is asked again.
#[test]
fn a_request_in_flight_survives_the_synchronisation() {
    for order in [Order::RekeyChild, Order::RekeyIke, Order::Liveness] {
        for distance in 0..12 {
            let mut pair = Pair::offering(10 + distance, RANDOM_IVS);
            pair.weather.delay_ms = 3;
            pair.order_now(0, order);
            pair.order(0, Duration::from_millis(distance), Order::Sync);
            pair.settle(LONG);
            pair.assert_well(&format!("{order:?}, {distance} ms later synchronised"));
        }
    }
}

#[test]
fn another_slot() {
    let mut pair = Pair::new(11);
    let (spi, slot) = (record(&pair, 0).local_spi, Slot(201));
    let reslot = Command::Reslot {
        local_spi: spi,
        slot,
    };
    pair.command(0, reslot);
    pair.settle(SOON);
    let replica = pair.sides[0].replica().remove(0);
    assert_eq!(replica.slot, slot);
    assert_eq!(replica.children[0].sa.slot, slot);
    pair.order_now(0, Order::RekeyIke);
    pair.order_now(0, Order::RekeyChild);
    pair.settle(LONG);
    assert_eq!(record(&pair, 0).children[0].sa.slot, slot);
    pair.assert_well("in the new slot");
}
