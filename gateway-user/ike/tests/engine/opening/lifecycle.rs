//! What we do by ourselves when a tunnel ends or grows old.

use std::time::Duration;

use gateway_ike::config::{Actions, CloseAction, DpdAction, Volume};
use gateway_ike::endpoint::{Command, Counters};
use gateway_ike::output::Quota;

use super::link::Link;
use crate::pair::{Order, Pair};

const MINUTE: Duration = Duration::from_secs(60);

fn up(seed: u64, actions: Actions, dpd: u64) -> Pair {
    let mut pair = Pair::unconnected(seed, |side, connection, child| {
        if side == 0 {
            child.actions = actions;
            connection.dpd_delay = Duration::from_secs(dpd);
        }
    });
    pair.order_now(0, Order::Initiate { persistent: true });
    pair.settle(Duration::from_secs(3));
    pair.assert_well("in the beginning");
    pair
}

fn count(pair: &Pair, side: usize) -> (usize, usize) {
    let endpoint = &pair.sides[side].endpoint;
    (endpoint.sas().count(), endpoint.child_sas())
}

#[test]
fn close_action_start_brings_back_what_the_peer_closes() {
    let actions = Actions {
        close: CloseAction::Start,
        ..Actions::default()
    };
    for order in [Order::Terminate, Order::TerminateChild] {
        let mut pair = up(1, actions, 0);
        let before = pair.sides[0].records(pair.now)[0].children[0].sa.spi_in;
        pair.order_now(1, order);
        pair.settle(MINUTE);
        pair.assert_well("after the peer's DELETE");
        let after = pair.sides[0].records(pair.now)[0].children[0].sa.spi_in;
        assert_ne!(before, after);
    }
}

#[test]
fn close_action_none_leaves_it() {
    let mut pair = up(2, Actions::default(), 0);
    pair.order_now(1, Order::TerminateChild);
    pair.settle(MINUTE);
    assert_eq!(count(&pair, 0), (1, 0));
    pair.order_now(1, Order::Terminate);
    pair.settle(MINUTE);
    assert_eq!(count(&pair, 0), (0, 0));
}

/// What the operator ends stays ended, whatever the actions are.
#[test]
fn what_we_end_stays_ended() {
    let actions = Actions {
        close: CloseAction::Start,
        dpd: DpdAction::Restart,
        ..Actions::default()
    };
    let mut pair = up(3, actions, 5);
    pair.order_now(0, Order::Terminate);
    pair.settle(5 * MINUTE);
    assert_eq!((count(&pair, 0), count(&pair, 1)), ((0, 0), (0, 0)));
}

#[test]
fn dpd_action_decides_what_follows_a_dead_peer() {
    for (dpd, expected) in [(DpdAction::Restart, 1), (DpdAction::Clear, 0)] {
        let actions = Actions {
            dpd,
            ..Actions::default()
        };
        let mut pair = up(4, actions, 5);
        // The peer's members lose all they know.
        pair.sides[1].restore(std::collections::BTreeMap::new());
        pair.order_now(1, Order::Die);
        pair.settle(10 * MINUTE);
        assert_eq!(count(&pair, 0).0, expected);
        if expected == 1 {
            pair.assert_well("after the restart");
        }
    }
}

/// Make before break: there is a tunnel at any time, and the identities are proved again.
#[test]
fn reauthentication_makes_before_it_breaks() {
    let mut pair = Pair::unconnected(5, |side, connection, _| {
        if side == 0 {
            connection.initiation.reauth_time = MINUTE;
            connection.rekey_time = Duration::from_secs(25);
            connection.over_time = Duration::from_secs(10);
        }
    });
    pair.order_now(0, Order::Initiate { persistent: true });
    pair.settle(Duration::from_secs(3));
    let auths = |pair: &Pair| pair.sides[1].endpoint.counters().auth_requests;
    assert_eq!(auths(&pair), 1);
    for _ in 0..600 {
        pair.settle(Duration::from_millis(500));
        for side in 0..2 {
            assert!(
                !pair.sides[side].kernel.is_empty(),
                "{:#?}",
                pair.sides[side].log
            );
        }
    }
    assert!(
        (5..=7).contains(&auths(&pair)),
        "{} authentications",
        auths(&pair)
    );
    pair.assert_well("after five minutes");
}

