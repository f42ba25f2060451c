//! Acknowledgements, hung members, floods and expiry.

use std::time::Duration;

use super::net::{Net, cookie, established, id, opened, tables};
use crate::change::{Change, Mirror};
use crate::config::Limits;
use crate::frame::DeltaSeq;
use crate::output::Event;

const MS: Duration = Duration::from_millis(1);

fn upsert(net: &mut Net, member: u8, n: u8) -> DeltaSeq {
    let change = established(cookie(member, 1, n), 0);
    net.publish(member, change, Mirror::Urgent).unwrap()
}

#[test]
fn alone_in_the_view_everything_is_released_at_once() {
    let mut net = Net::new(3, &Limits::default());
    net.install(&[1]);
    let seq = upsert(&mut net, 1, 1);
    assert_eq!(net.node(1).released, seq);
}

#[test]
fn released_when_the_last_in_sync_peer_has_acknowledged() {
    let mut net = Net::connected(3, &Limits::default());
    let seq = upsert(&mut net, 1, 1);
    assert!(net.node(1).released < seq);
    assert!(net.deliver(1, 2) && net.deliver(2, 1));
    assert!(net.node(1).released < seq, "3 has not acknowledged");
    assert!(net.deliver(1, 3));
    assert!(
        net.node(1).released < seq,
        "its acknowledgement is under way"
    );
    assert!(net.deliver(3, 1));
    assert_eq!(net.node(1).released, seq);
}

#[test]
fn acknowledgements_are_cumulative() {
    let mut net = Net::connected(2, &Limits::default());
    for n in 0..10 {
        upsert(&mut net, 1, n);
    }
    let frames: Vec<_> = net.wires.get_mut(&(1, 2)).unwrap().drain(..).collect();
    let now = net.now;
    for frame in frames {
        net.node(2).core.handle_frame(now, id(1), frame.expose());
    }
    net.drain(2);
    assert_eq!(net.wires[&(2, 1)].len(), 1, "one acknowledgement for all");
    net.deliver_all();
    net.check_converged();
}

#[test]
fn a_disconnected_member_is_waited_for_until_it_is_out_of_the_view() {
    let mut net = Net::connected(3, &Limits::default());
    let seq = upsert(&mut net, 1, 1);
    net.deliver(1, 2);
    net.deliver(2, 1);
    net.cut(1, 3, (true, true));
    assert!(net.node(1).released < seq);
    assert!(net.node(1).report.lagging.contains(&id(3)));
    net.install(&[1, 2]);
    net.deliver_all();
    assert!(net.node(1).released >= seq);
}

#[test]
fn a_hung_member_is_reported_after_a_tenth_of_a_second_and_comes_back() {
    let mut net = Net::connected(3, &Limits::default());
    net.hung.insert(3);
    let seq = upsert(&mut net, 1, 1);
    net.deliver_all();
    net.advance(99 * MS);
    assert!(net.node(1).report.lagging.is_empty());
    net.advance(MS);
    assert!(net.node(1).report.lagging.contains(&id(3)));
    assert_eq!(net.peer(1, 3).counters.lagged, 1);
    assert!(
        net.node(1)
            .saw(|e| matches!(e, Event::Lagging { member, .. } if *member == id(3)))
    );
    assert!(net.node(1).released < seq);
    net.install(&[1, 2]);
    net.deliver_all();
    assert!(net.node(1).released >= seq);
    // From now on nobody waits for it at all.
    let seq = upsert(&mut net, 1, 2);
    net.deliver_all();
    assert_eq!(net.node(1).released, seq);
    net.advance(150 * MS);
    // It wakes up: the late acknowledgement alone does not restore trust, a prompt answer does.
    net.hung.clear();
    net.deliver(1, 3);
    net.deliver(3, 1);
    assert!(!net.peer(1, 3).in_sync);
    net.settle();
    assert!(net.node(1).report.caught_up.contains(&id(3)));
    net.install(&[1, 2, 3]);
    net.settle();
    net.check_converged();
}

