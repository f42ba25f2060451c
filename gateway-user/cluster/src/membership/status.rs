//! What `gatewayctl members` and `gatewayctl pnotes` show.

use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use super::io::{LinkId, PnoteState};
use super::state::Shown;
use crate::frame::Incarnation;
use crate::view::{Epoch, View};

/// The membership as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Last installed view; epoch 0 before the first.
    pub view: View,
    /// No majority stood behind it.
    pub unsafe_takeover: bool,
    /// This member is in it.
    pub admitted: bool,
    /// Gained slots are served.
    pub active: bool,
    /// What is left of this member's transmit right; zero without one.
    pub lease_left: Duration,
    /// All configured members, in order of their ids; this one included.
    pub members: Vec<MemberStatus>,
    /// The critical devices of this member, by name.
    pub pnotes: Vec<PnoteStatus>,
    /// Time since the witness was heard; `None` if never or not configured.
    pub witness_age: Option<Duration>,
    /// Counters.
    pub counters: Counters,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who.
    pub member: MemberId,
    /// State and flags.
    pub shown: Shown,
    /// The view it is in, as it says; 0 = none.
    pub epoch: Epoch,
    /// Its run; 0 = never heard.
    pub incarnation: Incarnation,
    /// Slots that the view gives it.
    pub slots: usize,
    /// When its state changed last, on this member's clock.
    pub last_change: Instant,
    /// Why.
    pub reason: String,
    /// Time since it was heard, per cluster interface.
    pub links: Vec<(LinkId, Duration)>,
    /// Critical devices with a problem.
    pub problems: u8,
    /// It is configured differently.
    pub config_differs: bool,
    /// Drained by an operator.
    pub drained: bool,
    /// Load as it says, in 1/255.
    pub load: u8,
}

/// A critical device of this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PnoteStatus {
    /// Name.
    pub name: String,
    /// State, timeouts included.
    pub state: PnoteState,
    /// Why.
    pub reason: String,
    /// Time since the last report.
    pub age: Duration,
    /// Has to be repeated in this time.
    pub timeout: Option<Duration>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Views installed.
    pub views: u64,
    /// Of them without a majority.
    pub unsafe_takeovers: u64,
    /// Times that this member froze.
    pub freezes: u64,
    /// Times that the lease ended although the view gave this member slots.
    pub lease_ends: u64,
    /// Heartbeats that were heard first on some interface.
    pub heartbeats: u64,
    /// Datagrams that could not be parsed, or named a member that is not configured.
    pub malformed: u64,
    /// Datagrams of an earlier run of their sender.
    pub old_incarnation: u64,
    /// Datagrams that were seen already, or are too old.
    pub replayed: u64,
}
