//! strongSwan's own client library, as exporters use it, against a member and against a stock charon:
//! what it gets from both has the same names and the same kinds of values.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::Lab;
use super::swanctl::to_be_loaded;
use crate::lab::Skipped;

const CLIENT: &str = include_str!("vici_client.py");
/// The library's release; those of strongSwan 5.9.8 and later ones speak the same protocol.
const RELEASE: &str = "vici==6.0.3";

/// Keys of a stock IKE_SA that come and go with what happens to it, or of the side that asks.
const IKE_SA_MAY: &[&str] = &[
    "initiator",
    "nat-local",
    "nat-remote",
    "nat-fake",
    "nat-any",
    "reauth-time",
    "rekey-time",
    "tasks-active",
    "tasks-queued",
    "tasks-passive",
];
/// The same of a CHILD_SA.
const CHILD_SA_MAY: &[&str] = &["use-in", "use-out", "dh-group"];

pub(super) fn client(context: &Context) -> Result<String> {
    let python = library(context)?;
    let lab = Lab::sprayed(context, "vici-client", &to_be_loaded())?;
    let script = lab.run.log("client.py");
    std::fs::write(&script, CLIENT)?;
    let pki = lab.run.log("pki/member-1");
    // The member that owns the connection: what another one serves has no counters here.
    let slot = gateway_common::slot::Slot::for_connection("out");
    let view = lab.cluster.member(1)?.ask("view")?;
    let owner = view["slots"][usize::from(slot.0)].as_u64();
    let owner = u8::try_from(owner.context("no owner")?)?;
    let ours = lab.network.member(owner)?.run_dir();
    let output = Command::new("timeout")
        .arg("120")
        .arg(python)
        .arg(&script)
        .arg(ours.join("gateway/charon.vici"))
        .arg(lab.peer.socket())
        .arg(pki.join("ca.crt"))
        .arg(pki.join("member.key"))
        .arg(context.binaries.join("gatewayctl"))
        .arg(ours.join("gateway/gateway.sock"))
        .output()
        .context("python3")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {errors}", output.status);
    std::fs::write(lab.run.log("answers.json"), &output.stdout)?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    loaded(&told)?;
    ordered(&told)?;
    exported(&told)?;
    let compared = sas(&told)? + conns(&told)? + whole(&told)? + certs(&told)?;
    events(&told["events"])?;
    Ok(format!(
        "{compared} names of a stock daemon's answers are in the member's, with the same kind of value"
    ))
}

