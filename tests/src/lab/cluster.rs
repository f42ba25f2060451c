//! The cluster under test: certificates, configuration files and the members' agents.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::charon::Connection;
use super::limit;
use super::member::Member;
use super::network::{
    Network, Plan, VIP, VIP6, inside_address, public_address, segment_address, site_address,
    site_address6, sync_address,
};
use super::run::Run;
use super::timing::Timing;
use super::wait::{patience, wait_until};

/// The cluster's IKE identity.
pub const GATEWAY_ID: &str = "gw.example.org";
/// The network behind the cluster.
pub const INSIDE_NETWORK: &str = "10.1.0.0/16";
/// The networks behind the sites.
pub const SITE_NETWORKS: &str = "10.2.0.0/16";
/// What the peer proposes unless a scenario wants something else.
pub const PROPOSAL: &str = "aes128gcm16-prfsha256-x25519";
/// The same for ESP.
pub const ESP_PROPOSAL: &str = "aes128gcm16";

/// What the members' configuration files say beside the topology.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of peers that the gateway has a secret for.
    pub sites: u16,
    /// Whether SAs go into the kernel, or are only recorded.
    pub kernel_esp: bool,
    /// How fast the members judge each other.
    pub timing: Timing,
    /// The networks behind the peers.
    pub remote_ts: String,
    /// Lines added to the file's `[cluster]` table.
    pub cluster: String,
    /// Lines added to the connection of all sites.
    pub connection: String,
    /// Lines added to the file's `[ike]` table.
    pub ike: String,
    /// Whole tables for the file's end.
    pub tables: String,
}

impl Settings {
    /// The usual ones for `sites` peers, each with its network of [`SITE_NETWORKS`].
    pub fn usual(sites: u16, kernel_esp: bool) -> Self {
        Self {
            sites,
            kernel_esp,
            timing: Timing::usual(),
            remote_ts: SITE_NETWORKS.into(),
            cluster: String::new(),
            connection: String::new(),
            ike: String::new(),
            tables: String::new(),
        }
    }
}

/// The agents of all members. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    /// By id, from 1.
    pub members: Vec<Member>,
    /// How fast the members judge each other.
    pub timing: Timing,
    /// Epoch of the view in which they began.
    pub first_view: Option<u64>,
}

/// The pre-shared key of a site (0-based).
pub fn secret(site: u16) -> String {
    format!("lab secret of site {}", site + 1)
}

/// The peer's connection of a site (0-based), over IPv4 or IPv6.
pub fn site_connection(network: &Network, site: u16, v6: bool) -> Connection {
    let number = site + 1;
    let local = if v6 {
        site_address6(site).into()
    } else {
        site_address(&network.plan, site).into()
    };
    Connection {
        name: format!("site-{number}"),
        local,
        remote: Network::vip(v6).to_string(),
        proposal: PROPOSAL.into(),
        esp_proposal: ESP_PROPOSAL.into(),
        local_id: format!("site-{number}"),
        remote_id: GATEWAY_ID.into(),
        local_ts: format!("10.2.{number}.0/24"),
        remote_ts: INSIDE_NETWORK.into(),
        secret: secret(site),
        certificate: None,
        ppk: None,
        mobike: false,
        liveness: None,
        lines: String::new(),
    }
}

impl Cluster {
    /// Makes certificates, starts every member and waits until all are connected to each other.
    ///
    /// # Errors
    /// A member does not come up; the error names it and quotes its log.
    pub fn start(
        binaries: &Path,
        run: &Run,
        network: &Network,
        settings: &Settings,
    ) -> Result<Self> {
        let pki = issue_certificates(binaries, run, network.plan.members)?;
        let mut members = Vec::new();
        for (id, node) in (1u8..).zip(&network.members) {
            let config = configuration(&network.plan, id, &pki, settings);
            members.push(Member::start(binaries, node, id, &config)?);
        }
        members.iter_mut().try_for_each(Member::wait_ready)?;
        let mut cluster = Self {
            members,
            timing: settings.timing,
            first_view: None,
        };
        cluster.wait_connected()?;
        cluster.first_view = cluster.newest_view()?;
        Ok(cluster)
    }

    /// Whether the members have made another view on an emulated machine: starved, they call each
    /// other late. Slots move then, and what was on its way has to be repeated.
    ///
    /// # Errors
    /// A member does not answer.
    pub fn was_starved(&self) -> Result<bool> {
        Ok(patience() > 1 && self.newest_view()? != self.first_view)
    }

    fn newest_view(&self) -> Result<Option<u64>> {
        let mut newest = None;
        for member in &self.members {
            newest = newest.max(member.ask("view")?["epoch"].as_u64());
        }
        Ok(newest)
    }

    /// Waits until every member has a sync channel to every other, and all are in one view.
    ///
    /// # Errors
    /// Some channel or member does not come up in 20 s.
    pub fn wait_connected(&self) -> Result<()> {
        let others = self.members.len() as u64 - 1;
        wait_until(
            Duration::from_secs(20),
            "the members to connect to each other and to form a view",
            || {
                let mut epochs = BTreeSet::new();
                for member in &self.members {
                    let view = member.ask("view")?;
                    let together = view["members"].as_array().map(Vec::len);
                    if member.ask("status")?["peers_connected"].as_u64() != Some(others)
                        || together != Some(self.members.len())
                        || view["admitted"] != true
                    {
                        return Ok(false);
                    }
                    epochs.insert(view["epoch"].as_u64());
                }
                Ok(epochs.len() == 1)
            },
        )
    }

