//! The lab proven without the cluster: stock strongSwan at both ends.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use crate::lab::{
    Charon, Connection, INSIDE_HOST, Network, Plan, Run, Settings, Spray, VIP, site_address,
    site_host, wait_until,
};

/// A stock gateway on the first member: what fails here is the lab's fault, not the cluster's.
pub(super) fn pair(context: &Context) -> Result<String> {
    let run = Run::new(&context.logs, "stock-pair")?;
    let network = Network::new(
        &run,
        Plan {
            members: 1,
            ..Plan::default()
        },
    )?;
    network.spray(Spray::Only(1))?;
    let gateway_node = &network.members[0];
    network.add_vip(gateway_node)?;
    let settings = Settings::new(context.peer_esp());
    let gateway = Charon::start(gateway_node, settings)?;
    let peer = Charon::start(&network.peer, settings)?;
    let site: IpAddr = site_address(&network.plan, 0).into();
    let there = Connection {
        name: "site-1".into(),
        local: site,
        remote: VIP.to_string(),
        proposal: "aes128gcm16-prfsha256-x25519".into(),
        esp_proposal: "aes128gcm16".into(),
        local_id: "site-1".into(),
        remote_id: "gw.example.org".into(),
        local_ts: "10.2.1.0/24".into(),
        remote_ts: "10.1.0.0/16".into(),
        secret: "the lab's pre-shared key".into(),
        mobike: false,
    };
    let here = Connection {
        local: VIP.into(),
        remote: "%any".into(),
        local_id: there.remote_id.clone(),
        remote_id: there.local_id.clone(),
        local_ts: there.remote_ts.clone(),
        remote_ts: there.local_ts.clone(),
        ..there.clone()
    };
    gateway.load(&[here])?;
    peer.load(&[there])?;
    peer.initiate("site-1", 20)?;
    ensure!(
        peer.established()? == 1 && peer.installed()? == 1,
        "the tunnel is not up"
    );
    let inner: IpAddr = site_host(0).into();
    let out = network.peer.ping(Some(inner), INSIDE_HOST.into(), 3, 5)?;
    let back = network.host.ping(None, inner, 3, 5)?;
    ensure!(
        out == 3 && back == 3,
        "pings answered: {out} of 3 out, {back} of 3 back"
    );
    Ok(format!("{}: 6 of 6 pings", peer.version()?))
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