/// What exporters read is what `gatewayctl --json` says of the same.
fn exported(told: &Value) -> Result<()> {
    let (read, pages) = (&told["exported"], &told["gatewayctl"]);
    let only = |list: &Value| -> Result<Value> {
        match list.as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            _ => anyhow::bail!("{list} is not one"),
        }
    };
    let (sa, own) = (only(&read["ike_sas"])?, only(&pages["sas"]["ike_sas"])?);
    let (child, own_child) = (only(&sa["child-sas"])?, only(&own["children"])?);
    let hex = |value: &Value, digits: usize| {
        let text = value.as_str().unwrap_or_default();
        let last = text.get(text.len().saturating_sub(digits)..);
        Value::from(u64::from_str_radix(last.unwrap_or_default(), 16).unwrap_or(0))
    };
    let socket = |host: &str, port: &str| format!("{}:{}", text(&sa[host]), sa[port]);
    let spis = match own["initiator"] == true {
        true => ["local_spi", "remote_spi"],
        false => ["remote_spi", "local_spi"],
    };
    let status = &pages["status"];
    for (what, read, own) in [
        ("IKE SAs", &read["ikesas"]["total"], &status["ike_sas"]),
        (
            "half-open",
            &read["ikesas"]["half-open"],
            &status["half_open"],
        ),
        ("pools", &read["pools"], &Value::Array(Vec::new())),
        ("name", &sa["name"], &own["connection"]),
        ("state", &sa["state"], &"ESTABLISHED".into()),
        ("version", &sa["version"], &2.into()),
        ("uniqueid", &sa["uniqueid"], &hex(&own["local_spi"], 8)),
        ("initiator-spi", &sa["initiator-spi"], &own[spis[0]]),
        ("responder-spi", &sa["responder-spi"], &own[spis[1]]),
        (
            "local",
            &socket("local-host", "local-port").into(),
            &own["local"],
        ),
        (
            "remote",
            &socket("remote-host", "remote-port").into(),
            &own["remote"],
        ),
        ("local-id", &sa["local-id"], &own["local_id"]),
        ("remote-id", &sa["remote-id"], &own["remote_id"]),
        ("child", &child["name"], &own_child["name"]),
        (
            "child's uniqueid",
            &child["uniqueid"],
            &hex(&own_child["spi_in"], 8),
        ),
        ("child's state", &child["state"], &"INSTALLED".into()),
        ("mode", &child["mode"], &"TUNNEL".into()),
        ("protocol", &child["protocol"], &"ESP".into()),
        ("local-ts", &child["local-ts"], &own_child["local_ts"]),
        ("remote-ts", &child["remote-ts"], &own_child["remote_ts"]),
        ("bytes-in", &child["bytes-in"], &own_child["bytes_in"]),
        ("bytes-out", &child["bytes-out"], &own_child["bytes_out"]),
        ("packets-in", &child["packets-in"], &own_child["packets_in"]),
        (
            "packets-out",
            &child["packets-out"],
            &own_child["packets_out"],
        ),
    ] {
        ensure!(read == own, "{what} is {read}, by gatewayctl {own}");
    }
    // What goes on between both questions.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let running = now.as_secs_f64() - seconds(&read["since"])?;
    for (what, read, own) in [
        ("uptime", running, &status["uptime_seconds"]),
        (
            "established",
            seconds(&sa["established"])?,
            &own["established_seconds"],
        ),
        (
            "install-time",
            seconds(&child["install-time"])?,
            &own_child["installed_seconds"],
        ),
        (
            "life-time",
            seconds(&child["life-time"])?,
            &own_child["life_seconds"],
        ),
        (
            "rekey-time",
            seconds(&child["rekey-time"])?,
            &own_child["rekey_seconds"],
        ),
    ] {
        let own = seconds(own)?;
        ensure!(
            (read - own).abs() < 20.0,
            "{what} is {read}, by gatewayctl {own}"
        );
    }
    exported_configuration(read, pages)
}

fn exported_configuration(read: &Value, pages: &Value) -> Result<()> {
    let named = |list: &Value| -> BTreeSet<String> {
        let all = list.as_array().into_iter().flatten();
        all.map(|one| text(&one["name"])).collect()
    };
    let (conns, own) = (&read["conns"], &pages["connections"]["connections"]);
    ensure!(named(conns) == named(own), "{conns}, by gatewayctl {own}");
    ensure!(named(conns).contains("out"), "{conns}");
    // DER begins with a SEQUENCE.
    let certs = read["certs"].as_array().cloned().unwrap_or_default();
    let is_x509 = |cert: &Value| *cert == serde_json::json!(["X509", "30"]);
    ensure!(!certs.is_empty() && certs.iter().all(is_x509), "{certs:?}");
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn seconds(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("{value} is no time"))
}

/// Credentials over VICI, and what is gone again afterwards.
fn loaded(told: &Value) -> Result<()> {
    let (ours, stock) = (&told["loaded"]["ours"], &told["loaded"]["stock"]);
    for call in [
        "load_cert",
        "load_key",
        "load_shared",
        "get_keys",
        "get_shared",
    ] {
        same(call, &ours[call], &stock[call], &[])?;
    }
    let has = |list: &Value, wanted: &Value| {
        list.as_array()
            .is_some_and(|names| names.iter().any(|name| name == wanted))
    };
    ensure!(has(&ours["get_shared"]["keys"], &"psk-1".into()), "{ours}");
    let id = &ours["load_key"]["id"];
    ensure!(has(&ours["get_keys"]["keys"], id), "{ours}");
    let theirs = &stock["load_key"]["id"];
    ensure!(id == theirs, "the key is {id}, with charon {theirs}");
    let (conns, shared) = (&told["left"][0]["conns"], &told["left"][1]["keys"]);
    ensure!(
        !has(conns, &"out".into()) && !has(shared, &"psk-1".into()),
        "left after unloading: {}",
        told["left"]
    );
    Ok(())
}

