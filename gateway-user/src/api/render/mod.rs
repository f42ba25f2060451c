//! Answers as tables for humans, in the layout that users of `cphaprob` and `swanctl` know.

pub mod cluster;
pub mod connections;
pub mod explain;
pub mod failovers;
mod listing;
mod text;
pub mod top;

pub use listing::SaListing;

use std::collections::BTreeMap;
use std::fmt::Write;

use self::text::{columns, duration, line, mode, moment_ms, owner, row, table_or, yes_no};
use super::model::{
    Checks, ChildInfo, IkeSaInfo, Interfaces, LogLine, NegotiationEntry, Sas, Severity, Stats,
    Status, SteeredInterface, Table,
};

/// `gatewayctl status`.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let steering = if status.ike_forwarding { "on" } else { "off" };
    line(
        &mut out,
        "Cluster",
        &format!("{} ({})", status.cluster, mode(status.mode)),
    );
    line(
        &mut out,
        "Member",
        &format!("{} ({}), {}", status.member, status.name, status.state),
    );
    line(&mut out, "View", &status.epoch.to_string());
    line(&mut out, "Uptime", &duration(status.uptime_seconds));
    line(
        &mut out,
        "IKE forwarding",
        &format!("{steering}, XDP {}", status.steering.mode),
    );
    let interfaces = status.steering.interfaces.iter();
    let rows: Vec<_> = interfaces
        .map(|interface| row([&interface.name, &interface.role, &interface.mode]))
        .collect();
    for interface in columns(&rows).lines() {
        line(&mut out, "", interface);
    }
    line(
        &mut out,
        "Slots owned",
        &format!("{} of 256", status.slots_owned),
    );
    line(
        &mut out,
        "SAs",
        &format!(
            "{} IKE, {} CHILD, {} half-open",
            status.ike_sas, status.child_sas, status.half_open
        ),
    );
    let table = status.table;
    line(
        &mut out,
        "SEP_my_IKE_packet",
        &format!("{} of {}", table.entries, table.max_entries),
    );
    line(
        &mut out,
        "Members connected",
        &status.peers_connected.to_string(),
    );
    line(&mut out, "Version", &status.version);
    out
}

/// `gatewayctl table`.
pub fn table(table: &Table) -> String {
    const NOTHING: &str = "no entries";
    let mut rows = vec![row([
        "Cookie",
        "Message ID",
        "Peer",
        ">Member",
        ">Slot",
        "State",
        ">Age",
        ">Expires",
    ])];
    rows.extend(table.negotiations.iter().map(negotiation));
    let mut out = format!("SEP_my_IKE_packet\n{}", table_or(&rows, NOTHING));
    let mut rows = vec![row(["Cookie", ">Slot", ">Owner"])];
    rows.extend(table.ike_sas.iter().map(|entry| {
        vec![
            entry.cookie.clone(),
            entry.slot.to_string(),
            owner(entry.owner),
        ]
    }));
    let _ = write!(out, "\nIKE_SA\n{}", table_or(&rows, NOTHING));
    let mut rows = vec![row(["SPI", "VIP", ">Slot", ">Owner"])];
    rows.extend(table.esp_sas.iter().map(|entry| {
        vec![
            entry.spi.clone(),
            entry.vip.clone(),
            entry.slot.to_string(),
            owner(entry.owner),
        ]
    }));
    let _ = write!(out, "\nESP_SA\n{}", table_or(&rows, NOTHING));
    out
}

fn negotiation(entry: &NegotiationEntry) -> Vec<String> {
    vec![
        entry.cookie.clone(),
        entry
            .message_id
            .as_str()
            .map_or_else(|| entry.message_id.to_string(), str::to_owned),
        entry.peer.clone().unwrap_or_else(|| "-".into()),
        entry.member.to_string(),
        entry.slot.to_string(),
        entry.state.clone(),
        duration(entry.age_seconds),
        duration(entry.expires_in_seconds),
    ]
}

/// `gatewayctl sas`, in the layout of `swanctl --list-sas`.
pub fn sas(sas: &Sas) -> String {
    if sas.ike_sas.is_empty() {
        return NO_SAS.into();
    }
    sas.ike_sas.iter().map(ike_sa).collect()
}

/// What is shown if there is none.
const NO_SAS: &str = "no IKE SA\n";

/// The star stands at our own SPI.
fn ike_sa(sa: &IkeSaInfo) -> String {
    let spis = if sa.initiator {
        format!("{}_i* {}_r", sa.local_spi, sa.remote_spi)
    } else {
        format!("{}_i {}_r*", sa.remote_spi, sa.local_spi)
    };
    let serves = match sa.owner {
        0 => "nobody".to_owned(),
        member => format!("member {member}"),
    };
    let mut out = format!(
        "{}: ESTABLISHED, IKEv2, {spis}, slot {}, {serves}\n",
        sa.connection, sa.slot
    );
    let nat = if sa.nat { ", NAT" } else { "" };
    let _ = writeln!(out, "  local  '{}' @ {}", sa.local_id, sa.local);
    let _ = writeln!(out, "  remote '{}' @ {}{nat}", sa.remote_id, sa.remote);
    let _ = writeln!(out, "  {}", sa.proposal);
    let mut times = format!("established {} ago", duration(sa.established_seconds));
    for (what, seconds) in [
        ("rekeying", sa.rekey_seconds),
        ("reauth", sa.reauth_seconds),
    ] {
        if let Some(seconds) = seconds {
            let _ = write!(times, ", {what} in {}", duration(seconds));
        }
    }
    let _ = writeln!(out, "  {times}");
    sa.children
        .iter()
        .for_each(|child| child_sa(&mut out, child));
    out
}

