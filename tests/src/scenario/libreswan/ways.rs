//! Every way to authenticate and to travel that both sides know, in both roles.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{KeyPair, RsaKeySize};
use serde_json::json;

use super::super::Context;
use super::super::harness::ping_both_ways;
use super::{hint, peer_connection, peer_secret, spis};
use crate::lab::{
    Authority, Cluster, ClusterSettings, ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, Network,
    PROPOSAL, Plan, Pluto, PlutoConnection, PlutoIdentity, PlutoSettings, Run, Spray, VIP, VIP6,
    site_address, site_address6, wait_until,
};

/// IKE and ESP in libreswan's words.
const IKE: &str = "aes_gcm128-sha2_256-dh31";
const ESP: &str = "aes_gcm128";
/// What pluto logs of a message that it does not look at.
const DROPPED: &str = "discarding packet received during asynchronous work";
/// What pluto logs last when it ends itself. Version 4.10 does when our answer to its rekeying comes
/// while it computes its answer to ours: it suspends the IKE SA a second time ("state already has
/// outstanding crypto", `st_suspended_md`).
const ABORTED: &str = "ABORT: ASSERTION FAILED";
/// Pings each way per look.
const PINGS: u32 = 3;

/// What a site's tunnel is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// RSA-2048 on both sides.
    Rsa,
    /// ECDSA P-256 on both sides.
    Ecdsa,
    /// A post-quantum key beside the pre-shared one (RFC 8784).
    Ppk,
    /// ESP in UDP although nobody translates addresses.
    Encapsulated,
    /// IPv4 in IPv6.
    V6,
    /// MOBIKE is announced (RFC 4555).
    Mobike,
    /// The gateway would begin without CHILD_SA, which the peer does not announce (RFC 6023).
    Childless,
    /// The gateway sends the peer to where it is already (RFC 5685).
    Redirected,
    /// The peer sends the gateway to another address of its own.
    Redirecting,
}

/// One site: its way, and who begins.
pub(super) const SITES: [(Way, bool); 8] = [
    (Way::Rsa, false),
    (Way::Rsa, true),
    (Way::Ecdsa, false),
    (Way::Ppk, false),
    (Way::Ppk, true),
    (Way::Encapsulated, true),
    (Way::V6, false),
    (Way::Mobike, false),
];

/// All ways side by side, with pings.
pub(in super::super) fn ways(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "libreswan-ways", false, &SITES)?;
    for site in 0..SITES.len() {
        bench.bring_up(site)?;
    }
    Ok(format!(
        "{}: RSA, ECDSA, PPK, UDP, IPv6, MOBIKE",
        bench.peer.version()
    ))
}

/// Both sides rekey at the same time. On its own, because pluto 4.10 aborts in one moment of it:
/// see [`ABORTED`].
pub(in super::super) fn at_once(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "libreswan-at-once", false, &[(Way::Rsa, true)])?;
    bench.bring_up(0)?;
    let simultaneous = bench.rekey_at_once(0)?;
    bench.ping(0)?;
    Ok(format!("{}: {simultaneous}", bench.peer.version()))
}

/// From behind a NAT: the peer begins, and both sides rekey.
pub(in super::super) fn nat(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "libreswan-nat", true, &[(Way::Rsa, false)])?;
    bench.bring_up(0)?;
    let (_, sa) = bench.cluster.only_ike_sa()?;
    ensure!(sa["nat"] == true, "no NAT was detected: {sa}");
    let simultaneous = bench.rekey_at_once(0)?;
    bench.ping(0)?;
    Ok(format!("{}: {simultaneous}", bench.peer.version()))
}

pub(super) struct Bench<'a> {
    pub(super) context: &'a Context,
    pub(super) peer: Pluto,
    pub(super) cluster: Cluster,
    pub(super) network: Network,
    sites: &'a [(Way, bool)],
    _run: Run,
}

impl<'a> Bench<'a> {
    pub(super) fn start(
        context: &'a Context,
        name: &str,
        nat: bool,
        sites: &'a [(Way, bool)],
    ) -> Result<Self> {
        Self::with_members(context, name, Plan::default().members, nat, sites)
    }

