//! CREATE_CHILD_SA for CHILD_SAs (RFC 7296 §1.3.1, §1.3.3), as its initiator.

use std::sync::Arc;

use gateway_common::time::Instant;

use super::follow_up::follow;
use super::{Clock, Draft, Installing, Outstanding, Task};
use crate::config::ChildConfig;
use crate::crypto::KeyExchangeMethod;
use crate::endpoint::core::Core;
use crate::endpoint::spi::FIRST_ESP_SPI;
use crate::error::{IkeError, LocalError, PeerError, PolicyError};
use crate::output::{ChildSa, KernelRequest, Path, TrafficSelector};
use crate::proposal::{AdditionalKes, EspExchange, EspProposal, agreed_esp, offer_esp};
use crate::record::{
    ChildOffer, ChildState, FollowUp, KeyExchangeState, KeyInputs, Purpose, Role, Settled,
};
use crate::sa::clock::draw_quota;
use crate::sa::follow_up::unkeyed;
use crate::sa::{IkeSa, Step, draw_nonce};
use crate::selector::narrow_both;
use crate::wire::{
    ExchangeType, KeRepr, MessageBuilder, NonceRepr, NotifyRepr, NotifyType, Opened, Payload,
    Payloads, SaRepr, TsRepr,
};

/// What we offered, and where.
pub(in crate::sa) struct Offered<'a> {
    pub(in crate::sa) offer: &'a ChildOffer,
    /// Those of IKE_SA_INIT, if the exchange is IKE_AUTH, which has none.
    pub(in crate::sa) nonces: Option<(&'a [u8], &'a [u8])>,
}

/// What a CHILD_SA is made after: its configuration or, if that is gone, its predecessor.
struct Model {
    name: String,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
    suites: Vec<EspProposal>,
}

impl Model {
    fn configured(config: &ChildConfig, path: Path) -> Self {
        let (local_ts, remote_ts) = config.selectors(path.ends());
        Self {
            name: config.name.clone(),
            local_ts,
            remote_ts,
            suites: config.esp_proposals.clone(),
        }
    }

    fn inherited(old: &ChildSa) -> Self {
        Self {
            name: old.name.clone(),
            local_ts: old.local_ts.clone(),
            remote_ts: old.remote_ts.clone(),
            suites: vec![EspProposal {
                encryption: old.encryption,
                ke: None,
                additional: AdditionalKes::NONE,
                esn: old.esn,
            }],
        }
    }
}

impl IkeSa {
    pub(super) fn draft_rekey_child(
        &mut self,
        core: &mut Core,
        spi: [u8; 4],
    ) -> Result<Option<Draft>, IkeError> {
        let Some(established) = self.established() else {
            return Ok(None);
        };
        let Some(old) = established
            .child(spi)
            .filter(|child| child.state == ChildState::Current)
        else {
            return Ok(None);
        };
        let model = match established.child_config(&old.sa.name) {
            Some(config) => Model::configured(config, self.path),
            None => Model::inherited(&old.sa),
        };
        self.draft_child_offer(core, &model, Some(spi)).map(Some)
    }

    pub(super) fn draft_child(
        &mut self,
        core: &mut Core,
        name: &str,
    ) -> Result<Option<Draft>, IkeError> {
        let Some(config) = self.established().and_then(|e| e.child_config(name)) else {
            return Ok(None);
        };
        let model = Model::configured(config, self.path);
        self.draft_child_offer(core, &model, None).map(Some)
    }

