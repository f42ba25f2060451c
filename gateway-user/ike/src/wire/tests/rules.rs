//! Single rules of RFC 7296, each with the octets that break it.

use super::{frame, header, hex, message};
use crate::wire::{
    Blame, Body, DeleteRepr, Encapsulated, ExchangeType, HeaderPacket, HeaderRepr, Malformation,
    Message, NotifyRepr, NotifyType, Payload, PayloadType, Payloads, ProtocolId, TransformType,
    TsRepr, WireError,
};

fn parse(octets: &[u8]) -> Result<Payloads<'_>, WireError> {
    match Message::parse(octets)?.body() {
        Body::Clear(chain) => Payloads::parse(chain.clone()),
        _ => panic!("encrypted"),
    }
}

fn malformed(kind: PayloadType, cause: Malformation) -> WireError {
    WireError::Malformed { kind, cause }
}

/// The error that a payload's body is refused with.
fn refused(kind: PayloadType, body: &str) -> WireError {
    parse(&message(kind.0, &hex(body))).unwrap_err()
}

#[test]
fn header_octets() {
    let octets = hex("0102030405060708 090a0b0c0d0e0f10 29 20 25 08 00000007 0000001c");
    assert_eq!(header().encode(PayloadType::NOTIFY, 28).as_slice(), octets);
    let response = header().to_response();
    assert!(response.response && !response.from_initiator);
    assert_eq!(response.encode(PayloadType::NONE, 28)[19], 0x20);
}

#[test]
fn versions() {
    let mut octets = frame(0, &[]);
    for (version, expected) in [
        (0x10, Some(Blame::Silence)),
        (0x20, None),
        (0x2f, None),
        (0x30, Some(Blame::InvalidMajorVersion)),
        (0xf0, Some(Blame::InvalidMajorVersion)),
    ] {
        octets[17] = version;
        let blame = Message::parse(&octets).err().map(WireError::blame);
        assert_eq!(blame, expected, "{version:#x}");
    }
    // The answer needs the SPIs of what could not be parsed.
    let packet = HeaderPacket::new_checked(&octets).unwrap();
    assert_eq!(packet.initiator_spi(), header().initiator_spi);
    assert_eq!(packet.message_id(), 7);
}

#[test]
fn header_rules() {
    let mut octets = frame(0, &[]);
    octets[..8].fill(0);
    assert_eq!(
        Message::parse(&octets).unwrap_err(),
        WireError::ZeroInitiatorSpi
    );
    let mut octets = frame(0, &[]);
    octets[19] |= 0xd7;
    assert_eq!(Message::parse(&octets).unwrap().header(), &header());
    for length in [0, 27, 29, u32::MAX] {
        let mut octets = frame(0, &[]);
        octets[24..].copy_from_slice(&length.to_be_bytes());
        let expected = WireError::MessageLength {
            header: length,
            datagram: 28,
        };
        assert_eq!(Message::parse(&octets).unwrap_err(), expected);
        assert_eq!(expected.blame(), Blame::Silence);
    }
    for len in 0..28 {
        assert_eq!(
            Message::parse(&frame(0, &[])[..len]).unwrap_err(),
            WireError::HeaderTruncated(len)
        );
    }
}

#[test]
fn unknown_exchange_is_kept() {
    let octets = HeaderRepr {
        exchange: ExchangeType(240),
        ..header()
    }
    .encode(PayloadType::NONE, 28);
    let message = Message::parse(&octets).unwrap();
    assert_eq!(message.header().exchange, ExchangeType(240));
    assert_eq!(message.header().exchange.to_string(), "ExchangeType(240)");
    assert_eq!(ExchangeType::IKE_AUTH.to_string(), "IKE_AUTH");
}

#[test]
fn critical_payloads() {
    // Unknown and not critical: skipped, whatever is inside.
    assert_eq!(parse(&message(200, &[1, 2, 3])), Ok(Payloads::default()));
    // Unknown and critical, first in the chain or later.
    let expected = WireError::UnsupportedCriticalPayload(PayloadType(200));
    assert_eq!(
        parse(&frame(200, &hex("00 80 0004"))).unwrap_err(),
        expected
    );
    assert_eq!(
        parse(&frame(43, &hex("c8 00 0004 c9 80 0004 00 80 0004"))).unwrap_err(),
        expected
    );
    assert_eq!(expected.blame().notify_data(), [200]);
    assert_eq!(
        expected.blame().notify_type(),
        Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD)
    );
    // Known and critical: the bit does not matter (RFC 7296 §2.5).
    let octets = frame(43, &hex("00 80 0006 abcd"));
    assert_eq!(parse(&octets).unwrap().vendor_ids[0].data, [0xab, 0xcd]);
    // Reserved bits beside it neither.
    let octets = frame(43, &hex("00 7f 0006 abcd"));
    assert_eq!(parse(&octets).unwrap().vendor_ids.len(), 1);
}

