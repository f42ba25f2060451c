//! The lab proven without the cluster: stock strongSwan at both ends.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use crate::lab::{
    Cable, Charon, Connection, INSIDE_HOST, Moment, Network, Plan, Run, Settings, Spray, Taps,
    Traffic, VIP, patience, probe_interval, replay_drops, site_connection, site_host, wait_until,
};

/// Stock strongSwan as gateway and as peer, and what is between them.
pub(super) struct Stock {
    pub(super) peer: Charon,
    pub(super) network: Network,
    _gateways: Vec<Charon>,
    _run: Run,
}

impl Stock {
    /// The connection of a site (0-based) as the peer has it.
    pub(super) fn peers_side(network: &Network, site: u16) -> Connection {
        site_connection(network, site, false)
    }

    /// The same as the gateway has it.
    pub(super) fn gateways_side(there: &Connection) -> Connection {
        Connection {
            local: VIP.into(),
            remote: "%any".into(),
            local_id: there.remote_id.clone(),
            remote_id: there.local_id.clone(),
            local_ts: there.remote_ts.clone(),
            remote_ts: there.local_ts.clone(),
            ..there.clone()
        }
    }

    /// A stock gateway on every member with the same connections, of which the first has the VIP,
    /// and the peer with one connection per site. No tunnel is up.
    pub(super) fn start(context: &Context, name: &str, plan: Plan) -> Result<Self> {
        Self::with(context, name, plan, Settings::new(context.peer_esp()), None)
    }

    /// The same with a peer that soon notices that the gateway is gone, and begins anew.
    pub(super) fn impatient(context: &Context, name: &str, plan: Plan) -> Result<Self> {
        let settings = Settings {
            retransmit_timeout: 0.5,
            retransmit_tries: 2,
            ..Settings::new(context.peer_esp())
        };
        Self::with(context, name, plan, settings, Some(1))
    }

    fn with(
        context: &Context,
        name: &str,
        plan: Plan,
        peers: Settings,
        liveness: Option<u32>,
    ) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        let network = Network::new(&run, plan)?;
        network.spray(Spray::Only(1))?;
        network.inside_via(1)?;
        network.add_vip(&network.members[0])?;
        let settings = Settings::new(context.peer_esp());
        let mut there: Vec<Connection> = (0..plan.sites)
            .map(|site| Self::peers_side(&network, site))
            .collect();
        let here: Vec<Connection> = there.iter().map(Self::gateways_side).collect();
        for connection in &mut there {
            connection.liveness = liveness;
        }
        let mut gateways = Vec::new();
        for node in &network.members {
            let gateway = Charon::start(node, settings)?;
            gateway.load(&here)?;
            gateways.push(gateway);
        }
        let peer = Charon::start(&network.peer, peers)?;
        peer.load(&there)?;
        Ok(Self {
            peer,
            network,
            _gateways: gateways,
            _run: run,
        })
    }
}

/// One member, one site.
const ONE: Plan = Plan {
    members: 1,
    sites: 1,
    nat: false,
    segment: false,
};

/// A stock gateway on the first member: what fails here is the lab's fault, not the cluster's.
pub(super) fn pair(context: &Context) -> Result<String> {
    let stock = Stock::start(context, "stock-pair", ONE)?;
    stock.peer.initiate("site-1", 20)?;
    ensure!(
        stock.peer.established()? == 1 && stock.peer.installed()? == 1,
        "the tunnel is not up"
    );
    let inner: IpAddr = site_host(0).into();
    let out = stock
        .network
        .peer
        .ping(Some(inner), INSIDE_HOST.into(), 3, 5)?;
    let back = stock.network.host.ping(None, inner, 3, 5)?;
    ensure!(
        out == 3 && back == 3,
        "pings answered: {out} of 3 out, {back} of 3 back"
    );
    Ok(format!("{}: 6 of 6 pings", stock.peer.version()?))
}

