//! Scenarios: each builds its own lab, does one thing and asserts what came of it.

mod algorithms;
mod authorize;
mod catalogue;
mod certificates;
mod cold;
mod demo;
mod examples;
mod failover;
mod faults;
mod flood;
mod handed_over;
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

/// All scenarios, in the order they are run.
pub fn all() -> Vec<Scenario> {
    let scenario = |&(name, tier, run, about): &catalogue::Row| Scenario {
        name,
        about,
        tier,
        run,
    };
    catalogue::ROWS.iter().map(scenario).collect()
}
