//! The files of `deploy/prometheus` and the dashboard's expressions, in a real Prometheus.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::KeyPair;
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{
    Authority, GATEWAY_ID, Node, Plan, inside_address, program, repository, secret_file, wait_until,
};

const URL: &str = "http://127.0.0.1:9090";
const TOKEN: &str = "a-token-for-prometheus-of-the-lab-alone";
/// What Grafana puts in for the dashboard's variables.
const VARIABLES: [(&str, &str); 3] = [
    ("$job", "gateway"),
    ("$__rate_interval", "10s"),
    ("$__range", "1m"),
];

/// A Prometheus in a node.
struct Server<'a> {
    node: &'a Node,
    promtool: String,
}

impl Server<'_> {
    /// What an expression gives now: the samples' labels.
    fn ask(&self, expression: &str) -> Result<Vec<Value>> {
        let args = ["query", "instant", "-o", "json", URL, expression];
        let text = self.node.output(&self.promtool, &args)?;
        let samples: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let samples = samples.as_array().into_iter().flatten();
        Ok(samples.map(|sample| sample["metric"].clone()).collect())
    }

    /// Waits until an expression gives so many samples.
    fn gives(&self, expression: &str, wanted: usize) -> Result<()> {
        let mut last = Vec::new();
        let waited = wait_until(Duration::from_secs(20), expression, || {
            // Until it listens, promtool fails.
            last = self.ask(expression).unwrap_or_default();
            Ok(last.len() == wanted)
        });
        waited.with_context(|| format!("{wanted} were wanted of {expression}: {last:?}"))
    }
}

/// Three members are scraped over TLS with a token, as prometheus.yml says. Every series that dashboard
/// and rules ask for is there; every panel that shows no faults shows something, with the labels of its
/// legend. No rule fires, and when a member's agent is dead those do that are about it.
pub(super) fn prometheus(context: &Context) -> Result<String> {
    let (server, promtool) = (program("prometheus")?, program("promtool")?);
    // The members do not see the lab's own /run.
    let folder = context.logs.join("monitoring-prometheus");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let tables = credentials(&folder)?;
    let wishes = Wishes {
        plan: Plan {
            sites: 3,
            ..Plan::default()
        },
        tables,
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "monitoring", &wishes)?;
    for site in 0..3 {
        lab.bring_up(site)?;
    }
    let node = &lab.network.host;
    let mut command = node.command(server)?;
    command
        .arg(configure(&folder)?)
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg("--web.listen-address=127.0.0.1:9090");
    let mut daemon = node.spawn(command, "prometheus.log")?;
    let prometheus = Server {
        node,
        promtool: promtool.display().to_string(),
    };
    let up = prometheus.gives("up{job=\"gateway\"} == 1", 3);
    daemon.check_alive()?;
    up?;
    let (panels, rules) = (panels()?, rules()?);
    // Two scrapes make one.
    wait_until(Duration::from_secs(20), "a rate", || {
        Ok(!prometheus
            .ask("rate(ipsec_xdp_packets_total[10s])")?
            .is_empty())
    })?;
    let mut series = 0;
    for expression in panels.iter().map(|(_, text, _)| text).chain(&rules) {
        for selector in selectors(expression) {
            series += 1;
            ensure!(
                !prometheus.ask(selector)?.is_empty(),
                "no data: {selector} of {expression}"
            );
        }
    }
    for (title, expression, legend) in &panels {
        let shown = prometheus.ask(expression).with_context(|| title.clone())?;
        let only_faults = expression.contains("== 1") || expression.contains("> 0");
        ensure!(only_faults || !shown.is_empty(), "{title} is empty");
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap_or_default();
            let named = shown.iter().all(|labels| labels[label].is_string());
            ensure!(named, "{title} has no {label}: {shown:?}");
        }
    }
    for expression in &rules {
        let found = prometheus.ask(expression)?;
        ensure!(found.is_empty(), "in health {expression} gives {found:?}");
    }
    lab.cluster.member_mut(3)?.kill();
    let prometheus = Server {
        node: &lab.network.host,
        promtool: promtool.display().to_string(),
    };
    for (alert, count) in [
        ("GatewayMemberSilent", 1),
        ("GatewaySyncDown", 2),
        ("GatewayMemberOutOfService", 1),
        ("GatewayNoMemberServes", 0),
    ] {
        prometheus.gives(&format!("ALERTS{{alertname=\"{alert}\"}}"), count)?;
    }
    Ok(format!(
        "{} panels, {} rules, {series} selectors with data; a death is told by three rules",
        panels.len(),
        rules.len()
    ))
}

