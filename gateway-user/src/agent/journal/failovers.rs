//! The failovers that this member saw, with the times that are known to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_cluster::view::View;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;

use crate::api::model::{Failover, FailoverCause, FailoverHistory, SlotMove};

/// Failovers that are kept.
const KEPT: usize = 64;

/// A member's last change of state.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Change {
    /// The state before.
    pub(in crate::agent) from: String,
    /// In words.
    pub(in crate::agent) reason: String,
    /// When this member saw it.
    pub(in crate::agent) at: Instant,
    /// How long the member had been silent then, if it was ever heard.
    pub(in crate::agent) silent: Option<Duration>,
    /// The state after, as shown.
    pub(in crate::agent) to: String,
    /// Whether a member in that state is in a view: then it is no reason for its loss.
    pub(in crate::agent) fit: bool,
}

/// What goes with a view beside itself.
#[derive(Debug, Default)]
pub(in crate::agent) struct Circumstances {
    /// No majority stands behind it.
    pub(in crate::agent) unsafe_takeover: bool,
    /// Members that are drained, or stop.
    pub(in crate::agent) drained: BTreeSet<MemberId>,
}

#[derive(Debug)]
pub(super) struct Failovers {
    local: MemberId,
    since: f64,
    total: u64,
    /// Newest last.
    kept: VecDeque<Failover>,
    changes: BTreeMap<MemberId, Change>,
    /// When the present view was installed.
    viewed: Option<Instant>,
    /// The view of the newest failover and when its clock began to run, until it is served here.
    unserved: Option<(u64, Instant)>,
}

impl Failovers {
    pub(super) fn new(local: MemberId) -> Self {
        Self {
            local,
            since: unix(),
            total: 0,
            kept: VecDeque::new(),
            changes: BTreeMap::new(),
            viewed: None,
            unserved: None,
        }
    }

