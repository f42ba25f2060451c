//! Failovers: slots that got another owner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The failovers since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailoverHistory {
    /// How many there were.
    pub total: u64,
    /// When this agent started to count, in seconds since 1970.
    pub since: f64,
    /// The last 64, newest first.
    pub failovers: Vec<Failover>,
}

/// A view in which slots have other owners than in the one before, as this member saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Failover {
    /// Counts from 1 since the agent's start.
    pub number: u64,
    /// When this member installed the view, in seconds since 1970.
    pub time: f64,
    /// Number of the view.
    pub epoch: u64,
    /// Who lost slots to whom.
    pub moves: Vec<SlotMove>,
    /// Slots that have another owner.
    pub slots: usize,
    /// What kind of thing brought it about.
    pub cause: FailoverCause,
    /// In words, as far as it is known here.
    pub reason: String,
    /// When this member saw the state of a member that lost slots change, in seconds since 1970;
    /// `null`: it saw the view first, or nobody was lost.
    pub detected: Option<f64>,
    /// How long that member had been silent then, in seconds.
    pub silent_seconds: Option<f64>,
    /// From detection to the view, in seconds.
    pub view_seconds: Option<f64>,
    /// From detection, or else from the view, until this member served the slots that it gained, in
    /// seconds; `null`: it gained none, or does not serve them yet. With `silent_seconds` this is
    /// about what the peers had to wait.
    pub served_seconds: Option<f64>,
    /// No majority stood behind it: another member may have gone on serving.
    pub unsafe_takeover: bool,
}

impl Failover {
    /// "3 -> 1 (43), 2 (43)": who had them, who has them, and how many each got.
    pub fn transition(&self) -> String {
        let mut by_loser: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for moved in &self.moves {
            let to = match moved.to {
                0 => "nobody".to_owned(),
                member => member.to_string(),
            };
            let gained = format!("{to} ({})", moved.slots);
            by_loser.entry(moved.from).or_default().push(gained);
        }
        let parts: Vec<String> = by_loser
            .into_iter()
            .map(|(from, to)| format!("{from} -> {}", to.join(", ")))
            .collect();
        parts.join("; ")
    }

    /// Cause and reason in one line.
    pub fn why(&self) -> String {
        let cause = match self.cause {
            FailoverCause::MemberLost => "member lost",
            FailoverCause::Drained => "drained",
            FailoverCause::MemberJoined => "member joined",
            FailoverCause::HandedOver => "handed over",
        };
        let mut text = if self.reason.is_empty() {
            cause.to_owned()
        } else {
            format!("{cause}: {}", self.reason)
        };
        if self.unsafe_takeover {
            text.push_str(" (unsafe takeover: without a majority)");
        }
        text
    }

    /// Both, for a line of their own among other events.
    pub fn told(&self) -> String {
        format!("{}: {}", self.transition(), self.why())
    }
}

/// Slots that went from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotMove {
    /// Id of the member that had them.
    pub from: u8,
    /// Id of the member that has them; 0 = nobody.
    pub to: u8,
    /// How many.
    pub slots: usize,
}

/// What kind of thing moved slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverCause {
    /// A member that had slots is not in the view any more.
    MemberLost,
    /// A member that had slots was drained by an operator, or stops.
    Drained,
    /// A member that had none has its share now.
    MemberJoined,
    /// Another member has them: by an operator's order, or because of a critical device.
    HandedOver,
}
