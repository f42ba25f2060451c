//! What is too large is refused, in both directions, and costs no memory.

use super::{frame, header, message};
use crate::wire::{
    Body, EncodeError, MAX_MESSAGE_LEN, MAX_PAYLOADS, MAX_PROPOSALS, Malformation, Message,
    MessageBuilder, NonceRepr, NotifyRepr, NotifyType, OpaqueRepr, Payload, PayloadType, Payloads,
    Proposal, ProtocolId, SaRepr, Transform, TransformType, TsRepr, VendorIdRepr, WireError,
};

const VENDOR: Payload<'static> = Payload::VendorId(VendorIdRepr { data: &[] });

#[test]
fn payloads_per_message() {
    let mut builder = MessageBuilder::new(header());
    for _ in 0..MAX_PAYLOADS {
        builder.push(&VENDOR);
    }
    let octets = builder.clone().finish().unwrap();
    assert!(Message::parse(&octets).is_ok());
    assert_eq!(
        builder.with(&VENDOR).finish(),
        Err(EncodeError::TooManyPayloads)
    );

    let mut payloads = octets[28..].to_vec();
    payloads[(MAX_PAYLOADS - 1) * 4] = 43;
    payloads.extend([0, 0, 0, 4]);
    assert_eq!(
        Message::parse(&frame(43, &payloads)).unwrap_err(),
        WireError::TooManyPayloads
    );
}

#[test]
fn octets_per_message() {
    let fits = vec![0; MAX_MESSAGE_LEN - 28 - 4];
    let octets = MessageBuilder::new(header())
        .with(&Payload::VendorId(VendorIdRepr { data: &fits }))
        .finish()
        .unwrap();
    assert_eq!(octets.len(), MAX_MESSAGE_LEN);
    assert!(Message::parse(&octets).is_ok());

    for excess in [1, 28, 1000, 65_535] {
        let data = vec![0; fits.len() + excess];
        let builder =
            MessageBuilder::new(header()).with(&Payload::VendorId(VendorIdRepr { data: &data }));
        assert_eq!(builder.finish(), Err(EncodeError::MessageTooLong));
    }
    // What fits in clear may not fit encrypted.
    let builder =
        MessageBuilder::new(header()).with(&Payload::VendorId(VendorIdRepr { data: &fits }));
    assert_eq!(
        builder.seal(
            &crate::aws_lc::AwsLc,
            crate::crypto::Encryption::AesGcm16Key128,
            &[0; 20],
            1
        ),
        Err(EncodeError::MessageTooLong)
    );
}

#[test]
fn longer_than_any_datagram() {
    let octets = frame(0, &vec![0; MAX_MESSAGE_LEN]);
    assert!(matches!(
        Message::parse(&octets),
        Err(WireError::MessageLength { .. })
    ));
}

fn proposal(transforms: usize) -> Proposal {
    Proposal {
        number: 1,
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: vec![Transform::new(TransformType::KE, 31); transforms],
    }
}

#[test]
fn proposals_and_transforms() {
    let encode = |proposals: Vec<Proposal>| {
        let mut body = Vec::new();
        SaRepr { proposals }.encode(&mut body).map(|()| body)
    };
    let refused = Err(EncodeError::OutOfRange(PayloadType::SA));
    assert_eq!(encode(Vec::new()), refused);
    assert!(encode(vec![proposal(255)]).is_ok());
    assert_eq!(encode(vec![proposal(256)]), refused);
    assert_eq!(encode(vec![proposal(0); MAX_PROPOSALS + 1]), refused);
    let mut long_spi = proposal(1);
    long_spi.spi = vec![0; 256];
    assert_eq!(encode(vec![long_spi]), refused);

    let mut body = encode(vec![proposal(0); MAX_PROPOSALS]).unwrap();
    let last = body.len() - 8;
    body[last] = 2;
    body.extend([0, 0, 0, 8, 1, 1, 0, 0]);
    let octets = message(33, &body);
    let Body::Clear(chain) = Message::parse(&octets).unwrap().body().clone() else {
        panic!("encrypted");
    };
    assert_eq!(
        Payloads::parse(chain),
        Err(WireError::Malformed {
            kind: PayloadType::SA,
            cause: Malformation::Count
        })
    );
}

/// The amplification from octets to memory that the module promises: a transform of 12 octets is a
/// `Transform`, in a vector with up to as much spare room, and a vector of at least four attributes.
#[test]
fn memory_of_the_largest_value() {
    let in_memory = 2 * size_of::<Transform>() + 4 * size_of::<crate::wire::Attribute>();
    assert!(in_memory <= 16 * 12, "{in_memory} octets for 12");
    assert!(2 * size_of::<Proposal>() <= 16 * 8);
}

#[test]
fn values_that_do_not_fit() {
    let selectors = TsRepr {
        selectors: Vec::new(),
    };
    let spi = [0; 256];
    let notify = NotifyRepr {
        spi: &spi,
        ..NotifyRepr::new(NotifyType::COOKIE, &[])
    };
    let opaque = OpaqueRepr { data: &[] };
    let cases = [
        (Payload::TsInitiator(selectors), PayloadType::TSI),
        (Payload::Notify(notify), PayloadType::NOTIFY),
        (
            Payload::Nonce(NonceRepr { data: &[0; 15] }),
            PayloadType::NONCE,
        ),
        (
            Payload::Unknown(PayloadType::NONE, opaque),
            PayloadType::NONE,
        ),
        (Payload::Unknown(PayloadType::SK, opaque), PayloadType::SK),
    ];
    for (payload, kind) in cases {
        // The error stays, whatever follows it.
        let builder = MessageBuilder::new(header()).with(&payload).with(&VENDOR);
        assert_eq!(builder.finish(), Err(EncodeError::OutOfRange(kind)));
    }
}
