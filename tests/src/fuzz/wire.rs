//! The IKEv2 wire format.

use gateway_ike::crypto::{CryptoProvider, Encryption};
use gateway_ike::wire::{
    Body, Chain, Encapsulated, ExchangeType, FragmentPacket, FragmentRepr, HeaderPacket,
    HeaderRepr, MAX_PAYLOADS, Message, MessageBuilder, Payload, PayloadType, Payloads, RawPayload,
    WireError,
};

use gateway_ike::testing::Toy;

const ENCRYPTION: Encryption = Encryption::AesGcm16Key128;
const KEYMAT: [u8; 20] = [0x4b; 20];

/// A datagram on port 4500.
pub(super) fn encapsulation(data: &[u8]) {
    match Encapsulated::parse(data) {
        Encapsulated::Keepalive => assert_eq!(data, [0xff]),
        Encapsulated::Ike(message) => assert_eq!(Encapsulated::encode_ike(message), data),
        Encapsulated::Esp(packet) => {
            assert_eq!(packet, data);
            assert_ne!(packet.first_chunk(), Some(&[0; 4]));
        }
        Encapsulated::Runt => assert!(data.len() < 4),
    }
}

/// An IKE header.
pub(super) fn header(data: &[u8]) {
    let Ok(packet) = HeaderPacket::new_checked(data) else {
        assert!(data.len() < 28);
        return;
    };
    match HeaderRepr::parse(&packet) {
        Ok(repr) => {
            let octets = repr.encode(packet.next_payload(), packet.length());
            let again = HeaderPacket::new_checked(&octets).expect("28 octets");
            assert_eq!(HeaderRepr::parse(&again), Ok(repr));
            // All but the minor version and the flags without meaning.
            assert_eq!(octets[..17], data[..17]);
            assert_eq!(octets[18], data[18]);
            assert_eq!(octets[20..], data[20..28]);
        }
        Err(WireError::MajorVersion(version)) => assert_eq!(version, data[17] >> 4),
        Err(error) => assert_eq!(error, WireError::ZeroInitiatorSpi),
    }
}

/// A whole message in clear, parsed as far as it goes.
pub(super) fn message(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    match message.body() {
        Body::Clear(chain) => {
            if Payloads::parse(chain.clone()).is_ok() {
                rebuild(message.header(), chain.clone());
            }
        }
        Body::Encrypted(packet) => {
            assert_eq!([packet.associated_data(), packet.body()].concat(), data);
            // That a fuzzer forges 128 bits of tag is as good as impossible.
            assert!(packet.open(&Toy::new(0), ENCRYPTION, &KEYMAT).is_err());
        }
        Body::Fragment(packet, _) => {
            let _ = FragmentRepr::parse(packet);
        }
    }
}

/// Writes a parsed message again: it must say the same.
fn rebuild(header: &HeaderRepr, chain: Chain<'_>) {
    let mut builder = MessageBuilder::new(*header);
    let mut payloads = Vec::new();
    for raw in chain {
        let payload = Payload::parse(&raw).expect("parsed before");
        if can_be_written(&payload) {
            builder.push(&payload);
            payloads.push(payload);
        }
    }
    let octets = builder.finish().expect("no larger than what was parsed");
    let message = Message::parse(&octets).expect("our own message");
    assert_eq!(message.header(), header);
    let Body::Clear(chain) = message.body() else {
        panic!("no Encrypted payload was written");
    };
    let again: Vec<_> = chain
        .clone()
        .map(|raw| Payload::parse(&raw).expect("our own payload"))
        .collect();
    assert_eq!(again, payloads);
}

/// Selectors of unknown types only are left with none, which is not for us to send.
fn can_be_written(payload: &Payload<'_>) -> bool {
    match payload {
        Payload::TsInitiator(ts) | Payload::TsResponder(ts) => !ts.selectors.is_empty(),
        _ => true,
    }
}

/// A chain of payloads: type of the first one, then the chain.
pub(super) fn chain(data: &[u8]) {
    let Some((&first, octets)) = data.split_first() else {
        return;
    };
    let Ok(chain) = Chain::new_checked(PayloadType(first), octets) else {
        return;
    };
    let mut used = 0;
    let mut count = 0;
    for raw in chain.clone() {
        used += 4 + raw.body.len();
        count += 1;
        let _ = Payload::parse(&raw);
    }
    assert_eq!(used, octets.len());
    assert!(count <= MAX_PAYLOADS);
    let _ = Payloads::parse(chain);
}

/// The body of a payload. What was parsed can be written, and reads the same again.
fn payload(kind: PayloadType, body: &[u8]) {
    let raw = RawPayload {
        kind,
        critical: false,
        next: PayloadType::NONE,
        body,
    };
    let Ok(payload) = Payload::parse(&raw) else {
        return;
    };
    assert_eq!(payload.payload_type(), kind);
    if !can_be_written(&payload) {
        return;
    }
    let mut octets = Vec::new();
    payload.encode(&mut octets).expect("parsed, so it fits");
    assert_eq!(octets.len(), payload.buffer_len());
    assert!(octets.len() <= body.len());
    let again = Payload::parse(&RawPayload {
        body: &octets,
        ..raw
    });
    assert_eq!(again.as_ref(), Ok(&payload));
}

