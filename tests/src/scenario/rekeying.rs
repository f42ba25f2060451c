//! Rekeying under traffic: by the gateway, by the peer, by both at the same moment. No packet is lost.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::libreswan::{hint, peer_connection, peer_secret};
use crate::lab::{
    Charon, Cluster, ClusterSettings, Network, Node, Plan, Pluto, PlutoSettings, Probes, Run,
    Settings, Spray, Traffic, patience, refusals, site_connection, wait_until, xfrm_errors,
};

/// The peer's connection.
const SITE: &str = "site-1";
/// The members' connection.
const SITES: &str = "sites";
/// Between two probes, each of which goes there and back: 50 a second both ways.
const INTERVAL: Duration = Duration::from_millis(20);
/// Traffic before an order, and after all is done.
const MARGIN: Duration = Duration::from_millis(500);
/// How long the router holds back what goes either way: the orders of both sides meet within it.
const DELAY: &str = "150ms";

/// What is rekeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Child,
    Ike,
}

/// Who is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Gateway,
    Peer,
    Both,
}

/// Each alone; and the CHILD_SA again, which the IKE SA's successor has inherited.
const IN_TURN: [(What, Who); 6] = [
    (What::Child, Who::Gateway),
    (What::Child, Who::Peer),
    (What::Ike, Who::Gateway),
    (What::Ike, Who::Peer),
    (What::Child, Who::Gateway),
    (What::Child, Who::Peer),
];

/// Both at the same moment, several times.
const AT_ONCE: [(What, Who); 4] = [
    (What::Child, Who::Both),
    (What::Ike, Who::Both),
    (What::Child, Who::Both),
    (What::Ike, Who::Both),
];

/// Stock strongSwan, one side after the other.
pub(super) fn strongswan(context: &Context) -> Result<String> {
    Bench::start(context, "rekeying", false)?.rounds(&IN_TURN)
}

/// Stock libreswan, one side after the other.
pub(super) fn libreswan(context: &Context) -> Result<String> {
    Bench::start(context, "rekeying-libreswan", true)?.rounds(&IN_TURN)
}

/// Stock strongSwan, both sides at once.
pub(super) fn at_once(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "rekeying-at-once", false)?;
    bench.delay()?;
    let told = bench.rounds(&AT_ONCE)?;
    let collisions = bench.peer.collisions();
    ensure!(
        collisions >= AT_ONCE.len(),
        "the peer saw {collisions} collisions in {} rounds",
        AT_ONCE.len()
    );
    Ok(format!("{told}; the peer saw {collisions} collisions"))
}

/// A stock peer with one tunnel.
enum Peer {
    StrongSwan(Charon),
    Libreswan(Pluto),
}

impl Peer {
    fn initiate(&self) -> Result<()> {
        match self {
            Self::StrongSwan(peer) => peer.initiate(SITE, 20).map(drop),
            Self::Libreswan(peer) => peer.initiate(SITE, Duration::from_secs(20)),
        }
    }

    /// Orders a rekeying. It has not come to its end yet with libreswan.
    fn rekey(&self, what: What) -> Result<()> {
        match self {
            Self::StrongSwan(peer) => {
                let order = match what {
                    What::Child => ["--rekey", "--child", "net"],
                    What::Ike => ["--rekey", "--ike", SITE],
                };
                peer.swanctl(&order).map(drop)
            }
            Self::Libreswan(peer) => {
                let order = match what {
                    What::Child => "--rekey-ipsec",
                    What::Ike => "--rekey-ike",
                };
                peer.whack(&["--name", SITE, order, "--asynchronous"])
                    .map(drop)
            }
        }
    }

    /// Established IKE SAs.
    fn ike_sas(&self) -> Result<usize> {
        match self {
            Self::StrongSwan(peer) => peer.established(),
            Self::Libreswan(peer) => peer.ike_sas(SITE),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::StrongSwan(peer) => peer.log(),
            Self::Libreswan(peer) => peer.log(),
        }
    }

    fn version(&self) -> Result<String> {
        match self {
            Self::StrongSwan(peer) => peer.version(),
            Self::Libreswan(peer) => Ok(peer.version()),
        }
    }

    fn retransmissions(&self) -> usize {
        match self {
            Self::StrongSwan(peer) => peer.retransmissions(),
            Self::Libreswan(peer) => peer.retransmissions(),
        }
    }

    /// How often charon's own rekeying met the gateway's.
    fn collisions(&self) -> usize {
        self.log().matches("detected").count()
    }

