//! What a fault cost, and whether that is allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use gateway_common::reason::{Action, Reason};
use serde::Serialize;

use super::rig::{Fences, Record, Rig};
use crate::lab::{Evidence, Fault, Moment, Probes, patience, probe_interval, wait_until};

/// The peer's anti-replay window: strongSwan's default.
const WINDOW: u32 = 32;

/// What was measured, in the words of the failover bench.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What happened.
    pub fault: &'static str,
    /// IKE SAs that were up.
    pub sas: usize,
    /// From the fault to the survivors' judgement, by their logs: the first that calls the victim
    /// lost, or decides on a view without it. `None` for what is planned.
    pub detected_ms: Option<f64>,
    /// From the fault until router and inside host sent nothing to the victim any more, where that
    /// is the lab's doing: a part of the gap that is not the cluster's.
    pub withdrawn_ms: Option<f64>,
    /// The longest silence of a tunnel of the victim's.
    pub gap_ms: Option<f64>,
    /// The longest silence of the other tunnels.
    pub others_gap_ms: Option<f64>,
    /// How often each tunnel was probed: a silence is known to within this.
    pub probe_interval_ms: f64,
    /// Probes sent over all tunnels.
    pub probes: usize,
    /// Of them without an answer.
    pub probes_lost: usize,
    /// IKE SAs of the peers that are gone.
    pub lost_ike_sas: usize,
    /// Negotiations that the peers began anew.
    pub new_ike_sa_inits: usize,
    /// Packets that the peers' ESP refused for their sequence numbers.
    pub replay_drops_at_peer: u64,
    /// (SPI, sequence number) pairs that were sent twice.
    pub repeated_sequence_numbers: usize,
    /// ESP packets captured.
    pub esp_captured: usize,
    /// Outbound SAs that went from one member to another.
    pub moved_sas: usize,
    /// What the fences dropped, by reason.
    pub fenced: BTreeMap<String, u64>,
}

/// A fault as it happened.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Hit {
    pub(in super::super) fault: Fault,
    pub(in super::super) victim: u8,
    pub(in super::super) at: Moment,
    /// How often an SA may change hands: there, and back again if the victim was healed.
    pub(in super::super) moves: usize,
}

impl Outcome {
    /// Adds up what was seen.
    pub(in super::super) fn of(rig: &Rig, hit: Hit, record: &Record) -> Result<Self> {
        let Record {
            evidence, probes, ..
        } = record;
        let mine = rig.sites_of(hit.victim);
        let worst = |of_victim: bool| {
            let chosen = probes
                .iter()
                .filter(|one| mine.contains(&one.site) == of_victim);
            chosen
                .map(|one| milliseconds(one.longest_silence().0))
                .reduce(f64::max)
        };
        let after = rig.lab.peer.ike_sas()?;
        let lost = rig.before.keys().filter(|site| !after.contains_key(*site));
        let counted = rig.refused_by_peer()?.saturating_sub(rig.replay_drops);
        Ok(Self {
            fault: hit.fault.as_str(),
            sas: rig.before.len(),
            detected_ms: rig.detected(hit),
            withdrawn_ms: rig.withdrawn.map(|at| milliseconds(at.since(hit.at))),
            gap_ms: worst(true),
            others_gap_ms: worst(false),
            probe_interval_ms: milliseconds(probe_interval()),
            probes: probes.iter().map(|one| one.sent.len()).sum(),
            probes_lost: probes.iter().map(Probes::lost).sum(),
            lost_ike_sas: lost.count(),
            new_ike_sa_inits: evidence.new_negotiations(Moment(0)),
            replay_drops_at_peer: counted.max(evidence.refused_by_window(WINDOW) as u64),
            repeated_sequence_numbers: evidence.repeated().len(),
            esp_captured: evidence.esp_packets(),
            moved_sas: evidence.moved_spis(),
            fenced: fenced(&record.fences),
        })
    }

