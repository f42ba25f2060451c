//! IKE_SA_INIT as its initiator (RFC 7296 §1.2, §2.6).

use gateway_common::time::Instant;

use super::{Negotiated, Overdue, Plan, Resend};
use crate::auth::{Announced, Transcript, announce};
use crate::config::{Childless, Gateway};
use crate::crypto::{KeyExchange, KeyExchangeMethod};
use crate::endpoint::{core::Core, spi};
use crate::error::{IkeError, LocalError, PeerError};
use crate::keys::{IkeKeys, Skeyseed};
use crate::output::{Change, Event, EventKind, Path};
use crate::proposal::{IkeProposal, agreed_ike, offer_ike};
use crate::record::{NatState, TransportState};
use crate::sa::{IkeSa, draw_nonce, nat, parse_redirect, redirect_data};
use crate::wire::{
    Body, ExchangeType, HeaderRepr, KeRepr, Message, MessageBuilder, NonceRepr, NotifyRepr,
    NotifyType, PORT_NAT_T, Payload, Payloads, SaRepr,
};

/// Cookies that are taken in one negotiation: a peer that rotates its secret asks twice, a forger
/// for ever.
const MAX_COOKIES: u8 = 4;
/// Octets of a cookie (RFC 7296 §3.10.1).
const COOKIE_LEN: std::ops::RangeInclusive<usize> = 1..=64;

/// IKE_SA_INIT is sent.
pub(crate) struct ExpectInitResponse {
    pub(crate) local_spi: [u8; 8],
    pub(crate) plan: Plan,
    nonce: [u8; 32],
    ke: Box<dyn KeyExchange>,
    cookie: Option<Box<[u8]>>,
    cookies_taken: u8,
    /// The key exchange is the one that an INVALID_KE_PAYLOAD asked for.
    corrected: bool,
    request: Box<[u8]>,
    resend: Resend,
    /// Why there is no IKE SA, as far as unprotected answers tell.
    refusal: Option<String>,
}

/// What a datagram has made of it.
pub(crate) enum Next {
    /// It goes on waiting, with what was wrong with the datagram, if it was of no use.
    Wait(Box<ExpectInitResponse>, Option<&'static str>),
    /// IKE_AUTH is sent.
    Opened(Box<IkeSa>),
    /// The peer sends us to another gateway.
    Redirected(Box<ExpectInitResponse>, Gateway),
    /// We cannot go on.
    Failed(Box<ExpectInitResponse>, IkeError),
}

impl ExpectInitResponse {
    /// Draws an SPI and sends the request.
    ///
    /// # Errors
    /// Failures of our own; then nothing is reserved.
    pub(crate) fn start(core: &mut Core, now: Instant, plan: Plan) -> Result<Self, IkeError> {
        let method = plan
            .connection
            .proposals
            .first()
            .map(|proposal| proposal.ke)
            .ok_or(LocalError::Configuration("it has no proposals"))?;
        let crypto = &*core.crypto;
        let ke = crypto.key_exchange(method)?;
        let nonce = draw_nonce(crypto);
        let local_spi = spi::draw_ike(crypto, core.config.member, |spi| {
            core.ike_spis.contains(spi)
        })
        .ok_or(LocalError::NoSpi)?;
        core.ike_spis.insert(local_spi);
        let mut this = Self {
            resend: Resend::start(core, now, local_spi),
            local_spi,
            plan,
            nonce,
            ke,
            cookie: None,
            cookies_taken: 0,
            corrected: false,
            request: Box::default(),
            refusal: None,
        };
        if let Err(error) = this.send_anew(core, now) {
            this.release(core);
            return Err(error);
        }
        Ok(this)
    }

    /// Nobody waits for the response any more.
    pub(crate) fn release(&self, core: &mut Core) {
        self.resend.stop(core);
        core.ike_spis.remove(&self.local_spi);
        core.out.delta(
            self.plan.slot,
            Change::NegotiationClosed {
                local_cookie: self.local_spi,
                peer_cookie: [0; 8],
                peer: self.plan.path.remote.ip(),
            },
        );
    }

    /// Builds the request and sends it for the first time.
    fn send_anew(&mut self, core: &mut Core, now: Instant) -> Result<(), IkeError> {
        self.request = self.build(core)?.into();
        self.resend.stop(core);
        self.resend = Resend::start(core, now, self.local_spi);
        core.counters.requests_sent += 1;
        core.counters.init_requests_sent += 1;
        self.send(core);
        Ok(())
    }

