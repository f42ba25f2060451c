//! The Debian package in a clean Debian root: installed, started, upgraded, removed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Container, Plan, SHARED, command, secret};

/// The member whose host becomes a packaged one.
const PACKAGED: u8 = 1;
/// So many that the packaged member owns one of them: all would miss it once in 17,000 runs.
const SITES: u16 = 24;
const ALL: [u8; 3] = [1, 2, 3];
const DROP_IN: &str = "/etc/systemd/system/gatewayd.service.d";
const CONFIG: &str = "/etc/gateway/gateway.toml";

/// What is installed, and where.
pub struct Packages {
    /// A Debian root without the package; it is not changed.
    pub root: PathBuf,
    /// Folder of both packages.
    pub folder: PathBuf,
    /// File name of the first.
    pub old: String,
    /// File name of its upgrade.
    pub new: String,
}

/// One of three members runs as the package installs it. Its upgrade keeps all SAs, its removal
/// moves them and leaves nothing behind.
///
/// # Errors
/// Any of it did not happen.
pub fn package(context: &Context, packages: &Packages) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "package", &wishes)?;
    let container = replace(&mut lab, context, packages)?;
    let here = bring_up_until_packaged(&lab)?;
    let before = sas(&lab)?;
    let pid = main_pid(&container)?;
    let upgraded = container.must("dpkg", &["-i", &format!("{SHARED}/{}", packages.new)]);
    upgraded.with_context(|| journal(&container))?;
    ensure!(
        main_pid(&container)? != pid,
        "the upgrade restarted nothing"
    );
    lab.wait_serving(&ALL)?;
    same(&before, &sas(&lab)?).context("after the upgrade")?;
    remove(&lab, &container)?;
    same(&before, &sas(&lab)?).context("after the removal")?;
    Ok(format!(
        "{} SAs, {here} of them on the packaged member: none lost by its upgrade and its removal",
        before.len()
    ))
}

/// Ends the member's agent and starts the packaged one in its place.
fn replace(lab: &mut Lab, context: &Context, packages: &Packages) -> Result<Container> {
    let node = &lab.network.members[usize::from(PACKAGED) - 1];
    let member = lab.cluster.member_mut(PACKAGED)?;
    member.stop()?;
    let mut uninstall = node.enclosed(context.binaries.join("gatewayd"))?;
    uninstall.arg("--config").arg(member.config());
    ensure!(
        uninstall.arg("--uninstall").status()?.success(),
        "gatewayd --uninstall failed"
    );
    let container = Container::start(node, &packages.root, &packages.folder, "container.log")?;
    container.must("dpkg", &["-i", &format!("{SHARED}/{}", packages.old)])?;
    let active = container.run("systemctl", &["is-active", "gatewayd"])?;
    ensure!(
        active.trim() == "inactive",
        "without a configuration the agent is {active}"
    );
    shipped(&container)?;
    configure(&container, member.config())?;
    container.must("gatewayd", &["check-config"])?;
    credential(&container)?;
    let started = container.must("systemctl", &["enable", "--now", "gatewayd"]);
    started.with_context(|| journal(&container))?;
    member.answer_at(container.path("/run/gateway/gateway.sock"));
    lab.wait_serving(&ALL)?;
    Ok(container)
}

/// What an operator looks for first.
fn shipped(container: &Container) -> Result<()> {
    let examples = "/usr/share/doc/gateway/examples";
    for path in [
        "ha-witness/gw-a/etc/gateway/gateway.toml",
        "ha-keepalived/gw-a/etc/keepalived/keepalived.conf",
        "ecmp-bird/router/etc/bird/bird.conf",
        "authorize/gateway-authorize.socket",
        "ecmp-frr/router/etc/frr/frr.conf",
        "gateway.toml",
        "grafana/gateway.json",
        "prometheus/alerts.yml",
        "prometheus/prometheus.yml",
        "gateway.schema.json",
        "witness.schema.json",
    ] {
        container.must("test", &["-s", &format!("{examples}/{path}")])?;
    }
    for page in [
        "man5/gateway.toml.5",
        "man7/gateway-authorize.7",
        "man7/gateway-runbook.7",
        "man7/gateway-migration.7",
        "man7/gateway-security.7",
        "man8/gatewayd.8",
        "man8/gatewayctl.8",
        "man8/gatewayctl-explain.8",
    ] {
        container.must("test", &["-s", &format!("/usr/share/man/{page}.gz")])?;
    }
    Ok(())
}

