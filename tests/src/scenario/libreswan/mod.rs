//! Stock libreswan as peer: it negotiates, rekeys and deletes in its own ways.

mod redirect;
mod takeover;
mod ways;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::ping_both_ways;
use crate::lab::{
    Cluster, ClusterSettings, GATEWAY_ID, INSIDE_NETWORK, Network, Plan, Pluto, PlutoConnection,
    PlutoSettings, Run, Spray, VIP, secret, site_address, wait_until,
};

pub(super) use redirect::redirect;
pub(super) use takeover::{killed, killed_behind_nat};
pub(super) use ways::{at_once, nat, ways};

/// What libreswan calls the proposals that the members take.
const VARIANTS: [(&str, &str); 2] = [
    ("aes_gcm128-sha2_256-dh31", "aes_gcm128"),
    ("aes_gcm256-sha2_384-dh19", "aes_gcm128"),
];

/// Tunnels by pre-shared key, with pings; rekeying of CHILD_SA and IKE SA; deletion.
pub(super) fn psk(context: &Context) -> Result<String> {
    let plan = Plan {
        sites: 2,
        ..Plan::default()
    };
    let run = Run::new(&context.logs, "libreswan")?;
    let network = Network::new(&run, plan)?;
    let settings = ClusterSettings::usual(plan.sites, context.kernel_esp);
    let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
    let theirs = PlutoSettings {
        connections: (0..plan.sites)
            .map(|site| connection(&network, site))
            .collect(),
        secrets: (0..plan.sites).map(peer_secret).collect(),
        ..PlutoSettings::default()
    };
    let connections = &theirs.connections;
    let peer = Pluto::start(&network.peer, &theirs)?;
    network.spray(Spray::PerPacket)?;
    let (mut sent, mut lost) = (0, 0);
    let mut ping = |site| -> Result<()> {
        let pings = ping_both_ways(&network, context.kernel_esp, site, 4)?;
        sent += pings.0;
        lost += pings.1;
        Ok(())
    };
    for site in 0..plan.sites {
        let name = &connections[usize::from(site)].name;
        peer.initiate(name, Duration::from_secs(20))
            .with_context(|| hint(&cluster))?;
        ping(site)?;
    }
    let name = &connections[0].name;
    for (what, order) in [("CHILD_SA", "--rekey-ipsec"), ("IKE SA", "--rekey-ike")] {
        let before = spis(&cluster, name)?;
        peer.whack(&["--name", name, order, "--asynchronous"])?;
        wait_until(Duration::from_secs(20), &format!("another {what}"), || {
            let now = spis(&cluster, name)?;
            let changed = if what == "IKE SA" {
                now.0 != before.0
            } else {
                now.1 != before.1
            };
            Ok(changed && peer.children(name)? == 1)
        })
        .with_context(|| hint(&cluster))?;
        ping(0)?;
    }
    ensure!(lost == 0, "{lost} of {sent} pings lost");
    peer.whack(&["--name", name, "--terminate", "--asynchronous"])?;
    wait_until(Duration::from_secs(10), "the deleted SA to be gone", || {
        Ok(cluster.ike_sas()?.len() == 1)
    })?;
    let repeated = peer.retransmissions();
    ensure!(
        repeated == 0 || cluster.was_starved()?,
        "libreswan had to repeat {repeated} message(s)"
    );
    Ok(format!(
        "{}: {} tunnels, both rekeyings, deletion, {} of {} pings",
        peer.version(),
        plan.sites,
        sent - lost,
        sent
    ))
}

fn connection(network: &Network, site: u16) -> PlutoConnection {
    let (ike, esp) = VARIANTS[usize::from(site) % VARIANTS.len()];
    peer_connection(network, site, ike, esp)
}

/// A site's connection by pre-shared key, in libreswan's words.
pub(super) fn peer_connection(
    network: &Network,
    site: u16,
    ike: &str,
    esp: &str,
) -> PlutoConnection {
    let number = site + 1;
    PlutoConnection {
        name: format!("site-{number}"),
        settings: vec![
            ("left", site_address(&network.plan, site).to_string()),
            ("leftid", format!("@site-{number}")),
            ("leftsubnet", format!("10.2.{number}.0/24")),
            ("right", VIP.to_string()),
            ("rightid", format!("@{GATEWAY_ID}")),
            ("rightsubnet", INSIDE_NETWORK.into()),
            ("authby", "secret".into()),
            // The lab has its routes; the script would be strongSwan's.
            ("leftupdown", "%disabled".into()),
            ("ike", ike.into()),
            ("esp", esp.into()),
        ],
    }
}

/// A site's line of ipsec.secrets.
pub(super) fn peer_secret(site: u16) -> String {
    format!(
        "@site-{} @{GATEWAY_ID} : PSK \"{}\"\n",
        site + 1,
        secret(site)
    )
}

/// Our SPI of a peer's IKE SA, and of its CHILD_SA.
fn spis(cluster: &Cluster, peer: &str) -> Result<(Value, Value)> {
    let sas = cluster.ike_sas()?;
    let mine: Vec<_> = sas
        .iter()
        .filter(|(_, sa)| sa["remote_id"] == peer)
        .collect();
    // While one takes the other's place there are two.
    let (_, sa) = mine
        .last()
        .with_context(|| format!("no IKE SA of {peer}"))?;
    let child = &sa["children"][0];
    Ok((sa["local_spi"].clone(), child["spi_in"].clone()))
}

/// What the members said last, for an error.
pub(super) fn hint(cluster: &Cluster) -> String {
    let logs = cluster.members.iter();
    logs.map(|member| {
        format!(
            "member {}:\n{}\n",
            member.id,
            crate::lab::tail(&member.log(), 6)
        )
    })
    .collect()
}
