//! CREATE_CHILD_SA that rekeys the IKE SA itself (RFC 7296 §1.3.2, §2.18), as its responder.

use std::sync::Arc;

use gateway_common::time::Instant;

use crate::endpoint::{core::Core, spi};
use crate::error::{IkeError, LocalError, PeerError, PolicyError};
use crate::proposal::select_ike;
use crate::record::{ChildState, FollowUp, KeyInputs, Purpose, Rival, Role, Settled};
use crate::sa::{Answer, Established, IkeSa, Request, Step, draw_nonce, exchange};
use crate::wire::{
    DeleteRepr, KeRepr, Message, MessageBuilder, NonceRepr, Payload, Payloads, ProtocolId, SaRepr,
};

/// Octets of an IKE SPI in a proposal.
const IKE_SPI_LEN: usize = 8;

impl IkeSa {
    /// Makes the successor, which takes slot, children and identities. The peer, who asked, is its
    /// original initiator; Message IDs start at 0 again (RFC 7296 §2.18).
    pub(super) fn rekey(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let established = self
            .established()
            .ok_or(PeerError::Syntax("rekeying before authentication"))?;
        established.may_be_rekeyed()?;
        let offered = &payloads.require_sa()?.proposals;
        let configured = &established.connection.proposals;
        let chosen = select_ike(offered, configured, IKE_SPI_LEN).map_err(PolicyError::from)?;
        let remote_spi = <[u8; IKE_SPI_LEN]>::try_from(chosen.peer_spi.as_slice())
            .ok()
            .filter(|spi| *spi != [0; IKE_SPI_LEN])
            .ok_or(PeerError::Syntax("SPI of the new IKE SA is zero"))?;
        let nonce_i = payloads.require_nonce()?.data;
        let (shared, public) = exchange::agree_on(core, chosen.suite.ke, payloads.ke)?;
        let crypto = &*core.crypto;
        let local_spi = spi::draw_ike(crypto, core.config.member, |spi| {
            core.ike_spis.contains(spi)
        })
        .ok_or(LocalError::NoSpi)?;
        let nonce_r = draw_nonce(crypto);
        let mut message = MessageBuilder::new(request.header.to_response());
        message
            .push(&Payload::Sa(SaRepr {
                proposals: vec![chosen.answer(&local_spi)],
            }))
            .push(&Payload::Nonce(NonceRepr { data: &nonce_r }))
            .push(&Payload::Ke(KeRepr {
                method: chosen.suite.ke.transform_id(),
                data: &public,
            }));
        let inputs = KeyInputs {
            nonces: (nonce_i.to_vec(), nonce_r.to_vec()),
            shared: vec![shared],
        };
        let (spis, proposal) = ((local_spi, remote_spi), chosen.suite);
        self.drop_successor_to_be(core);
        self.note_ike_rival(local_spi, inputs.lowest_nonce());
        core.ike_spis.insert(local_spi);
        if !proposal.additional.is_empty() {
            let follow_up = FollowUp {
                settled: Settled::Ike {
                    local_spi,
                    remote_spi,
                    proposal,
                },
                inputs,
                pending: proposal.additional.iter().collect(),
            };
            let answer = (request, message);
            return Ok(self.await_follow_up(core, now, answer, follow_up));
        }
        let successor =
            self.finish_successor(core, now, Role::Responder, (spis, proposal), &inputs)?;
        let answer = Answer { request, message };
        Ok(self.succeeded_by(core, successor, answer))
    }

    /// The successor inherits, unless we are rekeying too: then the nonces decide later (RFC 7296
    /// §2.8.2).
    pub(super) fn succeeded_by(
        &mut self,
        core: &mut Core,
        mut successor: Self,
        answer: Answer,
    ) -> Step {
        if self.rival() != Some(successor.local_spi) {
            successor.inherit(core, self);
        }
        Step::Rekeyed(Box::new(successor), answer)
    }

    /// RFC 7296 §2.8.2: if we are rekeying too, the nonces decide later who inherits the children.
    fn note_ike_rival(&mut self, spi: [u8; 8], lowest_nonce: &[u8]) {
        let outstanding = self
            .established_mut()
            .and_then(|e| e.outstanding.as_deref_mut());
        if let Some(outstanding) = outstanding
            && let Purpose::RekeyIke(offer) = &mut outstanding.request.purpose
        {
            offer.rival = Some(Rival {
                spi,
                lowest_nonce: lowest_nonce.to_vec(),
            });
        }
    }

