//! What operators do, critical devices, and sync.

use super::super::*;
use super::net::*;
use crate::slot_map::{Failback, Mode};

fn command(net: &mut Net, member: u8, command: Command) {
    net.act(id(member), |agent, now| agent.handle_command(now, command));
}

fn problem(net: &mut Net, member: u8, bad: bool) {
    let pnote = Pnote {
        name: "xfrm".into(),
        state: if bad {
            PnoteState::Problem
        } else {
            PnoteState::Ok
        },
        reason: "test".into(),
        timeout: None,
    };
    net.act(id(member), |agent, now| agent.handle_pnote(now, pnote));
}

fn state(net: &Net, member: u8) -> MemberState {
    let status = net.status(id(member));
    let row = status.members.iter().find(|row| row.member == id(member));
    row.unwrap().shown.state
}

/// Largest number of milliseconds in which some slot was not served.
fn gap(net: &mut Net, ms: u64) -> u64 {
    let (mut gap, mut worst) = (0, 0);
    for _ in 0..ms {
        net.run_for(1);
        let whole = net.owners().values().sum::<usize>() == 256;
        gap = if whole { 0 } else { gap + 1 };
        worst = worst.max(gap);
    }
    worst
}

#[test]
fn a_drain_hands_over_without_waiting() {
    let mut net = started(3, |_| {});
    net.run_for(200);
    command(&mut net, 1, Command::Drain);
    let gap = gap(&mut net, 500);
    assert!(gap <= 5, "{gap} ms");
    assert_eq!(net.owners()[&id(1)], 0);
    assert_eq!(state(&net, 1), MemberState::Down);
    assert!(net.status(id(1)).admitted, "stays a replica");
    command(&mut net, 1, Command::Undrain);
    net.run_for(500);
    let owned = net.owners()[&id(1)];
    assert!(owned == 85 || owned == 86, "{owned}");
}

#[test]
fn a_stop_hands_over_and_says_goodbye() {
    for count in [2, 3] {
        let mut net = started(count, |_| {});
        net.run_for(200);
        command(&mut net, 1, Command::Stop);
        assert_eq!(state(&net, 1), MemberState::Dying);
        let gap = gap(&mut net, 60);
        assert!(gap <= 5, "{gap} ms");
        assert!(net.hosts[&id(1)].stopped);
        let row = &net.status(id(2)).members[0];
        assert_eq!(row.shown.state, MemberState::Dead);
        net.kill(id(1));
        net.start(id(1));
        assert!(net.wait(1000, Net::converged).is_some(), "{:?}", net.dump());
    }
}

#[test]
fn the_last_one_stops_at_once() {
    let mut net = started(1, |_| {});
    command(&mut net, 1, Command::Stop);
    assert!(net.hosts[&id(1)].stopped);
    assert_eq!(net.owners()[&id(1)], 0);
}

#[test]
fn a_problem_takes_a_member_down_unless_nobody_is_better() {
    let mut net = started(2, |_| {});
    problem(&mut net, 1, true);
    net.run_for(300);
    assert_eq!(state(&net, 1), MemberState::Down);
    assert_eq!(net.owners()[&id(2)], 256);
    assert_eq!(net.status(id(2)).view.members.len(), 1);
    // Now the other one has as many: it stays, with a mark.
    problem(&mut net, 2, true);
    net.run_for(300);
    assert_eq!(state(&net, 2), MemberState::ActiveAttention);
    assert_eq!(net.owners()[&id(2)], 256);
    problem(&mut net, 1, false);
    net.run_for(500);
    assert_eq!(net.owners()[&id(1)], 256, "{:?}", net.dump());
    assert_eq!(state(&net, 2), MemberState::Down);
}

#[test]
fn a_device_that_does_not_report_in_time_has_a_problem() {
    let mut net = started(2, |_| {});
    let pnote = Pnote {
        name: "engine".into(),
        state: PnoteState::Ok,
        reason: String::new(),
        timeout: Some(Duration::from_millis(500)),
    };
    net.act(id(2), |agent, now| agent.handle_pnote(now, pnote));
    net.run_for(450);
    assert_eq!(state(&net, 2), MemberState::Active);
    net.run_for(100);
    assert_eq!(state(&net, 2), MemberState::Down);
    assert_eq!(net.status(id(2)).pnotes[0].state, PnoteState::Problem);
    net.act(id(2), |agent, now| agent.remove_pnote(now, "engine"));
    assert!(net.wait(500, Net::converged).is_some(), "{:?}", net.dump());
}

#[test]
fn an_interface_that_is_down_is_a_problem() {
    let mut net = started(2, |_| {});
    net.act(id(1), |agent, now| agent.handle_link(now, LinkId(1), false));
    net.run_for(300);
    assert_eq!(state(&net, 1), MemberState::Down);
    net.act(id(1), |agent, now| agent.handle_link(now, LinkId(1), true));
    assert!(net.wait(500, Net::converged).is_some());
}

