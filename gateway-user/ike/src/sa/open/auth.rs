//! IKE_AUTH as its initiator (RFC 7296 §1.2, §2.15, §2.21.2).

use gateway_common::time::Instant;

use super::init::Opened;
use super::{ExpectAuthResponse, Negotiated, Overdue, Resend};
use crate::auth::{Proven, denied, identity, push_identity};
use crate::config::ChildConfig;
use crate::endpoint::core::Core;
use crate::error::{IkeError, LocalError, PeerError};
use crate::output::{EventKind, KernelRequest, Path};
use crate::proposal::{AdditionalKes, EspExchange, EspProposal, offer_esp};
use crate::record::{ChildOffer, OutstandingRequest, Purpose, Role};
use crate::sa::initiate::{Offered, Outstanding};
use crate::sa::reassembly::{Incoming, Unsealed};
use crate::sa::window::Window;
use crate::sa::{Clock, Established, IkeSa, Intermediate, Silence, State, Step, fresh_ivs};
use crate::wire::{
    ExchangeType, HeaderRepr, Message, MessageBuilder, NotifyRepr, NotifyType, Opened as Content,
    Payload, Payloads, SaRepr, TsRepr,
};

/// Message ID of what follows IKE_SA_INIT.
const FIRST_MESSAGE_ID: u32 = 1;

impl IkeSa {
    /// Sends IKE_AUTH under the keys that IKE_SA_INIT has made, or what was agreed on to come before
    /// it.
    ///
    /// # Errors
    /// Nothing to authenticate with, and failures of our own; then nothing is reserved.
    pub(super) fn send_auth(
        core: &mut Core,
        now: Instant,
        opened: Opened,
        negotiated: Negotiated,
    ) -> Result<Box<Self>, IkeError> {
        let (local_spi, path) = (opened.local_spi, opened.path);
        let (slot, began) = (negotiated.plan.slot, negotiated.plan.began);
        let offer = match &negotiated.plan.child {
            Some(child) => Some(draw_offer(core, local_spi, child)?),
            None => None,
        };
        let mut sa = Box::new(Self {
            local_spi,
            remote_spi: opened.remote_spi,
            role: Role::Initiator,
            slot,
            path,
            nat: opened.nat,
            announced: false,
            began: Some(began),
            proposal: opened.proposal,
            keys: opened.keys,
            ivs: fresh_ivs(&core.config),
            // The peer's first request has Message ID 0 (RFC 7296 §2.2).
            window: Window::resume(0, None),
            transport: opened.transport,
            incoming: Incoming::default(),
            state: State::ExpectAuthResponse(Box::new(ExpectAuthResponse {
                negotiated,
                offer,
                intermediate: Intermediate::of(&opened.proposal),
                additional: None,
                message_id: FIRST_MESSAGE_ID,
                bytes: Box::default(),
                resend: Resend::start(core, now, local_spi),
            })),
        });
        if let Err(error) = sa.send_opening(core, now) {
            sa.release_opening(core);
            return Err(error);
        }
        Ok(sa)
    }

    /// The response has not come in time.
    pub(crate) fn auth_overdue(&mut self, core: &mut Core, now: Instant) -> Overdue {
        let (path, slot) = (self.path, self.slot);
        let State::ExpectAuthResponse(state) = &mut self.state else {
            return Overdue::Again;
        };
        if !state.resend.again(core, now) {
            return Overdue::GivenUp;
        }
        core.out.transmit(path, state.bytes.to_vec(), slot, None);
        Overdue::Again
    }

    /// Gives up what was reserved for the response.
    pub(crate) fn release_opening(&self, core: &mut Core) {
        if let State::ExpectAuthResponse(state) = &self.state {
            state.resend.stop(core);
            if let Some(offer) = &state.offer {
                core.esp_spis.release(&offer.spi_in);
            }
        }
    }

