//! `gatewayctl failover-history`, as `cphaprob show_failover` shows it.

use std::fmt::Write;

use super::text::{columns, fact, moment, row};
use crate::api::model::{Failover, FailoverHistory};

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
            failover.transition(),
            failover.slots.to_string(),
            ms(failover.silent_seconds),
            ms(failover.view_seconds),
            ms(failover.served_seconds),
            failover.why(),
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
    fact(out, "Transition", &failover.transition());
    let slots = format!("{} of 256, in view {}", failover.slots, failover.epoch);
    fact(out, "Slots", &slots);
    fact(out, "Reason", &failover.why());
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
