//! The loss of a member at any point of any exchange: no IKE SA is lost, nothing is said twice in
//! different words, and both sides agree in the end.

use std::time::Duration;

use gateway_ike::config::{ChildConfig, Connection};
use gateway_ike::proposal::{EspProposal, IkeProposal};

use crate::pair::{Dice, Order, Pair, Weather};

const ORDERS: [Order; 3] = [Order::Liveness, Order::RekeyChild, Order::RekeyIke];

/// Enough for every retransmission, retry and DELETE that is waited for.
const LONG: Duration = Duration::from_secs(300);

type Tweak = fn(usize, &mut Connection, &mut ChildConfig);

fn plain(_: usize, _: &mut Connection, _: &mut ChildConfig) {}

/// Additional key exchanges (RFC 9370).
fn hybrid(_: usize, connection: &mut Connection, child: &mut ChildConfig) {
    let esp = "aes128gcm16-x25519-ke1_mlkem768-ke2_ecp256";
    child.esp_proposals = EspProposal::parse(esp).unwrap();
    let ike = "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256";
    connection.proposals = IkeProposal::parse(ike).unwrap();
}

/// Every kill point of every exchange, initiated by either side, in fair weather.
#[test]
fn a_kill_at_each_point_of_each_exchange() {
    kill_at_each_point(plain, 8);
}

#[test]
fn a_kill_at_each_point_of_additional_key_exchanges() {
    kill_at_each_point(hybrid, 8);
}

fn kill_at_each_point(tweak: Tweak, at_least: u64) {
    let mut kills = 0;
    for initiator in 0..2 {
        for order in ORDERS {
            let run = |death: Option<u64>| {
                let mut pair = Pair::tweaked(77, tweak);
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
                points >= at_least,
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
    kill_in_collisions(plain);
}

#[test]
fn a_kill_at_each_point_of_each_collision_of_additional_key_exchanges() {
    kill_in_collisions(hybrid);
}

fn kill_in_collisions(tweak: Tweak) {
    for (first, second) in [
        (Order::RekeyChild, Order::RekeyChild),
        (Order::RekeyIke, Order::RekeyIke),
        (Order::RekeyChild, Order::RekeyIke),
        (Order::RekeyIke, Order::RekeyChild),
        (Order::Liveness, Order::RekeyIke),
    ] {
        let run = |death: Option<u64>| {
            let mut pair = Pair::tweaked(78, tweak);
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

/// Any exchanges, any weather, up to three deaths on either side. Returns deaths and repetitions.
fn storm(seed: u64, esp: [&[EspProposal]; 2]) -> (u32, usize) {
    storm_with(seed, |side, _, child| {
        child.esp_proposals = esp[side].to_vec();
    })
}

fn storm_with(seed: u64, tweak: impl Fn(usize, &mut Connection, &mut ChildConfig)) -> (u32, usize) {
    let mut dice = Dice::new(seed ^ 0xdead);
    let mut pair = Pair::tweaked(seed, tweak);
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
    let deaths = pair.sides.iter().map(|side| side.life).sum::<u32>();
    pair.assert_well(&format!("seed {seed}"));
    (deaths, pair.wire.repeated)
}

/// 1,000 of 1,000.
#[test]
fn a_thousand_of_a_thousand() {
    let esp = EspProposal::defaults();
    let all = (0..1000).map(|seed| storm(seed, [&esp, &esp]));
    let (deaths, repeated) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(deaths > 500 && repeated > 1000, "{deaths}, {repeated}");
}

#[test]
fn a_thousand_of_a_thousand_with_additional_key_exchanges() {
    let all = (0..1000).map(|seed| storm_with(seed, hybrid));
    let (deaths, repeated) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(deaths > 500 && repeated > 1000, "{deaths}, {repeated}");
}

/// What is preferred decides about retries (INVALID_KE_PAYLOAD), and so about collisions. More seeds
/// by `GATEWAY_STORMS`.
#[test]
fn any_order_of_proposals() {
    let seeds = std::env::var("GATEWAY_STORMS").ok();
    let seeds: u64 = seeds.and_then(|text| text.parse().ok()).unwrap_or(200);
    let defaults = EspProposal::defaults();
    let by = |key: &dyn Fn(&EspProposal) -> u32| {
        let mut all = defaults.clone();
        all.sort_by_key(|suite| key(suite));
        all
    };
    let ke = |suite: &EspProposal| suite.ke.map_or(0, |ke| u32::from(ke.transform_id()));
    let mut reversed = defaults.clone();
    reversed.reverse();
    let orders = [
        by(&|suite| u32::from(suite.ke.is_some())),
        by(&|suite| u32::from(!suite.esn)),
        by(&|suite| 2 * u32::from(suite.ke.is_some()) + u32::from(!suite.esn)),
        by(&ke),
        by(&|suite| 99 - ke(suite)),
        reversed,
    ];
    for (index, mine) in orders.iter().enumerate() {
        // The peer's is the same, or another one.
        for theirs in [mine, &orders[(index + 1) % orders.len()]] {
            for seed in 0..seeds {
                storm(seed, [mine, theirs]);
            }
        }
    }
}
