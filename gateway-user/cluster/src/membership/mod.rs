//! Who is in the cluster and who serves what: heartbeats, views by Paxos, leases.
//!
//! [`Membership`] is one member's part, sans-IO: every input is a method, every effect an [`Output`].
//! `witness::Witness` is the third vote of two members.

pub mod config;
pub mod io;
pub mod set;
pub mod state;
pub mod status;

use std::collections::VecDeque;

use gateway_common::time::Instant;

pub use config::{Config, ConfigError, Timing, TwoMember};
pub use io::{
    Command, Event, LinkId, Output, Persisted, Pnote, PnoteState, ProbeResult, Sender, Via,
};
pub use set::MemberSet;
pub use state::{Flags, MemberState, Shown};
pub use status::{Counters, MemberStatus, PnoteStatus, Status};

use crate::view::SyncReport;

/// One member's part of the membership protocol.
///
/// After each `handle_…`, take all of [`Membership::poll_output`], then [`Membership::poll_timeout`].
/// Runs in a thread of its own: a late [`Membership::handle_timeout`] freezes the member.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    outputs: VecDeque<Output>,
    due: Instant,
}

impl Membership {
    /// A member that has just started. `config` was validated ([`Config::validate`]); `persisted` is
    /// what the last [`Output::Persist`] of any earlier run said, or the default.
    pub fn new(config: Config, now: Instant, persisted: Persisted) -> Self {
        let _ = persisted;
        Self {
            config,
            outputs: VecDeque::new(),
            due: now,
        }
    }

    /// A datagram of `from`, which the shell has authenticated; replays are found here.
    pub fn handle_datagram(&mut self, now: Instant, from: Sender, via: LinkId, octets: &[u8]) {
        let _ = (now, from, via, octets);
    }

    /// How this member's synchronisation stands, on every change.
    pub fn handle_report(&mut self, now: Instant, report: SyncReport) {
        let _ = (now, report);
    }

    /// Report of a critical device.
    pub fn handle_pnote(&mut self, now: Instant, pnote: Pnote) {
        let _ = (now, pnote);
    }

    /// Removes a critical device.
    pub fn remove_pnote(&mut self, now: Instant, name: &str) {
        let _ = (now, name);
    }

    /// A cluster interface of this member went up or down. The first call makes it known; one that
    /// is down is a problem (critical device `interfaces`).
    pub fn handle_link(&mut self, now: Instant, link: LinkId, up: bool) {
        let _ = (now, link, up);
    }

    /// Load of this member for the others' tables, in 1/255.
    pub fn handle_load(&mut self, now: Instant, load: u8) {
        let _ = (now, load);
    }

    /// Answer to [`Output::Probe`].
    pub fn handle_probe(&mut self, now: Instant, result: ProbeResult) {
        let _ = (now, result);
    }

    /// An operator's command, or the end of the agent.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        let _ = (now, command);
    }

    /// The time that [`Membership::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.due = now + self.config.timing.heartbeat;
    }

    /// When [`Membership::handle_timeout`] has to be called, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// For `gatewayctl members` and `gatewayctl pnotes`.
    pub fn status(&self, now: Instant) -> Status {
        let _ = now;
        Status::default()
    }
}