    /// The members learn our SPI first: the response may reach any of them.
    fn send(&self, core: &mut Core) {
        let expires = self.resend.due() + core.config.limits.half_open_timeout;
        let opened = Change::NegotiationOpened {
            local_cookie: self.local_spi,
            peer_cookie: [0; 8],
            peer: self.plan.path.remote.ip(),
            expires,
        };
        let delta = core.out.delta(self.plan.slot, opened);
        let bytes = self.request.to_vec();
        core.out
            .transmit(self.plan.path, bytes, self.plan.slot, Some(delta));
    }

    /// RFC 7296 §2.6: with a cookie in front, "and all other payloads unchanged".
    fn build(&self, core: &Core) -> Result<Vec<u8>, IkeError> {
        let header = HeaderRepr {
            initiator_spi: self.local_spi,
            responder_spi: [0; 8],
            exchange: ExchangeType::IKE_SA_INIT,
            from_initiator: true,
            response: false,
            message_id: 0,
        };
        let mut message = MessageBuilder::new(header);
        if let Some(cookie) = &self.cookie {
            message.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::COOKIE,
                cookie,
            )));
        }
        // RFC 7296 §1.2: the full set each time, also after INVALID_KE_PAYLOAD, which anybody can
        // forge.
        let proposals = offer_ike(&self.plan.connection.proposals, &[]);
        message
            .push(&Payload::Sa(SaRepr { proposals }))
            .push(&Payload::Ke(KeRepr {
                method: self.ke.method().transform_id(),
                data: self.ke.public_value(),
            }))
            .push(&Payload::Nonce(NonceRepr { data: &self.nonce }));
        let forced = self.plan.connection.transport.encap;
        nat::announce(&*core.crypto, &mut message, &header, self.plan.path, forced);
        let suites = &self.plan.connection.proposals;
        if suites.iter().any(|suite| !suite.additional.is_empty()) {
            // RFC 9370 §2.2.1: whoever offers additional key exchanges "MUST also negotiate the use
            // of the IKE_INTERMEDIATE exchange".
            message.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
                &[],
            )));
        }
        if self.announces_fragments() {
            message.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
                &[],
            )));
        }
        announce(&mut message, &*core.crypto, &[&*self.plan.connection], None);
        // RFC 5685 §3: REDIRECTED_FROM says as much as REDIRECT_SUPPORTED.
        if let Some(from) = self.plan.redirected_from {
            let data = redirect_data(&Gateway::Address(from), &[]);
            let notify = NotifyRepr::new(NotifyType::REDIRECTED_FROM, &data);
            message.push(&Payload::Notify(notify));
        } else if self.plan.connection.transport.follow_redirects {
            let notify = NotifyRepr::new(NotifyType::REDIRECT_SUPPORTED, &[]);
            message.push(&Payload::Notify(notify));
        }
        Ok(message.finish()?)
    }

    /// The response has not come in time.
    pub(crate) fn overdue(&mut self, core: &mut Core, now: Instant) -> Overdue {
        if self.resend.again(core, now) {
            self.send(core);
            Overdue::Again
        } else {
            Overdue::GivenUp
        }
    }

    /// Why there is no IKE SA.
    pub(crate) fn why(&self) -> String {
        match &self.refusal {
            Some(refusal) => refusal.clone(),
            None => "IKE_SA_INIT: the peer does not answer".to_owned(),
        }
    }

    /// Takes a response with our SPI. It is not protected: everything in it may be forged, so only
    /// one that fits makes a difference, and none ends the negotiation (RFC 7296 §2.21.1).
    pub(crate) fn handle_response(
        mut self: Box<Self>,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Next {
        if path != self.plan.path || message.header().message_id != 0 {
            return Next::Wait(self, Some("an IKE_SA_INIT response to no request of ours"));
        }
        let Body::Clear(chain) = message.body() else {
            return Next::Wait(self, Some("an encrypted IKE_SA_INIT response"));
        };
        let Ok(payloads) = Payloads::parse(chain.clone()) else {
            return Next::Wait(self, Some("a malformed IKE_SA_INIT response"));
        };
        core.counters.init_responses += 1;
        if let Some(gateway) = self.take_redirect(&payloads) {
            return Next::Redirected(self, gateway);
        }
        let corrected = if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            self.take_cookie(cookie.data)
        } else if let Some(notify) = payloads.error_notify() {
            self.take_error(core, notify)
        } else {
            return self.take_answer(core, now, path, message, &payloads);
        };
        match corrected {
            Ok(true) => match self.send_anew(core, now) {
                Ok(()) => Next::Wait(self, None),
                Err(error) => Next::Failed(self, error),
            },
            Ok(false) => Next::Wait(self, None),
            Err(reason) => Next::Wait(self, Some(reason)),
        }
    }

    /// RFC 5685 §3: "it MUST verify that the nonce data matches": whoever knows it has seen
    /// our request.
    fn take_redirect(&self, payloads: &Payloads<'_>) -> Option<Gateway> {
        let notify = payloads.notify(NotifyType::REDIRECT)?;
        let (gateway, nonce) = parse_redirect(notify.data)?;
        let follows = self.plan.connection.transport.follow_redirects;
        (follows && nonce == self.nonce).then_some(gateway)
    }

    /// Whether the request has to be made again, with this cookie.
    fn take_cookie(&mut self, cookie: &[u8]) -> Result<bool, &'static str> {
        if !COOKIE_LEN.contains(&cookie.len()) {
            return Err("a cookie of an impossible length");
        }
        if self.cookies_taken >= MAX_COOKIES {
            return Err("one cookie too many");
        }
        self.cookies_taken += 1;
        self.cookie = Some(cookie.into());
        Ok(true)
    }

    /// Whether the request has to be made again because of an error.
    fn take_error(
        &mut self,
        core: &mut Core,
        notify: &NotifyRepr<'_>,
    ) -> Result<bool, &'static str> {
        if notify.kind == NotifyType::INVALID_KE_PAYLOAD {
            let wanted = <[u8; 2]>::try_from(notify.data)
                .ok()
                .map(u16::from_be_bytes)
                .and_then(KeyExchangeMethod::from_transform_id)
                .filter(|wanted| self.offers(*wanted));
            if let Some(wanted) = wanted.filter(|wanted| *wanted != self.ke.method()) {
                if std::mem::replace(&mut self.corrected, true) {
                    return Err("INVALID_KE_PAYLOAD once more");
                }
                let Ok(ke) = core.crypto.key_exchange(wanted) else {
                    return Err("INVALID_KE_PAYLOAD for a method that does not work here");
                };
                self.ke = ke;
                return Ok(true);
            }
        }
        let offered: Vec<String> = self.suites().iter().map(IkeProposal::to_string).collect();
        let offered = offered.join(", ");
        let reason = format!(
            "IKE_SA_INIT: the peer answers {}; offered: {offered}",
            notify.kind
        );
        self.refused(core, reason);
        Ok(false)
    }

    fn announces_fragments(&self) -> bool {
        let transport = &self.plan.connection.transport;
        transport.fragmentation.is_announced()
    }

    fn suites(&self) -> &[IkeProposal] {
        &self.plan.connection.proposals
    }

    fn offers(&self, method: KeyExchangeMethod) -> bool {
        self.suites().iter().any(|suite| suite.ke == method)
    }

    /// The operator is told once per reason; the peer gets another chance or two.
    fn refused(&mut self, core: &mut Core, reason: String) {
        self.resend.hurry();
        if self.refusal.as_ref() == Some(&reason) {
            return;
        }
        core.out.sa_event(Event {
            local_spi: Some(self.local_spi),
            path: Some(self.plan.path),
            connection: Some(self.plan.connection.name.clone()),
            kind: EventKind::ExchangeFailed {
                reason: reason.clone(),
            },
        });
        self.refusal = Some(reason);
    }

    fn take_answer(
        mut self: Box<Self>,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
    ) -> Next {
        let sa = match self.open(core, path, message, payloads) {
            Ok(sa) => sa,
            Err(error @ IkeError::Local(_)) => return Next::Failed(self, error),
            Err(error) => {
                self.refused(core, format!("IKE_SA_INIT: {error}"));
                return Next::Wait(self, None);
            }
        };
        let nonce_r = payloads
            .nonce
            .map(|nonce| nonce.data.into())
            .unwrap_or_default();
        let mut plan = self.plan.clone();
        match childless(plan.connection.transport.childless, payloads) {
            Ok(true) => plan.child = None,
            Ok(false) => {}
            Err(reason) => {
                self.refused(core, reason.to_owned());
                return Next::Wait(self, None);
            }
        }
        let negotiated = Negotiated {
            plan,
            transcript: Transcript {
                request: self.request.clone(),
                response: message.bytes().into(),
                nonce_i: self.nonce.as_slice().into(),
                nonce_r,
                int_auth: Vec::new(),
                announced: Announced::from_init(payloads, self.plan.connection.auth.ppk.is_some()),
            },
        };
        self.resend.stop(core);
        match IkeSa::send_auth(core, now, sa, negotiated) {
            Ok(sa) => Next::Opened(sa),
            Err(error) => Next::Failed(self, error),
        }
    }

    /// Checks what the peer agreed to against what we offered, and derives the keys.
    fn open(
        &self,
        core: &Core,
        path: Path,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<Opened, IkeError> {
        let header = *message.header();
        if header.responder_spi == [0; 8] {
            return Err(PeerError::Syntax("the responder's SPI is zero").into());
        }
        let suite = self.agreed_suite(payloads.require_sa()?)?;
        let supported = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        if !suite.additional.is_empty() && !payloads.has_notify(supported) {
            return Err(
                PeerError::Syntax("additional key exchanges without IKE_INTERMEDIATE").into(),
            );
        }
        let theirs = payloads.require_ke()?;
        if suite.ke != self.ke.method() || theirs.method != suite.ke.transform_id() {
            // RFC 7296 §1.2: it had to ask for another one.
            return Err(PeerError::Syntax("a key exchange that was not offered").into());
        }
        let nonce_r = payloads.require_nonce()?.data;
        let shared = self.ke.agree(theirs.data)?;
        let crypto = &*core.crypto;
        let keys = IkeKeys::derive(
            crypto,
            suite.prf,
            suite.encryption,
            &Skeyseed::initial(crypto, suite.prf, &self.nonce, nonce_r, &shared),
            (&self.nonce, nonce_r),
            (&self.local_spi, &header.responder_spi),
        )?;
        let detected = nat::detect(crypto, payloads, &header, path);
        let nat = detected.unwrap_or_default();
        let transport = &self.plan.connection.transport;
        let forced_encap = transport.encap && detected.is_some();
        let mut path = path;
        // RFC 4555 §3.3: who can do both floats in any case, so that the ports need not change later.
        if nat.any() || forced_encap || (transport.mobike && detected.is_some()) {
            // RFC 7296 §2.23: "all subsequent traffic" goes from and to port 4500.
            path.local.set_port(PORT_NAT_T);
            path.remote.set_port(PORT_NAT_T);
        }
        Ok(Opened {
            local_spi: self.local_spi,
            remote_spi: header.responder_spi,
            path,
            nat,
            transport: TransportState {
                fragments: self.announces_fragments()
                    && payloads.has_notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
                forced_encap,
                original_initiator: true,
                ..TransportState::default()
            },
            proposal: suite,
            keys,
        })
    }

    fn agreed_suite(&self, answered: &SaRepr) -> Result<IkeProposal, IkeError> {
        let unacceptable = || PeerError::Syntax("an answer to what was not offered");
        let [answer] = answered.proposals.as_slice() else {
            return Err(unacceptable().into());
        };
        let offered = offer_ike(&self.plan.connection.proposals, &[]);
        Ok(agreed_ike(&offered, answer).ok_or_else(unacceptable)?)
    }
}

/// Whether IKE_AUTH goes without CHILD_SA (RFC 6023): those that are wanted follow by CREATE_CHILD_SA.
fn childless(policy: Childless, payloads: &Payloads<'_>) -> Result<bool, &'static str> {
    let supported = payloads.has_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
    match policy {
        Childless::Allow | Childless::Never => Ok(false),
        Childless::Prefer => Ok(supported),
        Childless::Force if supported => Ok(true),
        Childless::Force => Err(
            "IKE_SA_INIT: the peer makes no IKE SA without CHILD_SA, and the connection says \
             childless = force",
        ),
    }
}

/// The beginning of an IKE SA.
pub(super) struct Opened {
    pub(super) local_spi: [u8; 8],
    pub(super) remote_spi: [u8; 8],
    pub(super) path: Path,
    pub(super) nat: NatState,
    pub(super) transport: TransportState,
    pub(super) proposal: IkeProposal,
    pub(super) keys: IkeKeys,
}