/// The lab's file, with the places that the package's unit knows.
fn configure(container: &Container, lab_file: &Path) -> Result<()> {
    let text = fs::read_to_string(lab_file)?;
    let mut lines = text.lines();
    let ca = lines.find_map(|line| line.strip_prefix("ca = \"")?.strip_suffix("/ca.crt\""));
    let pki = Path::new(ca.context("no CA in the lab's file")?);
    let place = container.path("/etc/gateway/pki");
    fs::create_dir_all(&place)?;
    for file in ["ca.crt", "member.crt", "member.key"] {
        fs::copy(pki.join(file), place.join(file)).with_context(|| file.to_owned())?;
    }
    let text = text
        .replace(&pki.display().to_string(), "/etc/gateway/pki")
        .replace("\"/run/gateway/lib\"", "\"/var/lib/gateway\"");
    fs::write(container.path(CONFIG), text)?;
    container.must("chmod", &["-R", "go=", "/etc/gateway"])?;
    Ok(())
}

/// The first site's secret becomes a credential of systemd, which the unit alone can read.
fn credential(container: &Container) -> Result<()> {
    let file = container.path(CONFIG);
    let text = fs::read_to_string(&file)?;
    let inline = format!("secret = \"{}\"", secret(0));
    ensure!(text.contains(&inline), "the lab's file has no such secret");
    let named = text.replacen(&inline, "secret_file = \"credential:site-1\"", 1);
    fs::write(&file, named)?;
    let place = container.path("/etc/gateway/site-1.psk");
    fs::write(&place, secret(0))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600))?;
    let unit = container.path(DROP_IN);
    fs::create_dir_all(&unit)?;
    let lines = "[Service]\nLoadCredential=site-1:/etc/gateway/site-1.psk\n";
    fs::write(unit.join("credential.conf"), lines)?;
    container.must("systemctl", &["daemon-reload"])?;
    let outside = container.run("gatewayd", &["check-config"])?;
    ensure!(
        outside.contains("LoadCredential=site-1"),
        "the credential is the unit's alone, but outside of it: {outside}"
    );
    Ok(())
}

/// Initiates sites until one is owned by the packaged member, at least three; how many it owns.
fn bring_up_until_packaged(lab: &Lab) -> Result<usize> {
    let mut here = 0;
    for site in 0..SITES {
        let (owner, _) = lab.bring_up(site)?;
        here += usize::from(owner == PACKAGED);
        if here > 0 && site >= 2 {
            return Ok(here);
        }
    }
    anyhow::bail!("none of {SITES} sites has the packaged member as owner")
}

/// Our SPI of each site's IKE SA.
fn sas(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for member in &lab.cluster.members {
        // A removed one says nothing; the SAs that it had are missed by the caller.
        let Ok(sas) = member.ask("sas") else { continue };
        for sa in sas["ike_sas"].as_array().into_iter().flatten() {
            found.insert(text(&sa["remote_id"]), text(&sa["local_spi"]));
        }
    }
    Ok(found)
}

fn same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Result<()> {
    ensure!(before == after, "SAs were {before:?} and are {after:?}");
    Ok(())
}

/// What the unit and the kernel said last, for an error.
fn journal(container: &Container) -> String {
    let said = container.run("journalctl", &["--no-pager", "-n", "60", "-o", "cat"]);
    said.unwrap_or_else(|error| format!("no journal: {error:#}"))
}

fn main_pid(container: &Container) -> Result<String> {
    container.must("systemctl", &["show", "-p", "MainPID", "gatewayd"])
}

fn remove(lab: &Lab, container: &Container) -> Result<()> {
    container.must("dpkg", &["-r", "gateway"])?;
    lab.wait_serving(&ALL[1..])?;
    let namespace = lab.network.members[usize::from(PACKAGED) - 1].namespace();
    let links = command("ip", &["-n", namespace, "-d", "link"])?;
    ensure!(!links.contains("prog/xdp"), "programs stay behind: {links}");
    let pins = container.must(
        "find",
        &["/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"],
    )?;
    ensure!(pins.trim().is_empty(), "pins stay behind: {pins}");
    container.must("test", &["-e", CONFIG])?;
    container.must("dpkg", &["--purge", "gateway"])?;
    // The operator's own.
    container.must("rm", &["-r", DROP_IN])?;
    nothing_left(container)
}

/// Of a purged package nothing stays but what the operator put into /etc/gateway.
fn nothing_left(container: &Container) -> Result<()> {
    let mut args = vec!["/usr", "/var/lib", "/run", "/etc"];
    args.extend(["-iname", "*gateway*", "-not", "-path", "/etc/gateway*"]);
    let found = container.run("find", &args)?;
    // systemd's own files for the gateway that DHCP tells.
    let left: Vec<&str> = found
        .lines()
        .filter(|line| !line.contains("/lib/systemd/"))
        .collect();
    ensure!(left.is_empty(), "a purge leaves {left:?}");
    Ok(())
}
