//! A cluster with a crowd of peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use gateway_common::abi::map;
use serde_json::Value;

use super::super::Context;
use super::cost::Cost;
use crate::lab::{
    Asked, CROWD_NETWORK, CROWD_SECRET, Cluster, ClusterSettings, Crowd, GATEWAY_ID, Member,
    Moment, Network, Plan, Run, Seen, Spray, Tap, What, find_pin, patience, sync_address,
    wait_until,
};

const MEMBERS: u8 = 3;
/// Addresses that the peers share.
const ADDRESSES: u16 = 200;
/// While something happens, one IKE SA after the other is asked this often.
const INTERVAL: Duration = Duration::from_millis(2);
/// After a takeover every so many-th IKE SA is asked, so that at most so many are.
const SAMPLE: usize = 500;

/// Three members in HA mode and a crowd.
pub(super) struct Crowded {
    crowd: Crowd,
    cluster: Cluster,
    network: Network,
    /// Resident octets of an agent without SAs.
    empty: u64,
    _run: Run,
}

/// What was seen while exchanges ran beside something.
struct Watched<T> {
    asked: Vec<Asked>,
    /// On the sync network, from every member.
    taps: BTreeMap<u8, Vec<Seen>>,
    outcome: T,
}

impl Crowded {
    pub(super) fn start(context: &Context, name: &str) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        let plan = Plan {
            members: MEMBERS,
            sites: ADDRESSES,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        let settings = ClusterSettings {
            remote_ts: CROWD_NETWORK.into(),
            cluster: "mode = \"ha\"\n".into(),
            ike: "half_open_limit_per_source = 1000\n".into(),
            tables: format!(
                "[ha]\naddresses = []\n[[secret]]\nids = [\"{GATEWAY_ID}\"]\n\
                 secret = \"{CROWD_SECRET}\"\n"
            ),
            ..ClusterSettings::usual(0, false)
        };
        let mut cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        network.spray(Spray::PerPacket)?;
        let empty = resident(cluster.member_mut(1)?)?.now;
        let crowd = Crowd::new(&network)?;
        Ok(Self {
            crowd,
            cluster,
            network,
            empty,
            _run: run,
        })
    }

    /// How long a member has to be silent to be called lost.
    pub(super) fn lost(&self) -> Duration {
        self.cluster.timing.lost
    }

    /// Establishes so many SAs, kills their owner, and lets it join again.
    pub(super) fn measure(&mut self, size: usize) -> Result<Cost> {
        let grown = self.grow(size)?;
        // Who owned the slots before may have lost them while the SAs were established.
        let owner = self.owner()?;
        let survived = self.kill(owner)?;
        let joined = self.join(owner, size)?;
        let each = |octets: u64| (octets as f64 / size as f64).round();
        let new_owner = self.owner()?;
        Ok(Cost {
            full_sync_sas: size,
            full_sync_seconds: rounded(joined.outcome.time.as_secs_f64()),
            full_sync_bytes_per_sa: each(joined.outcome.octets),
            bytes_per_sa: grown.bytes_per_sa,
            wire_bytes_per_sa: grown.wire_bytes_per_sa,
            handshakes_per_second: grown.per_second,
            handshakes_begun_anew: self.crowd.begun_anew(),
            detected_ms: survived.detected_ms,
            takeover_ms: survived.takeover_ms,
            first_answer_ms: survived.first_answer_ms,
            lost_ike_sas: survived.lost,
            asked_ike_sas: survived.asked,
            longest_heartbeat_pause_ms: longest_pause(&joined.taps),
            freezes: joined.outcome.freezes,
            views: joined.outcome.views,
            longest_exchange_ms: longest_exchange(&joined.asked),
            unanswered: unanswered(&joined.asked),
            owner_bytes_per_sa: each(
                resident(self.cluster.member_mut(new_owner)?)?
                    .now
                    .saturating_sub(self.empty),
            ),
            joiner_bytes_per_sa: each(joined.outcome.joiner.now.saturating_sub(self.empty)),
            sender_growth_bytes: joined.outcome.growth,
            joiner_overshoot_bytes: joined.outcome.joiner.peak - joined.outcome.joiner.now,
        })
    }

