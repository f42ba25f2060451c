//! What operators do.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Member, Plan};

/// With XDP forwarding off the agents relay IKE themselves; switched on again, XDP does it.
pub(super) fn forwarding_switch(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: 2,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "forwarding-switch", &wishes)?;
    switch(&lab, "off", false)?;
    lab.bring_up(0)?;
    let (ike, _) = lab.cluster.redirected()?;
    ensure!(
        ike == 0,
        "{ike} datagrams were redirected although forwarding is off"
    );
    let relayed = lab.cluster.engine("relayed_out")?;
    ensure!(relayed >= 1, "no agent relayed anything");
    ensure!(
        lab.cluster.engine("relayed_in")? == relayed,
        "relayed and received relayed datagrams differ"
    );
    ensure!(
        lab.cluster.reasons(&["forwarding_off"])? >= 2,
        "`forwarding_off` was not counted"
    );
    switch(&lab, "on", true)?;
    lab.bring_up(1)?;
    let (ike, _) = lab.cluster.redirected()?;
    ensure!(ike >= 1, "nothing was redirected after switching on again");
    let still = lab.cluster.engine("relayed_out")?;
    lab.every_exchange_once(0)?;
    Ok(format!(
        "off: {relayed} relayed by agents; on: {ike} redirected, {} relayed",
        still - relayed
    ))
}

fn switch(lab: &Lab, word: &str, expected: bool) -> Result<()> {
    for member in &lab.cluster.members {
        let output = member.gatewayctl(&["forwarding", word])?;
        ensure!(
            output.status.success(),
            "gatewayctl forwarding {word}: {output:?}"
        );
        let status = member.ask("status")?;
        ensure!(
            status["ike_forwarding"] == expected,
            "member {}: {status}",
            member.id
        );
    }
    // The same by the socket, for clients other than gatewayctl.
    let first = lab.cluster.member(1)?;
    first.request(&json!({"command": "forwarding", "enabled": expected}))?;
    Ok(())
}

/// `gatewayctl check` finds nothing wrong in the lab, then the one thing that is made wrong.
pub(super) fn check(context: &Context) -> Result<String> {
    let lab = Lab::start(context, "check", &Wishes::default())?;
    let member = lab.cluster.member(1)?;
    let node = &lab.network.members[0];
    let (code, errors) = errors(member)?;
    ensure!(
        code == Some(0) && errors.is_empty(),
        "a good host, exit code {code:?}: {errors:?}"
    );
    node.sysctl(&["net.ipv4.conf.eth1.rp_filter=1"])?;
    expect(member, "rp_filter")?;
    node.sysctl(&[
        "net.ipv4.conf.eth1.rp_filter=0",
        "net.ipv4.conf.eth1.forwarding=0",
    ])?;
    expect(member, "forwarding")?;
    node.sysctl(&["net.ipv4.conf.eth1.forwarding=1"])?;
    node.ip("link set eth1 mtu 1400")?;
    expect(member, "mtu")?;
    node.ip("link set eth1 mtu 1500")?;
    let (code, left) = self::errors(member)?;
    ensure!(
        code == Some(0) && left.is_empty(),
        "mended, exit code {code:?}: {left:?}"
    );
    Ok("rp_filter, forwarding and MTU of the sync interface, each with its fix".into())
}

/// Exit code and failed checks of severity "error".
fn errors(member: &Member) -> Result<(Option<i32>, Vec<Value>)> {
    let output = member.gatewayctl(&["--json", "check"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let checks = report["checks"]
        .as_array()
        .context("a report without checks")?;
    ensure!(!checks.is_empty(), "nothing was checked");
    let failed = checks
        .iter()
        .filter(|row| row["ok"] == false && row["severity"] == "error");
    Ok((output.status.code(), failed.cloned().collect()))
}

/// The check `name` fails for eth1, names a fix, and makes gatewayctl exit with 1.
fn expect(member: &Member, name: &str) -> Result<()> {
    let (code, failed) = errors(member)?;
    ensure!(code == Some(1), "exit code {code:?} with {failed:?}");
    let about = |row: &&Value| {
        let named = row["name"].as_str().is_some_and(|text| text.contains(name));
        named && row["subject"] == "eth1"
    };
    let row = failed
        .iter()
        .find(about)
        .with_context(|| format!("no {name} in {failed:?}"))?;
    let fix = row["fix"].as_str().unwrap_or_default();
    ensure!(
        fix.contains("eth1"),
        "{name}: the fix names no interface: {row}"
    );
    Ok(())
}
