//! Scenarios: each builds its own lab, does one thing and asserts what came of it.

mod algorithms;
mod authorize;
mod certificates;
mod cold;
mod demo;
mod examples;
mod failover;
mod faults;
mod flood;
mod harness;
mod hostile;
mod initiate;
mod interface;
mod libreswan;
mod load;
mod lossy;
mod monitoring;
mod operate;
mod package;
mod refuse;
mod rekeying;
mod rest;
mod roles;
mod secrets;
mod selectors;
mod sites;
mod stock;
mod swanctl;
mod transport;
mod tunnel;
mod vici;
mod web;
mod xfrm;

use std::path::PathBuf;

use anyhow::Result;

use crate::lab::Esp;

pub use demo::demo;
pub use failover::{Outcome, Row as FailoverRow, rows as failover_rows};
pub use load::{LoadCost, costs as load_costs};
pub use package::{Packages, package};

/// Where a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// On the machine's own kernel: members record what they would install if it has no ESP.
    Native,
    /// Where the kernel has ESP: in the VM, or natively on a stock kernel.
    Esp,
    /// Both.
    Both,
    /// Only where the kernel has no ESP: stand-ins carry the traffic.
    Recorded,
    /// As [`Tier::Recorded`], in the nightly run.
    RecordedNightly,
    /// As [`Tier::Esp`], in the nightly run.
    EspNightly,
    /// As [`Tier::Native`], in the nightly run.
    Nightly,
}

impl Tier {
    /// The word in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Esp => "esp",
            Self::Both => "both",
            Self::Recorded => "no-esp",
            Self::RecordedNightly => "no-esp nightly",
            Self::EspNightly => "esp nightly",
            Self::Nightly => "native nightly",
        }
    }

    /// Whether a kernel with or without ESP can run it.
    pub fn fits(self, kernel_esp: bool) -> bool {
        match self {
            Self::Native | Self::Nightly | Self::Both => true,
            Self::Esp | Self::EspNightly => kernel_esp,
            Self::Recorded | Self::RecordedNightly => !kernel_esp,
        }
    }

    /// Whether it is left to the nightly run.
    pub fn is_nightly(self) -> bool {
        matches!(
            self,
            Self::RecordedNightly | Self::EspNightly | Self::Nightly
        )
    }
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

