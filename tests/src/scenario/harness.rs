//! What most scenarios begin with: network, members, peer; and the assertions that they share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use crate::lab::{
    Charon, Cluster, ClusterSettings, Connection, FRAGMENT_SIZE, INSIDE_HOST, Network, Plan, Run,
    Sent, Settings, Spray, Timing, Witness, mix, patience, site_connection, site_host, wait_until,
};

/// The members' counters of requests, by exchange.
const KINDS: [&str; 4] = [
    "init_requests",
    "auth_requests",
    "informational_requests",
    "create_child_requests",
];

/// A closed IKE SA keeps its entry for the 30 s in which its last answer may be asked for again.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(45);

/// A running lab. The fields are dropped, and so taken down, in this order.
pub(super) struct Lab {
    pub(super) peer: Charon,
    pub(super) cluster: Cluster,
    pub(super) witness: Option<Witness>,
    pub(super) network: Network,
    pub(super) run: Run,
    pub(super) kernel_esp: bool,
}

/// What a scenario wants to be different from the usual.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) plan: Plan,
    pub(super) v6: bool,
    /// Lines of the members' `[ike]` table.
    pub(super) ike: &'static str,
    /// Lines of the members' connection.
    pub(super) connection: &'static str,
    /// The peer's largest IP datagram of IKE; 0 is its default.
    pub(super) fragment_size: u32,
    /// Lines of the members' `[cluster]` table.
    pub(super) cluster: &'static str,
    /// Whole tables for the members' files.
    pub(super) tables: String,
    /// Whether the sites are of all kinds: certificates, MOBIKE, PPK beside plain ones.
    pub(super) mixed: bool,
    /// Whether there is a witness.
    pub(super) witness: bool,
    /// How fast the members judge each other; as usual if `None`.
    pub(super) timing: Option<Timing>,
    /// Milliseconds for which the peer holds back what it receives.
    pub(super) receive_delay: u32,
    /// Changes a connection of the peer before it is loaded.
    pub(super) change: Option<fn(&mut Connection)>,
}