#[test]
fn who_owes_an_acknowledgement_is_asked_until_it_comes() {
    let mut net = Net::connected(2, &Limits::default());
    let asked = |net: &Net| net.peer(1, 2).counters.nudged;
    net.advance(60 * MS);
    assert_eq!((asked(&net), net.wires[&(1, 2)].len()), (0, 0));
    let seq = upsert(&mut net, 1, 1);
    net.advance(9 * MS);
    assert_eq!((asked(&net), net.wires[&(1, 2)].len()), (0, 1));
    net.advance(MS);
    assert_eq!((asked(&net), net.wires[&(1, 2)].len()), (1, 2));
    net.advance(20 * MS);
    assert_eq!((asked(&net), net.wires[&(1, 2)].len()), (3, 4));
    net.deliver_all();
    assert_eq!(net.node(1).released, seq);
    net.advance(200 * MS);
    assert_eq!((asked(&net), net.wires[&(1, 2)].len()), (3, 0));
}

#[test]
fn a_member_that_was_busy_itself_judges_nobody_at_once() {
    let mut net = Net::connected(2, &Limits::default());
    let seq = upsert(&mut net, 1, 1);
    net.deliver(1, 2);
    // The acknowledgement is there long before member 1 comes to read it.
    net.hung.insert(1);
    net.advance(400 * MS);
    net.hung.clear();
    let now = net.now;
    net.node(1).core.handle_timeout(now);
    net.drain(1);
    net.deliver_all();
    assert_eq!(net.node(1).released, seq);
    assert_eq!(net.peer(1, 2).counters.lagged, 0);

    // Of who does not answer at all it hears nothing in the time that it gives.
    let seq = upsert(&mut net, 1, 2);
    net.hung.extend([1, 2]);
    net.advance(400 * MS);
    net.hung.remove(&1);
    let now = net.now;
    net.node(1).core.handle_timeout(now);
    net.drain(1);
    assert_eq!(net.peer(1, 2).counters.lagged, 0);
    net.advance(50 * MS);
    assert_eq!(net.peer(1, 2).counters.lagged, 1);
    assert!(net.node(1).report.lagging.contains(&id(2)));
    assert!(net.node(1).released < seq);
}

/// Where everything is slow, a member that is put out and taken in again and again makes it worse.
#[test]
fn who_was_late_is_given_more_time_for_a_while() {
    let mut net = Net::connected(2, &Limits::default());
    let lagged = |net: &Net| net.peer(1, 2).counters.lagged;
    let mut n = 0;
    // Acknowledges everything after so long.
    let mut answers_after = |net: &mut Net, time: Duration| {
        n += 1;
        let before = lagged(net);
        upsert(net, 1, n);
        net.advance(time);
        let late = lagged(net) - before;
        net.settle();
        assert!(net.peer(1, 2).in_sync);
        late
    };
    assert_eq!(answers_after(&mut net, 100 * MS), 1);
    assert_eq!(answers_after(&mut net, 199 * MS), 0);
    assert_eq!(answers_after(&mut net, 200 * MS), 1);
    assert_eq!(answers_after(&mut net, 399 * MS), 0);
    for doubled in [400, 800, 1600, 1600] {
        assert_eq!(answers_after(&mut net, doubled * MS), 1);
    }
    net.advance(60_000 * MS);
    net.settle();
    assert_eq!(answers_after(&mut net, 99 * MS), 0);
    assert_eq!(answers_after(&mut net, 100 * MS), 1);
}

#[test]
fn a_slow_peer_stays_out() {
    let mut net = Net::connected(2, &Limits::default());
    for n in 0..20 {
        upsert(&mut net, 1, n);
        net.advance(120 * MS);
        net.deliver(1, 2);
        net.advance(120 * MS);
        net.deliver(2, 1);
    }
    assert_eq!(net.peer(1, 2).counters.lagged, 1, "no coming and going");
    net.settle();
    net.check_converged();
}

