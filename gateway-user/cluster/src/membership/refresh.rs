//! What the shell and the operator are told, kept up to date.

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use super::Membership;
use super::io::{Event, Output};
use super::state::{Flags, MemberState, Shown};
use super::status::{MemberStatus, Status};
use crate::frame::Incarnation;
use crate::slot_map::{Mode, SlotMap};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    slots: Option<SlotMap>,
    addresses: bool,
    alive: Vec<MemberId>,
    shown: Shown,
    reason: String,
    last_change: Instant,
}

impl Told {
    pub(super) fn start(&mut self, now: Instant) {
        self.shown.state = MemberState::Init;
        self.reason = "started".into();
        self.last_change = now;
    }

    pub(super) fn own(&self) -> (Shown, &str) {
        (self.shown, &self.reason)
    }
}

impl Membership {
    pub(super) fn refresh(&mut self) {
        self.forget_preference();
        self.refresh_slots();
        self.refresh_addresses();
        let mut alive = self.heard();
        alive.insert(self.config.local);
        let alive: Vec<MemberId> = alive.iter().collect();
        if alive != self.told.alive {
            self.told.alive.clone_from(&alive);
            self.outputs.push_back(Output::Alive(alive));
        }
        self.refresh_own_state();
        self.refresh_peers();
    }

    /// `SLOT_OWNER`. A slot that this member voted away stops before that is decided.
    pub(super) fn refresh_slots(&mut self) {
        let local = Some(self.config.local);
        let voted = self.acceptor.accepted.as_ref().map(|(_, view)| &view.slots);
        let mut owners = [None; Slot::COUNT];
        for (slot, owner) in self.view.slots.iter() {
            let index = usize::from(slot.0);
            let next = voted.map_or(local, |slots| slots.owner(slot));
            owners[index] = if owner != local {
                owner
            } else if !self.serving[index] {
                None
            } else {
                next
            };
        }
        let slots = SlotMap::from_owners(owners);
        if self.told.slots.as_ref() != Some(&slots) {
            self.told.slots = Some(slots.clone());
            self.outputs.push_back(Output::Slots(slots));
        }
    }

    fn serves_any(&self) -> bool {
        let local = Some(self.config.local);
        let slots = self.told.slots.as_ref();
        slots.is_some_and(|slots| slots.iter().any(|(_, owner)| owner == local))
    }

    /// The VIPs: with the slots in HA mode, with the pivot in load sharing.
    pub(super) fn refresh_addresses(&mut self) {
        let active = self.lease.running && self.serves_any();
        let hold = match self.config.mode {
            Mode::HighAvailability => active,
            Mode::LoadSharing => active && self.is_pivot(),
        };
        if hold != self.told.addresses {
            self.told.addresses = hold;
            self.outputs.push_back(Output::Addresses(hold));
        }
    }

    fn is_pivot(&self) -> bool {
        let owners = self.view.slots.iter().filter_map(|(_, owner)| owner);
        self.config.pivot && owners.min() == Some(self.config.local)
    }

    fn refresh_own_state(&mut self) {
        let (state, reason) = self.own_state();
        let flags = Flags {
            frozen: self.frozen_until.is_some(),
            pivot: self.told.addresses && self.is_pivot(),
        };
        let from = self.told.shown.state;
        self.told.shown = Shown { state, flags };
        if from == state {
            return;
        }
        self.told.last_change = self.now;
        self.told.reason.clone_from(&reason);
        self.outputs.push_back(Output::Event(Event::State {
            member: self.config.local,
            from,
            to: state,
            reason,
        }));
    }

