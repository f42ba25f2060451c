//! Faults and their end.

use std::net::IpAddr;
use std::time::Duration;

use gateway_cluster::membership::Command;
use gateway_common::member::MemberId;
use gateway_ike::output::ChildId;

use super::event::{Cut, CutKind, Event, Fault};
use super::host::{Input, NodeInput};
use super::net::Blocked;
use super::rng::Rng;
use super::world::World;
use crate::effect::KernelEvent;

impl Fault {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let back = rng.millis(100, 2500);
        match rng.below(20) {
            0..4 => Self::KillAgent(back),
            4..8 => Self::CrashHost(back),
            8..10 => Self::Pause(rng.millis(20, 1500)),
            10..12 => Self::Slow(rng.millis(20, 1500)),
            12 => Self::ClockJump(rng.millis(1, 3000)),
            13..17 => {
                let kind = match rng.below(8) {
                    0 => CutKind::Isolate,
                    1 => CutKind::Split,
                    2 => CutKind::OneWay,
                    3 => CutKind::Pair,
                    4 => CutKind::Sync,
                    5 => CutKind::Heartbeats,
                    6 => CutKind::SyncNetwork,
                    _ => CutKind::Public,
                };
                Self::Cut(kind, rng.millis(50, 2000))
            }
            17 if rng.percent(30) => Self::RestartWitness,
            17 => Self::Drain(rng.millis(300, 1500)),
            _ => Self::TwoCrashes(rng.millis(0, 900)),
        }
    }
}

impl World {
    /// A fault strikes somebody, unless the design promises nothing then.
    pub(super) fn fault(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        let ids: Vec<MemberId> = self.hosts.keys().copied().collect();
        let Some(member) = self.rng.pick(&ids) else {
            return;
        };
        self.trace(|| format!("FAULT {fault:?} of {member}"));
        match fault {
            Fault::KillAgent(back) => self.crash(member, false, back),
            Fault::CrashHost(back) => self.crash(member, true, back),
            Fault::RestartWitness => {
                if self.third.is_there() {
                    self.start_witness();
                }
            }
            Fault::TwoCrashes(gap) => {
                self.crash(member, true, Duration::from_millis(2500));
                self.after(
                    gap,
                    Event::Fault(Fault::CrashHost(gap + Duration::from_secs(1))),
                );
            }
            Fault::Pause(length) => self.pause(member, length, false),
            Fault::Slow(length) => self.pause(member, length, true),
            Fault::ClockJump(by) => {
                if let Some(host) = self.hosts.get_mut(&member) {
                    host.offset += by;
                }
                self.pump(member);
            }
            Fault::Cut(kind, length) => self.cut(kind, member, &ids, length),
            Fault::Drain(length) => {
                self.input(member, Input::Membership(Command::Drain));
                self.after(length, Event::Undrain { member });
            }
            Fault::Rekeying => self.rekey_somebody(member),
            Fault::LossOf(member) => {
                let back = self.rng.millis(100, 1500);
                self.crash(member, true, back);
            }
            Fault::Sides => self.take_sides(&ids),
            Fault::ChangeSides { first, second } => self.change_sides(&ids, first, second),
        }
    }

    fn crash(&mut self, member: MemberId, power: bool, back: Duration) {
        if !self.may_lose(member) {
            self.trace(|| format!("{member} is spared: no majority would be left"));
            return;
        }
        self.fall(member, power, back);
    }

    fn fall(&mut self, member: MemberId, power: bool, back: Duration) {
        self.trace(|| {
            let what = if power {
                "loses power"
            } else {
                "agent is killed"
            };
            format!("{member} {what}, back in {back:?}")
        });
        let others: Vec<MemberId> = self
            .hosts
            .keys()
            .copied()
            .filter(|m| *m != member)
            .collect();
        let alone = others.is_empty();
        if let Some(host) = self.hosts.get_mut(&member) {
            host.kill_agent();
            if power {
                host.powered = false;
                host.kernel.reconcile();
            }
        }
        self.excused |= alone;
        for other in others {
            if let Some(connection) = self.net.disconnect(member, other) {
                // A dead process' sockets are closed by its kernel; a dead host says nothing.
                let delay = if power {
                    self.rng.millis(200, 3000)
                } else {
                    self.hop()
                };
                let event = Event::Hangup {
                    member: other,
                    other: member,
                    connection,
                };
                self.after(delay, event);
            }
        }
        self.after(back, Event::Start { member });
    }

    /// The soft lifetime of a CHILD_SA of `member` runs out while it encrypts packets one
    /// by one; every other time its host dies before the exchange can be over for all.
    fn rekey_somebody(&mut self, member: MemberId) {
        let again = self.rng.millis(100, 500);
        self.after(again, Event::Fault(Fault::Rekeying));
        let kernel = &self.hosts[&member].kernel;
        let owned = kernel
            .sas
            .values()
            .filter(|sa| kernel.may_send(sa.child.slot));
        let owned: Vec<(ChildId, IpAddr)> =
            owned.map(|sa| (sa.child.id(), sa.child.remote)).collect();
        let Some((child, remote)) = self.rng.pick(&owned) else {
            return;
        };
        let peer = self
            .peers
            .iter()
            .position(|peer| peer.party.path.local.ip() == remote);
        let event = KernelEvent::Expired { child, hard: false };
        self.input(member, Input::Node(NodeInput::Kernel(event)));
        let hop = self.plan.delay;
        for tick in 1..=32 {
            let event = Event::ClearAtMember {
                member,
                peer: peer.unwrap_or(0),
                count: 1,
                hops: 0,
            };
            self.after(hop * tick / 4, event);
        }
        if self.rng.percent(50) {
            let quarters = self.rng.between(4, 32);
            let at = hop * u32::try_from(quarters).unwrap_or(4) / 4;
            self.after(at, Event::Fault(Fault::LossOf(member)));
        }
    }

