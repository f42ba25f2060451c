//! What the agent tells about the data path.

use serde::Serialize;

use super::config::Role;
use super::error::SteeringError;
use super::fence::FenceHook;
use super::links::XdpMode;

/// One interface and how it is steered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How its XDP program runs.
    pub mode: XdpMode,
    /// Which hook its fence uses; `None` without BPF.
    #[serde(skip)]
    pub fence: Option<FenceHook>,
}

/// Something that [`Steering::verify`](super::Steering::verify) found wrong.
#[derive(Debug)]
pub struct Finding {
    /// The interface.
    pub interface: String,
    /// What it is for; `None` if the configuration does not name it: it has the fence alone.
    pub role: Option<Role>,
    /// What was wrong.
    pub what: String,
    /// Whether it is right again.
    pub repaired: bool,
    /// Why it could not be repaired, with the fix.
    pub error: Option<SteeringError>,
}

impl Finding {
    pub(super) fn new(
        interface: &str,
        role: Option<Role>,
        what: String,
        repaired: Result<(), SteeringError>,
    ) -> Self {
        Self {
            interface: interface.to_owned(),
            role,
            what,
            repaired: repaired.is_ok(),
            error: repaired.err(),
        }
    }

    /// Why this member must not be active on account of it: the cause of the pnote `steering`.
    /// `None` for what is right again.
    pub fn problem(&self) -> Option<String> {
        if self.repaired {
            return None;
        }
        let why = self.error.as_ref().map(|error| format!(" ({error})"));
        Some(format!(
            "{}: {}{}",
            self.interface,
            self.what,
            why.unwrap_or_default()
        ))
    }

    /// Marks what waits for somebody else.
    pub(super) fn open(mut self) -> Self {
        self.repaired = false;
        self
    }
}