#[test]
fn chain_lengths() {
    let bad = |length, available| WireError::PayloadLength {
        kind: PayloadType::NOTIFY,
        length,
        available,
    };
    assert_eq!(parse(&frame(41, &[])).unwrap_err(), bad(0, 0));
    assert_eq!(parse(&frame(41, &[0, 0, 0])).unwrap_err(), bad(0, 3));
    for length in 0..4 {
        let octets = frame(41, &[0, 0, 0, length]);
        assert_eq!(parse(&octets).unwrap_err(), bad(length.into(), 4));
    }
    assert_eq!(parse(&frame(41, &hex("0000 0005"))).unwrap_err(), bad(5, 4));
    assert_eq!(
        parse(&frame(0, &[0])).unwrap_err(),
        WireError::TrailingOctets(1)
    );
}

#[test]
fn duplicates() {
    let nonce = "00000014 000102030405060708090a0b0c0d0e0f";
    let twice = hex(&format!("28{} {nonce}", &nonce[2..]));
    assert_eq!(
        parse(&frame(40, &twice)).unwrap_err(),
        WireError::Duplicate(PayloadType::NONCE)
    );
    let notifies = frame(41, &hex("29000008 00004000 00000008 00004000"));
    assert_eq!(parse(&notifies).unwrap().notifies.len(), 2);
    assert_eq!(
        parse(&notifies).unwrap().require_nonce(),
        Err(WireError::Missing(PayloadType::NONCE))
    );
}

#[test]
fn security_association() {
    use Malformation::{Count, Empty, InnerLength, LastSubstructure, SpiSize, TooShort};
    let refused = |body: &str| match refused(PayloadType::SA, body) {
        WireError::Malformed { cause, .. } => cause,
        error => panic!("{error}"),
    };
    let good = "00 00 0014 01 01 00 01  00 00 000c 01 00 0014 800e 0080";
    let octets = message(33, &hex(good));
    let payloads = parse(&octets).unwrap();
    let transform = &payloads.sa.as_ref().unwrap().proposals[0].transforms[0];
    assert_eq!((transform.kind, transform.id), (TransformType::ENCR, 20));
    assert_eq!(transform.key_length(), Some(128));

    assert_eq!(refused(""), Empty);
    assert_eq!(refused("00 00 0008 01 01 00"), TooShort);
    assert_eq!(refused("00 00 0009 01 01 00 00"), InnerLength);
    assert_eq!(refused("00 00 0007 01 01 00 00"), InnerLength);
    assert_eq!(refused("00 00 0000 01 01 00 00"), InnerLength);
    assert_eq!(refused("00 00 0008 01 01 01 00"), SpiSize);
    assert_eq!(refused("02 00 0008 01 01 00 00"), LastSubstructure);
    assert_eq!(
        refused("00 00 0008 01 01 00 00 00 00 0008 02 01 00 00"),
        LastSubstructure
    );
    // Transforms: none for a count of one, one for none, two for one.
    assert_eq!(refused("00 00 0008 01 01 00 01"), Count);
    assert_eq!(
        refused("00 00 0010 01 01 00 00  00 00 0008 02 00 0005"),
        Count
    );
    assert_eq!(
        refused("00 00 0018 01 01 00 01  03 00 0008 02 00 0005  00 00 0008 04 00 001f"),
        Count
    );
    assert_eq!(
        refused("00 00 0010 01 01 00 01  03 00 0008 02 00 0005"),
        LastSubstructure
    );
    assert_eq!(
        refused("00 00 0010 01 01 00 01  00 00 0007 02 00 0005"),
        InnerLength
    );
    assert_eq!(
        refused("00 00 0010 01 01 00 01  00 00 0009 02 00 0005"),
        InnerLength
    );
    // Attributes: half a header, a length over the end.
    assert_eq!(
        refused("00 00 0012 01 01 00 01  00 00 000a 01 00 0014 800e"),
        TooShort
    );
    assert_eq!(
        refused("00 00 0014 01 01 00 01  00 00 000c 01 00 0014 000e 0001"),
        InnerLength
    );
}