#[test]
fn a_slow_peer_cannot_make_the_queues_grow() {
    let limits = Limits {
        window_bytes: 4000,
        retained_deltas: 20,
        ..Limits::default()
    };
    let mut net = Net::connected(2, &limits);
    net.hung.insert(2);
    for round in 0..50 {
        for n in 0..20 {
            let change = established(cookie(1, 1, n), round);
            net.publish(1, change, Mirror::Urgent).unwrap();
        }
        assert!(net.core(1).status().retained.0 <= 20);
        net.advance(10 * MS);
    }
    // `transmit` asserts that the wire holds no more than the window.
    let sent = net.peer(1, 2).sent;
    assert!(sent < DeltaSeq(40), "{sent:?}");
    net.settle();
    // What it lacks is in no queue any more: it has to leave and is told everything.
    assert!(net.node(1).report.lagging.contains(&id(2)));
    let told = net.peer(1, 2).counters.snapshots_sent;
    net.install(&[1]);
    net.settle();
    assert!(net.node(1).report.caught_up.contains(&id(2)));
    assert_eq!(net.peer(1, 2).counters.snapshots_sent, told + 1);
    net.install(&[1, 2]);
    net.settle();
    net.check_converged();
}

#[test]
fn a_large_snapshot_is_sent_in_windows() {
    let limits = Limits {
        snapshot_window_bytes: 10_000,
        ..Limits::default()
    };
    let mut net = Net::new(2, &limits);
    net.install(&[1]);
    for n in 0..=255 {
        upsert(&mut net, 1, n);
    }
    net.connect(1, 2);
    // Hellos, then that it has installed the view, too.
    assert!(net.deliver(2, 1) && net.deliver(1, 2) && net.deliver(2, 1));
    assert!(
        net.wires[&(1, 2)].len() < 60,
        "{}",
        net.wires[&(1, 2)].len()
    );
    // Changes meanwhile do not wait for its end.
    upsert(&mut net, 1, 3);
    let before = net.wires[&(1, 2)].len();
    for _ in 0..before {
        net.deliver(1, 2);
    }
    assert!(net.core(2).ownership().sa(cookie(1, 1, 3)).is_some());
    assert!(net.core(2).ownership().sas().count() < 100);
    assert!(!net.peer(2, 1).complete);
    net.settle();
    assert_eq!(net.core(2).ownership().sas().count(), 256);
    net.install(&[1, 2]);
    net.settle();
    net.check_converged();
}

#[test]
fn background_changes_travel_together_and_before_urgent_ones() {
    let mut net = Net::connected(2, &Limits::default());
    let seq = net
        .publish(1, opened(cookie(1, 1, 1)), Mirror::Background)
        .unwrap();
    assert!(net.wires[&(1, 2)].is_empty());
    assert_eq!(net.core(1).poll_timeout(), Some(net.now + 5 * MS));
    net.advance(5 * MS);
    assert_eq!(net.wires[&(1, 2)].len(), 1);
    net.publish(1, opened(cookie(1, 1, 2)), Mirror::Background)
        .unwrap();
    let urgent = upsert(&mut net, 1, 3);
    assert_eq!(urgent, DeltaSeq(seq.0 + 2));
    assert_eq!(net.wires[&(1, 2)].len(), 3);
    net.settle();
    net.check_converged();
    assert_eq!(net.core(2).ownership().half_open(id(1)), 2);
}

#[test]
fn negotiations_expire_everywhere_after_120_seconds() {
    let mut net = Net::connected(3, &Limits::default());
    net.publish(1, opened(cookie(1, 1, 1)), Mirror::Background)
        .unwrap();
    let second = Duration::from_secs(1);
    for elapsed in 0..119 {
        assert_eq!(tables(net.core(3)).len(), if elapsed == 0 { 0 } else { 2 });
        net.advance(second);
        net.deliver_all();
    }
    assert_eq!(tables(net.core(3)).len(), 2);
    net.advance(second);
    assert_eq!(tables(net.core(1)).len(), 0);
    net.advance(second);
    net.deliver_all();
    for member in 1..=3 {
        assert_eq!(tables(net.core(member)).len(), 0);
    }
    net.check_converged();
}