    fn draft_child_offer(
        &mut self,
        core: &mut Core,
        model: &Model,
        rekeys: Option<[u8; 4]>,
    ) -> Result<Draft, IkeError> {
        let header = self.next_header(ExchangeType::CREATE_CHILD_SA)?;
        let wanted = self.established_mut().and_then(|e| e.wanted_ke.take());
        let method = wanted
            .filter(|wanted| model.suites.iter().any(|suite| suite.ke == Some(*wanted)))
            .or_else(|| model.suites.iter().find_map(|suite| suite.ke));
        let exchange = method
            .map(|method| core.crypto.key_exchange(method))
            .transpose()?;
        let nonce = draw_nonce(&*core.crypto);
        let spi_in = core
            .esp_spis
            .draw(&*core.crypto, core.config.member, self.local_spi)
            .ok_or(LocalError::NoSpi)?;
        let mut message = MessageBuilder::new(header);
        if let Some(spi) = &rekeys {
            message.push(&Payload::Notify(NotifyRepr::esp(NotifyType::REKEY_SA, spi)));
        }
        let proposals = offer_esp(&model.suites, spi_in, EspExchange::CreateChildSa);
        message
            .push(&Payload::Sa(SaRepr { proposals }))
            .push(&Payload::Nonce(NonceRepr { data: &nonce }));
        if let Some(exchange) = &exchange {
            message.push(&Payload::Ke(KeRepr {
                method: exchange.method().transform_id(),
                data: exchange.public_value(),
            }));
        }
        message
            .push(&Payload::TsInitiator(TsRepr {
                selectors: model.local_ts.clone(),
            }))
            .push(&Payload::TsResponder(TsRepr {
                selectors: model.remote_ts.clone(),
            }));
        let offer = ChildOffer {
            name: model.name.clone(),
            spi_in,
            rekeys,
            ke: exchange.map(|exchange| KeyExchangeState {
                method: exchange.method(),
                private: exchange.export(),
            }),
            rival: None,
            deleted: Vec::new(),
            follow_up: None,
        };
        Ok(Draft {
            message_id: header.message_id,
            message,
            purpose: Purpose::Child(offer),
        })
    }

    /// The peer has answered an offer.
    pub(super) fn child_answered(
        &mut self,
        core: &mut Core,
        now: Instant,
        mut outstanding: Outstanding,
        offer: &ChildOffer,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        if let Some(notify) = payloads.error_notify() {
            core.esp_spis.release(&offer.spi_in);
            return Ok(self.child_declined(core, now, offer, notify));
        }
        let follow_up = match &offer.follow_up {
            None => {
                let nonces = None;
                self.settle_child(core, &outstanding, &Offered { offer, nonces }, payloads)
            }
            Some(follow_up) => follow(core, follow_up, offer.ke.as_ref(), payloads),
        };
        let follow_up = match follow_up {
            Ok(follow_up) => follow_up,
            Err(error) => {
                core.esp_spis.release(&offer.spi_in);
                // The peer believes in a CHILD_SA that we do not have.
                self.delete_at_peer(offer.spi_in);
                if error.is_fatal(false) {
                    return Err(error);
                }
                self.failed(core, "CHILD_SA", &error);
                self.try_child_again(core, now, offer);
                return Ok(Step::Waiting);
            }
        };
        if !follow_up.pending.is_empty() {
            return self.follow_child(core, now, offer, follow_up, payloads);
        }
        let installing = self.installing(core, &follow_up)?;
        if offer.deleted.contains(&installing.child.spi_out) {
            // Its DELETE has overtaken the response.
            core.esp_spis.release(&offer.spi_in);
            self.try_child_again(core, now, offer);
            return Ok(Step::Waiting);
        }
        core.out.kernel(KernelRequest::Install {
            child: installing.child.clone(),
            replaces: installing.replaces,
        });
        outstanding.installing = Some(Box::new(installing));
        if let Some(established) = self.established_mut() {
            established.outstanding = Some(Box::new(outstanding));
        }
        let deadline = now + core.config.limits.kernel_timeout;
        self.set_clock(core, Clock::Install, deadline);
        Ok(Step::Waiting)
    }