    /// A successor's state, without children.
    pub(in crate::sa) fn heir(&self, core: &Core, now: Instant) -> Result<Established, IkeError> {
        let established = self
            .established()
            .ok_or(PeerError::Syntax("rekeying before authentication"))?;
        let mut heir = Established::new(
            Arc::clone(&established.connection),
            established.local_id.clone(),
            established.remote_id.clone(),
            now,
        );
        heir.predecessor = Some(self.local_spi);
        heir.peer_syncs = established.peer_syncs;
        heir.set_lifetimes(core, now);
        // The peer was authenticated when the first one was made.
        heir.reauth_at = established.reauth_at;
        heir.end_after_reauthentication();
        Ok(heir)
    }

    /// Takes the children of `old`, and what was to be done about them. From then on `old` only
    /// waits to be deleted (RFC 7296 §2.18).
    pub(crate) fn inherit(&mut self, core: &mut Core, old: &mut Self) {
        let spi = self.local_spi;
        let (Some(heir), Some(old)) = (self.established_mut(), old.established_mut()) else {
            return;
        };
        for child in &old.children {
            core.esp_spis.assign(child.sa.spi_in, spi);
        }
        for child in std::mem::take(&mut old.children) {
            // A member that died between the two records has left them with both.
            match heir.child(child.sa.spi_in) {
                Some(inherited) => {
                    core.cancel_lifetime(&child);
                    core.start_lifetime(inherited);
                }
                None => heir.children.push(child),
            }
        }
        heir.unwanted.append(&mut old.unwanted);
        for task in old.take_children_tasks() {
            heir.tasks.insert(task);
        }
        old.replaced = true;
        old.dirty = true;
        heir.dirty = true;
        self.catch_up();
    }

    /// Whether it knows of a successor (our SPI), so that the exchange that made that one has ended
    /// on our side. A rival is known before: as long as additional key exchanges are awaited, it is
    /// not there.
    pub(crate) fn knows_successor(&self, spi: [u8; 8]) -> bool {
        let awaited = self
            .established()
            .is_some_and(|e| e.awaits_this_successor(spi));
        self.is_replaced() || (self.rival() == Some(spi) && !awaited)
    }

    /// Whether a request is authentic and something else than a DELETE of the IKE SA.
    pub(crate) fn is_used_by(&self, core: &Core, message: &Message<'_>) -> bool {
        let is_ike = |delete: &DeleteRepr<'_>| delete.protocol == ProtocolId::IKE;
        match self.peek(core, message) {
            Some(Some(opened)) => opened
                .payloads()
                .is_ok_and(|payloads| !payloads.deletes.iter().any(is_ike)),
            // Nobody sends a DELETE of the IKE SA, which is short, in fragments.
            Some(None) => true,
            None => false,
        }
    }

    /// Whether it has a successor.
    pub(crate) fn is_replaced(&self) -> bool {
        self.established().is_some_and(|e| e.replaced)
    }

    /// The peer's successor of this IKE SA that competes with ours (our SPI).
    pub(crate) fn rival(&self) -> Option<[u8; 8]> {
        match &self.established()?.outstanding.as_ref()?.request.purpose {
            Purpose::RekeyIke(offer) => offer.rival.as_ref().map(|rival| rival.spi),
            _ => None,
        }
    }
}

impl Established {
    /// RFC 7296 §2.25.1, §2.25.2: not while we close it, or make, rekey or close a CHILD_SA of it.
    fn may_be_rekeyed(&self) -> Result<(), PolicyError> {
        if self.closing {
            return Err(PolicyError::TemporaryFailure("this IKE SA is being closed"));
        }
        if self.replaced {
            return Err(PolicyError::NoAdditionalSas("this IKE SA has a successor"));
        }
        let closes_child = self
            .children
            .iter()
            .any(|child| child.state == ChildState::Closing);
        let busy = match self.outstanding.as_ref().map(|o| &o.request.purpose) {
            Some(Purpose::Child(_) | Purpose::CloseChildren(_)) => true,
            // We have begun with ours, which the peer has answered: that one remains.
            Some(Purpose::RekeyIke(offer)) if offer.follow_up.is_some() => {
                return Err(PolicyError::TemporaryFailure(
                    "this IKE SA is being rekeyed, with additional key exchanges",
                ));
            }
            Some(Purpose::RekeyIke(offer)) => offer.rival.is_some(),
            _ => closes_child || self.awaits_child(),
        };
        if busy {
            return Err(PolicyError::TemporaryFailure(
                "a CHILD_SA of this IKE SA is being made, rekeyed or closed",
            ));
        }
        Ok(())
    }
}
