//! Stock strongSwan with certificates: every kind of key, refusals, and mixed ways.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rcgen::{KeyPair, RsaKeySize};

use super::Context;
use crate::lab::{
    Authority, Charon, Cluster, ClusterSettings, ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, Member,
    Network, PROPOSAL, Plan, Run, Settings, Spray, VIP, secret_file, site_address,
};

/// A peer: its name, its key, and whether the gateway must take it.
struct Case {
    name: &'static str,
    key: KeyPair,
    /// Issued by an authority that the gateway does not know.
    stranger: bool,
    good: bool,
    /// What the gateway says if it is refused.
    says: &'static str,
}

/// Name of the peer that is on the CRL.
const REVOKED: &str = "revoked";
/// Name of the peer that the gateway authenticates to with a pre-shared key.
const MIXED: &str = "mixed";

fn cases() -> Result<Vec<Case>> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let new = |name, key| Case {
        name,
        key,
        stranger: false,
        good: true,
        says: "",
    };
    let curve = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
    Ok(vec![
        new("rsa-2048", rsa(RsaKeySize::_2048)?),
        new("rsa-3072", rsa(RsaKeySize::_3072)?),
        new("ecdsa-256", curve()?),
        new(
            "ecdsa-384",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        ),
        new("ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519)?),
        new(MIXED, curve()?),
        Case {
            good: false,
            stranger: true,
            says: "neither a trusted authority",
            ..new("stranger", curve()?)
        },
        Case {
            good: false,
            says: "is revoked by",
            ..new(REVOKED, curve()?)
        },
    ])
}

/// Each peer connects once; those that may not are refused, and the log says why.
pub(super) fn peers(context: &Context) -> Result<String> {
    let run = Run::new(&context.logs, "certificates")?;
    let cases = cases()?;
    // A network behind the peer for every connection, two of which are about PPKs.
    let sites = u16::try_from(cases.len() + 2)?;
    let plan = Plan {
        sites,
        ..Plan::default()
    };
    let network = Network::new(&run, plan)?;
    let here = network.members[0].log("pki");
    let there = network.peer.log("swanctl");
    issue(&here, &there, &cases)?;
    let settings = ClusterSettings {
        tables: gateway_tables(&here),
        ..ClusterSettings::usual(1, context.kernel_esp)
    };
    let cluster = Cluster::start(&context.binaries, &run, &network, &settings)?;
    network.spray(Spray::PerPacket)?;
    let peer = Charon::start(&network.peer, Settings::new(context.peer_esp()))?;
    fs::write(there.join("swanctl.conf"), peer_conf(&network.plan, &cases))?;
    peer.load_folder(&there)?;
    let begin = Instant::now();
    let mut taken = Vec::new();
    for case in &cases {
        let result = peer.initiate(case.name, 10);
        let log: String = cluster.members.iter().map(Member::log).collect();
        if case.good {
            result.with_context(|| hint(&log))?;
            taken.push(case.name);
        } else {
            ensure!(result.is_err(), "{} was let in", case.name);
            ensure!(
                log.contains(case.says),
                "{} of {}: {}",
                case.says,
                case.name,
                hint(&log)
            );
        }
    }
    for name in ["ppk", "ppk-wrong"] {
        let result = peer.initiate(name, 10);
        ensure!(result.is_ok() == (name == "ppk"), "{name}: {result:?}");
    }
    let established = peer.established()?;
    ensure!(
        established == taken.len() + 1,
        "{established} IKE SAs, expected {} and one with a PPK",
        taken.len()
    );
    let log = peer.log();
    for (name, scheme) in [
        ("rsa-2048", "with RSA_EMSA_PSS"),
        ("ecdsa-384", "with ECDSA_WITH_SHA384_DER"),
        ("ed25519", "with ED25519"),
    ] {
        let line = |line: &&str| line.contains(name) && line.contains(scheme);
        let seen = log.lines().any(|l| line(&l)) || log.contains(scheme);
        ensure!(seen, "{name}: the peer's log has no \"{scheme}\"");
    }
    Ok(format!(
        "{} and a PPK taken, a stranger, a revoked peer and a wrong PPK refused, in {:.1} s",
        taken.join(", "),
        begin.elapsed().as_secs_f64()
    ))
}

fn hint(log: &str) -> String {
    let lines = log.lines().filter(|line| line.contains("IKE_AUTH"));
    lines.collect::<Vec<_>>().join("\n")
}

fn id(name: &str) -> String {
    format!("{name}.example.org")
}

