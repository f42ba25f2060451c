//! Answers about the membership and the synchronisation.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use gateway_cluster::membership::{self, PnoteState};
use gateway_cluster::status::PeerStatus;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;

use super::Agent;
use super::membership::Snapshot;
use super::notices::takes_traffic;
use crate::api::model::{
    Health, LinkStatus, MemberStatus, Members, PeerSync, Pnote, Pnotes, SyncStatus, ViewMember,
    ViewStatus,
};
use crate::clock;

impl Agent {
    pub(super) fn members(&self) -> Members {
        let now = clock::now();
        let snapshot = self.membership.snapshot();
        let peers: BTreeMap<MemberId, PeerStatus> = self
            .node
            .status()
            .cluster
            .peers
            .into_iter()
            .map(|peer| (peer.member, peer))
            .collect();
        let members = self.config.cluster.members.keys().map(|id| {
            let heard = snapshot.status.members.iter().find(|m| m.member == *id);
            self.member(now, *id, &snapshot, heard, peers.get(id))
        });
        let (failovers, failovers_since, last_failover) = self.journal.last_failover();
        Members {
            mode: self.config.cluster.mode,
            failback: self.config.cluster.failback,
            epoch: self.node.view().epoch.0,
            problems: problems(&snapshot),
            members: members.collect(),
            failovers,
            failovers_since,
            last_failover: last_failover.cloned(),
        }
    }

    fn member(
        &self,
        now: Instant,
        id: MemberId,
        snapshot: &Snapshot,
        heard: Option<&membership::MemberStatus>,
        peer: Option<&PeerStatus>,
    ) -> MemberStatus {
        let configured = &self.config.cluster.members[&id];
        let local = id == self.config.cluster.local;
        let links = heard.map_or(&[][..], |heard| &heard.links[..]).iter();
        MemberStatus {
            id: id.get(),
            name: configured.name.clone(),
            local,
            sync_address: configured.sync_address.to_string(),
            state: heard.map_or_else(|| "INIT".into(), |heard| heard.shown.to_string()),
            connected: local || peer.is_some_and(|peer| peer.connected),
            in_sync: local || peer.is_some_and(|peer| peer.in_sync),
            slots: self.node.view().slots.owned_by(id),
            sent: peer.map_or(0, |peer| peer.sent.0),
            acknowledged: peer.map_or(0, |peer| peer.acknowledged.0),
            received: peer.map_or(0, |peer| peer.counters.deltas_received),
            epoch: heard.map_or(0, |heard| heard.epoch.0),
            run: heard.map_or_else(String::new, |heard| format!("{:x}", heard.incarnation.0)),
            previous_state: self
                .journal
                .last_change(id)
                .map(|change| change.from.clone()),
            last_change_seconds: heard.map(|heard| (now - heard.last_change).as_secs_f64()),
            reason: heard.map_or_else(String::new, |heard| heard.reason.clone()),
            problems: heard.map_or(0, |heard| heard.problems),
            drained: heard.is_some_and(|heard| heard.drained),
            config_differs: heard.is_some_and(|heard| heard.config_differs),
            load: heard.map_or(0, |heard| heard.load),
            links: links
                .map(|(link, age)| LinkStatus {
                    name: link_name(snapshot, *link),
                    heard_seconds: age.as_secs_f64(),
                })
                .collect(),
        }
    }

    pub(super) fn view(&self) -> ViewStatus {
        let view = self.node.view();
        let snapshot = self.membership.snapshot();
        let status = &snapshot.status;
        ViewStatus {
            epoch: view.epoch.0,
            admitted: status.admitted,
            active: status.active,
            lease_ms: (self.membership.lease() - clock::now()).as_millis() as u64,
            unsafe_takeover: status.unsafe_takeover,
            real_time: snapshot.real_time,
            witness_heard_seconds: status.witness_age.map(|age| age.as_secs_f64()),
            members: view
                .members
                .iter()
                .map(|(id, incarnation)| ViewMember {
                    id: id.get(),
                    run: format!("{:x}", incarnation.0),
                    slots: view.slots.owned_by(*id),
                })
                .collect(),
            slots: view
                .slots
                .iter()
                .map(|(_, owner)| owner.map_or(0, MemberId::get))
                .collect(),
        }
    }

    pub(super) fn pnotes(&self) -> Pnotes {
        let snapshot = self.membership.snapshot();
        let pnotes = snapshot.status.pnotes.iter().map(|pnote| Pnote {
            name: pnote.name.clone(),
            state: state_name(pnote.state).into(),
            reason: pnote.reason.clone(),
            age_seconds: pnote.age.as_secs_f64(),
            timeout_seconds: pnote.timeout.map(|timeout| timeout.as_secs_f64()),
        });
        Pnotes {
            pnotes: pnotes.collect(),
        }
    }

