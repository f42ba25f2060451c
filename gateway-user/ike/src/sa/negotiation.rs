//! Between a half-open IKE SA of a peer's making and its record.

use gateway_common::time::Instant;

use super::reassembly::Incoming;
use super::window::Window;
use super::{ExpectAuth, IkeSa, Intermediate, State, fresh_ivs};
use crate::auth::{Announced, Transcript};
use crate::config::Config;
use crate::record::{NegotiationRecord, Role};
use crate::wire::{Body, Message, NotifyType, Payloads};

/// IKE_SA_INIT was Message ID 0 (RFC 7296 §2.2).
const NEXT: u32 = 1;

impl IkeSa {
    /// Everything that another member needs to answer IKE_AUTH, which has until `deadline`; `None` if
    /// the peer has not begun it, or has come further than IKE_SA_INIT.
    pub(crate) fn export_negotiation(
        &self,
        now: Instant,
        deadline: Instant,
    ) -> Option<NegotiationRecord> {
        let State::ExpectAuth(init) = &self.state else {
            return None;
        };
        // Later on there are answers of ours under these keys, whose IVs must not come again.
        let untouched = self.window.expected() == NEXT && init.identified.is_none();
        (untouched && init.decision.is_none()).then(|| NegotiationRecord {
            local_spi: self.local_spi,
            remote_spi: self.remote_spi,
            slot: self.slot,
            path: self.path,
            nat: self.nat,
            proposal: self.proposal,
            keys: self.keys.clone(),
            transport: self.transport.clone(),
            age: self.began.map_or_else(Default::default, |at| now - at),
            remaining: deadline - now,
            request: init.transcript.request.clone(),
            response: init.transcript.response.clone(),
        })
    }

    /// A half-open IKE SA that goes on from a record; `None` if the record's messages are not those that
    /// it is about.
    pub(crate) fn import_negotiation(
        config: &Config,
        now: Instant,
        record: NegotiationRecord,
    ) -> Option<Self> {
        let transcript = transcript(&record)?;
        let intermediate = Intermediate::of(&record.proposal);
        Some(Self {
            local_spi: record.local_spi,
            remote_spi: record.remote_spi,
            role: Role::Responder,
            slot: record.slot,
            path: record.path,
            nat: record.nat,
            announced: false,
            began: Some(now.before(record.age)),
            proposal: record.proposal,
            keys: record.keys,
            ivs: fresh_ivs(config),
            window: Window::resume(NEXT, None),
            transport: record.transport,
            incoming: Incoming::default(),
            state: State::ExpectAuth(Box::new(ExpectAuth::new(transcript, intermediate))),
        })
    }
}

fn transcript(record: &NegotiationRecord) -> Option<Transcript> {
    let request = Message::parse(&record.request).ok()?;
    let response = Message::parse(&record.response).ok()?;
    let (asked, answered) = (request.header(), response.header());
    let spis = (record.remote_spi, record.local_spi);
    if asked.response
        || !answered.response
        || asked.initiator_spi != spis.0
        || (answered.initiator_spi, answered.responder_spi) != spis
    {
        return None;
    }
    let (asked, answered) = (payloads(&request)?, payloads(&response)?);
    Some(Transcript {
        nonce_i: asked.require_nonce().ok()?.data.into(),
        nonce_r: answered.require_nonce().ok()?.data.into(),
        int_auth: Vec::new(),
        announced: Announced::from_init(&asked, answered.has_notify(NotifyType::USE_PPK)),
        request: record.request.clone(),
        response: record.response.clone(),
    })
}

fn payloads<'a>(message: &Message<'a>) -> Option<Payloads<'a>> {
    match message.body() {
        Body::Clear(chain) => Payloads::parse(chain.clone()).ok(),
        _ => None,
    }
}
