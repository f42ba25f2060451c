//! Single faults and the time until somebody else serves.

use super::super::*;
use super::net::*;
use crate::view::{Tenure, Tenures};

fn fast(config: &mut Config) {
    config.timing = Timing {
        cold_start: config.timing.cold_start,
        ..Timing::FAST
    };
}

#[test]
fn a_single_member_serves_at_once() {
    let mut net = Net::new(1, configs(1, |_| {}), 0);
    net.start_all();
    assert_eq!(net.wait(5, Net::converged), Some(0), "{:?}", net.dump());
    assert_eq!(
        net.status(id(1)).members[0].shown.state,
        MemberState::Active
    );
}

#[test]
fn clusters_of_every_size_form_before_the_cold_start_wait_is_over() {
    for count in [2, 3, 4, 5, 16] {
        let mut net = Net::new(1, configs(count, |_| {}), 0);
        net.start_all();
        let waited = net.wait(1500, Net::converged);
        assert!(
            waited.is_some(),
            "{count}: {:?} {:?}",
            net.violation,
            net.dump()
        );
        let owned = net.owners();
        let (most, least) = (owned.values().max().unwrap(), owned.values().min().unwrap());
        assert!(most - least <= 1, "{owned:?}");
    }
}

/// Time from the kill until every slot is served again, at all points of the heartbeat interval.
fn worst_takeover(change: impl Fn(&mut Config) + Copy, count: u8) -> u64 {
    (0..12)
        .map(|offset| {
            let mut net = started(count, change);
            net.run_for(300 + offset * 5);
            let before = net.hosts[&id(1)].installed;
            net.kill(id(1));
            let survivors: Vec<_> = net.members().into_iter().filter(|m| *m != id(1)).collect();
            let served = |net: &Net| {
                let owned = net.owners();
                survivors.iter().map(|m| owned[m]).sum::<usize>() == 256
            };
            let waited = net.wait(2000, served);
            assert!(net.hosts[&id(2)].installed > before);
            waited.unwrap_or_else(|| panic!("{:?} {:?}", net.violation, net.dump()))
        })
        .max()
        .unwrap()
}

#[test]
fn a_killed_owner_is_replaced_within_the_budget() {
    for count in [3, 4, 5] {
        let normal = worst_takeover(|_| {}, count);
        assert!(
            (200..=400).contains(&normal),
            "{count} members: {normal} ms"
        );
        let quick = worst_takeover(fast, count);
        assert!(
            (35..=100).contains(&quick),
            "{count} members, fast: {quick} ms"
        );
    }
}

#[test]
fn with_a_witness_one_of_two_takes_over_as_quickly() {
    let normal = worst_takeover(|config| config.witness = true, 2);
    assert!((200..=400).contains(&normal), "{normal} ms");
}

#[test]
fn a_kill_moves_only_the_slots_of_the_dead() {
    let mut net = started(3, |_| {});
    let before = net.status(id(1)).view.slots;
    net.kill(id(2));
    net.run_for(1000);
    let after = net.status(id(1)).view.slots;
    for ((_, was), (_, is)) in before.iter().zip(after.iter()) {
        assert!(was == is || was == Some(id(2)));
    }
    assert_eq!([1, 3].map(|m| after.owned_by(id(m))), [128, 128]);
}

#[test]
fn who_notices_a_death_first_is_not_taken_for_the_one_that_is_cut_off() {
    for delay in [1, 10, 40, 90] {
        let mut net = started(3, |_| {});
        net.kill(id(2));
        net.unsynced.insert((id(2), id(3)));
        for ms in 0..700 {
            if ms == delay {
                net.unsynced.insert((id(1), id(2)));
            }
            net.run_for(1);
            assert!(net.owners()[&id(3)] > 0, "{delay} {ms}: {:?}", net.dump());
        }
        assert_eq!(net.owners()[&id(2)], 0, "{:?}", net.dump());
    }
}

/// Who has nothing to tell a dead member does not miss its acknowledgements.
#[test]
fn who_misses_a_dead_member_is_not_put_out_in_its_favour() {
    let mut net = started(3, |_| {});
    let before = net.hosts[&id(2)].installed;
    net.kill(id(1));
    net.run_for(60);
    let report = SyncReport {
        complete_from: [id(1), id(2)].into(),
        lagging: [id(1)].into(),
        ..SyncReport::default()
    };
    net.act(id(3), |agent, now| agent.handle_report(now, report));
    net.run_for(300);
    assert_eq!(net.hosts[&id(2)].installed, before.next(), "one change");
    let owned = net.owners();
    assert_eq!(owned[&id(2)] + owned[&id(3)], 256, "{:?}", net.dump());
}