    /// Takes a response while IKE_AUTH is outstanding. Nothing changes before its integrity check
    /// succeeds.
    pub(in crate::sa) fn handle_auth_response(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
    ) -> Step {
        let State::ExpectAuthResponse(state) = &self.state else {
            return Step::Dropped(Silence::UnexpectedResponse);
        };
        let header = message.header();
        let exchange = match state.additional {
            Some(_) => ExchangeType::IKE_INTERMEDIATE,
            None => ExchangeType::IKE_AUTH,
        };
        if header.message_id != state.message_id || header.exchange != exchange {
            return Step::Dropped(Silence::UnexpectedResponse);
        }
        let opened = match self.unseal(core, now, message) {
            Ok(Some(whole)) => whole.opened,
            Ok(None) => return Step::Waiting,
            Err(Unsealed::Dropped(silence)) => return Step::Dropped(silence),
            Err(Unsealed::Malformed(error)) => return self.reject_response(core, &error.into()),
        };
        core.counters.response(exchange);
        let step = if exchange == ExchangeType::IKE_AUTH {
            self.take_auth(core, now, &opened)
        } else {
            self.take_intermediate_response(core, now, message, &opened)
        };
        match step {
            Ok(step) => step,
            Err(error) => self.reject_response(core, &error),
        }
    }

