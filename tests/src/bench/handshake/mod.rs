//! `cargo xtask bench handshake`: what a handshake costs the responder.
//!
//! The same driver, proposal and host for the gateway and for stock strongSwan, one after the other
//! in one run: peers that are engines of ours ([`driver`]) initiate over UDP sockets, 16 handshakes
//! at a time from 16 addresses, through the lab's router. Each has an identity of its own, and a
//! certificate where there are any. The IKE SAs are childless (RFC 6023), so neither responder asks
//! a kernel for anything.
//!
//! - *gateway*: `gatewayd` with its data path loaded, as a cluster of one member and as one of three,
//!   of which one owns all slots. There each handshake waits until both others have its record;
//!   what that costs them stands in a column of its own.
//! - *strongSwan*: Debian's charon with the stock plugins, 16 threads, hashed tables of IKE SAs, no
//!   limits on half-open ones, and a log of one line per IKE SA, as `gatewayd` writes it.
//!
//! CPU is what the process has used, all threads, in user and in system mode, by its own CPU clock
//! (`clock_getcpuclockid(3)`): the driver's is not in it. Handshakes per second are what came through
//! with driver, network and responder on the same CPUs; where the responder is cheaper than the
//! driver they tell the driver's speed. Handshakes before those that count warm caches and tables.
//! Memory is what the process's resident memory grew by for the 10,000 IKE SAs of the first row.

mod driver;
mod peers;
mod responder;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use self::driver::{Driver, Peers};
use self::peers::{Auth, Certified, Psk};
use self::responder::{Responder, System};
use crate::scenario::Context;

/// Handshakes that do not count.
const WARM_UP: usize = 300;
/// Handshakes of a row that tells no memory.
const SOME: usize = 1_500;
/// Budgets for X25519 and pre-shared keys: microseconds of CPU, octets of memory.
const BUDGET: (f64, f64) = (130.0, 4096.0);

/// Proposals with pre-shared keys: the one with a budget, and two that operators are asked for.
const PROPOSALS: [&str; 3] = [
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm16-prfsha384-ecp384",
    "aes256-sha256-modp2048",
];

const SYSTEMS: [System; 3] = [
    System::Gateway { members: 1 },
    System::Strongswan,
    System::Gateway { members: 3 },
];

/// What was measured.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// Name and version.
    system: String,
    /// Members of the cluster.
    members: u8,
    /// As in swanctl.conf.
    proposal: &'static str,
    /// How both sides authenticate.
    auth: &'static str,
    /// Handshakes that count.
    handshakes: usize,
    handshakes_per_s: f64,
    /// Of the process that answers.
    cpu_us_per_handshake: f64,
    /// Of all other members together.
    others_cpu_us_per_handshake: f64,
    /// Resident octets per established IKE SA.
    bytes_per_sa: Option<f64>,
    /// Requests that had to be sent again.
    repeated: u64,
    /// How the gateway and the driver were compiled.
    build: &'static str,
}

/// Measures everything with `sas` IKE SAs in the first row of each responder, prints the rows, and
/// writes them to `out`, one by one.
///
/// # Errors
/// A responder does not come up, or a handshake fails.
pub fn handshake(context: &Context, sas: usize, out: &Path) -> Result<()> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut rows = Vec::new();
    for auth in [Auth::Psk, Auth::Ecdsa256, Auth::Rsa2048] {
        for system in SYSTEMS {
            let about = || format!("{system:?}, {}", auth.as_str());
            let mut bench = Bench::start(context, system, auth).with_context(about)?;
            for (place, proposal) in bench.proposals().iter().copied().enumerate() {
                let many = auth == Auth::Psk && place == 0;
                let count = if many { sas } else { SOME };
                let row = bench.row(proposal, count, many).with_context(about)?;
                println!("{}", serde_json::to_string(&row)?);
                rows.push(row);
                std::fs::write(out, serde_json::to_string_pretty(&rows)? + "\n")
                    .with_context(|| out.display().to_string())?;
            }
        }
    }
    print!("{}", verdict(&rows));
    Ok(())
}

/// One responder and its peers.
struct Bench {
    auth: Auth,
    members: u8,
    driver: Driver,
    responder: Responder,
    peers: Box<dyn Peers>,
    established: usize,
}

impl Bench {
    fn start(context: &Context, system: System, auth: Auth) -> Result<Self> {
        let folder = context.logs.join("handshake-pki");
        let peers: Box<dyn Peers> = match auth {
            Auth::Psk => Box::new(Psk),
            _ => Box::new(Certified::issue(auth, WARM_UP + SOME, &folder)?),
        };
        let responder = Responder::start(context, system, auth, proposals(auth), &folder)?;
        Ok(Self {
            auth,
            members: match system {
                System::Gateway { members } => members,
                System::Strongswan => 1,
            },
            driver: Driver::new(&responder.network)?,
            responder,
            peers,
            established: 0,
        })
    }

