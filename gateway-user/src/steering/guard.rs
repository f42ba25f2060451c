//! Watching programs and fences.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::error::SteeringError;
use super::kernel::Kernel;
use super::report::Finding;
use super::{lock, netlink};
use crate::rtnl::Events;

/// Keeps programs and fences in place, as fast as the kernel tells that an interface, a qdisc or a
/// filter has changed. Links that somebody detaches make no noise: those are found at the next
/// call at the latest.
#[derive(Debug)]
pub struct SteeringGuard {
    events: Events,
    kernel: Option<Arc<Mutex<Kernel>>>,
}

impl SteeringGuard {
    pub(super) fn new(kernel: Option<Arc<Mutex<Kernel>>>) -> Result<Self, SteeringError> {
        let events = Events::open().map_err(|source| netlink("listen for changes", source))?;
        Ok(Self { events, kernel })
    }

    /// Waits until something has changed since the last call, at most `patience`; then looks at
    /// everything as [`Steering::verify`](super::Steering::verify) does, puts back what is gone,
    /// and fences interfaces that have appeared. Call in a loop, from a thread in the gateway's
    /// network namespace, with a patience of a second or less.
    ///
    /// Each finding belongs in the log; [`Finding::problem`] is the cause of the pnote `steering`
    /// until a call answers none.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn watch(&self, patience: Duration) -> Result<Vec<Finding>, SteeringError> {
        self.events
            .wait(patience)
            .map_err(|source| netlink("listen for changes", source))?;
        match &self.kernel {
            Some(kernel) => lock(kernel).verify(),
            None => Ok(Vec::new()),
        }
    }
}