/// Orders, and what is told of them while they are carried out.
fn ordered(told: &Value) -> Result<()> {
    for order in ["initiate", "terminate"] {
        let lines = told[order].as_array().cloned().unwrap_or_default();
        ensure!(!lines.is_empty(), "no control-log of {order}");
        for line in lines {
            for key in ["group", "level", "msg"] {
                ensure!(line[key].is_string(), "{order}: {line} has no {key}");
            }
        }
    }
    ensure!(
        told["chosen"] == serde_json::json!([1, 0]),
        "{}",
        told["chosen"]
    );
    let (ours, stock) = (&told["refused"]["ours"], &told["refused"]["stock"]);
    ensure!(ours == stock, "refused with {ours}, by charon with {stock}");
    Ok(())
}

/// The one tunnel as both its ends tell it.
fn sas(told: &Value) -> Result<usize> {
    let one = |side: &str| -> Result<(Value, Value)> {
        let all = &told["answers"][side]["list_sas"];
        let ike = first(&all[0]).with_context(|| format!("{side}: {all}"))?;
        let child = first(&ike["child-sas"]).with_context(|| format!("{side}: {ike}"))?;
        Ok((ike, child))
    };
    let ((ike, child), (stock_ike, stock_child)) = (one("ours")?, one("stock")?);
    Ok(same("list_sas", &ike, &stock_ike, IKE_SA_MAY)?
        + same("list_sas, child-sas", &child, &stock_child, CHILD_SA_MAY)?)
}

fn conns(told: &Value) -> Result<usize> {
    let find = |side: &str, name: &str| {
        let all = told["answers"][side]["list_conns"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        let found = all.find_map(|one| one.get(name).cloned());
        found.with_context(|| format!("{side} has no connection {name}"))
    };
    let (ours, stock) = (find("ours", "out")?, find("stock", "site-1")?);
    let mut count = same("list_conns", &ours, &stock, &["ppk_required"])?;
    for part in ["local-1", "remote-1"] {
        count += same(
            part,
            &ours[part],
            &stock[part],
            &["groups", "certs", "cacerts", "cert_policy"],
        )?;
    }
    let (child, stock_child) = (&ours["children"]["net"], &stock["children"]["net"]);
    Ok(count + same("list_conns, children", child, stock_child, &[])?)
}

/// Answers of one section.
fn whole(told: &Value) -> Result<usize> {
    let (ours, stock) = (&told["answers"]["ours"], &told["answers"]["stock"]);
    let mut count = same("version", &ours["version"], &stock["version"], &[])?;
    // What malloc tells of itself.
    count += same(
        "stats",
        &ours["stats"],
        &stock["stats"],
        &["mem", "mallinfo"],
    )?;
    for part in ["uptime", "workers", "queues", "ikesas"] {
        count += same(part, &ours["stats"][part], &stock["stats"][part], &[])?;
    }
    count += same("get_pools", &ours["get_pools"], &stock["get_pools"], &[])?;
    let counters = |side: &Value| side["get_counters"]["counters"][""].clone();
    let (ours, stock) = (counters(ours), counters(stock));
    count += same("get_counters", &ours, &stock, &[])?;
    // Both have the same one negotiation behind them.
    for exchange in ["ike-init", "ike-auth"] {
        for (here, there) in [("out-req", "in-req"), ("in-resp", "out-resp")] {
            let here = &ours[format!("{exchange}-{here}")];
            let there = &stock[format!("{exchange}-{there}")];
            ensure!(here == there, "{exchange}: {ours}, with charon {stock}");
        }
    }
    let reset = &told["reset"];
    let before = number(&ours["ike-init-out-req"]) && ours["ike-init-out-req"] != "0";
    let after = &reset["counters"][""]["ike-init-out-req"];
    ensure!(
        before && after == "0",
        "after reset-counters: {reset}, before {ours}"
    );
    Ok(count)
}

fn certs(told: &Value) -> Result<usize> {
    let first = |side: &str| told["answers"][side]["list_certs"][0].clone();
    same(
        "list_certs",
        &first("ours"),
        &first("stock"),
        &["not-before", "not-after"],
    )
}

/// Both have told of the tunnel's beginning and end, in the same words.
fn events(told: &Value) -> Result<()> {
    let find = |side: &str, name: &str| {
        let all = told[side].as_array().cloned().unwrap_or_default();
        let mut all = all.into_iter();
        let found = all.find(|event| event[0] == name);
        let found = found.map(|mut event| event[1].take());
        found.with_context(|| format!("{side} told of no {name}"))
    };
    for name in ["ike-updown", "child-updown"] {
        let (ours, stock) = (find("ours", name)?, find("stock", name)?);
        ensure!(
            ours["up"] == "yes" && stock["up"] == "yes",
            "{ours}, {stock}"
        );
        let (ours, stock) = (last(&ours)?, last(&stock)?);
        same(name, &ours, &stock, IKE_SA_MAY)?;
    }
    let line = find("ours", "log")?;
    same(
        "log",
        &line,
        &find("stock", "log")?,
        &["ikesa-uniqueid", "ikesa-name"],
    )?;
    Ok(())
}

/// The value of a section's only entry, or its first.
fn first(section: &Value) -> Option<Value> {
    section.as_object()?.values().next().cloned()
}

/// The subsection of an event, whose name is the connection's.
fn last(event: &Value) -> Result<Value> {
    let entries = event.as_object().context("no section")?;
    let found = entries.values().find(|value| value.is_object());
    found.cloned().with_context(|| format!("{event}"))
}

/// Every name that a stock daemon gives is there, but for those that `may` be absent, and stands for
/// the same kind of value. Returns how many.
fn same(what: &str, ours: &Value, stock: &Value, may: &[&str]) -> Result<usize> {
    let names = |section: &Value| -> BTreeSet<String> {
        let entries = section.as_object().into_iter().flatten();
        entries.map(|(name, _)| name.clone()).collect()
    };
    let (have, wanted) = (names(ours), names(stock));
    let missing: Vec<&String> = wanted
        .difference(&have)
        .filter(|name| !may.contains(&name.as_str()))
        .collect();
    ensure!(
        missing.is_empty(),
        "{what}: {missing:?} of {stock} are not in {ours}"
    );
    let both: Vec<&String> = wanted.intersection(&have).collect();
    for name in &both {
        let (a, b) = (&ours[name.as_str()], &stock[name.as_str()]);
        // Of hexadecimal digits some have no letter among them.
        let hexadecimal = name.starts_with("spi-") || name.ends_with("-spi");
        let alike = hexadecimal && a.is_string() && b.is_string();
        ensure!(
            alike || kind(a) == kind(b),
            "{what}: {name} is {a}, with charon {b}"
        );
    }
    Ok(both.len())
}

/// What a program that reads a value has to be ready for.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "section",
        Value::Array(_) => "list",
        _ if number(value) => "number",
        _ => "text",
    }
}

