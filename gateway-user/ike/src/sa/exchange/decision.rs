//! An authentication that pauses: the peer has proved who it is, and somebody outside the engine
//! decides whether that is enough.
//!
//! The request counts as being worked on: its retransmissions are dropped, and the negotiation is
//! half-open as before, so the limits on those are limits on what waits here. All of it is local to
//! the member, like every negotiation: if the member dies, the peer begins anew.

use gateway_common::time::Instant;

use super::auth::Verified;
use crate::auth::denied;
use crate::config::Authorization;
use crate::endpoint::core::Core;
use crate::error::IkeError;
use crate::output::{DecisionHandle, Question, Verdict};
use crate::sa::{IkeSa, Request, State, Step};
use crate::wire::Opened;

/// Somebody is asked about the peer.
pub(crate) struct ExpectDecision {
    /// The request that waits for its answer.
    request: Request,
    /// The request that said who the peer is and what it wants. It is no larger than a message
    /// may be, and its sender is known.
    opened: Opened,
    verified: Verified,
}

impl IkeSa {
    /// Asks, and lets the request wait.
    pub(super) fn ask(
        &mut self,
        core: &mut Core,
        request: Request,
        opened: Opened,
        verified: Verified,
        authorization: Authorization,
    ) -> Step {
        let handle = DecisionHandle {
            local_spi: self.local_spi,
            message_id: request.header.message_id,
        };
        core.counters.decisions_asked += 1;
        core.out.decide(Question {
            handle,
            authorization,
            connection: verified.connection.name.clone(),
            remote_id: verified.peer.remote_id.to_string(),
            local_id: verified.connection.local_id.to_string(),
            path: request.path,
        });
        self.window.begin();
        if let State::ExpectAuth(init) = &mut self.state {
            init.decision = Some(Box::new(ExpectDecision {
                request,
                opened,
                verified,
            }));
        }
        Step::Waiting
    }

    /// The question that it waits for the answer to.
    pub(crate) fn question(&self) -> Option<DecisionHandle> {
        let State::ExpectAuth(init) = &self.state else {
            return None;
        };
        let waiting = init.decision.as_ref()?;
        Some(DecisionHandle {
            local_spi: self.local_spi,
            message_id: waiting.request.header.message_id,
        })
    }

    /// Goes on with the answer. `None` if it does not wait for this one.
    pub(crate) fn decided(
        &mut self,
        core: &mut Core,
        now: Instant,
        handle: DecisionHandle,
        verdict: &Verdict,
    ) -> Option<Step> {
        if self.question() != Some(handle) {
            return None;
        }
        let State::ExpectAuth(init) = &mut self.state else {
            return None;
        };
        let waiting = *init.decision.take()?;
        let request = waiting.request;
        let step = self.go_on(core, now, waiting, verdict);
        Some(step.unwrap_or_else(|error| self.refuse(core, request, &error)))
    }

    fn go_on(
        &mut self,
        core: &mut Core,
        now: Instant,
        waiting: ExpectDecision,
        verdict: &Verdict,
    ) -> Result<Step, IkeError> {
        let ExpectDecision {
            request,
            opened,
            verified,
        } = waiting;
        if let Verdict::Refuse { reason } = verdict {
            core.counters.decisions_refused += 1;
            let Verified { connection, peer } = verified;
            let by = connection.auth.authorization.as_ref();
            let by = by.map_or("nobody", |authorization| &authorization.by);
            // RFC 7296 §2.21.2: whatever the reason, the peer is told AUTHENTICATION_FAILED.
            return Err(denied(format!(
                "{} proved who it is and is not let in, by {by}: {reason}",
                peer.remote_id
            )));
        }
        self.complete(core, now, request, &opened.payloads()?, verified)
    }
}
