//! A member's VICI socket: stock swanctl, and a listener for events.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gateway_vici::{Packet, Section, packet_length};

use super::wait::patience;

/// Stock swanctl against one socket.
#[derive(Debug)]
pub struct Swanctl {
    socket: PathBuf,
    folder: PathBuf,
}

impl Swanctl {
    /// With `folder` for swanctl.conf and what belongs to it.
    pub fn new(socket: PathBuf, folder: PathBuf) -> Self {
        Self { socket, folder }
    }

    /// Runs swanctl and returns what it printed, and whether it was content.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn attempt(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = Command::new("swanctl")
            .args(args)
            .arg("--uri")
            .arg(format!("unix://{}", self.socket.display()))
            .env("SWANCTL_DIR", &self.folder)
            .stdin(Stdio::null())
            .output()
            .context("cannot start swanctl (fix: cargo xtask setup)")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text + &errors))
    }

    /// As [`Swanctl::attempt`], and has to be content.
    ///
    /// # Errors
    /// It fails; the error has what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        match self.attempt(args)? {
            (true, text) => Ok(text),
            (false, text) => bail!("swanctl {} failed:\n{text}", args.join(" ")),
        }
    }

    /// Writes swanctl.conf and loads it.
    ///
    /// # Errors
    /// swanctl fails.
    pub fn load(&self, text: &str) -> Result<(bool, String)> {
        for folder in [
            "x509", "x509ca", "x509crl", "private", "rsa", "ecdsa", "pkcs8",
        ] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("swanctl.conf"), text)?;
        self.attempt(&["--load-all"])
    }
}

/// A client that has registered for events.
#[derive(Debug)]
pub struct Listener {
    stream: UnixStream,
    /// Events that nobody has waited for yet.
    waiting: VecDeque<(String, Section)>,
}

impl Listener {
    /// Registers for `events`.
    ///
    /// # Errors
    /// The socket does not answer, or does not know an event.
    pub fn new(socket: &Path, events: &[&str]) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("VICI socket")?;
        let mut listener = Self {
            stream,
            waiting: VecDeque::new(),
        };
        for event in events {
            let packet = Packet::Register((*event).to_owned()).encode()?;
            listener.stream.write_all(&packet)?;
            match listener.packet(Duration::from_secs(10) * patience())? {
                Packet::Confirm => {}
                other => bail!("registering for {event}: {other:?}"),
            }
        }
        Ok(listener)
    }

    /// The next event of a name, also if it came before one that was waited for earlier.
    ///
    /// # Errors
    /// None comes within `limit` (times patience).
    pub fn wait(&mut self, wanted: &str, limit: Duration) -> Result<Section> {
        if let Some(index) = self.waiting.iter().position(|(name, _)| name == wanted)
            && let Some((_, message)) = self.waiting.remove(index)
        {
            return Ok(message);
        }
        let end = Instant::now() + limit * patience();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self
                .packet(left)
                .with_context(|| format!("waiting for event {wanted}"))?
            {
                Packet::Event { name, message } if name == wanted => return Ok(message),
                Packet::Event { name, message } => self.waiting.push_back((name, message)),
                other => bail!("waiting for event {wanted}: {other:?}"),
            }
        }
    }

    fn packet(&mut self, limit: Duration) -> Result<Packet> {
        let limit = limit.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(limit))?;
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let mut octets = vec![0; packet_length(prefix)?];
        self.stream.read_exact(&mut octets)?;
        Ok(Packet::parse(&octets)?)
    }
}
