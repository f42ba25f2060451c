//! The REST API against what the maps hold and what XDP does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{
    Plan, Rest, Skipped, VIP, Wire, command, find_pin, ike_sa_init, reasons, site_host,
    sync_address, udp_frame, wait_until,
};

const BASE: &str = "/api/v1/cluster/ike-forwarding";
/// Where the frames of this scenario claim to come from.
const STRANGER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 1);

/// A running lab and a client for each member.
struct Bench {
    lab: Lab,
    rest: Vec<Rest>,
}

impl Bench {
    fn start(context: &Context, name: &str) -> Result<Self> {
        let wishes = Wishes {
            plan: Plan {
                sites: 1,
                ..Plan::default()
            },
            ..Wishes::default()
        };
        let lab = Lab::sprayed(context, name, &wishes)?;
        let nodes = lab.network.members.iter();
        let rest = nodes.map(|node| Rest::new(node.run_dir())).collect();
        Ok(Self { lab, rest })
    }

    /// The client of a member, from 1.
    fn at(&self, member: u8) -> &Rest {
        &self.rest[usize::from(member) - 1]
    }

    /// `SEP_my_IKE_packet` of a member as bpftool dumps it: by key (cookie and message id in hex,
    /// peer's octets), member and slot.
    fn dump(&self, member: u8) -> Result<BTreeMap<String, (u8, u8)>> {
        let node = &self.lab.network.members[usize::from(member) - 1];
        let root = node.bpf_dir().context("no BPF file system")?;
        let pin = find_pin(root, "SEP_my_IKE_packet")?;
        let pin = pin.display().to_string();
        let text = command("bpftool", &["-j", "map", "dump", "pinned", &pin])?;
        let shown: Value = serde_json::from_str(&text).context("bpftool's answer")?;
        let mut found = BTreeMap::new();
        for entry in shown.as_array().into_iter().flatten() {
            let (key, value) = (octets(&entry["key"])?, octets(&entry["value"])?);
            let key: String = key[..12]
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect();
            found.insert(key, (value[0], value[1]));
        }
        Ok(found)
    }
}

fn octets(list: &Value) -> Result<Vec<u8>> {
    let list = list.as_array().context("bpftool shows no octets")?;
    let octet = |text: &Value| -> Result<u8> {
        let text = text.as_str().context("an octet")?;
        Ok(u8::from_str_radix(text.trim_start_matches("0x"), 16)?)
    };
    list.iter().map(octet).collect()
}

/// A cookie and a message id as [`Bench::dump`] has them.
fn raw_key(cookie: &str, message_id: u32) -> String {
    format!("{cookie}{message_id:08x}")
}

/// Every path of the seed, its answer, the map, and what XDP then does.
pub(super) fn forwarding_api(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "rest")?;
    entries_steer(&bench)?;
    entries_change(&bench)?;
    table(&bench)?;
    cookies(&bench)?;
    injected(&bench)?;
    let sas = tunnel(&bench)?;
    explained(&bench)?;
    modes(&bench)?;
    Ok(format!(
        "frames went as the entries said, {sas} IKE SA shown and explained"
    ))
}

