//! A stock strongSwan: charon in a node, driven with swanctl.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::limit;
use super::node::{Node, Process, tail};
use super::wait::{patience, wait_until};

/// Who does ESP for charon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Esp {
    /// The kernel.
    Kernel,
    /// strongSwan's libipsec over a TUN device, always UDP-encapsulated: for kernels without ESP.
    Userspace,
}

/// One connection of a swanctl.conf.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name; the child is called `net`.
    pub name: String,
    /// Our outer address.
    pub local: IpAddr,
    /// The gateway's outer address, or `%any`.
    pub remote: String,
    /// IKE proposal.
    pub proposal: String,
    /// ESP proposal.
    pub esp_proposal: String,
    /// Our identity.
    pub local_id: String,
    /// The other's identity.
    pub remote_id: String,
    /// Networks on our side.
    pub local_ts: String,
    /// Networks on the other side.
    pub remote_ts: String,
    /// Pre-shared key, in swanctl's notation.
    pub secret: String,
    /// A certificate in the folder `x509`: both sides then authenticate by signature, not by
    /// `secret`.
    pub certificate: Option<String>,
    /// A post-quantum key that has to be mixed in.
    pub ppk: Option<Ppk>,
    /// Whether to announce MOBIKE, which moves to port 4500 at once.
    pub mobike: bool,
    /// Seconds of silence after which the gateway is asked whether it lives; if it does not
    /// answer, everything begins anew. `None` is charon's default: it is never asked.
    pub liveness: Option<u32>,
    /// More lines of the connection.
    pub lines: String,
}

/// A post-quantum pre-shared key (RFC 8784).
#[derive(Debug, Clone)]
pub struct Ppk {
    /// Its name.
    pub id: String,
    /// The key, in swanctl's notation.
    pub key: String,
}

/// How charon is started.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Who does ESP.
    pub esp: Esp,
    /// Seconds before the first retransmission, before patience is applied.
    pub retransmit_timeout: f64,
    /// How many times a request is sent again.
    pub retransmit_tries: u32,
    /// Milliseconds for which every received packet is held back, as a longer path would.
    pub receive_delay: u32,
    /// Largest IP datagram of an IKE message before it is sent in fragments; 0 is charon's default.
    pub fragment_size: u32,
    /// Set up for thousands of peers: hashed tables, 16 threads, no limits on half-open IKE SAs, and
    /// a log of one line per IKE SA.
    pub crowded: bool,
}

impl Settings {
    /// charon's defaults.
    pub fn new(esp: Esp) -> Self {
        Self {
            esp,
            retransmit_timeout: 4.0,
            retransmit_tries: 5,
            receive_delay: 0,
            fragment_size: 0,
            crowded: false,
        }
    }
}

/// A running charon. Dropping it kills it.
#[derive(Debug)]
pub struct Charon {
    process: Process,
    folder: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

/// What the manual advises for many peers ("IKE_SA Lookup Tuning"), and no limits on who comes.
const CROWD: &str = "threads = 16\n  ikesa_table_size = 4096\n  ikesa_table_segments = 16\n  \
                     dos_protection = no\n  init_limit_half_open = 0\n  init_limit_job_load = 0";

/// Where Debian has the daemon.
const DAEMON: &str = "/usr/lib/ipsec/charon";

impl Charon {
    /// Starts charon in `node` and waits for its VICI socket.
    ///
    /// # Errors
    /// It is not installed or does not come up.
    pub fn start(node: &Node, settings: Settings) -> Result<Self> {
        let folder = Self::folder(node);
        fs::create_dir_all(&folder)?;
        let log = node.log("charon.log");
        fs::write(
            folder.join("strongswan.conf"),
            daemon_settings(settings, &log),
        )?;
        let program = unconfined_copy(&folder)?;
        let mut command = node.enclosed(&program)?;
        command.env("STRONGSWAN_CONF", folder.join("strongswan.conf"));
        let process = node.spawn(command, "charon.out")?;
        let socket = node.run_dir().join("charon.vici");
        let mut charon = Self {
            process,
            folder,
            socket,
            log,
        };
        wait_until(Duration::from_secs(15), "charon's VICI socket", || {
            charon.process.check_alive()?;
            Ok(std::os::unix::net::UnixStream::connect(&charon.socket).is_ok())
        })?;
        Ok(charon)
    }

    /// Where swanctl looks for certificates and keys, in `x509`, `x509ca` and `private`.
    pub fn folder(node: &Node) -> PathBuf {
        node.log("charon.d")
    }