pub(super) fn security_association(data: &[u8]) {
    payload(PayloadType::SA, data);
}

pub(super) fn key_exchange(data: &[u8]) {
    payload(PayloadType::KE, data);
}

pub(super) fn identification(data: &[u8]) {
    payload(PayloadType::IDI, data);
    payload(PayloadType::IDR, data);
}

pub(super) fn certificate(data: &[u8]) {
    payload(PayloadType::CERT, data);
}

pub(super) fn certificate_request(data: &[u8]) {
    payload(PayloadType::CERTREQ, data);
}

pub(super) fn authentication(data: &[u8]) {
    payload(PayloadType::AUTH, data);
}

pub(super) fn nonce(data: &[u8]) {
    payload(PayloadType::NONCE, data);
}

pub(super) fn notify(data: &[u8]) {
    payload(PayloadType::NOTIFY, data);
}

pub(super) fn delete(data: &[u8]) {
    payload(PayloadType::DELETE, data);
}

pub(super) fn traffic_selectors(data: &[u8]) {
    payload(PayloadType::TSI, data);
    payload(PayloadType::TSR, data);
}

pub(super) fn fragment(data: &[u8]) {
    let Ok(packet) = FragmentPacket::new_checked(data) else {
        assert!(data.len() < 4);
        return;
    };
    if let Ok(repr) = FragmentRepr::parse(&packet) {
        let mut octets = Vec::new();
        repr.encode(&mut octets);
        assert_eq!([&octets, packet.sealed()].concat(), data);
    }
}

/// An authentic Encrypted payload with anything inside: type of the first payload, which bit to
/// flip afterwards (two octets), then the plaintext with its padding.
pub(super) fn sk_open(data: &[u8]) {
    let Some((&[first, high, low], plaintext)) = data.split_first_chunk() else {
        return;
    };
    let Ok(body_len) = u16::try_from(8 + plaintext.len() + 16) else {
        return;
    };
    let Some(payload_len) = body_len.checked_add(4) else {
        return;
    };
    let Some(octets) = seal(first, payload_len, plaintext) else {
        return;
    };
    let opened = open(&octets);
    let padding = plaintext.last().map(|&pad| 1 + usize::from(pad));
    match padding.and_then(|padding| plaintext.len().checked_sub(padding)) {
        Some(length) => {
            let opened = opened.expect("authentic, and the padding fits");
            assert_eq!(opened.plaintext, plaintext[..length]);
            assert_eq!(opened.first, PayloadType(first));
            let _ = opened.payloads();
        }
        None => assert!(opened.is_err()),
    }
    // One flipped bit anywhere: not a message any more, or not authentic.
    let bit = usize::from(u16::from_be_bytes([high, low])) % (octets.len() * 8);
    let mut changed = octets;
    changed[bit / 8] ^= 1 << (bit % 8);
    if let Ok(message) = Message::parse(&changed)
        && let Body::Encrypted(packet) = message.body()
    {
        assert!(matches!(
            packet.open(&Toy::new(0), ENCRYPTION, &KEYMAT),
            Err(WireError::Crypto(_) | WireError::EncryptedTooShort(_))
        ));
    }
}

/// A message whose Encrypted payload holds exactly `plaintext`.
fn seal(first: u8, payload_len: u16, plaintext: &[u8]) -> Option<Vec<u8>> {
    let header = HeaderRepr {
        initiator_spi: [1; 8],
        responder_spi: [2; 8],
        exchange: ExchangeType::INFORMATIONAL,
        from_initiator: true,
        response: false,
        message_id: 1,
    };
    let [high, low] = payload_len.to_be_bytes();
    let length = u32::from(payload_len) + 28;
    if length > 65_535 {
        return None;
    }
    let mut octets = header.encode(PayloadType::SK, length).to_vec();
    octets.extend_from_slice(&[first, 0, high, low]);
    let iv = [3; 8];
    let mut buffer = plaintext.to_vec();
    Toy::new(0)
        .seal(ENCRYPTION, &KEYMAT, &iv, &octets, &mut buffer)
        .expect("a key of the right length");
    octets.extend_from_slice(&iv);
    octets.extend_from_slice(&buffer);
    Some(octets)
}

fn open(octets: &[u8]) -> Result<gateway_ike::wire::Opened, WireError> {
    let message = Message::parse(octets)?;
    let Body::Encrypted(packet) = message.body() else {
        panic!("it has an Encrypted payload");
    };
    packet.open(&Toy::new(0), ENCRYPTION, &KEYMAT)
}
