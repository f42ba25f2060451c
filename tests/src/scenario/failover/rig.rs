//! A cluster with tunnels and traffic, watched from all sides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::Context;
use super::super::harness::{Lab, Wishes};
use crate::lab::{
    self, Evidence, Fault, Moment, PeerSa, Plan, Probes, Spray, StandIn, Taps, Traffic, Tunnel,
    VIP, patience, probe_interval, wait_until,
};

/// Tunnels of a failover scenario.
pub(super) const SITES: u16 = 20;
/// How many negotiations run at the same time when the tunnels are brought up.
const WORKERS: usize = 4;

/// What fences counted: member → reason → packets.
pub(in super::super) type Fences = BTreeMap<u8, BTreeMap<&'static str, u64>>;

/// A lab whose tunnels are up, and what was true before anything happened.
pub(in super::super) struct Rig {
    pub(in super::super) lab: Lab,
    pub(in super::super) sites: u16,
    /// Site → owner.
    pub(in super::super) owners: BTreeMap<String, u8>,
    /// Site → the peer's IKE SAs.
    pub(in super::super) before: BTreeMap<String, Vec<PeerSa>>,
    /// What the peer's ESP had refused.
    pub(in super::super) replay_drops: u64,
    /// When router and inside host had stopped sending to the last victim.
    pub(super) withdrawn: Option<Moment>,
    taps: Option<Taps>,
    traffic: Option<Traffic>,
    stand_ins: BTreeMap<u8, StandIn>,
    produced: BTreeMap<u8, u64>,
    fences: [Fences; 2],
}

/// What traffic and captures came to.
pub(in super::super) struct Record {
    pub(in super::super) evidence: Evidence,
    pub(in super::super) probes: Vec<Probes>,
    /// ESP packets that each member encrypted.
    pub(in super::super) produced: BTreeMap<u8, u64>,
    /// What the fences counted before and after the captures began, before and after they ended.
    pub(in super::super) fences: [Fences; 4],
    /// Kernel policies hold cleartext back; those that stand in for ESP have none.
    pub(in super::super) policies: bool,
}

impl Rig {
    /// Brings everything up but the traffic.
    pub(in super::super) fn start(context: &Context, name: &str, wishes: &Wishes) -> Result<Self> {
        let lab = Lab::start(context, name, wishes)?;
        if !wishes.plan.segment {
            lab.network.spray(Spray::PerPacket)?;
        }
        lab.wait_serving(&lab.member_ids())?;
        let sites = wishes.plan.sites;
        let names: Vec<String> = (1..=sites).map(|number| format!("site-{number}")).collect();
        lab.initiate_all(&names, WORKERS)?;
        lab.wait_tables(sites.into(), sites.into())?;
        if wishes.mixed {
            lab::mixed_indeed(&lab.peer.log(), sites)?;
        }
        Self::adopt(lab, sites)
    }

    /// Watches a lab in which the tunnels of the first `sites` sites are up.
    pub(in super::super) fn adopt(lab: Lab, sites: u16) -> Result<Self> {
        let owners = lab.owners()?;
        ensure!(owners.len() == usize::from(sites), "owners: {owners:?}");
        let mut rig = Self {
            sites,
            owners,
            before: lab.peer.ike_sas()?,
            replay_drops: 0,
            withdrawn: None,
            taps: None,
            traffic: None,
            stand_ins: BTreeMap::new(),
            produced: BTreeMap::new(),
            fences: Default::default(),
            lab,
        };
        rig.fences[0] = rig.count_fences()?;
        rig.taps = Some(Taps::start(&rig.lab.network)?);
        rig.fences[1] = rig.count_fences()?;
        rig.replay_drops = rig.refused_by_peer()?;
        rig.produced = rig.count_produced()?;
        Ok(rig)
    }

    /// Starts the probes: through the kernel's ESP, or through stand-ins where it has none.
    pub(in super::super) fn start_traffic(&mut self) -> Result<()> {
        let network = &self.lab.network;
        self.traffic = Some(if self.lab.kernel_esp {
            Traffic::start(network, self.sites, probe_interval())?
        } else {
            let sas = self.lab.cluster.ike_sas()?;
            let tunnels = sas.iter().map(|(_, sa)| Tunnel::of(sa));
            let tunnels = tunnels.collect::<Result<Vec<_>>>()?;
            for (id, node) in (1u8..).zip(&network.members) {
                self.stand_ins.insert(id, StandIn::start(node, &tunnels)?);
            }
            Traffic::synthetic(network, &tunnels, probe_interval())?
        });
        self.go_on(Duration::from_secs(1));
        Ok(())
    }

    /// Ends traffic and captures, in this order.
    pub(in super::super) fn finish(&mut self) -> Result<Record> {
        let probes = self
            .traffic
            .take()
            .map_or(Ok(Vec::new()), Traffic::finish)?;
        let mut produced = self.count_produced()?;
        for (id, count) in &mut produced {
            *count = count.saturating_sub(self.produced.get(id).copied().unwrap_or(0));
        }
        self.stand_ins.clear();
        let [before, begun] = self.fences.clone();
        let ending = self.count_fences()?;
        let taps = self.taps.take().context("the captures have ended")?;
        let evidence = taps.finish()?;
        let fences = [before, begun, ending, self.count_fences()?];
        Ok(Record {
            evidence,
            probes,
            produced,
            fences,
            policies: self.lab.kernel_esp,
        })
    }

