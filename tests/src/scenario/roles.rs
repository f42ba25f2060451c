//! Stock strongSwan with every way to authenticate, begun by the gateway and then by the peer; with
//! pings where the kernel has ESP.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rcgen::{KeyPair, RsaKeySize};
use serde_json::json;

use super::Context;
use super::harness::ping_both_ways;
use super::libreswan::hint;
use crate::lab::{
    Authority, Charon, Cluster, ClusterSettings, ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, Network,
    PROPOSAL, Plan, Run, Settings, Spray, VIP, secret_file, site_address, wait_until,
};

/// Largest IP datagram of IKE on either side: certificates do not fit into one.
const FRAGMENT_SIZE: u32 = 576;
/// Pings each way per tunnel.
const PINGS: u32 = 3;

/// What a site's connection is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rsa,
    Ecdsa,
    Ed25519,
    Ppk,
    /// By pre-shared key, with an IKE proposal and an ESP proposal.
    Psk(&'static str, &'static str),
}

const WAYS: [Way; 9] = [
    Way::Rsa,
    Way::Ecdsa,
    Way::Ed25519,
    Way::Ppk,
    Way::Psk("aes128-sha256-modp2048", "aes128-sha256"),
    Way::Psk("aes192-sha384-modp3072", "aes256gcm16-esn"),
    Way::Psk("aes256-sha512-modp4096", "aes256-sha512-esn"),
    Way::Psk("aes256gcm16-prfsha384-ecp384", "chacha20poly1305"),
    Way::Psk("chacha20poly1305-prfsha512-ecp521", "aes192gcm16"),
];

impl Way {
    /// What the gateway's own files are called.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Rsa => Some("rsa"),
            Self::Ecdsa => Some("ecdsa"),
            Self::Ed25519 => Some("ed25519"),
            Self::Ppk | Self::Psk(..) => None,
        }
    }

    fn generate(self) -> Result<Option<KeyPair>> {
        Ok(match self {
            Self::Rsa => Some(KeyPair::generate_rsa_for(
                &rcgen::PKCS_RSA_SHA256,
                RsaKeySize::_2048,
            )?),
            Self::Ecdsa => Some(KeyPair::generate()?),
            Self::Ed25519 => Some(KeyPair::generate_for(&rcgen::PKCS_ED25519)?),
            Self::Ppk | Self::Psk(..) => None,
        })
    }

    /// Those of IKE and ESP. libipsec has not all that kernels have.
    fn proposals(self, kernel_esp: bool) -> (&'static str, &'static str) {
        match self {
            Self::Psk(ike, esp) if kernel_esp => (ike, esp),
            Self::Psk(ike, _) => (ike, ESP_PROPOSAL),
            _ => (PROPOSAL, ESP_PROPOSAL),
        }
    }
}

/// Each tunnel in both roles, with pings.
pub(super) fn strongswan(context: &Context) -> Result<String> {
    let run = Run::new(&context.logs, "roles")?;
    // How the members share them has nothing to do with roles.
    let plan = Plan {
        members: 1,
        sites: u16::try_from(WAYS.len())?,
        ..Plan::default()
    };
    let network = Network::new(&run, plan)?;
    let (here, there) = (run.log("credentials"), network.peer.log("swanctl"));
    let tables = write_both(&network, &here, &there, context.kernel_esp)?;
    let settings = ClusterSettings {
        tables,
        ..ClusterSettings::usual(plan.sites, context.kernel_esp)
    };
    let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
    network.spray(Spray::Only(1))?;
    let member = cluster.member(1)?;
    wait_until(Duration::from_secs(60), "the kernel's algorithms", || {
        Ok(member.ask("status")?["esp_algorithms_ready"] == true)
    })?;
    let peer = Settings {
        fragment_size: FRAGMENT_SIZE,
        ..Settings::new(context.peer_esp())
    };
    let peer = Charon::start(&network.peer, peer)?;
    peer.load_folder(&there)?;
    let begin = Instant::now();
    for (site, way) in (0u16..).zip(WAYS) {
        let name = name(site);
        for role in ["the gateway", "the peer"] {
            if role == "the peer" {
                peer.initiate(&name, 20).map(drop)
            } else {
                let order = json!({ "command": "initiate", "connection": name });
                member.request(&order).map(drop)
            }
            .and_then(|()| wait_tunnels(&cluster, &peer, 1))
            .and_then(|()| ping(context, &network, site))
            .with_context(|| format!("{way:?} begun by {role}\n{}", hint(&cluster)))?;
            peer.swanctl(&["--terminate", "--ike", &name])?;
            wait_tunnels(&cluster, &peer, 0)?;
        }
    }
    signs(&peer.log())?;
    let repeated = peer.retransmissions();
    ensure!(
        repeated == 0,
        "the peer had to repeat {repeated} message(s)"
    );
    Ok(format!(
        "{}: {} ways, each in both roles, in {:.1} s",
        peer.version()?,
        WAYS.len(),
        begin.elapsed().as_secs_f64()
    ))
}

/// So many tunnels on both sides.
fn wait_tunnels(cluster: &Cluster, peer: &Charon, count: usize) -> Result<()> {
    let what = format!("{count} tunnel(s) on both sides");
    wait_until(Duration::from_secs(20), &what, || {
        let sas = cluster.ike_sas()?;
        let children = |sa: &serde_json::Value| sa["children"].as_array().map_or(0, Vec::len);
        let ours: usize = sas.iter().map(|(_, sa)| children(sa)).sum();
        Ok((sas.len(), ours) == (count, count) && peer.installed()? == count)
    })
}

