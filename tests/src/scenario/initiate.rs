//! The cluster initiates: by order, by configuration, and at the same time as its peer.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Tap, What, site_host, wait_until};

/// A connection `out` to the first site that the cluster can initiate, with these selectors. More of
/// its child can follow.
pub(super) fn out_between(local_ts: &str, remote_ts: &str) -> String {
    format!(
        r#"
[[connection]]
name = "out"
local_addrs = ["203.0.113.10"]
remote_addrs = ["198.51.100.10"]
proposals = ["aes128gcm16-prfsha256-x25519"]
[connection.local]
id = "gw.example.org"
[connection.remote]
id = "site-1"
[connection.children.net]
local_ts = ["{local_ts}"]
remote_ts = ["{remote_ts}"]
esp_proposals = ["aes128gcm16"]
"#
    )
}

/// With this start_action, and the connection in everything else.
fn out(start_action: &str) -> Wishes {
    let out = out_between("10.1.0.0/16", "10.2.1.0/24");
    Wishes {
        tables: format!("{out}start_action = \"{start_action}\"\n"),
        ..Wishes::default()
    }
}

/// The member that initiates connection `out`.
fn owner_of_out(lab: &Lab) -> Result<u8> {
    let answer = lab.cluster.member(1)?.ask("connections")?;
    let rows = answer["connections"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let row = rows.iter().find(|row| row["name"] == "out");
    let owner = row.and_then(|row| row["owner"].as_u64());
    Ok(u8::try_from(owner.context("nobody owns connection out")?)?)
}

/// Waits for the one tunnel, on both sides.
pub(super) fn wait_one_tunnel(lab: &Lab, limit: u64) -> Result<(u8, Value)> {
    let mut found = None;
    wait_until(
        Duration::from_secs(limit),
        "one tunnel on both sides",
        || {
            let mut sas = lab.cluster.ike_sas()?;
            sas.retain(|(_, sa)| {
                sa["children"]
                    .as_array()
                    .is_some_and(|list| list.len() == 1)
            });
            let peer = (lab.peer.established()?, lab.peer.installed()?);
            if sas.len() != 1 || peer != (1, 1) {
                return Ok(false);
            }
            found = sas.pop();
            Ok(true)
        },
    )?;
    found.context("no tunnel")
}

pub(super) fn ask(lab: &Lab, member: u8, command: &str, child: bool) -> Result<Value> {
    let mut request = json!({ "command": command, "connection": "out" });
    if child {
        request["child"] = "net".into();
    }
    lab.cluster.member(member.into())?.request(&request)
}

/// Any member can be asked, the owner does it; when that one dies the peer notices nothing, and the
/// next owner goes on as original initiator.
pub(super) fn by_order(context: &Context) -> Result<String> {
    let mut lab = Lab::sprayed(context, "initiate", &out("none"))?;
    let expected = owner_of_out(&lab)?;
    let asked = lab.other_than(expected);
    let answer = ask(&lab, asked, "initiate", false)?;
    ensure!(
        answer["passed_on"] == json!([expected]),
        "asked member {asked}, the owner is {expected}: {answer}"
    );
    let (owner, sa) = wait_one_tunnel(&lab, 20)?;
    ensure!(
        owner == expected,
        "member {owner} initiated, not {expected}"
    );
    ensure!(sa["connection"] == "out", "connection {}", sa["connection"]);
    lab.wait_tables(1, 1)?;
    let negotiated = lab.peer.log().matches("IKE_AUTH response").count();

    lab.cluster.member_mut(owner)?.kill();
    let survivors: Vec<u8> = lab
        .member_ids()
        .into_iter()
        .filter(|id| *id != owner)
        .collect();
    lab.wait_serving(&survivors)?;
    let other = survivors.first().copied().context("nobody is left")?;
    wait_until(
        Duration::from_secs(20),
        "the new owner to rekey the child",
        || Ok(ask(&lab, other, "rekey", true).is_ok()),
    )?;
    let old = sa["children"][0]["spi_in"].clone();
    let mut after = Value::Null;
    wait_until(Duration::from_secs(20), "the new CHILD_SA alone", || {
        for id in &survivors {
            let sas = lab.cluster.member((*id).into())?.ask("sas")?;
            if let Some([sa]) = sas["ike_sas"].as_array().map(Vec::as_slice) {
                after = sa["children"][0]["spi_in"].clone();
                let alone = sa["children"].as_array().map(Vec::len) == Some(1);
                return Ok(alone && after != old && lab.peer.installed()? == 1);
            }
        }
        Ok(false)
    })?;
    ensure!(lab.peer.established()? == 1, "the peer has no IKE SA");
    let again = lab.peer.log().matches("IKE_AUTH response").count();
    ensure!(
        again == negotiated,
        "{} negotiation(s) after the takeover",
        again - negotiated
    );
    ask(&lab, other, "terminate", false)?;
    wait_until(Duration::from_secs(20), "the peer to have nothing", || {
        Ok(lab.peer.established()? == 0)
    })?;
    Ok(format!(
        "asked {asked}, initiated by {owner}, rekeyed ({old} -> {after}) and deleted after its death"
    ))
}

/// Both sides start at the same moment, and one tunnel stays.
pub(super) fn both(context: &Context) -> Result<String> {
    let wishes = Wishes {
        // Long enough for each side to begin before it hears of the other.
        receive_delay: 300,
        ..out("none")
    };
    let lab = Lab::sprayed(context, "initiate-both", &wishes)?;
    let owner = owner_of_out(&lab)?;
    for round in 1..=5 {
        std::thread::scope(|scope| {
            // It may be told that its IKE SA was deleted in favour of the other one.
            scope.spawn(|| drop(lab.peer.initiate("site-1", 10)));
            ask(&lab, owner, "initiate", false)
        })?;
        wait_one_tunnel(&lab, 30).with_context(|| format!("round {round}"))?;
        // It stays.
        std::thread::sleep(Duration::from_secs(2));
        wait_one_tunnel(&lab, 1).with_context(|| format!("round {round}, later"))?;
        lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
        wait_until(
            Duration::from_secs(20),
            "both sides to have nothing",
            || Ok(lab.cluster.ike_sas()?.is_empty() && lab.peer.established()? == 0),
        )?;
    }
    let crossed = lab.log_lines(&["both sides have initiated"]).len();
    Ok(format!("5 rounds, {crossed} with two IKE SAs for a moment"))
}

/// It is to be up: the owner tries while the peer is not there, and succeeds when it is.
pub(super) fn unreachable(context: &Context) -> Result<String> {
    let wishes = Wishes {
        ike: "retry_initiate_interval = \"2s\"",
        ..out("start")
    };
    // The members are up, and try, before the peer is started.
    let lab = Lab::sprayed(context, "initiate-unreachable", &wishes)?;
    let owner = owner_of_out(&lab)?;
    let (member, _) = wait_one_tunnel(&lab, 60)?;
    ensure!(member == owner, "member {member} initiated, not {owner}");
    let resent = lab
        .cluster
        .member(owner.into())?
        .engine("requests_resent")?;
    for other in lab.member_ids().into_iter().filter(|id| *id != owner) {
        let sent = lab.cluster.member(other.into())?.engine("requests_sent")?;
        ensure!(sent == 0, "member {other} sent {sent} request(s), too");
    }
    Ok(format!(
        "up after {resent} retransmission(s) by its owner {owner}"
    ))
}

/// The first packet from inside brings the tunnel up, also where it reaches another member than the
/// owner of the connection's slot; what it was itself never leaves in clear. When the tunnel is gone,
/// the next packet brings up another one.
pub(super) fn by_packet(context: &Context) -> Result<String> {
    let lab = Lab::sprayed(context, "trap", &out("trap"))?;
    let members = lab.network.members.iter();
    let taps: Vec<Tap> = members
        .map(|member| Tap::start(member, "eth0"))
        .collect::<Result<_>>()?;
    let inside: IpAddr = site_host(0).into();
    let mut rounds = Vec::new();
    for at_owner in [false, true] {
        let owner = owner_of_out(&lab)?;
        let entered = if at_owner {
            owner
        } else {
            lab.other_than(owner)
        };
        lab.network.inside_via(entered)?;
        let mut pings = 0;
        wait_until(Duration::from_secs(40), "a ping to be answered", || {
            pings += 1;
            Ok(lab.network.host.ping(None, inside, 1, 1)? == 1)
        })
        .with_context(|| format!("at member {entered}"))?;
        // Views may change on a starved machine, and the tunnel moves with its slot.
        let mut owner = 0;
        let what = "the tunnel to be its slot's owner's";
        wait_until(Duration::from_secs(20), what, || {
            let (member, _) = wait_one_tunnel(&lab, 20)?;
            owner = owner_of_out(&lab)?;
            Ok(member == owner)
        })?;
        ask(&lab, owner, "terminate", false)?;
        wait_until(
            Duration::from_secs(20),
            "both sides to have nothing",
            || Ok(lab.cluster.ike_sas()?.is_empty() && lab.peer.established()? == 0),
        )?;
        rounds.push(format!(
            "at {entered}: the tunnel of {owner}, {} pings lost",
            pings - 1
        ));
    }
    let mut esp = 0;
    for tap in taps {
        for seen in tap.finish()? {
            // SITE_NETWORKS.
            let to_site =
                matches!(seen.destination, IpAddr::V4(to) if to.octets().starts_with(&[10, 2]));
            let clear = seen.out && to_site && seen.what == What::Plain;
            ensure!(!clear, "cleartext left: {seen:?}");
            esp += u32::from(seen.out && matches!(seen.what, What::Esp { .. }));
        }
    }
    ensure!(esp > 0, "no ESP was seen");
    Ok(format!(
        "packets {}; {esp} ESP packets and nothing in clear",
        rounds.join(", ")
    ))
}
