//! No octets make the parsers panic, and what is cut off is never taken for whole.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{arbitrary, frame, message};
use crate::aws_lc::AwsLc;
use crate::crypto::Encryption;
use crate::wire::{
    Body, Chain, Encapsulated, FragmentRepr, HeaderPacket, HeaderRepr, Message, MessageBuilder,
    Payload, PayloadType, Payloads, RawPayload,
};

/// Everything that a message from the network can reach. Returns how many payloads it had.
fn walk(octets: &[u8]) -> usize {
    let _ = Encapsulated::parse(octets);
    if let Ok(packet) = HeaderPacket::new_checked(octets) {
        let _ = HeaderRepr::parse(&packet);
    }
    let Ok(message) = Message::parse(octets) else {
        return 0;
    };
    match message.body() {
        Body::Clear(chain) => {
            let _ = Payloads::parse(chain.clone());
            for raw in chain.clone() {
                let _ = Payload::parse(&raw);
            }
            chain.clone().count()
        }
        Body::Encrypted(packet) => {
            assert!(
                packet
                    .open(&AwsLc, Encryption::AesGcm16Key128, &[0; 20])
                    .is_err()
            );
            1
        }
        Body::Fragment(packet, _) => {
            let _ = FragmentRepr::parse(packet);
            1
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_octets(octets in vec(any::<u8>(), 0..400)) {
        walk(&octets);
    }

    #[test]
    fn any_body(kind: u8, body in vec(any::<u8>(), 0..200)) {
        walk(&message(kind, &body));
        let raw = RawPayload {
            kind: PayloadType(kind),
            critical: false,
            next: PayloadType::NONE,
            body: &body,
        };
        // What parses can be written, and reads the same again. (Selectors of unknown types are
        // left out, so the octets may differ.)
        if let Ok(payload) = Payload::parse(&raw) {
            let mut again = Vec::new();
            if payload.encode(&mut again).is_ok() {
                let raw = RawPayload { body: &again, ..raw };
                prop_assert_eq!(Payload::parse(&raw).unwrap(), payload);
            }
        }
    }

    #[test]
    fn any_chain(first: u8, octets in vec(any::<u8>(), 0..200)) {
        walk(&frame(first, &octets));
        if let Ok(chain) = Chain::new_checked(PayloadType(first), &octets) {
            let total: usize = chain.map(|raw| raw.body.len() + 4).sum();
            prop_assert_eq!(total, octets.len());
        }
    }

    /// Octets changed in a good message reach deeper than random ones.
    #[test]
    fn changed(
        owned in vec(arbitrary::payload(), 1..6),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut builder = MessageBuilder::new(super::header());
        for owned in &owned {
            builder.push(&owned.payload());
        }
        let mut octets = builder.finish().unwrap();
        prop_assert_eq!(walk(&octets), owned.len());
        for (index, octet) in changes {
            let at = index.index(octets.len());
            octets[at] = octet;
        }
        walk(&octets);
    }

    /// A message cut anywhere is refused, with the length in the header left as it was and with it
    /// corrected, unless the cut is between two payloads.
    #[test]
    fn truncated(owned in vec(arbitrary::payload(), 1..4)) {
        let mut builder = MessageBuilder::new(super::header());
        for owned in &owned {
            builder.push(&owned.payload());
        }
        let octets = builder.finish().unwrap();
        for len in 0..octets.len() {
            let mut cut = octets[..len].to_vec();
            prop_assert!(Message::parse(&cut).is_err());
            if len >= 28 {
                cut[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
                prop_assert!(Message::parse(&cut).is_err(), "cut at {}", len);
            }
        }
    }

    /// A payload's body cut anywhere does not read as the whole.
    #[test]
    fn truncated_body(owned in arbitrary::payload()) {
        let payload = owned.payload();
        let mut body = Vec::new();
        payload.encode(&mut body).unwrap();
        for len in 0..body.len() {
            let raw = RawPayload {
                kind: payload.payload_type(),
                critical: false,
                next: PayloadType::NONE,
                body: &body[..len],
            };
            if let Ok(short) = Payload::parse(&raw) {
                prop_assert_ne!(&short, &payload);
            }
        }
    }
}
