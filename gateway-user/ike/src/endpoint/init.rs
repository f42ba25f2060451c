//! IKE_SA_INIT: from a request of anybody to a half-open IKE SA, or to as little as possible.

use std::sync::Arc;

use gateway_common::time::Instant;

use super::admission::Admission;
use super::cookie::Claim;
use super::lifecycle::opened;
use super::timers::Timer;
use super::{Endpoint, Negotiation, RequestKey, spi};
use crate::config::Connection;
use crate::error::{IkeError, LocalError, PolicyError, notify_for};
use crate::output::{EventKind, Path};
use crate::proposal::{Chosen, IkeProposal, NoProposalChosen, select_ike};
use crate::sa::{IkeSa, InitRequest, State, is_redirectable, redirect_data, redirected_from};
use crate::wire::{
    Body, Chain, HeaderRepr, Message, NotifyPacket, NotifyRepr, NotifyType, PayloadType, Payloads,
};

impl Endpoint {
    pub(super) fn handle_init(&mut self, now: Instant, path: Path, message: &Message<'_>) {
        self.core.counters.init_requests += 1;
        let header = *message.header();
        let key = RequestKey {
            source: path.remote.ip(),
            initiator_spi: header.initiator_spi,
            digest: self.core.crypto.sha256(&[message.bytes()]),
        };
        if let Some(spi) = self.by_request.get(&key).copied() {
            return self.repeat_init(path, spi);
        }
        let Body::Clear(chain) = message.body() else {
            return self.drop_malformed(path, "IKE_SA_INIT with an Encrypted payload");
        };
        if !self.admit(now, path, message, chain) {
            return;
        }
        let payloads = match Payloads::parse(chain.clone()) {
            Ok(payloads) => payloads,
            // RFC 7296 §3.10.1: INVALID_SYNTAX "may only be returned for and in an encrypted
            // packet".
            Err(error) => return self.drop_malformed(path, error),
        };
        if self.redirect(path, &header, &payloads) {
            return;
        }
        let request = InitRequest {
            header,
            path,
            bytes: message.bytes(),
            payloads: &payloads,
        };
        match self.open_negotiation(now, key, request) {
            Ok(()) => {}
            Err(error @ IkeError::Policy(_)) => {
                let notify = notify_for(&error);
                self.answer_statelessly(now, path, &header, &notify.repr(), &error);
            }
            // RFC 6989 §2.5: a request with an invalid key exchange value is dropped.
            Err(error) => self.drop_malformed(path, error),
        }
    }

    /// Sends the peer to another gateway instead of answering, if the connection for its address says
    /// so and it can be redirected (RFC 5685 §3). Costs nothing that has to be remembered.
    fn redirect(&mut self, path: Path, header: &HeaderRepr, payloads: &Payloads<'_>) -> bool {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let candidates = self.core.config.candidates(local, remote);
        // One for anybody would redirect those whom their identity excepts: IKE_AUTH sees to it.
        let target = candidates
            .first()
            .filter(|c| {
                candidates
                    .iter()
                    .all(|o| o.transport.redirect_to == c.transport.redirect_to)
            })
            .and_then(|c| c.transport.redirect_to.as_ref());
        let (Some(target), Ok(nonce)) = (target, payloads.require_nonce()) else {
            return false;
        };
        // RFC 5685 §7: back to where it comes from would be a loop.
        if !is_redirectable(payloads) || redirected_from(payloads).as_ref() == Some(target) {
            return false;
        }
        let reason = format!("IKE_SA_INIT: the peer is redirected to {target}");
        let data = redirect_data(target, nonce.data);
        self.core.counters.redirects_sent += 1;
        self.core
            .out
            .event(path, EventKind::ExchangeFailed { reason });
        let notify = NotifyRepr::new(NotifyType::REDIRECT, &data);
        self.send_statelessly(path, header, &notify);
        true
    }

    /// A retransmitted request gets the identical response, while there is one (RFC 7296 §2.1).
    fn repeat_init(&mut self, path: Path, spi: [u8; 8]) {
        let Some(sa) = self.sas.get(&spi) else {
            self.core.counters.dropped += 1;
            self.core.counters.retransmissions_dropped += 1;
            return;
        };
        match &sa.state {
            State::ExpectAuth(init) if init.decision.is_none() => {
                let bytes = init.transcript.response.to_vec();
                self.core.counters.retransmissions_answered += 1;
                self.core.out.transmit(path, bytes, sa.slot, None);
            }
            // The peer has our response: it sent IKE_AUTH.
            State::ExpectAuth(_) | State::Established(_) | State::ExpectAuthResponse(_) => {
                self.core.counters.dropped += 1;
                self.core.counters.retransmissions_dropped += 1;
            }
        }
    }

    /// Whether to spend anything on this request: half-open limits and cookies (RFC 7296 §2.6).
    fn admit(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        chain: &Chain<'_>,
    ) -> bool {
        let source = path.remote.ip();
        match self.half_open.admit(&self.core.config.limits, source) {
            Admission::Accept => true,
            Admission::Refuse => {
                let total = self.half_open.total();
                self.drop_datagram(
                    path,
                    |c| &mut c.dropped_half_open_limit,
                    || format!("half-open limit reached ({total} IKE SAs are half-open)"),
                );
                false
            }
            Admission::Cookie => {
                let (nonce, cookie) = nonce_and_cookie(chain);
                let Some(nonce) = nonce else {
                    self.drop_malformed(path, "IKE_SA_INIT without nonce");
                    return false;
                };
                let claim = Claim {
                    source,
                    spi: message.header().initiator_spi,
                    nonce,
                };
                self.check_cookie(now, path, message, claim, cookie)
            }
        }
    }

