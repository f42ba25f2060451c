//! Answers as tables for humans, in the layout that users of `cphaprob` and `swanctl` know.

use std::fmt::Write;

use time::OffsetDateTime;

use super::model::{
    Checks, IkeSaInfo, LogLine, NegotiationEntry, Sas, Severity, Stats, Status, Table,
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
    line(&mut out, "Uptime", &seconds(status.uptime_seconds));
    line(
        &mut out,
        "IKE forwarding",
        &format!("{steering}, XDP {}", status.steering.mode),
    );
    for interface in &status.steering.interfaces {
        line(
            &mut out,
            "",
            &format!("{} {} {}", interface.name, interface.role, interface.mode),
        );
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
    let mut rows = vec![row([
        "Cookie",
        "Message ID",
        "Peer",
        "Member",
        "Slot",
        "State",
        "Age",
        "Expires",
    ])];
    rows.extend(table.negotiations.iter().map(negotiation));
    let mut out = format!("SEP_my_IKE_packet\n{}", columns(&rows));
    let mut rows = vec![row(["Cookie", "Slot", "Owner"])];
    rows.extend(table.ike_sas.iter().map(|entry| {
        vec![
            entry.cookie.clone(),
            entry.slot.to_string(),
            owner(entry.owner),
        ]
    }));
    let _ = write!(out, "\nIKE_SA\n{}", columns(&rows));
    let mut rows = vec![row(["SPI", "VIP", "Slot", "Owner"])];
    rows.extend(table.esp_sas.iter().map(|entry| {
        vec![
            entry.spi.clone(),
            entry.vip.clone(),
            entry.slot.to_string(),
            owner(entry.owner),
        ]
    }));
    let _ = write!(out, "\nESP_SA\n{}", columns(&rows));
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
        seconds(entry.age_seconds),
        seconds(entry.expires_in_seconds),
    ]
}

/// `gatewayctl sas`, in the layout of `swanctl --list-sas`.
pub fn sas(sas: &Sas) -> String {
    if sas.ike_sas.is_empty() {
        return "no IKE SA\n".into();
    }
    sas.ike_sas.iter().map(ike_sa).collect()
}

fn ike_sa(sa: &IkeSaInfo) -> String {
    let mut out = format!(
        "{}: ESTABLISHED, IKEv2, {}_i {}_r*, slot {}, member {}\n",
        sa.connection, sa.remote_spi, sa.local_spi, sa.slot, sa.owner
    );
    let nat = if sa.nat { ", NAT" } else { "" };
    let _ = writeln!(out, "  local  '{}' @ {}", sa.local_id, sa.local);
    let _ = writeln!(out, "  remote '{}' @ {}{nat}", sa.remote_id, sa.remote);
    let _ = writeln!(out, "  {}", sa.proposal);
    let _ = writeln!(out, "  established {} ago", seconds(sa.established_seconds));
    for child in &sa.children {
        let encap = if child.encap {
            "TUNNEL-in-UDP"
        } else {
            "TUNNEL"
        };
        let _ = writeln!(
            out,
            "  {}: INSTALLED, {encap}, {}",
            child.name, child.proposal
        );
        let _ = writeln!(
            out,
            "    in  {}, {} bytes, {} packets\n    out {}, {} bytes, {} packets",
            child.spi_in,
            child.bytes_in,
            child.packets_in,
            child.spi_out,
            child.bytes_out,
            child.packets_out
        );
        let _ = writeln!(out, "    local  {}", child.local_ts.join(" "));
        let _ = writeln!(out, "    remote {}", child.remote_ts.join(" "));
    }
    out
}

/// `gatewayctl stats`.
pub fn stats(stats: &Stats) -> String {
    let mut rows = vec![row(["Reason", "Packets", "Bytes"])];
    for (reason, count) in &stats.reasons {
        rows.push(vec![
            reason.clone(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    let mut out = columns(&rows);
    let mut rows = vec![row(["Member", "Forwarded", "Bytes", "Received", "Bytes"])];
    for (member, count) in &stats.members {
        rows.push(vec![
            member.to_string(),
            count.forwarded.packets.to_string(),
            count.forwarded.bytes.to_string(),
            count.received.packets.to_string(),
            count.received.bytes.to_string(),
        ]);
    }
    let _ = write!(out, "\n{}", columns(&rows));
    for (title, counts) in [("Engine", &stats.engine), ("Membership", &stats.membership)] {
        let mut rows = vec![row([title, "Count"])];
        rows.extend(
            counts
                .iter()
                .map(|(name, count)| vec![name.clone(), count.to_string()]),
        );
        let _ = write!(out, "\n{}", columns(&rows));
    }
    out
}

/// `gatewayctl check`.
pub fn checks(checks: &Checks) -> String {
    let mut out = String::new();
    for check in &checks.checks {
        let verdict = match check.severity {
            _ if check.ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
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
    out
}

pub(super) fn line(out: &mut String, label: &str, value: &str) {
    let colon = if label.is_empty() { ' ' } else { ':' };
    let _ = writeln!(out, "{:<20}{value}", format!("{label}{colon}"));
}

pub(super) fn mode(mode: crate::config::Mode) -> &'static str {
    match mode {
        crate::config::Mode::Ha => "High Availability",
        crate::config::Mode::LoadSharing => "Load Sharing",
    }
}

fn owner(member: u8) -> String {
    if member == 0 {
        "-".into()
    } else {
        member.to_string()
    }
}

pub(super) fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

pub(super) fn seconds(value: f64) -> String {
    format!("{value:.1}s")
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(String::len)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// A line of `gatewayctl log`: time in UTC, level, what it is about, what it says.
pub fn log_line(line: &LogLine) -> String {
    let time = OffsetDateTime::from_unix_timestamp((line.unix_ms / 1000).cast_signed());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let known = line.fields.iter().filter(|(_, value)| *value != "-");
    let about: String = known.fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, " {name}={value}");
        text
    });
    format!(
        "{} {:02}:{:02}:{:02}.{:03}Z {:5}{about} {}\n",
        time.date(),
        time.hour(),
        time.minute(),
        time.second(),
        line.unix_ms % 1000,
        line.level,
        line.text
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_says_when_and_about_what() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let line = LogLine {
            number: 1,
            unix_ms: 1_767_323_045_006,
            level: "warn".into(),
            text: "no proposal chosen".into(),
            fields: [field("connection", "site"), field("spi", "-")].into(),
        };
        assert_eq!(
            log_line(&line),
            "2026-01-02 03:04:05.006Z warn  connection=site no proposal chosen\n"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![row(["ID", "Name"]), row(["1 (local)", "a"])];
        assert_eq!(columns(&rows), "ID         Name\n1 (local)  a\n");
    }
}