/// Writes what the gateway and the peer need into their folders.
fn issue(here: &Path, there: &Path, cases: &[Case]) -> Result<()> {
    for folder in ["x509", "x509ca", "private"] {
        fs::create_dir_all(there.join(folder))?;
    }
    let (root, stranger) = (Authority::new("Lab CA")?, Authority::new("Stranger")?);
    let gateway = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    fs::write(there.join("x509ca/ca.pem"), root.pem())?;
    root.equip(here, &[("gw", &gateway)])?;
    let mut revoked = Vec::new();
    for (serial, case) in (1..).zip(cases) {
        let issuer = if case.stranger { &stranger } else { &root };
        fs::write(
            there.join(format!("x509/{}.pem", case.name)),
            issuer.issue(&id(case.name), serial, &case.key)?.pem(),
        )?;
        let file = there.join(format!("private/{}.pem", case.name));
        secret_file(&file, &case.key.serialize_pem())?;
        if case.name == REVOKED {
            revoked.push(serial);
        }
    }
    fs::write(here.join("ca.crl"), root.revoke(&revoked)?)?;
    Ok(())
}

fn gateway_tables(folder: &Path) -> String {
    let folder = folder.display();
    let child = format!(
        "local_ts = [\"{INSIDE_NETWORK}\"]\nremote_ts = [\"10.2.0.0/16\"]\n\
         esp_proposals = [\"{ESP_PROPOSAL}\"]\n"
    );
    let mixed = id(MIXED);
    format!(
        "[[private]]\nfile = \"{folder}/gw.key\"\n\
         [[authority]]\ncacert = \"{folder}/ca.pem\"\ncrls = [\"{folder}/ca.crl\"]\n\
         [[ppk]]\nid = \"lab-ppk\"\nsecret = \"0x{ppk}\"\n\
         [[secret]]\nids = [\"{GATEWAY_ID}\", \"{mixed}\"]\nsecret = \"mixed\"\n\
         [[secret]]\nids = [\"{GATEWAY_ID}\", \"ppk.example.org\"]\nsecret = \"psk\"\n\
         [[connection]]\nname = \"certificates\"\nproposals = [\"{PROPOSAL}\"]\n\
         [connection.local]\nauth = \"pubkey\"\nid = \"{GATEWAY_ID}\"\n\
         certs = [\"{folder}/gw.pem\"]\n\
         [connection.remote]\nauth = \"pubkey\"\nid = \"*.example.org\"\nrevocation = \"strict\"\n\
         [connection.children.net]\n{child}\
         [[connection]]\nname = \"{MIXED}\"\nproposals = [\"{PROPOSAL}\"]\n\
         [connection.local]\nauth = \"psk\"\nid = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nauth = \"pubkey\"\nid = \"{mixed}\"\n\
         [connection.children.net]\n{child}\
         [[connection]]\nname = \"ppk\"\nproposals = [\"{PROPOSAL}\"]\n\
         ppk_id = \"lab-ppk\"\nppk_required = true\n\
         [connection.local]\nid = \"{GATEWAY_ID}\"\n\
         [connection.remote]\nid = \"ppk.example.org\"\n\
         [connection.children.net]\n{child}",
        ppk = "5a".repeat(32),
    )
}

fn peer_conf(plan: &Plan, cases: &[Case]) -> String {
    let local = site_address(plan, 0);
    let connection = |name: &str, number: usize, auth: &str| {
        format!(
            "  {name} {{\n    version = 2\n    local_addrs = {local}\n    remote_addrs = {VIP}\n    \
             proposals = {PROPOSAL}\n    mobike = no\n{auth}    children {{ net {{\n      \
             local_ts = 10.2.{number}.0/24\n      remote_ts = {INSIDE_NETWORK}\n      \
             esp_proposals = {ESP_PROPOSAL}\n    }} }}\n  }}\n"
        )
    };
    let mut text = String::from("connections {\n");
    for (number, case) in (1..).zip(cases) {
        let name = case.name;
        let remote = if name == MIXED { "psk" } else { "pubkey" };
        let auth = format!(
            "    local {{ auth = pubkey\n certs = {name}.pem\n id = {} }}\n    \
             remote {{ auth = {remote}\n id = {GATEWAY_ID} }}\n",
            id(name)
        );
        text += &connection(name, number, &auth);
    }
    for (number, name) in (cases.len() + 1..).zip(["ppk", "ppk-wrong"]) {
        let auth = format!(
            "    ppk_id = {}\n    ppk_required = yes\n    \
             local {{ auth = psk\n id = ppk.example.org }}\n    \
             remote {{ auth = psk\n id = {GATEWAY_ID} }}\n",
            if name == "ppk" {
                "lab-ppk"
            } else {
                "other-ppk"
            }
        );
        text += &connection(name, number, &auth);
    }
    let _ = write!(
        text,
        "}}\nsecrets {{\n  ike-mixed {{ id-1 = {GATEWAY_ID}\n id-2 = {}\n secret = mixed }}\n  \
         ike-ppk {{ id-1 = {GATEWAY_ID}\n id-2 = ppk.example.org\n secret = psk }}\n  \
         ppk-lab {{ id = lab-ppk\n secret = 0x{ppk} }}\n  \
         ppk-other {{ id = other-ppk\n secret = 0x{ppk} }}\n}}\n",
        id(MIXED),
        ppk = "5a".repeat(32),
    );
    text
}
