//! The pre-flight: what must be right on the host before packets can be steered and decrypted.
//! Reads only; works without the right to load BPF.

mod host;
mod interfaces;
mod networks;
mod sysctl;

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::config::{AttachMode, SteeringConfig};
use crate::rtnl::Socket;

/// How bad a failed check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something works less well, or cannot be judged from here.
    Warning,
    /// Packets will be lost, or the agent cannot start.
    Error,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked, for example `rp_filter`.
    pub name: &'static str,
    /// On what: an interface, a file, an address.
    pub subject: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// How bad it is if not.
    pub severity: Severity,
    /// What was found, and what follows from it.
    pub message: String,
    /// What to do; empty if `ok`.
    pub fix: String,
}

impl Check {
    fn passed(name: &'static str, subject: &str, message: String) -> Self {
        Self {
            name,
            subject: subject.to_owned(),
            ok: true,
            severity: Severity::Error,
            message,
            fix: String::new(),
        }
    }

    fn failed(
        name: &'static str,
        subject: &str,
        severity: Severity,
        message: String,
        fix: String,
    ) -> Self {
        Self {
            name,
            subject: subject.to_owned(),
            ok: false,
            severity,
            message,
            fix,
        }
    }
}

/// Runs every check against the calling thread's network namespace. Never fails: what cannot be
/// read is a failed check.
pub fn preflight(config: &SteeringConfig) -> Vec<Check> {
    let mut checks = host::checks(config);
    let mut socket = match Socket::open() {
        Ok(socket) => socket,
        Err(error) => {
            checks.push(unreadable("interfaces", "rtnetlink", &error.to_string()));
            return checks;
        }
    };
    let (links, missing) = interfaces::find(&mut socket, config);
    checks.extend(missing);
    checks.extend(sysctl::checks(config, &links));
    checks.extend(interfaces::checks(config, &links));
    checks.extend(networks::checks(&mut socket, config, &links));
    checks
}

fn unreadable(name: &'static str, subject: &str, reason: &str) -> Check {
    Check::failed(
        name,
        subject,
        Severity::Warning,
        format!("cannot be checked: {reason}"),
        "run the check as root in the gateway's network namespace".to_owned(),
    )
}

/// Without BPF the requirements of steering are hints at most.
fn steering_severity(config: &SteeringConfig) -> Severity {
    if config.attach == AttachMode::None {
        Severity::Warning
    } else {
        Severity::Error
    }
}
