//! Who is in the cluster and who serves what: heartbeats, views by Paxos, leases.
//!
//! [`Membership`] is one member's part, sans-IO: every input is a method, every effect an [`Output`].
//! [`witness::Witness`] is the vote that decides when half of a view is lost.
//!
//! Why at most one member serves a slot at any time:
//! * A view is decided by a majority of the members (runs) of the one before, so there is one view
//!   per epoch, and every two majorities share a voter.
//! * An owner's transmit right (lease) needs a majority of its view, counted from when its heartbeat
//!   was sent. A voter that accepted the next view grants nothing any more, and says with its vote how
//!   long what it granted may last. Once the next view is decided no majority is left to renew a
//!   lease under the old one, and the votes name the end of each that runs.
//! * A gained slot is served when that has ended, unless its owner voted for the view: it stopped
//!   first. What acceptors know of running leases goes from view to view ([`wire::Left`]).
//! * A new run remembers no votes, so it has none until a view admits it.

mod accept;
mod beat;
mod cold;
pub mod config;
mod control;
mod goal;
mod hear;
mod install;
pub mod io;
mod lease;
mod peer;
mod pnotes;
mod propose;
mod refresh;
pub mod set;
pub mod state;
pub mod status;
mod tally;
mod two;
pub mod wire;
pub mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

#[cfg(any(test, feature = "mutations"))]
pub use config::Mutations;
pub use config::{Config, ConfigError, Timing, TwoMember};
pub use io::{
    Command, Event, LinkId, Output, Persisted, Pnote, PnoteState, ProbeResult, Sender, Via,
};
pub use set::MemberSet;
pub use state::{Flags, MemberState, Shown};
pub use status::{Counters, MemberStatus, PnoteStatus, Status};

use self::accept::Acceptor;
use self::cold::Cold;
use self::control::Control;
use self::lease::{Lease, Ledger};
use self::peer::Peer;
use self::pnotes::Pnotes;
use self::propose::Proposer;
use self::refresh::Told;
use self::tally::{Handover, Tally};
use self::wire::Heartbeat;
use crate::slot_set::SlotSet;
use crate::view::{SyncReport, View};

/// One member's part of the membership protocol.
///
/// After each `handle_…`, take all of [`Membership::poll_output`], then [`Membership::poll_timeout`].
/// Runs in a thread of its own: a late [`Membership::handle_timeout`] freezes the member.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    now: Instant,
    /// When the next timer should fire; what comes later shows that this member was not running.
    due: Instant,
    outputs: VecDeque<Output>,
    sequence: u64,

    peers: BTreeMap<MemberId, Peer>,
    witness: Peer,
    frozen_until: Option<Instant>,

    persisted: Persisted,
    view: View,
    unsafe_takeover: bool,
    /// No majority stands behind the view, and these slots were this member's before.
    kept: SlotSet,
    /// This run is in the view: it votes and may own.
    admitted: bool,
    /// So many of the view's runs are over that it can never decide again.
    fallen: bool,
    installed_at: Instant,
    handover: Handover,
    /// All slots of the view are served.
    active: bool,
    /// Slots that this member serves, subject to the lease.
    serving: [bool; Slot::COUNT],

    acceptor: Acceptor,
    tally: Option<Tally>,
    proposer: Proposer,
    cold: Cold,
    lease: Lease,
    ledger: Ledger,

    report: SyncReport,
    pnotes: Pnotes,
    links: BTreeMap<LinkId, bool>,
    load: u8,
    control: Control,

    next_beat: Instant,
    last_beat: Instant,
    last_said: Heartbeat,
    told: Told,
    counters: Counters,
}

impl Membership {
    /// A member that has just started. `config` was validated ([`Config::validate`]); `persisted` is
    /// what the last [`Output::Persist`] of any earlier run said, or the default.
    pub fn new(config: Config, now: Instant, persisted: Persisted) -> Self {
        let others = config.members.iter().map(|m| m.member);
        let peers = others.filter(|m| *m != config.local);
        let mut membership = Self {
            now,
            due: now,
            // The lease of an earlier run may stand in the kernel still.
            outputs: VecDeque::from([Output::Lease(Instant::default())]),
            sequence: 0,
            peers: peers.map(|m| (m, Peer::default())).collect(),
            witness: Peer::default(),
            frozen_until: None,
            persisted,
            view: View::default(),
            unsafe_takeover: false,
            kept: SlotSet::EMPTY,
            admitted: false,
            fallen: false,
            installed_at: Instant::default(),
            handover: Handover::default(),
            active: false,
            serving: [false; Slot::COUNT],
            acceptor: Acceptor::default(),
            tally: None,
            proposer: Proposer::default(),
            cold: Cold::default(),
            lease: Lease::default(),
            ledger: Ledger::default(),
            report: SyncReport::default(),
            pnotes: Pnotes::default(),
            links: BTreeMap::new(),
            load: 0,
            control: Control::default(),
            next_beat: now,
            last_beat: Instant::default(),
            last_said: Heartbeat::default(),
            told: Told::default(),
            counters: Counters::default(),
            config,
        };
        membership.told.start(now);
        membership
    }

