//! The worked examples of `deploy/examples`, from their very files.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use crate::lab::{
    Cable, Charon, Cluster, Connection, Example, ExampleHost, INSIDE_HOST, Member, Network, Node,
    Plan, Process, Run, Settings, Timing, VIP, VIP6, WITNESS, frr, secret, site_connection, tail,
    unit_line, wait_until,
};

/// An example that runs. The fields are dropped, and so taken down, in this order.
struct Running {
    peer: Charon,
    /// BIRD, FRR and keepalived.
    daemons: Vec<Process>,
    cluster: Cluster,
    _witness: Option<(Process, Node)>,
    hosts: Vec<ExampleHost>,
    network: Network,
    run: Run,
}

/// Programs that an example needs beside the gateway's, and what its network is like.
struct Wanted {
    name: &'static str,
    programs: &'static [&'static str],
    plan: Plan,
}

/// Two members on one segment and a witness.
const PAIR: Plan = Plan {
    members: 2,
    sites: 1,
    nat: false,
    segment: true,
};

impl Running {
    fn start(context: &Context, wanted: &Wanted) -> Result<Self> {
        let example = Example::new(
            wanted.name,
            &context.binaries,
            context.kernel_esp,
            wanted.programs,
        )?;
        let run = Run::new(&context.logs, &format!("example-{}", wanted.name))?;
        let network = Network::new(&run, wanted.plan)?;
        let mut hosts = Vec::new();
        for (node, name) in network.members.iter().zip(["gw-a", "gw-b", "gw-c"]) {
            hosts.push(example.install(&run, node, name)?);
        }
        let third = if wanted.plan.segment {
            let node = network.host_on(&run, "w", Cable::Inside, WITNESS)?;
            let host = example.install(&run, &node, "witness")?;
            Some((node, host))
        } else {
            None
        };
        let witness = third.as_ref().map(|(_, host)| host);
        example.secrets(&run, &hosts, witness, &secret(0))?;
        let witness = match third {
            Some((node, host)) => {
                let line = unit_line("gateway-witness.service", "ExecStart")?;
                Some((host.spawn(&node, &line, "witness.log")?, node))
            }
            None => None,
        };
        let cluster = Self::members(context, &network, &hosts)?;
        let peer = Charon::start(&network.peer, Settings::new(context.peer_esp()))?;
        peer.load(&[site(&network)])?;
        Ok(Self {
            peer,
            daemons: Vec::new(),
            cluster,
            _witness: witness,
            hosts,
            network,
            run,
        })
    }

    /// What the units start on the members; they wait for each other.
    fn members(context: &Context, network: &Network, hosts: &[ExampleHost]) -> Result<Cluster> {
        let check = unit_line("gatewayd.service", "ExecStartPre")?;
        let start = unit_line("gatewayd.service", "ExecStart")?;
        let mut members = Vec::new();
        for ((id, node), host) in (1u8..).zip(&network.members).zip(hosts) {
            host.run(node, &check)?;
            let process = host.spawn(node, &start, "gatewayd.log")?;
            members.push(Member::started(&context.binaries, node, id, process)?);
        }
        let cluster = Cluster {
            members,
            timing: Timing::usual(),
            first_view: None,
        };
        cluster.wait_connected()?;
        Ok(cluster)
    }

    /// A command on a member's host, as its operator types it.
    fn on(&self, member: u8, line: &str) -> Result<String> {
        let index = usize::from(member) - 1;
        self.hosts[index].run(self.network.member(member)?, line)
    }

    /// What a member's unit does after its agent was killed.
    fn killed(&mut self, member: u8) -> Result<()> {
        self.cluster.member_mut(member)?.kill();
        let after = unit_line("gatewayd.service", "ExecStopPost")?;
        self.on(member, &after).map(drop)
    }

    /// Starts a daemon on every member.
    fn daemon(&mut self, line: &str, log: &str) -> Result<()> {
        for (node, host) in self.network.members.iter().zip(&self.hosts) {
            self.daemons.push(host.spawn(node, line, log)?);
        }
        Ok(())
    }

    /// The router's files of the example.
    fn router(&self, context: &Context, wanted: &Wanted) -> Result<ExampleHost> {
        let (binaries, programs) = (&context.binaries, wanted.programs);
        let files = Example::new(wanted.name, binaries, context.kernel_esp, programs)?;
        files.install(&self.run, &self.network.router, "router")
    }

