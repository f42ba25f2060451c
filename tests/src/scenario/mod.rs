//! Scenarios: each builds its own lab, does one thing and asserts what came of it.

mod demo;
mod faults;
mod flood;
mod harness;
mod operate;
mod refuse;
mod sites;
mod stock;
mod tunnel;
mod xfrm;

use std::path::PathBuf;

use anyhow::Result;

use crate::lab::Esp;

pub use demo::demo;

/// Where a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// On the machine's own kernel: members record what they would install if it has no ESP.
    Native,
    /// Where the kernel has ESP: in the VM, or natively on a stock kernel.
    Esp,
    /// Both.
    Both,
}

/// What a scenario is told.
#[derive(Debug, Clone)]
pub struct Context {
    /// Folder for the logs of all scenarios.
    pub logs: PathBuf,
    /// Folder with `gatewayd` and `gatewayctl`.
    pub binaries: PathBuf,
    /// Whether the running kernel has ESP.
    pub kernel_esp: bool,
}

impl Context {
    /// How a stock peer does ESP here.
    pub fn peer_esp(&self) -> Esp {
        if self.kernel_esp {
            Esp::Kernel
        } else {
            Esp::Userspace
        }
    }
}

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Name on the command line, and folder of its logs.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// Where it is run.
    pub tier: Tier,
    /// Runs it; returns a line with what was measured.
    pub run: fn(&Context) -> Result<String>,
}

type Row = (
    &'static str,
    Tier,
    fn(&Context) -> Result<String>,
    &'static str,
);

const ROWS: &[Row] = &[
    (
        "spray",
        Tier::Native,
        stock::spray,
        "the lab itself: the router distributes as told",
    ),
    (
        "stock-pair",
        Tier::Both,
        stock::pair,
        "the lab itself: stock strongSwan at both ends",
    ),
    (
        "instruments",
        Tier::Both,
        stock::instruments,
        "the lab itself: gap, loss and captures of a known outage",
    ),
    (
        "tunnel-v4",
        Tier::Both,
        tunnel::v4,
        "a tunnel with every packet at another member",
    ),
    ("tunnel-v6", Tier::Both, tunnel::v6, "the same over IPv6"),
    (
        "tunnel-nat",
        Tier::Both,
        tunnel::nat,
        "the same from behind a NAT, with MOBIKE announced",
    ),
    (
        "ecmp",
        Tier::Native,
        tunnel::ecmp,
        "flow-hashing ECMP and ECP-256 after INVALID_KE_PAYLOAD",
    ),
    (
        "sites-100",
        Tier::Native,
        sites::hundred,
        "100 tunnels, per-packet spraying, no waste",
    ),
    (
        "kill-restart",
        Tier::Native,
        faults::kill_restart,
        "SIGKILL leaves steering running",
    ),
    (
        "drain-restart",
        Tier::Native,
        faults::stop_restart,
        "SIGTERM and start keep maps and links",
    ),
    (
        "forwarding-switch",
        Tier::Native,
        operate::forwarding_switch,
        "XDP off: agents relay",
    ),
    (
        "check",
        Tier::Native,
        operate::check,
        "the pre-flight finds a wrong sysctl and its fix",
    ),
    (
        "wrong-psk",
        Tier::Native,
        refuse::wrong_psk,
        "AUTHENTICATION_FAILED and one log line",
    ),
    (
        "no-proposal",
        Tier::Native,
        refuse::no_proposal,
        "NO_PROPOSAL_CHOSEN and one log line",
    ),
    (
        "malformed",
        Tier::Native,
        refuse::malformed,
        "hostile messages: the right NOTIFY or silence",
    ),
    (
        "half-open-full",
        Tier::Native,
        flood::half_open_full,
        "a full half-open table is silent",
    ),
    (
        "flood",
        Tier::Native,
        flood::spoofed,
        "forged sources: live negotiations and SAs go on",
    ),
    (
        "rekey",
        Tier::Esp,
        tunnel::rekey,
        "the peer rekeys the CHILD_SA; pings go on",
    ),
    (
        "delete",
        Tier::Both,
        tunnel::delete,
        "the peer deletes; nothing is left anywhere",
    ),
    (
        "xfrm-kinds",
        Tier::Esp,
        xfrm::kinds,
        "static keys: every kind of SA, marked with its slot",
    ),
    (
        "xfrm-block",
        Tier::Esp,
        xfrm::block,
        "static keys: no cleartext without SAs",
    ),
    (
        "xfrm-rekey",
        Tier::Esp,
        xfrm::rekey,
        "static keys: a rekey loses no ping",
    ),
    (
        "xfrm-semantics",
        Tier::Esp,
        xfrm::semantics,
        "the recording kernel agrees with the real one",
    ),
    (
        "xfrm-copies",
        Tier::Esp,
        xfrm::copies,
        "standby copies: blocks, events by count, forwards only, the gate",
    ),
    (
        "xfrm-adopt",
        Tier::Esp,
        xfrm::adopt,
        "a restarted agent takes its SAs over where they stand",
    ),
    (
        "xfrm-path",
        Tier::Esp,
        xfrm::path,
        "ports and addresses change, sequence numbers go on",
    ),
    (
        "xfrm-copy-rates",
        Tier::Esp,
        xfrm::rates,
        "what copies cost to install and to move",
    ),
];

/// All scenarios, in the order they are run.
pub fn all() -> Vec<Scenario> {
    let scenario = |&(name, tier, run, about): &Row| Scenario {
        name,
        about,
        tier,
        run,
    };
    ROWS.iter().map(scenario).collect()
}
