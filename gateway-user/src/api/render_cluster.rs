//! Answers about the cluster as tables for humans: `cphaprob`'s layout.

use std::fmt::Write;

use super::model::{
    Accepted, Health, MemberStatus, Members, PeerSync, Pnotes, Redirected, SyncStatus, ViewStatus,
};
use super::render::{columns, line, mode, row, seconds, yes_no};
use crate::config::{Failback, Mode};

/// `gatewayctl members`, as `cphaprob state` shows it.
pub fn members(members: &Members) -> String {
    let mut out = String::new();
    let kind = match (members.mode, members.failback) {
        (Mode::LoadSharing, _) => mode(members.mode).to_owned(),
        (Mode::Ha, Failback::MaintainActive) => format!("{} (Active Up)", mode(members.mode)),
        (Mode::Ha, Failback::HigherPriority) => format!("{} (Primary Up)", mode(members.mode)),
    };
    let _ = writeln!(out, "Cluster Mode:   {kind}, view {}\n", members.epoch);
    let mut rows = vec![row([
        "ID",
        "Unique Address",
        "Assigned Load",
        "State",
        "In Sync",
        "Name",
    ])];
    rows.extend(members.members.iter().map(member_row));
    let _ = write!(out, "{}", columns(&rows));
    let problems = match members.problems.as_slice() {
        [] => "None".to_owned(),
        problems => problems.join("; "),
    };
    let _ = writeln!(out, "\nActive PNOTEs: {problems}\n");
    let _ = write!(
        out,
        "Last member state change events:\n{}",
        changes(members)
    );
    out
}

fn member_row(m: &MemberStatus) -> Vec<String> {
    let local = if m.local { " (local)" } else { "" };
    let mut state = m.state.clone();
    if m.drained {
        state.push_str(" drained");
    }
    if m.config_differs {
        state.push_str(" other configuration");
    }
    vec![
        format!("{}{local}", m.id),
        m.sync_address.clone(),
        format!("{}% ({})", (m.slots * 100 + 128) / 256, m.slots),
        state,
        yes_no(m.in_sync).into(),
        m.name.clone(),
    ]
}

fn changes(members: &Members) -> String {
    let mut rows = vec![row(["Member", "State", "Since", "Reason"])];
    for m in &members.members {
        let since = m.last_change_seconds.map_or_else(|| "-".into(), seconds);
        rows.push(vec![
            m.id.to_string(),
            m.state.clone(),
            since,
            m.reason.clone(),
        ]);
    }
    columns(&rows)
}

/// `gatewayctl view`.
pub fn view(view: &ViewStatus) -> String {
    let mut out = String::new();
    line(&mut out, "Epoch", &view.epoch.to_string());
    line(&mut out, "This member in it", yes_no(view.admitted));
    line(&mut out, "Serves its slots", yes_no(view.active));
    line(&mut out, "Lease", &format!("{} ms left", view.lease_ms));
    line(&mut out, "Majority", yes_no(!view.unsafe_takeover));
    line(&mut out, "Real time", yes_no(view.real_time));
    if let Some(age) = view.witness_heard_seconds {
        line(&mut out, "Witness heard", &format!("{} ago", seconds(age)));
    }
    let mut rows = vec![row(["ID", "Slots", "Run"])];
    for member in &view.members {
        rows.push(vec![
            member.id.to_string(),
            member.slots.to_string(),
            member.run.clone(),
        ]);
    }
    let _ = write!(out, "\n{}", columns(&rows));
    out
}

/// `gatewayctl pnotes`, as `cphaprob -l list` shows them.
pub fn pnotes(pnotes: &Pnotes) -> String {
    let mut rows = vec![row(["Device", "State", "Last report", "Timeout", "Reason"])];
    for pnote in &pnotes.pnotes {
        rows.push(vec![
            pnote.name.clone(),
            pnote.state.clone(),
            seconds(pnote.age_seconds),
            pnote.timeout_seconds.map_or_else(|| "none".into(), seconds),
            pnote.reason.clone(),
        ]);
    }
    columns(&rows)
}

/// `gatewayctl sync`.
pub fn sync(sync: &SyncStatus) -> String {
    let mut out = String::new();
    let view = format!("{}, level in {}", sync.epoch, sync.levelled);
    line(&mut out, "View", &view);
    line(&mut out, "Published", &sync.published.to_string());
    line(&mut out, "Released", &sync.released.to_string());
    let kept = format!(
        "{} ({} bytes), at most {} ({} bytes)",
        sync.retained_deltas, sync.retained_bytes, sync.peak_deltas, sync.peak_bytes
    );
    line(&mut out, "Deltas kept", &kept);
    line(&mut out, "Messages held", &sync.messages_held.to_string());
    let records = format!("{} ({} bytes)", sync.records, sync.record_bytes);
    line(&mut out, "Records", &records);
    let octets = format!("{} sent, {} received", sync.bytes_sent, sync.bytes_received);
    line(&mut out, "Octets", &octets);
    let mut rows = vec![row([
        "ID",
        "Name",
        "Up",
        "In sync",
        "Sent",
        "Acked",
        "Lag",
        "Peak",
        "Received",
        "Resumed",
        "Full syncs out/in",
        "Last full sync",
        "Trouble",
    ])];
    rows.extend(sync.peers.iter().map(peer_row));
    let _ = write!(out, "\n{}", columns(&rows));
    out
}

fn peer_row(peer: &PeerSync) -> Vec<String> {
    vec![
        peer.id.to_string(),
        peer.name.clone(),
        yes_no(peer.connected).into(),
        yes_no(peer.in_sync).into(),
        peer.sent.to_string(),
        peer.acknowledged.to_string(),
        peer.lag.to_string(),
        peer.peak_deltas.to_string(),
        peer.received.to_string(),
        peer.resumptions.to_string(),
        format!("{}/{}", peer.snapshots_sent, peer.snapshots_received),
        peer.last_full_sync.clone().unwrap_or_else(|| "-".into()),
        peer.last_error.clone().unwrap_or_default(),
    ]
}

/// `gatewayctl health`.
pub fn health(health: &Health) -> String {
    let mut out = format!("{}\n", health.state);
    for problem in &health.problems {
        let _ = writeln!(out, "{problem}");
    }
    out
}

/// `gatewayctl drain` and its kin.
pub fn accepted(_: &Accepted) -> String {
    "accepted; `gatewayctl members` shows how it goes\n".into()
}

/// `gatewayctl redirect`.
pub fn redirected(answer: &Redirected) -> String {
    format!("{} peers were asked to go\n", answer.redirected)
}