    pub(super) fn sync(&self) -> SyncStatus {
        let status = self.node.status();
        let cluster = status.cluster;
        let now = clock::now();
        SyncStatus {
            epoch: cluster.epoch.0,
            levelled: cluster.levelled.0,
            published: cluster.published.0,
            released: cluster.released.0,
            retained_deltas: cluster.retained.0,
            retained_bytes: cluster.retained.1,
            peak_deltas: cluster.peaks.deltas,
            peak_bytes: cluster.peaks.octets,
            messages_held: status.held,
            records: status.ike_sas,
            record_bytes: status.record_octets,
            bytes_sent: self.transport.counters().bytes_out.load(Ordering::Relaxed),
            bytes_received: self.transport.counters().bytes_in.load(Ordering::Relaxed),
            peers: cluster
                .peers
                .iter()
                .map(|p| self.peer_sync(now, p))
                .collect(),
        }
    }

    fn peer_sync(&self, now: Instant, peer: &PeerStatus) -> PeerSync {
        let member = peer.member;
        let counters = &peer.counters;
        PeerSync {
            id: member.get(),
            name: self.config.cluster.members[&member].name.clone(),
            connected: peer.connected,
            in_sync: peer.in_sync,
            complete: peer.complete,
            sent: peer.sent.0,
            acknowledged: peer.acknowledged.0,
            lag: peer.lag.deltas,
            lag_bytes: peer.lag.octets,
            lag_seconds: peer
                .lag
                .since
                .map_or(0.0, |since| (now - since).as_secs_f64()),
            peak_deltas: peer.peaks.deltas,
            peak_bytes: peer.peaks.octets,
            received: peer.received.map_or(0, |position| position.seq.0),
            round_trip_ms: peer.round_trip.map(|time| time.as_secs_f64() * 1e3),
            connections: counters.connections,
            resumptions: counters.resumptions,
            deltas_resent: counters.deltas_resent,
            snapshots_sent: counters.snapshots_sent,
            snapshots_received: counters.snapshots_received,
            last_full_sync: peer.last_full_sync.map(|reason| reason.to_string()),
            lagged: counters.lagged,
            nudged: counters.nudged,
            last_error: self.transport.last_error(member),
        }
    }

    pub(super) fn health(&self) -> Health {
        let (state, shown) = self.own_state();
        Health {
            state: shown,
            healthy: takes_traffic(state),
            problems: problems(&self.membership.snapshot()),
        }
    }

    /// Counters of the membership and of its sockets.
    pub(super) fn membership_counts(&self) -> BTreeMap<String, u64> {
        let snapshot = self.membership.snapshot();
        let (counted, sockets) = (snapshot.status.counters, snapshot.heartbeats);
        let all = [
            ("views", counted.views),
            ("unsafe_takeovers", counted.unsafe_takeovers),
            ("freezes", counted.freezes),
            ("lease_ends", counted.lease_ends),
            ("heartbeats", counted.heartbeats),
            ("malformed", counted.malformed),
            ("old_incarnation", counted.old_incarnation),
            ("replayed", counted.replayed),
            ("datagrams_received", sockets.received),
            ("datagrams_sent", sockets.sent),
            ("datagrams_foreign", sockets.foreign),
            ("datagrams_unknown_key", sockets.unknown_key),
            ("datagrams_forged", sockets.forged),
            ("datagrams_without_key", sockets.no_key),
            ("send_errors", sockets.send_errors),
        ];
        all.map(|(name, n)| (name.to_owned(), n)).into()
    }
}

/// Critical devices that are not fine, each with its reason.
fn problems(snapshot: &Snapshot) -> Vec<String> {
    let pnotes = snapshot.status.pnotes.iter();
    pnotes
        .filter(|pnote| pnote.state != PnoteState::Ok)
        .map(|pnote| match pnote.reason.as_str() {
            "" => pnote.name.clone(),
            reason => format!("{}: {reason}", pnote.name),
        })
        .collect()
}

const fn state_name(state: PnoteState) -> &'static str {
    match state {
        PnoteState::Ok => "ok",
        PnoteState::Problem => "problem",
        PnoteState::Init => "init",
    }
}

fn link_name(snapshot: &Snapshot, link: membership::LinkId) -> String {
    let found = snapshot.links.get(usize::from(link.0));
    found.map_or_else(|| format!("#{}", link.0), |(name, _)| name.clone())
}
