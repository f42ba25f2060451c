//! `gatewayctl support-bundle`: what somebody who helps from afar has to see, without secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use gateway_user::api::catalogue::{PAGES, Page};
use gateway_user::api::model::{Log, Request};
use gateway_user::api::{self, render};
use gateway_user::config::redacted;
use serde_json::Value;

use crate::cli::Cli;

/// Files of the kernel's that explain much, and none of them a key.
const KERNEL_FILES: &[&str] = &[
    "/etc/os-release",
    "/proc/version",
    "/proc/cpuinfo",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/net/snmp",
    "/proc/net/softnet_stat",
    "/proc/net/xfrm_stat",
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
];
/// Commands that tell of the network and of BPF, with the names of their files. `ip xfrm state` is not among them: it prints keys.
const COMMANDS: &[(&str, &str, &[&str])] = &[
    ("uname", "uname", &["-a"]),
    ("links", "ip", &["-details", "-statistics", "link"]),
    ("addresses", "ip", &["address"]),
    ("rules", "ip", &["rule"]),
    ("routes", "ip", &["route", "show", "table", "all"]),
    ("routes6", "ip", &["-6", "route", "show", "table", "all"]),
    ("neighbours", "ip", &["neighbour"]),
    ("xfrm-policies", "ip", &["-statistics", "xfrm", "policy"]),
    ("xfrm-state-count", "ip", &["xfrm", "state", "count"]),
    ("tc-egress", "tc", &["filter", "show", "egress"]),
    // Not all of them: stable_secret is among them.
    ("sysctl", "sysctl", &["-a", "-r", SYSCTLS]),
    ("bpf-programs", "bpftool", &["prog", "show"]),
    ("bpf-maps", "bpftool", &["map", "show"]),
    ("bpf-net", "bpftool", &["net", "show"]),
    (
        "unit",
        "systemctl",
        &["--no-pager", "--lines=0", "status", "gatewayd"],
    ),
];
const SYSCTLS: &str = "^net[.]ipv[46][.](ip_forward|conf[.].*[.](forwarding|rp_filter|arp_ignore|\
                       arp_announce|accept_local|disable_policy|disable_xfrm|mtu|use_tempaddr))$";
/// A command that hangs must not hold up the rest; `timeout` is of coreutils.
const PATIENCE: &str = "10";

/// Writes `file` (mode 0600), a tar archive compressed by gzip.
pub(crate) fn write(cli: &Cli, file: &Path, config: &Path, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let options = if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let out = options
        .open(file)
        .with_context(|| format!("{} cannot be written (--force replaces it)", file.display()))?;
    let mut bundle = Bundle::new(out);
    pages(cli, &mut bundle)?;
    log(cli, &mut bundle)?;
    configuration(config, &mut bundle)?;
    host(&mut bundle)?;
    let missing = bundle.finish()?;
    println!("wrote {}", file.display());
    for what in missing {
        println!("not in it: {what}");
    }
    println!(
        "it holds no keys, but addresses, identities and names: read it before you pass it on"
    );
    Ok(())
}

/// All pages as text and as JSON; without an agent the reason in place of each.
fn pages(cli: &Cli, bundle: &mut Bundle) -> io::Result<()> {
    for page in PAGES {
        let answer = api::call::<Value>(&cli.socket, &page.request());
        let shown = answer
            .map_err(|error| error.to_string())
            .and_then(|answer| both(page, &answer));
        match shown {
            Ok((text, json)) => {
                bundle.add(&format!("pages/{}.txt", page.name), text.as_bytes())?;
                bundle.add(&format!("pages/{}.json", page.name), json.as_bytes())?;
            }
            Err(error) => bundle.lack(&format!("page {}", page.name), &error),
        }
    }
    Ok(())
}

fn both(page: &Page, answer: &Value) -> Result<(String, String), String> {
    let text = page.text(answer).map_err(|error| error.to_string())?;
    let json = serde_json::to_string_pretty(answer).map_err(|error| error.to_string())?;
    Ok((text, json))
}

fn log(cli: &Cli, bundle: &mut Bundle) -> io::Result<()> {
    let all = Request::Log {
        lines: usize::MAX,
        after: 0,
        connection: None,
    };
    match api::call::<Log>(&cli.socket, &all) {
        Ok(log) => {
            let text: String = log.lines.iter().map(render::log_line).collect();
            bundle.add("log.txt", text.as_bytes())
        }
        Err(error) => {
            bundle.lack("the log", &error.to_string());
            Ok(())
        }
    }
}

fn configuration(config: &Path, bundle: &mut Bundle) -> io::Result<()> {
    match std::fs::read_to_string(config) {
        Ok(text) => bundle.add("gateway.toml", redacted(&text).as_bytes()),
        Err(error) => {
            bundle.lack(&config.display().to_string(), &error.to_string());
            Ok(())
        }
    }
}

fn host(bundle: &mut Bundle) -> io::Result<()> {
    for path in KERNEL_FILES {
        match std::fs::read(path) {
            Ok(octets) => bundle.add(&format!("host{path}"), &octets)?,
            Err(error) => bundle.lack(path, &error.to_string()),
        }
    }
    for (name, program, args) in COMMANDS {
        let line = format!("{program} {}", args.join(" "));
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(program).args(*args);
        match command.output() {
            Ok(output) if output.status.code() == Some(127) => {
                bundle.lack(&line, "there is no such program here");
            }
            Ok(output) => {
                let mut text = format!("$ {line}\n").into_bytes();
                text.extend(&output.stdout);
                text.extend(&output.stderr);
                bundle.add(&format!("commands/{name}.txt"), &text)?;
            }
            Err(error) => bundle.lack(&line, &error.to_string()),
        }
    }
    Ok(())
}

/// The archive as far as it is written, and what could not be had.
struct Bundle {
    archive: tar::Builder<GzEncoder<BufWriter<File>>>,
    now: u64,
    missing: Vec<String>,
}

impl Bundle {
    fn new(out: File) -> Self {
        let compressed = GzEncoder::new(BufWriter::new(out), Compression::default());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            archive: tar::Builder::new(compressed),
            now: since_1970.as_ref().map_or(0, Duration::as_secs),
            missing: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(octets.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        let path = format!("gateway-support/{name}");
        self.archive.append_data(&mut header, path, octets)
    }

    fn lack(&mut self, what: &str, why: &str) {
        self.missing.push(format!("{what}: {why}"));
    }

    /// What is not in it stands in it, too.
    fn finish(mut self) -> io::Result<Vec<String>> {
        let mut text = self.missing.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        self.add("missing.txt", text.as_bytes())?;
        let compressed = self.archive.into_inner()?;
        let file = compressed.finish()?.into_inner()?;
        (&file).flush()?;
        file.sync_all()?;
        Ok(self.missing)
    }
}