fn number(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.parse::<u64>().is_ok())
}

/// Python with the library, in an environment of its own, made once.
fn library(context: &Context) -> Result<PathBuf> {
    let target = context.binaries.parent().context("the target folder")?;
    let folder = target.join("tools/vici");
    let done = folder.join("complete");
    if !done.exists() {
        let run = |program: PathBuf, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let place = folder.to_string_lossy().into_owned();
        let wanted = ["install", "--quiet", "--disable-pip-version-check", RELEASE];
        if !run("python3".into(), &["-m", "venv", &place]) || !run(folder.join("bin/pip"), &wanted)
        {
            let why = format!("{RELEASE} could not be installed from PyPI");
            return Err(Skipped(why).into());
        }
        std::fs::write(done, "")?;
    }
    Ok(folder.join("bin/python"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_names_and_other_kinds_are_found() {
        let stock = json!({"a": "1", "b": "x", "c": ["y"], "d": {}});
        assert_eq!(same("it", &stock, &stock, &[]).unwrap(), 4);
        let ours = json!({"a": "7", "b": "z", "c": []});
        assert!(same("it", &ours, &stock, &[]).is_err());
        assert_eq!(same("it", &ours, &stock, &["d"]).unwrap(), 3);
        let spis = [json!({"spi-in": "83667242"}), json!({"spi-in": "09f7130e"})];
        assert_eq!(same("it", &spis[0], &spis[1], &[]).unwrap(), 1);
        let ours = json!({"a": "one", "b": "z", "c": [], "d": {}});
        assert!(same("it", &ours, &stock, &[]).is_err());
    }
}