    /// Fails with the log of a daemon that has ended.
    fn daemons_live(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Process::check_alive)
    }

    /// Brings the tunnel up and lets a packet through it; returns its owner.
    fn tunnel(&self) -> Result<u8> {
        self.peer.initiate("site-1", 20).with_context(|| {
            let logs = self.cluster.members.iter();
            let logs = logs.map(|member| tail(&member.log(), 6));
            logs.collect::<Vec<_>>().join("\n")
        })?;
        let (owner, sa) = self.cluster.only_ike_sa()?;
        ensure!(sa["connection"] == "site-1", "{sa}");
        Ok(owner)
    }

    /// The one IKE SA that there was is there, at a member other than `not`, and its peer gets
    /// answers: it rekeys the CHILD_SA.
    fn goes_on(&self, cookie: &Value, not: &BTreeSet<u8>) -> Result<u8> {
        let mut owner = None;
        wait_until(Duration::from_secs(15), "the IKE SA's next owner", || {
            let live = self.cluster.members.iter().filter(|m| !not.contains(&m.id));
            let mut found = Vec::new();
            for member in live {
                let mut sas = member.ask("sas")?;
                if let Value::Array(sas) = sas["ike_sas"].take() {
                    found.extend(sas.into_iter().map(|sa| (member.id, sa)));
                }
            }
            ensure!(found.len() <= 1, "{found:?}");
            owner = found.pop();
            Ok(owner.is_some())
        })?;
        let (owner, sa) = owner.context("no owner")?;
        ensure!(
            sa["local_spi"] == *cookie,
            "it is another IKE SA: {sa}, not {cookie}"
        );
        self.peer.swanctl(&["--rekey", "--child", "net"])?;
        let before = sa["children"][0]["spi_in"].clone();
        wait_until(
            Duration::from_secs(20),
            "the rekeyed CHILD_SA alone",
            || {
                let sas = self.cluster.member(owner.into())?.ask("sas")?;
                let children = &sas["ike_sas"][0]["children"];
                let one = children.as_array().map(Vec::len) == Some(1);
                Ok(one && children[0]["spi_in"] != before)
            },
        )?;
        ensure!(
            self.peer.established()? == 1
                && self.peer.log().matches("initiating IKE_SA").count() == 1,
            "the peer began anew"
        );
        Ok(owner)
    }

    /// The member that has all slots, as `members` see it.
    fn active(&self, members: &[u8]) -> Result<u8> {
        let mut active = None;
        let what = format!("members {members:?} to agree on who is active");
        wait_until(Duration::from_secs(30), &what, || {
            let mut seen = BTreeSet::new();
            for id in members {
                let view = self.cluster.member((*id).into())?.ask("view")?;
                let rows = view["members"].as_array().cloned().unwrap_or_default();
                let all = rows.iter().find(|row| row["slots"] == 256);
                seen.insert(all.and_then(|row| row["id"].as_u64()));
            }
            active = seen.iter().next().copied().flatten();
            Ok(seen.len() == 1 && active.is_some())
        })?;
        Ok(u8::try_from(active.context("nobody is active")?)?)
    }

    /// Waits until `member` says that it serves all slots.
    fn takes_over(&self, member: u8) -> Result<()> {
        let what = format!("member {member} to take over");
        wait_until(Duration::from_secs(15), &what, || {
            let view = self.cluster.member(member.into())?.ask("view")?;
            let mine = |row: &Value| row["id"] == member && row["slots"] == 256;
            let all = view["members"]
                .as_array()
                .is_some_and(|rows| rows.iter().any(mine));
            Ok(all && view["active"] == true)
        })
    }

    /// Waits until an address stands on this member's interface and on no other member's.
    fn address_on(&self, member: u8, interface: &str, address: &str) -> Result<()> {
        let what = format!("{address} to be on {interface} of member {member} alone");
        wait_until(Duration::from_secs(15), &what, || {
            for (id, node) in (1u8..).zip(&self.network.members) {
                let shown = node.output("ip", &["-o", "addr", "show", "dev", interface]);
                // A host that was unplugged has no interface.
                let there = shown.is_ok_and(|text| text.contains(&format!(" {address}/")));
                if there != (id == member) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

/// What the peer's own configuration says.
fn site(network: &Network) -> Connection {
    site_connection(network, 0, false)
}

/// `ha-witness`: the active host is gone; the witness makes the takeover a safe one, the addresses
/// move, and the peer notices nothing.
pub(super) fn ha_witness(context: &Context) -> Result<String> {
    let wanted = Wanted {
        name: "ha-witness",
        programs: &[],
        plan: PAIR,
    };
    let mut example = Running::start(context, &wanted)?;
    let active = example.active(&[1, 2])?;
    let other = 3 - active;
    example.address_on(active, "eth0", &VIP.to_string())?;
    example.address_on(active, "eth2", "10.1.0.254")?;
    example
        .network
        .host
        .ip("route replace 10.2.0.0/16 via 10.1.0.254")?;
    ensure!(example.tunnel()? == active, "a standby member owns an SA");
    ping(&example, context)?;
    let (_, sa) = example.cluster.only_ike_sa()?;
    let shown = example.on(other, "gatewayctl members")?;
    ensure!(
        shown.contains("ACTIVE") && shown.contains("STANDBY"),
        "{shown}"
    );
    let member = example.cluster.member_mut(active)?;
    member.process().signal(libc::SIGSTOP)?;
    example.network.unplug(active)?;
    example.cluster.member_mut(active)?.kill();
    example.takes_over(other)?;
    let view = example.cluster.member(other.into())?.ask("view")?;
    ensure!(view["unsafe_takeover"] == false, "{view}");
    example.address_on(other, "eth0", &VIP.to_string())?;
    example.goes_on(&sa["local_spi"], &BTreeSet::from([active]))?;
    ping(&example, context)?;
    Ok(format!(
        "member {active} to member {other}, the tunnel goes on"
    ))
}

/// `ha-keepalived`: the addresses follow the gateway's health.
pub(super) fn ha_keepalived(context: &Context) -> Result<String> {
    let wanted = Wanted {
        name: "ha-keepalived",
        programs: &["keepalived"],
        plan: PAIR,
    };
    let mut example = Running::start(context, &wanted)?;
    example.daemon(
        "/usr/sbin/keepalived --dont-fork --log-console --log-detail",
        "keepalived.log",
    )?;
    let active = example.active(&[1, 2])?;
    let other = 3 - active;
    let placed = example.address_on(active, "eth0", &VIP.to_string());
    example.daemons_live()?;
    placed?;
    example.address_on(active, "eth2", "10.1.0.254")?;
    ensure!(example.tunnel()? == active, "a standby member owns an SA");
    let (_, sa) = example.cluster.only_ike_sa()?;
    example.on(active, "gatewayctl drain")?;
    example.takes_over(other)?;
    example.address_on(other, "eth0", &VIP.to_string())?;
    example.address_on(other, "eth2", "10.1.0.254")?;
    example.goes_on(&sa["local_spi"], &BTreeSet::from([active]))?;
    // Back, by the agent's death instead of an order.
    example.on(active, "gatewayctl undrain")?;
    wait_until(Duration::from_secs(15), "the member to stand by", || {
        let health = example.on(other, "gatewayctl members")?;
        Ok(health.contains("STANDBY"))
    })?;
    example.killed(other)?;
    example.takes_over(active)?;
    example.address_on(active, "eth0", &VIP.to_string())?;
    example.goes_on(&sa["local_spi"], &BTreeSet::from([other]))?;
    example.daemons_live()?;
    Ok(format!(
        "VIP and tunnel from member {active} to {other} by drain, and back by SIGKILL"
    ))
}

/// `ecmp-bird`: the router's kernel has a next hop for each member that takes traffic.
pub(super) fn ecmp_bird(context: &Context) -> Result<String> {
    let wanted = Wanted {
        name: "ecmp-bird",
        programs: &["bird", "birdc"],
        plan: Plan::default(),
    };
    let mut example = Running::start(context, &wanted)?;
    example.network.no_upstream()?;
    for node in example
        .network
        .members
        .iter()
        .chain([&example.network.router])
    {
        // What the RuntimeDirectory of Debian's unit is.
        fs::create_dir_all(node.run_dir().join("bird"))?;
    }
    const BIRD: &str = "/usr/sbin/bird -f -c /etc/bird/bird.conf";
    let router = example.router(context, &wanted)?;
    let daemon = router.spawn(&example.network.router, BIRD, "bird.log")?;
    example.daemons.push(daemon);
    example.daemon(BIRD, "bird.log")?;
    shared_by_health(&mut example, context)
}

/// `ecmp-frr`: the same with FRR at all of them.
pub(super) fn ecmp_frr(context: &Context) -> Result<String> {
    let wanted = Wanted {
        name: "ecmp-frr",
        programs: &frr::FRR,
        plan: Plan::default(),
    };
    let mut example = Running::start(context, &wanted)?;
    example.network.no_upstream()?;
    let router = example.router(context, &wanted)?;
    let daemons = frr::start(&router, &example.network.router)?;
    example.daemons.extend(daemons);
    for (node, host) in example.network.members.iter().zip(&example.hosts) {
        example.daemons.extend(frr::start(host, node)?);
        let line = host.unit_line("gateway-frr.service", "ExecStart")?;
        let announce = host.spawn(node, &line, "frr-announce.log")?;
        example.daemons.push(announce);
    }
    shared_by_health(&mut example, context)
}

/// Three next hops, two after a drain, one after an agent's death, two after the drained one is back;
/// and one tunnel all the time.
fn shared_by_health(example: &mut Running, context: &Context) -> Result<String> {
    hops(example, &[1, 2, 3])?;
    let first = example.tunnel()?;
    ping(example, context)?;
    let (_, sa) = example.cluster.only_ike_sa()?;
    example.on(first, "gatewayctl drain")?;
    let two: Vec<u8> = (1..=3).filter(|id| *id != first).collect();
    hops(example, &two)?;
    let second = example.goes_on(&sa["local_spi"], &BTreeSet::from([first]))?;
    example.killed(second)?;
    let one: Vec<u8> = two.into_iter().filter(|id| *id != second).collect();
    hops(example, &one)?;
    let gone = BTreeSet::from([first, second]);
    let third = example.goes_on(&sa["local_spi"], &gone)?;
    ping(example, context)?;
    example.on(first, "gatewayctl undrain")?;
    let mut two = vec![first, third];
    two.sort_unstable();
    hops(example, &two)?;
    Ok(format!(
        "3 next hops, 2 after the drain of member {first}, 1 after the end of member {second}; the \
         tunnel goes on at member {third}; 2 next hops after the undrain"
    ))
}

/// Waits until the router's kernel has routes to both VIPs over exactly these members.
fn hops(example: &mut Running, members: &[u8]) -> Result<()> {
    let last = |id: &u8| 4 * u16::from(*id) + 2;
    let v4: BTreeSet<String> = members
        .iter()
        .map(|id| format!("192.0.2.{}", last(id)))
        .collect();
    let v6: BTreeSet<String> = members
        .iter()
        .map(|id| format!("2001:db8:2:{id}::2"))
        .collect();
    for (family, vip, wanted) in [("-4", VIP.to_string(), v4), ("-6", VIP6.to_string(), v6)] {
        let mut found = BTreeSet::new();
        let what = format!("the router's route to {vip} over {wanted:?}");
        let waited = wait_until(Duration::from_secs(20), &what, || {
            example
                .daemons
                .iter_mut()
                .try_for_each(Process::check_alive)?;
            let args = [family, "-j", "route", "show", "exact", &vip];
            let text = example.network.router.output("ip", &args)?;
            found = next_hops(&serde_json::from_str(&text)?);
            Ok(found == wanted)
        });
        waited.with_context(|| format!("it is over {found:?}"))?;
    }
    Ok(())
}

/// The gateways in what `ip -j route show` says of one destination: one route with many, one with one,
/// or many routes.
fn next_hops(routes: &Value) -> BTreeSet<String> {
    let routes = routes.as_array().into_iter().flatten();
    let all = routes.flat_map(|route| match route["nexthops"].as_array() {
        Some(hops) => hops.clone(),
        None => vec![route.clone()],
    });
    all.filter_map(|hop| hop["gateway"].as_str().map(str::to_owned))
        .collect()
}

/// With real ESP, pings go through the tunnel.
fn ping(example: &Running, context: &Context) -> Result<()> {
    let inner = crate::lab::site_host(0).into();
    let peer = &example.network.peer;
    if context.kernel_esp {
        let answered = peer.ping(Some(inner), INSIDE_HOST.into(), 5, 5)?;
        ensure!(answered >= 4, "{answered} of 5 pings were answered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_of_one_many_and_single_routes() {
        let many =
            serde_json::json!([{"dst": "v", "nexthops": [{"gateway": "a"}, {"gateway": "b"}]}]);
        assert_eq!(next_hops(&many).len(), 2);
        let one = serde_json::json!([{"dst": "v", "gateway": "a"}]);
        assert_eq!(next_hops(&one).into_iter().collect::<Vec<_>>(), ["a"]);
        assert!(next_hops(&serde_json::json!([])).is_empty());
    }
}
