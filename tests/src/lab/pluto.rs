//! A stock libreswan: pluto in a node, driven with whack.
//!
//! Debian's package conflicts with strongSwan's, so it is not installed but unpacked
//! (`cargo xtask setup`), and only pluto's own mount namespace sees it under `/usr/libexec`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::authority::secret_file;
use super::limit;
use super::node::{Node, Process, tail};
use super::wait::{patience, wait_until};

/// One `conn` of an ipsec.conf.
#[derive(Debug, Clone)]
pub struct PlutoConnection {
    /// Its name.
    pub name: String,
    /// What stands in it, as (keyword, value).
    pub settings: Vec<(&'static str, String)>,
}

/// A certificate of pluto's own, both parts as PEM.
#[derive(Debug, Clone)]
pub struct PlutoIdentity {
    /// What `leftcert` calls it.
    pub name: String,
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What pluto is started with.
#[derive(Debug, Clone, Default)]
pub struct PlutoSettings {
    /// The connections of its ipsec.conf.
    pub connections: Vec<PlutoConnection>,
    /// Lines of its ipsec.secrets.
    pub secrets: String,
    /// The authority that it trusts, as PEM; empty: none.
    pub authority: String,
    /// Its own certificates.
    pub identities: Vec<PlutoIdentity>,
}

/// A running pluto. Dropping it kills it.
#[derive(Debug)]
pub struct Pluto {
    process: Process,
    programs: PathBuf,
    run_dir: PathBuf,
    log: PathBuf,
}

/// What whack exits with when an exchange has come to its good end, and when it was only begun.
const SUCCESS: i32 = 0;

impl Pluto {
    /// Where the unpacked package lies.
    pub fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/libreswan")
    }

    /// Starts pluto in `node` and waits until it listens.
    ///
    /// # Errors
    /// It is not there or does not come up.
    pub fn start(node: &Node, settings: &PlutoSettings) -> Result<Self> {
        let connections = settings.connections.as_slice();
        let folder = node.log("pluto.d");
        fs::create_dir_all(folder.join("ipsec.d"))?;
        let log = node.log("pluto.log");
        let programs = Self::root().join("usr/libexec");
        if !programs.join("ipsec/pluto").exists() {
            bail!(
                "libreswan is not unpacked at {}: cargo xtask setup",
                programs.display()
            );
        }
        fs::write(folder.join("ipsec.conf"), conf(&folder, &log, connections))?;
        let file = folder.join("ipsec.secrets");
        secret_file(&file, &settings.secrets)?;
        make_database(&folder, settings)?;
        let mut command =
            node.with_binds("/usr/libexec/ipsec/pluto", &[(&programs, "/usr/libexec")])?;
        command
            .arg("--nofork")
            .arg("--config")
            .arg(folder.join("ipsec.conf"));
        command
            .args(["--rundir", "/run"])
            .arg("--nssdir")
            .arg(folder.join("nss"));
        let process = node.spawn(command, "pluto.out")?;
        let mut pluto = Self {
            process,
            programs,
            run_dir: node.run_dir().to_owned(),
            log,
        };
        // pluto starts a program of its own that loads the connections of the file.
        let loaded = |name: &str| format!("\"{name}\": added IKEv2 connection");
        wait_until(Duration::from_secs(30), "pluto to listen", || {
            pluto.process.check_alive()?;
            let log = pluto.log();
            let all = connections.iter().all(|c| log.contains(&loaded(&c.name)));
            Ok(all && log.contains("listening for IKE messages"))
        })
        .with_context(|| tail(&pluto.log(), 15))?;
        Ok(pluto)
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join("pluto.ctl")
    }

    /// Runs whack and returns what it printed.
    ///
    /// # Errors
    /// It says that something failed.
    pub fn whack(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join("ipsec/whack"));
        command.arg("--ctlsocket").arg(self.socket()).args(args);
        let (code, text) = printed(&mut command)?;
        if code == SUCCESS {
            Ok(text)
        } else {
            bail!(
                "whack {} ended with {code}:\n{}",
                args.join(" "),
                tail(&text, 8)
            )
        }
    }

    /// Initiates a connection and waits until its CHILD_SA is up.
    ///
    /// # Errors
    /// It does not come up within `limit` (times patience).
    pub fn initiate(&self, name: &str, limit: Duration) -> Result<()> {
        self.whack(&["--name", name, "--initiate", "--asynchronous"])?;
        self.wait_up(name, limit)
    }