/// RFC 7296 §3.3.6: what we do not know is kept, to be skipped by the negotiation.
#[test]
fn unknown_transforms_are_kept() {
    let body = "00 00 002c 01 09 03 03 abcdef 
        03 00 000e f0 00 fffe 000e 0002 0080
        03 00 0008 01 00 0001
        00 00 000b 01 00 0014 7fff 00";
    // The last transform has three octets of attributes, one too few.
    assert_eq!(
        refused(PayloadType::SA, body),
        malformed(PayloadType::SA, Malformation::TooShort)
    );
    let body = "00 00 002d 01 09 03 03 abcdef 
        03 00 000e f0 00 fffe 000e 0002 0080
        03 00 0008 01 00 0001
        00 00 000c 01 00 0014 7fff 0000";
    let octets = message(33, &hex(body));
    let payloads = parse(&octets).unwrap();
    let proposal = &payloads.sa.as_ref().unwrap().proposals[0];
    assert_eq!(proposal.protocol, ProtocolId(9));
    assert_eq!(proposal.spi, [0xab, 0xcd, 0xef]);
    assert_eq!((proposal.esp_spi(), proposal.ike_spi()), (None, None));
    let [unknown, plain, odd] = proposal.transforms.as_slice() else {
        panic!("three transforms");
    };
    assert_eq!(unknown.kind, TransformType(0xf0));
    // Key Length in the long form is not the attribute that RFC 7296 §3.3.5 defines.
    assert_eq!(unknown.key_length(), None);
    assert!(!unknown.has_only_known_attributes());
    assert!(plain.has_only_known_attributes());
    assert!(!odd.has_only_known_attributes());
}

#[test]
fn small_payloads() {
    use Malformation::{Count, DataLength, SpiSize, TooShort};
    let cases = [
        (PayloadType::KE, "", TooShort),
        (PayloadType::KE, "001f00", TooShort),
        (PayloadType::IDI, "020000", TooShort),
        (PayloadType::IDI, "01000000 0a0000", DataLength),
        (PayloadType::IDR, "05000000 0a000001", DataLength),
        (PayloadType::CERT, "", TooShort),
        (PayloadType::CERTREQ, "", TooShort),
        (PayloadType::CERTREQ, "04 abcd", DataLength),
        (PayloadType::AUTH, "020000", TooShort),
        (
            PayloadType::NONCE,
            "000102030405060708090a0b0c0d0e",
            DataLength,
        ),
        (PayloadType::NOTIFY, "000040", TooShort),
        (PayloadType::NOTIFY, "0304 4009 010203", SpiSize),
        (PayloadType::DELETE, "010000", TooShort),
        (PayloadType::DELETE, "01040001 01020304", SpiSize),
        (PayloadType::DELETE, "03080001 0102030405060708", SpiSize),
        (PayloadType::DELETE, "03040002 01020304", Count),
        (PayloadType::DELETE, "03040001 0102030405", Count),
        (PayloadType::DELETE, "0100ffff", Count),
    ];
    for (kind, body, cause) in cases {
        assert_eq!(refused(kind, body), malformed(kind, cause), "{kind} {body}");
    }
    assert_eq!(
        parse(&message(40, &[0; 257])).unwrap_err(),
        malformed(PayloadType::NONCE, DataLength)
    );
    assert!(parse(&message(40, &[0; 256])).is_ok());
}

/// See [`super::super::KeRepr::data`].
#[test]
fn an_empty_ke_payload_is_for_its_user_to_judge() {
    let octets = message(34, &hex("001f0000"));
    let ke = parse(&octets).unwrap().ke.unwrap();
    assert_eq!((ke.method, ke.data), (31, &[][..]));
}

