//! A successor that the peer's rekeying has made (RFC 7296 §2.18) and that the peer may not know yet.
//!
//! As long as our answer to its CREATE_CHILD_SA may be lost, the peer has the old IKE SA only: what we
//! ask under the successor it cannot answer, and a DELETE of the old one would take away the one
//! that it retransmits under. That it knows is seen when it says something under the successor, or
//! deletes the old one. That nothing was said follows from the record's Message IDs, so that another
//! member knows, too.

use std::time::Duration;

use gateway_common::time::Instant;

use super::{IkeSa, Step, Task, retransmission_interval};
use crate::config::Limits;
use crate::endpoint::core::Core;
use crate::record::Role;
use crate::sa::Clock;

impl IkeSa {
    /// Our SPI of the IKE SA that the peer has made this one from, as long as neither side has said
    /// anything under it.
    pub(crate) fn unconfirmed_successor_of(&self) -> Option<[u8; 8]> {
        let established = self.established()?;
        let silent = !established.heard
            && established.next_request == 0
            && established.outstanding.is_none()
            && self.window.expected() == 0;
        established
            .predecessor
            .filter(|_| silent && self.role == Role::Responder)
    }

    /// Whether requests of ours have to wait until the peer knows it.
    pub(crate) fn hold(&mut self, held: bool) {
        if let Some(established) = self.established_mut() {
            established.held = held;
        }
    }

    /// Takes out a liveness check that would have to wait.
    pub(crate) fn take_held_liveness(&mut self) -> bool {
        self.established_mut()
            .is_some_and(|e| e.held && e.tasks.remove(&Task::Liveness))
    }

    /// It has a successor that the peer may not know, and was not deleted in time: whether the peer
    /// is alive is asked first. It is not waited for longer than it may be retransmitting.
    pub(crate) fn postpone_closing(&mut self, core: &mut Core, now: Instant) -> Step {
        let timeout = core.config.limits.replaced_timeout;
        let since = self.established().and_then(|e| e.replaced_since);
        let waited = since.map_or(Duration::ZERO, |since| now.saturating_since(since));
        if waited >= timeout + patience(&core.config.limits) {
            return self.terminate();
        }
        self.request_liveness();
        self.set_clock(core, Clock::Replaced, now + timeout);
        Step::Waiting
    }
}

/// For how long a peer that is configured as we are sends a request again.
fn patience(limits: &Limits) -> Duration {
    (0..=limits.retransmit_tries.min(32))
        .map(|resent| retransmission_interval(limits, resent))
        .fold(Duration::ZERO, Duration::saturating_add)
}
