//! `gatewayctl failover-history`, as `cphaprob show_failover` shows it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::text::{columns, fact, moment, row};
use crate::api::model::{Failover, FailoverCause, FailoverHistory};

/// `gatewayctl failover-history`.
pub fn history(history: &FailoverHistory) -> String {
    let mut out = String::new();
    count(&mut out, history.total, history.since);
    let Some(last) = history.failovers.first() else {
        return out;
    };
    out.push('\n');
    event(&mut out, last);
    let _ = writeln!(
        out,
        "\nCluster failover history (last {} of {}):",
        history.failovers.len(),
        history.total
    );
    let mut rows = vec![row([
        ">No.",
        "Event time",
        ">View",
        "Transition",
        ">Slots",
        ">Silent",
        ">View after",
        ">Served after",
        "Reason",
    ])];
    rows.extend(history.failovers.iter().map(|failover| {
        vec![
            failover.number.to_string(),
            moment(failover.time),
            failover.epoch.to_string(),
            transition(failover),
            failover.slots.to_string(),
            ms(failover.silent_seconds),
            ms(failover.view_seconds),
            ms(failover.served_seconds),
            reason(failover),
        ]
    }));
    out.push_str(&columns(&rows));
    out
}

/// The block with the counter.
pub(super) fn count(out: &mut String, total: u64, since: f64) {
    out.push_str("Cluster failover count:\n");
    fact(out, "Failover counter", &total.to_string());
    let reset = format!("{} (start of this agent)", moment(since));
    fact(out, "Time of counter reset", &reset);
}

/// The block about one failover.
pub(super) fn event(out: &mut String, failover: &Failover) {
    out.push_str("Last cluster failover event:\n");
    fact(out, "Transition", &transition(failover));
    let slots = format!("{} of 256, in view {}", failover.slots, failover.epoch);
    fact(out, "Slots", &slots);
    fact(out, "Reason", &reason(failover));
    fact(out, "Event time", &moment(failover.time));
    for (label, seconds) in [
        ("Silent before detection", failover.silent_seconds),
        ("Detection to view", failover.view_seconds),
        ("Detection to service here", failover.served_seconds),
    ] {
        if seconds.is_some() {
            fact(out, label, &ms(seconds));
        }
    }
}

fn ms(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{:.0} ms", seconds * 1e3))
}

/// "3 -> 1 (43), 2 (43)": who had them, who has them, and how many each got.
fn transition(failover: &Failover) -> String {
    let mut by_loser: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for moved in &failover.moves {
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

fn reason(failover: &Failover) -> String {
    let cause = match failover.cause {
        FailoverCause::MemberLost => "member lost",
        FailoverCause::Drained => "drained",
        FailoverCause::MemberJoined => "member joined",
        FailoverCause::HandedOver => "handed over",
    };
    let mut text = if failover.reason.is_empty() {
        cause.to_owned()
    } else {
        format!("{cause}: {}", failover.reason)
    };
    if failover.unsafe_takeover {
        text.push_str(" (unsafe takeover: without a majority)");
    }
    text
}