#[test]
fn a_snapshot_does_not_prolong_a_negotiation() {
    let mut net = Net::new(2, &Limits::default());
    net.publish(1, opened(cookie(1, 1, 1)), Mirror::Background)
        .unwrap();
    net.advance(Duration::from_secs(100));
    net.settle();
    assert_eq!(tables(net.core(2)).len(), 2);
    net.advance(Duration::from_secs(21));
    assert_eq!(tables(net.core(2)).len(), 0);
}

#[test]
fn a_flood_costs_the_others_next_to_nothing() {
    let limits = Limits::default();
    let mut net = Net::connected(3, &limits);
    let (before, deltas) = (net.bytes, net.core(1).status().published);
    let mut flooded = 0u32;
    for _ in 0..100 {
        for _ in 0..1000 {
            flooded += 1;
            let [a, b, c, d] = flooded.to_be_bytes();
            let spoofed = opened([1, a, b, c, d, 9, 9, 9]);
            net.publish(1, spoofed, Mirror::Background).unwrap();
        }
        net.deliver_all();
        net.advance(10 * MS);
    }
    let status = net.core(1).status();
    assert_eq!(status.half_open, limits.half_open_entries, "bounded here");
    assert_eq!(status.half_open_refused, 100_000 - 8192);
    let mirrored = status.published.0 - deltas.0;
    assert!(mirrored <= limits.mirror_threshold as u64, "{mirrored}");
    assert!(net.bytes - before < 20_000, "{}", net.bytes - before);
    assert!(net.core(2).ownership().half_open(id(1)) <= limits.mirror_threshold);
    // Giving them up costs nothing either, except for those that were mirrored.
    net.advance(Duration::from_secs(121));
    assert_eq!(net.core(1).status().half_open, 0);
    net.settle();
    net.check_converged();
}

#[test]
fn a_member_that_announces_too_many_half_open_entries_is_cut_short() {
    let generous = Limits {
        half_open_entries: 100,
        mirror_threshold: 100,
        mirror_burst: 1000,
        ..Limits::default()
    };
    let mut net = Net::connected(2, &generous);
    let strict = Limits {
        half_open_entries: 10,
        ..generous
    };
    net.node(2).core.config.limits = strict;
    for n in 0..50 {
        net.publish(1, opened(cookie(1, 1, n)), Mirror::Urgent)
            .unwrap();
    }
    net.deliver_all();
    assert_eq!(net.core(2).ownership().half_open(id(1)), 10);
    assert_eq!(net.peer(2, 1).counters.half_open_refused, 40);
    net.restart(2);
    net.node(2).core.config.limits.half_open_entries = 10;
    net.install(&[1]);
    net.settle();
    assert_eq!(net.core(2).ownership().half_open(id(1)), 10);
}

#[test]
fn what_was_never_mirrored_is_not_taken_back() {
    let limits = Limits {
        mirror_threshold: 0,
        ..Limits::default()
    };
    let mut net = Net::connected(2, &limits);
    let before = net.core(1).status().published;
    let local_cookie = cookie(1, 1, 1);
    for change in [
        opened(local_cookie),
        Change::NegotiationClosed { local_cookie },
    ] {
        net.publish(1, change, Mirror::Background).unwrap();
    }
    let gone = Change::SaRemoved {
        local_spi: local_cookie,
    };
    net.publish(1, gone, Mirror::Urgent).unwrap();
    assert_eq!(net.core(1).status().published, before);
    assert_eq!(tables(net.core(1)).len(), 0);
}

#[test]
fn silent_connections_are_probed_and_given_up() {
    let mut net = Net::connected(2, &Limits::default());
    net.advance(Duration::from_secs(3));
    net.deliver_all();
    assert!(net.peer(1, 2).connected, "a quiet peer answers probes");
    assert!(net.peer(1, 2).round_trip.is_some());
    net.hung.insert(2);
    net.advance(Duration::from_secs(6));
    assert!(!net.peer(1, 2).connected);
    assert!(net.node(1).saw(|e| matches!(e, Event::Silent { .. })));
    net.settle();
    net.check_converged();
}
