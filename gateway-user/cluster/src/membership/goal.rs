//! Which view there should be.

use std::collections::BTreeMap;

use gateway_common::member::MemberId;

use super::wire::{Basis, Heartbeat};
use super::{MemberSet, Membership};
use crate::frame::Incarnation;
use crate::slot_map::{Mode, SlotMap, Weighted};
use crate::view::{SyncReport, Tenures, View};

/// Connected members, by id.
struct Graph([MemberSet; 64]);

impl Graph {
    const fn neighbours(&self, member: MemberId) -> MemberSet {
        self.0[member.get() as usize]
    }

    const fn degree(&self, member: MemberId) -> usize {
        self.neighbours(member).len()
    }
}

impl Membership {
    /// The view that should follow, if it is another one than the present: the members that hear
    /// each other, are in sync with each other and have no more problems than the others.
    pub(super) fn goal(&self, basis: Basis) -> Option<View> {
        let mut members = self.best_members(basis);
        if let Basis::After(_) = basis {
            members = self.without_newcomers(members);
        }
        let mut runs = BTreeMap::new();
        for member in members.iter() {
            runs.insert(member, self.run_of(member)?);
        }
        if runs.is_empty() {
            return None;
        }
        let view = View {
            epoch: self.view.epoch.next(),
            slots: self.spread(members),
            members: runs,
            tenures: Tenures::default(),
        };
        let view = self.after_halves(view.following(&self.view));
        let changes = view.members != self.view.members || view.slots != self.view.slots;
        (changes || basis == Basis::Cold).then_some(view)
    }

    /// Somebody comes in or somebody leaves, never both at once: who comes in has not heard all that
    /// the one that leaves has told the others.
    fn without_newcomers(&self, members: MemberSet) -> MemberSet {
        let stay: MemberSet = members.iter().filter(|m| self.is_in_view(*m)).collect();
        if stay.is_empty() || stay.len() == self.view.members.len() {
            members
        } else {
            stay
        }
    }

    /// Members that are all connected to each other: who is heard first, because whom another one
    /// misses may be dead already; then who was level in the latest view, because who has come in and
    /// was never level may lack what others have; then this member, those of the present view, those
    /// with the most connections, the lowest ids.
    fn best_members(&self, basis: Basis) -> MemberSet {
        let mut all = self.usable(basis);
        let inside = all.iter().filter(|member| self.is_in_view(*member));
        let fewest_inside = inside.map(|member| self.problems_of(member)).min();
        // With a problem nobody comes in, unless all that are in are worse off.
        let fits = |member: &MemberId| {
            let problems = self.problems_of(*member);
            self.is_in_view(*member)
                || problems == 0
                || fewest_inside.is_none_or(|inside| problems < inside)
        };
        all = all.iter().filter(fits).collect();
        let fewest = all.iter().map(|member| self.problems_of(member)).min();
        let graph = self.graph(all);
        let mut order: Vec<_> = all
            .iter()
            .filter(|member| Some(self.problems_of(*member)) == fewest)
            .map(|member| {
                let outside = !self.is_in_view(member);
                let degree = graph.degree(member);
                // No view is live in a cold start: whoever was level in the latest one has most.
                let counts = !outside || basis == Basis::Cold;
                let report = self.report_of(member).filter(|_| counts);
                let levelled = report.map_or(0, |report| report.levelled.0);
                (
                    self.is_overdue(member),
                    u64::MAX - levelled,
                    member != self.config.local,
                    outside,
                    usize::MAX - degree,
                    member,
                )
            })
            .collect();
        order.sort_unstable();
        let mut chosen = MemberSet::EMPTY;
        for (.., member) in order {
            if chosen.is_subset(graph.neighbours(member)) {
                chosen.insert(member);
            }
        }
        chosen
    }

    /// Whether two heartbeats of `member` are missing: it may be dead, and not LOST yet.
    fn is_overdue(&self, member: MemberId) -> bool {
        let bound = self.config.timing.heartbeat * 5 / 2;
        let heard = self.peers.get(&member).map(|peer| peer.heard);
        heard.is_some_and(|heard| heard.is_none_or(|heard| self.now > heard + bound))
    }

    /// Members that may be in the next view if they fit together.
    fn usable(&self, basis: Basis) -> MemberSet {
        let local = self.config.local;
        let mut all: MemberSet = self
            .heard()
            .iter()
            .filter(|member| {
                if basis == Basis::Cold {
                    return self.said(*member).is_some_and(|said| said.cold);
                }
                // Outsiders have to fit to this member; members of the view need not, if it is this
                // member that shall leave.
                self.is_in_view(*member) || self.connected(*member, local)
            })
            .collect();
        all.insert(local);
        let leaving = |member: &MemberId| {
            self.said(*member).is_some_and(|said| said.stopping)
                || (*member == local && self.control.stopping)
        };
        all.iter().filter(|member| !leaving(member)).collect()
    }