    /// Its VICI socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Loads the connections and their secrets, replacing earlier ones.
    ///
    /// # Errors
    /// swanctl refuses them.
    pub fn load(&self, connections: &[Connection]) -> Result<()> {
        let file = self.folder.join("swanctl.conf");
        fs::write(&file, swanctl_conf(connections))?;
        self.swanctl(&["--load-all", "--clear", "--file", &file.to_string_lossy()])?;
        Ok(())
    }

    /// Loads `swanctl.conf` of a folder, with the certificates and keys in its sub-folders `x509`,
    /// `x509ca` and `private`.
    ///
    /// # Errors
    /// swanctl refuses them.
    pub fn load_folder(&self, folder: &Path) -> Result<()> {
        let mut command = self.swanctl_command(&["--load-all", "--clear"]);
        let output = limit::output(command.env("SWANCTL_DIR", folder))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "swanctl --load-all failed:\n{}",
                tail(&(text + &errors), 12)
            );
        }
        Ok(())
    }

    /// Runs swanctl against this charon.
    ///
    /// # Errors
    /// It fails; the error carries what it printed.
    pub fn swanctl(&self, args: &[&str]) -> Result<String> {
        let output = limit::output(&mut self.swanctl_command(args)).context("swanctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "swanctl {} failed:\n{}",
                args.join(" "),
                tail(&(text + &errors), 12)
            );
        }
        Ok(text)
    }

    fn swanctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("swanctl"));
        // The socket's name goes last: swanctl's sub-command has to come first.
        command
            .args(args)
            .arg("--uri")
            .arg(format!("unix://{}", self.socket.display()));
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"));
        command.env("SWANCTL_DIR", &self.folder);
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Initiates the child `net` of a connection and waits until it is up.
    ///
    /// # Errors
    /// It does not come up within `limit` seconds (times patience).
    pub fn initiate(&self, connection: &str, limit: u32) -> Result<String> {
        let limit = (limit * patience()).to_string();
        let args = [
            "--initiate",
            "--child",
            "net",
            "--ike",
            connection,
            "--timeout",
            &limit,
        ];
        self.swanctl(&args)
    }

    /// Initiates many connections, `workers` at a time. Returns the ones that failed and why.
    pub fn initiate_all(&self, names: &[String], workers: usize, limit: u32) -> Vec<String> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let failed = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(name) =
                        names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        if let Err(error) = self.initiate(name, limit)
                            && let Ok(mut failed) = failed.lock()
                        {
                            failed.push(format!("{name}: {error}"));
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_default()
    }

    /// Number of IKE SAs that are established.
    ///
    /// # Errors
    /// swanctl fails.
    pub fn established(&self) -> Result<usize> {
        let text = self.swanctl(&["--list-sas"])?;
        Ok(text
            .lines()
            .filter(|line| line.contains(", ESTABLISHED, IKEv2"))
            .count())
    }

    /// Number of CHILD SAs that are installed.
    ///
    /// # Errors
    /// swanctl fails.
    pub fn installed(&self) -> Result<usize> {
        let text = self.swanctl(&["--list-sas"])?;
        Ok(text
            .lines()
            .filter(|line| line.contains(", INSTALLED, TUNNEL"))
            .count())
    }

    /// charon's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How many retransmissions charon has sent.
    pub fn retransmissions(&self) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains("] retransmit "))
            .count()
    }

    /// How many CHILD SAs took the place of another by a rekeying that charon began.
    pub fn rekeyed_children(&self) -> usize {
        let log = self.log();
        let rekeyed = log
            .lines()
            .filter(|line| line.contains("outbound CHILD_SA") && line.contains("established"));
        rekeyed.count()
    }

    /// Requests that charon has generated, retransmissions not counted, all exchanges.
    pub fn requests_sent(&self) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains("] generating ") && is_request(line))
            .count()
    }

    /// Name and version, as in `strongSwan 5.9.8`.
    ///
    /// # Errors
    /// swanctl fails.
    pub fn version(&self) -> Result<String> {
        let text = self.swanctl(&["--version"])?;
        let word = text.split_whitespace().find(|word| {
            word.chars().next().is_some_and(|c| c.is_ascii_digit()) && word.contains('.')
        });
        let version = word.with_context(|| format!("no version in {text:?}"))?;
        Ok(format!("strongSwan {}", version.trim_end_matches(',')))
    }

    /// The process, to stop or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn is_request(line: &str) -> bool {
    // A message in fragments is named once as a whole, and then piece by piece.
    line.contains(" request ") && !line.contains(" [ EF(")
}