    fn own_state(&self) -> (MemberState, String) {
        let problem = self.pnotes.problems(self.now).1;
        let owns = self.admitted && self.view.slots.owned_by(self.config.local) > 0;
        if self.control.stopping {
            return (MemberState::Dying, "stopped".into());
        }
        if owns && self.serves_any() && self.lease.running {
            return match problem {
                Some(problem) => (MemberState::ActiveAttention, problem),
                None => (MemberState::Active, format!("view {}", self.view.epoch)),
            };
        }
        if let Some(problem) = problem {
            return (MemberState::Down, problem);
        }
        if owns {
            return if self.lease.running || self.now == self.installed_at {
                (
                    MemberState::Ready,
                    "waits for an earlier owner's lease".into(),
                )
            } else {
                (MemberState::Down, "no majority".into())
            };
        }
        if self.admitted {
            return self.idle_state();
        }
        let others = self.view_members();
        let complete =
            |m: MemberId| m == self.config.local || self.report.complete_from.contains(&m);
        if self.view.epoch.0 > 0 && others.iter().all(complete) {
            (MemberState::Ready, "in sync, waits for a view".into())
        } else {
            (MemberState::Init, "not in sync".into())
        }
    }

    /// In the view without slots.
    fn idle_state(&self) -> (MemberState, String) {
        if self.control.drained {
            return (MemberState::Down, "drained".into());
        }
        let reason = format!("view {}", self.view.epoch);
        let mut waiting = self.view.members.keys().filter(|member| {
            let drained = self.said(**member).is_some_and(|said| said.drained);
            self.view.slots.owned_by(**member) == 0 && !drained
        });
        let first = waiting.next() == Some(&self.config.local);
        if self.config.mode == Mode::HighAvailability && !first {
            (MemberState::Backup, reason)
        } else {
            (MemberState::Standby, reason)
        }
    }

    fn refresh_peers(&mut self) {
        for (member, peer) in &mut self.peers {
            let from = peer.shown.state;
            let (state, reason) = if peer.gone || peer.heard.is_none() {
                (MemberState::Dead, "said goodbye")
            } else if !peer.alive {
                (MemberState::Lost, "silent")
            } else {
                (peer.said.state, peer.said.reason.as_str())
            };
            peer.shown = Shown {
                state,
                flags: Flags {
                    frozen: peer.said.frozen && peer.alive,
                    pivot: peer.said.pivot && peer.alive,
                },
            };
            if from != state {
                peer.last_change = self.now;
                peer.reason = reason.to_owned();
                self.outputs.push_back(Output::Event(Event::State {
                    member: *member,
                    from,
                    to: state,
                    reason: peer.reason.clone(),
                }));
            }
        }
    }

    /// For `gatewayctl members` and `gatewayctl pnotes`.
    pub fn status(&self, now: Instant) -> Status {
        let mut members: Vec<MemberStatus> = self.peers.keys().map(|m| self.row(*m, now)).collect();
        members.push(self.own_row());
        members.sort_unstable_by_key(|row| row.member);
        let witness = self.witness.heard.filter(|_| self.config.witness);
        Status {
            view: self.view.clone(),
            unsafe_takeover: self.unsafe_takeover,
            admitted: self.admitted,
            active: self.active,
            lease_left: self.lease.until - now,
            members,
            pnotes: self.pnotes.status(now),
            witness_age: witness.map(|heard| now - heard),
            counters: self.counters,
        }
    }

    fn own_row(&self) -> MemberStatus {
        let member = self.config.local;
        let (shown, reason) = self.told.own();
        MemberStatus {
            member,
            shown,
            epoch: self.view.epoch,
            incarnation: self.config.incarnation,
            slots: self.view.slots.owned_by(member),
            last_change: self.told.last_change,
            reason: reason.to_owned(),
            links: Vec::new(),
            problems: self.pnotes.problems(self.now).0,
            config_differs: false,
            drained: self.control.drained,
            load: self.load,
        }
    }

    fn row(&self, member: MemberId, now: Instant) -> MemberStatus {
        let default = super::Peer::default();
        let peer = self.peers.get(&member).unwrap_or(&default);
        let links = peer.links.iter().map(|(link, (at, _))| (*link, now - *at));
        MemberStatus {
            member,
            shown: peer.shown,
            epoch: peer.said.epoch,
            incarnation: peer.incarnation.unwrap_or(Incarnation(0)),
            slots: self.view.slots.owned_by(member),
            last_change: peer.last_change,
            reason: peer.reason.clone(),
            links: links.collect(),
            problems: peer.said.problems,
            config_differs: peer.said_any() && peer.said.config_hash != self.config.config_hash,
            drained: peer.said.drained,
            load: peer.said.load,
        }
    }
}