    /// The same with so many members.
    pub(super) fn with_members(
        context: &'a Context,
        name: &str,
        members: u8,
        nat: bool,
        sites: &'a [(Way, bool)],
    ) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        let plan = Plan {
            // The last is an address to be redirected to.
            sites: u16::try_from(sites.len())? + 1,
            members,
            nat,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        let (tables, theirs) = both_sides(&network, &run.log("credentials"), sites)?;
        let settings = ClusterSettings {
            tables,
            ..ClusterSettings::usual(plan.sites, context.kernel_esp)
        };
        let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        let peer = Pluto::start(&network.peer, &theirs)?;
        network.spray(Spray::PerPacket)?;
        Ok(Self {
            context,
            peer,
            cluster,
            network,
            sites,
            _run: run,
        })
    }

    /// One tunnel, begun by who is to begin it, with pings.
    pub(super) fn bring_up(&self, site: usize) -> Result<()> {
        let (way, gateway_begins) = self.sites[site];
        let name = name(site);
        let limit = Duration::from_secs(20);
        let up = if gateway_begins {
            let order = json!({ "command": "initiate", "connection": name });
            let asked = self.cluster.members[0].request(&order);
            let theirs = match way {
                Way::Redirecting => elsewhere(&name),
                _ => name.clone(),
            };
            asked.and_then(|_| self.peer.wait_up(&theirs, limit))
        } else {
            self.peer.initiate(&name, limit)
        };
        up.with_context(|| format!("{way:?} of {name}:\n{}", hint(&self.cluster)))?;
        self.ping(site).with_context(|| format!("{way:?}"))
    }

    pub(super) fn ping(&self, site: usize) -> Result<()> {
        let number = u16::try_from(site)?;
        let (sent, lost) = ping_both_ways(&self.network, self.context.kernel_esp, number, PINGS)?;
        ensure!(lost == 0, "{}: {lost} of {sent} pings lost", name(site));
        Ok(())
    }

    /// Both sides rekey the CHILD_SA at the same time: one is left. Unless our answer came while pluto
    /// was computing: it drops that one, asks no more, and has no reason to delete what we have made
    /// for it.
    fn rekey_at_once(&self, site: usize) -> Result<String> {
        let name = name(site);
        let before = spis(&self.cluster, &name)?.1;
        let order = json!({ "command": "rekey", "connection": name, "child": "net" });
        let dropped = || self.peer.log().matches(DROPPED).count();
        let dropped_before = dropped();
        self.peer
            .whack(&["--name", &name, "--rekey-ipsec", "--asynchronous"])?;
        self.cluster.members[0].request(&order)?;
        let mut by_both = "one CHILD_SA is left";
        wait_until(Duration::from_secs(20), "one new CHILD_SA", || {
            ensure!(
                !self.peer.log().contains(ABORTED),
                "pluto aborted by an assertion of its own, which says nothing about us: run it again"
            );
            let sas = self.cluster.ike_sas()?;
            let mine = sas.iter().find(|(_, sa)| sa["remote_id"] == name.as_str());
            let children = mine.and_then(|(_, sa)| sa["children"].as_array());
            let oldest = children.and_then(|children| children.first());
            if oldest.is_none_or(|child| child["spi_in"] == before) {
                return Ok(false);
            }
            if dropped() > dropped_before {
                by_both = "the peer dropped our answer";
                return Ok(true);
            }
            Ok(children.map(Vec::len) == Some(1) && self.peer.children(&name)? == 1)
        })
        .with_context(|| hint(&self.cluster))?;
        Ok(format!("rekeyed by both sides at once, {by_both}"))
    }
}

pub(super) fn name(site: usize) -> String {
    format!("site-{}", site + 1)
}