    fn take_auth(
        &mut self,
        core: &mut Core,
        now: Instant,
        opened: &Content,
    ) -> Result<Step, IkeError> {
        let payloads = opened.payloads()?;
        if let Some(notify) = payloads.error_notify().filter(|_| payloads.auth.is_none()) {
            return Ok(Step::Unopened(self.refused_by_peer(notify)));
        }
        let peer = self.verify_peer(core, now, &payloads)?;
        let State::ExpectAuthResponse(state) = &self.state else {
            return Ok(Step::Waiting);
        };
        state.resend.stop(core);
        let (connection, message_id) = (
            std::sync::Arc::clone(&state.negotiated.plan.connection),
            state.message_id,
        );
        let offer = state.offer.clone();
        let nonces = {
            let transcript = &state.negotiated.transcript;
            (transcript.nonce_i.clone(), transcript.nonce_r.clone())
        };
        let bytes = state.bytes.clone();
        if let Some(keys) = peer.keys {
            self.keys = keys;
        }
        if connection.transport.mobike && payloads.has_notify(NotifyType::MOBIKE_SUPPORTED) {
            self.take_mobike(&payloads);
        }
        let local_id = connection.local_id.clone();
        let mut established = Established::new(connection, local_id, peer.remote_id, now);
        established.next_request = u64::from(message_id) + 1;
        established.peer_syncs = payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED);
        established.set_lifetimes(core, now);
        self.state = State::Established(Box::new(established));
        if let Some(gateway) = self.take_redirect(&payloads) {
            if let Some(offer) = &offer {
                core.esp_spis.release(&offer.spi_in);
            }
            return Ok(Step::OpenedElsewhere(gateway));
        }
        let Some(offer) = offer else {
            return Ok(Step::Opened);
        };
        let request = OutstandingRequest {
            message_id,
            bytes,
            purpose: Purpose::Child(offer.clone()),
        };
        let mut outstanding = Outstanding::resume(request);
        Ok(self
            .take_first_child(core, now, &mut outstanding, &offer, &payloads, &nonces)
            .map_or(Step::Opened, |()| {
                if let Some(established) = self.established_mut() {
                    established.outstanding = Some(Box::new(outstanding));
                }
                let deadline = now + core.config.limits.kernel_timeout;
                self.set_clock(core, Clock::Install, deadline);
                Step::Waiting
            }))
    }

    /// Asks the kernel for the CHILD_SA of IKE_AUTH. `None` if there will be none: the IKE SA stands
    /// without it (RFC 7296 §1.2: "the IKE SA […] is still created").
    fn take_first_child(
        &mut self,
        core: &mut Core,
        now: Instant,
        outstanding: &mut Outstanding,
        offer: &ChildOffer,
        payloads: &Payloads<'_>,
        nonces: &(Box<[u8]>, Box<[u8]>),
    ) -> Option<()> {
        if let Some(notify) = payloads.error_notify() {
            core.esp_spis.release(&offer.spi_in);
            self.child_of_auth_declined(core, now, offer, notify);
            return None;
        }
        let offered = Offered {
            offer,
            nonces: Some((&nonces.0, &nonces.1)),
        };
        match self.take_child(core, outstanding, &offered, payloads) {
            Ok(installing) => {
                core.out.kernel(KernelRequest::Install {
                    child: installing.child.clone(),
                    replaces: None,
                });
                outstanding.installing = Some(Box::new(installing));
                Some(())
            }
            Err(error) => {
                core.esp_spis.release(&offer.spi_in);
                // The peer believes in a CHILD_SA that we do not have.
                self.delete_at_peer(offer.spi_in);
                self.failed(core, "CHILD_SA of IKE_AUTH", &error);
                self.try_child_again(core, now, offer);
                None
            }
        }
    }

    fn child_of_auth_declined(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &ChildOffer,
        notify: &NotifyRepr<'_>,
    ) {
        let reason = match self.child_config(&offer.name) {
            Some(child) => format!(
                "CHILD_SA {}: the peer answers {}; proposed: {}",
                child.name,
                notify.kind,
                describe(child, self.path)
            ),
            None => format!("CHILD_SA {}: the peer answers {}", offer.name, notify.kind),
        };
        self.event(core, EventKind::ExchangeFailed { reason });
        self.try_child_again(core, now, offer);
    }

    /// Who the peer is: the one that the connection is for.
    fn verify_peer(
        &self,
        core: &Core,
        now: Instant,
        payloads: &Payloads<'_>,
    ) -> Result<Proven, IkeError> {
        let State::ExpectAuthResponse(state) = &self.state else {
            return Err(PeerError::Syntax("IKE_AUTH on an established IKE SA").into());
        };
        let connection = &state.negotiated.plan.connection;
        let id = payloads.require_id_responder()?;
        payloads.require_auth()?;
        let remote_id = identity(&id)?;
        if !connection.remote_id.matches(&remote_id) {
            return Err(denied(format!(
                "the peer calls itself {remote_id}, connection {} wants {}",
                connection.name, connection.remote_id
            )));
        }
        let context = self.auth_context(core, now, &state.negotiated.transcript);
        context.verify(connection, &id, payloads)
    }

    pub(super) fn draft_auth(&self, core: &Core, now: Instant) -> Result<MessageBuilder, IkeError> {
        let State::ExpectAuthResponse(state) = &self.state else {
            return Err(PeerError::Syntax("IKE_AUTH on an established IKE SA").into());
        };
        let plan = &state.negotiated.plan;
        let connection = &plan.connection;
        let mut message = MessageBuilder::new(opening_header(
            (self.local_spi, self.remote_spi),
            ExchangeType::IKE_AUTH,
            state.message_id,
        ));
        push_identity(&mut message, Role::Initiator, &connection.local_id);
        let notify = |kind| Payload::Notify(NotifyRepr::new(kind, &[]));
        if plan.initial_contact {
            message.push(&notify(NotifyType::INITIAL_CONTACT));
        }
        // RFC 7296 §1.2: which of its identities we want to talk to.
        if let Some(remote_id) = connection.remote_id.exact() {
            push_identity(&mut message, Role::Responder, remote_id);
        }
        let context = self.auth_context(core, now, &state.negotiated.transcript);
        context.prove(connection, None)?.push_onto(&mut message);
        if let (Some(child), Some(offer)) = (&plan.child, &state.offer) {
            push_child(&mut message, child, offer, self.path);
        }
        // RFC 4555 §3.2.
        if connection.transport.mobike {
            message.push(&notify(NotifyType::MOBIKE_SUPPORTED));
        }
        // RFC 6311 §5: the peer may synchronise Message IDs with us, and we with it.
        message.push(&notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED));
        Ok(message)
    }

    pub(super) fn refused_by_peer(&self, notify: &NotifyRepr<'_>) -> String {
        let plan = self.opening();
        let who = plan.map_or_else(String::new, |plan| {
            let connection = &plan.connection;
            format!(" to {} for {}", connection.local_id, connection.remote_id)
        });
        format!("IKE_AUTH: the peer answers {}{who}", notify.kind)
    }

    /// RFC 7296 §2.21.2: the responder takes us for authenticated, so it is told in an exchange of
    /// its own that it is not. Nobody waits for the answer: there is no IKE SA.
    fn reject_response(&mut self, core: &mut Core, error: &IkeError) -> Step {
        let State::ExpectAuthResponse(state) = &self.state else {
            return Step::Waiting;
        };
        let header = opening_header(
            (self.local_spi, self.remote_spi),
            ExchangeType::INFORMATIONAL,
            state.message_id + 1,
        );
        let notify = crate::error::notify_for(error);
        let message = MessageBuilder::new(header).with(&Payload::Notify(notify.repr()));
        if let Ok(bytes) = self.seal_message(core, self.path, message) {
            core.out.transmit(self.path, bytes, self.slot, None);
        }
        if matches!(error, IkeError::Peer(PeerError::Authentication(_))) {
            core.counters.authentication_failures += 1;
        }
        Step::Unopened(format!("IKE_AUTH: {error}"))
    }

    fn child_config(&self, name: &str) -> Option<&ChildConfig> {
        let established = self.established()?;
        let children = &established.connection.children;
        children
            .iter()
            .find(|child| child.name == name)
            .map(|child| &**child)
    }
}

