//! Stock swanctl drives a tunnel from load to terminate.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Listener, Swanctl, wait_until};

/// What an operator of strongSwan has, word for word. Identity and secret are in no member's file.
const CONF: &str = r#"
connections {
    out {
        version = 2
        local_addrs = 203.0.113.10
        remote_addrs = 198.51.100.10
        proposals = aes128gcm16-prfsha256-x25519
        dpd_delay = 300s
        encap = yes
        local {
            auth = psk
            id = loaded.example.org
        }
        remote {
            auth = psk
            id = site-1
        }
        children {
            net {
                mode = tunnel
                local_ts = 10.1.0.0/16
                remote_ts = 10.2.1.0/24
                esp_proposals = aes128gcm16
                start_action = none
            }
        }
    }
}
secrets {
    ike-site {
        id-1 = loaded.example.org
        id-2 = site-1
        secret = "known to swanctl alone"
    }
}
"#;

/// Something that this gateway does not have.
const EAP: &str = r"
connections {
    bad {
        remote_addrs = 198.51.100.10
        local { auth = psk }
        remote { auth = eap-md5 }
        children { net { local_ts = 10.1.0.0/16
            remote_ts = 10.2.9.0/24 } }
    }
}
";

/// A connection more in a member's own file.
const LATE: &str = r#"
[[connection]]
name = "late"
remote_addrs = ["198.51.100.99"]
[connection.local]
id = "gw.example.org"
[connection.remote]
id = "late"
[connection.children.net]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.9.0.0/16"]
[[secret]]
ids = ["late"]
secret = "late"
"#;

fn swanctl(lab: &Lab, member: u8) -> Result<Swanctl> {
    let node = &lab.network.members[usize::from(member) - 1];
    let folder = node.log("swanctl.d");
    fs::create_dir_all(&folder)?;
    Ok(Swanctl::new(socket(lab, member), folder))
}

fn socket(lab: &Lab, member: u8) -> std::path::PathBuf {
    let node = &lab.network.members[usize::from(member) - 1];
    node.run_dir().join("gateway/charon.vici")
}

/// A peer whose connection the members learn at run time alone.
pub(super) fn to_be_loaded() -> Wishes {
    Wishes {
        change: Some(|connection| {
            connection.remote_id = "loaded.example.org".into();
            connection.secret = "known to swanctl alone".into();
            connection.lines = "encap = yes".into();
        }),
        ..Wishes::default()
    }
}

/// Loaded on one member, known on all, initiated by the owner, shown as strongSwan shows it, rekeyed
/// and terminated; with the events that go with it.
pub(super) fn drives(context: &Context) -> Result<String> {
    let lab = Lab::sprayed(context, "swanctl", &to_be_loaded())?;
    let owner = load(&lab)?;
    let asked = lab.other_than(owner);
    let here = swanctl(&lab, asked)?;
    let mut events = Listener::new(
        &socket(&lab, owner),
        &["ike-updown", "child-updown", "child-rekey", "log"],
    )?;
    let told = here.run(&[
        "--initiate",
        "--child",
        "net",
        "--ike",
        "out",
        "--timeout",
        "30",
    ])?;
    ensure!(told.contains("initiate completed successfully"), "{told}");
    up(&lab, owner, &mut events)?;
    rekey(&lab, &here, owner, &mut events)?;
    reload(&lab, asked)?;
    questions(&here)?;
    let told = here.run(&["--terminate", "--ike", "out"])?;
    ensure!(told.contains("terminate completed successfully"), "{told}");
    let message = events.wait("ike-updown", Duration::from_secs(20))?;
    ensure!(message.text("up").is_none(), "up again: {message:?}");
    wait_until(
        Duration::from_secs(20),
        "the peer to have no IKE SA",
        || Ok(lab.peer.established()? == 0),
    )?;
    told_and_sent_elsewhere(&lab, owner)?;
    unload(&lab, &here)?;
    Ok(format!(
        "asked member {asked}, member {owner} owned the tunnel"
    ))
}

