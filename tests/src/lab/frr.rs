//! FRR on a host of an example, started as Debian's package starts it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::example::{ExampleHost, UNPACKED, repository};
use super::node::{Node, Process};
use super::wait::wait_until;

/// Programs that the examples use.
pub const FRR: [&str; 4] = ["zebra", "bfdd", "bgpd", "vtysh"];

/// The package's accounts: (file, account, line).
const ACCOUNTS: [(&str, &str, &str); 3] = [
    (
        "passwd",
        "frr",
        "frr:x:65500:65500::/nonexistent:/usr/sbin/nologin",
    ),
    ("group", "frr", "frr:x:65500:"),
    ("group", "frrvty", "frrvty:x:65501:frr"),
];

/// Starts the daemons, and has `vtysh` load the integrated configuration, as `frrinit.sh` does.
///
/// # Errors
/// A daemon does not come up, or the configuration is refused.
pub fn start(host: &ExampleHost, node: &Node) -> Result<Vec<Process>> {
    install(host, node)?;
    let mut daemons = Vec::new();
    for daemon in &FRR[..3] {
        let line = format!("/usr/sbin/{daemon} -A 127.0.0.1");
        daemons.push(host.spawn(node, &line, &format!("{daemon}.log"))?);
        let socket = node.run_dir().join(format!("frr/{daemon}.vty"));
        wait_until(Duration::from_secs(10), daemon, || {
            daemons.iter_mut().try_for_each(Process::check_alive)?;
            Ok(socket.exists())
        })?;
    }
    host.run(node, "/usr/sbin/vtysh -b")?;
    Ok(daemons)
}

/// What the package's scripts do: accounts, and folders with their owners.
fn install(host: &ExampleHost, node: &Node) -> Result<()> {
    for (file, account, line) in ACCOUNTS {
        let staged = host.file("etc").join(file);
        if !staged.exists() {
            fs::copy(Path::new("/etc").join(file), &staged)?;
        }
        let text = fs::read_to_string(&staged)?;
        if !text
            .lines()
            .any(|known| known.split(':').next() == Some(account))
        {
            fs::write(&staged, format!("{text}{line}\n"))?;
        }
    }
    let pam = repository().join(UNPACKED).join("etc/pam.d/frr");
    if pam.exists() {
        fs::create_dir_all(host.file("etc/pam.d"))?;
        fs::copy(pam, host.file("etc/pam.d/frr"))?;
    }
    let text = fs::read_to_string(host.file("etc/passwd"))?;
    let owner = text.lines().find_map(|line| line.strip_prefix("frr:"));
    let owner = owner.and_then(|line| line.split(':').nth(1)?.parse().ok());
    let folder = node.run_dir().join("frr");
    fs::create_dir_all(&folder)?;
    chown(folder, Some(owner.context("no number of frr")?), None)?;
    Ok(())
}