    /// Also captures on a member that has come back with new interfaces.
    pub(in super::super) fn tap(&mut self, member: u8) -> Result<()> {
        let node = self.lab.network.member(member)?;
        if let Some(taps) = &mut self.taps {
            taps.add_member(member, node)?;
        }
        Ok(())
    }

    /// Lets the traffic run.
    #[allow(
        clippy::unused_self,
        reason = "it is this rig's traffic that runs meanwhile"
    )]
    pub(in super::super) fn go_on(&self, time: Duration) {
        std::thread::sleep(time * patience().min(3));
    }

    /// The member that owns most tunnels.
    pub(in super::super) fn busiest(&self) -> Result<u8> {
        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
        for owner in self.owners.values() {
            *counts.entry(*owner).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        Ok(most.context("no tunnel has an owner")?.0)
    }

    /// The sites (0-based) that `member` owned at the beginning.
    pub(in super::super) fn sites_of(&self, member: u8) -> BTreeSet<u16> {
        let number = |name: &str| {
            name.strip_prefix("site-")?
                .parse::<u16>()
                .ok()?
                .checked_sub(1)
        };
        let of = self.owners.iter().filter(|(_, owner)| **owner == member);
        of.filter_map(|(name, _)| number(name)).collect()
    }

    /// Lets a fault happen and takes the routers out of the victim's way, as far as they know of
    /// it; waits until its slots are served by others. Returns when it happened. `dead` are members
    /// that were hit before.
    pub(in super::super) fn hit(
        &mut self,
        fault: Fault,
        victim: u8,
        dead: &[u8],
    ) -> Result<Moment> {
        let at = fault.inject(&mut self.lab.cluster, &self.lab.network, victim)?;
        let mut left = self.lab.member_ids();
        left.retain(|id| *id != victim && !dead.contains(id));
        if fault.upstream_knows() {
            self.withdraw(&left)?;
            self.withdrawn.get_or_insert_with(Moment::now);
        }
        self.wait_lost(victim, &left)
            .with_context(|| format!("after {fault} of member {victim}"))?;
        // What a health check of the routing daemon does: a member that is out is not sent to.
        if !fault.upstream_knows() && !fault.is_planned() {
            self.withdraw(&left)?;
            self.withdrawn.get_or_insert_with(Moment::now);
        }
        Ok(at)
    }

    /// Makes router and inside host send to these members only.
    /// Where addresses move, there is nothing to do.
    pub(in super::super) fn withdraw(&self, left: &[u8]) -> Result<()> {
        if self.lab.network.plan.segment {
            return Ok(());
        }
        self.lab.network.spray_among(left)?;
        self.lab.network.inside_among(left)
    }

    /// Waits until all of `left` say that `victim` owns nothing.
    fn wait_lost(&self, victim: u8, left: &[u8]) -> Result<()> {
        let what = format!("members {left:?} to own the slots of member {victim}");
        wait_until(Duration::from_secs(10), &what, || {
            for id in left {
                let slots = self.lab.slots_seen_by(*id)?;
                if slots.get(&victim).copied().unwrap_or(0) > 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Waits until every member owns slots again, as every member says.
    pub(in super::super) fn wait_whole(&self) -> Result<()> {
        self.lab.wait_serving(&self.lab.member_ids())?;
        self.withdraw(&self.lab.member_ids())
    }

    /// What the peer's ESP refused because of its sequence number.
    pub(in super::super) fn refused_by_peer(&self) -> Result<u64> {
        Ok(lab::replay_drops(&self.lab.network.peer)? + self.lab.peer.replays_refused())
    }

    /// How many packets a member's fence dropped for `reason` since the beginning.
    pub(in super::super) fn fence_drops(&self, member: u8, reason: &str) -> Result<u64> {
        let now = lab::fence(self.lab.network.member(member)?)?;
        let before = self.fences[0]
            .get(&member)
            .and_then(|counts| counts.get(reason));
        let now = now.get(reason).copied().unwrap_or(0);
        Ok(now.saturating_sub(before.copied().unwrap_or(0)))
    }

    /// What the agents say was counted is what their programs' maps say.
    pub(super) fn agents_tell_what_was_counted(&self) -> Result<()> {
        for (id, node) in (1u8..).zip(&self.lab.network.members) {
            let before = lab::reasons(node)?;
            let told = self.lab.cluster.member(id.into())?.ask("stats")?;
            let after = lab::reasons(node)?;
            for (reason, most) in after {
                let least = before.get(reason).copied().unwrap_or(0);
                let told = told["reasons"][reason]["packets"].as_u64().unwrap_or(0);
                ensure!(
                    (least..=most).contains(&told),
                    "member {id} says {told} for {reason}, its programs counted {least} to {most}"
                );
            }
        }
        Ok(())
    }

    /// What the members' kernels, or those that stand in for them, encrypted.
    fn count_produced(&self) -> Result<BTreeMap<u8, u64>> {
        let mut found = BTreeMap::new();
        for (id, node) in (1u8..).zip(&self.lab.network.members) {
            let count = if self.lab.kernel_esp {
                lab::produced(node, &VIP.to_string())?.values().sum()
            } else {
                self.stand_ins.get(&id).map_or(0, StandIn::produced)
            };
            found.insert(id, count);
        }
        Ok(found)
    }

    fn count_fences(&self) -> Result<Fences> {
        let nodes = (1u8..).zip(&self.lab.network.members);
        nodes
            .map(|(id, node)| Ok((id, lab::fence(node)?)))
            .collect()
    }
}

/// Three members, twenty tunnels.
pub(super) fn plan() -> Plan {
    Plan {
        sites: SITES,
        ..Plan::default()
    }
}