fn ping(context: &Context, network: &Network, site: u16) -> Result<()> {
    let (sent, lost) = ping_both_ways(network, context.kernel_esp, site, PINGS)?;
    ensure!(lost == 0, "{lost} of {sent} pings lost");
    Ok(())
}

/// What the peer's log has to tell of each way, in both roles.
fn signs(log: &str) -> Result<()> {
    for (sign, least) in [
        ("authentication of 'gw.example.org' with RSA", 2),
        ("authentication of 'gw.example.org' with ECDSA", 2),
        ("authentication of 'gw.example.org' with ED25519", 2),
        ("using PPK for PPK_ID", 2),
        ("received fragment #", 4),
        ("splitting IKE message", 4),
    ] {
        let seen = log.matches(sign).count();
        ensure!(seen >= least, "the peer logged \"{sign}\" {seen} times");
    }
    Ok(())
}

fn name(site: u16) -> String {
    format!("site-{}", site + 1)
}

/// Writes what the gateway names into `here` and the peer's configuration into `there`; returns the
/// members' tables.
fn write_both(network: &Network, here: &Path, there: &Path, kernel_esp: bool) -> Result<String> {
    for folder in ["x509", "x509ca", "private"] {
        fs::create_dir_all(there.join(folder))?;
    }
    let authority = Authority::new("Lab CA")?;
    fs::write(there.join("x509ca/ca.pem"), authority.pem())?;
    let folder = here.display();
    let mut tables = format!("[[authority]]\ncacert = \"{folder}/ca.pem\"\n");
    let (mut connections, mut secrets) = (String::new(), String::new());
    let mut own = Vec::new();
    for (site, way) in (0u16..).zip(WAYS) {
        let name = name(site);
        if let (Some(file), Some(ours), Some(theirs)) =
            (way.key(), way.generate()?, way.generate()?)
        {
            let certificate = authority.issue(&name, u64::from(site) + 1, &theirs)?;
            fs::write(there.join(format!("x509/{name}.pem")), certificate.pem())?;
            let key = there.join(format!("private/{name}.pem"));
            secret_file(&key, &theirs.serialize_pem())?;
            let _ = write!(tables, "[[private]]\nfile = \"{folder}/{file}.key\"\n");
            own.push((file, ours));
        } else {
            let _ = writeln!(
                secrets,
                "  ike-{name} {{ id-1 = {name}\n id-2 = {GATEWAY_ID}\n secret = \"{}\" }}",
                crate::lab::secret(site)
            );
        }
        if way == Way::Ppk {
            let ppk = "5a".repeat(32);
            let _ = write!(tables, "[[ppk]]\nid = \"lab-ppk\"\nsecret = \"0x{ppk}\"\n");
            let _ = writeln!(secrets, "  ppk-lab {{ id = lab-ppk\n secret = 0x{ppk} }}");
        }
        tables += &ours(network, site, way, here, kernel_esp);
        connections += &theirs(network, site, way, kernel_esp);
    }
    let own: Vec<(&str, &KeyPair)> = own.iter().map(|(name, key)| (*name, key)).collect();
    authority.equip(here, &own)?;
    fs::write(
        there.join("swanctl.conf"),
        format!("connections {{\n{connections}}}\nsecrets {{\n{secrets}}}\n"),
    )?;
    Ok(tables)
}

/// The gateway's connection.
fn ours(network: &Network, site: u16, way: Way, folder: &Path, kernel_esp: bool) -> String {
    let (name, address) = (name(site), site_address(&network.plan, site));
    let (ike, esp) = way.proposals(kernel_esp);
    let (auth, certs) = match way.key() {
        Some(key) => (
            "pubkey",
            format!("certs = [\"{}/{key}.pem\"]\n", folder.display()),
        ),
        None => ("psk", String::new()),
    };
    let ppk = if way == Way::Ppk {
        "ppk_id = \"lab-ppk\"\nppk_required = true\n"
    } else {
        ""
    };
    format!(
        "[[connection]]\nname = \"{name}\"\nlocal_addrs = [\"{VIP}\"]\n\
         remote_addrs = [\"{address}\"]\nproposals = [\"{ike}\"]\nfragment_size = {FRAGMENT_SIZE}\n{ppk}\
         [connection.local]\nauth = \"{auth}\"\n{certs}id = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"{auth}\"\nid = \"{name}\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"10.2.{}.0/24\"]\nesp_proposals = [\"{esp}\"]\n",
        site + 1
    )
}

/// The peer's.
fn theirs(network: &Network, site: u16, way: Way, kernel_esp: bool) -> String {
    let (name, address) = (name(site), site_address(&network.plan, site));
    let (ike, esp) = way.proposals(kernel_esp);
    let (auth, certs) = match way.key() {
        Some(_) => ("pubkey", format!("certs = {name}.pem\n ")),
        None => ("psk", String::new()),
    };
    let ppk = if way == Way::Ppk {
        "    ppk_id = lab-ppk\n    ppk_required = yes\n"
    } else {
        ""
    };
    format!(
        "  {name} {{\n    version = 2\n    mobike = no\n{ppk}    local_addrs = {address}\n    \
         remote_addrs = {VIP}\n    proposals = {ike}\n    \
         local {{ auth = {auth}\n {certs}id = {name} }}\n    \
         remote {{ auth = {auth}\n id = {GATEWAY_ID} }}\n    \
         children {{ net {{\n      local_ts = 10.2.{}.0/24\n      remote_ts = {INSIDE_NETWORK}\n      \
         esp_proposals = {esp}\n    }} }}\n  }}\n",
        site + 1
    )
}