/// Loads the connection on a member that does not own it, and returns the owner.
fn load(lab: &Lab) -> Result<u8> {
    let first = swanctl(lab, 1)?;
    let (fine, told) = first.load(EAP)?;
    let wanted =
        "connections.bad.remote.auth is eap-md5: not supported yet (allowed: psk or pubkey)";
    ensure!(!fine && told.contains(wanted), "{told}");
    let (fine, told) = first.load(CONF)?;
    let loaded = "successfully loaded 1 connections, 0 unloaded";
    ensure!(fine && told.contains(loaded), "{told}");
    for member in lab.member_ids() {
        let there = swanctl(lab, member)?;
        wait_until(Duration::from_secs(10), "all members to know it", || {
            Ok(there.run(&["--list-conns"])?.contains("out: IKEv2"))
        })?;
    }
    let answer = lab.cluster.member(1)?.ask("connections")?;
    let rows = answer["connections"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let row = rows.iter().find(|row| row["name"] == "out");
    let row = row.context("no connection out")?;
    ensure!(row["loaded"] == true, "{row}");
    Ok(u8::try_from(row["owner"].as_u64().context("no owner")?)?)
}

/// The tunnel is there on both sides, and swanctl prints the same of it, but for the numbers.
fn up(lab: &Lab, owner: u8, events: &mut Listener) -> Result<()> {
    let message = events.wait("ike-updown", Duration::from_secs(20))?;
    ensure!(message.text("up") == Some("yes"), "{message:?}");
    let message = events.wait("child-updown", Duration::from_secs(20))?;
    let children = message
        .section("out")
        .and_then(|ike| ike.section("child-sas"));
    let child = children.and_then(|all| all.sections().next());
    let (_, child) = child.context("an event without its CHILD_SA")?;
    ensure!(child.text("state") == Some("INSTALLED"), "{child:?}");
    ensure!(lab.peer.established()? == 1, "the peer has no IKE SA");
    let ours = swanctl(lab, owner)?.run(&["--list-sas"])?;
    let theirs = lab.peer.swanctl(&["--list-sas"])?;
    ensure!(
        shape(&ours) == shape(&theirs),
        "swanctl --list-sas differs:\n{ours}\nand\n{theirs}"
    );
    for member in lab.member_ids() {
        let text = swanctl(lab, member)?.run(&["--list-sas"])?;
        let state = if member == owner {
            "ESTABLISHED"
        } else {
            "PASSIVE"
        };
        ensure!(
            text.contains(&format!(", {state}, IKEv2")),
            "member {member}: {text}"
        );
    }
    let raw = swanctl(lab, owner)?.run(&["--list-sas", "--raw"])?;
    ensure!(
        raw.contains("list-sa event {out {uniqueid=") && raw.contains("encr-alg=AES_GCM_16"),
        "{raw}"
    );
    Ok(())
}

/// What swanctl printed without what differs between two sides of one tunnel.
fn shape(text: &str) -> Vec<Vec<String>> {
    // Numbers and SPIs; one that has digits only looks like a number.
    let word = |word: &str| {
        let word = word.trim_matches(|c: char| "*,".contains(c));
        let spi = word.trim_end_matches(['_', 'i', 'r', '*']);
        let is_spi = spi.len() >= 8 && spi.chars().all(|c| c.is_ascii_hexdigit());
        let has_digits = word.contains(|c: char| c.is_ascii_digit());
        let is_name = word.contains("AES") || word == "IKEv2";
        if is_spi || has_digits && !is_name {
            "N".to_owned()
        } else {
            word.to_owned()
        }
    };
    let lines = text.lines().map(|line| {
        let name = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        // Names, identities, and ports, which differ.
        match name.as_str() {
            "local" | "remote" => words.truncate(1),
            "in" | "out" => words.truncate(4),
            name if name.ends_with(':') => words[0] = "name:".into(),
            _ => {}
        }
        words
    });
    lines.collect()
}

fn rekey(lab: &Lab, here: &Swanctl, owner: u8, events: &mut Listener) -> Result<()> {
    let told = here.run(&["--rekey", "--child", "net"])?;
    ensure!(told.contains("rekey completed successfully"), "{told}");
    let message = events.wait("child-rekey", Duration::from_secs(20))?;
    ensure!(message.section("out").is_some(), "{message:?}");
    wait_until(Duration::from_secs(20), "the successor alone", || {
        let sas = lab.cluster.member(owner.into())?.ask("sas")?;
        let children = sas["ike_sas"][0]["children"].as_array().map(Vec::len);
        Ok(children == Some(1) && lab.peer.installed()? == 1)
    })
}

/// The configuration file is read again, with a tunnel up: it stays, and so does what was loaded.
fn reload(lab: &Lab, member: u8) -> Result<()> {
    let member = lab.cluster.member(member.into())?;
    let file = member.config();
    let before = fs::read_to_string(file)?;
    fs::write(file, before.clone() + LATE)?;
    let answer = member.ask("reload")?;
    ensure!(answer["added"] == json!(["late"]), "{answer}");
    ensure!(answer["needs_restart"] == json!([]), "{answer}");
    let names = |answer: serde_json::Value| {
        let rows = answer["connections"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = rows
            .iter()
            .filter_map(|row| row["name"].as_str().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let known = names(member.ask("connections")?);
    ensure!(
        known.contains(&"late".to_owned()) && known.contains(&"out".to_owned()),
        "{known:?}"
    );
    fs::write(file, before.clone() + "[wrong]\n")?;
    let refused = member.ask("reload").err().map(|error| format!("{error:#}"));
    let refused = refused.context("a wrong file was taken")?;
    ensure!(refused.contains("everything stays as it was"), "{refused}");
    fs::write(file, before)?;
    let answer = member.ask("reload")?;
    ensure!(answer["removed"] == json!(["late"]), "{answer}");
    ensure!(lab.peer.established()? == 1, "the reload cost the tunnel");
    Ok(())
}

/// `--log`, the log that goes with `--initiate`, a private key, and `--redirect`, at the owner.
fn told_and_sent_elsewhere(lab: &Lab, owner: u8) -> Result<()> {
    let here = swanctl(lab, owner)?;
    let node = lab.network.member(owner)?;
    // Line by line, though it does not write to a terminal.
    let mut command = node.command("stdbuf")?;
    let socket = socket(lab, owner);
    command
        .args(["-oL", "swanctl", "--log", "--uri"])
        .arg(format!("unix://{}", socket.display()));
    let log = node.spawn(command, "swanctl-log.txt")?;
    let key = node.log("swanctl.d/private/member.pem");
    fs::create_dir_all(node.log("swanctl.d/private"))?;
    fs::copy(lab.run.log("pki/member-1/member.key"), &key)?;
    let (fine, told) = here.load(CONF)?;
    ensure!(fine && told.contains("key from '"), "the key: {told}");
    fs::remove_file(key)?;
    let (fine, told) = here.attempt(&["--load-creds", "--clear"])?;
    ensure!(fine, "{told}");
    let order = ["--initiate", "--child", "net", "--ike", "out"];
    let told = here.run(&order)?;
    ensure!(told.contains("[IKE] "), "no log of the order: {told}");
    let told = here.run(&["--terminate", "--ike", "out"])?;
    ensure!(told.contains("[IKE] "), "no log of the order: {told}");
    wait_until(
        Duration::from_secs(10),
        "swanctl --log to tell of it",
        || Ok(log.output().contains("[IKE] ")),
    )?;
    // Only who began can be sent elsewhere; here to where it is.
    lab.peer.initiate("site-1", 20)?;
    let (_, before) = lab.cluster.only_ike_sa()?;
    let at = lab.cluster.only_ike_sa()?.0;
    let vip = crate::lab::VIP.to_string();
    let told = swanctl(lab, at)?.run(&["--redirect", "--ike", "out", "--gateway", &vip])?;
    ensure!(told.contains("redirect completed successfully"), "{told}");
    wait_until(Duration::from_secs(15), "the peer to begin anew", || {
        let sas = lab.cluster.ike_sas()?;
        let new = |sa: &serde_json::Value| sa["local_spi"] != before["local_spi"];
        Ok(sas.len() == 1 && sas.iter().all(|(_, sa)| new(sa)))
    })?;
    lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
    wait_until(Duration::from_secs(15), "the tunnel's end", || {
        Ok(lab.cluster.ike_sas()?.is_empty())
    })
}

/// Everything else that stock swanctl asks.
fn questions(here: &Swanctl) -> Result<()> {
    for (args, wanted) in [
        (&["--stats"][..], "IKE_SAs:"),
        (&["--counters"], "ike_sas_established"),
        (&["--counters"], "ike-init-in-req"),
        (&["--list-certs"], ""),
        (&["--list-pools"], ""),
        (&["--list-pols"], ""),
        (&["--list-authorities"], ""),
        (&["--list-algs"], "AES_GCM_16[aws-lc]"),
        (&["--list-conns"], "net: TUNNEL, rekeying every"),
        (&["--list-conns", "--raw"], "list-conn event {out"),
        (&["--list-sas", "--ike", "out"], "net: #"),
        (&["--version", "--daemon"], "gatewayd"),
        (&["--reload-settings"], ""),
        (&["--flush-certs"], ""),
    ] {
        let text = here.run(args)?;
        ensure!(text.contains(wanted), "swanctl {}: {text}", args.join(" "));
    }
    let (fine, text) = here.attempt(&["--terminate", "--ike", "nobody"])?;
    ensure!(!fine && text.contains("no matching SAs"), "{text}");
    let (fine, text) = here.attempt(&["--install", "--child", "net"])?;
    ensure!(
        !fine && text.contains("trap policies are not supported"),
        "{text}"
    );
    Ok(())
}

/// What is no longer in swanctl.conf goes, on all members.
fn unload(lab: &Lab, here: &Swanctl) -> Result<()> {
    let (fine, told) = here.load("connections { }\n")?;
    ensure!(
        fine && told.contains("0 connections, 1 unloaded")
            || told.contains("unloaded connection 'out'")
            || told.contains("no connections found, 1 unloaded"),
        "{told}"
    );
    for member in lab.member_ids() {
        let there = swanctl(lab, member)?;
        wait_until(Duration::from_secs(10), "all members to forget it", || {
            Ok(!there.run(&["--list-conns"])?.contains("out: IKEv2"))
        })?;
    }
    Ok(())
}
