//! Messages that come in fragments (RFC 7383 §2.6).
//!
//! # What a peer can make us hold
//! One incomplete message per IKE SA and direction, that with the Message ID which is next. Only
//! fragments that passed their integrity check are kept, so whoever wants to fill the memory needs
//! the keys of the IKE SA.
//!
//! - A peer that is not authenticated has run a key exchange with us, behind a cookie when there
//!   are many. It holds at most [`Limits::reassembly_unauthenticated`] octets, and all of them
//!   together [`Limits::reassembly_unauthenticated_total`], until its IKE SA is established, fails or
//!   times out ([`Limits::half_open_timeout`]).
//! - An authenticated one holds at most [`Limits::reassembly_authenticated`] octets per direction
//!   for [`Limits::reassembly_timeout`].
//!
//! Each fragment counts with [`FRAGMENT_COST`] octets more than its content. What would exceed a
//! limit is dropped with all that was held of its message, and counted.
//!
//! [`Limits::reassembly_unauthenticated`]: crate::config::Limits::reassembly_unauthenticated
//! [`Limits::reassembly_unauthenticated_total`]: crate::config::Limits::reassembly_unauthenticated_total
//! [`Limits::half_open_timeout`]: crate::config::Limits::half_open_timeout
//! [`Limits::reassembly_authenticated`]: crate::config::Limits::reassembly_authenticated
//! [`Limits::reassembly_timeout`]: crate::config::Limits::reassembly_timeout

use std::collections::BTreeMap;

use gateway_common::time::Instant;
use zeroize::Zeroizing;

use super::{Clock, IkeSa, Silence};
use crate::endpoint::core::Core;
use crate::wire::{
    Body, EncryptedPacket, ExchangeType, FragmentPacket, FragmentRepr, HeaderRepr, Message, Opened,
    PayloadType, WireError, messages,
};

/// What a fragment counts beside its content: its place in the table.
pub(super) const FRAGMENT_COST: usize = 128;

/// A message of which fragments are missing.
pub(super) struct Reassembly {
    message_id: u32,
    exchange: ExchangeType,
    total: u16,
    /// Type of the first payload inside, which the first fragment names.
    first: PayloadType,
    /// SHA-256 of the first fragment's datagram.
    digest: [u8; 32],
    contents: BTreeMap<u16, Zeroizing<Vec<u8>>>,
    held: usize,
}

/// What a fragment would be to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Held already, or of a set that a newer one has replaced (RFC 7383 §2.6: "MUST be silently
    /// discarded").
    Useless,
    /// One that is missing.
    Missing,
    /// Of a message, or of a set with more fragments, that has to begin anew.
    Anew,
}

/// A message put together.
pub(super) struct Whole {
    pub(super) opened: Opened,
    /// Of its first fragment: a retransmission is recognised by that one alone (RFC 7383 §2.6.1).
    pub(super) digest: [u8; 32],
}

impl Reassembly {
    /// Without fragments.
    fn new(header: &HeaderRepr, total: u16) -> Self {
        Self {
            message_id: header.message_id,
            exchange: header.exchange,
            total,
            first: PayloadType::NONE,
            digest: [0; 32],
            contents: BTreeMap::new(),
            held: 0,
        }
    }

    /// Where a fragment belongs, authentic or not.
    fn place(&self, header: &HeaderRepr, fragment: FragmentRepr) -> Place {
        if (header.message_id, header.exchange) != (self.message_id, self.exchange) {
            return Place::Anew;
        }
        match fragment.total.cmp(&self.total) {
            std::cmp::Ordering::Less => Place::Useless,
            std::cmp::Ordering::Greater => Place::Anew,
            std::cmp::Ordering::Equal if self.contents.contains_key(&fragment.number) => {
                Place::Useless
            }
            std::cmp::Ordering::Equal => Place::Missing,
        }
    }

    /// Keeps a missing fragment, which is authentic. `digest` is that of its datagram.
    fn keep(&mut self, number: u16, content: Opened, digest: [u8; 32]) {
        if number == 1 {
            self.first = content.first;
            self.digest = digest;
        }
        self.held += cost(&content);
        self.contents
            .insert(number, Zeroizing::new(content.plaintext));
    }

    /// The message, if nothing is missing.
    fn finish(&self) -> Option<Whole> {
        if self.contents.len() != usize::from(self.total) {
            return None;
        }
        let parts = self.contents.values();
        let mut plaintext = Vec::with_capacity(parts.clone().map(|part| part.len()).sum());
        parts.for_each(|part| plaintext.extend_from_slice(part));
        Some(Whole {
            opened: Opened {
                first: self.first,
                plaintext,
            },
            digest: self.digest,
        })
    }
}

