//! The loss of a member at any point of any exchange: no IKE SA is lost, nothing is said twice in
//! different words, and both sides agree in the end.

use std::time::Duration;

use crate::pair::{Dice, Order, Pair, Weather};

const ORDERS: [Order; 3] = [Order::Liveness, Order::RekeyChild, Order::RekeyIke];

/// Enough for every retransmission, retry and DELETE that is waited for.
const LONG: Duration = Duration::from_secs(300);

/// Every kill point of every exchange, initiated by either side, in fair weather.
#[test]
fn a_kill_at_each_point_of_each_exchange() {
    let mut kills = 0;
    for initiator in 0..2 {
        for order in ORDERS {
            let run = |death: Option<u64>| {
                let mut pair = Pair::new(77);
                pair.points = 0;
                pair.deaths.extend(death);
                pair.order_now(initiator, order);
                pair.settle(LONG);
                let points = pair.points;
                pair.assert_well(&format!("{order:?} by {initiator}, death at {death:?}"));
                points
            };
            let points = run(None);
            assert!(
                points >= 8,
                "receive, delta, acknowledgement, transmit, both ways"
            );
            for death in 1..=points {
                run(Some(death));
                kills += 1;
            }
        }
    }
    assert!(kills > 100, "{kills}");
}

/// Both sides start something at about the same time, and one of the members dies meanwhile.
#[test]
fn a_kill_at_each_point_of_each_collision() {
    for (first, second) in [
        (Order::RekeyChild, Order::RekeyChild),
        (Order::RekeyIke, Order::RekeyIke),
        (Order::RekeyChild, Order::RekeyIke),
        (Order::RekeyIke, Order::RekeyChild),
        (Order::Liveness, Order::RekeyIke),
    ] {
        let run = |death: Option<u64>| {
            let mut pair = Pair::new(78);
            pair.points = 0;
            pair.deaths.extend(death);
            pair.order_now(0, first);
            pair.order_now(1, second);
            pair.settle(LONG);
            let points = pair.points;
            pair.assert_well(&format!("{first:?} and {second:?}, death at {death:?}"));
            points
        };
        for death in 1..=run(None) {
            run(Some(death));
        }
    }
}

/// 1,000 of 1,000: any exchanges, any weather, up to three deaths on either side.
#[test]
fn a_thousand_of_a_thousand() {
    let mut deaths = 0;
    let mut repeated = 0;
    for seed in 0..1000 {
        let mut dice = Dice::new(seed ^ 0xdead);
        let mut pair = Pair::new(seed);
        pair.weather = Weather::STORM;
        pair.points = 0;
        for _ in 0..=dice.roll(4) {
            let order = ORDERS[dice.roll(3) as usize];
            let after = Duration::from_millis(dice.roll(400));
            pair.order(dice.roll(2) as usize, after, order);
        }
        for _ in 0..=dice.roll(3) {
            pair.deaths.push(1 + dice.roll(60));
        }
        pair.log(&format!("seed {seed}, deaths {:?}", pair.deaths.clone()));
        pair.settle(LONG);
        deaths += pair.sides.iter().map(|side| side.life).sum::<u32>();
        pair.assert_well(&format!("seed {seed}"));
        repeated += pair.wire.repeated;
    }
    assert!(deaths > 500 && repeated > 1000, "{deaths}, {repeated}");
}
