//! Every algorithm with stock peers, by the kernel's ESP on both sides.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_user::xfrm::transform_name;

use super::Context;
use super::libreswan::{hint, peer_connection, peer_secret};
use crate::lab::{
    Charon, Cluster, ClusterSettings, GATEWAY_ID, INSIDE_HOST, INSIDE_NETWORK, Network, Plan,
    Pluto, PlutoSettings, Run, SITE_NETWORKS, Settings, Spray, site_connection, site_host,
    wait_until,
};

/// One tunnel.
#[derive(Clone, Copy)]
struct Case {
    /// In swanctl's notation.
    ike: &'static str,
    esp: &'static str,
    /// What libreswan calls them; `None`: it has no such thing.
    libreswan: Option<(&'static str, &'static str)>,
}

const fn case(
    ike: &'static str,
    esp: &'static str,
    libreswan: Option<(&'static str, &'static str)>,
) -> Case {
    Case {
        ike,
        esp,
        libreswan,
    }
}

/// Every key exchange method, every cipher and integrity algorithm for IKE and for ESP, extended
/// sequence numbers and none: each at least once.
const GATING: [Case; 9] = [
    case(
        "aes128-sha256-modp2048",
        "aes128-sha256",
        Some(("aes_cbc128-sha2_256-dh14", "aes_cbc128-sha2_256")),
    ),
    case(
        "aes192-sha384-modp3072",
        "aes192-sha384",
        Some(("aes_cbc192-sha2_384-dh15", "aes_cbc192-sha2_384")),
    ),
    case(
        "aes256-sha512-modp4096",
        "aes256-sha512-esn",
        Some(("aes_cbc256-sha2_512-dh16", "aes_cbc256-sha2_512")),
    ),
    case(
        "aes192gcm16-prfsha256-ecp256",
        "aes192gcm16",
        Some(("aes_gcm192-sha2_256-dh19", "aes_gcm192")),
    ),
    case(
        "aes256gcm16-prfsha384-ecp384",
        "aes256gcm16-esn",
        Some(("aes_gcm256-sha2_384-dh20", "aes_gcm256")),
    ),
    case(
        "chacha20poly1305-prfsha512-ecp521",
        "chacha20poly1305",
        Some(("chacha20_poly1305-sha2_512-dh21", "chacha20_poly1305")),
    ),
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16-esn",
        Some(("aes_gcm128-sha2_256-dh31", "aes_gcm128")),
    ),
    case(
        "aes128gcm16-prfsha512-x25519",
        "aes128-sha256-esn",
        Some(("aes_gcm128-sha2_512-dh31", "aes_cbc128-sha2_256")),
    ),
    case(
        "aes256-sha256-x25519",
        "chacha20poly1305-esn",
        Some(("aes_cbc256-sha2_256-dh31", "chacha20_poly1305")),
    ),
];

/// What is left of the ESP algorithms with and without extended sequence numbers.
const MORE: [Case; 8] = [
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes192-sha384-esn",
        Some(("aes_gcm128-sha2_256-dh31", "aes_cbc192-sha2_384")),
    ),
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes256-sha512",
        Some(("aes_gcm128-sha2_256-dh31", "aes_cbc256-sha2_512")),
    ),
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes192gcm16-esn",
        Some(("aes_gcm128-sha2_256-dh31", "aes_gcm192")),
    ),
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16",
        Some(("aes_gcm128-sha2_256-dh31", "aes_gcm256")),
    ),
    case(
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16",
        Some(("aes_gcm128-sha2_256-dh31", "aes_gcm128")),
    ),
    case(
        "aes256gcm16-prfsha512-x25519",
        "aes256-sha256-esn",
        Some(("aes_gcm256-sha2_512-dh31", "aes_cbc256-sha2_256")),
    ),
    case(
        "aes128-sha1-modp2048",
        "aes128-sha1",
        Some(("aes_cbc128-sha1-dh14", "aes_cbc128-sha1")),
    ),
    case(
        "aes256-sha384-ecp384",
        "aes256-sha384",
        Some(("aes_cbc256-sha2_384-dh20", "aes_cbc256-sha2_384")),
    ),
];

/// The selection that gates.
pub(super) fn strongswan(context: &Context) -> Result<String> {
    with_strongswan(context, "algorithms", &GATING)
}

/// All of it.
pub(super) fn strongswan_all(context: &Context) -> Result<String> {
    let cases: Vec<Case> = GATING.into_iter().chain(MORE).collect();
    with_strongswan(context, "algorithms-all", &cases)
}

