//! Answers about the cluster as tables for humans: `cphaprob`'s layout.

use std::fmt::Write;

use super::failovers;
use super::text::{columns, duration, line, mode, octets, row, table_or, yes_no};
use crate::api::model::{
    Accepted, Health, MemberStatus, Members, PeerSync, Pnotes, Redirected, SyncStatus, ViewStatus,
};
use crate::config::{Failback, Mode};

/// `gatewayctl members`, as `cphaprob state` shows it.
pub fn members(members: &Members) -> String {
    let mut out = String::new();
    let kind = match (members.mode, members.failback) {
        (Mode::LoadSharing, _) => mode(members.mode).to_owned(),
        (Mode::Ha, Failback::MaintainActive) => format!("{} (Active Up)", mode(members.mode)),
        (Mode::Ha, Failback::HigherPriority) => format!("{} (Primary Up)", mode(members.mode)),
    };
    let _ = writeln!(out, "Cluster Mode:   {kind}");
    let _ = writeln!(out, "Sync Mode:      Flush and Ack");
    let _ = writeln!(out, "View:           {}\n", view_number(members.epoch));
    let mut rows = vec![row([
        "ID",
        "Unique Address",
        "Assigned Load",
        "State",
        "In Sync",
        "Name",
    ])];
    rows.extend(members.members.iter().map(member_row));
    let _ = writeln!(out, "{}", columns(&rows));
    match members.problems.as_slice() {
        [] => out.push_str("Active PNOTEs: None\n"),
        problems => {
            out.push_str("Active PNOTEs:\n");
            for problem in problems {
                let _ = writeln!(out, "   {problem}");
            }
        }
    }
    for member in &members.members {
        remarks(&mut out, member);
    }
    let _ = write!(
        out,
        "\nLast member state change events:\n{}\n",
        changes(members)
    );
    failovers::count(&mut out, members.failovers, members.failovers_since);
    if let Some(last) = &members.last_failover {
        out.push('\n');
        failovers::event(&mut out, last);
    }
    out
}

fn view_number(epoch: u64) -> String {
    if epoch == 0 {
        "none yet".into()
    } else {
        epoch.to_string()
    }
}

fn member_row(m: &MemberStatus) -> Vec<String> {
    let local = if m.local { " (local)" } else { "" };
    vec![
        format!("{}{local}", m.id),
        m.sync_address.clone(),
        format!("{}% ({} slots)", (m.slots * 100 + 128) / 256, m.slots),
        m.state.clone(),
        yes_no(m.in_sync).into(),
        m.name.clone(),
    ]
}

/// What an operator has to know of a member beside its state.
fn remarks(out: &mut String, m: &MemberStatus) {
    if m.drained {
        let _ = writeln!(
            out,
            "Member {} was drained: `gatewayctl undrain` on it ends that",
            m.id
        );
    }
    if m.config_differs {
        let _ = writeln!(
            out,
            "Member {} is configured differently: compare its configuration file with this one's",
            m.id
        );
    }
}

fn changes(members: &Members) -> String {
    let mut rows = vec![row(["ID", "State change", "Event time", "Reason"])];
    for m in &members.members {
        let change = match &m.previous_state {
            Some(before) => format!("{before} -> {}", m.state),
            None => m.state.clone(),
        };
        let when = m.last_change_seconds.map_or_else(
            || "-".into(),
            |seconds| format!("{} ago", duration(seconds)),
        );
        rows.push(vec![m.id.to_string(), change, when, m.reason.clone()]);
    }
    columns(&rows)
}

/// `gatewayctl view`.
pub fn view(view: &ViewStatus) -> String {
    let mut out = String::new();
    line(&mut out, "View", &view_number(view.epoch));
    line(&mut out, "This member in it", yes_no(view.admitted));
    line(&mut out, "Serves its slots", yes_no(view.active));
    line(&mut out, "Lease", &format!("{} ms left", view.lease_ms));
    line(
        &mut out,
        "Majority",
        match (view.epoch, view.unsafe_takeover) {
            (0, _) => "-",
            (_, true) => "no: taken over without one (unsafe takeover)",
            (_, false) => "yes",
        },
    );
    line(&mut out, "Real time", yes_no(view.real_time));
    if let Some(age) = view.witness_heard_seconds {
        let heard = format!("{} ago", duration(age));
        line(&mut out, "Witness heard", &heard);
    }
    let unowned = view.slots.iter().filter(|owner| **owner == 0).count();
    if unowned > 0 {
        line(&mut out, "Slots of nobody", &format!("{unowned} of 256"));
    }
    let mut rows = vec![row(["ID", ">Slots", "Run"])];
    for member in &view.members {
        rows.push(vec![
            member.id.to_string(),
            member.slots.to_string(),
            member.run.clone(),
        ]);
    }
    let _ = write!(out, "\n{}", table_or(&rows, "no member is in it"));
    out
}

