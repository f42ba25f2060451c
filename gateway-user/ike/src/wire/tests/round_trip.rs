//! Any value, encoded and parsed again, is the same value.

use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary;
use crate::aws_lc::AwsLc;
use crate::crypto::Encryption;
use crate::wire::{
    Body, Chain, FragmentPacket, FragmentRepr, HeaderPacket, HeaderRepr, Message, MessageBuilder,
    Payload, PayloadType, RawPayload,
};

proptest! {
    #[test]
    fn header(header in arbitrary::header(), next: u8, length: u32) {
        let octets = header.encode(PayloadType(next), length);
        let packet = HeaderPacket::new_checked(&octets).unwrap();
        prop_assert_eq!(HeaderRepr::parse(&packet).unwrap(), header);
        prop_assert_eq!(packet.next_payload(), PayloadType(next));
        prop_assert_eq!(packet.length(), length);
        prop_assert_eq!((packet.major_version(), packet.minor_version()), (2, 0));
    }

    #[test]
    fn payload(owned in arbitrary::payload()) {
        let payload = owned.payload();
        let mut body = vec![0xee];
        payload.encode(&mut body).unwrap();
        prop_assert_eq!(body.remove(0), 0xee, "appends");
        prop_assert_eq!(body.len(), payload.buffer_len());
        let raw = RawPayload {
            kind: payload.payload_type(),
            critical: false,
            next: PayloadType::NONE,
            body: &body,
        };
        prop_assert_eq!(Payload::parse(&raw).unwrap(), payload);
    }

    #[test]
    fn fragment(number in 1..=u16::MAX, more: u16) {
        let repr = FragmentRepr { number, total: number.saturating_add(more) };
        let mut body = Vec::new();
        repr.encode(&mut body);
        prop_assert_eq!(body.len(), repr.buffer_len());
        body.push(0xab);
        let packet = FragmentPacket::new_checked(&body).unwrap();
        prop_assert_eq!(FragmentRepr::parse(&packet).unwrap(), repr);
        prop_assert_eq!(packet.sealed(), &[0xab]);
    }

    #[test]
    fn clear_message(
        header in arbitrary::header(),
        owned in vec(arbitrary::payload(), 0..8),
    ) {
        let octets = build(header, &owned).finish().unwrap();
        let message = Message::parse(&octets).unwrap();
        prop_assert_eq!(message.header(), &header);
        let Body::Clear(chain) = message.body() else {
            return Err(TestCaseError::fail("not in clear"));
        };
        same(chain.clone(), &owned)?;
    }

    #[test]
    fn sealed_message(
        header in arbitrary::header(),
        owned in vec(arbitrary::payload(), 0..8),
        keymat in vec(any::<u8>(), 36),
        iv: u64,
    ) {
        for encryption in [Encryption::AesGcm16Key128, Encryption::AesGcm16Key256] {
            let keymat = &keymat[..encryption.keymat_len()];
            let builder = build(header, &owned);
            let octets = builder.seal(&AwsLc, encryption, keymat, iv).unwrap();
            let message = Message::parse(&octets).unwrap();
            prop_assert_eq!(message.header(), &header);
            let Body::Encrypted(packet) = message.body() else {
                return Err(TestCaseError::fail("not encrypted"));
            };
            prop_assert_eq!(&packet.body()[..8], &iv.to_be_bytes());
            let opened = packet.open(&AwsLc, encryption, keymat).unwrap();
            same(opened.chain().unwrap(), &owned)?;
        }
    }
}

fn build(header: HeaderRepr, owned: &[arbitrary::Owned]) -> MessageBuilder {
    owned
        .iter()
        .fold(MessageBuilder::new(header), |builder, owned| {
            builder.with(&owned.payload())
        })
}

fn same(chain: Chain<'_>, owned: &[arbitrary::Owned]) -> Result<(), TestCaseError> {
    let parsed: Vec<_> = chain.map(|raw| Payload::parse(&raw).unwrap()).collect();
    let expected: Vec<_> = owned.iter().map(arbitrary::Owned::payload).collect();
    prop_assert_eq!(parsed, expected);
    Ok(())
}