    /// A datagram of `from`, which the shell has authenticated; replays are found here.
    pub fn handle_datagram(&mut self, now: Instant, from: Sender, via: LinkId, octets: &[u8]) {
        self.enter(now);
        let news = self.hear(from, via, octets);
        if news || self.now >= self.due {
            self.run();
        } else if !self.control.stopped {
            self.step_lease();
            self.refresh();
            self.due = self.next_due();
        }
    }

    /// How this member's synchronisation stands, on every change.
    pub fn handle_report(&mut self, now: Instant, report: SyncReport) {
        self.enter(now);
        self.report = report;
        self.run();
    }

    /// Report of a critical device.
    pub fn handle_pnote(&mut self, now: Instant, pnote: Pnote) {
        self.enter(now);
        self.pnotes.report(now, pnote);
        self.run();
    }

    /// Removes a critical device.
    pub fn remove_pnote(&mut self, now: Instant, name: &str) {
        self.enter(now);
        self.pnotes.remove(name);
        self.run();
    }

    /// A cluster interface of this member went up or down. The first call makes it known; one that
    /// is down is a problem (critical device `interfaces`).
    pub fn handle_link(&mut self, now: Instant, link: LinkId, up: bool) {
        self.enter(now);
        self.links.insert(link, up);
        let down: Vec<String> = self
            .links
            .iter()
            .filter(|(_, up)| !**up)
            .map(|(link, _)| link.0.to_string())
            .collect();
        let (state, reason) = if down.is_empty() {
            (PnoteState::Ok, String::new())
        } else {
            (PnoteState::Problem, format!("down: {}", down.join(", ")))
        };
        let pnote = Pnote {
            name: "interfaces".into(),
            state,
            reason,
            timeout: None,
        };
        self.pnotes.report(now, pnote);
        self.run();
    }

    /// Load of this member for the others' tables, in 1/255.
    pub fn handle_load(&mut self, now: Instant, load: u8) {
        self.enter(now);
        self.load = load;
        self.run();
    }

    /// Answer to [`Output::Probe`].
    pub fn handle_probe(&mut self, now: Instant, result: ProbeResult) {
        self.enter(now);
        self.probed(result);
        self.run();
    }

    /// An operator's command, or the end of the agent.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.enter(now);
        self.command(command);
        self.run();
    }

    /// The time that [`Membership::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.enter(now);
        self.run();
    }

    /// When [`Membership::handle_timeout`] has to be called, at the latest. `None` after
    /// [`Output::Stopped`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.control.stopped).then_some(self.due)
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes note of the time, and of time that is missing.
    fn enter(&mut self, now: Instant) {
        let now = now.max(self.now);
        let late = now - self.due;
        let timing = self.config.timing;
        if late > timing.heartbeat / 4 {
            // Whether this member stood still or its clock leapt cannot be told.
            let limit = now + timing.lease_bound();
            self.ledger.stretch(self.now, late, limit);
            self.handover.stretch(self.now, late, limit);
        }
        self.now = now;
        if late > timing.lease / 2 && !self.control.stopped {
            self.freeze(late);
        }
    }

    /// What was not heard was not processed: nobody is called LOST before they had time to be heard.
    fn freeze(&mut self, late: Duration) {
        if self.frozen_until.is_none() {
            self.counters.freezes += 1;
            self.outputs
                .push_back(Output::Event(Event::Frozen { late }));
        }
        self.frozen_until = Some(self.now + self.config.timing.heartbeat * 2);
        for peer in self.peers.values_mut().filter(|peer| peer.alive) {
            peer.heard = Some(self.now);
        }
        self.proposer.abandon();
        if self.cold.quiet_since.is_some() {
            self.cold.quiet_since = Some(self.now);
        }
    }

    /// Everything that follows from the state and the time.
    fn run(&mut self) {
        if self.control.stopped {
            return;
        }
        self.expire();
        self.step_cold();
        self.step_two_member();
        self.step_propose();
        self.step_stop();
        if self.control.stopped {
            return;
        }
        self.step_lease();
        self.step_activate();
        self.refresh();
        if self.now >= self.next_beat || self.news() {
            self.beat();
            // A single member grants itself the lease with that.
            self.step_lease();
            self.refresh();
        }
        self.due = self.next_due();
    }

    fn expire(&mut self) {
        let (now, silence) = (self.now, self.config.timing.silence);
        if self.frozen_until.is_some_and(|until| now >= until) {
            self.frozen_until = None;
            self.outputs.push_back(Output::Event(Event::Thawed));
        }
        for peer in self.peers.values_mut() {
            let heard = peer.heard.is_some_and(|heard| now < heard + silence);
            peer.alive = heard && !peer.gone;
        }
        self.witness.alive = self
            .witness
            .heard
            .is_some_and(|heard| now < heard + silence);
    }

    fn next_due(&self) -> Instant {
        let timing = self.config.timing;
        let silent = self.peers.values().filter(|peer| peer.alive);
        let timers = [
            self.frozen_until,
            self.pnotes.due(self.now),
            self.proposer.due,
            self.cold.due(timing),
            (self.admitted && !self.active).then(|| self.handover.end()),
            self.lease.running.then_some(self.lease.until),
            self.control.stop_by,
        ];
        silent
            .filter_map(|peer| Some(peer.heard? + timing.silence))
            .chain(timers.into_iter().flatten())
            .filter(|at| *at > self.now)
            .fold(self.next_beat, Instant::min)
    }
}

#[cfg(test)]
mod tests;