    /// The member that owns all slots.
    fn owner(&self) -> Result<u8> {
        let mut owner = None;
        wait_until(Duration::from_secs(30), "one member to own all", || {
            let view = self.cluster.members[0].ask("view")?;
            let members = view["members"].as_array().cloned().unwrap_or_default();
            let all = members.iter().find(|member| member["slots"] == 256);
            owner = all.and_then(|member| u8::try_from(member["id"].as_u64()?).ok());
            Ok(owner.is_some() && members.len() == usize::from(MEMBERS))
        })?;
        owner.context("nobody owns all slots")
    }

    fn ask(&self, member: u8, what: &str) -> Result<Value> {
        self.cluster.member(member.into())?.ask(what)
    }
}

/// What establishing cost.
struct Grown {
    bytes_per_sa: f64,
    wire_bytes_per_sa: f64,
    per_second: f64,
}

impl Crowded {
    fn grow(&mut self, size: usize) -> Result<Grown> {
        // Sent straight to the owner: what is relayed is no delta.
        let owner = self.owner()?;
        self.network.spray(Spray::Only(owner))?;
        let before = (self.sent()?, self.on_wire(owner)?);
        let added = size - self.crowd.count();
        let start = Instant::now();
        self.crowd.grow_to(size)?;
        let time = start.elapsed();
        self.wait_records(size)?;
        let after = (self.sent()?, self.on_wire(owner)?);
        self.network.spray(Spray::PerPacket)?;
        // To two members.
        let each = |before: u64, after: u64| ((after - before) as f64 / 2.0 / added as f64).round();
        Ok(Grown {
            bytes_per_sa: each(before.0, after.0),
            wire_bytes_per_sa: each(before.1, after.1),
            per_second: (added as f64 / time.as_secs_f64()).round(),
        })
    }

    /// Octets of frames that all members have sent.
    fn sent(&self) -> Result<u64> {
        let mut sum = 0;
        for id in 1..=MEMBERS {
            let sync = self.ask(id, "sync")?;
            sum += sync["bytes_sent"].as_u64().context("no count of octets")?;
        }
        Ok(sum)
    }

    /// Octets that have left a member's sync interface.
    fn on_wire(&self, member: u8) -> Result<u64> {
        let node = self.network.member(member)?;
        let text = node.output("ip", &["-j", "-s", "link", "show", "dev", "eth1"])?;
        let shown: Value = serde_json::from_str(&text)?;
        shown[0]["stats64"]["tx"]["bytes"]
            .as_u64()
            .context("no statistics of eth1")
    }