    pub(super) fn history(&self) -> FailoverHistory {
        FailoverHistory {
            total: self.total,
            since: self.since,
            failovers: self.kept.iter().rev().cloned().collect(),
        }
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    pub(super) const fn since(&self) -> f64 {
        self.since
    }

    pub(super) fn last(&self) -> Option<&Failover> {
        self.kept.back()
    }

    /// The one that a view brought about.
    pub(super) fn of_view(&self, epoch: u64) -> Option<&Failover> {
        self.kept.iter().find(|failover| failover.epoch == epoch)
    }

    pub(super) fn last_change(&self, member: MemberId) -> Option<&Change> {
        self.changes.get(&member)
    }

    /// A member's state changed. One that was in a view longer for the others than for us explains
    /// the failover that came before.
    pub(super) fn change(&mut self, member: MemberId, change: Change) {
        if let Some(last) = self.kept.back_mut()
            && last.cause == FailoverCause::MemberLost
            && last.reason.is_empty()
            && !change.fit
            && last.moves.iter().any(|moved| moved.from == member.get())
        {
            last.reason = told(member, &change);
        }
        self.changes.insert(member, change);
    }

    /// A view follows another: what moved, if anything that had an owner did.
    pub(super) fn view(
        &mut self,
        now: Instant,
        before: &View,
        after: &View,
        circumstances: &Circumstances,
    ) -> Option<&Failover> {
        let seen_before = self.viewed.replace(now);
        self.unserved = None;
        let moves = moves(before, after);
        if moves.is_empty() {
            return None;
        }
        let cause = cause(before, after, &moves, &circumstances.drained);
        // What happened before the view before this one explains nothing.
        let recent = |id: u8| {
            let member = MemberId::new(id)?;
            let change = self.changes.get(&member)?;
            let new = seen_before.is_none_or(|at| change.at >= at);
            let explains = cause != FailoverCause::MemberLost || !change.fit;
            (new && explains).then_some((member, change))
        };
        let explained = moves.iter().find_map(|moved| recent(moved.from));
        let lost = explained.filter(|_| cause == FailoverCause::MemberLost);
        let detected = lost.map(|(_, change)| change.at);
        self.total += 1;
        let failover = Failover {
            number: self.total,
            time: unix(),
            epoch: after.epoch.0,
            slots: moves.iter().map(|moved| moved.slots).sum(),
            reason: match cause {
                FailoverCause::MemberJoined => joined(&moves),
                FailoverCause::Drained => String::new(),
                _ => explained.map_or_else(String::new, |(member, change)| told(member, change)),
            },
            cause,
            detected: detected.map(|at| unix() - (now - at).as_secs_f64()),
            silent_seconds: lost
                .and_then(|(_, change)| change.silent)
                .map(|silent| silent.as_secs_f64()),
            view_seconds: detected.map(|at| (now - at).as_secs_f64()),
            served_seconds: None,
            unsafe_takeover: circumstances.unsafe_takeover,
            moves,
        };
        let own = self.local.get();
        if failover.moves.iter().any(|moved| moved.to == own) {
            self.unserved = Some((failover.epoch, detected.unwrap_or(now)));
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(failover);
        self.kept.back()
    }

    /// This member serves its slots of the view of this epoch.
    pub(super) fn served(&mut self, now: Instant, epoch: u64) {
        let Some((_, begun)) = self.unserved.take_if(|(of, _)| *of == epoch) else {
            return;
        };
        if let Some(last) = self.kept.back_mut() {
            last.served_seconds = Some((now - begun).as_secs_f64());
        }
    }
}

/// Slots that had an owner and have another.
fn moves(before: &View, after: &View) -> Vec<SlotMove> {
    let mut counts: BTreeMap<(u8, u8), usize> = BTreeMap::new();
    for ((_, from), (_, to)) in before.slots.iter().zip(after.slots.iter()) {
        if let Some(from) = from
            && Some(from) != to
        {
            *counts
                .entry((from.get(), to.map_or(0, MemberId::get)))
                .or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|((from, to), slots)| SlotMove { from, to, slots })
        .collect()
}

fn cause(
    before: &View,
    after: &View,
    moves: &[SlotMove],
    drained: &BTreeSet<MemberId>,
) -> FailoverCause {
    let member = |id: u8| MemberId::new(id);
    let losers = || moves.iter().filter_map(|moved| member(moved.from));
    let gainers = || moves.iter().filter_map(|moved| member(moved.to));
    if losers().any(|id| drained.contains(&id)) {
        FailoverCause::Drained
    } else if losers().any(|id| !after.members.contains_key(&id)) {
        FailoverCause::MemberLost
    } else if gainers().all(|id| before.slots.owned_by(id) == 0)
        && losers().all(|id| after.slots.owned_by(id) > 0)
    {
        FailoverCause::MemberJoined
    } else {
        FailoverCause::HandedOver
    }
}

fn joined(moves: &[SlotMove]) -> String {
    let gainers: BTreeSet<u8> = moves.iter().map(|moved| moved.to).collect();
    let names: Vec<String> = gainers.iter().map(ToString::to_string).collect();
    format!("member {}", names.join(", "))
}

fn told(member: MemberId, change: &Change) -> String {
    format!("member {member} is {}: {}", change.to, change.reason)
}

fn unix() -> f64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use gateway_cluster::frame::Incarnation;
    use gateway_cluster::slot_map::SlotMap;
    use gateway_cluster::view::Epoch;
    use gateway_common::slot::Slot;

    use super::*;

    fn id(n: u8) -> MemberId {
        MemberId::new(n).unwrap()
    }

    /// A view of these members, each with a run of slots: `(member, slots)`.
    fn view(epoch: u64, shares: &[(u8, usize)]) -> View {
        let mut owners = [None; Slot::COUNT];
        let owned = shares
            .iter()
            .flat_map(|(member, slots)| std::iter::repeat_n(id(*member), *slots));
        for (place, owner) in owners.iter_mut().zip(owned) {
            *place = Some(owner);
        }
        View {
            epoch: Epoch(epoch),
            members: shares
                .iter()
                .map(|(member, _)| (id(*member), Incarnation(1)))
                .collect(),
            slots: SlotMap::from_owners(owners),
            ..View::default()
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn lost(ms: u64) -> Change {
        Change {
            from: "ACTIVE".into(),
            to: "LOST".into(),
            reason: "silent".into(),
            at: at(ms),
            silent: Some(Duration::from_millis(310)),
            fit: false,
        }
    }

    fn joined_view(ms: u64) -> Change {
        Change {
            from: "READY".into(),
            to: "ACTIVE".into(),
            reason: "view 1".into(),
            at: at(ms),
            silent: None,
            fit: true,
        }
    }

    #[test]
    fn a_lost_member_s_failover_has_its_times() {
        let mut failovers = Failovers::new(id(1));
        failovers.view(
            at(0),
            &View::default(),
            &view(1, &[(1, 128), (2, 128)]),
            &Circumstances::default(),
        );
        assert_eq!(failovers.total(), 0, "nobody had had them");
        failovers.change(id(2), lost(1000));
        let (before, after) = (view(1, &[(1, 128), (2, 128)]), view(2, &[(1, 256)]));
        failovers.view(at(1020), &before, &after, &Circumstances::default());
        // An earlier view's activation, that comes late, is not this one's.
        failovers.served(at(1025), 1);
        failovers.served(at(1030), 2);
        failovers.served(at(9999), 2);
        let last = failovers.last().unwrap();
        let moved = SlotMove {
            from: 2,
            to: 1,
            slots: 128,
        };
        assert_eq!((last.moves.as_slice(), last.slots), (&[moved][..], 128));
        assert_eq!(last.cause, FailoverCause::MemberLost);
        assert_eq!(last.reason, "member 2 is LOST: silent");
        let ms = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1e3).round());
        assert_eq!(ms(last.silent_seconds), Some(310.0));
        assert_eq!(ms(last.view_seconds), Some(20.0));
        assert_eq!(ms(last.served_seconds), Some(30.0));
    }

    #[test]
    fn a_view_that_is_there_before_its_reason_is_explained_later() {
        let mut failovers = Failovers::new(id(1));
        let (before, after) = (view(1, &[(1, 128), (2, 128)]), view(2, &[(1, 256)]));
        failovers.change(id(2), lost(10));
        failovers.view(at(20), &view(0, &[]), &before, &Circumstances::default());
        // It was told after the view that admitted it, and is no reason for what came then.
        failovers.change(id(2), joined_view(30));
        failovers.view(at(1020), &before, &after, &Circumstances::default());
        let last = failovers.last().unwrap();
        assert_eq!(
            (last.reason.as_str(), last.detected),
            ("", None),
            "that was long ago"
        );
        failovers.change(id(2), joined_view(1030));
        assert_eq!(failovers.last().unwrap().reason, "");
        failovers.change(id(2), lost(1040));
        assert_eq!(failovers.last().unwrap().reason, "member 2 is LOST: silent");
    }

    #[test]
    fn causes_are_told_apart() {
        let drained = |members: &[u8]| Circumstances {
            drained: members.iter().map(|n| id(*n)).collect(),
            unsafe_takeover: false,
        };
        let two = view(1, &[(1, 128), (2, 128)]);
        for (before, after, circumstances, cause) in [
            (
                &two,
                view(2, &[(1, 256), (2, 0)]),
                drained(&[2]),
                FailoverCause::Drained,
            ),
            (
                &two,
                view(2, &[(1, 256), (2, 0)]),
                drained(&[]),
                FailoverCause::HandedOver,
            ),
            (
                &two,
                view(2, &[(1, 256)]),
                drained(&[]),
                FailoverCause::MemberLost,
            ),
            (
                &view(1, &[(1, 256)]),
                view(2, &[(1, 128), (2, 128)]),
                drained(&[]),
                FailoverCause::MemberJoined,
            ),
            // HA mode: the other member has all of them.
            (
                &view(1, &[(1, 256), (2, 0)]),
                view(2, &[(1, 0), (2, 256)]),
                drained(&[]),
                FailoverCause::HandedOver,
            ),
        ] {
            let mut failovers = Failovers::new(id(1));
            let told = failovers
                .view(at(1), before, &after, &circumstances)
                .unwrap();
            assert_eq!(told.cause, cause, "{:?}", told.moves);
        }
    }

    #[test]
    fn the_history_is_bounded() {
        let mut failovers = Failovers::new(id(1));
        for epoch in 1..=100 {
            let (one, other) = (view(epoch, &[(1, 256)]), view(epoch + 1, &[(2, 256)]));
            failovers.view(at(epoch), &one, &other, &Circumstances::default());
        }
        let history = failovers.history();
        assert_eq!((history.total, history.failovers.len()), (100, KEPT));
        assert_eq!(history.failovers[0].number, 100);
    }
}