    /// CREATE_CHILD_SA requests that charon has sent.
    fn requests(&self) -> usize {
        self.log()
            .matches("generating CREATE_CHILD_SA request")
            .count()
    }
}

struct Bench {
    peer: Peer,
    cluster: Cluster,
    network: Network,
    _run: Run,
}

/// What a rekeying replaces: SPIs of the gateway's, and all that kernels have of the tunnel.
#[derive(Clone, PartialEq, Eq)]
struct Now {
    ike: Value,
    child: Value,
    /// Of the owner's kernel, inbound and outbound.
    spis: BTreeSet<String>,
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IKE SA {}, CHILD_SA {}", self.ike, self.child)
    }
}

impl Bench {
    /// One tunnel that the peer has begun.
    fn start(context: &Context, name: &str, libreswan: bool) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        // Members that a starved machine takes for dead lose packets in ways of their own.
        let plan = Plan {
            members: 1,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        let settings = ClusterSettings::usual(plan.sites, context.kernel_esp);
        let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        let peer = if libreswan {
            let mut connection =
                peer_connection(&network, 0, "aes_gcm128-sha2_256-dh31", "aes_gcm128");
            // What the members offer first when they rekey has no key exchange.
            connection.settings.push(("pfs", "no".into()));
            Peer::Libreswan(Pluto::start(
                &network.peer,
                &PlutoSettings {
                    connections: vec![connection],
                    secrets: peer_secret(0),
                    ..PlutoSettings::default()
                },
            )?)
        } else {
            let peer = Charon::start(&network.peer, Settings::new(context.peer_esp()))?;
            peer.load(&[site_connection(&network, 0, false)])?;
            Peer::StrongSwan(peer)
        };
        network.spray(Spray::Only(1))?;
        let bench = Self {
            peer,
            cluster,
            network,
            _run: run,
        };
        bench
            .peer
            .initiate()
            .with_context(|| hint(&bench.cluster))?;
        bench.settled()?;
        Ok(bench)
    }

    /// What the router sends to the peer, and what it receives from it, takes longer.
    fn delay(&self) -> Result<()> {
        for (node, device) in [
            (&self.network.router, "outside"),
            (&self.network.peer, "eth0"),
        ] {
            let line = [
                "qdisc", "add", "dev", device, "root", "netem", "delay", DELAY,
            ];
            node.output("tc", &line)?;
        }
        Ok(())
    }

    /// Rekeys under traffic, and judges it.
    fn rounds(&self, rounds: &[(What, Who)]) -> Result<String> {
        let (mut sent, mut lost, mut silence) = (0, 0, Duration::ZERO);
        for (number, (what, who)) in rounds.iter().enumerate() {
            let probes = self
                .judged_round(*what, *who)
                .with_context(|| format!("round {number}: {what:?} by {who:?}"))?;
            sent += probes.sent.len();
            lost += probes.lost();
            silence = silence.max(probes.longest_silence().0);
        }
        let resent = self.peer.retransmissions();
        ensure!(resent == 0, "the peer had to repeat {resent} message(s)");
        Ok(format!(
            "{}: {} rekeyings, {lost} of {sent} round trips lost, longest silence {} ms",
            self.peer.version()?,
            rounds.len(),
            silence.as_millis(),
        ))
    }

    /// One rekeying under traffic, of which nothing is lost but what came [`Self::early`].
    fn judged_round(&self, what: What, who: Who) -> Result<Probes> {
        let before = refusals(&self.network);
        let early = self.early()?;
        let traffic = Traffic::start(&self.network, 1, INTERVAL)?;
        std::thread::sleep(MARGIN * patience());
        self.round(what, who).with_context(|| hint(&self.cluster))?;
        std::thread::sleep(MARGIN * patience());
        let probes = traffic.finish()?.pop().context("no probes")?;
        let lost = probes.lost();
        let excused = match (&self.peer, what, who) {
            (Peer::Libreswan(_), What::Child, Who::Gateway) => self.early()? - early,
            _ => 0,
        };
        ensure!(
            lost as u64 <= excused && probes.doubled == 0,
            "{lost} of {} probes lost, {} doubled, {}; refused before:\n{before}after:\n{}",
            probes.sent.len(),
            probes.doubled,
            losses(&probes),
            refusals(&self.network)
        );
        Ok(probes)
    }

