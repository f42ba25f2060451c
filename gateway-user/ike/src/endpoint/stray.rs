//! Requests to IKE SAs that nobody has, and what peers say about ours (RFC 7296 §1.5, §2.21.4).
//!
//! Both are unprotected, so both are rare by force: answers and questions have a bound per second in
//! all, and one per source address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::time::Instant;

use super::Endpoint;
use super::rate::RateLimit;
use crate::output::Path;
use crate::sa::IkeSa;
use crate::wire::{Body, ExchangeType, Message, NotifyRepr, NotifyType, Payloads};

/// A source address is heard again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// The peer of an IKE SA that says it has none is asked at most so often whether it is alive.
const HINT_PAUSE: Duration = Duration::from_secs(60);

/// At most so many per second in all, and one per source address and pause. Remembers no more than
/// it has allowed within a pause.
#[derive(Debug)]
pub(super) struct Scarce {
    all: RateLimit,
    pause: Duration,
    heard: BTreeMap<IpAddr, Instant>,
}

impl Scarce {
    fn new(per_second: u32, pause: Duration, now: Instant) -> Self {
        Self {
            all: RateLimit::new(per_second, now),
            pause,
            heard: BTreeMap::new(),
        }
    }

    /// Limits of the answers to strays.
    pub(super) fn answers(per_second: u32, now: Instant) -> Self {
        Self::new(per_second, PAUSE, now)
    }

    /// Limits of the questions that hints cause.
    pub(super) fn hints(per_second: u32, now: Instant) -> Self {
        Self::new(per_second, HINT_PAUSE, now)
    }

    fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        let fresh = |at: &Instant| now.saturating_since(*at) < self.pause;
        if self.heard.get(&source).is_some_and(fresh) || !self.all.allow(now) {
            return false;
        }
        self.heard.retain(|_, at| fresh(at));
        self.heard.insert(source, now);
        true
    }
}

impl Endpoint {
    /// As [`Self::handle_datagram`], for a datagram of which the driver knows that no member of the
    /// cluster has the IKE SA that it names: a request is answered with INVALID_IKE_SPI, within
    /// [`crate::config::Limits::invalid_ike_spi_rate`].
    pub fn handle_stray(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        self.nobody_has_it = true;
        self.handle_datagram(now, path, bytes);
        self.nobody_has_it = false;
    }

    /// Whether a request to an unknown IKE SA was answered. Only exchanges of established ones are:
    /// the others may belong to a negotiation that no other member has heard of yet.
    pub(super) fn answer_stray(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        ours: [u8; 8],
    ) -> bool {
        let header = message.header();
        let established = [ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL];
        let eligible = self.nobody_has_it
            && established.contains(&header.exchange)
            && !self.core.ike_spis.contains(&ours)
            && message.bytes().len() >= ANSWER_LENGTH;
        if !eligible || !self.strays.allow(now, path.remote.ip()) {
            return false;
        }
        self.core.counters.invalid_ike_spi_sent += 1;
        let notify = NotifyRepr::new(NotifyType::INVALID_IKE_SPI, &[]);
        self.send_statelessly(path, header, &notify);
        true
    }

    /// Whether an unprotected response says that the peer does not know this IKE SA. It changes
    /// nothing (RFC 7296 §2.21.4), but the peer is asked for a sign of life, unless a request that
    /// waits for its answer already does that.
    pub(super) fn take_hint(
        &mut self,
        now: Instant,
        path: Path,
        sa: &mut IkeSa,
        message: &Message<'_>,
    ) -> bool {
        if sa.is_asking() || !sa.announced || !denies_ike_sa(message) {
            return false;
        }
        if !self.hints.allow(now, sa.path.remote.ip()) {
            return false;
        }
        let reason = "the peer says that it does not know this IKE SA".to_owned();
        self.drop_datagram(path, |c| &mut c.dropped_unexpected_response, || reason);
        sa.request_liveness();
        true
    }
}

/// Octets of the answer: header and an empty notification.
const ANSWER_LENGTH: usize = 28 + 8;

fn denies_ike_sa(message: &Message<'_>) -> bool {
    let Body::Clear(chain) = message.body() else {
        return false;
    };
    message.header().response
        && Payloads::parse(chain.clone())
            .is_ok_and(|payloads| payloads.notify(NotifyType::INVALID_IKE_SPI).is_some())
}