#[test]
fn high_availability_has_one_active_member_with_the_addresses() {
    for failback in [Failback::MaintainActive, Failback::HigherPriority] {
        let mut net = started(3, |config| {
            config.mode = Mode::HighAvailability;
            config.failback = failback;
        });
        let states = |net: &Net| [1, 2, 3].map(|m| state(net, m));
        let (active, standby, backup) = (
            MemberState::Active,
            MemberState::Standby,
            MemberState::Backup,
        );
        net.run_for(300);
        assert_eq!(states(&net), [active, standby, backup]);
        let holders = |net: &Net| [1, 2, 3].map(|m| net.hosts[&id(m)].addresses);
        assert_eq!(holders(&net), [true, false, false]);
        net.kill(id(1));
        net.run_for(500);
        assert_eq!(holders(&net), [false, true, false]);
        net.start(id(1));
        assert!(net.wait(1000, Net::converged).is_some());
        net.run_for(300);
        let expected = match failback {
            Failback::MaintainActive => [standby, active, backup],
            Failback::HigherPriority => [active, standby, backup],
        };
        assert_eq!(states(&net), expected);
        // The operator's word counts more, given to any member.
        command(&mut net, 1, Command::Failover { to: id(3) });
        let gap = gap(&mut net, 400);
        assert!(gap <= 60, "{gap} ms");
        assert_eq!(states(&net), [standby, backup, active]);
        net.kill(id(3));
        net.run_for(600);
        assert_eq!(states_of_two(&net), [active, standby]);
    }
}

fn states_of_two(net: &Net) -> [MemberState; 2] {
    [1, 2].map(|m| state(net, m))
}

#[test]
fn an_isolated_active_member_drops_the_addresses() {
    let mut net = started(3, |config| config.mode = Mode::HighAvailability);
    net.isolate(id(1));
    net.run_for(210);
    assert!(!net.hosts[&id(1)].addresses);
    net.run_for(300);
    assert!(net.hosts[&id(2)].addresses);
}

#[test]
fn the_pivot_holds_the_addresses_in_load_sharing() {
    let mut net = started(3, |config| config.pivot = true);
    net.run_for(100);
    let row = net.status(id(2)).members[0].clone();
    assert_eq!(row.shown.to_string(), "ACTIVE(P)");
    assert!(net.hosts[&id(1)].addresses && !net.hosts[&id(2)].addresses);
}

#[test]
fn failover_in_load_sharing_gives_the_share_to_one() {
    let mut net = started(4, |_| {});
    command(&mut net, 1, Command::Failover { to: id(3) });
    net.run_for(400);
    let owned = net.owners();
    assert_eq!(
        owned,
        [(id(1), 0), (id(2), 64), (id(3), 128), (id(4), 64)].into()
    );
    command(&mut net, 1, Command::Failover { to: id(1) });
    assert_eq!(net.owners()[&id(1)], 0, "refused");
}

#[test]
fn a_cut_sync_link_costs_the_lower_priority_its_place() {
    let mut net = started(2, |_| {});
    net.unsynced.insert((id(1), id(2)));
    net.run_for(400);
    assert_eq!(net.owners(), [(id(1), 256), (id(2), 0)].into());
    net.unsynced.clear();
    assert!(net.wait(1000, Net::converged).is_some());

    // One of three reaches only one of the others: the pair without it goes on.
    let mut net = started(3, |_| {});
    net.unsynced.insert((id(1), id(2)));
    net.run_for(400);
    assert_eq!(
        net.owners(),
        [(id(1), 128), (id(2), 0), (id(3), 128)].into()
    );
}

#[test]
fn a_joiner_owns_nothing_until_it_is_complete() {
    let mut net = started(3, |_| {});
    net.kill(id(3));
    net.run_for(500);
    net.unsynced.insert((id(2), id(3)));
    net.start(id(3));
    net.run_for(2000);
    assert_eq!(net.owners()[&id(3)], 0);
    assert_eq!(state(&net, 3), MemberState::Init);
    net.unsynced.clear();
    assert!(net.wait(500, Net::converged).is_some());
}

#[test]
fn partial_and_asymmetric_partitions_leave_one_view() {
    let one_view = |net: &mut Net| {
        net.run_for(1500);
        assert_eq!(
            net.owners().values().sum::<usize>(),
            256,
            "{:?}",
            net.dump()
        );
        let epoch = net.status(id(1)).view.epoch;
        net.run_for(1000);
        assert_eq!(net.status(id(1)).view.epoch, epoch, "it flaps");
    };
    let mut net = started(3, |_| {});
    net.cut_both(Some(id(1)), Some(id(3)));
    one_view(&mut net);
    let mut net = started(4, |_| {});
    net.cut.insert((Some(id(2)), Some(id(1))));
    one_view(&mut net);
    let mut net = started(5, |_| {});
    for (a, b) in [(1, 4), (1, 5), (2, 5)] {
        net.cut_both(Some(id(a)), Some(id(b)));
    }
    one_view(&mut net);
}