/// `gatewayctl pnotes`, as `cphaprob -l list` shows them.
pub fn pnotes(pnotes: &Pnotes) -> String {
    let problems: Vec<&str> = pnotes
        .pnotes
        .iter()
        .filter(|pnote| pnote.state == "problem")
        .map(|pnote| pnote.name.as_str())
        .collect();
    let mut out = if problems.is_empty() {
        "There are no pnotes in problem state\n".to_owned()
    } else {
        format!("Pnotes in problem state: {}\n", problems.join(", "))
    };
    let mut rows = vec![row([
        "Device Name",
        "Current state",
        ">Time since last report",
        ">Timeout",
        "Reason",
    ])];
    for pnote in &pnotes.pnotes {
        let timeout = pnote.timeout_seconds;
        rows.push(vec![
            pnote.name.clone(),
            pnote.state.clone(),
            duration(pnote.age_seconds),
            timeout.map_or_else(|| "none".into(), duration),
            pnote.reason.clone(),
        ]);
    }
    let nothing = "no device has registered yet";
    let _ = write!(out, "\nRegistered Devices:\n{}", table_or(&rows, nothing));
    out
}

/// `gatewayctl sync`, as `cphaprob syncstat` shows it.
pub fn sync(sync: &SyncStatus) -> String {
    let mut out = String::from("Delta Sync Statistics\n\n");
    line(&mut out, "Sync status", &sync_status(sync));
    let view = format!("{}, level in {}", sync.epoch, sync.levelled);
    line(&mut out, "View", &view);
    line(
        &mut out,
        "Published",
        &format!("{} updates", sync.published),
    );
    line(&mut out, "Released", &format!("{} updates", sync.released));
    let kept = format!(
        "{} updates ({}), at most {} ({})",
        sync.retained_deltas,
        size(sync.retained_bytes),
        sync.peak_deltas,
        size(sync.peak_bytes)
    );
    line(&mut out, "Sending queue", &kept);
    let held = format!(
        "{} IKE messages wait for acknowledgements",
        sync.messages_held
    );
    line(&mut out, "Flush and Ack", &held);
    let records = format!("{} IKE SAs ({})", sync.records, size(sync.record_bytes));
    line(&mut out, "Records", &records);
    let both = format!(
        "{} sent, {} received",
        octets(sync.bytes_sent),
        octets(sync.bytes_received)
    );
    line(&mut out, "Traffic", &both);
    peer_tables(&mut out, &sync.peers);
    out
}

fn size(count: usize) -> String {
    octets(count as u64)
}

fn sync_status(sync: &SyncStatus) -> String {
    let mut troubles = Vec::new();
    for peer in &sync.peers {
        let trouble = match (peer.connected, peer.in_sync) {
            (false, _) => "is not connected",
            (true, false) => "is not in sync",
            (true, true) => continue,
        };
        troubles.push(format!("member {} {trouble}", peer.id));
    }
    if sync.peers.is_empty() {
        "OK, no other member is configured".into()
    } else if troubles.is_empty() {
        "OK".into()
    } else {
        troubles.join(", ")
    }
}

fn peer_tables(out: &mut String, peers: &[PeerSync]) {
    if peers.is_empty() {
        return;
    }
    let mut updates = vec![row([
        "ID",
        ">Sent",
        ">Acked",
        ">Lag",
        ">Lag time",
        ">Peak",
        ">Round trip",
        ">Resent",
        ">Nudged",
        ">Received",
        "Name",
    ])];
    let mut channels = vec![row([
        "ID",
        "Channel",
        "In sync",
        ">Came up",
        ">Resumed",
        ">Full sent",
        ">Full received",
        "Last full sync because",
    ])];
    for peer in peers {
        updates.push(vec![
            peer.id.to_string(),
            peer.sent.to_string(),
            peer.acknowledged.to_string(),
            peer.lag.to_string(),
            format!("{:.0} ms", peer.lag_seconds * 1e3),
            peer.peak_deltas.to_string(),
            peer.round_trip_ms
                .map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms")),
            peer.deltas_resent.to_string(),
            peer.nudged.to_string(),
            peer.received.to_string(),
            peer.name.clone(),
        ]);
        channels.push(vec![
            peer.id.to_string(),
            if peer.connected { "up" } else { "down" }.into(),
            yes_no(peer.in_sync).into(),
            peer.connections.to_string(),
            peer.resumptions.to_string(),
            peer.snapshots_sent.to_string(),
            peer.snapshots_received.to_string(),
            peer.last_full_sync.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    let _ = write!(out, "\nUpdates:\n{}", columns(&updates));
    let _ = write!(out, "\nChannels:\n{}", columns(&channels));
    for peer in peers {
        if let Some(error) = &peer.last_error {
            let _ = writeln!(out, "Trouble with member {}: {error}", peer.id);
        }
    }
}

/// `gatewayctl health`.
pub fn health(health: &Health) -> String {
    let verdict = if health.healthy {
        "takes traffic"
    } else {
        "takes no traffic"
    };
    let mut out = format!("{}, {verdict}\n", health.state);
    for problem in &health.problems {
        let _ = writeln!(out, "   {problem}");
    }
    out
}

/// `gatewayctl drain` and its kin.
pub fn accepted(_: &Accepted) -> String {
    "accepted; `gatewayctl members` shows how it goes\n".into()
}

/// `gatewayctl redirect`.
pub fn redirected(answer: &Redirected) -> String {
    match answer.redirected {
        0 => "this member has no such IKE SA: nobody was asked to go\n".into(),
        1 => "1 peer was asked to go\n".into(),
        count => format!("{count} peers were asked to go\n"),
    }
}
