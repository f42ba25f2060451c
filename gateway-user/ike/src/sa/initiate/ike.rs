//! CREATE_CHILD_SA that rekeys the IKE SA itself (RFC 7296 §1.3.2, §2.18), as its initiator.

use gateway_common::time::Instant;

use super::follow_up::follow;
use super::{Draft, Outstanding, Task};
use crate::crypto::KeyExchangeMethod;
use crate::endpoint::{core::Core, spi};
use crate::error::{IkeError, LocalError, PeerError};
use crate::proposal::{IkeProposal, agreed_ike, offer_ike};
use crate::record::{
    FollowUp, IkeOffer, KeyExchangeState, KeyInputs, Purpose, Rival, Role, Settled,
};
use crate::sa::{IkeSa, Step, draw_nonce};
use crate::secret::SecretBytes;
use crate::wire::{
    ExchangeType, KeRepr, MessageBuilder, NonceRepr, NotifyRepr, NotifyType, Payload, Payloads,
    SaRepr,
};

/// The outcome of our rekeying of an IKE SA. The endpoint, which has all three, decides who
/// inherits the children.
pub(crate) struct Succession {
    /// What we made, without children.
    pub(crate) successor: IkeSa,
    /// What the peer made meanwhile (our SPI).
    pub(crate) rival: Option<[u8; 8]>,
    /// Ours has the lowest nonce, so it is to be closed if the rival still is (RFC 7296 §2.8.2).
    pub(crate) lost: bool,
    /// Ours is to be closed, and the peer's is still to come (RFC 9370 §2.2.4).
    pub(crate) rival_to_come: bool,
}

impl IkeSa {
    pub(super) fn draft_rekey(&mut self, core: &mut Core) -> Result<Draft, IkeError> {
        let header = self.next_header(ExchangeType::CREATE_CHILD_SA)?;
        let configured = self
            .established()
            .map(|e| e.connection.proposals.clone())
            .unwrap_or_default();
        // The connection may be gone from the configuration.
        let suites = if configured.is_empty() {
            vec![self.proposal]
        } else {
            configured
        };
        let wanted = self.established_mut().and_then(|e| e.wanted_ke.take());
        let offered = |method: &KeyExchangeMethod| suites.iter().any(|s| s.ke == *method);
        // RFC 7296 §2.18 does not say which one to guess; the one that was agreed on last is best.
        let method = wanted
            .filter(offered)
            .or(Some(self.proposal.ke).filter(offered))
            .unwrap_or(suites[0].ke);
        let exchange = core.crypto.key_exchange(method)?;
        let nonce = draw_nonce(&*core.crypto);
        let new_spi = spi::draw_ike(&*core.crypto, core.config.member, |spi| {
            core.ike_spis.contains(spi)
        })
        .ok_or(LocalError::NoSpi)?;
        core.ike_spis.insert(new_spi);
        let proposals = offer_ike(&suites, &new_spi);
        let message = MessageBuilder::new(header)
            .with(&Payload::Sa(SaRepr { proposals }))
            .with(&Payload::Nonce(NonceRepr { data: &nonce }))
            .with(&Payload::Ke(KeRepr {
                method: method.transform_id(),
                data: exchange.public_value(),
            }));
        Ok(Draft {
            message_id: header.message_id,
            message,
            purpose: Purpose::RekeyIke(IkeOffer {
                spi: new_spi,
                ke: KeyExchangeState {
                    method,
                    private: exchange.export(),
                },
                rival: None,
                follow_up: None,
            }),
        })
    }

    /// The peer has answered an offer.
    pub(super) fn rekey_answered(
        &mut self,
        core: &mut Core,
        now: Instant,
        outstanding: &Outstanding,
        offer: IkeOffer,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        if let Some(notify) = payloads.error_notify() {
            core.ike_spis.remove(&offer.spi);
            return Ok(self.rekey_declined(core, now, &offer, notify));
        }
        let follow_up = match &offer.follow_up {
            None => self.settle_successor(core, outstanding, &offer, payloads),
            Some(follow_up) => follow(core, follow_up, Some(&offer.ke), payloads),
        };
        let follow_up = follow_up.inspect_err(|_| {
            core.ike_spis.remove(&offer.spi);
        })?;
        if !follow_up.pending.is_empty() {
            return self.follow_successor(core, now, offer, follow_up, payloads);
        }
        let Settled::Ike {
            local_spi,
            remote_spi,
            proposal,
        } = follow_up.settled
        else {
            return Err(PeerError::Syntax("a CHILD_SA where an IKE SA is made").into());
        };
        let new = ((local_spi, remote_spi), proposal);
        let inputs = &follow_up.inputs;
        let successor = self.finish_successor(core, now, Role::Initiator, new, inputs)?;
        let (rival, lost, rival_to_come) = self.judge(core, &offer, inputs.lowest_nonce());
        if let Some(established) = self.established_mut() {
            established.refused_since = None;
            established.retried = false;
        }
        Ok(Step::Succeeded(Box::new(Succession {
            successor,
            rival,
            lost,
            rival_to_come,
        })))
    }

