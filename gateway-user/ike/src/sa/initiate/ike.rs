//! CREATE_CHILD_SA that rekeys the IKE SA itself (RFC 7296 §1.3.2, §2.18), as its initiator.

use gateway_common::time::Instant;

use super::{Draft, Outstanding, Task};
use crate::crypto::KeyExchangeMethod;
use crate::endpoint::{core::Core, spi};
use crate::error::{IkeError, LocalError, PeerError};
use crate::keys::{IkeKeys, Skeyseed};
use crate::proposal::{IkeProposal, agreed_ike, offer_ike};
use crate::record::{IkeOffer, KeyExchangeState, Purpose, Rival, Role};
use crate::sa::reassembly::Incoming;
use crate::sa::window::Window;
use crate::sa::{IkeSa, State, Step, draw_nonce, fresh_ivs};
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
        let suites = IkeProposal::for_rekeying(&suites);
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
        match self.make_successor(core, now, outstanding, &offer, payloads) {
            Ok((successor, lowest)) => {
                let lost = offer
                    .rival
                    .as_ref()
                    .is_some_and(|rival| lowest < rival.lowest_nonce);
                if let Some(established) = self.established_mut() {
                    established.refused_since = None;
                    established.retried = false;
                }
                Ok(Step::Succeeded(Box::new(Succession {
                    successor,
                    rival: offer.rival.map(|rival| rival.spi),
                    lost,
                })))
            }
            Err(error) => {
                core.ike_spis.remove(&offer.spi);
                Err(error)
            }
        }
    }

    fn rekey_declined(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &IkeOffer,
        notify: &NotifyRepr<'_>,
    ) -> Step {
        if let Some(Rival { spi, .. }) = &offer.rival {
            // RFC 7296 §2.8.2: the peer did not notice, and its successor is the only one.
            return Step::Conceded(*spi);
        }
        match notify.kind {
            NotifyType::TEMPORARY_FAILURE => self.refused_for_now(core, now, Task::RekeyIke),
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

    /// Checks what the peer agreed to against what we offered, and derives the keys. With the lower
    /// one of the exchange's nonces.
    fn make_successor(
        &mut self,
        core: &mut Core,
        now: Instant,
        outstanding: &Outstanding,
        offer: &IkeOffer,
        payloads: &Payloads<'_>,
    ) -> Result<(Self, Vec<u8>), IkeError> {
        let request = self.own_request(core, outstanding)?;
        let ours = request.payloads()?;
        let (suite, remote_spi) = agreed_suite(ours.require_sa()?, payloads.require_sa()?)?;
        let (nonce_i, nonce_r) = (ours.require_nonce()?.data, payloads.require_nonce()?.data);
        let state = Some(&offer.ke).filter(|state| state.method == suite.ke);
        let shared = agree(core, state, suite.ke, payloads)?;
        let crypto = &*core.crypto;
        // RFC 7296 §2.18: SKEYSEED by the old PRF, everything else by the new one.
        let old_prf = self.proposal.prf;
        let skeyseed = Skeyseed::rekeyed(crypto, old_prf, &self.keys.d, &shared, nonce_i, nonce_r);
        let keys = IkeKeys::derive(
            crypto,
            suite.prf,
            suite.encryption,
            &skeyseed,
            (nonce_i, nonce_r),
            (&offer.spi, &remote_spi),
        )?;
        let successor = Self {
            local_spi: offer.spi,
            remote_spi,
            role: Role::Initiator,
            slot: self.slot,
            path: self.path,
            nat: self.nat,
            announced: true,
            began: None,
            proposal: suite,
            keys,
            ivs: fresh_ivs(&core.config),
            window: Window::resume(0, None),
            transport: self.transport.clone(),
            incoming: Incoming::default(),
            state: State::Established(Box::new(self.heir(core, now)?)),
        };
        Ok((successor, nonce_i.min(nonce_r).to_vec()))
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