/// The instruments that judge failovers, on a tunnel whose behaviour is known: an outage of known
/// length, nothing sent twice, one negotiation.
pub(super) fn instruments(context: &Context) -> Result<String> {
    let outage = Duration::from_millis(400);
    let stock = Stock::start(context, "instruments", ONE)?;
    let taps = Taps::start(&stock.network)?;
    let begin = Moment::now();
    stock.peer.initiate("site-1", 20)?;
    let replays = replay_drops(&stock.network.peer)?;
    let traffic = Traffic::start(&stock.network, 1, probe_interval())?;
    std::thread::sleep(Duration::from_millis(700) * patience());
    let cut = Moment::now();
    stock.network.cable(1, Cable::Public, false)?;
    std::thread::sleep(outage * patience());
    stock.network.cable(1, Cable::Public, true)?;
    let mended = Moment::now();
    std::thread::sleep(Duration::from_millis(700) * patience());
    let probes = traffic.finish()?.remove(0);
    let evidence = taps.finish()?;
    let (gap, from) = probes.longest_silence();
    // The first answers may wait for ARP; the cut is not over before the cable is whole.
    let least = mended.since(cut).saturating_sub(outage);
    ensure!(
        gap >= outage && gap < mended.since(cut) + Duration::from_secs(2) * patience(),
        "an outage of {outage:?} (and {least:?} for the commands) shows as {gap:?}"
    );
    ensure!(from.plus(gap) > cut, "the silence is another one");
    let fitting = gap.as_nanos() / probe_interval().as_nanos() / 2;
    ensure!(
        probes.lost() as u128 >= fitting,
        "only {} probes were lost in {gap:?}",
        probes.lost()
    );
    ensure!(probes.doubled == 0, "{} answers came twice", probes.doubled);
    let answered = probes.answered.iter().flatten().count();
    ensure!(
        evidence.esp_packets() >= answered,
        "{answered} answers in {} captured ESP packets",
        evidence.esp_packets()
    );
    ensure!(evidence.repeated().is_empty(), "{:?}", evidence.repeated());
    ensure!(evidence.leaked().is_empty(), "cleartext was captured");
    ensure!(
        evidence.new_negotiations(begin) == 1,
        "{} negotiations",
        evidence.new_negotiations(begin)
    );
    ensure!(
        replay_drops(&stock.network.peer)? == replays,
        "the peer refused packets"
    );
    ensure!(
        stock.peer.ike_sas()?["site-1"].len() == 1,
        "the peer's list of SAs"
    );
    Ok(format!(
        "an outage of {} ms shows as a gap of {} ms, {} of {} probes lost, {} ESP packets",
        mended.since(cut).as_millis(),
        gap.as_millis(),
        probes.lost(),
        probes.sent.len(),
        evidence.esp_packets()
    ))
}

/// The router's three ways to distribute, and the counters that the other scenarios rely on.
pub(super) fn spray(context: &Context) -> Result<String> {
    let run = Run::new(&context.logs, "spray")?;
    let network = Network::new(&run, Plan::default())?;
    for member in &network.members {
        network.add_vip(member)?;
    }
    for v6 in [false, true] {
        network.spray(Spray::PerPacket)?;
        let even = datagrams(&network, v6, 9)?;
        ensure!(even == [3, 3, 3], "per packet, IPv6 {v6}: {even:?}");
        network.spray(Spray::Only(2))?;
        let one = datagrams(&network, v6, 9)?;
        ensure!(one == [0, 9, 0], "only member 2, IPv6 {v6}: {one:?}");
        network.spray(Spray::Flow)?;
        let flow = datagrams(&network, v6, 9)?;
        let whole = flow.iter().filter(|count| **count == 9).count() == 1;
        ensure!(whole, "one flow, IPv6 {v6}: {flow:?}");
    }
    Ok("per packet, one member, one flow: as told, over IPv4 and IPv6".into())
}

/// Sends datagrams of one flow to the VIP's IKE port; returns how many each member was sent.
fn datagrams(network: &Network, v6: bool, count: u64) -> Result<Vec<u64>> {
    network.count_at_router()?;
    let target = (Network::vip(v6), 500);
    network.peer.inside(|| {
        let any: IpAddr = if v6 {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        for _ in 0..count {
            socket.send_to(&[0; 32], target)?;
        }
        Ok(())
    })?;
    let all_sent = || -> Result<Vec<u64>> {
        Ok(network
            .sent_to_members()?
            .iter()
            .map(|sent| sent.ike)
            .collect())
    };
    let mut sent = Vec::new();
    wait_until(
        Duration::from_secs(2),
        "the router to pass the datagrams on",
        || {
            sent = all_sent()?;
            Ok(sent.iter().sum::<u64>() >= count)
        },
    )?;
    Ok(sent)
}
