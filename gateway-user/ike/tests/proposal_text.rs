//! Proposals as text.

#![allow(clippy::unwrap_used)]

use gateway_ike::crypto::{Encryption, KeyExchangeMethod, Prf};
use gateway_ike::proposal::{EspProposal, IkeProposal, ProposalError};
use proptest::prelude::*;

const GCM128: Encryption = Encryption::AesGcm16Key128;
const GCM256: Encryption = Encryption::AesGcm16Key256;
const X25519: KeyExchangeMethod = KeyExchangeMethod::X25519;
const ECP256: KeyExchangeMethod = KeyExchangeMethod::Ecp256;

fn ike(encryption: Encryption, prf: Prf, ke: KeyExchangeMethod) -> IkeProposal {
    IkeProposal {
        encryption,
        prf,
        ke,
    }
}

fn esp(encryption: Encryption, ke: Option<KeyExchangeMethod>, esn: bool) -> EspProposal {
    EspProposal {
        encryption,
        ke,
        esn,
    }
}

#[test]
fn ike_suites() {
    let cases = [
        (
            "aes128gcm16-prfsha256-x25519",
            ike(GCM128, Prf::HmacSha256, X25519),
        ),
        (
            "aes256gcm16-prfsha384-ecp256",
            ike(GCM256, Prf::HmacSha384, ECP256),
        ),
        (
            " AES256GCM128-prfsha384-curve25519 ",
            ike(GCM256, Prf::HmacSha384, X25519),
        ),
        (
            "ecp256-prfsha256-aes128gcm16",
            ike(GCM128, Prf::HmacSha256, ECP256),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    let first = cases[0].1;
    assert_eq!(first.to_string(), cases[0].0);
    assert_eq!(first.iana(), "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519");
    assert_eq!(
        cases[1].1.iana(),
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_256"
    );
}

#[test]
fn esp_suites() {
    let cases = [
        ("aes128gcm16", "aes128gcm16", esp(GCM128, None, false)),
        ("aes128gcm16-noesn", "aes128gcm16", esp(GCM128, None, false)),
        (
            "aes256gcm16-x25519-esn",
            "aes256gcm16-x25519-esn",
            esp(GCM256, Some(X25519), true),
        ),
        (
            "aes256gcm16-ecp256",
            "aes256gcm16-ecp256",
            esp(GCM256, Some(ECP256), false),
        ),
    ];
    for (text, printed, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{text}");
        assert_eq!(expected.to_string(), printed);
    }
    assert_eq!(cases[0].2.iana(), "AES_GCM_16-128/NO_EXT_SEQ");
    assert_eq!(cases[2].2.iana(), "AES_GCM_16-256/CURVE_25519/EXT_SEQ");
}

#[test]
fn alternatives_in_order_of_preference() {
    assert_eq!(
        IkeProposal::parse("aes256gcm16-aes128gcm16-prfsha384-ecp256-x25519-aes256gcm16"),
        Ok(vec![
            ike(GCM256, Prf::HmacSha384, ECP256),
            ike(GCM256, Prf::HmacSha384, X25519),
            ike(GCM128, Prf::HmacSha384, ECP256),
            ike(GCM128, Prf::HmacSha384, X25519),
        ])
    );
    assert_eq!(
        EspProposal::parse("aes128gcm16-esn-noesn"),
        Ok(vec![esp(GCM128, None, true), esp(GCM128, None, false)])
    );
    let several = "aes128gcm16-esn-noesn".parse::<EspProposal>();
    assert_eq!(
        several,
        Err(ProposalError::Several {
            proposal: "aes128gcm16-esn-noesn".to_owned(),
            count: 2
        })
    );
}

#[test]
fn defaults_are_all_different() {
    let (ike, esp) = (IkeProposal::parse("default"), EspProposal::parse("Default"));
    let (ike, esp) = (ike.unwrap(), esp.unwrap());
    assert_eq!((ike.len(), esp.len()), (8, 6));
    let ike: std::collections::HashSet<_> = ike.into_iter().collect();
    let esp: std::collections::HashSet<_> = esp.into_iter().collect();
    assert_eq!((ike.len(), esp.len()), (8, 6));
}

#[test]
fn wrong_text_is_explained() {
    let ike = [
        (
            "",
            "has an empty word; expected for example \"aes128gcm16-prfsha256-x25519\"",
        ),
        ("aes128gcm16--x25519", "has an empty word"),
        (
            "aes128gcm16-x25519",
            "names no PRF; add one of prfsha256, prfsha384",
        ),
        (
            "prfsha256-x25519",
            "names no encryption algorithm; add one of aes128gcm16",
        ),
        (
            "aes128gcm16-prfsha256",
            "names no key exchange method; add one of x25519, ecp256",
        ),
        (
            "aes128-sha256-x25519",
            "\"aes128\" is not an encryption algorithm that this gateway has",
        ),
        (
            "aes128gcm16-sha256-x25519",
            "\"sha256\" is an integrity algorithm, which AES-GCM",
        ),
        (
            "aes128gcm16-sha1_96-x25519",
            "\"sha1_96\" is an integrity algorithm",
        ),
        (
            "aes128gcm16-prfsha512-x25519",
            "\"prfsha512\" is not a PRF that can be used here",
        ),
        (
            "aes128gcm16-prfsha256-modp2048",
            "\"modp2048\" is not a key exchange method",
        ),
        (
            "aes128gcm16-prfsha256-x25519-esn",
            "\"esn\" is for ESP only",
        ),
        (
            "rot13",
            "\"rot13\" is not a known algorithm; allowed are aes128gcm16",
        ),
    ];
    for (text, expected) in ike {
        let error = IkeProposal::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let esp = [
        ("", "expected for example \"aes128gcm16-x25519\""),
        ("x25519", "names no encryption algorithm"),
        (
            "aes128gcm16-prfsha256",
            "\"prfsha256\" is for IKE only; allowed are aes128gcm16",
        ),
        (
            "aes128gcm16-modp2048",
            "\"modp2048\" is not a key exchange method",
        ),
    ];
    for (text, expected) in esp {
        let error = EspProposal::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn text_round_trip(ike in 0usize..8, encryption in 0usize..2, ke in 0usize..3, esn: bool) {
        let ike = IkeProposal::defaults()[ike];
        prop_assert_eq!(ike.to_string().parse(), Ok(ike));
        let esp = esp([GCM128, GCM256][encryption], [None, Some(X25519), Some(ECP256)][ke], esn);
        prop_assert_eq!(esp.to_string().parse(), Ok(esp));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([a-z0-9]{0,6}-?){0,6}|\\PC{0,40}") {
        let _ = IkeProposal::parse(&text);
        let _ = EspProposal::parse(&text);
    }
}
