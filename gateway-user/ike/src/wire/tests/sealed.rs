//! The Encrypted payload: what does not verify stays shut.

use super::{header, hex};
use crate::aws_lc::AwsLc;
use crate::crypto::{CryptoError, CryptoProvider, Encryption};
use crate::wire::{
    Body, EncodeError, Malformation, Message, MessageBuilder, NonceRepr, NotifyRepr, NotifyType,
    Opened, Payload, PayloadType, WireError,
};

const ENCRYPTION: Encryption = Encryption::AesGcm16Key128;
const KEYMAT: [u8; 20] = [0x5a; 20];

fn sealed() -> Vec<u8> {
    MessageBuilder::new(header())
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType::INITIAL_CONTACT,
            &[],
        )))
        .with(&Payload::Nonce(NonceRepr { data: &[9; 16] }))
        .seal(&AwsLc, ENCRYPTION, &KEYMAT, 1)
        .unwrap()
}

fn open(octets: &[u8], keymat: &[u8]) -> Result<Opened, WireError> {
    let message = Message::parse(octets)?;
    match message.body() {
        Body::Encrypted(packet) => packet.open(&AwsLc, ENCRYPTION, keymat),
        _ => panic!("not encrypted"),
    }
}

/// A message whose Encrypted payload holds exactly `plaintext`, padding and Pad Length included.
fn sealed_raw(first: u8, plaintext: &[u8]) -> Vec<u8> {
    let payload_len = u16::try_from(4 + 8 + plaintext.len() + 16).unwrap();
    let [high, low] = payload_len.to_be_bytes();
    let mut octets = header()
        .encode(PayloadType::SK, 28 + u32::from(payload_len))
        .to_vec();
    octets.extend_from_slice(&[first, 0, high, low]);
    let iv = [7; 8];
    let mut buffer = plaintext.to_vec();
    AwsLc
        .seal(ENCRYPTION, &KEYMAT, &iv, &octets, &mut buffer)
        .unwrap();
    [octets, iv.to_vec(), buffer].concat()
}

#[test]
fn layout() {
    let octets = sealed();
    // Header, generic header, IV, two payloads of 8 and 20 octets, Pad Length, ICV.
    assert_eq!(octets.len(), 28 + 4 + 8 + 8 + 20 + 1 + 16);
    assert_eq!(octets[16], 46);
    let expected = hex("29 00 0039 0000000000000001");
    assert_eq!(octets[28..40], expected);
    let opened = open(&octets, &KEYMAT).unwrap();
    assert_eq!(opened.first, PayloadType::NOTIFY);
    assert_eq!(opened.plaintext.len(), 28);
    assert_eq!(opened.plaintext[..8], hex("28000008 00004000"));
}

/// Header and generic header are associated data, the rest is ciphertext: no bit can change.
#[test]
fn no_bit_can_change() {
    let octets = sealed();
    for bit in 0..octets.len() * 8 {
        let mut changed = octets.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let Ok(message) = Message::parse(&changed) else {
            continue;
        };
        if let Body::Encrypted(packet) = message.body() {
            assert_eq!(
                packet.open(&AwsLc, ENCRYPTION, &KEYMAT),
                Err(WireError::Crypto(CryptoError::IntegrityFailed)),
                "bit {bit}"
            );
        }
    }
}

#[test]
fn another_key_does_not_open() {
    let refused = Err(WireError::Crypto(CryptoError::IntegrityFailed));
    for octet in 0..KEYMAT.len() {
        let mut keymat = KEYMAT;
        keymat[octet] ^= 0x80;
        assert_eq!(open(&sealed(), &keymat), refused);
    }
    assert_eq!(
        open(&sealed(), &KEYMAT[1..]),
        Err(WireError::Crypto(CryptoError::WrongLength))
    );
}

