//! OpenMetrics.
//!
//! Everything is asked of the agent's loop when it is scraped, and nothing walks the SAs, unless
//! `rest.per_sa_metrics` is set.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::Rest;
use super::problem::Problem;
use crate::api::model::{
    Count, History, Members, PAGE, Pnotes, Request, SaPage, SaQuery, Stats, Status, SyncStatus,
    ViewStatus,
};

/// Media type of the text format (OpenMetrics 1.0).
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// IKE SAs with series of their own at most.
const PER_SA_MAX: usize = 20_000;
/// States of a member, of which one is 1.
const STATES: [&str; 10] = [
    "INIT",
    "READY",
    "STANDBY",
    "BACKUP",
    "ACTIVE",
    "ACTIVE(!)",
    "DOWN",
    "DYING",
    "LOST",
    "DEAD",
];

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "gateway",
    responses((status = 200, description = "All metrics", body = String,
        content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(rest): State<Rest>) -> Result<Response, Problem> {
    let mut text = Text::default();
    gateway(&mut text, &ask::<Status>(&rest, Request::Status).await?);
    let known = ask::<Members>(&rest, Request::Members).await?;
    data_path(
        &mut text,
        &ask::<Stats>(&rest, Request::Stats).await?,
        &known,
    );
    members(&mut text, &known);
    let view = ask::<ViewStatus>(&rest, Request::View).await?;
    let history = ask::<History>(&rest, Request::History).await?;
    cluster(&mut text, &view, &history);
    sync(&mut text, &ask::<SyncStatus>(&rest, Request::Sync).await?);
    pnotes(&mut text, &ask::<Pnotes>(&rest, Request::Pnotes).await?);
    if rest.shared.per_sa_metrics {
        sas(&mut text, &rest).await?;
    }
    text.0.push_str("# EOF\n");
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text.0).into_response())
}

async fn ask<T: DeserializeOwned>(rest: &Rest, request: Request) -> Result<T, Problem> {
    let value = rest.value(request).await?;
    serde_json::from_value(value).map_err(|_| Problem::unavailable())
}

/// The exposition so far.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a metric family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{separator}{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one gauge.
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of one counter.
    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    /// A family of counters by one label.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        let total = format!("{name}_total");
        for (text, value) in values {
            self.sample(&total, &[(label, text)], value);
        }
    }
}

/// OpenMetrics 1.0, "Escaping".
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn gateway(text: &mut Text, status: &Status) {
    text.gauge("ipsec_up", "The agent answers.", 1);
    text.gauge(
        "ipsec_uptime_seconds",
        "Time since the agent started.",
        status.uptime_seconds,
    );
    text.gauge(
        "ipsec_ike_sas",
        "Established IKE SAs that this member owns.",
        status.ike_sas,
    );
    text.gauge(
        "ipsec_half_open_ike_sas",
        "Half-open IKE SAs of this member.",
        status.half_open,
    );
    text.gauge(
        "ipsec_child_sas",
        "CHILD_SAs that this member owns.",
        status.child_sas,
    );
    text.gauge(
        "ipsec_negotiation_table_entries",
        "Entries of SEP_my_IKE_packet.",
        status.table.entries,
    );
    text.gauge(
        "ipsec_negotiation_table_max_entries",
        "Size of SEP_my_IKE_packet.",
        status.table.max_entries,
    );
    text.gauge(
        "ipsec_xdp_forwarding",
        "Whether XDP forwards.",
        u8::from(status.ike_forwarding),
    );
}

fn data_path(text: &mut Text, stats: &Stats, known: &Members) {
    let reasons = || stats.reasons.iter();
    text.counters(
        "ipsec_xdp_packets",
        "Frames by the reason that ended their way.",
        "verdict",
        reasons().map(|(reason, count)| (reason.as_str(), count.packets)),
    );
    text.counters(
        "ipsec_xdp_bytes",
        "Octets of these.",
        "verdict",
        reasons().map(|(reason, count)| (reason.as_str(), count.bytes)),
    );
    let by_member = |pick: fn(&crate::api::model::MemberCount) -> Count| {
        let members = stats.members.iter();
        let named = members.map(|(id, count)| (name_of(known, *id), pick(count)));
        named.collect::<Vec<_>>()
    };
    for (name, help, counts) in [
        (
            "ipsec_xdp_forwarded_packets",
            "Frames redirected to a member.",
            by_member(|count| count.forwarded),
        ),
        (
            "ipsec_xdp_received_packets",
            "Redirected frames received from a member.",
            by_member(|count| count.received),
        ),
    ] {
        let counts = counts.iter();
        let counts = counts.map(|(name, count)| (name.as_str(), count.packets));
        text.counters(name, help, "member", counts);
    }
    text.counters(
        "ipsec_ike_events",
        "What the IKE engine and the agent counted.",
        "event",
        stats.engine.iter().map(|(name, n)| (name.as_str(), *n)),
    );
    text.counters(
        "ipsec_cluster_membership_events",
        "What the membership and the heartbeats counted.",
        "event",
        stats.membership.iter().map(|(name, n)| (name.as_str(), *n)),
    );
}

/// What every series calls a member; its number if the configuration does not name it.
fn name_of(known: &Members, id: u8) -> String {
    let member = known.members.iter().find(|member| member.id == id);
    member.map_or_else(|| id.to_string(), |member| member.name.clone())
}

