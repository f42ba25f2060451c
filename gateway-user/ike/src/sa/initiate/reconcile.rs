//! An IKE SA that two members serve at the same time, because the cluster is divided (split brain), and
//! what becomes of it when the halves meet again.
//!
//! Both may ask the peer for different things under the same Message ID. The peer takes the first, and
//! answers the other one with the same octets; its answers reach either member. RFC 6311 helps against
//! a stale replica, not against this: each half would overtake the other in turn.

use gateway_common::time::Instant;

use super::{Outstanding, Task};
use crate::endpoint::core::Core;
use crate::output::KernelRequest;
use crate::record::{ChildState, IkeSaRecord, Purpose};
use crate::sa::clock::Clock;
use crate::sa::window::Window;
use crate::sa::{Cause, IkeSa, Step};
use crate::wire::{Body, Message};

impl IkeSa {
    /// Makes again what a request was for, not at once.
    pub(super) fn ask_later(&mut self, core: &mut Core, now: Instant, purpose: Option<Purpose>) {
        let tasks = purpose.map_or_else(Vec::new, |purpose| self.tasks_of(purpose));
        for task in tasks {
            self.defer(core, now, task);
        }
    }

    /// Whether anything authentic has come from the peer since the outstanding request was sent first.
    pub(super) fn heard_since(&self) -> bool {
        let Some(established) = self.established() else {
            return false;
        };
        let asked_at = established.outstanding.as_ref().and_then(|o| o.asked_at);
        asked_at.is_some_and(|asked_at| established.heard_at >= asked_at)
    }

    /// A response to a request that another member has sent: the peer expects what comes after it, and
    /// has not heard what is outstanding here, which has an earlier Message ID. Whether it is that.
    pub(super) fn catch_up_with(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
    ) -> bool {
        let Body::Encrypted(encrypted) = message.body() else {
            return false;
        };
        // Who asks for nothing need not know.
        if !self.is_asking() || self.open(core, encrypted).is_err() {
            return false;
        }
        let purpose = self.purpose().cloned();
        self.drop_outstanding(core);
        if let Some(established) = self.established_mut() {
            established.next_request = u64::from(message.header().message_id) + 1;
            established.dirty = true;
        }
        self.heard(now);
        self.ask_later(core, now, purpose);
        true
    }

    /// Goes on behind what this member and another one have done with it at the same time: `other` is
    /// how that one has left it.
    ///
    /// What each has from the peer's last answers cannot be told apart if both have asked: a CHILD_SA
    /// stays only if both have it, or if nothing happened at the other one.
    pub(crate) fn reconcile(&mut self, core: &mut Core, now: Instant, other: IkeSaRecord) -> Step {
        if other.closed.is_some() {
            return Step::Gone(Cause::PeersWill, "deleted by the peer at the other half");
        }
        let expected = self.window.expected();
        let Some(established) = self.established_mut() else {
            return Step::Waiting;
        };
        let asked = u64::from(other.next_request) >= established.next_request;
        let answered = other.expected_request > expected;
        let strange = other.children.iter().map(|child| child.sa.spi_in);
        let strange: Vec<_> = strange
            .filter(|spi| established.child(*spi).is_none())
            .collect();
        established.unwanted.extend(strange);
        if let Some(Purpose::Child(offer)) = other.outstanding.as_ref().map(|o| &o.purpose) {
            established.unwanted.push(offer.spi_in);
        }
        established.dirty = true;
        if asked || answered {
            self.keep_common_children(core, &other);
        }
        if answered {
            self.skip_answered(core, &other);
        }
        if asked {
            self.skip_asked(core, now, other);
        }
        self.add_task(Task::CloseChildren);
        Step::Waiting
    }

    /// CHILD_SAs that the other member does not have any more the peer may not have either.
    fn keep_common_children(&mut self, core: &mut Core, other: &IkeSaRecord) {
        let stays = |spi: [u8; 4]| {
            let mut children = other.children.iter();
            children.any(|child| child.sa.spi_in == spi && child.state == ChildState::Current)
        };
        let Some(established) = self.established_mut() else {
            return;
        };
        let doubtful: Vec<_> = established
            .children
            .iter()
            .map(|child| child.sa.spi_in)
            .filter(|spi| !stays(*spi))
            .collect();
        for spi in doubtful {
            self.delete_at_peer(spi);
            let child = self.take_out_child(core, spi, "changed by the other half of the cluster");
            if let Some(child) = child.filter(|child| child.state == ChildState::Current) {
                self.want_child(&child.sa.name);
            }
        }
    }

    /// Requests of the peer were answered by the other member.
    fn skip_answered(&mut self, core: &mut Core, other: &IkeSaRecord) {
        self.window = Window::resume(other.expected_request, other.last_response.clone());
        // Among them the one that is being worked on here.
        let Some(pending) = self.established_mut().and_then(|e| e.pending.take()) else {
            return;
        };
        core.stop_waiting(self.local_spi, &pending);
        core.esp_spis.release(&pending.child.spi_in);
        core.out.kernel(KernelRequest::Remove {
            child: pending.child.id(),
        });
        if let Some(established) = self.established_mut() {
            established.end_follow_up(pending.child.spi_in);
        }
    }

    /// The other member has asked as much as this one, or more. Its last request is sent once more, octet for octet,
    /// if it was not answered: whether the peer has it, and so which Message ID it expects, is not known.
    /// What it was for does not matter any more.
    fn skip_asked(&mut self, core: &mut Core, now: Instant, other: IkeSaRecord) {
        self.ask_anew(core);
        let Some(established) = self.established_mut() else {
            return;
        };
        established.next_request = u64::from(other.next_request);
        let last = other
            .outstanding
            .filter(|request| !matches!(request.purpose, Purpose::SyncMessageIds(_)));
        if let Some(mut request) = last {
            request.purpose = Purpose::Liveness;
            established.outstanding = Some(Box::new(Outstanding::resume(request)));
            self.set_clock(core, Clock::Retransmit, now);
        }
    }
}