impl Scenario {
    /// Whether it lets a fault happen under traffic: the nightly run repeats these.
    pub fn is_failover(&self) -> bool {
        ["failover-", "takeover-"]
            .iter()
            .any(|prefix| self.name.starts_with(prefix))
    }
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
        "rest",
        Tier::Native,
        rest::forwarding_api,
        "the IKE forwarding API against bpftool and XDP, and what explain says",
    ),
    (
        "secrets",
        Tier::Native,
        secrets::nowhere,
        "no planted secret in any page, REST answer, metric, log or support bundle",
    ),
    (
        "rest-fuzz",
        Tier::Native,
        rest::fuzz,
        "schemathesis against the REST API: no 5xx, no answer beside its schema",
    ),
    (
        "web",
        Tier::Native,
        web::page,
        "the web page in a browser: a failover live, a hostile name, a silent member",
    ),
    (
        "check",
        Tier::Native,
        operate::check,
        "the pre-flight finds a wrong sysctl and its fix",
    ),
    (
        "certificates",
        Tier::Native,
        certificates::peers,
        "RSA, ECDSA and Ed25519, CRL, mixed authentication, PPK, with a stock peer",
    ),
    (
        "authorize",
        Tier::Native,
        authorize::decided_elsewhere,
        "a program decides who is let in: one is, one is not, and one that hangs holds up nobody",
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
        "rekeying",
        Tier::EspNightly,
        rekeying::strongswan,
        "both kinds of SA are rekeyed by either side under traffic: nothing is lost",
    ),
    (
        "rekeying-libreswan",
        Tier::EspNightly,
        rekeying::libreswan,
        "the same with stock libreswan",
    ),
    (
        "rekeying-at-once",
        Tier::EspNightly,
        rekeying::at_once,
        "both sides rekey at the same moment, several times, under traffic",
    ),
    (
        "fragmentation",
        Tier::Both,
        transport::fragmentation,
        "IKE_AUTH in fragments both ways, each at another member",
    ),
    (
        "mobike",
        Tier::Both,
        transport::mobike,
        "the peer's address changes; the tunnel goes on",
    ),
    (
        "childless",
        Tier::Both,
        transport::childless,
        "IKE_AUTH without CHILD_SA, the first one by CREATE_CHILD_SA",
    ),
    (
        "redirect",
        Tier::Native,
        transport::redirect,
        "a peer is sent elsewhere by IKE_SA_INIT and by command",
    ),
    (
        "delete",
        Tier::Both,
        tunnel::delete,
        "the peer deletes; nothing is left anywhere",
    ),
    (
        "swanctl",
        Tier::Recorded,
        swanctl::drives,
        "stock swanctl drives a tunnel from load to terminate",
    ),
    (
        "vici-client",
        Tier::Recorded,
        vici::client,
        "strongSwan's client library gets from a member what it gets from charon",
    ),
    (
        "initiate",
        Tier::Recorded,
        initiate::by_order,
        "a member is asked, the owner initiates; it dies, and the next one goes on",
    ),
    (
        "initiate-both",
        Tier::Recorded,
        initiate::both,
        "both sides start at once: one tunnel",
    ),
    (
        "initiate-unreachable",
        Tier::Recorded,
        initiate::unreachable,
        "the peer comes late: the tunnel comes up with it",
    ),
    (
        "trap",
        Tier::Esp,
        initiate::by_packet,
        "the first packet brings the tunnel up, and again when it is gone",
    ),
    (
        "dynamic",
        Tier::Esp,
        selectors::dynamic,
        "a tunnel from host to host: swanctl's default selectors, from both sides",
    ),
    (
        "hostile-sync",
        Tier::Native,
        hostile::sync,
        "strangers on both networks change nothing but counters",
    ),
    (
        "sync-loss",
        Tier::Native,
        lossy::sync,
        "every fiftieth segment between the members is lost while tunnels are rekeyed",
    ),
    (
        "load-1000",
        Tier::Native,
        load::thousand,
        "1,000 SAs are taken over, and copied to a member that joins",
    ),
    (
        "load-100000",
        Tier::Nightly,
        load::hundred_thousand,
        "the same with 100,000",
    ),
    (
        "takeover-sigkill",
        Tier::Recorded,
        failover::sigkill,
        "stand-ins for ESP: an agent dies in mid-traffic",
    ),
    (
        "takeover-sigstop",
        Tier::Recorded,
        failover::sigstop,
        "a stopped agent's member sends nothing after its lease",
    ),
    (
        "takeover-member-removed",
        Tier::Recorded,
        failover::member_removed,
        "a member is gone with its host",
    ),
    (
        "takeover-drain",
        Tier::Recorded,
        failover::drain,
        "a member hands its slots over",
    ),
    (
        "takeover-upgrade",
        Tier::Recorded,
        failover::upgrade,
        "SIGTERM, then another run of the agent",
    ),
    (
        "two-witness",
        Tier::Recorded,
        failover::witness,
        "two members and a witness: its loss does nothing, its vote makes a takeover safe",
    ),
    (
        "two-availability",
        // Its CHILD_SAs are rekeyed, and a stand-in goes on with the old ones.
        Tier::EspNightly,
        failover::availability,
        "two members without a witness: the other's host is gone",
    ),
    (
        "two-split",
        // As two-availability.
        Tier::EspNightly,
        failover::split,
        "two members without a witness: both live, and both serve what they have",
    ),
    (
        "two-agent-dies",
        Tier::RecordedNightly,
        failover::agent_dies,
        "two members without a witness: an agent dies, its host answers",
    ),
    (
        "takeover-fast",
        Tier::RecordedNightly,
        failover::fast,
        "the fast profile: an agent dies in mid-traffic",
    ),
    (
        "cold-bootstrap",
        Tier::Native,
        cold::bootstrap,
        "one of three comes back from a power failure and is told to serve",
    ),
    (
        "cold-boot-alone",
        Tier::Nightly,
        cold::boot_alone,
        "the same, and it is configured to serve alone",
    ),
    (
        "takeover-two-in-a-row",
        Tier::RecordedNightly,
        failover::two_in_a_row,
        "two members die, one after the other",
    ),
    (
        "takeover-sync-cut",
        Tier::RecordedNightly,
        failover::sync_cut,
        "the cable between the members is cut at one",
    ),
    (
        "takeover-public-cut",
        Tier::RecordedNightly,
        failover::public_cut,
        "the cable to the router is cut",
    ),
    (
        "takeover-isolated",
        Tier::RecordedNightly,
        failover::isolated,
        "a member is cut off from the others, not from the peers",
    ),
    (
        "takeover-deaf",
        Tier::RecordedNightly,
        failover::deaf,
        "a member hears no heartbeat, the others hear it",
    ),
    (
        "takeover-mute",
        Tier::RecordedNightly,
        failover::mute,
        "a member hears the others, they do not hear it",
    ),
    (
        "ha-addresses",
        Tier::Recorded,
        failover::addresses_move,
        "HA mode: addresses move, the neighbours are told",
    ),
    (
        "example-ha-witness",
        Tier::Native,
        examples::ha_witness,
        "deploy/examples: two members and a witness; the active host is gone",
    ),
    (
        "example-ha-keepalived",
        Tier::Native,
        examples::ha_keepalived,
        "deploy/examples: keepalived moves the addresses by the gateway's health",
    ),
    (
        "example-ecmp-bird",
        Tier::Native,
        examples::ecmp_bird,
        "deploy/examples: three members behind a router with BIRD and ECMP",
    ),
    (
        "example-ecmp-frr",
        Tier::Native,
        examples::ecmp_frr,
        "deploy/examples: the same with FRR",
    ),
    (
        "monitoring",
        Tier::Nightly,
        monitoring::prometheus,
        "a real Prometheus: every expression of dashboard and alerts, in health and after a death",
    ),
    (
        "takeover-replaced",
        Tier::RecordedNightly,
        failover::replaced,
        "another host takes a member's place",
    ),
    (
        "failover-sigkill",
        Tier::Esp,
        failover::sigkill,
        "20 tunnels: an agent dies in mid-traffic",
    ),
    (
        "failover-sigstop",
        Tier::Esp,
        failover::sigstop,
        "a stopped agent's member sends nothing after its lease",
    ),
    (
        "failover-drain",
        Tier::Esp,
        failover::drain,
        "a member hands its slots over, nothing is lost",
    ),
    (
        "failover-member-removed",
        Tier::EspNightly,
        failover::member_removed,
        "a member is gone with its host",
    ),
    (
        "failover-sync-cut",
        Tier::EspNightly,
        failover::sync_cut,
        "the cable between the members is cut at one",
    ),
    (
        "failover-public-cut",
        Tier::EspNightly,
        failover::public_cut,
        "the cable to the router is cut",
    ),
    (
        "failover-upgrade",
        Tier::EspNightly,
        failover::upgrade,
        "SIGTERM, then another run of the agent",
    ),
    (
        "failover-two-in-a-row",
        Tier::EspNightly,
        failover::two_in_a_row,
        "two members die, one after the other",
    ),
    (
        "failover-replaced",
        Tier::EspNightly,
        failover::replaced,
        "another host takes a member's place",
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
        "libreswan",
        Tier::Esp,
        libreswan::psk,
        "stock libreswan: tunnels, rekeying from its side, deletion",
    ),
    (
        "libreswan-ways",
        Tier::Esp,
        libreswan::ways,
        "stock libreswan: certificates, PPK, UDP, IPv6, MOBIKE; either side begins",
    ),
    (
        "libreswan-nat",
        Tier::EspNightly,
        libreswan::nat,
        "stock libreswan from behind a NAT, with certificates",
    ),
    (
        "roles",
        Tier::Nightly,
        roles::strongswan,
        "stock strongSwan: RSA, ECDSA, Ed25519, PPK, MODP; each begun by either side",
    ),
    (
        "route-based",
        Tier::EspNightly,
        interface::routed,
        "a tunnel behind an XFRM interface",
    ),
    (
        "algorithms",
        Tier::EspNightly,
        algorithms::strongswan,
        "stock strongSwan: every key exchange, cipher, integrity algorithm, ESN",
    ),
    (
        "algorithms-libreswan",
        Tier::EspNightly,
        algorithms::libreswan,
        "the same with stock libreswan",
    ),
    (
        "algorithms-all",
        Tier::EspNightly,
        algorithms::strongswan_all,
        "stock strongSwan: every ESP algorithm with and without ESN",
    ),
    (
        "algorithms-libreswan-all",
        Tier::EspNightly,
        algorithms::libreswan_all,
        "the same with stock libreswan",
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