fn child_sa(out: &mut String, child: &ChildInfo) {
    let encap = if child.encap {
        "TUNNEL-in-UDP"
    } else {
        "TUNNEL"
    };
    let _ = writeln!(
        out,
        "  {}: reqid {}, INSTALLED, {encap}, {}",
        child.name, child.reqid, child.proposal
    );
    let mut times = format!("installed {} ago", duration(child.installed_seconds));
    if let Some(seconds) = child.rekey_seconds {
        let _ = write!(times, ", rekeying in {}", duration(seconds));
    }
    let _ = writeln!(
        out,
        "    {times}, expires in {}",
        duration(child.life_seconds)
    );
    let idle = child.idle_seconds.map_or_else(String::new, |seconds| {
        format!(", {} ago", duration(seconds as f64))
    });
    let _ = writeln!(
        out,
        "    in  {}, {} bytes, {} packets{idle}\n    out {}, {} bytes, {} packets",
        child.spi_in,
        child.bytes_in,
        child.packets_in,
        child.spi_out,
        child.bytes_out,
        child.packets_out
    );
    let _ = writeln!(out, "    local  {}", child.local_ts.join(" "));
    let _ = writeln!(out, "    remote {}", child.remote_ts.join(" "));
    let marks = [("in", &child.mark_in), ("out", &child.mark_out)];
    for (direction, mark) in marks {
        if let Some(mark) = mark {
            let _ = writeln!(out, "    mark {direction} {mark}");
        }
    }
}

/// `gatewayctl stats`.
pub fn stats(stats: &Stats) -> String {
    let mut rows = vec![row(["Reason", ">Packets", ">Bytes"])];
    for (reason, count) in &stats.reasons {
        rows.push(vec![
            reason.clone(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    let mut out = table_or(&rows, "no frames were counted");
    let mut rows = vec![row([
        "Member",
        ">Redirected to",
        ">Bytes",
        ">Received from",
        ">Bytes",
    ])];
    for (member, count) in &stats.members {
        rows.push(vec![
            member.to_string(),
            count.forwarded.packets.to_string(),
            count.forwarded.bytes.to_string(),
            count.received.packets.to_string(),
            count.received.bytes.to_string(),
        ]);
    }
    let nothing = "no frames were redirected to or received from other members";
    let _ = write!(out, "\n{}", table_or(&rows, nothing));
    for (title, counts) in [("Engine", &stats.engine), ("Membership", &stats.membership)] {
        let _ = write!(out, "\n{}", counters(title, counts));
    }
    out
}

fn counters(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut rows = vec![row([title, ">Count"])];
    rows.extend(
        counts
            .iter()
            .map(|(name, count)| vec![name.clone(), count.to_string()]),
    );
    table_or(&rows, &format!("{title}: no counters"))
}

/// `gatewayctl check`.
pub fn checks(checks: &Checks) -> String {
    let mut out = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for check in &checks.checks {
        let verdict = match check.severity {
            _ if check.ok => "ok",
            Severity::Warning => {
                warnings += 1;
                "warning"
            }
            Severity::Error => {
                errors += 1;
                "error"
            }
        };
        let _ = writeln!(
            out,
            "{verdict:8} {} {}: {}",
            check.name, check.subject, check.message
        );
        if !check.ok && !check.fix.is_empty() {
            let _ = writeln!(out, "         fix: {}", check.fix);
        }
    }
    let _ = writeln!(
        out,
        "{} checks: {errors} errors, {warnings} warnings",
        checks.checks.len()
    );
    out
}

/// `gatewayctl interfaces`, as `cphaprob -a if` shows them.
pub fn interfaces(interfaces: &Interfaces) -> String {
    let with = |role: &str| {
        let all = interfaces.interfaces.iter();
        all.filter(|interface| interface.role == role).count()
    };
    let mut out = String::new();
    let _ = writeln!(out, "Required interfaces: {}", interfaces.interfaces.len());
    let _ = writeln!(out, "Required secured interfaces: {}\n", with("sync"));
    let mut rows = vec![row([
        "Interface Name",
        "Status",
        "Role",
        "Secured",
        "Members heard",
        "XDP",
        "Fence",
    ])];
    rows.extend(interfaces.interfaces.iter().map(interface));
    out.push_str(&table_or(&rows, "no interfaces are steered"));
    let _ = writeln!(
        out,
        "\nVirtual cluster addresses: {}",
        interfaces.vips.len()
    );
    for vip in &interfaces.vips {
        let _ = writeln!(out, "   {vip}");
    }
    out
}

fn interface(interface: &SteeredInterface) -> Vec<String> {
    let status = match interface.up {
        Some(true) => "UP",
        Some(false) => "DOWN",
        None => "not monitored",
    };
    let heard = interface.heard_seconds.map_or_else(
        || "-".into(),
        |seconds| format!("{} ago", duration(seconds)),
    );
    vec![
        interface.name.clone(),
        status.into(),
        interface.role.clone(),
        yes_no(interface.role == "sync").into(),
        heard,
        interface.mode.clone(),
        interface.fence.clone().unwrap_or_else(|| "none".into()),
    ]
}

/// A line of `gatewayctl log`: time in UTC, level, what it is about, what it says.
pub fn log_line(line: &LogLine) -> String {
    let known = line.fields.iter().filter(|(_, value)| *value != "-");
    let about: String = known.fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, " {name}={value}");
        text
    });
    format!(
        "{} {:5}{about} {}\n",
        moment_ms(line.unix_ms),
        line.level,
        line.text
    )
}
