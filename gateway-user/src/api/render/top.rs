//! `gatewayctl top`.

use std::fmt::Write;

use super::text::{columns, duration, line, moment, row};
use crate::api::top::{Rate, Top, TopMember};

/// One picture of `gatewayctl top`.
pub fn top(top: &Top) -> String {
    let mut out = String::new();
    let member = format!(
        "{} ({}) of {}, {}, up {}",
        top.member,
        top.name,
        top.cluster,
        top.state,
        duration(top.uptime_seconds)
    );
    line(&mut out, "Member", &member);
    let when = format!(
        "{}, rates over {}",
        moment(top.time),
        duration(top.interval_seconds)
    );
    line(&mut out, "Time", &when);
    let slots = format!("{} of 256, view {}", top.slots, top.epoch);
    line(&mut out, "Slots owned", &slots);
    let sas = format!(
        "{} IKE, {} CHILD, {} half-open",
        top.ike_sas, top.child_sas, top.half_open
    );
    line(&mut out, "SAs", &sas);
    let ike = format!(
        "{} exchanges/s, {} IKE SAs established/s, {} messages held",
        per_second(top.exchanges),
        per_second(top.established),
        top.messages_held
    );
    line(&mut out, "IKE", &ike);
    let _ = write!(out, "\n{}", packets(top));
    let _ = write!(out, "\n{}", members(&top.members));
    out
}

fn packets(top: &Top) -> String {
    let mut rows = vec![row(["Packets", ">per second", ">bit/s"])];
    let mut add = |name: &str, rate: &Rate| {
        rows.push(vec![
            name.into(),
            per_second(rate.packets),
            bits(rate.bytes),
        ]);
    };
    add("steered", &top.steered);
    add("  local", &top.local);
    add("  redirected", &top.redirected);
    add("received", &top.received);
    add("dropped", &top.dropped);
    for (reason, rate) in &top.drop_reasons {
        add(&format!("  {reason}"), rate);
    }
    columns(&rows)
}

fn members(members: &[TopMember]) -> String {
    let mut rows = vec![row([
        "ID",
        "State",
        ">Slots",
        ">To it/s",
        ">bit/s",
        ">From it/s",
        ">bit/s",
        "Sync",
        ">Lag",
        ">Deltas/s",
        ">Round trip",
        "Name",
    ])];
    for m in members {
        let own = m.local.then(|| "-".to_owned());
        let or_own = |text: String| own.clone().unwrap_or(text);
        let ms = |ms: f64| format!("{ms:.1} ms");
        rows.push(vec![
            format!("{}{}", m.id, if m.local { " (local)" } else { "" }),
            m.state.clone(),
            m.slots.to_string(),
            or_own(per_second(m.redirected.packets)),
            or_own(bits(m.redirected.bytes)),
            or_own(per_second(m.received.packets)),
            or_own(bits(m.received.bytes)),
            or_own(if m.connected { "up" } else { "down" }.into()),
            m.lag.map_or_else(|| "-".into(), |lag| lag.to_string()),
            or_own(per_second(m.deltas)),
            m.round_trip_ms.map_or_else(|| "-".into(), ms),
            m.name.clone(),
        ]);
    }
    columns(&rows)
}

fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"))
}

fn bits(octets: Option<f64>) -> String {
    const UNITS: [&str; 4] = ["", " k", " M", " G"];
    let Some(octets) = octets else {
        return "-".into();
    };
    let mut value = octets * 8.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_units() {
        for (octets, text) in [
            (None, "-"),
            (Some(0.0), "0.0"),
            (Some(125.0), "1.0 k"),
            (Some(1.25e8), "1.0 G"),
            (Some(1.25e12), "10000.0 G"),
        ] {
            assert_eq!(bits(octets), text);
        }
    }
}