/// What came of both directions and is not complete.
#[derive(Default)]
pub(super) struct Incoming {
    requests: Option<Box<Reassembly>>,
    responses: Option<Box<Reassembly>>,
}

impl Incoming {
    fn of(&mut self, header: &HeaderRepr) -> &mut Option<Box<Reassembly>> {
        if header.response {
            &mut self.responses
        } else {
            &mut self.requests
        }
    }
}

impl IkeSa {
    /// Opens what is sealed in a message of the peer's, in one piece or in fragments. `None` if
    /// fragments are still missing.
    pub(super) fn unseal(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
    ) -> Result<Option<Whole>, Unsealed> {
        match message.body() {
            Body::Clear(_) => Err(Unsealed::Dropped(Silence::Integrity)),
            Body::Encrypted(encrypted) => match self.open(core, encrypted) {
                Ok(opened) => Ok(Some(Whole {
                    opened,
                    digest: core.crypto.sha256(&[message.bytes()]),
                })),
                Err(WireError::EncryptedTooShort(_) | WireError::Crypto(_)) => {
                    Err(Unsealed::Dropped(Silence::Integrity))
                }
                Err(error) => Err(Unsealed::Malformed(error)),
            },
            Body::Fragment(fragment, sealed) => self
                .collect(core, now, message, fragment, sealed)
                .map_err(Unsealed::Dropped),
        }
    }

    /// Takes a fragment of the message that is next. RFC 7383 §2.6: what is wrong with it, it is
    /// dropped in silence.
    fn collect(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
        fragment: &FragmentPacket<'_>,
        sealed: &EncryptedPacket<'_>,
    ) -> Result<Option<Whole>, Silence> {
        let header = message.header();
        let unauthenticated = self.established().is_none();
        if !self.transport.fragments {
            return Err(Silence::Fragment);
        }
        if !header.response && !self.admits(header.exchange) {
            return Err(Silence::UnexpectedExchange);
        }
        let repr = FragmentRepr::parse(fragment).map_err(|_| Silence::Fragment)?;
        let limit = if unauthenticated {
            core.config.limits.reassembly_unauthenticated
        } else {
            core.config.limits.reassembly_authenticated
        };
        if usize::from(repr.total) * FRAGMENT_COST > limit {
            return Err(Silence::FragmentLimit);
        }
        let place = match self.incoming.of(header) {
            Some(reassembly) => reassembly.place(header, repr),
            None => Place::Anew,
        };
        if place == Place::Useless {
            return Err(Silence::Fragment);
        }
        let content = self.open(core, sealed).map_err(|_| Silence::Integrity)?;
        core.counters.fragments_received += 1;
        if place == Place::Anew {
            self.discard(core, header);
            *self.incoming.of(header) = Some(Box::new(Reassembly::new(header, repr.total)));
            if !unauthenticated {
                let deadline = now + core.config.limits.reassembly_timeout;
                self.set_clock(core, Clock::Reassembly, deadline);
            }
        }
        self.keep_fragment(core, message, repr.number, content, limit)
    }

    /// Keeps an authentic fragment that is missing, within the limits.
    fn keep_fragment(
        &mut self,
        core: &mut Core,
        message: &Message<'_>,
        number: u16,
        content: Opened,
        limit: usize,
    ) -> Result<Option<Whole>, Silence> {
        let header = message.header();
        let more = cost(&content);
        let unauthenticated = self.established().is_none();
        let Some(reassembly) = self.incoming.of(header) else {
            return Err(Silence::Fragment);
        };
        let all = core.reassembling + more;
        let too_much = unauthenticated && all > core.config.limits.reassembly_unauthenticated_total;
        if too_much || reassembly.held + more > limit {
            self.discard(core, header);
            return Err(Silence::FragmentLimit);
        }
        let digest = core.crypto.sha256(&[message.bytes()]);
        reassembly.keep(number, content, digest);
        let whole = reassembly.finish();
        if unauthenticated {
            core.reassembling = all;
        }
        if whole.is_some() {
            core.counters.messages_reassembled += 1;
            self.discard(core, header);
        }
        Ok(whole)
    }

    /// Drops what is held of a direction.
    fn discard(&mut self, core: &mut Core, header: &HeaderRepr) {
        let unauthenticated = self.established().is_none();
        if let Some(reassembly) = self.incoming.of(header).take()
            && unauthenticated
        {
            core.reassembling = core.reassembling.saturating_sub(reassembly.held);
        }
    }