    fn proposals(&self) -> &'static [&'static str] {
        proposals(self.auth)
    }

    fn row(&mut self, proposal: &'static str, count: usize, memory: bool) -> Result<Row> {
        self.driver.establish(WARM_UP, proposal, &*self.peers)?;
        self.driver.settle()?;
        let before = self.usage()?;
        let pace = self.driver.establish(count, proposal, &*self.peers)?;
        let after = self.usage()?;
        self.established += WARM_UP + count;
        let there = self.responder.established()?;
        ensure!(
            there == self.established,
            "the responder has {there} IKE SAs instead of {}",
            self.established
        );
        let each = |before: f64, after: f64| round((after - before) / count as f64);
        Ok(Row {
            system: self.responder.name()?,
            members: self.members,
            proposal,
            auth: self.auth.as_str(),
            handshakes: count,
            handshakes_per_s: round(count as f64 / pace.time.as_secs_f64()),
            cpu_us_per_handshake: each(before.answering, after.answering),
            others_cpu_us_per_handshake: each(before.others, after.others),
            bytes_per_sa: memory.then(|| each(before.resident, after.resident)),
            repeated: pace.repeated,
            build: if cfg!(debug_assertions) {
                "dev"
            } else {
                "release"
            },
        })
    }

    fn usage(&mut self) -> Result<Usage> {
        let others = self.responder.others();
        let pid = self.responder.answering()?.pid();
        let mut sum = 0.0;
        for other in others {
            sum += cpu_us(other)?;
        }
        Ok(Usage {
            answering: cpu_us(pid)?,
            others: sum,
            resident: resident(pid)?,
        })
    }
}

fn proposals(auth: Auth) -> &'static [&'static str] {
    match auth {
        Auth::Psk => &PROPOSALS,
        Auth::Ecdsa256 | Auth::Rsa2048 => &PROPOSALS[..1],
    }
}

/// What processes have used so far.
struct Usage {
    /// Microseconds of CPU.
    answering: f64,
    others: f64,
    /// Octets.
    resident: f64,
}

/// CPU time of a process, all threads, those that have ended included.
fn cpu_us(pid: u32) -> Result<f64> {
    let pid = libc::pid_t::try_from(pid)?;
    let mut clock = 0;
    // SAFETY: the clock's number is written to a live variable.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(error == 0, "no CPU clock of process {pid}: error {error}");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a live timespec.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(
        done == 0,
        "clock_gettime: {}",
        std::io::Error::last_os_error()
    );
    Ok(time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3)
}

fn resident(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    let kilo: f64 = words
        .with_context(|| format!("{file}: no VmRSS"))?
        .parse()?;
    Ok(kilo * 1024.0)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The gateway beside strongSwan, and the budgets.
fn verdict(rows: &[Row]) -> String {
    let mut text = String::new();
    let ours = rows.iter().filter(|row| row.system == "gateway");
    for row in ours {
        let same = |other: &&Row| {
            (other.proposal, other.auth) == (row.proposal, row.auth) && other.system != row.system
        };
        let ratio = rows.iter().find(same).map_or(String::new(), |other| {
            format!(
                ", {:.1} times less than {}",
                other.cpu_us_per_handshake / row.cpu_us_per_handshake,
                other.system
            )
        });
        let judged = (row.auth, row.proposal, row.members) == ("psk", PROPOSALS[0], 1);
        let within = row.cpu_us_per_handshake <= BUDGET.0
            && row.bytes_per_sa.is_none_or(|octets| octets <= BUDGET.1);
        let word = match (judged, within) {
            (false, _) => "",
            (true, true) => " (within budget)",
            (true, false) => " (budget MISSED)",
        };
        text += &format!(
            "{} member(s), {} {}: {} us{ratio}{word}\n",
            row.members, row.auth, row.proposal, row.cpu_us_per_handshake
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock is that of the process that is asked for, and it counts what that one does.
    #[test]
    fn the_clock_of_another_process() {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; read x",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let used = cpu_us(child.id()).unwrap();
        assert!(used > 1_000.0, "{used} us for 20,000 turns of a loop");
        assert!(resident(child.id()).unwrap() > 100_000.0);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_gateway_is_compared_with_the_same_row() {
        let row = |system: &str, proposal, cpu| Row {
            system: system.into(),
            members: 1,
            proposal,
            auth: "psk",
            handshakes: 1,
            handshakes_per_s: 1.0,
            cpu_us_per_handshake: cpu,
            others_cpu_us_per_handshake: 0.0,
            bytes_per_sa: None,
            repeated: 0,
            build: "dev",
        };
        let rows = [
            row("gateway", PROPOSALS[0], 131.0),
            row("strongSwan 5.9.8", PROPOSALS[1], 900.0),
            row("strongSwan 5.9.8", PROPOSALS[0], 655.0),
        ];
        let text = verdict(&rows);
        assert!(
            text.contains("5.0 times less than strongSwan 5.9.8 (budget MISSED)"),
            "{text}"
        );
    }
}
