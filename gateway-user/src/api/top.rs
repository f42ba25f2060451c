//! What happens per second: the difference of two answers, for `gatewayctl top`.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::reason::{Action, Reason};
use serde::{Deserialize, Serialize};

use super::model::{Count, Members, PeerSync, Stats, Status, SyncStatus};

/// What an agent answered at a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When, on a clock that does not jump.
    pub at: Duration,
    /// The same moment in seconds since 1970.
    pub time: f64,
    /// The member at a glance.
    pub status: Status,
    /// Its counters.
    pub stats: Stats,
    /// The members.
    pub members: Members,
    /// The synchronisation.
    pub sync: SyncStatus,
}

/// A member and its rates. A rate is `null` if its counter began anew in between, or no time passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// When, in seconds since 1970.
    pub time: f64,
    /// Over how many seconds the rates are.
    pub interval_seconds: f64,
    /// The member's id.
    pub member: u8,
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its state.
    pub state: String,
    /// Number of the view.
    pub epoch: u64,
    /// Seconds since the agent started.
    pub uptime_seconds: f64,
    /// Slots that it owns, of 256.
    pub slots: usize,
    /// Established IKE SAs that it owns.
    pub ike_sas: usize,
    /// CHILD_SAs of these.
    pub child_sas: usize,
    /// Half-open IKE SAs.
    pub half_open: usize,
    /// IKE messages that wait for acknowledgements.
    pub messages_held: usize,
    /// Packets whose owner was found: `local` and `redirected` together.
    pub steered: Rate,
    /// Of these, this member's own.
    pub local: Rate,
    /// Of these, redirected to other members.
    pub redirected: Rate,
    /// Redirected packets that came from other members.
    pub received: Rate,
    /// Packets that a program dropped, the fence's included.
    pub dropped: Rate,
    /// Why, by the programs' reasons; those that did not happen are left out.
    pub drop_reasons: BTreeMap<String, Rate>,
    /// IKE exchanges per second: requests of peers and of ours.
    pub exchanges: Option<f64>,
    /// IKE SAs established per second.
    pub established: Option<f64>,
    /// All members.
    pub members: Vec<TopMember>,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets.
    pub packets: Option<f64>,
    /// Octets.
    pub bytes: Option<f64>,
}

/// A member as the asked one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopMember {
    /// Its id.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Whether it is the asked one.
    pub local: bool,
    /// Its state.
    pub state: String,
    /// Slots that it owns.
    pub slots: usize,
    /// Packets that the asked member redirected to it.
    pub redirected: Rate,
    /// Redirected packets that the asked member received from it.
    pub received: Rate,
    /// Whether the sync channel to it is up.
    pub connected: bool,
    /// Deltas that it has not acknowledged; `null` for the asked one.
    pub lag: Option<u64>,
    /// Age of the oldest of these, in seconds.
    pub lag_seconds: Option<f64>,
    /// Time from a delta to its acknowledgement, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Deltas per second that it acknowledged.
    pub deltas: Option<f64>,
}

/// What happened between two samples of one agent.
pub fn top(before: &Sample, after: &Sample) -> Top {
    let span = Span::of(before, after);
    let sum = |stats: &Stats, wanted: fn(Reason) -> bool| sum(stats, wanted);
    let rate = |wanted| span.rate(sum(&before.stats, wanted), sum(&after.stats, wanted));
    let status = &after.status;
    let received = |stats: &Stats| add(stats.members.values().map(|count| count.received));
    Top {
        time: after.time,
        interval_seconds: span.seconds,
        member: status.member,
        name: status.name.clone(),
        cluster: status.cluster.clone(),
        state: status.state.clone(),
        epoch: status.epoch,
        uptime_seconds: status.uptime_seconds,
        slots: status.slots_owned,
        ike_sas: status.ike_sas,
        child_sas: status.child_sas,
        half_open: status.half_open,
        messages_held: after.sync.messages_held,
        steered: rate(|reason| is_local(reason) || is_redirected(reason)),
        local: rate(is_local),
        redirected: rate(is_redirected),
        received: span.rate(received(&before.stats), received(&after.stats)),
        dropped: rate(is_dropped),
        drop_reasons: drops(&span, before, after),
        exchanges: span.engine(before, after, &["exchanges_processed", "requests_sent"]),
        established: span.engine(before, after, &["ike_sas_established"]),
        members: members(&span, before, after),
    }
}

