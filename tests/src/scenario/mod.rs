//! Scenarios: each builds its own lab, does one thing and asserts what came of it.

mod stock;

use std::path::PathBuf;

use anyhow::Result;

use crate::lab::Esp;

/// Which kernels a scenario makes sense on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any kernel: members record what they would install, or have ESP, as the kernel allows.
    Any,
    /// A kernel with ESP.
    KernelEsp,
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
    /// Which kernels it runs on.
    pub needs: Needs,
    /// Runs it; returns a line with what was measured.
    pub run: fn(&Context) -> Result<String>,
}

/// All scenarios, in the order they are run.
pub fn all() -> Vec<Scenario> {
    vec![Scenario {
        name: "stock-pair",
        about: "the lab itself: two stock strongSwans bring up a tunnel and ping both ways",
        needs: Needs::Any,
        run: stock::pair,
    }]
}