    /// The CHILD_SA of IKE_AUTH, as [`Self::settle_child`] and with its keys.
    pub(in crate::sa) fn take_child(
        &self,
        core: &mut Core,
        outstanding: &Outstanding,
        offered: &Offered<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<Installing, IkeError> {
        let follow_up = self.settle_child(core, outstanding, offered, payloads)?;
        self.installing(core, &follow_up)
    }

    /// A child whose key exchanges are complete.
    fn installing(&self, core: &mut Core, follow_up: &FollowUp) -> Result<Installing, IkeError> {
        let Settled::Child { sa, rekeys } = &follow_up.settled else {
            return Err(PeerError::Syntax("an IKE SA where a CHILD_SA is made").into());
        };
        let child = self.finish_child(core, Role::Initiator, sa, &follow_up.inputs)?;
        let old = rekeys.and_then(|spi| self.established()?.child(spi));
        Ok(Installing {
            child: Box::new(child),
            replaces: old.map(|child| child.sa.id()),
            lowest_nonce: follow_up.inputs.lowest_nonce().to_vec(),
        })
    }

    /// Checks what the peer agreed to against what we offered.
    fn settle_child(
        &self,
        core: &Core,
        outstanding: &Outstanding,
        offered: &Offered<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<FollowUp, IkeError> {
        let offer = offered.offer;
        let request = self.own_request(core, outstanding)?;
        let ours = request.payloads()?;
        let (suite, spi_out) = agreed_suite(ours.require_sa()?, payloads.require_sa()?)?;
        let (nonce_i, nonce_r) = match offered.nonces {
            Some(nonces) => nonces,
            None => (ours.require_nonce()?.data, payloads.require_nonce()?.data),
        };
        let shared = match suite.ke {
            Some(method) => {
                let state = offer.ke.as_ref().filter(|state| state.method == method);
                Some(super::ike::agree(core, state, method, payloads)?)
            }
            None => None,
        };
        let established = self.established().ok_or(PeerError::Syntax("no IKE SA"))?;
        let old = offer.rekeys.and_then(|spi| established.child(spi));
        let traffic = narrow_both(
            (
                &ours.require_ts_initiator()?.selectors,
                &ours.require_ts_responder()?.selectors,
            ),
            (
                &payloads.require_ts_initiator()?.selectors,
                &payloads.require_ts_responder()?.selectors,
            ),
        )
        .map_err(PolicyError::from)?;
        let config = established.child_config(&offer.name);
        let model = old.map(|child| &child.sa);
        if config.is_none() && model.is_none() {
            let spi = offer.rekeys.unwrap_or_default();
            return Err(PolicyError::ChildSaNotFound { spi }.into());
        }
        let child = ChildSa {
            name: offer.name.clone(),
            connection: established.connection.name.clone(),
            slot: self.slot,
            spi_in: offer.spi_in,
            spi_out,
            local: self.path.local.ip(),
            remote: self.path.remote.ip(),
            encap: self.encap(self.path),
            encryption: suite.encryption,
            key_in: unkeyed(suite.encryption),
            key_out: unkeyed(suite.encryption),
            esn: suite.esn,
            replay_window: inherit(config, model, |c| c.replay_window, |o| o.replay_window),
            local_ts: traffic.local,
            remote_ts: traffic.remote,
            if_id_in: inherit(config, model, |c| c.if_id_in, |o| o.if_id_in),
            if_id_out: inherit(config, model, |c| c.if_id_out, |o| o.if_id_out),
            marks: inherit(config, model, |c| c.marks, |o| o.marks),
            hard_lifetime_seconds: inherit(
                config,
                model,
                |c| c.life_time.as_secs(),
                |o| o.hard_lifetime_seconds,
            ),
            quota: inherit(
                config,
                model,
                |c| draw_quota(&*core.crypto, c.volume),
                |o| o.quota,
            ),
        };
        Ok(FollowUp {
            settled: Settled::Child {
                sa: Box::new(child),
                rekeys: offer.rekeys,
            },
            inputs: KeyInputs {
                nonces: (nonce_i.to_vec(), nonce_r.to_vec()),
                shared: shared.into_iter().collect(),
            },
            pending: suite.additional.iter().collect(),
        })
    }

    /// Our own request, opened again: it says what was offered.
    pub(super) fn own_request(
        &self,
        core: &Core,
        outstanding: &Outstanding,
    ) -> Result<Opened, IkeError> {
        Ok(self.open_own(core, &outstanding.request.bytes)?)
    }

    /// The peer refuses an offer.
    fn child_declined(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &ChildOffer,
        notify: &NotifyRepr<'_>,
    ) -> Step {
        let Some(established) = self.established_mut() else {
            return Step::Waiting;
        };
        let exists = |spi| established.child(spi).is_some();
        // The kernel may still be busy with it.
        let pending = established.pending.as_ref().map(|p| p.child.spi_in);
        let rival = offer.rival.as_ref().map(|rival| rival.spi);
        let awaited = rival.is_some_and(|spi| established.awaits_this_child(spi));
        let rivalled = rival.is_some_and(|spi| exists(spi) || pending == Some(spi));
        match notify.kind {
            // RFC 7296 §2.8.1: "it already knows there was simultaneous rekeying, so it can
            // ignore the error message".
            _ if rivalled => {}
            // The same, and the peer's is still about to be made.
            _ if awaited => self.try_child_again(core, now, offer),
            // RFC 7296 §2.25: "SHOULD silently delete the Child SA (if it still exists) and send a
            // request to create a new Child SA from scratch".
            NotifyType::CHILD_SA_NOT_FOUND => {
                if let Some(old) = offer.rekeys.filter(|spi| exists(*spi)) {
                    self.take_out_child(core, old, "the peer does not have it any more");
                    self.want_child(&offer.name);
                }
            }
            NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND => {
                if let Some(task) = self.child_task(offer) {
                    return self.refused_for_now(core, now, task);
                }
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let sent = offer.ke.as_ref().map(|ke| ke.method);
                let wanted = wanted_method(notify).filter(|wanted| Some(*wanted) != sent);
                match (wanted, self.child_task(offer)) {
                    (Some(wanted), Some(task)) => self.retry_with(core, now, wanted, task),
                    _ => self.try_child_again(core, now, offer),
                }
            }
            _ => self.try_child_again(core, now, offer),
        }
        Step::Waiting
    }

    /// RFC 7296 §1.3: at once, with the key exchange that the peer wants; if that was a retry
    /// already, later.
    pub(super) fn retry_with(
        &mut self,
        core: &mut Core,
        now: Instant,
        wanted: KeyExchangeMethod,
        task: Task,
    ) {
        let Some(established) = self.established_mut() else {
            return;
        };
        if std::mem::replace(&mut established.retried, true) {
            established.retried = false;
            self.defer(core, now, task);
        } else {
            established.wanted_ke = Some(wanted);
            self.add_task(task);
        }
    }

    /// What an offer was made for, if that is still wanted.
    fn child_task(&self, offer: &ChildOffer) -> Option<Task> {
        match offer.rekeys {
            Some(spi) => self
                .established()
                .and_then(|e| e.child(spi))
                .map(|_| Task::RekeyChild(spi)),
            None => Some(Task::CreateChild(offer.name.clone())),
        }
    }

    pub(in crate::sa) fn try_child_again(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &ChildOffer,
    ) {
        if let Some(task) = self.child_task(offer) {
            self.defer(core, now, task);
        }
    }

    pub(in crate::sa) fn delete_at_peer(&mut self, spi: [u8; 4]) {
        if let Some(established) = self.established_mut() {
            established.unwanted.push(spi);
        }
        self.add_task(Task::CloseChildren);
    }
}

impl super::super::Established {
    fn child_config(&self, name: &str) -> Option<&Arc<ChildConfig>> {
        self.connection.children.iter().find(|c| c.name == name)
    }
}

fn inherit<T>(
    config: Option<&Arc<ChildConfig>>,
    old: Option<&ChildSa>,
    configured: impl Fn(&ChildConfig) -> T,
    inherited: impl Fn(&ChildSa) -> T,
) -> T
where
    T: Default,
{
    match (config, old) {
        (Some(config), _) => configured(config),
        (None, Some(old)) => inherited(old),
        (None, None) => T::default(),
    }
}

/// The suite of an answer, if it is one that we offered, and the peer's SPI.
fn agreed_suite(offered: &SaRepr, answered: &SaRepr) -> Result<(EspProposal, [u8; 4]), IkeError> {
    let unacceptable = || PeerError::Syntax("an answer to what was not offered");
    let [answer] = answered.proposals.as_slice() else {
        return Err(unacceptable().into());
    };
    let suite = agreed_esp(&offered.proposals, answer).ok_or_else(unacceptable)?;
    match answer.esp_spi() {
        Some(spi) if u32::from_be_bytes(spi) >= FIRST_ESP_SPI => Ok((suite, spi)),
        _ => Err(PeerError::Syntax("a reserved SPI").into()),
    }
}

/// The method that an INVALID_KE_PAYLOAD asks for.
pub(super) fn wanted_method(notify: &NotifyRepr<'_>) -> Option<KeyExchangeMethod> {
    let id = <[u8; 2]>::try_from(notify.data).ok()?;
    KeyExchangeMethod::from_transform_id(u16::from_be_bytes(id))
}