/// The time between two samples.
struct Span {
    seconds: f64,
    /// The agent is the same run: its own counters went on.
    same_run: bool,
}

impl Span {
    fn of(before: &Sample, after: &Sample) -> Self {
        Self {
            seconds: after.at.saturating_sub(before.at).as_secs_f64(),
            same_run: after.status.uptime_seconds >= before.status.uptime_seconds,
        }
    }

    fn per_second(&self, before: u64, after: u64) -> Option<f64> {
        let more = after.checked_sub(before)?;
        (self.seconds > 0.0).then(|| more as f64 / self.seconds)
    }

    fn rate(&self, before: Count, after: Count) -> Rate {
        Rate {
            packets: self.per_second(before.packets, after.packets),
            bytes: self.per_second(before.bytes, after.bytes),
        }
    }

    fn engine(&self, before: &Sample, after: &Sample, names: &[&str]) -> Option<f64> {
        let sum = |stats: &Stats| {
            names
                .iter()
                .filter_map(|name| stats.engine.get(*name))
                .sum()
        };
        let rate = self.per_second(sum(&before.stats), sum(&after.stats));
        rate.filter(|_| self.same_run)
    }
}

/// The owner is this member. The fence's and the sync interface's programs see the same packets once
/// more and are left out.
const fn is_local(reason: Reason) -> bool {
    reason.is_own() || matches!(reason, Reason::InsideOwned)
}

const fn is_redirected(reason: Reason) -> bool {
    matches!(reason.action(), Action::Forward)
}

const fn is_dropped(reason: Reason) -> bool {
    matches!(reason.action(), Action::Drop)
}

fn sum(stats: &Stats, wanted: fn(Reason) -> bool) -> Count {
    let reasons = stats.reasons.iter();
    add(reasons
        .filter(|(word, _)| Reason::from_word(word).is_some_and(wanted))
        .map(|(_, count)| *count))
}