/// The selection that gates.
pub(super) fn libreswan(context: &Context) -> Result<String> {
    with_libreswan(context, "algorithms-libreswan", &GATING)
}

/// All of it.
pub(super) fn libreswan_all(context: &Context) -> Result<String> {
    let cases: Vec<Case> = GATING.into_iter().chain(MORE).collect();
    with_libreswan(context, "algorithms-libreswan-all", &cases)
}

/// A member that takes every case.
struct Bench {
    cluster: Cluster,
    network: Network,
    _run: Run,
}

impl Bench {
    fn start(context: &Context, name: &str, cases: &[Case]) -> Result<Self> {
        let run = Run::new(&context.logs, name)?;
        // What another member would do with these packets has nothing to do with algorithms.
        let plan = Plan {
            members: 1,
            sites: u16::try_from(cases.len())?,
            ..Plan::default()
        };
        let network = Network::new(&run, plan)?;
        let settings = ClusterSettings {
            tables: connection(cases),
            ..ClusterSettings::usual(plan.sites, context.kernel_esp)
        };
        let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
        network.spray(Spray::Only(1))?;
        let bench = Self {
            cluster,
            network,
            _run: run,
        };
        bench.wait_for_algorithms(context, cases)?;
        Ok(bench)
    }

    /// The kernel knows all algorithms before the first tunnel: none waits for them.
    fn wait_for_algorithms(&self, context: &Context, cases: &[Case]) -> Result<()> {
        let member = self.cluster.member(1)?;
        wait_until(Duration::from_secs(60), "the kernel's algorithms", || {
            Ok(member.ask("status")?["esp_algorithms_ready"] == true)
        })?;
        if !context.kernel_esp {
            return Ok(());
        }
        let known = std::fs::read_to_string("/proc/crypto")?;
        for case in cases {
            let wanted = esp(case.esp)?;
            let name = transform_name(wanted.encryption, wanted.esn);
            ensure!(
                known
                    .lines()
                    .any(|line| line.ends_with(&format!(": {name}"))),
                "the kernel was not made ready for {name}"
            );
        }
        Ok(())
    }

    /// The tunnel of a case is what it should be, and carries pings both ways.
    fn check(&self, context: &Context, site: u16, case: Case) -> Result<()> {
        let name = format!("site-{}", site + 1);
        let sas = self.cluster.ike_sas()?;
        let sa = sas.iter().find(|(_, sa)| sa["remote_id"] == name.as_str());
        let (_, sa) = sa.with_context(|| format!("no IKE SA of {name}"))?;
        ensure!(
            sa["proposal"] == ike(case.ike)?.iana().as_str(),
            "IKE with {} instead of {}",
            sa["proposal"],
            case.ike
        );
        let child = &sa["children"][0]["proposal"];
        ensure!(
            *child == esp(case.esp)?.iana().as_str(),
            "ESP with {child} instead of {}",
            case.esp
        );
        if !context.kernel_esp {
            return Ok(());
        }
        let inner: IpAddr = site_host(site).into();
        let out = self
            .network
            .peer
            .ping(Some(inner), INSIDE_HOST.into(), 2, 5)?;
        let back = self.network.host.ping(None, inner, 2, 5)?;
        ensure!(
            (out, back) == (2, 2),
            "{out} of 2 pings from the peer, {back} of 2 to it were answered"
        );
        Ok(())
    }
}

/// What both peers need to be told apart from the lab's other connection: their addresses.
fn connection(cases: &[Case]) -> String {
    let list = |of: fn(&Case) -> &'static str| {
        let mut words: Vec<String> = cases.iter().map(|c| format!("\"{}\"", of(c))).collect();
        words.sort();
        words.dedup();
        words.join(", ")
    };
    format!(
        "[[connection]]\nname = \"algorithms\"\nremote_addrs = [\"198.51.100.0/24\"]\n\
         proposals = [{}]\n\
         [connection.local]\nauth = \"psk\"\nid = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"psk\"\nid = \"%any\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"{SITE_NETWORKS}\"]\nesp_proposals = [{}]\n",
        list(|case| case.ike),
        list(|case| case.esp),
    )
}

fn ike(text: &str) -> Result<IkeProposal> {
    let all = IkeProposal::parse(text).map_err(|why| anyhow::anyhow!("{why}"))?;
    all.first().copied().context("no proposal")
}

fn esp(text: &str) -> Result<EspProposal> {
    let all = EspProposal::parse(text).map_err(|why| anyhow::anyhow!("{why}"))?;
    all.first().copied().context("no proposal")
}

