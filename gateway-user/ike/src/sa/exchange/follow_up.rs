//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4), as its responder.

use gateway_common::time::Instant;

use crate::crypto::KeyExchangeMethod;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError, PolicyError};
use crate::output::ChildSa;
use crate::record::{ChildState, FollowUp, KeyInputs, Role, Settled};
use crate::sa::{Answer, IkeSa, Pending, Request, Step};
use crate::wire::{KeRepr, MessageBuilder, NotifyType, Payload, Payloads};

impl IkeSa {
    /// Answers one additional key exchange. The last one makes the SA.
    ///
    /// # Errors
    /// STATE_NOT_FOUND if nothing waits for it, which is not fatal to the IKE SA; what the peer is
    /// told otherwise.
    pub(in crate::sa) fn follow_up(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let (at, method) = self.awaited(payloads)?;
        let ke = payloads.require_ke()?;
        if ke.method != method.transform_id() {
            return Err(PeerError::Syntax("additional key exchange of another method").into());
        }
        let answer = core.crypto.answer_key_exchange(method, ke.data)?;
        let message =
            MessageBuilder::new(request.header.to_response()).with(&Payload::Ke(KeRepr {
                method: method.transform_id(),
                data: &answer.public,
            }));
        let established = self.established_mut().ok_or(PolicyError::StateNotFound)?;
        let mut follow_up = established.follow_ups[at].follow_up.clone();
        follow_up.inputs.shared.push(answer.shared);
        follow_up.pending.remove(0);
        if !follow_up.pending.is_empty() {
            established.follow_ups.remove(at);
            return Ok(self.await_follow_up(core, now, (request, message), follow_up));
        }
        let FollowUp {
            settled, inputs, ..
        } = follow_up;
        match settled {
            Settled::Child { sa, rekeys } => {
                self.make_child(core, now, (request, message), (&sa, rekeys), &inputs)?;
                Ok(Step::Waiting)
            }
            Settled::Ike {
                local_spi,
                remote_spi,
                proposal,
            } => {
                established.follow_ups.remove(at);
                self.watch_follow_ups(core);
                let new = ((local_spi, remote_spi), proposal);
                let successor = self.finish_successor(core, now, Role::Responder, new, &inputs)?;
                Ok(self.succeeded_by(core, successor, Answer { request, message }))
            }
        }
    }

    /// What the request goes on with (its position), and by which method.
    fn awaited(&self, payloads: &Payloads<'_>) -> Result<(usize, KeyExchangeMethod), IkeError> {
        let established = self.established().ok_or(PolicyError::StateNotFound)?;
        if established.closing {
            return Err(PolicyError::TemporaryFailure("this IKE SA is being closed").into());
        }
        let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let mut waiting = established.follow_ups.iter();
        let at = waiting.position(|one| link.is_some_and(|link| link.data == one.link));
        let at = at.ok_or(PolicyError::StateNotFound)?;
        let next = established.follow_ups[at].follow_up.pending.first();
        Ok((at, *next.ok_or(PolicyError::StateNotFound)?))
    }

    /// Asks the kernel for a CHILD_SA whose keys are complete. Until that is answered, the record
    /// says that we wait for this request: a member that takes over answers it anew.
    fn make_child(
        &mut self,
        core: &mut Core,
        now: Instant,
        (request, installed): (Request, MessageBuilder),
        (sa, rekeys): (&ChildSa, Option<[u8; 4]>),
        inputs: &KeyInputs,
    ) -> Result<(), IkeError> {
        let old = rekeys.and_then(|spi| self.established()?.child(spi));
        if old.is_some_and(|old| old.state == ChildState::Closing) {
            self.drop_child_to_be(core, sa.spi_in);
            let reason = "this CHILD_SA is being closed";
            return Err(PolicyError::TemporaryFailure(reason).into());
        }
        let replaces = old.map(|old| old.sa.id());
        let child = match self.finish_child(core, Role::Responder, sa, inputs) {
            Ok(child) => child,
            Err(error) => {
                self.drop_child_to_be(core, sa.spi_in);
                return Err(error);
            }
        };
        let pending = Box::new(Pending {
            request,
            child: Box::new(child),
            replaces,
            lost: false,
            installed,
            refused: MessageBuilder::new(request.header.to_response()),
            deadline: now + core.config.limits.kernel_timeout,
            establishes: None,
        });
        self.ask_kernel(core, pending);
        self.watch_follow_ups(core);
        Ok(())
    }
}