/// Certificate and token; the members' tables.
fn credentials(folder: &Path) -> Result<String> {
    let authority = Authority::new("Lab CA")?;
    authority.equip(folder, &[("rest", &KeyPair::generate()?)])?;
    let token = folder.join("gateway.token");
    secret_file(&token, TOKEN)?;
    Ok(format!(
        "[rest]\nlisten = \"0.0.0.0:8443\"\ncertificate = \"{folder}/rest.pem\"\n\
         key = \"{folder}/rest.key\"\n[[rest.token]]\nname = \"prometheus\"\nrole = \"read\"\n\
         file = \"{folder}/gateway.token\"\n",
        folder = folder.display()
    ))
}

/// The shipped files, with the lab's addresses and folder and a shorter interval; the option that
/// names them.
fn configure(folder: &Path) -> Result<String> {
    let shipped = repository().join("deploy/prometheus");
    fs::copy(shipped.join("alerts.yml"), folder.join("alerts.yml"))?;
    let mut text = fs::read_to_string(shipped.join("prometheus.yml"))?;
    let path = |name: &str| folder.join(name).display().to_string();
    let ca = format!("{}\n      server_name: {GATEWAY_ID}", path("ca.pem"));
    let mut changes = vec![
        ("15s".to_owned(), "1s".to_owned()),
        (
            "/etc/prometheus/gateway.token".into(),
            path("gateway.token"),
        ),
        ("/etc/prometheus/gateway-ca.crt".into(), ca),
    ];
    for member in 1..=3 {
        changes.push((
            format!("10.99.0.{member}:"),
            format!("{}:", inside_address(member)),
        ));
    }
    for (from, to) in changes {
        ensure!(text.contains(&from), "prometheus.yml has no {from}");
        text = text.replace(&from, &to);
    }
    let file = folder.join("prometheus.yml");
    fs::write(&file, text)?;
    Ok(format!("--config.file={}", file.display()))
}

/// Title, expression and legend of what the dashboard shows.
fn panels() -> Result<Vec<(String, String, String)>> {
    let file = repository().join("deploy/grafana/gateway.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut expression = text(&target["expr"]);
            for (name, value) in VARIABLES {
                expression = expression.replace(name, value);
            }
            found.push((
                text(&panel["title"]),
                expression,
                text(&target["legendFormat"]),
            ));
        }
    }
    ensure!(found.len() >= 10, "{found:?}");
    Ok(found)
}

/// The rules' expressions.
fn rules() -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join("deploy/prometheus/alerts.yml"))?;
    let lines = text.lines().map(str::trim);
    let found: Vec<_> = lines
        .filter_map(|line| line.strip_prefix("expr: ").map(str::to_owned))
        .collect();
    ensure!(found.len() >= 9, "{found:?}");
    Ok(found)
}

/// The series that an expression asks for: names with their matchers.
fn selectors(expression: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("ipsec_").map(|(at, _)| at);
    starts
        .map(|at| {
            let text = &expression[at..];
            let name = text.find(|c| !part(c)).unwrap_or(text.len());
            let end = match text[name..].starts_with('{') {
                true => text.find('}').map_or(text.len(), |end| end + 1),
                false => name,
            };
            &text[..end]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_with_and_without_matchers() {
        let found = selectors("sum(rate(ipsec_a_total{b=~\"c|d\"}[5s])) / ipsec_e > 1");
        assert_eq!(found, ["ipsec_a_total{b=~\"c|d\"}", "ipsec_e"]);
        assert!(selectors("up == 0").is_empty());
    }
}