fn add(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

fn drops(span: &Span, before: &Sample, after: &Sample) -> BTreeMap<String, Rate> {
    let reasons = after.stats.reasons.iter();
    let dropped = reasons.filter(|(word, _)| Reason::from_word(word).is_some_and(is_dropped));
    dropped
        .map(|(word, count)| {
            let earlier = before.stats.reasons.get(word).copied().unwrap_or_default();
            (word.clone(), span.rate(earlier, *count))
        })
        .filter(|(_, rate)| rate.packets != Some(0.0))
        .collect()
}

fn members(span: &Span, before: &Sample, after: &Sample) -> Vec<TopMember> {
    let counts = |sample: &Sample, id: u8| {
        let count = sample.stats.members.get(&id);
        count.copied().unwrap_or_default()
    };
    let peer = |sample: &Sample, id: u8| -> Option<PeerSync> {
        sample.sync.peers.iter().find(|peer| peer.id == id).cloned()
    };
    let members = after.members.members.iter();
    members
        .map(|member| {
            let (old, new) = (counts(before, member.id), counts(after, member.id));
            let (was, is) = (peer(before, member.id), peer(after, member.id));
            let both = was.as_ref().zip(is.as_ref()).filter(|_| span.same_run);
            TopMember {
                id: member.id,
                name: member.name.clone(),
                local: member.local,
                state: member.state.clone(),
                slots: member.slots,
                redirected: span.rate(old.forwarded, new.forwarded),
                received: span.rate(old.received, new.received),
                connected: member.connected,
                lag: is.as_ref().map(|peer| peer.lag),
                lag_seconds: is.as_ref().map(|peer| peer.lag_seconds),
                round_trip_ms: is.as_ref().and_then(|peer| peer.round_trip_ms),
                deltas: both
                    .and_then(|(was, is)| span.per_second(was.acknowledged, is.acknowledged)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::model::MemberCount;
    use super::*;

    fn sample(seconds: u64, uptime: f64) -> Sample {
        let answer = |file: &str| -> serde_json::Value { serde_json::from_str(file).unwrap() };
        let of = |value: serde_json::Value| serde_json::from_value(value);
        let mut status: Status = of(answer(include_str!("../../tests/pages/status.json"))).unwrap();
        status.uptime_seconds = uptime;
        Sample {
            at: Duration::from_secs(seconds),
            time: 1000.0 + seconds as f64,
            status,
            stats: serde_json::from_value(
                json!({ "reasons": {}, "members": {}, "engine": {}, "membership": {} }),
            )
            .unwrap(),
            members: serde_json::from_value(answer(include_str!("../../tests/pages/members.json")))
                .unwrap(),
            sync: serde_json::from_value(answer(include_str!("../../tests/pages/sync.json")))
                .unwrap(),
        }
    }

    fn count(packets: u64) -> Count {
        Count {
            packets,
            bytes: packets * 100,
        }
    }

    fn with(mut sample: Sample, reasons: &[(Reason, u64)]) -> Sample {
        for (reason, packets) in reasons {
            let word = reason.as_str().to_owned();
            sample.stats.reasons.insert(word, count(*packets));
        }
        sample
    }

    #[test]
    fn packets_are_steered_once_and_per_second() {
        let before = with(sample(10, 50.0), &[(Reason::EspLocal, 10)]);
        let after = with(
            sample(12, 52.0),
            &[
                (Reason::EspLocal, 30),
                (Reason::InsideForwarded, 8),
                (Reason::IkeSaForwarded, 2),
                // Counted once more on the way out, and not steered at all.
                (Reason::FenceOwned, 1000),
                (Reason::AlreadyForwarded, 1000),
                (Reason::InsideAlreadyForwarded, 1000),
                (Reason::OtherTraffic, 1000),
                (Reason::FenceNotOwner, 4),
            ],
        );
        let top = top(&before, &after);
        assert_eq!(top.interval_seconds, 2.0);
        assert_eq!(top.local.packets, Some(10.0));
        assert_eq!(
            top.redirected,
            Rate {
                packets: Some(5.0),
                bytes: Some(500.0)
            }
        );
        assert_eq!(top.steered.packets, Some(15.0));
        assert_eq!(top.dropped.packets, Some(2.0));
        let reasons: Vec<_> = top.drop_reasons.keys().collect();
        assert_eq!(reasons, ["fence_not_owner"]);
    }

    #[test]
    fn members_have_their_own_rates() {
        let (before, mut after) = (sample(1, 1.0), sample(2, 2.0));
        let redirected = MemberCount {
            forwarded: count(7),
            received: count(3),
        };
        after.stats.members.insert(2, redirected);
        after.sync.peers[0].acknowledged += 5;
        let top = top(&before, &after);
        let member = |id: u8| top.members.iter().find(|m| m.id == id).unwrap();
        assert_eq!(member(2).redirected.packets, Some(7.0));
        assert_eq!(member(2).received.bytes, Some(300.0));
        assert_eq!((member(2).deltas, member(3).deltas), (Some(5.0), Some(0.0)));
        assert_eq!((member(1).lag, member(1).deltas), (None, None));
        assert_eq!(top.received.packets, Some(3.0));
    }

    #[test]
    fn a_restarted_agent_has_no_rates_rather_than_wrong_ones() {
        let engine = |n: u64| BTreeMap::from([("exchanges_processed".to_owned(), n)]);
        let (mut before, mut after) = (sample(1, 100.0), sample(2, 0.5));
        // More than before, and yet from zero.
        (before.stats.engine, after.stats.engine) = (engine(3), engine(5));
        assert_eq!(top(&before, &after).exchanges, None);
        after.status.uptime_seconds = 101.0;
        assert_eq!(top(&before, &after).exchanges, Some(2.0));
        // The programs' counters begin anew when their maps are made anew.
        let before = with(before, &[(Reason::EspLocal, 10)]);
        let after = with(after, &[(Reason::EspLocal, 1)]);
        assert_eq!(top(&before, &after).local.packets, None);
        assert_eq!(top(&before, &before).exchanges, None, "no time passed");
    }
}
