//! The responders, each in a lab of its own: the gateway's agents, and stock strongSwan.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::peers::{Auth, SECRET};
use crate::lab::{
    Charon, Cluster, ClusterSettings, Esp, GATEWAY_ID, INSIDE_NETWORK, Network, Plan, Process, Run,
    SITE_NETWORKS, Settings, Spray, VIP, wait_until,
};
use crate::scenario::Context;

/// Addresses that the peers share.
const ADDRESSES: u16 = 16;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// So many members, of which one owns everything (HA mode).
    Gateway { members: u8 },
    /// charon.
    Strongswan,
}

/// A running responder and the network before it. Dropped in this order.
pub(super) struct Responder {
    kind: Kind,
    pub(super) network: Network,
    _run: Run,
}

enum Kind {
    Gateway { cluster: Cluster, owner: u8 },
    Strongswan(Charon),
}

impl Responder {
    /// Starts one that takes `proposals` and authenticates with what lies in `pki`.
    pub(super) fn start(
        context: &Context,
        system: System,
        auth: Auth,
        proposals: &[&str],
        pki: &Path,
    ) -> Result<Self> {
        let members = match system {
            System::Gateway { members } => members,
            System::Strongswan => 1,
        };
        let run = Run::new(&context.logs, "bench-handshake")?;
        let plan = Plan {
            members,
            sites: ADDRESSES,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        network.spray(Spray::Only(1))?;
        let kind = match system {
            System::Strongswan => Kind::Strongswan(charon(&network, auth, proposals, pki)?),
            System::Gateway { .. } => {
                let cluster = agents(context, &run, &network, auth, proposals, pki)?;
                let owner = owner(&cluster)?;
                network.spray(Spray::Only(owner))?;
                Kind::Gateway { cluster, owner }
            }
        };
        Ok(Self {
            kind,
            network,
            _run: run,
        })
    }

    /// Name and version.
    pub(super) fn name(&self) -> Result<String> {
        Ok(match &self.kind {
            Kind::Gateway { .. } => "gateway".into(),
            Kind::Strongswan(charon) => charon.version()?,
        })
    }

    /// IKE SAs that it says it has.
    pub(super) fn established(&self) -> Result<usize> {
        match &self.kind {
            Kind::Gateway { cluster, owner } => {
                let sync = cluster.member((*owner).into())?.ask("sync")?;
                let records = sync["records"].as_u64().context("no count of records")?;
                Ok(usize::try_from(records)?)
            }
            Kind::Strongswan(charon) => {
                let stats = charon.swanctl(&["--stats"])?;
                let line = stats.lines().find(|line| line.contains("IKE_SAs:"));
                let mut words = line.context("no statistics")?.split_whitespace();
                let total = words.nth(1).context("no count")?;
                Ok(total.parse()?)
            }
        }
    }

    /// The process that answers.
    pub(super) fn answering(&mut self) -> Result<&mut Process> {
        match &mut self.kind {
            Kind::Gateway { cluster, owner } => Ok(cluster.member_mut(*owner)?.process()),
            Kind::Strongswan(charon) => Ok(charon.process()),
        }
    }

    /// The other members' agents.
    pub(super) fn others(&mut self) -> Vec<u32> {
        match &mut self.kind {
            Kind::Gateway { cluster, owner } => {
                let members = cluster.members.iter_mut();
                let others = members.filter(|member| member.id != *owner);
                others.map(|member| member.process().pid()).collect()
            }
            Kind::Strongswan(_) => Vec::new(),
        }
    }
}

/// The member that owns all slots.
fn owner(cluster: &Cluster) -> Result<u8> {
    let mut owner = None;
    wait_until(
        std::time::Duration::from_secs(30),
        "an owner of all",
        || {
            let view = cluster.members[0].ask("view")?;
            let members = view["members"].as_array().cloned().unwrap_or_default();
            let all = |member: &&Value| member["slots"] == 256;
            let found = members.iter().find(all);
            owner = found.and_then(|member| u8::try_from(member["id"].as_u64()?).ok());
            Ok(owner.is_some())
        },
    )?;
    owner.context("nobody owns all slots")
}

fn agents(
    context: &Context,
    run: &Run,
    network: &Network,
    auth: Auth,
    proposals: &[&str],
    pki: &Path,
) -> Result<Cluster> {
    let pki = pki.display();
    let quoted: Vec<String> = proposals.iter().map(|text| format!("\"{text}\"")).collect();
    // The lab's own connection has need of a secret, whatever this one does.
    let secret = format!("[[secret]]\nids = [\"{GATEWAY_ID}\"]\nsecret = \"{SECRET}\"\n");
    let (files, local, remote) = match auth {
        Auth::Psk => (String::new(), "auth = \"psk\"".to_owned(), "psk"),
        Auth::Ecdsa256 | Auth::Rsa2048 => (
            format!(
                "[[private]]\nfile = \"{pki}/gw.key\"\n[[authority]]\ncacert = \"{pki}/ca.pem\"\n"
            ),
            format!("auth = \"pubkey\"\ncerts = [\"{pki}/gw.pem\"]"),
            "pubkey",
        ),
    };
    let tables = format!(
        "{secret}{files}[[connection]]\nname = \"bench\"\nproposals = [{}]\n\
         [connection.local]\n{local}\nid = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"{remote}\"\nid = \"*.bench.example.org\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"10.3.0.0/16\"]\nesp_proposals = [\"aes128gcm16\"]\n\
         [ha]\naddresses = []\n",
        quoted.join(", "),
    );
    let settings = ClusterSettings {
        cluster: "mode = \"ha\"\n".into(),
        tables,
        // No SA is ever installed.
        ..ClusterSettings::usual(0, false)
    };
    Cluster::start(&context.binaries, run, network, &settings)
}

fn charon(network: &Network, auth: Auth, proposals: &[&str], pki: &Path) -> Result<Charon> {
    let node = &network.members[0];
    network.add_vip(node)?;
    let settings = Settings {
        crowded: true,
        ..Settings::new(Esp::Kernel)
    };
    let charon = Charon::start(node, settings)?;
    let folder = node.log("swanctl");
    for name in ["x509", "x509ca", "private"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let (way, secrets) = match auth {
        Auth::Psk => ("auth = psk", format!("  ike {{ secret = \"{SECRET}\" }}\n")),
        Auth::Ecdsa256 | Auth::Rsa2048 => {
            for (from, to) in [
                ("gw.pem", "x509/gw.pem"),
                ("ca.pem", "x509ca/ca.pem"),
                ("gw.key", "private/gw.key"),
            ] {
                fs::copy(pki.join(from), folder.join(to))?;
            }
            ("auth = pubkey", String::new())
        }
    };
    let certificate = if auth == Auth::Psk {
        ""
    } else {
        "certs = gw.pem\n"
    };
    let conf = format!(
        "connections {{\n  bench {{\n    version = 2\n    local_addrs = {VIP}\n    \
         remote_addrs = %any\n    proposals = {}\n    mobike = no\n    childless = force\n    \
         unique = never\n    local {{ {way}\n {certificate} id = {GATEWAY_ID} }}\n    \
         remote {{ {way}\n id = %any }}\n    children {{ net {{\n      \
         local_ts = {INSIDE_NETWORK}\n      remote_ts = {SITE_NETWORKS}\n    }} }}\n  }}\n}}\n\
         secrets {{\n{secrets}}}\n",
        proposals.join(", "),
    );
    fs::write(folder.join("swanctl.conf"), conf)?;
    charon.load_folder(&folder)?;
    let loaded = charon.swanctl(&["--list-conns"])?;
    ensure!(
        loaded.contains("bench"),
        "charon has no connection: {loaded}"
    );
    Ok(charon)
}