/// Copies of the programs outside the paths that Debian's AppArmor profiles name: confined to
/// /etc and /run, they could not read the lab's configuration.
fn unconfined_copy(folder: &Path) -> Result<PathBuf> {
    let swanctl = ["/usr/sbin/swanctl", "/usr/bin/swanctl"];
    let found = swanctl.iter().find(|path| Path::new(path).exists());
    let found = found.context("swanctl is missing: cargo xtask setup")?;
    fs::copy(found, folder.join("swanctl"))?;
    let program = folder.join("charon");
    fs::copy(DAEMON, &program)
        .with_context(|| format!("{DAEMON} is missing: cargo xtask setup"))?;
    Ok(program)
}

fn daemon_settings(settings: Settings, log: &Path) -> String {
    let kernel = match settings.esp {
        Esp::Kernel => "kernel-netlink",
        Esp::Userspace => "kernel-libipsec kernel-netlink",
    };
    // With kernel ESP the lab's routes lead the right way; libipsec needs its own into the TUN.
    let routes = if settings.esp == Esp::Kernel {
        "no"
    } else {
        "yes"
    };
    let timeout = settings.retransmit_timeout * f64::from(patience());
    format!(
        "charon {{\n  load = random nonce drbg aes sha1 sha2 hmac kdf gcm curve25519 openssl pem x509 \
         pubkey pkcs1 pkcs8 {kernel} socket-default counters vici updown\n  install_routes = {routes}\n  \
         {fragments}retransmit_timeout = {timeout}\n  retransmit_tries = {tries}\n  receive_delay = {delay}\n  {crowd}\n  \
         retry_initiate_interval = 0\n  \
         plugins {{\n    vici {{ socket = unix:///run/charon.vici }}\n  }}\n  filelog {{\n    lab {{\n      \
         path = {log}\n      default = {level}\n      time_format = %H:%M:%S\n      flush_line = {flush}\n    }}\n  }}\n}}\n\
         swanctl {{\n  load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey\n}}\n",
        level = i32::from(!settings.crowded),
        flush = if settings.crowded { "no" } else { "yes" },
        crowd = if settings.crowded {
            CROWD
        } else {
            "threads = 64"
        },
        tries = settings.retransmit_tries,
        delay = settings.receive_delay,
        fragments = match settings.fragment_size {
            0 => String::new(),
            size => format!("fragment_size = {size}\n  "),
        },
        log = log.display(),
    )
}

fn swanctl_conf(connections: &[Connection]) -> String {
    let mut text = String::from("connections {\n");
    for c in connections {
        let (delay, action) = c.liveness.map_or(Default::default(), |seconds| {
            let delay = format!("    dpd_delay = {seconds}s\n");
            (
                delay,
                "      dpd_action = restart\n      start_action = none\n",
            )
        });
        let (auth, certificate) = match &c.certificate {
            Some(file) => ("pubkey", format!("certs = {file}\n ")),
            None => ("psk", String::new()),
        };
        let ppk = c.ppk.as_ref().map_or(String::new(), |ppk| {
            format!("    ppk_id = {}\n    ppk_required = yes\n", ppk.id)
        });
        let _ = write!(
            text,
            "  {name} {{\n    version = 2\n{delay}{ppk}    local_addrs = {local}\n    remote_addrs = {remote}\n    \
             proposals = {proposal}\n    {lines}\n    mobike = {mobike}\n    \
             local {{ auth = {auth}\n {certificate}id = {local_id} }}\n    \
             remote {{ auth = {auth}\n id = {remote_id} }}\n    children {{ net {{\n      local_ts = {local_ts}\n      \
             remote_ts = {remote_ts}\n      esp_proposals = {esp}\n{action}    }} }}\n  }}\n",
            name = c.name,
            local = c.local,
            remote = c.remote,
            proposal = c.proposal,
            lines = c.lines,
            mobike = if c.mobike { "yes" } else { "no" },
            local_id = c.local_id,
            remote_id = c.remote_id,
            local_ts = c.local_ts,
            remote_ts = c.remote_ts,
            esp = c.esp_proposal,
        );
    }
    text.push_str("}\nsecrets {\n");
    for c in connections {
        let _ = writeln!(
            text,
            "  ike-{name} {{\n    id-1 = {}\n    id-2 = {}\n    secret = \"{}\"\n  }}",
            c.local_id,
            c.remote_id,
            c.secret,
            name = c.name,
        );
        if let Some(Ppk { id, key }) = &c.ppk {
            let _ = writeln!(
                text,
                "  ppk-{name} {{\n    id = {id}\n    secret = {key}\n  }}",
                name = c.name
            );
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_told_apart() {
        assert!(is_request(
            "13[ENC] generating IKE_AUTH request 1 [ IDi SA ]"
        ));
        assert!(!is_request(
            "13[ENC] generating INFORMATIONAL response 0 [ ]"
        ));
    }
}