/// From no body at all up to one octet less than IV, Pad Length and ICV: refused before the key is
/// touched (a provider that fails otherwise would say so).
#[test]
fn too_short_to_open() {
    for len in 0..8 + 1 + 16 {
        let octets = super::message(46, &vec![0; len]);
        assert_eq!(
            open(&octets, &KEYMAT),
            Err(WireError::EncryptedTooShort(len))
        );
    }
    let octets = super::message(46, &[0; 8 + 1 + 16]);
    assert_eq!(
        open(&octets, &KEYMAT),
        Err(WireError::Crypto(CryptoError::IntegrityFailed))
    );
}

#[test]
fn any_padding_is_removed() {
    for pad in [0_u8, 1, 15, 254, 255] {
        let mut plaintext = hex("0000000800004000");
        plaintext.extend(vec![0xa5; usize::from(pad)]);
        plaintext.push(pad);
        let opened = open(&sealed_raw(41, &plaintext), &KEYMAT).unwrap();
        assert_eq!(opened.plaintext, hex("0000000800004000"));
        assert!(
            opened
                .payloads()
                .unwrap()
                .has_notify(NotifyType::INITIAL_CONTACT)
        );
    }
}

#[test]
fn more_padding_than_data() {
    let refused = Err(WireError::Malformed {
        kind: PayloadType::SK,
        cause: Malformation::Padding,
    });
    assert_eq!(open(&sealed_raw(41, &[1]), &KEYMAT), refused);
    assert_eq!(open(&sealed_raw(41, &[0, 0, 3]), &KEYMAT), refused);
    let all = open(&sealed_raw(0, &[0, 0, 2]), &KEYMAT).unwrap();
    assert!(all.plaintext.is_empty());
}

/// Authentic and malformed: told with INVALID_SYNTAX, not dropped.
#[test]
fn authentic_nonsense_is_blamed() {
    let cases = [
        (41, hex("00000007 00004000 00")),
        (41, hex("0000000800004000 01 00")),
        (0, hex("0000000800004000 00")),
        (41, hex("00")),
        (40, hex("00000004 00")),
        // An Encrypted payload inside.
        (46, hex("00000004 00")),
    ];
    for (first, plaintext) in cases {
        let opened = open(&sealed_raw(first, &plaintext), &KEYMAT).unwrap();
        let error = opened.payloads().unwrap_err();
        assert_eq!(
            error.blame().notify_type(),
            Some(NotifyType::INVALID_SYNTAX),
            "{error}"
        );
    }
}

/// What follows an Encrypted payload would be covered by nothing.
#[test]
fn nothing_may_follow() {
    let mut payloads = sealed()[28..].to_vec();
    payloads.extend(hex("00000004"));
    assert_eq!(
        Message::parse(&super::frame(46, &payloads)).unwrap_err(),
        WireError::Misplaced(PayloadType::SK)
    );
}

/// RFC 5282 §5.1: payloads in clear before the Encrypted payload are associated data too.
#[test]
fn what_stands_before_is_covered() {
    let mut octets = header().encode(PayloadType::VENDOR, 28 + 6 + 29).to_vec();
    octets.extend(hex("2e000006 abcd 00 00 001d"));
    let mut buffer = vec![0];
    AwsLc
        .seal(ENCRYPTION, &KEYMAT, &[0; 8], &octets, &mut buffer)
        .unwrap();
    octets.extend([[0; 8].to_vec(), buffer].concat());
    assert!(open(&octets, &KEYMAT).unwrap().plaintext.is_empty());
    octets[32] ^= 1;
    assert_eq!(
        open(&octets, &KEYMAT),
        Err(WireError::Crypto(CryptoError::IntegrityFailed))
    );
}

#[test]
fn a_wrong_key_length_does_not_seal() {
    let builder = MessageBuilder::new(header());
    assert_eq!(
        builder.seal(&AwsLc, ENCRYPTION, &KEYMAT[..16], 1),
        Err(EncodeError::Crypto(CryptoError::WrongLength))
    );
}

#[test]
fn debug_shows_no_content() {
    let opened = open(&sealed(), &KEYMAT).unwrap();
    assert_eq!(format!("{opened:?}"), "Opened(NOTIFY, 28 octets)");
}