#[test]
fn traffic_selectors() {
    use Malformation::{Empty, InnerLength, LeftOver, ReversedRange, TooShort};
    let good = "07 06 0010 0050 0050 0a000000 0a0000ff";
    let octets = message(44, &hex(&format!("01000000 {good}")));
    let TsRepr { selectors } = parse(&octets).unwrap().ts_initiator.unwrap();
    assert_eq!(selectors[0].end.to_string(), "10.0.0.255");

    let cases = [
        ("000000", TooShort),
        ("00000000", Empty),
        ("01000000", InnerLength),
        ("01000000 07 06 0003", InnerLength),
        ("01000000 07 06 0010 0050 0050 0a000000 0a0000", InnerLength),
        ("01000000 07 06 000f 0050 0050 0a000000 0a0000", InnerLength),
        (
            "01000000 07 06 0011 0050 0050 0a000000 0a0000ff 00",
            InnerLength,
        ),
        (
            "01000000 08 06 0010 0050 0050 0a000000 0a0000ff",
            InnerLength,
        ),
        (
            "01000000 07 06 0010 0050 004f 0a000000 0a0000ff",
            ReversedRange,
        ),
        (
            "01000000 07 06 0010 0050 0050 0a000001 0a000000",
            ReversedRange,
        ),
        (
            "02000000 07 06 0010 0050 0050 0a000000 0a0000ff",
            InnerLength,
        ),
        (
            "01000000 07 06 0010 0050 0050 0a000000 0a0000ff 00",
            LeftOver,
        ),
    ];
    for (body, cause) in cases {
        let kind = PayloadType::TSR;
        assert_eq!(refused(kind, body), malformed(kind, cause), "{body}");
    }
    // OPAQUE ports, and a selector of an unknown type in front: skipped.
    let body = "02000000 0a 00 0006 abcd 07 00 0010 ffff 0000 0a000000 0a0000ff";
    let octets = message(45, &hex(body));
    let TsRepr { selectors } = parse(&octets).unwrap().ts_responder.unwrap();
    assert_eq!(selectors.len(), 1);
    assert_eq!((selectors[0].start_port, selectors[0].end_port), (65535, 0));
    // Nothing but unknown ones is nothing that could be accepted, and no error.
    let octets = message(45, &hex("01000000 09 00 0004"));
    assert!(
        parse(&octets)
            .unwrap()
            .require_ts_responder()
            .unwrap()
            .selectors
            .is_empty()
    );
}

#[test]
fn notify_and_delete_octets() {
    let encode = |payload: Payload<'_>| {
        let mut body = Vec::new();
        payload.encode(&mut body).unwrap();
        body
    };
    let rekey = NotifyRepr::esp(NotifyType::REKEY_SA, &[1, 2, 3, 4]);
    assert_eq!(encode(Payload::Notify(rekey)), hex("0304 4009 01020304"));
    assert_eq!(rekey.esp_spi(), Some([1, 2, 3, 4]));
    let cookie = NotifyRepr::new(NotifyType::COOKIE, &[9, 9]);
    assert_eq!(encode(Payload::Notify(cookie)), hex("0000 4006 0909"));
    let ike = Payload::Delete(DeleteRepr::ike());
    assert_eq!(encode(ike), hex("01000000"));
    let esp = DeleteRepr::esp(&[[1, 2, 3, 4], [5, 6, 7, 8]]);
    assert_eq!(
        encode(Payload::Delete(esp)),
        hex("03040002 01020304 05060708")
    );
    assert!(NotifyType(16383).is_error() && !NotifyType(16384).is_error());
}

#[test]
fn fragments_are_recognised() {
    let octets = message(53, &hex("0001 0003 abcd"));
    let Body::Fragment(packet, _) = Message::parse(&octets).unwrap().body().clone() else {
        panic!("not a fragment");
    };
    assert_eq!((packet.number(), packet.total()), (1, 3));
    assert_eq!(packet.sealed(), [0xab, 0xcd]);
    for fields in ["0000 0003", "0004 0003"] {
        let octets = hex(fields);
        let packet = crate::wire::FragmentPacket::new_checked(&octets).unwrap();
        assert_eq!(
            crate::wire::FragmentRepr::parse(&packet),
            Err(malformed(PayloadType::SKF, Malformation::Number))
        );
    }
    assert_eq!(
        Message::parse(&message(53, &[0, 1, 0])).unwrap_err(),
        malformed(PayloadType::SKF, Malformation::TooShort)
    );
}

#[test]
fn port_4500() {
    assert_eq!(Encapsulated::parse(&[0xff]), Encapsulated::Keepalive);
    for runt in [&[][..], &[0], &[0xfe], &[0, 0, 0], &[0xff, 0xff, 0xff]] {
        assert_eq!(Encapsulated::parse(runt), Encapsulated::Runt);
    }
    assert_eq!(
        Encapsulated::parse(&[0, 0, 0, 0, 7]),
        Encapsulated::Ike(&[7])
    );
    assert_eq!(
        Encapsulated::parse(&[0, 0, 0, 1]),
        Encapsulated::Esp(&[0, 0, 0, 1])
    );
    assert_eq!(Encapsulated::encode_ike(&[7]), [0, 0, 0, 0, 7]);
}