fn members(text: &mut Text, members: &Members) {
    const STATE: &str = "ipsec_cluster_member_state";
    text.family(STATE, "gauge", "1 for the state that a member is in.");
    for member in &members.members {
        // Flags (F, P) follow the state.
        let state = member.state.split(' ').next().unwrap_or_default();
        for known in STATES {
            let labels = [("member", member.name.as_str()), ("state", known)];
            text.sample(STATE, &labels, u8::from(known == state));
        }
    }
    const SLOTS: &str = "ipsec_cluster_member_slots";
    text.family(SLOTS, "gauge", "Slots that a member owns, of 256.");
    for member in &members.members {
        text.sample(SLOTS, &[("member", &member.name)], member.slots);
    }
}

fn cluster(text: &mut Text, view: &ViewStatus, history: &History) {
    text.counter(
        "ipsec_cluster_failovers",
        "Views in which slots got another owner.",
        history.failovers,
    );
    text.gauge("ipsec_cluster_epoch", "Number of the view.", view.epoch);
    text.gauge(
        "ipsec_cluster_active",
        "Whether this member serves its slots.",
        u8::from(view.active),
    );
    text.gauge(
        "ipsec_cluster_lease_seconds",
        "What is left of this member's transmit right.",
        view.lease_ms as f64 / 1e3,
    );
}

fn sync(text: &mut Text, sync: &SyncStatus) {
    text.gauge(
        "ipsec_cluster_sync_records",
        "IKE SAs of the cluster whose records are here.",
        sync.records,
    );
    text.gauge(
        "ipsec_cluster_sync_messages_held",
        "IKE messages that wait for acknowledgements.",
        sync.messages_held,
    );
    let mut peers = |name: &str, help: &str, pick: &dyn Fn(usize) -> f64| {
        text.family(name, "gauge", help);
        for (index, peer) in sync.peers.iter().enumerate() {
            text.sample(name, &[("member", &peer.name)], pick(index));
        }
    };
    let peer = |index: usize| &sync.peers[index];
    peers(
        "ipsec_cluster_sync_connected",
        "Whether the sync channel to a member is up.",
        &|index| f64::from(u8::from(peer(index).connected)),
    );
    peers(
        "ipsec_cluster_sync_lag_deltas",
        "Deltas that a member has not acknowledged.",
        &|index| peer(index).lag as f64,
    );
    peers(
        "ipsec_cluster_sync_lag_seconds",
        "Age of the oldest of these.",
        &|index| peer(index).lag_seconds,
    );
    peers(
        "ipsec_cluster_sync_round_trip_seconds",
        "Time from a delta to its acknowledgement; NaN before the first.",
        &|index| peer(index).round_trip_ms.map_or(f64::NAN, |ms| ms / 1e3),
    );
}

fn pnotes(text: &mut Text, pnotes: &Pnotes) {
    const NAME: &str = "ipsec_cluster_pnote_problem";
    text.family(NAME, "gauge", "1 for a critical device with a problem.");
    for pnote in &pnotes.pnotes {
        let labels = [("pnote", pnote.name.as_str())];
        text.sample(NAME, &labels, u8::from(pnote.state == "problem"));
    }
}

/// Picks a counter of a CHILD_SA.
type Pick = fn(&crate::api::model::ChildInfo) -> u64;

/// Series of each CHILD_SA that this member owns.
async fn sas(text: &mut Text, rest: &Rest) -> Result<(), Problem> {
    let local = ask::<Status>(rest, Request::Status).await?.member;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let query = SaQuery {
            after,
            limit: Some(PAGE),
            owner: Some(local),
            ..SaQuery::default()
        };
        let page: SaPage = ask(rest, Request::SaPage(query)).await?;
        found.extend(page.ike_sas);
        after = page.next;
        if after.is_none() || found.len() >= PER_SA_MAX {
            break;
        }
    }
    let families: [(&str, &str, Pick); 4] = [
        ("ipsec_child_sa_bytes_in", "Octets received.", |c| {
            c.bytes_in
        }),
        ("ipsec_child_sa_bytes_out", "Octets sent.", |c| c.bytes_out),
        ("ipsec_child_sa_packets_in", "Packets received.", |c| {
            c.packets_in
        }),
        ("ipsec_child_sa_packets_out", "Packets sent.", |c| {
            c.packets_out
        }),
    ];
    for (name, help, pick) in families {
        text.family(name, "counter", help);
        let total = format!("{name}_total");
        for sa in &found {
            for child in &sa.children {
                let labels = [
                    ("ike_sa_name", sa.connection.as_str()),
                    ("ike_sa_uid", &sa.local_spi),
                    ("ike_sa_remote_id", &sa.remote_id),
                    ("name", &child.name),
                    ("spi_in", &child.spi_in),
                ];
                text.sample(&total, &labels, pick(child));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a", &[("b", "c\"d\\e\nf"), ("g", "h")], 1);
        assert_eq!(text.0, "a{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 1\n");
        let mut text = Text::default();
        text.counter("n", "Help.", 2);
        assert_eq!(text.0, "# TYPE n counter\n# HELP n Help.\nn_total 2\n");
    }
}