fn with_strongswan(context: &Context, name: &str, cases: &[Case]) -> Result<String> {
    let bench = Bench::start(context, name, cases)?;
    let peer = Charon::start(&bench.network.peer, Settings::new(context.peer_esp()))?;
    let mut connections = Vec::new();
    for (site, case) in (0..).zip(cases) {
        let mut connection = site_connection(&bench.network, site, false);
        connection.proposal = case.ike.into();
        connection.esp_proposal = case.esp.into();
        connections.push(connection);
    }
    peer.load(&connections)?;
    let begin = Instant::now();
    let mut failed = Vec::new();
    for (site, case) in (0..).zip(cases) {
        let about = || format!("{} with {}", case.ike, case.esp);
        let up = peer.initiate(&connections[usize::from(site)].name, 15);
        let outcome = up
            .map(drop)
            .and_then(|()| bench.check(context, site, *case));
        failed.extend(outcome.with_context(about).err());
    }
    judge(&failed)?;
    let repeated = peer.retransmissions();
    ensure!(repeated == 0, "{repeated} request(s) were sent again");
    Ok(format!(
        "{}: {} tunnels in {:.1} s",
        peer.version()?,
        cases.len(),
        begin.elapsed().as_secs_f64()
    ))
}

fn with_libreswan(context: &Context, name: &str, cases: &[Case]) -> Result<String> {
    let bench = Bench::start(context, name, cases)?;
    let offered: Vec<(u16, Case, _)> = (0..)
        .zip(cases)
        .filter_map(|(site, case)| Some((site, *case, case.libreswan?)))
        .collect();
    let mut connections = Vec::new();
    for (site, case, (ike, esp_words)) in &offered {
        let esn = if esp(case.esp)?.esn { "yes" } else { "no" };
        let mut connection = peer_connection(&bench.network, *site, ike, esp_words);
        connection.settings.push(("esn", esn.into()));
        connections.push(connection);
    }
    let theirs = PlutoSettings {
        connections,
        secrets: (0..u16::try_from(cases.len())?).map(peer_secret).collect(),
        ..PlutoSettings::default()
    };
    let connections = &theirs.connections;
    let peer = Pluto::start(&bench.network.peer, &theirs)?;
    let begin = Instant::now();
    let mut failed = Vec::new();
    for ((site, case, _), connection) in offered.iter().zip(connections) {
        let about = || format!("{} with {}", case.ike, case.esp);
        let up = peer
            .initiate(&connection.name, Duration::from_secs(10))
            .with_context(|| hint(&bench.cluster));
        let outcome = up.and_then(|()| bench.check(context, *site, *case));
        failed.extend(outcome.with_context(about).err());
    }
    judge(&failed)?;
    Ok(format!(
        "{}: {} tunnels in {:.1} s",
        peer.version(),
        offered.len(),
        begin.elapsed().as_secs_f64()
    ))
}

/// All that failed, not only the first: what they have in common tells the cause.
fn judge(failed: &[anyhow::Error]) -> Result<()> {
    let lines: Vec<String> = failed.iter().map(|error| format!("{error:#}")).collect();
    ensure!(
        lines.is_empty(),
        "{} failed:\n{}",
        lines.len(),
        lines.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the selection leaves out, nobody would notice.
    #[test]
    fn the_selection_has_every_algorithm_of_the_defaults() {
        let ikes: Vec<IkeProposal> = GATING.iter().map(|case| ike(case.ike).unwrap()).collect();
        let esps: Vec<EspProposal> = GATING.iter().map(|case| esp(case.esp).unwrap()).collect();
        for wanted in IkeProposal::defaults() {
            assert!(ikes.iter().any(|one| one.ke == wanted.ke), "{wanted}");
            assert!(ikes.iter().any(|one| one.prf == wanted.prf), "{wanted}");
            let integrity = wanted.encryption.integrity();
            assert!(
                ikes.iter()
                    .any(|one| one.encryption.integrity() == integrity),
                "{wanted}"
            );
        }
        for wanted in EspProposal::defaults() {
            let fits = |one: &&EspProposal| {
                let (ours, theirs) = (one.encryption, wanted.encryption);
                ours.transform_id() == theirs.transform_id()
                    && ours.integrity() == theirs.integrity()
            };
            assert!(esps.iter().any(|one| fits(&one)), "{wanted}");
        }
        assert!(esps.iter().any(|one| one.esn) && esps.iter().any(|one| !one.esn));
    }
}