    /// Waits until all members have all records.
    fn wait_records(&self, size: usize) -> Result<()> {
        let what = format!("{size} records on every member");
        wait_until(Duration::from_secs(60), &what, || {
            for member in &self.cluster.members {
                if member.ask("sync")?["records"] != size {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Runs `work` while one IKE SA after the other is asked.
    fn watched<T>(
        &mut self,
        work: impl FnOnce(&mut Cluster, &Network) -> Result<T>,
    ) -> Result<Watched<T>> {
        let ids = 1..=MEMBERS;
        let taps = ids.map(|id| Ok((id, Tap::start(&self.network.switch, &format!("s-m{id}"))?)));
        let taps = taps.collect::<Result<Vec<_>>>()?;
        let stop = AtomicBool::new(false);
        let crowd = &mut self.crowd;
        let (asked, outcome) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| crowd.ask(INTERVAL * patience(), &stop));
            let outcome = work(&mut self.cluster, &self.network);
            stop.store(true, Ordering::Relaxed);
            let asked = asking
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (asked, outcome)
        });
        let seen = taps.into_iter().map(|(id, tap)| Ok((id, tap.finish()?)));
        Ok(Watched {
            taps: seen.collect::<Result<_>>()?,
            asked: asked?,
            outcome: outcome?,
        })
    }
}

/// What a death cost.
struct Survived {
    detected_ms: f64,
    takeover_ms: f64,
    first_answer_ms: f64,
    lost: usize,
    asked: usize,
}

impl Crowded {
    /// The owner's agent hangs: of all deaths the one that nothing but silence tells, and that finds
    /// the lease over when it is noticed.
    fn kill(&mut self, owner: u8) -> Result<Survived> {
        let others: Vec<u8> = (1..=MEMBERS).filter(|id| *id != owner).collect();
        // A dead agent's member steers on, but a router stops sending to it.
        self.network.spray_among(&others)?;
        let lost = self.lost();
        let watched = self.watched(|cluster, network| {
            std::thread::sleep(Duration::from_millis(500));
            let at = Moment::now();
            cluster.member_mut(owner)?.process().signal(libc::SIGSTOP)?;
            let moved = wait_moved(network, &others, owner)?;
            std::thread::sleep(Duration::from_secs(1));
            cluster.member_mut(owner)?.kill();
            Ok((at, moved))
        })?;
        let (at, moved) = watched.outcome;
        let spoke = watched.taps.get(&owner).into_iter().flatten();
        let last = spoke.filter(|seen| is_heartbeat(seen)).map(|seen| seen.at);
        let judged = last.max().context("no heartbeat was seen")?.plus(lost);
        let answers = watched.asked.iter().filter(|one| one.sent > at);
        let first = answers.filter_map(|one| one.answered).min();
        let first = first.context("nobody was answered after the takeover")?;
        let (asked, lost) = self.sample()?;
        Ok(Survived {
            detected_ms: milliseconds(judged.since(at)),
            takeover_ms: milliseconds(moved.since(judged)),
            first_answer_ms: milliseconds(first.since(judged)),
            lost,
            asked,
        })
    }

    /// Asks some of all IKE SAs; those whose request was lost while nobody served are not among them.
    fn sample(&mut self) -> Result<(usize, usize)> {
        let stop = AtomicBool::new(false);
        let count = SAMPLE.min(self.crowd.count() / 2);
        self.crowd.spread(self.crowd.count() / count);
        let time = INTERVAL * patience() * u32::try_from(count)?;
        let crowd = &mut self.crowd;
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| crowd.ask(INTERVAL * patience(), &stop));
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            asking
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.crowd.spread(1);
        Ok((asked.len(), unanswered(&asked)))
    }
}

/// What joining cost.
struct Joined {
    time: Duration,
    octets: u64,
    freezes: u64,
    views: u64,
    joiner: Resident,
    growth: u64,
}

impl Crowded {
    /// A member comes back without anything, while exchanges go on.
    fn join(&mut self, joiner: u8, size: usize) -> Result<Watched<Joined>> {
        let others: Vec<u8> = (1..=MEMBERS).filter(|id| *id != joiner).collect();
        let watched = self.watched(|cluster, network| {
            let count = |cluster: &Cluster, what: &str| -> Result<u64> {
                let mut sum = 0;
                for id in &others {
                    let stats = cluster.member((*id).into())?.ask("stats")?;
                    sum += stats["membership"][what]
                        .as_u64()
                        .context("no such count")?;
                }
                Ok(sum)
            };
            let before = (count(cluster, "freezes")?, count(cluster, "views")?);
            let mut senders = Vec::new();
            for id in &others {
                let sender = cluster.member_mut(*id)?;
                forget_peak(sender)?;
                senders.push((*id, resident(sender)?.now));
            }
            let at = Moment::now();
            let node = network.member(joiner)?;
            cluster.member_mut(joiner)?.restart(node)?;
            let done = wait_complete(cluster.member(joiner.into())?, size)?;
            let connected = cluster.member(joiner.into())?;
            let connected = connected.logged_since(at, |line| line.contains("sync channel up"));
            let connected = connected.context("no connection was logged")?;
            cluster.wait_connected()?;
            let sync = cluster.member(joiner.into())?.ask("sync")?;
            let mut growth = 0;
            for (id, before) in senders {
                let now = resident(cluster.member_mut(id)?)?;
                growth = growth.max(now.peak.saturating_sub(before));
            }
            Ok(Joined {
                time: done.since(connected),
                octets: sync["bytes_received"].as_u64().context("no count")?,
                freezes: count(cluster, "freezes")? - before.0,
                views: (count(cluster, "views")? - before.1) / 2,
                joiner: resident(cluster.member_mut(joiner)?)?,
                growth,
            })
        })?;
        Ok(watched)
    }
}

/// Waits until a member has everything of both others; returns when.
fn wait_complete(member: &Member, size: usize) -> Result<Moment> {
    let mut done = None;
    wait_until(Duration::from_secs(120), "the full sync", || {
        let sync = member.ask("sync")?;
        let peers = sync["peers"].as_array().cloned().unwrap_or_default();
        let complete = peers.iter().filter(|peer| peer["complete"] == true).count();
        done = Some(Moment::now());
        Ok(complete == usize::from(MEMBERS) - 1 && sync["records"] == size)
    })?;
    done.context("never asked")
}

/// Waits until the data paths of all `left` have another owner for every slot; returns when.
fn wait_moved(network: &Network, left: &[u8], lost: u8) -> Result<Moment> {
    let mut tables = Vec::new();
    for id in left {
        let node = network.member(*id)?;
        let pin = find_pin(
            node.bpf_dir().context("no BPF file system")?,
            map::SLOT_OWNER,
        )?;
        let table: Array<_, u32> = Map::Array(MapData::from_pin(&pin)?).try_into()?;
        tables.push(table);
    }
    let end = Instant::now() + Duration::from_secs(30) * patience();
    loop {
        let stale = |table: &Array<MapData, u32>| {
            let owners = table.iter().map(Result::unwrap_or_default);
            owners
                .into_iter()
                .any(|owner| owner == u32::from(lost) || owner == 0)
        };
        if !tables.iter().any(stale) {
            return Ok(Moment::now());
        }
        ensure!(Instant::now() < end, "nobody took over");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Resident memory of an agent, in octets.
#[derive(Debug, Clone, Copy)]
struct Resident {
    now: u64,
    /// Since the start, or since [`forget_peak`].
    peak: u64,
}

fn resident(member: &mut Member) -> Result<Resident> {
    let file = format!("/proc/{}/status", member.process().pid());
    let text = std::fs::read_to_string(&file).context(file)?;
    let octets = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let words = line.and_then(|line| line.split_whitespace().next());
        Ok(1024
            * words
                .with_context(|| format!("no {name}"))?
                .parse::<u64>()?)
    };
    Ok(Resident {
        now: octets("VmRSS:")?,
        peak: octets("VmHWM:")?,
    })
}

/// Lets the peak begin anew (proc(5), `clear_refs`).
fn forget_peak(member: &mut Member) -> Result<()> {
    let file = format!("/proc/{}/clear_refs", member.process().pid());
    std::fs::write(&file, "5").context(file)
}

fn is_heartbeat(seen: &Seen) -> bool {
    seen.what == What::Heartbeat && !seen.out
}

/// Of one member's heartbeats to another, on the sync network.
fn longest_pause(taps: &BTreeMap<u8, Vec<Seen>>) -> f64 {
    let mut longest = Duration::ZERO;
    for (id, seen) in taps {
        let own = IpAddr::from(sync_address(*id));
        let mut last: BTreeMap<IpAddr, Moment> = BTreeMap::new();
        for one in seen
            .iter()
            .filter(|one| is_heartbeat(one) && one.source == own)
        {
            if let Some(before) = last.insert(one.destination, one.at) {
                longest = longest.max(one.at.since(before));
            }
        }
    }
    milliseconds(longest)
}

fn longest_exchange(asked: &[Asked]) -> f64 {
    let times = asked
        .iter()
        .filter_map(|one| Some(one.answered?.since(one.sent)));
    milliseconds(times.max().unwrap_or_default())
}

fn unanswered(asked: &[Asked]) -> usize {
    asked.iter().filter(|one| one.answered.is_none()).count()
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_longest_pause_is_that_of_one_pair() {
        let beat = |source: u8, destination: u8, at: u64| Seen {
            at: Moment(at * 1_000_000),
            out: false,
            source: sync_address(source).into(),
            destination: IpAddr::from(Ipv4Addr::new(10, 99, 0, destination)),
            what: What::Heartbeat,
        };
        let seen = vec![
            beat(1, 2, 0),
            beat(1, 3, 40),
            beat(1, 2, 70),
            beat(2, 1, 500),
        ];
        let pause = longest_pause(&[(1, seen)].into());
        assert!((pause - 70.0).abs() < 1e-9, "{pause}");
    }
}