    /// Which SA the peer's exchange makes or made (our SPI), if it rekeys too; whether ours has the
    /// lowest nonce (RFC 7296 §2.8.2), and if so, whether the peer's is still to come. If not, the
    /// peer does not go on with its own (RFC 9370 §2.2.4).
    fn judge(
        &mut self,
        core: &mut Core,
        offer: &IkeOffer,
        ours: &[u8],
    ) -> (Option<[u8; 8]>, bool, bool) {
        let Some(rival) = &offer.rival else {
            return (None, false, false);
        };
        let lost = ours < rival.lowest_nonce.as_slice();
        let to_come = self
            .established()
            .is_some_and(|e| e.awaits_this_successor(rival.spi));
        if to_come && !lost {
            self.drop_successor_to_be(core);
        }
        let there = (!to_come).then_some(rival.spi);
        (there, lost, lost && to_come)
    }

    /// Goes on with the next additional key exchange, unless the peer's rekeying is to remain.
    fn follow_successor(
        &mut self,
        core: &mut Core,
        now: Instant,
        mut offer: IkeOffer,
        follow_up: FollowUp,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let (rival, lost, _) = self.judge(core, &offer, follow_up.inputs.lowest_nonce());
        if lost || self.established().is_none_or(|e| e.closing) {
            core.ike_spis.remove(&offer.spi);
            if lost {
                // RFC 9370 §2.2.4: there is nothing to delete yet. Should the peer not go on, either:
                self.defer(core, now, Task::RekeyIke);
            }
            return Ok(rival.filter(|_| lost).map_or(Step::Waiting, Step::Conceded));
        }
        offer.rival = offer.rival.filter(|_| rival.is_some());
        let spi = offer.spi;
        let sent = self.draft_follow_up(core, &follow_up, payloads).and_then(
            |(message_id, message, ke)| {
                let purpose = Purpose::RekeyIke(IkeOffer {
                    ke,
                    follow_up: Some(Box::new(follow_up)),
                    ..offer
                });
                let draft = Draft {
                    message_id,
                    message,
                    purpose,
                };
                self.send_request(core, now, draft)
            },
        );
        sent.inspect_err(|_| {
            core.ike_spis.remove(&spi);
        })?;
        Ok(Step::Waiting)
    }

    fn rekey_declined(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &IkeOffer,
        notify: &NotifyRepr<'_>,
    ) -> Step {
        if let Some(Rival { spi, .. }) = &offer.rival {
            let e = self.established();
            if e.is_some_and(|e| e.awaits_this_successor(*spi)) {
                // The same, and it is still about to be made.
                self.defer(core, now, Task::RekeyIke);
                return Step::Waiting;
            }
            // RFC 7296 §2.8.2: the peer did not notice, and its successor is the only one.
            return Step::Conceded(*spi);
        }
        match notify.kind {
            NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND => {
                self.refused_for_now(core, now, Task::RekeyIke)
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let wanted =
                    super::child::wanted_method(notify).filter(|method| *method != offer.ke.method);
                match wanted {
                    Some(wanted) => self.retry_with(core, now, wanted, Task::RekeyIke),
                    None => self.defer(core, now, Task::RekeyIke),
                }
                Step::Waiting
            }
            _ => {
                self.defer(core, now, Task::RekeyIke);
                Step::Waiting
            }
        }
    }

    /// Checks what the peer agreed to against what we offered.
    fn settle_successor(
        &self,
        core: &Core,
        outstanding: &Outstanding,
        offer: &IkeOffer,
        payloads: &Payloads<'_>,
    ) -> Result<FollowUp, IkeError> {
        let request = self.own_request(core, outstanding)?;
        let ours = request.payloads()?;
        let (suite, remote_spi) = agreed_suite(ours.require_sa()?, payloads.require_sa()?)?;
        let (nonce_i, nonce_r) = (ours.require_nonce()?.data, payloads.require_nonce()?.data);
        let state = Some(&offer.ke).filter(|state| state.method == suite.ke);
        let shared = agree(core, state, suite.ke, payloads)?;
        Ok(FollowUp {
            settled: Settled::Ike {
                local_spi: offer.spi,
                remote_spi,
                proposal: suite,
            },
            inputs: KeyInputs {
                nonces: (nonce_i.to_vec(), nonce_r.to_vec()),
                shared: vec![shared],
            },
            pending: suite.additional.iter().collect(),
        })
    }
}

/// g^ir of a key exchange whose private half we kept.
pub(super) fn agree(
    core: &Core,
    ours: Option<&KeyExchangeState>,
    method: KeyExchangeMethod,
    payloads: &Payloads<'_>,
) -> Result<SecretBytes, IkeError> {
    let theirs = payloads.require_ke()?;
    // RFC 7296 §1.3: with another method than that of our KE payload it had to be refused.
    let ours = ours
        .filter(|_| theirs.method == method.transform_id())
        .ok_or(PeerError::Syntax("a key exchange that was not offered"))?;
    let exchange = core.crypto.import_key_exchange(method, &ours.private)?;
    Ok(exchange.agree(theirs.data)?)
}

fn agreed_suite(offered: &SaRepr, answered: &SaRepr) -> Result<(IkeProposal, [u8; 8]), IkeError> {
    let unacceptable = || PeerError::Syntax("an answer to what was not offered");
    let [answer] = answered.proposals.as_slice() else {
        return Err(unacceptable().into());
    };
    let suite = agreed_ike(&offered.proposals, answer).ok_or_else(unacceptable)?;
    match answer.ike_spi() {
        Some(spi) if spi != [0; 8] => Ok((suite, spi)),
        _ => Err(PeerError::Syntax("SPI of the new IKE SA is zero").into()),
    }
}