impl Lab {
    /// Network, members, and a peer with one loaded connection per site.
    pub(super) fn start(context: &Context, name: &str, wishes: &Wishes) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        let network = Network::new(&run, wishes.plan)?;
        network.count_at_router()?;
        let timing = wishes.timing.unwrap_or_else(Timing::usual);
        let mut tables = wishes.tables.clone();
        let witness = if wishes.witness {
            tables += &Witness::table(&run);
            let binaries = &context.binaries;
            Some(Witness::start(binaries, &run, &network, timing)?)
        } else {
            None
        };
        let mut connections: Vec<Connection> = (0..wishes.plan.sites)
            .map(|site| site_connection(&network, site, wishes.v6))
            .collect();
        if let Some(change) = wishes.change {
            connections.iter_mut().for_each(change);
        }
        let mut fragment_size = wishes.fragment_size;
        if wishes.mixed {
            let (there, here) = (Charon::folder(&network.peer), run.log("credentials"));
            tables += &mix(&mut connections, &there, &here)?;
            fragment_size = FRAGMENT_SIZE;
        }
        let settings = ClusterSettings {
            ike: wishes.ike.into(),
            connection: wishes.connection.into(),
            timing,
            cluster: wishes.cluster.into(),
            tables,
            ..ClusterSettings::usual(wishes.plan.sites, context.kernel_esp)
        };
        let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        let peer = Settings {
            receive_delay: wishes.receive_delay,
            fragment_size,
            ..Settings::new(context.peer_esp())
        };
        let peer = Charon::start(&network.peer, peer)?;
        peer.load(&connections)?;
        Ok(Self {
            peer,
            cluster,
            witness,
            network,
            run,
            kernel_esp: context.kernel_esp,
        })
    }

    /// The usual lab, with every packet going to the next member in turn.
    pub(super) fn sprayed(context: &Context, name: &str, wishes: &Wishes) -> Result<Self> {
        let lab = Self::start(context, name, wishes)?;
        lab.network.spray(Spray::PerPacket)?;
        Ok(lab)
    }

    /// Initiates a site's connection and returns its owner and its IKE SA as the owner tells it.
    pub(super) fn bring_up(&self, site: u16) -> Result<(u8, Value)> {
        let name = format!("site-{}", site + 1);
        self.initiate_all(std::slice::from_ref(&name), 1)
            .with_context(|| self.hint())?;
        let mine = |sa: &Value| sa["remote_id"].as_str() == Some(&name);
        let mut found: Vec<(u8, Value)> = self.cluster.ike_sas()?;
        found.retain(|(_, sa)| mine(sa));
        ensure!(
            found.len() == 1,
            "{} members own the IKE SA of {name}",
            found.len()
        );
        let (member, sa) = found.remove(0);
        ensure!(
            sa["owner"] == member,
            "member {member} lists an SA of member {}",
            sa["owner"]
        );
        Ok((member, sa))
    }

    /// Brings tunnels up, `workers` at a time. A negotiation ends with the view in which it began, as
    /// long as the peer has no answer to IKE_AUTH: the peer has to begin again. Starved members
    /// change views while they answer the first peers, so there each tunnel is tried more than once.
    pub(super) fn initiate_all(&self, names: &[String], workers: usize) -> Result<()> {
        let mut left = names.to_vec();
        for attempt in 1.. {
            let failed = self.peer.initiate_all(&left, workers, 20);
            ensure!(
                failed.is_empty() || attempt < patience(),
                "{} tunnels failed {attempt} time(s), first: {}",
                failed.len(),
                failed[0]
            );
            if failed.is_empty() {
                break;
            }
            let up = self.peer.ike_sas()?;
            left.retain(|name| !up.contains_key(name));
            for name in &left {
                // It may be gone by itself.
                let _ = self
                    .peer
                    .swanctl(&["--terminate", "--force", "--ike", name]);
            }
        }
        Ok(())
    }

    /// What the members said last, for an error.
    fn hint(&self) -> String {
        let logs = self.cluster.members.iter().map(|member| {
            format!(
                "member {} logged last:\n{}",
                member.id,
                crate::lab::tail(&member.log(), 6)
            )
        });
        logs.collect::<Vec<_>>().join("\n")
    }

    /// The ids of all members, dead or alive.
    pub(super) fn member_ids(&self) -> Vec<u8> {
        (1..=self.network.plan.members).collect()
    }

    /// How many slots each member owns, as member `id` sees it.
    pub(super) fn slots_seen_by(&self, id: u8) -> Result<BTreeMap<u8, u64>> {
        let answer = self.cluster.member(id.into())?.ask("members")?;
        let rows = answer["members"].as_array().cloned().unwrap_or_default();
        let pair = |row: &Value| {
            let id = u8::try_from(row["id"].as_u64()?).ok()?;
            Some((id, row["slots"].as_u64()?))
        };
        Ok(rows.iter().filter_map(pair).collect())
    }

    /// Waits until `members` serve all 256 slots between them.
    pub(super) fn wait_serving(&self, members: &[u8]) -> Result<()> {
        let what = format!("members {members:?} to share the slots");
        let limit = Duration::from_secs(40);
        wait_until(limit, &what, || Ok(self.all_served_by(members)))
    }

    /// Waits until a member serves all slots by itself.
    pub(super) fn wait_alone(&self, member: u8) -> Result<()> {
        let what = format!("member {member} to serve all slots");
        let limit = Duration::from_secs(15);
        wait_until(limit, &what, || Ok(self.all_served_by(&[member])))
    }

    /// Each of `members` says that all of them own slots, and nobody else does, and that it serves
    /// its own: until its lease is over, an earlier owner's slots are served by nobody. One that
    /// does not answer serves none.
    fn all_served_by(&self, members: &[u8]) -> bool {
        members.iter().all(|id| {
            let view = self
                .cluster
                .member((*id).into())
                .and_then(|m| m.ask("view"));
            let (Ok(slots), Ok(view)) = (self.slots_seen_by(*id), view) else {
                return false;
            };
            let owning = slots.iter().filter(|(_, count)| **count > 0);
            let owners = owning.map(|(owner, _)| owner);
            view["active"] == true && owners.eq(members) && slots.values().sum::<u64>() == 256
        })
    }

    /// The owner of each site's IKE SA, as the members that answer list their own. A site that two
    /// members list is an error.
    pub(super) fn owners(&self) -> Result<BTreeMap<String, u8>> {
        let mut owners = BTreeMap::new();
        for member in &self.cluster.members {
            // A dead or stopped agent says nothing; its sites are missed below by the caller.
            let Ok(sas) = member.ask("sas") else { continue };
            for sa in sas["ike_sas"].as_array().into_iter().flatten() {
                let site = sa["remote_id"].as_str().unwrap_or_default().to_owned();
                let other = owners.insert(site.clone(), member.id);
                ensure!(
                    other.is_none_or(|other| other == member.id),
                    "{site} is owned by {} and {other:?}",
                    member.id
                );
            }
        }
        Ok(owners)
    }

    /// The member that owns most of these sites (0-based) now.
    pub(super) fn owners_of(&self, sites: &std::collections::BTreeSet<u16>) -> Result<u8> {
        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
        for (site, owner) in self.owners()? {
            if sites
                .iter()
                .any(|number| site == format!("site-{}", number + 1))
            {
                *counts.entry(owner).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        Ok(most.context("nobody owns any of these sites")?.0)
    }

    /// Pings from the host behind a site to the inside host, and back. With real ESP all have to
    /// be answered; without, the ones from the peer still travel as ESP towards the members.
    ///
    /// Returns (sent, lost) of the pings that could be answered.
    pub(super) fn ping_both_ways(&self, site: u16, count: u32) -> Result<(u32, u32)> {
        ping_both_ways(&self.network, self.kernel_esp, site, count)
    }

    /// Asserts that every request of the peer was taken up once: none by two members, none twice,
    /// none lost. `stateless` of them were answered without keeping anything, such as with
    /// INVALID_KE_PAYLOAD. Returns the number of requests.
    pub(super) fn every_exchange_once(&self, stateless: u64) -> Result<u64> {
        if self.cluster.was_starved()? {
            return Ok(self.peer.requests_sent() as u64);
        }
        let repeated = self.peer.retransmissions();
        ensure!(
            repeated == 0,
            "the peer had to repeat {repeated} request(s)"
        );
        let sent = self.peer.requests_sent() as u64;
        let mut taken = 0;
        for kind in KINDS {
            taken += self.cluster.engine(kind)?;
        }
        ensure!(
            taken == sent,
            "the peer sent {sent} requests, the members took up {taken}"
        );
        let processed = self.cluster.engine("exchanges_processed")?;
        ensure!(
            processed + stateless == sent,
            "of {sent} requests {processed} were processed and {stateless} were to be refused"
        );
        Ok(sent)
    }

    /// Asserts that the members' XDP counters explain what the router sent: every ESP packet was
    /// kept by the owner or redirected to it.
    pub(super) fn esp_was_steered(&self, owner: u8) -> Result<u64> {
        let sent = self.network.sent_to_members()?;
        let to_others = sum_others(&sent, owner);
        let mut redirected = 0;
        for member in &self.cluster.members {
            let forwarded = member.reasons(&["esp_forwarded"])?;
            if member.id == owner {
                ensure!(
                    forwarded == 0,
                    "the owner redirected {forwarded} of its own ESP packets"
                );
            }
            redirected += forwarded;
        }
        ensure!(
            redirected == to_others,
            "the router sent {to_others} ESP packets to non-owners, {redirected} were redirected"
        );
        let owner = self.cluster.member(owner.into())?;
        let stats = owner.ask("stats")?;
        let unknown = stats["reasons"]["esp_unknown"]["packets"]
            .as_u64()
            .unwrap_or(0);
        ensure!(
            unknown == 0,
            "the owner did not know the SPI of {unknown} ESP packets"
        );
        Ok(redirected)
    }

    /// Waits until no member has any trace of SAs or negotiations in its tables.
    pub(super) fn wait_tables_empty(&self) -> Result<()> {
        wait_until(TOMBSTONE, "all tables to be empty", || {
            for member in &self.cluster.members {
                let table = member.ask("table")?;
                let filled = ["ike_sas", "esp_sas", "negotiations"]
                    .iter()
                    .any(|key| table[*key].as_array().is_none_or(|rows| !rows.is_empty()));
                if filled {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Waits until every member has the entries of `ike` IKE SAs and `esp` inbound CHILD SAs.
    pub(super) fn wait_tables(&self, ike: usize, esp: usize) -> Result<()> {
        let what = format!("{ike} IKE SA and {esp} ESP SA entries on every member");
        wait_until(TOMBSTONE, &what, || {
            for member in &self.cluster.members {
                let table = member.ask("table")?;
                let rows = |key: &str| table[key].as_array().map_or(0, Vec::len);
                if rows("ike_sas") != ike || rows("esp_sas") != esp {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// A member that does not own anything of `owner`'s.
    pub(super) fn other_than(&self, owner: u8) -> u8 {
        owner % self.network.plan.members + 1
    }

    /// Log lines of all members that contain every one of `words`, ignoring case.
    pub(super) fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let fits = |line: &&str| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        };
        let logs = self.cluster.members.iter().map(crate::lab::Member::log);
        logs.flat_map(|log| {
            log.lines()
                .filter(fits)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Whether the peer encapsulates ESP in UDP whatever the path is like.
    pub(super) fn forced_encapsulation(&self) -> bool {
        !self.kernel_esp
    }
}

/// The members' last word goes beside their logs, whether the scenario passed or not.
impl Drop for Lab {
    fn drop(&mut self) {
        for member in &self.cluster.members {
            let mut last = serde_json::Map::new();
            for command in ["status", "members", "table", "sas", "stats"] {
                // One that is stopped would be waited for at each question.
                let Ok(answer) = member.ask(command) else {
                    break;
                };
                last.insert(command.into(), answer);
            }
            let file = self.run.log(&format!("m{}-last.json", member.id));
            // Only for people who look into a failure: the verdict does not depend on it.
            let _ = std::fs::write(file, format!("{:#}", Value::Object(last)));
        }
    }
}

/// As [`Lab::ping_both_ways`], whoever the peer is.
pub(super) fn ping_both_ways(
    network: &Network,
    kernel_esp: bool,
    site: u16,
    count: u32,
) -> Result<(u32, u32)> {
    let inner: IpAddr = site_host(site).into();
    let host: IpAddr = INSIDE_HOST.into();
    if !kernel_esp {
        network.peer.ping(Some(inner), host, count, 1)?;
        return Ok((0, 0));
    }
    let out = network.peer.ping(Some(inner), host, count, 5)?;
    let back = network.host.ping(None, inner, count, 5)?;
    Ok((2 * count, 2 * count - out - back))
}

fn sum_others(sent: &[Sent], owner: u8) -> u64 {
    (1u8..)
        .zip(sent)
        .filter(|(id, _)| *id != owner)
        .map(|(_, sent)| sent.esp)
        .sum()
}