    fn spread(&self, members: MemberSet) -> SlotMap {
        let configured = self.config.members.iter();
        let mut live: Vec<Weighted> = configured
            .filter(|weighted| members.contains(weighted.member))
            .copied()
            .collect();
        let drained: MemberSet = members.iter().filter(|m| self.is_drained(*m)).collect();
        if drained != members {
            self.drain(&mut live, drained);
        }
        match self.config.mode {
            Mode::LoadSharing => self.view.slots.next(&live, Mode::LoadSharing),
            Mode::HighAvailability => {
                let preferred = self.control.preference.to;
                self.view
                    .slots
                    .next_active(&live, self.config.failback, preferred)
            }
        }
    }

    /// The drained own nothing; their heirs have their share.
    fn drain(&self, live: &mut [Weighted], drained: MemberSet) {
        for member in drained.iter() {
            let heir = self.heir_of(member).filter(|heir| !drained.contains(*heir));
            let at = |who: MemberId| live.iter().position(|weighted| weighted.member == who);
            let (Some(from), to) = (at(member), heir.and_then(at)) else {
                continue;
            };
            let weight = std::mem::take(&mut live[from].weight);
            if let Some(to) = to {
                live[to].weight = live[to].weight.saturating_add(weight);
            }
        }
    }

    /// How many members that would rather propose there are.
    pub(super) fn rank(&self, basis: Basis) -> u32 {
        let all = self.usable(basis);
        let graph = self.graph(all);
        let key = |member: MemberId| {
            let idle = self.said(member).is_some_and(|said| said.frozen);
            let degree = usize::MAX - graph.degree(member);
            (idle, self.problems_of(member), degree, member)
        };
        let own = key(self.config.local);
        let better = all.iter().filter(|member| {
            let votes = basis == Basis::Cold || self.is_in_view(*member);
            votes && key(*member) < own
        });
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    /// Who of `all` is connected with whom.
    fn graph(&self, all: MemberSet) -> Graph {
        let mut graph = Graph([MemberSet::EMPTY; 64]);
        for a in all.iter() {
            for b in all.iter().filter(|b| *b > a) {
                if self.connected(a, b) {
                    graph.0[usize::from(a.get())].insert(b);
                    graph.0[usize::from(b.get())].insert(a);
                }
            }
        }
        graph
    }

    /// Whether two members can be in one view: they hear each other and are in sync.
    pub(super) fn connected(&self, a: MemberId, b: MemberId) -> bool {
        self.hears(a, b) && self.hears(b, a) && self.in_sync(a, b) && self.in_sync(b, a)
    }

    fn hears(&self, who: MemberId, whom: MemberId) -> bool {
        if who == self.config.local {
            self.peers.get(&whom).is_some_and(|peer| peer.alive)
        } else {
            self.said(who).is_some_and(|said| said.heard.contains(whom))
        }
    }

    /// Whether `a` misses nothing of what `b` has: within the view unless one says that the other
    /// lags, else if `a` is complete and `b` has seen it catch up; a member of the view knows what it
    /// has to tell once it is level.
    fn in_sync(&self, a: MemberId, b: MemberId) -> bool {
        let (Some(of_a), Some(of_b)) = (self.report_of(a), self.report_of(b)) else {
            return false;
        };
        if self.is_in_view(a) && self.is_in_view(b) {
            return !of_b.lagging.contains(&a);
        }
        let knows = !self.is_in_view(b) || of_b.levelled == self.view.epoch;
        knows && of_a.complete_from.contains(&b) && of_b.caught_up.contains(&a)
    }

    pub(super) fn is_in_view(&self, member: MemberId) -> bool {
        self.run_of(member)
            .is_some_and(|run| self.is_admitted(&self.view, member, run))
    }

    fn run_of(&self, member: MemberId) -> Option<Incarnation> {
        if member == self.config.local {
            Some(self.config.incarnation)
        } else {
            self.peers.get(&member)?.incarnation
        }
    }

    pub(super) fn said(&self, member: MemberId) -> Option<&Heartbeat> {
        self.peers.get(&member).map(|peer| &peer.said)
    }

    fn report_of(&self, member: MemberId) -> Option<&SyncReport> {
        if member == self.config.local {
            Some(&self.report)
        } else {
            self.said(member).map(|said| &said.sync)
        }
    }

    pub(super) fn problems_of(&self, member: MemberId) -> u8 {
        if member == self.config.local {
            self.pnotes.problems(self.now).0
        } else {
            self.said(member).map_or(0, |said| said.problems)
        }
    }

    fn is_drained(&self, member: MemberId) -> bool {
        if member == self.config.local {
            self.control.drained
        } else {
            self.said(member).is_some_and(|said| said.drained)
        }
    }

    fn heir_of(&self, member: MemberId) -> Option<MemberId> {
        if member == self.config.local {
            self.control.heir
        } else {
            self.said(member)?.heir
        }
    }
}