    /// RFC 7296 §2.6: a cookie that does not match is ignored, which "usually […] means sending a
    /// response containing a new cookie".
    fn check_cookie(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        claim: Claim<'_>,
        cookie: Option<&[u8]>,
    ) -> bool {
        let crypto = Arc::clone(&self.core.crypto);
        if cookie.is_some_and(|cookie| self.cookies.verify(&*crypto, now, claim, cookie)) {
            self.core.counters.cookies_accepted += 1;
            return true;
        }
        if !self.cookie_rate.allow(now) {
            self.drop_datagram(
                path,
                |c| &mut c.dropped_rate_limit,
                || "too many requests to demand a cookie for this one".to_owned(),
            );
            return false;
        }
        let cookie = self.cookies.mint(&*crypto, now, claim);
        self.core.counters.cookies_sent += 1;
        let notify = NotifyRepr::new(NotifyType::COOKIE, &cookie);
        self.send_statelessly(path, message.header(), &notify);
        false
    }

    fn open_negotiation(
        &mut self,
        now: Instant,
        key: RequestKey,
        request: InitRequest<'_>,
    ) -> Result<(), IkeError> {
        let chosen = self.choose(request)?;
        let core = &mut self.core;
        let local_spi = spi::draw_ike(&*core.crypto, core.config.member, |spi| {
            core.ike_spis.contains(spi)
        })
        .ok_or(LocalError::NoSpi)?;
        let mut sa = IkeSa::respond_to_init(
            &core.config,
            &*core.crypto,
            request,
            &chosen,
            local_spi,
            now,
        )?;
        sa.slot = core.slot.unwrap_or(sa.slot);
        let deadline = now + core.config.limits.half_open_timeout;
        core.counters.exchanges_processed += 1;
        let slot = sa.slot;
        let response = match &sa.state {
            State::ExpectAuth(init) => Some(init.transcript.response.to_vec()),
            State::Established(_) | State::ExpectAuthResponse(_) => None,
        };
        self.add_half_open(key, deadline, sa);
        if let Some(bytes) = response {
            self.core.counters.sent(&request.header.to_response());
            self.core.out.transmit(request.path, bytes, slot, None);
        }
        Ok(())
    }

    /// Books a half-open IKE SA, which the request with `key` has begun and which is given up at
    /// `deadline`.
    pub(super) fn add_half_open(&mut self, key: RequestKey, deadline: Instant, sa: IkeSa) {
        let local_spi = sa.local_spi;
        let core = &mut self.core;
        core.ike_spis.insert(local_spi);
        core.timers.set(deadline, Timer::HalfOpen(local_spi));
        core.out.delta(sa.slot, opened(&sa, key.source, deadline));
        self.half_open.opened(key.source);
        self.by_request.insert(key, local_spi);
        let negotiation = Negotiation {
            key,
            deadline,
            open: true,
        };
        self.negotiations.insert(local_spi, negotiation);
        self.sas.insert(local_spi, Box::new(sa));
    }

    /// The algorithms: those of the most specific connection for these addresses that fit. The
    /// identities, which come with IKE_AUTH, decide on the connection.
    fn choose(&self, request: InitRequest<'_>) -> Result<Chosen<IkeProposal>, IkeError> {
        let (local, remote) = (request.path.local.ip(), request.path.remote.ip());
        let offered = request.payloads.require_sa()?;
        let candidates = self.core.config.candidates(local, remote);
        // RFC 9370 §2.2.1: additional key exchanges take IKE_INTERMEDIATE, which both sides announce.
        let intermediate = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        let additional = request.payloads.has_notify(intermediate);
        let mut configured = proposals(&candidates);
        configured.retain(|suite| additional || suite.additional.is_empty());
        match select_ike(&offered.proposals, &configured, 0) {
            Ok(chosen) => Ok(chosen),
            Err(error) if candidates.is_empty() => Err(no_connection(error)),
            Err(error) => Err(PolicyError::from(error).into()),
        }
    }
}

fn proposals(candidates: &[&Arc<Connection>]) -> Vec<IkeProposal> {
    let mut all: Vec<IkeProposal> = Vec::new();
    for proposal in candidates.iter().flat_map(|c| &c.proposals) {
        if !all.contains(proposal) {
            all.push(*proposal);
        }
    }
    all
}

/// The peer learns no more than that nothing was chosen; the operator does.
fn no_connection(error: NoProposalChosen) -> IkeError {
    PolicyError::NoProposalChosen {
        offered: error.offered,
        configured: "no connection for these addresses".to_owned(),
    }
    .into()
}

/// What a cookie is checked with, without parsing anything else.
fn nonce_and_cookie<'a>(chain: &Chain<'a>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let mut nonce = None;
    let mut cookie = None;
    for raw in chain.clone() {
        match raw.kind {
            PayloadType::NONCE => nonce = Some(raw.body),
            PayloadType::NOTIFY => {
                if let Ok(notify) = NotifyPacket::new_checked(raw.body)
                    && notify.kind() == NotifyType::COOKIE
                {
                    cookie = Some(notify.data());
                }
            }
            _ => {}
        }
    }
    (nonce, cookie)
}