    fn take_sides(&mut self, ids: &[MemberId]) {
        let again = self.rng.millis(2000, 3000);
        self.after(again, Event::Fault(Fault::Sides));
        let healthy = ids.iter().all(|m| self.hosts[m].is_healthy());
        let (Some(out), true) = (self.rng.pick(ids), healthy && self.net.is_whole()) else {
            return;
        };
        let mut others: Vec<MemberId> = ids.iter().copied().filter(|m| *m != out).collect();
        if self.rng.percent(50) {
            others.reverse();
        }
        let [first, second] = others[..] else {
            return;
        };
        let length = self.rng.millis(400, 900);
        self.isolate(out, &others, length);
        self.after(length, Event::Fault(Fault::ChangeSides { first, second }));
    }

    /// Shorter than it takes to start without those that know of the last view.
    fn change_sides(&mut self, ids: &[MemberId], first: MemberId, second: MemberId) {
        let others: Vec<MemberId> = ids.iter().copied().filter(|m| *m != first).collect();
        let length = self.rng.millis(250, 500);
        self.isolate(first, &others, length);
        let back = self.rng.millis(1, 60);
        self.fall(second, false, back);
    }

    fn isolate(&mut self, member: MemberId, others: &[MemberId], length: Duration) {
        let mut blocked = Blocked::default();
        others.iter().for_each(|o| blocked.both(member, *o));
        let number = self.net.cut(blocked);
        self.after(length, Event::Heal(Cut { number }));
    }

    /// Whether the others can go on without `member`: more than half of the newest view is left
    /// and healthy, or half of it and something that decides.
    fn may_lose(&self, member: MemberId) -> bool {
        if self.hosts.len() == 1 {
            return true;
        }
        let agents = || self.hosts.values().filter_map(|host| host.agent.as_ref());
        let Some(view) = agents()
            .map(|agent| agent.node.view())
            .max_by_key(|v| v.epoch)
        else {
            return false;
        };
        if view.members.is_empty() || !self.net.is_whole() {
            return false;
        }
        let healthy = |m: &MemberId| {
            self.hosts.get(m).is_some_and(|host| {
                host.is_healthy()
                    && host.agent.as_ref().is_some_and(|agent| {
                        agent.node.view().epoch == view.epoch && view.admits(*m, agent.incarnation)
                    })
            })
        };
        let left = view
            .members
            .keys()
            .filter(|m| **m != member && healthy(m))
            .count();
        let all = view.members.len();
        let decided = self.third.is_there() || self.plan.availability && all == 2;
        2 * left > all || (2 * left == all && decided)
    }

    fn pause(&mut self, member: MemberId, length: Duration, only_the_main_loop: bool) {
        let until = self.now + length;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.agent.is_none() || host.paused.is_some() || host.slow.is_some() {
            return;
        }
        if only_the_main_loop {
            host.slow = Some(until);
        } else {
            host.paused = Some(until);
        }
        let run = host.runs;
        self.at(until, Event::Resume { member, run });
    }

    pub(super) fn resume(&mut self, member: MemberId, run: u64) {
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.runs != run || host.agent.is_none() {
            return;
        }
        host.paused = None;
        host.slow = None;
        if let Some(agent) = &mut host.agent {
            agent.timer = None;
        }
        let backlog = std::mem::take(&mut host.backlog);
        let node_backlog = std::mem::take(&mut host.node_backlog);
        self.trace(|| format!("{member} goes on"));
        // Whether a timer or the sockets come first is the scheduler's choice.
        if self.rng.percent(50) {
            self.agent_timer(member, run);
        }
        for input in node_backlog {
            self.input(member, Input::Node(input));
        }
        for input in backlog {
            self.input(member, input);
        }
        self.pump(member);
    }

    fn cut(&mut self, kind: CutKind, member: MemberId, ids: &[MemberId], length: Duration) {
        let mut blocked = Blocked::default();
        let others: Vec<MemberId> = ids.iter().copied().filter(|m| *m != member).collect();
        let Some(other) = self.rng.pick(&others) else {
            return;
        };
        match kind {
            CutKind::Isolate => others.iter().for_each(|o| blocked.both(member, *o)),
            CutKind::Split => {
                let (left, right): (Vec<_>, Vec<_>) =
                    ids.iter().partition(|_| self.rng.percent(50));
                for a in &left {
                    right.iter().for_each(|b| blocked.both(*a, *b));
                }
            }
            CutKind::OneWay => blocked.all(member, other),
            CutKind::Pair => blocked.both(member, other),
            CutKind::Sync => {
                blocked.sync.insert((member, other));
                blocked.sync.insert((other, member));
            }
            CutKind::Heartbeats => {
                for o in &others {
                    blocked.link0.extend([(member, *o), (*o, member)]);
                    blocked.link1.extend([(member, *o), (*o, member)]);
                }
            }
            CutKind::SyncNetwork => {
                for o in &others {
                    blocked.link0.extend([(member, *o), (*o, member)]);
                    blocked.sync.extend([(member, *o), (*o, member)]);
                }
            }
            CutKind::Public => {
                blocked.public.insert(member);
                blocked.witness.insert(member);
            }
        }
        let number = self.net.cut(blocked);
        self.after(length, Event::Heal(Cut { number }));
    }
}