/// Each message is counted once where it begins and once where it is taken.
#[test]
fn both_sides_count_the_same_messages() {
    let mut pair = Pair::unconnected(9, |_, _, _| ());
    let initiate = Order::Initiate { persistent: false };
    for order in [
        initiate,
        Order::RekeyChild,
        Order::RekeyIke,
        Order::Terminate,
    ] {
        pair.order_now(0, order);
        pair.settle(Duration::from_secs(5));
    }
    let [out, inward] = [0, 1].map(|side| *pair.sides[side].endpoint.counters());
    for (name, sent, taken, least) in [
        ("init", out.init_requests_sent, inward.init_requests, 1),
        ("init", inward.init_responses_sent, out.init_responses, 1),
        ("auth", out.auth_requests_sent, inward.auth_requests, 1),
        ("auth", inward.auth_responses_sent, out.auth_responses, 1),
        (
            "create child",
            out.create_child_requests_sent,
            inward.create_child_requests,
            2,
        ),
        (
            "create child",
            inward.create_child_responses_sent,
            out.create_child_responses,
            2,
        ),
        (
            "info",
            out.informational_requests_sent,
            inward.informational_requests,
            3,
        ),
        (
            "info",
            inward.informational_responses_sent,
            out.informational_responses,
            3,
        ),
    ] {
        assert_eq!(sent, taken, "{name}: {out:?} {inward:?}");
        assert!(sent >= least, "{name}: {sent}");
    }
    let rekeys = |counters: Counters| {
        (
            counters.ike_rekeys_initiated,
            counters.ike_rekeys_answered,
            counters.child_rekeys,
        )
    };
    assert_eq!((rekeys(out), rekeys(inward)), ((1, 0, 1), (0, 1, 1)));
}

/// The kernel counts octets and packets; its soft EXPIRE makes a successor, its hard one a new child.
#[test]
fn what_a_child_may_carry_is_told_to_the_kernel() {
    let volume = Volume {
        rekey_bytes: 1_000_000,
        rand_bytes: 400_000,
        life_bytes: 1_100_000,
        rekey_packets: 0,
        rand_packets: 0,
        life_packets: 5000,
    };
    let mut drawn = std::collections::BTreeSet::new();
    for seed in 10..20 {
        let mut pair = Pair::unconnected(seed, |side, _, child| {
            if side == 0 {
                child.volume = volume;
            }
        });
        pair.order_now(0, Order::Initiate { persistent: true });
        pair.settle(Duration::from_secs(3));
        let quota =
            |pair: &Pair, side: usize| pair.sides[side].kernel.values().next().unwrap().quota;
        let ours = quota(&pair, 0);
        assert!((600_000..=1_000_000).contains(&ours.soft_bytes), "{ours:?}");
        assert_eq!(
            (ours.hard_bytes, ours.soft_packets, ours.hard_packets),
            (1_100_000, 0, 5000)
        );
        assert_eq!(quota(&pair, 1), Quota::default());
        drawn.insert(ours.soft_bytes);
        for hard in [false, true] {
            let child = *pair.sides[0].kernel.keys().next().unwrap();
            if hard {
                // The kernel has dropped it; so has the peer's, as far as it is concerned.
                pair.expire(0, child, true);
            } else {
                pair.expire(0, child, false);
            }
            pair.settle(MINUTE);
            pair.assert_well(&format!("hard: {hard}"));
            assert!(!pair.sides[0].kernel.contains_key(&child));
        }
    }
    assert!(drawn.len() >= 8, "jitter: {drawn:?}");
}

/// RFC 7296 §2.2: when the Message IDs are used up the IKE SA is closed, not tried for ever.
#[test]
fn an_ike_sa_without_message_ids_ends() {
    let mut link = Link::new(41);
    link.initiate(0);
    for side in 0..2 {
        let mut record = link.sides[side].last_record().1.clone();
        record.next_request = u32::MAX;
        record.expected_request = u32::MAX;
        let side = &mut link.sides[side];
        let import = Command::Import(Box::new(record));
        side.endpoint.handle_command(side.now, import);
    }
    let local_spi = link.sides[0].last_record().1.local_spi;
    for left in [(1, 1), (0, 0)] {
        let side = &mut link.sides[0];
        let check = Command::Liveness { local_spi };
        side.endpoint.handle_command(side.now, check);
        link.run();
        assert_eq!(link.count(0), left);
    }
}