    /// Asserts what must hold whatever the fault.
    pub(in super::super) fn require(&self, hit: Hit, record: &Record) -> Result<()> {
        let evidence = &record.evidence;
        let brief = self.brief();
        ensure!(
            self.new_ike_sa_inits == 0,
            "a peer had to begin anew: {brief}"
        );
        ensure!(self.lost_ike_sas == 0, "IKE SAs were lost: {brief}");
        ensure!(
            self.replay_drops_at_peer == 0,
            "the peer refused packets: {brief}"
        );
        nothing_repeated(evidence)?;
        // A machine that starves its members makes more views than there are faults.
        let relapses = evidence.relapses(hit.moves);
        ensure!(
            relapses.is_empty() || patience() > 1,
            "SAs went to and fro: {relapses:?}"
        );
        nothing_leaked(record)?;
        answered_in_the_end(&record.probes).with_context(|| brief.clone())?;
        ensure!(self.moved_sas > 0, "no SA was seen to move: {brief}");
        let malformed = Reason::FenceMalformed.as_str();
        ensure!(
            !self.fenced.contains_key(malformed),
            "the fence took good packets for malformed: {brief}"
        );
        // A host that was replaced has counters of its own; behind a cut cable the device drops
        // what the fence let pass.
        if !hit.fault.upstream_knows() {
            every_drop_is_counted(record).with_context(|| brief.clone())?;
        }
        Ok(())
    }