/// Of a request of ours before the peer is authenticated; our SPI first.
pub(super) fn opening_header(
    spis: ([u8; 8], [u8; 8]),
    exchange: ExchangeType,
    message_id: u32,
) -> HeaderRepr {
    HeaderRepr {
        initiator_spi: spis.0,
        responder_spi: spis.1,
        exchange,
        from_initiator: true,
        response: false,
        message_id,
    }
}

fn draw_offer(
    core: &mut Core,
    local_spi: [u8; 8],
    child: &ChildConfig,
) -> Result<ChildOffer, IkeError> {
    let spi_in = core
        .esp_spis
        .draw(&*core.crypto, core.config.member, local_spi)
        .ok_or(LocalError::NoSpi)?;
    Ok(ChildOffer {
        name: child.name.clone(),
        spi_in,
        rekeys: None,
        ke: None,
        rival: None,
        deleted: Vec::new(),
        follow_up: None,
    })
}

/// SA, TSi and TSr. There is no key exchange in IKE_AUTH (RFC 7296 §1.2), so suites that differ in
/// nothing else are one.
fn push_child(message: &mut MessageBuilder, child: &ChildConfig, offer: &ChildOffer, path: Path) {
    let (local_ts, remote_ts) = child.selectors(path.ends());
    let proposals = offer_esp(&child.esp_proposals, offer.spi_in, EspExchange::IkeAuth);
    message
        .push(&Payload::Sa(SaRepr { proposals }))
        .push(&Payload::TsInitiator(TsRepr {
            selectors: local_ts,
        }))
        .push(&Payload::TsResponder(TsRepr {
            selectors: remote_ts,
        }));
}

fn first_suites(child: &ChildConfig) -> Vec<EspProposal> {
    let mut suites = Vec::new();
    for suite in &child.esp_proposals {
        let suite = EspProposal {
            ke: None,
            additional: AdditionalKes::NONE,
            ..*suite
        };
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    suites
}

fn describe(child: &ChildConfig, path: Path) -> String {
    let (local_ts, remote_ts) = child.selectors(path.ends());
    let list = |texts: Vec<String>| texts.join(", ");
    let suites = first_suites(child)
        .iter()
        .map(EspProposal::to_string)
        .collect();
    let selectors = |selectors: &[crate::output::TrafficSelector]| {
        list(selectors.iter().map(ToString::to_string).collect())
    };
    format!(
        "{} for {} to {}",
        list(suites),
        selectors(&local_ts),
        selectors(&remote_ts)
    )
}
