//! The web page in a browser, judged by what it says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Browser, Forwarder, Plan, Rest, Skipped, wait_until};

/// Answers to `/api/v1/sas` get a peer that calls itself this, as the page's own `fetch` gives them.
const HOSTILE: &str = r#"(() => {
  const real = window.fetch;
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    if (!String(path).startsWith("/api/v1/sas")) return answer;
    const page = await answer.json();
    for (const sa of page.ike_sas) sa.remote_id = HOSTILE;
    return new Response(JSON.stringify(page), { headers: { "content-type": "application/json" } });
  };
})()"#;
const IDENTITY: &str = "<img src=x onerror=\"window.taken=1\"><script>window.taken=1</script>";

struct Bench {
    lab: Lab,
    browser: Browser,
    forwarder: Forwarder,
}

impl Bench {
    /// Waits until an element of the page says all of this.
    fn says(&mut self, selector: &str, wanted: &[&str]) -> Result<String> {
        let mut last = String::new();
        let waited = wait_until(Duration::from_secs(20), &wanted.join(", "), || {
            last = self.browser.text(selector)?;
            Ok(wanted.iter().all(|text| last.contains(text)))
        });
        waited.with_context(|| format!("{selector} says {last:?}"))?;
        Ok(last)
    }
}

/// Members, slots and a tunnel; a peer with a hostile name; another member's agent is killed, then
/// that of the member that is looked at, which comes back.
pub(super) fn page(context: &Context) -> Result<String> {
    if !Browser::is_installed() {
        let why = "there is no chromium (apt-get install chromium)";
        return Err(Skipped(why.into()).into());
    }
    let wishes = Wishes {
        plan: Plan {
            sites: 1,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "web", &wishes)?;
    lab.bring_up(0)?;
    let run_dir = lab.network.members[0].run_dir();
    let forwarder = Forwarder::new(Rest::new(run_dir).socket())?;
    let folder = context.logs.join("web-browser");
    let browser = Browser::open(&folder, &forwarder.url())?;
    let mut bench = Bench {
        lab,
        browser,
        forwarder,
    };
    healthy(&mut bench)?;
    hostile(&mut bench)?;
    let gap = failover(&mut bench)?;
    bench.browser.evaluate("scrollTo(0, 0)")?;
    bench.browser.screenshot(&context.logs.join("web.png"))?;
    silent(&mut bench)?;
    Ok(format!("the page told of a failover: {gap}"))
}

fn healthy(bench: &mut Bench) -> Result<()> {
    bench.says("#summary", &["ACTIVE", "of 256 slots"])?;
    let members = bench.says("#members", &["in sync"])?;
    ensure!(members.matches("ACTIVE").count() == 3, "{members}");
    bench.says("#tunnels", &["site-1"])?;
    let count = "document.querySelectorAll('#slot-picture .slot').length";
    ensure!(bench.browser.evaluate(count)? == 256, "slots");
    let owners = bench.says("#slot-legend", &["owns"])?;
    ensure!(owners.matches("owns").count() == 3, "{owners}");
    bench.says("#rates", &["Redirected to other members"])?;
    bench.says("#pnotes", &["ok"])?;
    // Another connection has no tunnel.
    let search = |field: &str, text: &str| {
        format!(
            "document.getElementById('search-field').value = '{field}';
             document.getElementById('search-text').value = '{text}';
             document.getElementById('search').requestSubmit()"
        )
    };
    bench.browser.evaluate(&search("connection", "nobody"))?;
    bench.says("#tunnels", &["No tunnel"])?;
    bench.browser.evaluate(&search("remote_id", "site-1"))?;
    bench.says("#tunnels tbody", &["site-1"])?;
    Ok(())
}

/// What a peer calls itself is shown as it is, and nothing else comes of it.
fn hostile(bench: &mut Bench) -> Result<()> {
    let name = serde_json::to_string(IDENTITY)?;
    let script = HOSTILE.replace("HOSTILE", &name);
    bench.browser.evaluate(&script)?;
    bench.says("#tunnels", &[IDENTITY])?;
    let made = "document.querySelectorAll('main img, main script').length + (window.taken ?? 0)";
    ensure!(
        bench.browser.evaluate(made)? == 0,
        "a peer's identity became markup"
    );
    // The policy refuses what the scripts do not do in the first place.
    let refused = "(() => { try { document.getElementById('news').innerHTML = '<b>x</b>'; \
                   return false; } catch { return true; } })()";
    ensure!(
        bench.browser.evaluate(refused)? == true,
        "markup from text is possible"
    );
    bench.browser.navigate(&bench.forwarder.url())?;
    bench.says("#tunnels tbody", &["site-1"])?;
    Ok(())
}

/// The page says of a failover what `gatewayctl failover-history` says.
fn failover(bench: &mut Bench) -> Result<String> {
    let victim = 3;
    bench.lab.cluster.member_mut(victim)?.kill();
    let news = bench.says("#news", &["member lost"])?;
    let owners = bench.says("#slot-legend", &["owns 128"])?;
    ensure!(owners.matches("owns").count() == 2, "{owners}");
    let mut told = String::new();
    wait_until(Duration::from_secs(10), "the failover's reason", || {
        told = history_line(bench)?;
        Ok(told.contains(": member lost: member 3 is LOST: "))
    })?;
    bench.says("#history", &["failover", &told])?;
    bench.says("#members", &["LOST", "not connected"])?;
    let told = news.lines().find(|line| line.contains("member lost"));
    Ok(told.unwrap_or_default().trim().to_owned())
}

/// The last failover as `gatewayctl failover-history` shows it: transition and reason.
fn history_line(bench: &Bench) -> Result<String> {
    let output = bench.lab.cluster.members[0].gatewayctl(&["failover-history"])?;
    let shown = String::from_utf8(output.stdout)?;
    let fact = |label: &str| {
        let mut lines = shown.lines().map(str::trim);
        let value = lines.find_map(|line| line.strip_prefix(label));
        let value = value.with_context(|| format!("no {label} in {shown}"));
        value.map(|text| text.trim().to_owned())
    };
    Ok(format!("{}: {}", fact("Transition:")?, fact("Reason:")?))
}

/// The member that is looked at goes away, and the page says so until it is back.
fn silent(bench: &mut Bench) -> Result<()> {
    bench.lab.cluster.member_mut(1)?.kill();
    bench.says("#stale", &["Stale since", "does not answer"])?;
    let nodes = &bench.lab.network.members;
    bench.lab.cluster.members[0].restart(&nodes[0])?;
    let gone = "document.getElementById('stale').hidden";
    wait_until(Duration::from_secs(20), "the page to be up to date", || {
        Ok(bench.browser.evaluate(gone)? == true)
    })?;
    // And it listens again.
    bench.lab.cluster.members[2].restart(&nodes[2])?;
    bench.says("#news", &["sync channel up"])?;
    Ok(())
}