#[test]
fn an_isolated_owner_stops_by_its_lease_and_joins_again() {
    let mut net = started(3, |_| {});
    net.isolate(id(3));
    net.run_for(210);
    assert_eq!(
        net.owners()[&id(3)],
        0,
        "lease over before anybody takes over"
    );
    net.run_for(400);
    assert_eq!(
        net.owners(),
        [(id(1), 128), (id(2), 128), (id(3), 0)].into()
    );
    net.cut.clear();
    assert!(net.wait(1000, Net::converged).is_some(), "{:?}", net.dump());
}

#[test]
fn a_stopped_clock_or_agent_freezes_and_does_no_harm() {
    let mut net = started(3, |_| {});
    net.keep_events = true;
    net.pause(id(1), 1500);
    net.run_for(700);
    assert_eq!(
        net.owners(),
        [(id(1), 0), (id(2), 128), (id(3), 128)].into()
    );
    net.run_for(820);
    let frozen = |e: &(u64, _, Event)| e.1 == id(1) && matches!(e.2, Event::Frozen { .. });
    assert!(net.events.iter().any(frozen));
    let states = net.status(id(1)).members;
    assert!(
        states.iter().all(|m| m.shown.state != MemberState::Lost),
        "{states:?}"
    );
    assert!(net.wait(1000, Net::converged).is_some(), "{:?}", net.dump());
}

#[test]
fn a_short_hang_moves_nothing() {
    let mut net = started(3, |_| {});
    let before = net.status(id(1)).view;
    net.pause(id(1), 150);
    net.run_for(1000);
    assert_eq!(net.status(id(2)).view, before);
    assert_eq!(net.status(id(1)).counters.freezes, 1);
}

#[test]
fn without_a_majority_two_members_do_as_configured() {
    let mut net = started(2, |_| {});
    net.isolate(id(1));
    net.run_for(3000);
    assert_eq!(net.owners(), [(id(1), 0), (id(2), 0)].into());
    assert_eq!(net.status(id(2)).members[1].shown.state, MemberState::Down);

    let mut net = started(2, |config| config.two_member = TwoMember::Availability);
    net.kill(id(1));
    net.run_for(900);
    assert_eq!(net.owners()[&id(2)], 256, "{:?}", net.dump());
    assert_eq!(net.hosts[&id(2)].unsafe_takeovers, 1);
    net.start(id(1));
    assert!(net.wait(1500, Net::converged).is_some(), "{:?}", net.dump());
}

#[test]
fn a_half_that_still_answers_is_not_taken_over() {
    let mut net = started(2, |config| config.two_member = TwoMember::Availability);
    // Hung: its host answers ARP.
    net.pause(id(1), 5000);
    net.run_for(4000);
    assert_eq!(net.owners(), [(id(1), 0), (id(2), 0)].into());
    assert_eq!(net.hosts[&id(2)].unsafe_takeovers, 0);
}

#[test]
fn a_restarted_half_lets_the_other_decide() {
    let mut net = started(2, |_| {});
    net.kill(id(1));
    net.run_for(500);
    assert_eq!(net.owners()[&id(2)], 0);
    net.start(id(1));
    assert!(net.wait(800, Net::converged).is_some(), "{:?}", net.dump());
    assert_eq!(net.hosts[&id(2)].unsafe_takeovers, 0);
}

/// The other half hears of a new run when it has long served nothing, and starts over; that run is
/// gone by then, and the next one has waited for a live view alone. It votes before it is told of the
/// view that both of them come from.
#[test]
fn a_half_that_is_restarted_while_cut_off_starts_over_with_the_other() {
    for offset in 0..60 {
        let mut net = Net::new(offset, configs(2, |_| {}), 0);
        net.start_all();
        assert!(net.wait(3000, Net::converged).is_some());
        net.kill(id(1));
        net.run_for(2500);
        net.start(id(1));
        net.run_for(30);
        net.kill(id(1));
        net.run_for(300);
        net.isolate(id(1));
        net.start(id(1));
        net.run_for(2200 + offset);
        net.cut.clear();
        net.wait(6000, |net| net.status(id(2)).view.epoch.0 > 1);
        assert!(net.status(id(2)).admitted, "{offset}: it has the SAs");
        let waited = net.wait(2000, Net::converged);
        assert!(waited.is_some(), "{offset}: {:?}", net.dump());
    }
}