    /// One rekeying, until nothing of the old SA is left on either side.
    fn round(&self, what: What, who: Who) -> Result<()> {
        let before = self.settled()?;
        match who {
            Who::Peer => self.peer.rekey(what)?,
            Who::Gateway => self.gateway(what)?,
            Who::Both => self.both(what)?,
        }
        wait_until(Duration::from_secs(15), "another SA", || {
            let now = self.now()?;
            Ok(now.is_some_and(|now| match what {
                What::Child => now.child != before.child,
                What::Ike => now.ike != before.ike,
            }))
        })?;
        let after = self.settled()?;
        let shared = after.spis.intersection(&before.spis).count();
        match what {
            What::Child => ensure!(
                shared == 0 && after.ike == before.ike,
                "from {before} to {after}, {shared} of the kernel's SAs are the old ones"
            ),
            What::Ike => ensure!(
                after.spis == before.spis && after.child == before.child,
                "the IKE SA's successor has other CHILD_SAs: from {before} to {after}"
            ),
        }
        Ok(())
    }

    fn gateway(&self, what: What) -> Result<()> {
        let mut order = json!({ "command": "rekey", "connection": SITES });
        if what == What::Child {
            order["child"] = "net".into();
        }
        self.cluster.member(1)?.request(&order).map(drop)
    }

    /// The gateway is told when the peer has sent its request, and before it can arrive.
    fn both(&self, what: What) -> Result<()> {
        let before = self.peer.requests();
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| self.peer.rekey(what));
            wait_until(Duration::from_secs(10), "the peer's request", || {
                Ok(self.peer.requests() > before)
            })?;
            self.gateway(what)?;
            // Who loses the race calls that a failure.
            let _ = peer.join();
            Ok(())
        })
    }

    /// The gateway's SAs; `None` while there are two of a kind, or none.
    fn now(&self) -> Result<Option<Now>> {
        let sas = self.cluster.ike_sas()?;
        let [(owner, sa)] = sas.as_slice() else {
            return Ok(None);
        };
        let Some([child]) = sa["children"].as_array().map(Vec::as_slice) else {
            return Ok(None);
        };
        Ok(Some(Now {
            ike: sa["local_spi"].clone(),
            child: child["spi_in"].clone(),
            spis: esp_spis(self.network.member(*owner)?)?,
        }))
    }

    /// Waits until there is one SA of each kind on either side, and in every kernel one pair.
    fn settled(&self) -> Result<Now> {
        let mut found = None;
        let mut seen = String::new();
        let waited = wait_until(Duration::from_secs(20), "one SA of each kind", || {
            found = self.now()?;
            let peer = (self.peer.ike_sas()?, esp_spis(&self.network.peer)?);
            let members = self.network.members.iter().map(esp_spis);
            let members = members.collect::<Result<Vec<_>>>()?;
            seen = format!("the peer has {peer:?}, the members' kernels {members:?}");
            Ok(found.is_some()
                && peer.0 == 1
                && members
                    .iter()
                    .all(|spis| spis.len() == 2 && *spis == peer.1))
        });
        waited.with_context(|| seen)?;
        found.context("no SA")
    }

    /// Packets of an SA that no member has. pluto uses the new CHILD_SA as soon as it has sent its
    /// answer, as RFC 7296 §2.8 allows: what overtakes our taking in that answer cannot be
    /// decrypted. charon waits for our DELETE of the old one.
    fn early(&self) -> Result<u64> {
        let of = |node: &Node| Ok(xfrm_errors(node)?.get("XfrmInNoStates").copied());
        let counts = self.network.members.iter().map(of);
        let counts = counts.collect::<Result<Vec<_>>>()?;
        Ok(counts.into_iter().flatten().sum())
    }
}

/// When probes were lost, in milliseconds from the first.
fn losses(probes: &Probes) -> String {
    let Some(begin) = probes.sent.first() else {
        return "none sent".into();
    };
    let pairs = probes.sent.iter().zip(&probes.answered);
    let lost = pairs.filter(|(_, answer)| answer.is_none());
    let times: Vec<u128> = lost
        .map(|(sent, _)| sent.since(*begin).as_millis())
        .collect();
    format!("sent at {times:?} ms")
}

/// The SPIs of a kernel's ESP SAs.
fn esp_spis(node: &Node) -> Result<BTreeSet<String>> {
    let states = node.output("ip", &["xfrm", "state"])?;
    let spi = |line: &str| {
        let rest = line.trim().strip_prefix("proto esp spi ")?;
        Some(rest.split_whitespace().next()?.to_owned())
    };
    Ok(states.lines().filter_map(spi).collect())
}