    /// One line.
    pub(super) fn brief(&self) -> String {
        let time = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        format!(
            "{}: {} SAs, detected {}, routes withdrawn {}, gap {} (others {}), {} of {} probes lost, {} INIT, {} SAs lost, \
             {} replays, {} repeated of {} ESP, {} moved, fence {:?}",
            self.fault,
            self.sas,
            time(self.detected_ms),
            time(self.withdrawn_ms),
            time(self.gap_ms),
            time(self.others_gap_ms),
            self.probes_lost,
            self.probes,
            self.new_ike_sa_inits,
            self.lost_ike_sas,
            self.replay_drops_at_peer,
            self.repeated_sequence_numbers,
            self.esp_captured,
            self.moved_sas,
            self.fenced,
        )
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Rig {
    /// When a survivor's log first said that the victim is out, since the fault.
    fn detected(&self, hit: Hit) -> Option<f64> {
        if hit.fault.is_planned() {
            return None;
        }
        let members = self.lab.cluster.members.iter();
        let survivors = members.filter(|member| member.id != hit.victim);
        let moments = survivors.filter_map(|member| member.judged_since(hit.victim, hit.at));
        moments
            .min()
            .map(|moment| milliseconds(moment.since(hit.at)))
    }

    /// Every site's IKE SA is owned by one member that lives. The members are asked one after the
    /// other, and a slot may move in between: only what stays is a failure.
    pub(super) fn one_owner_each(&self, hit: Hit) -> Result<()> {
        let mut found = Err(anyhow!("nobody was asked"));
        let sites = usize::from(self.sites);
        let settled = wait_until(Duration::from_secs(5), "one owner of each site", || {
            found = self.lab.owners();
            Ok(found.as_ref().is_ok_and(|owners| owners.len() == sites))
        });
        let owners = found.context("who owns what after the fault")?;
        settled.with_context(|| {
            format!(
                "{} of {sites} sites have an owner after {} of member {}",
                owners.len(),
                hit.fault,
                hit.victim
            )
        })
    }
}

/// No member sent what it or another had sent.
pub(super) fn nothing_repeated(evidence: &Evidence) -> Result<()> {
    let repeated = evidence.repeated();
    ensure!(
        repeated.is_empty(),
        "{} (SPI, sequence) pairs were used twice, such as {:?}",
        repeated.len(),
        repeated[0]
    );
    Ok(())
}

/// Nothing between the protected networks left in clear.
fn nothing_leaked(record: &Record) -> Result<()> {
    let leaked = record.evidence.leaked();
    ensure!(
        leaked.is_empty() || !record.policies,
        "{} cleartext packets left, first {:?}",
        leaked.len(),
        leaked[0]
    );
    Ok(())
}

/// Every tunnel carries traffic at the end: its last probes were answered.
pub(super) fn answered_in_the_end(probes: &[Probes]) -> Result<()> {
    for one in probes {
        let last = one.answered.iter().rev().take(5);
        ensure!(
            last.flatten().count() >= 3,
            "the tunnel of site {} is silent at the end: {} of {} probes lost",
            one.site + 1,
            one.lost(),
            one.sent.len()
        );
    }
    Ok(())
}

/// What the kernels encrypted either left, as the captures show, or was counted by the fence; and
/// nothing left that the fence did not let pass.
fn every_drop_is_counted(record: &Record) -> Result<()> {
    let [before, begun, ending, after] = &record.fences;
    for (id, produced) in &record.produced {
        let passed = |from: &Fences, to: &Fences| grown(from, to, *id, Reason::FenceOwned.as_str());
        let (least, most) = (passed(begun, ending), passed(before, after));
        let left = record.evidence.sent_by(*id);
        ensure!(
            (least..=most).contains(&left),
            "member {id}: its fence passed {least} to {most} packets, {left} were captured"
        );
        let drops = Reason::ALL.iter().filter(|reason| is_drop(reason.as_str()));
        let dropped: u64 = drops
            .map(|reason| grown(before, after, *id, reason.as_str()))
            .sum();
        ensure!(
            *produced <= left + dropped,
            "member {id}: of {produced} ESP packets {left} left and {dropped} were counted as dropped"
        );
    }
    Ok(())
}

/// How much a counter of a member's fence has grown.
fn grown(from: &Fences, to: &Fences, member: u8, reason: &str) -> u64 {
    let of = |fences: &Fences| {
        fences
            .get(&member)
            .and_then(|counts| counts.get(reason))
            .copied()
            .unwrap_or(0)
    };
    of(to).saturating_sub(of(from))
}

/// What the fences dropped, by reason, over all members.
fn fenced([before, .., after]: &[Fences; 4]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (id, counts) in after {
        for reason in counts.keys().filter(|reason| is_drop(reason)) {
            let drops = grown(before, after, *id, reason);
            if drops > 0 {
                *sum.entry((*reason).to_owned()).or_default() += drops;
            }
        }
    }
    sum
}

fn is_drop(reason: &str) -> bool {
    Reason::from_word(reason).is_some_and(|reason| reason.action() == Action::Drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(owned: u64, lease: u64) -> Fences {
        let counts = [
            ("fence_owned", owned),
            ("fence_lease_over", lease),
            ("fence_other", 9),
        ];
        BTreeMap::from([(1, BTreeMap::from(counts))])
    }

    fn record(produced: u64, fences: [Fences; 4]) -> Record {
        Record {
            evidence: Evidence::default(),
            probes: Vec::new(),
            produced: BTreeMap::from([(1, produced)]),
            fences,
            policies: true,
        }
    }

    #[test]
    fn packets_that_vanish_are_noticed() {
        let counted = [fences(5, 1), fences(5, 1), fences(5, 4), fences(5, 4)];
        assert!(every_drop_is_counted(&record(3, counted.clone())).is_ok());
        assert!(
            every_drop_is_counted(&record(4, counted.clone())).is_err(),
            "one too many was produced"
        );
        assert_eq!(
            fenced(&counted),
            BTreeMap::from([("fence_lease_over".to_owned(), 3)])
        );
        let passed = [fences(5, 1), fences(5, 1), fences(6, 1), fences(6, 1)];
        assert!(
            every_drop_is_counted(&record(0, passed)).is_err(),
            "one passed and was not captured"
        );
    }
}