    /// Drops what is held of incomplete messages.
    pub(super) fn discard_fragments(&mut self, core: &mut Core) {
        let unauthenticated = self.established().is_none();
        let Incoming {
            requests,
            responses,
        } = std::mem::take(&mut self.incoming);
        for reassembly in [requests, responses].into_iter().flatten() {
            if unauthenticated {
                core.reassembling = core.reassembling.saturating_sub(reassembly.held);
            }
        }
    }

    /// Whether a fragment repeats the peer's last request in another way than the first time: the
    /// peer sends smaller ones now (RFC 7383 §2.5.2). Only the first of a set counts (§2.6.1).
    pub(super) fn is_refragmented(&self, core: &Core, message: &Message<'_>) -> bool {
        let Body::Fragment(fragment, sealed) = message.body() else {
            return false;
        };
        self.transport.fragments && fragment.number() == 1 && self.open(core, sealed).is_ok()
    }

    /// Whether anything in a message of the peer's is authentic, and what it is if it is complete.
    pub(super) fn peek(&self, core: &Core, message: &Message<'_>) -> Option<Option<Opened>> {
        match message.body() {
            Body::Clear(_) => None,
            Body::Encrypted(encrypted) => self.open(core, encrypted).ok().map(Some),
            Body::Fragment(_, sealed) => self.open(core, sealed).ok().map(|_| None),
        }
    }

    /// Opens a message of our own, as it was sent.
    pub(super) fn open_own(&self, core: &Core, octets: &[u8]) -> Result<Opened, WireError> {
        let (ours, _) = self.sk_e();
        let mut whole = Opened {
            first: PayloadType::NONE,
            plaintext: Vec::new(),
        };
        for (index, octets) in messages(octets).enumerate() {
            let message = Message::parse(octets)?;
            let (Body::Encrypted(sealed) | Body::Fragment(_, sealed)) = message.body() else {
                return Err(WireError::Missing(PayloadType::SK));
            };
            let part = sealed.open(&*core.crypto, self.proposal.encryption, ours)?;
            if index == 0 {
                whole.first = part.first;
            }
            whole.plaintext.extend_from_slice(&part.plaintext);
        }
        Ok(whole)
    }
}

/// Why there is nothing to look into.
pub(super) enum Unsealed {
    /// Not authentic, or not wanted.
    Dropped(Silence),
    /// Authentic and wrong.
    Malformed(WireError),
}

/// What a fragment will count for.
fn cost(content: &Opened) -> usize {
    content.plaintext.len() + FRAGMENT_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &[u8], first: u8) -> Opened {
        Opened {
            first: PayloadType(first),
            plaintext: text.to_vec(),
        }
    }

    fn header(message_id: u32) -> HeaderRepr {
        HeaderRepr {
            initiator_spi: [1; 8],
            responder_spi: [2; 8],
            exchange: ExchangeType::IKE_AUTH,
            from_initiator: true,
            response: false,
            message_id,
        }
    }

    fn fragment(number: u16, total: u16) -> FragmentRepr {
        FragmentRepr { number, total }
    }

    #[test]
    fn the_order_does_not_matter_and_the_first_fragment_names_the_payload() {
        let mut message = Reassembly::new(&header(1), 3);
        message.keep(3, content(b"c", 0), [3; 32]);
        message.keep(1, content(b"a", 33), [1; 32]);
        assert!(message.finish().is_none());
        message.keep(2, content(b"b", 0), [2; 32]);
        let whole = message.finish().unwrap();
        assert_eq!(whole.opened.plaintext, b"abc");
        assert_eq!(whole.opened.first, PayloadType::SA);
        assert_eq!(whole.digest, [1; 32]);
        assert_eq!(message.held, 3 * (1 + FRAGMENT_COST));
    }

    #[test]
    fn more_fragments_begin_anew_and_fewer_are_old() {
        let mut message = Reassembly::new(&header(7), 3);
        message.keep(2, content(b"b", 0), [2; 32]);
        assert_eq!(message.place(&header(7), fragment(2, 3)), Place::Useless);
        assert_eq!(message.place(&header(7), fragment(1, 3)), Place::Missing);
        assert_eq!(message.place(&header(7), fragment(1, 4)), Place::Anew);
        assert_eq!(message.place(&header(7), fragment(1, 2)), Place::Useless);
        assert_eq!(message.place(&header(8), fragment(1, 3)), Place::Anew);
    }
}
