//! What can happen to a member.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use super::cluster::Cluster;
use super::network::{Cable, Network};
use super::run::Run;
use super::tap::Moment;

/// TCP port of the sync channel.
pub const SYNC: u16 = 4514;
/// UDP port of the heartbeats.
pub const HEARTBEATS: u16 = 4515;

/// A fault, as a value. Each hits one member, the victim; two of them also the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent dies, the host goes on: its kernel, its programs and its links are still there.
    Sigkill,
    /// The agent stops without dying, as one that hangs; it can be woken up.
    Sigstop,
    /// The host is gone from one moment to the next: agent and all links.
    MemberRemoved,
    /// The cable to the other members is cut, the others are whole.
    SyncCut,
    /// The cable to the router is cut.
    PublicCut,
    /// `gatewayctl drain`.
    Drain,
    /// SIGTERM, then another run of the agent on the same host.
    Upgrade,
    /// The agent dies, and so does the next one as soon as its slots are served again.
    TwoInARow,
    /// The host is gone, and a new one takes its place: the same id, nothing kept.
    Replaced,
    /// Every network between the members is cut at one; the router still reaches it.
    Isolated,
    /// A member hears no heartbeat any more; the others hear its own.
    Deaf,
    /// No heartbeat of a member reaches the others; it hears theirs.
    Mute,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Sigkill,
        Self::Sigstop,
        Self::MemberRemoved,
        Self::SyncCut,
        Self::PublicCut,
        Self::Drain,
        Self::Upgrade,
        Self::TwoInARow,
        Self::Replaced,
        Self::Isolated,
        Self::Deaf,
        Self::Mute,
    ];

    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sigkill => "sigkill",
            Self::Sigstop => "sigstop",
            Self::MemberRemoved => "member-removed",
            Self::SyncCut => "sync-cut",
            Self::PublicCut => "public-cut",
            Self::Drain => "drain",
            Self::Upgrade => "upgrade",
            Self::TwoInARow => "two-in-a-row",
            Self::Replaced => "replaced",
            Self::Isolated => "isolated",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
        }
    }

    /// Whether the router loses the carrier to the victim, and so knows at once.
    pub fn upstream_knows(self) -> bool {
        matches!(self, Self::MemberRemoved | Self::Replaced | Self::PublicCut)
    }

    /// Whether the victim lives on without a lease: nothing may leave it once the last has ended.
    pub fn ends_the_lease(self) -> bool {
        matches!(
            self,
            Self::Sigkill | Self::Sigstop | Self::Isolated | Self::Deaf | Self::Mute
        )
    }

    /// Whether the victim hands its slots over itself.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Drain | Self::Upgrade)
    }

    /// Whether it hits a second member.
    pub fn is_double(self) -> bool {
        self == Self::TwoInARow
    }

    /// Lets it happen to `victim`; returns when. What takes commands that no packet notices has
    /// happened when they are done: the last renewal of a lease may have come until then.
    ///
    /// # Errors
    /// The member does not do what is asked of it, or was not in the state for it.
    pub fn inject(self, cluster: &mut Cluster, network: &Network, victim: u8) -> Result<Moment> {
        let at = Moment::now();
        let member = cluster.member_mut(victim)?;
        match self {
            Self::Sigkill | Self::TwoInARow => member.kill(),
            Self::Sigstop => member.process().signal(libc::SIGSTOP)?,
            Self::MemberRemoved | Self::Replaced => {
                // Stopped first, so that it sees nothing of how its links go one after the other.
                member.process().signal(libc::SIGSTOP)?;
                network.unplug(victim)?;
                member.kill();
            }
            Self::SyncCut => network.cable(victim, Cable::Sync, false)?,
            Self::PublicCut => network.cable(victim, Cable::Public, false)?,
            Self::Isolated => {
                silence(network, victim, &["input", "output"])?;
                network.cable(victim, Cable::Sync, false)?;
                network.cable(victim, Cable::Inside, false)?;
            }
            Self::Deaf => silence(network, victim, &["input"])?,
            Self::Mute => silence(network, victim, &["output"])?,
            Self::Drain => {
                let output = member.gatewayctl(&["drain"])?;
                ensure!(
                    output.status.success(),
                    "gatewayctl drain: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Self::Upgrade => member.stop()?,
        }
        if matches!(self, Self::Isolated | Self::Deaf | Self::Mute) {
            return Ok(Moment::now());
        }
        Ok(at)
    }

    /// Makes the victim whole again and waits until its agent answers; what it does then is the
    /// cluster's business. `generation` tells the hosts apart that replace each other.
    ///
    /// # Errors
    /// It does not come back.
    pub fn heal(
        self,
        cluster: &mut Cluster,
        network: &mut Network,
        run: &Run,
        victim: u8,
        generation: u32,
    ) -> Result<()> {
        match self {
            Self::Sigstop => cluster.member_mut(victim)?.process().signal(libc::SIGCONT),
            Self::SyncCut => network.cable(victim, Cable::Sync, true),
            Self::PublicCut => network.cable(victim, Cable::Public, true),
            Self::Isolated => {
                network.member(victim)?.nft("delete table inet silence")?;
                network.cable(victim, Cable::Sync, true)?;
                network.cable(victim, Cable::Inside, true)
            }
            Self::Deaf | Self::Mute => network.member(victim)?.nft("delete table inet silence"),
            Self::Drain => {
                let output = cluster.member(victim.into())?.gatewayctl(&["undrain"])?;
                if !output.status.success() {
                    bail!(
                        "gatewayctl undrain: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
                Ok(())
            }
            Self::MemberRemoved | Self::Replaced => {
                network.replace(run, victim, generation)?;
                let node = network.member(victim)?;
                cluster
                    .member_mut(victim)?
                    .move_to(node)
                    .context("the new host")
            }
            Self::Sigkill | Self::TwoInARow | Self::Upgrade => {
                let node = network.member(victim)?;
                cluster.member_mut(victim)?.restart(node)
            }
        }
    }
}

/// Drops the heartbeats that a member receives ("input") or sends ("output").
fn silence(network: &Network, victim: u8, hooks: &[&str]) -> Result<()> {
    let chains: String = hooks
        .iter()
        .map(|hook| {
            format!(
                "chain {hook} {{ type filter hook {hook} priority 0;\nudp dport {HEARTBEATS} drop\n}}\n"
            )
        })
        .collect();
    network
        .member(victim)?
        .nft(&format!("table inet silence {{ {chains} }}"))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