    /// Waits until a connection has a CHILD_SA, whoever began.
    ///
    /// # Errors
    /// It has none within `limit` (times patience); the error quotes pluto's log.
    pub fn wait_up(&self, name: &str, limit: Duration) -> Result<()> {
        let what = format!("libreswan's connection {name} to be up");
        wait_until(limit, &what, || Ok(self.children(name)? > 0))
            .with_context(|| tail(&self.log(), 20))
    }

    /// CHILD_SAs of a connection that carry traffic.
    ///
    /// # Errors
    /// whack fails.
    pub fn children(&self, name: &str) -> Result<usize> {
        let text = self.whack(&["--trafficstatus"])?;
        let quoted = format!("\"{name}\"");
        let line = |line: &&str| line.contains(&quoted) && line.contains("type=ESP");
        Ok(text.lines().filter(line).count())
    }

    /// IKE SAs of a connection that are established.
    ///
    /// # Errors
    /// whack fails.
    pub fn ike_sas(&self, name: &str) -> Result<usize> {
        let text = self.whack(&["--showstates"])?;
        let quoted = format!("\"{name}\"");
        let line = |line: &&str| line.contains(&quoted) && line.contains("ESTABLISHED_IKE_SA");
        Ok(text.lines().filter(line).count())
    }

    /// Messages that pluto has sent again.
    pub fn retransmissions(&self) -> usize {
        self.log().matches("retransmission; will wait").count()
    }

    /// pluto's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Name and version, as in `Libreswan 4.10`.
    pub fn version(&self) -> String {
        let log = self.log();
        let version = log.split("Libreswan Version ").nth(1);
        let number = version.and_then(|rest| rest.split_whitespace().next());
        format!("Libreswan {}", number.unwrap_or("of unknown version"))
    }
}

fn printed(command: &mut Command) -> Result<(i32, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = limit::output(command.stdin(std::process::Stdio::null()))
        .with_context(|| program.clone())?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.code().unwrap_or(-1), text))
}

/// pluto keeps its certificates in a database that has to exist.
fn make_database(folder: &Path, settings: &PlutoSettings) -> Result<()> {
    let nss = folder.join("nss");
    fs::create_dir_all(&nss)?;
    let database = format!("sql:{}", nss.display());
    tool("certutil", &["-N", "--empty-password", "-d", &database])?;
    let file = |name: &str| folder.join(name).display().to_string();
    if !settings.authority.is_empty() {
        let ca = file("ca.pem");
        fs::write(&ca, &settings.authority)?;
        let trusted = ["-A", "-n", "ca", "-t", "CT,,", "-a", "-i", &ca];
        tool(
            "certutil",
            &[trusted.as_slice(), &["-d", &database]].concat(),
        )?;
    }
    for identity in &settings.identities {
        let (certificate, key) = (file("own.pem"), file("own.key"));
        let bundle = file(&format!("{}.p12", identity.name));
        fs::write(&certificate, &identity.certificate)?;
        secret_file(key.as_ref(), &identity.key)?;
        let pack = [
            "pkcs12",
            "-export",
            "-passout",
            "pass:",
            "-name",
            &identity.name,
        ];
        let parts = ["-in", &certificate, "-inkey", &key, "-out", &bundle];
        tool("openssl", &[pack, parts].concat())?;
        tool("pk12util", &["-i", &bundle, "-W", "", "-d", &database])?;
    }
    Ok(())
}

fn tool(program: &str, args: &[&str]) -> Result<()> {
    let (code, text) = printed(Command::new(program).args(args))?;
    if code != SUCCESS {
        bail!("{program} {} failed ({code}): {text}", args[0]);
    }
    Ok(())
}

fn conf(folder: &Path, log: &Path, connections: &[PlutoConnection]) -> String {
    let mut text = format!(
        "config setup\n    nssdir={dir}/nss\n    ipsecdir={dir}/ipsec.d\n    secretsfile={dir}/ipsec.secrets\n    \
         logfile={log}\n    logtime=no\n    dnssec-enable=no\n    uniqueids=no\n\n",
        dir = folder.display(),
        log = log.display(),
    );
    let timeout = 4000 * patience();
    for connection in connections {
        let _ = write!(
            text,
            "conn {}\n    ikev2=insist\n    auto=add\n    retransmit-interval={timeout}\n",
            connection.name
        );
        for (keyword, value) in &connection.settings {
            let _ = writeln!(text, "    {keyword}={value}");
        }
        text.push('\n');
    }
    text
}