/// A message of a stranger that the decision function gives to `owner`, and its cookie.
fn message_for(bench: &Bench, owner: u8, from: u32) -> Result<(Vec<u8>, String, u32)> {
    let wanted = sync_address(owner).to_string();
    for number in from..from + 64 {
        let message = ike_sa_init(number);
        let path = format!(
            "{BASE}/cookie-resolution?message={}&source={STRANGER}",
            hex(&message)
        );
        let resolved = bench.at(1).get(&path)?;
        ensure!(
            resolved["via"] == "decision-function" && resolved["message_id"] == 0,
            "a new message: {resolved}"
        );
        if resolved["cluster_peer"] == wanted.as_str() {
            let cookie = hex(&message[..8]);
            ensure!(resolved["cookie"] == cookie.as_str(), "{resolved}");
            return Ok((message, cookie, number));
        }
    }
    bail!("no message goes to member {owner}")
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// An entry turns a negotiation to another member: receive-packet says so, the map of every member
/// holds it, XDP redirects the frame there, and that member answers. Without it all is as before.
fn entries_steer(bench: &Bench) -> Result<()> {
    let (message, cookie, _) = message_for(bench, 1, 1000)?;
    let body = json!({"message": hex(&message), "source": STRANGER.to_string()});
    let classify =
        |rest: &Rest| rest.expect(200, "POST", &format!("{BASE}/receive-packet"), Some(&body));
    let own = classify(bench.at(1))?;
    ensure!(
        own["reason"] == "new_ike_local" && own["action"] == "pass" && own["local"] == true,
        "before the entry: {own}"
    );
    let entry = json!({"cookie": cookie, "message_id": 0, "peer": STRANGER.to_string(),
        "member": sync_address(2).to_string()});
    let path = format!("{BASE}/packet-tracking");
    let mut dry = entry.clone();
    dry["dry_run"] = true.into();
    bench.at(1).expect(200, "POST", &path, Some(&dry))?;
    let key = raw_key(&cookie, 0);
    ensure!(
        !bench.dump(1)?.contains_key(&key),
        "a dry run wrote the map"
    );
    let made = bench.at(1).expect(201, "POST", &path, Some(&entry))?;
    let there = bench.dump(1)?;
    let (member, slot) = there.get(&key).context("the map has no such entry")?;
    ensure!(
        (*member, i64::from(*slot)) == (2, made["slot"].as_i64().unwrap_or(-1)),
        "the map says {member}/{slot}, the answer {made}"
    );
    let life = made["expires_in_seconds"].as_f64().unwrap_or_default();
    ensure!((100.0..=120.0).contains(&life), "it lives for {life} s");
    for other in [2, 3] {
        wait_until(
            Duration::from_secs(5),
            "the entry to reach the others",
            || Ok(bench.dump(other)?.get(&key) == Some(&(2, *slot))),
        )?;
    }
    let now = classify(bench.at(1))?;
    ensure!(
        now["reason"] == "negotiation_forwarded"
            && now["cluster_peer"] == sync_address(2).to_string().as_str(),
        "with the entry: {now}"
    );
    let counts = |reason| -> Result<u64> {
        let all = reasons(&bench.lab.network.members[0])?;
        Ok(all.get(reason).copied().unwrap_or(0))
    };
    let before = counts("negotiation_forwarded")?;
    let answered = bench.lab.cluster.member(2)?.engine("init_requests")?;
    send(bench, &message)?;
    wait_until(Duration::from_secs(5), "XDP to redirect the frame", || {
        Ok(counts("negotiation_forwarded")? == before + 1)
    })?;
    wait_until(Duration::from_secs(5), "member 2 to take it up", || {
        Ok(bench.lab.cluster.member(2)?.engine("init_requests")? == answered + 1)
    })?;
    Ok(())
}

/// Another member, by PUT, twice: it changes nothing the second time. Without its entry a frame goes
/// where the decision function says.
fn entries_change(bench: &Bench) -> Result<()> {
    let path = format!("{BASE}/packet-tracking");
    let (other, cookie, _) = message_for(bench, 1, 2000)?;
    let key = raw_key(&cookie, 0);
    let mut entry = json!({"cookie": cookie, "message_id": 0, "peer": STRANGER.to_string(),
        "member": sync_address(2).to_string()});
    bench.at(1).expect(404, "PUT", &path, Some(&entry))?;
    bench.at(1).expect(201, "POST", &path, Some(&entry))?;
    bench.at(1).expect(409, "POST", &path, Some(&entry))?;
    entry["member"] = sync_address(3).to_string().into();
    for _ in 0..2 {
        let changed = bench.at(1).expect(200, "PUT", &path, Some(&entry))?;
        ensure!(changed["member_id"] == 3, "{changed}");
        ensure!(bench.dump(1)?.get(&key).map(|e| e.0) == Some(3), "the map");
    }
    let query = format!("{path}?key={cookie}:0&peer={STRANGER}");
    let one = bench.at(1).get(&query)?;
    ensure!(one["entries"][0]["member_id"] == 3, "{one}");
    bench.at(1).expect(200, "DELETE", &query, None)?;
    ensure!(!bench.dump(1)?.contains_key(&key), "it is still in the map");
    bench.at(1).expect(404, "GET", &query, None)?;
    bench.at(1).expect(404, "DELETE", &query, None)?;
    let stays = || -> Result<u64> {
        let all = reasons(&bench.lab.network.members[0])?;
        Ok(all.get("new_ike_local").copied().unwrap_or(0))
    };
    let before = stays()?;
    send(bench, &other)?;
    wait_until(
        Duration::from_secs(5),
        "the frame to stay without its entry",
        || Ok(stays()? == before + 1),
    )?;
    Ok(())
}

/// Sends a message from the router to member 1, as if it came from the stranger.
fn send(bench: &Bench, message: &[u8]) -> Result<()> {
    let network = &bench.lab.network;
    let member = &network.members[0];
    let wire = Wire::open(&network.router, &member.name)?;
    let macs = (network.router.mac(&member.name)?, member.mac("eth0")?);
    wire.send(&udp_frame(macs, (STRANGER, 500), (VIP, 500), message))
}

/// Search, verification, ownership, creation and taking: one key after the other.
fn table(bench: &Bench) -> Result<()> {
    let rest = bench.at(1);
    let cookie = "00c0ffee00000001";
    let key = json!({"cookie": cookie, "message_id": 7});
    let query = |step: &str, id: &str| format!("{BASE}/{step}?cookie={cookie}&message_id={id}");
    let none = rest.get(&query("table-verification", "7"))?;
    ensure!(none["no_existing_entry"] == true, "{none}");
    rest.expect(404, "GET", &query("ownership-check", "7"), None)?;
    let made = rest.expect(201, "POST", &format!("{BASE}/entry-creation"), Some(&key))?;
    ensure!(
        made["member"] == sync_address(1).to_string().as_str() && made["state"] == "static",
        "{made}"
    );
    ensure!(
        bench.dump(1)?.get(&raw_key(cookie, 7)).map(|e| e.0) == Some(1),
        "the map has no such entry"
    );
    for step in ["entry-creation", "take-ownership"] {
        rest.expect(412, "POST", &format!("{BASE}/{step}"), Some(&key))?;
    }
    let found = rest.get(&query("table-search", "7"))?;
    ensure!(
        found["found"] == true && found["exact"]["member_id"] == 1 && found["wildcard"].is_null(),
        "{found}"
    );
    ensure!(
        rest.get(&query("table-search", "8"))?["found"] == false,
        "another message id"
    );
    let any = json!({"cookie": cookie, "message_id": "any"});
    rest.expect(201, "POST", &format!("{BASE}/take-ownership"), Some(&any))?;
    let found = rest.get(&query("table-search", "8"))?;
    ensure!(
        found["exact"].is_null() && found["wildcard"]["member_id"] == 1,
        "{found}"
    );
    let owner = rest.get(&query("ownership-check", "8"))?;
    ensure!(
        owner["cluster_member_ip"] == sync_address(1).to_string().as_str()
            && owner["local"] == true
            && owner["alive"] == true,
        "{owner}"
    );
    ensure!(
        rest.get(&query("table-verification", "9"))?["no_existing_entry"] == false,
        "any"
    );
    let one = rest.get(&format!("{BASE}/packet-tracking?limit=1&cookie={cookie}"))?;
    let next = one["next"].as_str().context("a second page")?;
    let path = format!("{BASE}/packet-tracking?limit=1&cookie={cookie}&after={next}");
    let two = rest.get(&path)?;
    ensure!(
        two["next"].is_null() && two["entries"][0]["key"] != one["entries"][0]["key"],
        "{one} {two}"
    );
    for id in ["7", "any"] {
        let path = format!("{BASE}/packet-tracking?key={cookie}:{id}");
        rest.expect(200, "DELETE", &path, None)?;
    }
    Ok(())
}

/// A cookie is reserved on all members, and released.
fn cookies(bench: &Bench) -> Result<()> {
    let path = format!("{BASE}/cookie");
    let made = bench.at(2).expect(201, "POST", &path, Some(&json!({})))?;
    let cookie = made["cookie"].as_str().context("a cookie")?;
    let key = raw_key(cookie, u32::MAX);
    ensure!(bench.dump(2)?.get(&key).map(|e| e.0) == Some(2), "the map");
    ensure!(
        u64::from_str_radix(cookie, 16)? & 0x3f == 2,
        "not member 2's: {cookie}"
    );
    wait_until(
        Duration::from_secs(5),
        "the others to know the cookie",
        || Ok(bench.dump(1)?.get(&key).map(|e| e.0) == Some(2)),
    )?;
    let known = bench
        .at(1)
        .get(&format!("{path}?cookie={cookie}&message_id=5"))?;
    ensure!(
        known["phase"] == "reserved"
            && known["cluster_peer"] == sync_address(2).to_string().as_str(),
        "{known}"
    );
    bench
        .at(2)
        .expect(200, "DELETE", &format!("{path}?cookie={cookie}"), None)?;
    bench
        .at(2)
        .expect(404, "GET", &format!("{path}?cookie={cookie}"), None)?;
    ensure!(!bench.dump(2)?.contains_key(&key), "it is still in the map");
    Ok(())
}

/// A packet is handed to the engine where it belongs, and forwarded from elsewhere.
fn injected(bench: &Bench) -> Result<()> {
    let (message, _, _) = message_for(bench, 3, 3000)?;
    let body = json!({"message": hex(&message), "source": STRANGER.to_string()});
    let (local, remote) = (
        format!("{BASE}/local-handling"),
        format!("{BASE}/remote-forward"),
    );
    let seen = |member: u64| bench.lab.cluster.member(member)?.engine("init_requests");
    bench.at(1).expect(412, "POST", &local, Some(&body))?;
    bench.at(3).expect(412, "POST", &remote, Some(&body))?;
    let before = seen(3)?;
    let sent = bench.at(1).expect(200, "POST", &remote, Some(&body))?;
    ensure!(
        sent["cluster_member_ip"] == sync_address(3).to_string().as_str(),
        "{sent}"
    );
    wait_until(Duration::from_secs(5), "member 3 to get the packet", || {
        Ok(seen(3)? == before + 1)
    })?;
    let (message, cookie, _) = message_for(bench, 3, 4000)?;
    let body = json!({"message": hex(&message), "source": STRANGER.to_string()});
    bench.at(3).expect(200, "POST", &local, Some(&body))?;
    ensure!(seen(3)? == before + 2, "the engine did not get it");
    // It is half-open now: taken away by force only, and aborted then.
    let half_open = format!("{BASE}/packet-tracking?key={cookie}:0&peer={STRANGER}");
    let entry = bench.at(3).get(&half_open)?;
    ensure!(entry["entries"][0]["state"] == "half-open", "{entry}");
    let status = || bench.lab.cluster.member(3)?.ask("status");
    let open = status()?["half_open"].as_u64();
    bench.at(3).expect(409, "DELETE", &half_open, None)?;
    bench
        .at(3)
        .expect(200, "DELETE", &format!("{half_open}&force=true"), None)?;
    bench.at(3).expect(404, "GET", &half_open, None)?;
    let left = status()?["half_open"].as_u64();
    ensure!(left < open, "{open:?} half-open before, {left:?} after");
    Ok(())
}

/// What an established tunnel looks like.
fn tunnel(bench: &Bench) -> Result<usize> {
    let (owner, sa) = bench.lab.bring_up(0)?;
    let rest = bench.at(owner);
    let cookie = sa["local_spi"].as_str().context("an SPI")?;
    let known = rest.get(&format!("{BASE}/cookie?cookie={cookie}"))?;
    ensure!(
        known["phase"] == "established" && known["phase2_expected_msgid"].as_u64() >= Some(2),
        "{known}"
    );
    let found = rest.get(&format!("{BASE}/table-search?cookie={cookie}&message_id=2"))?;
    ensure!(found["established_slot"] == sa["slot"], "{found}");
    let owned = rest.get(&format!(
        "{BASE}/ownership-check?cookie={cookie}&message_id=2"
    ))?;
    ensure!(
        owned["via"] == "IKE_SA" && owned["member_id"] == owner,
        "{owned}"
    );
    let entry = json!({"cookie": cookie, "message_id": 2});
    let refused = rest.expect(
        409,
        "POST",
        &format!("{BASE}/packet-tracking"),
        Some(&entry),
    )?;
    let detail = refused["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("move the slot"), "{detail}");
    let page = rest.get(&format!("/api/v1/sas?owner={owner}&limit=10"))?;
    ensure!(page["ike_sas"][0]["local_spi"] == cookie, "{page}");
    let one = rest.get(&format!("/api/v1/sas/{cookie}"))?;
    ensure!(one["remote_id"] == "site-1", "{one}");
    rest.expect(404, "GET", "/api/v1/sas/0000000000000001", None)?;
    let synced = rest.get(&format!("{BASE}/sa-sync"))?;
    ensure!(
        synced["inbound"]["owned_ike_sas"] == 1
            && synced["members"].as_array().map(Vec::len) == Some(2),
        "{synced}"
    );
    let metrics = rest.call("GET", "/metrics", None)?.text;
    for line in ["ipsec_ike_sas 1", "ipsec_up 1", "# EOF"] {
        ensure!(
            metrics.lines().any(|found| found == line),
            "no {line} in {metrics}"
        );
    }
    ensure!(!metrics.contains(cookie), "a series of an SA: {metrics}");
    Ok(1)
}

/// Steps whose condition does not hold, and what is of the whole cluster.
fn modes(bench: &Bench) -> Result<()> {
    let rest = bench.at(1);
    let entry = json!({"cookie": "00c0ffee00000002", "message_id": 0});
    let refused = rest.expect(412, "PUT", &format!("{BASE}/ha-ownership"), Some(&entry))?;
    let detail = refused["detail"].as_str().unwrap_or_default();
    ensure!(detail.starts_with("ha_active_member"), "{detail}");
    let path = format!("{BASE}/initiate-negotiation");
    rest.expect(404, "POST", &path, Some(&json!({"connection": "nobody"})))?;
    // Its peers have no single address, so nobody can begin: a dry run says that, too.
    for dry_run in [true, false] {
        let wish = json!({"connection": "sites", "dry_run": dry_run});
        rest.expect(409, "POST", &path, Some(&wish))?;
    }
    ensure!(
        rest.get("/api/v1/health")?["healthy"] == true,
        "an active member is ill"
    );
    let view = rest.get("/api/v1/view")?;
    ensure!(
        view["slots"].as_array().map(Vec::len) == Some(256),
        "{view}"
    );
    let history = rest.get("/api/v1/history")?;
    let told = history["events"].as_array().context("no history")?;
    ensure!(
        told.iter().any(|event| event["kind"] == "view"),
        "{history}"
    );
    Ok(())
}

/// All members explain the tunnel's packets by the same slot and owner, each for itself.
fn explained(bench: &Bench) -> Result<()> {
    let mut owners = BTreeSet::new();
    for member in 1..=3 {
        let told = bench.at(member).get("/api/v1/explain?subject=site-1")?;
        let findings = told["findings"].as_array().context("no findings")?;
        ensure!(findings.len() == 2, "IKE and ESP of one tunnel: {told}");
        for finding in findings {
            let owner = finding["owner"].as_u64().context("no owner")?;
            let (action, end) = if owner == u64::from(member) {
                ("pass", "_local")
            } else {
                ("forward", "_forwarded")
            };
            let reason = finding["reason"].as_str().unwrap_or_default();
            ensure!(
                finding["action"] == action && reason.ends_with(end),
                "member {member}: {finding}"
            );
            owners.insert((owner, finding["slot"].as_u64()));
        }
        // From inside the same member's, and the same slot's.
        let path = format!("/api/v1/explain?subject={}", site_host(0));
        let told = bench.at(member).get(&path)?;
        let mut findings = told["findings"].as_array().into_iter().flatten();
        let about = |one: &Value| one["about"].as_str().unwrap_or_default().to_owned();
        let inside = findings.find(|one| about(one).starts_with("cleartext to"));
        let inside = inside.with_context(|| format!("nothing about cleartext: {told}"))?;
        let owner = inside["owner"].as_u64().context("no owner")?;
        let (action, reason) = if owner == u64::from(member) {
            ("pass", "inside_owned")
        } else {
            ("forward", "inside_forwarded")
        };
        ensure!(
            inside["action"] == action && inside["reason"] == reason,
            "member {member}: {inside}"
        );
        owners.insert((owner, inside["slot"].as_u64()));
        ensure!(
            told.to_string().contains("ESP of sites, child net"),
            "the tunnel that carries it is not named: {told}"
        );
        let nobody = bench
            .at(member)
            .call("GET", "/api/v1/explain?subject=nobody", None)?;
        ensure!(nobody.status == 404, "{}: {}", nobody.status, nobody.text);
        let (failovers, history) = (
            bench.at(member).get("/api/v1/failovers")?,
            bench.at(member).get("/api/v1/history")?,
        );
        ensure!(failovers["total"] == history["failovers"], "{failovers}");
    }
    ensure!(owners.len() == 1, "they do not agree: {owners:?}");
    Ok(())
}

/// What stands between schemathesis and the Unix socket.
const PROXY: &str = r#"
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for end in (a, b):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[1])
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"#;

/// What every answer is judged by.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

/// Schema-driven fuzzing. Skipped, with the reason, where there is no schemathesis.
pub(super) fn fuzz(context: &Context) -> Result<String> {
    let Some(tool) = schemathesis(context)? else {
        let why = "schemathesis could not be installed from PyPI";
        return Err(Skipped(why.into()).into());
    };
    let bench = Bench::start(context, "rest-fuzz")?;
    let mut proxy = Command::new("python3")
        .args(["-c", PROXY])
        .arg(bench.at(1).socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("python3")?;
    let outcome = fuzz_through(&mut proxy, &tool);
    let _ = proxy.kill();
    let _ = proxy.wait();
    let report = outcome?;
    // It is still there, and nothing has upset it.
    ensure!(
        bench.at(1).get("/api/v1/status")?["member"] == 1,
        "the agent"
    );
    let panicked = bench
        .lab
        .cluster
        .members
        .iter()
        .find(|m| m.log().contains("panicked"));
    ensure!(
        panicked.is_none(),
        "member {:?} panicked",
        panicked.map(|m| m.id)
    );
    Ok(report)
}

fn fuzz_through(proxy: &mut std::process::Child, tool: &std::path::Path) -> Result<String> {
    use std::io::BufRead as _;
    let mut port = String::new();
    let output = proxy.stdout.take().context("no output")?;
    std::io::BufReader::new(output).read_line(&mut port)?;
    let url = format!("http://127.0.0.1:{}", port.trim());
    let output = Command::new("timeout")
        .arg("90")
        .arg(tool)
        .args(["run", &format!("{url}/openapi.json"), "--url", &url])
        .args(["--phases", "examples,coverage,fuzzing", "--max-time", "35"])
        .args(["--checks", CHECKS])
        // Endless, and what takes the cluster apart; the rate is for people.
        .args([
            "--exclude-path-regex",
            "/(events|bootstrap|drain|undrain|failover|forwarding)$",
        ])
        .args([
            "--rate-limit",
            "150/s",
            "--no-color",
            "--generation-deterministic",
        ])
        .output()
        .context("schemathesis")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}{errors}", output.status);
    let summary = text
        .lines()
        .filter(|line| line.contains("generated") || line.contains("passed"));
    Ok(summary.map(str::trim).collect::<Vec<_>>().join("; "))
}

/// The tool in a virtual environment of its own, made once.
fn schemathesis(context: &Context) -> Result<Option<std::path::PathBuf>> {
    let folder = context
        .binaries
        .parent()
        .context("the target folder")?
        .join("tools/schemathesis");
    let tool = folder.join("bin/schemathesis");
    if !tool.exists() {
        let made = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            return Ok(None);
        }
        let pip = folder.join("bin/pip");
        let wanted = [
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "schemathesis==4.32.5",
        ];
        let installed = Command::new(pip).args(wanted).output()?;
        if !installed.status.success() {
            return Ok(None);
        }
    }
    Ok(Some(tool))
}