/// The tables for the members' files, and what pluto is started with. `folder` is for what the
/// tables name.
fn both_sides(
    network: &Network,
    folder: &Path,
    sites: &[(Way, bool)],
) -> Result<(String, PlutoSettings)> {
    let authority = Authority::new("Lab CA")?;
    let mut tables = own(&authority, folder)?;
    let mut theirs = PlutoSettings {
        authority: authority.pem(),
        ..PlutoSettings::default()
    };
    for (site, (way, _)) in (0u16..).zip(sites) {
        let mut connection = peer_connection(network, site, IKE, ESP);
        let name = connection.name.clone();
        match way {
            Way::Rsa | Way::Ecdsa => {
                let (key, by) = if *way == Way::Rsa {
                    let size = RsaKeySize::_2048;
                    (
                        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)?,
                        "rsasig",
                    )
                } else {
                    (KeyPair::generate()?, "ecdsa")
                };
                set(&mut connection, "authby", by);
                set(&mut connection, "leftcert", &name);
                set(&mut connection, "leftsendcert", "always");
                theirs.identities.push(PlutoIdentity {
                    certificate: authority.issue(&name, u64::from(site) + 1, &key)?.pem(),
                    key: key.serialize_pem(),
                    name,
                });
            }
            Way::Ppk => {
                set(&mut connection, "ppk", "insist");
                let secret = format!("lab ppk of site {}, thirty-two octets", site + 1);
                let _ = writeln!(
                    theirs.secrets,
                    "@{name} @{GATEWAY_ID} : PPKS \"ppk-{name}\" \"{secret}\""
                );
                let _ = write!(
                    tables,
                    "[[ppk]]\nid = \"ppk-{name}\"\nsecret = \"{secret}\"\n"
                );
            }
            Way::Encapsulated => set(&mut connection, "encapsulation", "yes"),
            Way::Mobike => set(&mut connection, "mobike", "yes"),
            Way::Childless => {}
            Way::Redirected => set(&mut connection, "accept-redirect", "yes"),
            Way::Redirecting => {
                let spare = site_address(&network.plan, u16::try_from(sites.len())?).to_string();
                let mut other = connection.clone();
                other.name = elsewhere(&name);
                set(&mut other, "left", &spare);
                theirs.connections.push(other);
                set(&mut connection, "send-redirect", "yes");
                set(&mut connection, "redirect-to", &spare);
            }
            Way::V6 => {
                set(&mut connection, "left", &site_address6(site).to_string());
                set(&mut connection, "right", &VIP6.to_string());
            }
        }
        theirs.secrets += &peer_secret(site);
        tables += &table(network, site, *way, folder);
        theirs.connections.push(connection);
    }
    Ok((tables, theirs))
}

/// The peer's connection at its other address.
fn elsewhere(name: &str) -> String {
    format!("{name}-elsewhere")
}

/// Sets a keyword, in place of an earlier value.
fn set(connection: &mut PlutoConnection, keyword: &'static str, value: &str) {
    connection.settings.retain(|(other, _)| *other != keyword);
    connection.settings.push((keyword, value.to_owned()));
}

/// The gateway's certificates, and the tables about them.
fn own(authority: &Authority, folder: &Path) -> Result<String> {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    authority.equip(folder, &[("Rsa", &rsa), ("Ecdsa", &KeyPair::generate()?)])?;
    let folder = folder.display();
    Ok(format!(
        "[[authority]]\ncacert = \"{folder}/ca.pem\"\n\
         [[private]]\nfile = \"{folder}/Rsa.key\"\n\
         [[private]]\nfile = \"{folder}/Ecdsa.key\"\n"
    ))
}

/// The gateway's connection for one site.
fn table(network: &Network, site: u16, way: Way, folder: &Path) -> String {
    let name = name(site.into());
    let (auth, lines) = match way {
        Way::Rsa | Way::Ecdsa => ("pubkey", String::new()),
        Way::Ppk => (
            "psk",
            format!("ppk_id = \"ppk-{name}\"\nppk_required = true\n"),
        ),
        Way::Encapsulated => ("psk", "encap = true\n".into()),
        Way::Childless => ("psk", "childless = \"prefer\"\n".into()),
        Way::Redirected => ("psk", format!("redirect_to = \"{VIP}\"\n")),
        Way::Redirecting => ("psk", "follow_redirects = true\n".into()),
        Way::V6 | Way::Mobike => ("psk", String::new()),
    };
    let certs = match auth {
        "pubkey" => format!("certs = [\"{}/{way:?}.pem\"]\n", folder.display()),
        _ => String::new(),
    };
    // Who is behind a NAT cannot be begun with, and has another address outside.
    let addresses = if network.plan.nat || way == Way::V6 {
        String::new()
    } else {
        let address = site_address(&network.plan, site);
        format!(
            "local_addrs = [\"{}\"]\nremote_addrs = [\"{address}\"]\n",
            Network::vip(false)
        )
    };
    format!(
        "[[connection]]\nname = \"{name}\"\nproposals = [\"{PROPOSAL}\"]\n{addresses}{lines}\
         [connection.local]\nauth = \"{auth}\"\n{certs}id = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"{auth}\"\nid = \"{name}\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"10.2.{}.0/24\"]\nesp_proposals = [\"{ESP_PROPOSAL}-x25519\"]\n",
        site + 1
    )
}
