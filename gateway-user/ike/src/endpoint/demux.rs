//! From a datagram to the IKE SA, the negotiation or the counter it belongs to.

use gateway_common::abi::Address;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::Endpoint;
use super::counters::Counters;
use crate::output::{EventKind, Path};
use crate::record::Role;
use crate::sa::{Silence, Step};
use crate::wire::{
    ExchangeType, HeaderPacket, HeaderRepr, Message, MessageBuilder, NotifyRepr, NotifyType,
    Payload, WireError,
};

impl Endpoint {
    /// Takes one datagram: an IKE message without non-ESP marker. Nothing that is not authentic
    /// changes an existing IKE SA.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        match Message::parse(bytes) {
            Ok(message) => self.route(now, path, &message),
            Err(error) => self.handle_unreadable(now, path, bytes, error),
        }
    }

    /// As [`Self::handle_datagram`]; an IKE SA that it opens is in `slot`, whatever the decision
    /// function says.
    pub fn handle_datagram_in(&mut self, now: Instant, path: Path, bytes: &[u8], slot: Slot) {
        self.core.slot = Some(slot);
        self.handle_datagram(now, path, bytes);
        self.core.slot = None;
    }

    fn route(&mut self, now: Instant, path: Path, message: &Message<'_>) {
        let header = *message.header();
        if header.response && header.exchange == ExchangeType::IKE_SA_INIT {
            return self.handle_init_response(now, path, message);
        }
        if header.exchange == ExchangeType::IKE_SA_INIT {
            if is_init_request(&header) {
                self.handle_init(now, path, message);
            } else {
                self.drop_malformed(path, "IKE_SA_INIT request with a responder SPI, a Message ID or without Initiator flag");
            }
            return;
        }
        // RFC 7296 §2.6: the Initiator flag says which of the two SPIs is ours.
        let (ours, theirs, role) = if header.from_initiator {
            (header.responder_spi, header.initiator_spi, Role::Responder)
        } else {
            (header.initiator_spi, header.responder_spi, Role::Initiator)
        };
        let known = self
            .sas
            .get(&ours)
            .is_some_and(|sa| sa.remote_spi == theirs && sa.role == role);
        // Taken out of the table only if it is the one: whatever else comes with our SPI is forged.
        let sa = if known { self.sas.remove(&ours) } else { None };
        match sa {
            Some(mut sa) => {
                if !header.response {
                    self.decide_by_use(now, &mut sa, message);
                }
                if self.take_hint(now, path, &mut sa, message) {
                    return self.keep(now, sa);
                }
                let step = if header.response {
                    sa.handle_response(&mut self.core, now, path, message)
                } else {
                    sa.handle_request(&mut self.core, now, path, message)
                };
                match step {
                    Step::Dropped(silence) => {
                        self.sas.insert(sa.local_spi, sa);
                        self.drop_silently(path, silence);
                    }
                    step => self.settle(now, sa, step),
                }
            }
            // RFC 7296 §2.21.4: "If the message is marked as a response, the node […] MUST NOT
            // respond."
            None if header.response => self.drop_response(path),
            None => self.handle_unknown(now, path, message, ours, theirs),
        }
    }

    pub(super) fn drop_response(&mut self, path: Path) {
        self.drop_silently(path, Silence::UnexpectedResponse);
    }

    /// The last answer of a closed IKE SA, or INVALID_IKE_SPI (RFC 7296 §2.21.4: MAY), or nothing: in
    /// a cluster the IKE SA may be alive elsewhere, which only the driver knows.
    fn handle_unknown(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        ours: [u8; 8],
        theirs: [u8; 8],
    ) {
        let digest = || self.core.crypto.sha256(&[message.bytes()]);
        let last = self.lingering.get(&ours).filter(|lingering| {
            lingering.remote_spi == theirs
                && lingering.response.message_id == message.header().message_id
                && lingering.response.request_digest == digest()
        });
        if let Some(lingering) = last {
            let bytes = lingering.response.bytes.to_vec();
            self.core.counters.retransmissions_answered += 1;
            self.core
                .out
                .transmit(path, bytes, lingering.slot, lingering.after);
            return;
        }
        if self.answer_stray(now, path, message, ours) {
            return;
        }
        self.drop_datagram(
            path,
            |c| &mut c.dropped_unknown_spi,
            || format!("no IKE SA with our SPI {:016x}", u64::from_be_bytes(ours)),
        );
    }

    fn handle_unreadable(&mut self, now: Instant, path: Path, bytes: &[u8], error: WireError) {
        let Ok(header) = HeaderPacket::new_checked(bytes) else {
            return self.drop_malformed(path, error);
        };
        match error {
            // RFC 7296 §2.5: an IKEv1 initiator does not understand our answer.
            WireError::MajorVersion(1) => {
                self.drop_datagram(
                    path,
                    |c| &mut c.dropped_ikev1,
                    || "IKEv1 is not supported; configure the peer for IKEv2".to_owned(),
                );
            }
            // RFC 7296 §2.5: "it MUST drop the message and SHOULD send an unauthenticated Notify
            // message of type INVALID_MAJOR_VERSION".
            WireError::MajorVersion(3..) if !header.is_response() => {
                let reply = HeaderRepr {
                    initiator_spi: header.initiator_spi(),
                    responder_spi: header.responder_spi(),
                    exchange: header.exchange(),
                    from_initiator: header.is_from_initiator(),
                    response: false,
                    message_id: header.message_id(),
                };
                let notify = NotifyRepr::new(NotifyType::INVALID_MAJOR_VERSION, &[]);
                self.answer_statelessly(now, path, &reply, &notify, &error);
            }
            // RFC 7296 §2.5: "the response to the IKE request containing that payload MUST include
            // a Notify payload UNSUPPORTED_CRITICAL_PAYLOAD".
            WireError::UnsupportedCriticalPayload(kind) => match HeaderRepr::parse(&header) {
                Ok(header) if is_init_request(&header) && !header.response => {
                    self.core.counters.init_requests += 1;
                    let data = [kind.0];
                    let notify = NotifyRepr::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &data);
                    self.answer_statelessly(now, path, &header, &notify, &error);
                }
                _ => self.drop_malformed(path, error),
            },
            _ => self.drop_malformed(path, error),
        }
    }

    /// An unprotected error, which no state depends on. RFC 7296 §2.21.4: such answers are limited
    /// in their rate.
    pub(super) fn answer_statelessly(
        &mut self,
        now: Instant,
        path: Path,
        request: &HeaderRepr,
        notify: &NotifyRepr<'_>,
        reason: &dyn std::fmt::Display,
    ) {
        if !self.error_rate.allow(now) {
            self.drop_datagram(
                path,
                |c| &mut c.dropped_rate_limit,
                || format!("too many errors to tell this one: {reason}"),
            );
            return;
        }
        self.core.out.event(
            path,
            EventKind::ExchangeFailed {
                reason: format!(
                    "{}: {reason}",
                    request.exchange.name().unwrap_or("unknown exchange")
                ),
            },
        );
        self.send_statelessly(path, request, notify);
    }

    /// One NOTIFY in clear.
    pub(super) fn send_statelessly(
        &mut self,
        path: Path,
        request: &HeaderRepr,
        notify: &NotifyRepr<'_>,
    ) {
        let message = MessageBuilder::new(request.to_response())
            .with(&Payload::Notify(*notify))
            .finish();
        if let Ok(bytes) = message {
            let slot = self.core.slot;
            let slot = slot.unwrap_or_else(|| negotiation_slot(path, &request.initiator_spi));
            if request.exchange == ExchangeType::IKE_SA_INIT {
                self.core.counters.sent(&request.to_response());
            }
            self.core.out.transmit(path, bytes, slot, None);
        }
    }

    pub(super) fn drop_silently(&mut self, path: Path, silence: Silence) {
        let (counter, reason): (fn(&mut Counters) -> &mut u64, _) = match silence {
            Silence::InProgress => {
                self.core.counters.retransmissions_dropped += 1;
                self.core.counters.dropped += 1;
                return;
            }
            Silence::Integrity => (|c| &mut c.dropped_integrity, "the integrity check failed"),
            Silence::MessageId => (
                |c| &mut c.dropped_message_id,
                "the Message ID is outside the window",
            ),
            Silence::UnexpectedResponse => (
                |c| &mut c.dropped_unexpected_response,
                "a response to no request of ours",
            ),
            Silence::Fragment => (
                |c| &mut c.dropped_fragment,
                "a fragment that is held already, is malformed, or was not agreed on",
            ),
            Silence::FragmentLimit => (
                |c| &mut c.dropped_fragment_limit,
                "the fragments of its message take too much memory",
            ),
            Silence::UnexpectedExchange => (
                |c| &mut c.dropped_unexpected_exchange,
                "the exchange does not fit the state of the IKE SA",
            ),
        };
        self.drop_datagram(path, counter, || reason.to_owned());
    }

    pub(super) fn drop_malformed(&mut self, path: Path, reason: impl std::fmt::Display) {
        self.drop_datagram(path, |c| &mut c.dropped_malformed, || reason.to_string());
    }

    pub(super) fn drop_datagram(
        &mut self,
        path: Path,
        counter: impl FnOnce(&mut Counters) -> &mut u64,
        reason: impl FnOnce() -> String,
    ) {
        let counters = &mut self.core.counters;
        counters.dropped += 1;
        *counter(counters) += 1;
        self.core
            .out
            .event(path, EventKind::DatagramDropped { reason: reason() });
    }
}

/// RFC 7296 §3.1, §2.2: from the initiator, without responder SPI, Message ID 0.
fn is_init_request(header: &HeaderRepr) -> bool {
    header.exchange == ExchangeType::IKE_SA_INIT
        && header.from_initiator
        && header.responder_spi == [0; 8]
        && header.message_id == 0
}

/// The slot of what has no IKE SA yet.
pub(super) fn negotiation_slot(path: Path, initiator_spi: &[u8; 8]) -> Slot {
    Slot::for_negotiation(&Address::from(path.remote.ip()).octets, initiator_spi)
}