    /// The member with an id.
    ///
    /// # Errors
    /// There is none.
    pub fn member(&self, id: u64) -> Result<&Member> {
        let found = self
            .members
            .iter()
            .find(|member| u64::from(member.id) == id);
        found.with_context(|| format!("there is no member {id}"))
    }

    /// The member with an id, to change it.
    ///
    /// # Errors
    /// There is none.
    pub fn member_mut(&mut self, id: u8) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.id == id);
        found.with_context(|| format!("there is no member {id}"))
    }

    /// The sum of an engine counter over all members.
    ///
    /// # Errors
    /// A member does not answer.
    pub fn engine(&self, counter: &str) -> Result<u64> {
        self.members
            .iter()
            .map(|member| member.engine(counter))
            .sum()
    }

    /// The sum of frames over all members and the given reasons.
    ///
    /// # Errors
    /// A member does not answer.
    pub fn reasons(&self, names: &[&str]) -> Result<u64> {
        self.members
            .iter()
            .map(|member| member.reasons(names))
            .sum()
    }

    /// The established IKE SAs of all members, each with the member that reported it.
    ///
    /// # Errors
    /// A member does not answer.
    pub fn ike_sas(&self) -> Result<Vec<(u8, Value)>> {
        let mut found = Vec::new();
        for member in &self.members {
            let mut sas = member.ask("sas")?;
            if let Value::Array(list) = sas["ike_sas"].take() {
                found.extend(list.into_iter().map(|sa| (member.id, sa)));
            }
        }
        Ok(found)
    }

    /// The only established IKE SA and the member that owns it.
    ///
    /// # Errors
    /// There is none, or more than one: two members would own it.
    pub fn only_ike_sa(&self) -> Result<(u8, Value)> {
        let mut sas = self.ike_sas()?;
        match sas.len() {
            1 => Ok(sas.remove(0)),
            count => bail!("{count} established IKE SAs over all members instead of one: {sas:?}"),
        }
    }

    /// IKE frames and ESP frames that XDP redirected between members.
    ///
    /// # Errors
    /// A member does not answer.
    pub fn redirected(&self) -> Result<(u64, u64)> {
        let ike = [
            "ike_sa_forwarded",
            "negotiation_forwarded",
            "new_ike_forwarded",
        ];
        Ok((self.reasons(&ike)?, self.reasons(&["esp_forwarded"])?))
    }
}

/// A CA and a certificate per member, made by the command line that operators use.
fn issue_certificates(binaries: &Path, run: &Run, members: u8) -> Result<PathBuf> {
    let dir = run.log("pki");
    let gatewayctl = |args: &[&str]| -> Result<()> {
        let mut command = Command::new(binaries.join("gatewayctl"));
        command.arg("pki").args(args).arg("--dir").arg(&dir);
        let output = limit::output(&mut command).context("gatewayctl")?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("gatewayctl pki {} failed: {errors}", args.join(" "));
        }
        Ok(())
    };
    fs::create_dir_all(&dir)?;
    gatewayctl(&["init", "--cluster", "lab"])?;
    for id in 1..=members {
        let (member, address) = (id.to_string(), sync_address(id).to_string());
        let out = dir.join(format!("member-{id}")).display().to_string();
        gatewayctl(&[
            "issue",
            "--member",
            &member,
            "--sync-address",
            &address,
            "--out",
            &out,
        ])?;
    }
    Ok(dir)
}

fn configuration(plan: &Plan, local: u8, pki: &Path, settings: &Settings) -> String {
    let own = pki.join(format!("member-{local}"));
    let backend = if settings.kernel_esp {
        "xfrm"
    } else {
        "recording"
    };
    let mut text = format!(
        "[cluster]\nname = \"lab\"\nlocal = {local}\nvips = [\"{VIP}\", \"{VIP6}\"]\n\
         {}state_dir = \"/run/gateway/lib\"\n{}\n\n",
        settings.timing.lines(),
        settings.cluster
    );
    for id in 1..=plan.members {
        let (sync, inside) = (sync_address(id), inside_address(id));
        let public = if plan.segment {
            segment_address(id)
        } else {
            public_address(id)
        };
        let _ = write!(
            text,
            "[[cluster.member]]\nid = {id}\nname = \"m{id}\"\nsync_address = \"{sync}\"\n\
             heartbeat_addresses = [\"{public}\", \"{inside}\"]\n\n"
        );
    }
    let _ = write!(
        text,
        "[interfaces]\npublic = [\"eth0\"]\ninside = [\"eth2\"]\nsync = \"eth1\"\n\n\
         [sync]\nca = \"{own}/ca.crt\"\ncertificate = \"{own}/member.crt\"\n\
         key = \"{own}/member.key\"\n\n[kernel]\nbackend = \"{backend}\"\n\n[ike]\n{ike}\n\n\
         [[connection]]\nname = \"sites\"\n\
         proposals = [\"{PROPOSAL}\", \"aes256gcm16-prfsha384-ecp256\"]\n{connection}\n\
         [connection.local]\nauth = \"psk\"\nid = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"psk\"\nid = \"%any\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"{remote_ts}\"]\n\
         esp_proposals = [\"{ESP_PROPOSAL}\", \"aes128gcm16-x25519\"]\n",
        own = own.display(),
        ike = settings.ike,
        remote_ts = settings.remote_ts,
        connection = settings.connection,
    );
    for site in 0..settings.sites {
        let _ = write!(
            text,
            "\n[[secret]]\nids = [\"{GATEWAY_ID}\", \"site-{}\"]\nsecret = \"{}\"\n",
            site + 1,
            secret(site)
        );
    }
    text + "\n" + &settings.tables
}