/// A run that voted for a first view is over before the other one knows what became of it: the next
/// run knows its epoch alone, and the other one votes for nothing else.
#[test]
fn a_cold_start_goes_on_without_a_run_that_voted() {
    let mut half_known = 0;
    for step in 0..20 {
        let mut net = Net::new(step, configs(2, |_| {}), 0);
        net.start_all();
        let voted = |net: &Net| {
            let agent = net.hosts[&id(2)].agent.as_ref().unwrap();
            agent.cold.acceptor.accepted.is_some()
        };
        while net.status(id(2)).view.epoch.0 == 0 && !voted(&net) {
            net.run_until(net.now + 1_000);
        }
        let decided = net.status(id(2)).view.epoch.0 > 0;
        half_known += u32::from(!decided);
        net.lose_flights();
        net.cut.insert((Some(id(1)), Some(id(2))));
        net.run_for(5);
        net.kill(id(1));
        net.cut.clear();
        net.start(id(1));
        let waited = net.wait(9000, Net::converged);
        assert!(waited.is_some(), "{step}: {:?}", net.dump());
    }
    assert!(half_known > 5, "{half_known}");
}

#[test]
fn all_restarted_at_once_start_over_above_the_old_epochs() {
    let mut net = started(3, |_| {});
    let before = net.hosts[&id(1)].installed;
    for member in net.members() {
        net.kill(member);
    }
    net.run_for(50);
    net.start_all();
    assert!(net.wait(1500, Net::converged).is_some(), "{:?}", net.dump());
    assert!(net.hosts[&id(1)].installed > before);
}

/// The ownership of each slot in the view that `member` knows.
fn ownerships(net: &Net, member: u8) -> Tenures {
    let agent = net.hosts[&id(member)].agent.as_ref().unwrap();
    agent.view.tenures.clone()
}

/// The third member has not started anew and may have SAs still, with numbers of the ownerships
/// before; the two that decide have none of that in memory.
#[test]
fn a_cold_start_numbers_ownerships_above_all_before() {
    let mut net = started(3, |_| {});
    for _ in 0..24 {
        net.kill(id(2));
        net.run_for(700);
        net.start(id(2));
        assert!(net.wait(1500, Net::converged).is_some(), "{:?}", net.dump());
    }
    let before = ownerships(&net, 3);
    assert!(before.latest().number() > 24, "{before:?}");
    net.kill(id(1));
    net.kill(id(2));
    net.isolate(id(3));
    net.start(id(1));
    net.start(id(2));
    net.run_for(3000);
    let owned = net.owners();
    assert_eq!(owned[&id(1)] + owned[&id(2)], 256, "{:?}", net.dump());
    net.cut.clear();
    assert!(net.wait(4000, Net::converged).is_some(), "{:?}", net.dump());
    for member in 1..=3 {
        let now = ownerships(&net, member);
        let mut both = now.numbers().iter().zip(before.numbers());
        assert!(both.all(|(now, before)| now > before), "{now:?}");
    }
}

/// Each of two may have gone on alone, and jumped, before both were started anew.
#[test]
fn two_without_a_witness_jump_when_they_start_over() {
    let mut net = started(2, |config| config.two_member = TwoMember::Availability);
    assert_eq!(ownerships(&net, 1).latest().jumps(), 0);
    net.kill(id(1));
    net.run_for(900);
    assert_eq!(net.hosts[&id(2)].unsafe_takeovers, 1);
    let alone = ownerships(&net, 2);
    assert_eq!(alone.latest().jumps(), 1);
    net.kill(id(2));
    net.start_all();
    assert!(net.wait(4000, Net::converged).is_some(), "{:?}", net.dump());
    for number in ownerships(&net, 1).numbers() {
        assert!(Tenure(*number).jumps() >= 3, "{number:#x}");
    }
}

#[test]
fn a_majority_starts_after_the_wait_and_fewer_do_not() {
    let mut net = Net::new(3, configs(3, |_| {}), 0);
    net.start(id(2));
    net.run_for(4000);
    assert_eq!(net.owners()[&id(2)], 0);
    // It has waited, but the other one has to listen as well.
    net.start(id(3));
    net.run_for(500);
    assert_eq!(net.owners()[&id(2)], 0);
    net.run_for(1000);
    let owned = net.owners();
    assert_eq!(owned[&id(2)] + owned[&id(3)], 256, "{:?}", net.dump());
}

#[test]
fn a_minority_starts_on_command_or_by_configuration() {
    let mut net = Net::new(3, configs(3, |_| {}), 0);
    net.start(id(3));
    net.run_for(100);
    net.act(id(3), |agent, now| {
        agent.handle_command(now, Command::Bootstrap);
    });
    net.run_for(10);
    assert_eq!(net.owners()[&id(3)], 256);
    net.start(id(1));
    net.start(id(2));
    assert!(net.wait(1500, Net::converged).is_some(), "{:?}", net.dump());

    let mut net = Net::new(3, configs(3, |config| config.boot_alone = true), 0);
    net.start(id(3));
    net.run_for(2100);
    assert_eq!(net.owners()[&id(3)], 256);
}
