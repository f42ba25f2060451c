//! Proposals as text.

#![allow(clippy::unwrap_used)]

use gateway_ike::crypto::{AesKey, Encryption, Integrity, KeyExchangeMethod, Prf};
use gateway_ike::proposal::{
    AdditionalKes, EspExchange, EspProposal, IkeProposal, ProposalError, offer_esp, offer_ike,
};
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
        additional: AdditionalKes::NONE,
    }
}

fn esp(encryption: Encryption, ke: Option<KeyExchangeMethod>, esn: bool) -> EspProposal {
    EspProposal {
        encryption,
        ke,
        additional: AdditionalKes::NONE,
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

/// `ke2_mlkem768` and the like.
fn with(additional: &[(usize, KeyExchangeMethod)]) -> AdditionalKes {
    let mut methods = [None; 7];
    for (number, method) in additional {
        methods[number - 1] = Some(*method);
    }
    AdditionalKes::new(methods)
}

#[test]
fn cbc_takes_an_integrity_algorithm_that_is_the_prf_too() {
    let cbc = |key, integrity| Encryption::AesCbc(key, integrity);
    let suite = cbc(AesKey::Bits128, Integrity::HmacSha256_128);
    let modp = KeyExchangeMethod::Modp2048;
    for (text, expected) in [
        ("aes128-sha256-modp2048", ike(suite, Prf::HmacSha256, modp)),
        ("aes-sha2_256-modp2048", ike(suite, Prf::HmacSha256, modp)),
        (
            "aes128-sha256-prfsha512-modp2048",
            ike(suite, Prf::HmacSha512, modp),
        ),
        (
            "aes256-sha1-ecp521",
            ike(
                cbc(AesKey::Bits256, Integrity::HmacSha1_96),
                Prf::HmacSha1,
                KeyExchangeMethod::Ecp521,
            ),
        ),
        // As in swanctl.conf, where the integrity algorithm is then dropped.
        (
            "aes128gcm16-sha256-modp2048",
            ike(GCM128, Prf::HmacSha256, modp),
        ),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    let suite = ike(suite, Prf::HmacSha256, modp);
    assert_eq!(suite.to_string(), "aes128-sha256-prfsha256-modp2048");
    assert_eq!(
        suite.iana(),
        "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"
    );
    let both = IkeProposal::parse("aes128-sha256-sha512-modp2048").unwrap();
    assert_eq!(both.len(), 4, "each integrity algorithm with each PRF");
    assert!(!suite.uses_sha1());
    let old: IkeProposal = "aes128-sha1-modp2048".parse().unwrap();
    let old_prf: IkeProposal = "aes128gcm16-prfsha1-modp2048".parse().unwrap();
    let old_esp: EspProposal = "aes128-sha1".parse().unwrap();
    assert!(old.uses_sha1() && old_prf.uses_sha1() && old_esp.uses_sha1());
}

#[test]
fn additional_key_exchanges() {
    let text = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768-ke3_x25519";
    let suite: IkeProposal = text.parse().unwrap();
    let expected = with(&[(1, KeyExchangeMethod::MlKem768), (3, X25519)]);
    assert_eq!(suite.additional, expected);
    assert_eq!(suite.to_string(), text);
    assert_eq!(
        suite.iana(),
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/KE1_ML_KEM_768/KE3_CURVE_25519"
    );
    let suites =
        IkeProposal::parse("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_mlkem512-ke1_none");
    let suites: Vec<_> = suites.unwrap().iter().map(|s| s.additional).collect();
    assert_eq!(
        suites,
        [
            with(&[(1, KeyExchangeMethod::MlKem768)]),
            with(&[(1, KeyExchangeMethod::MlKem512)]),
            AdditionalKes::NONE,
        ]
    );
    // RFC 9370 §2.2.1: none of them twice.
    let suites = EspProposal::parse("aes128gcm16-x25519-ke1_mlkem768-ke1_none-ke2_mlkem768");
    let suites: Vec<_> = suites.unwrap().iter().map(|s| s.additional).collect();
    assert_eq!(suites, [with(&[(2, KeyExchangeMethod::MlKem768)])]);
}

#[test]
fn defaults_are_all_different_and_have_no_sha1() {
    let (ike, esp) = (IkeProposal::parse("default"), EspProposal::parse("Default"));
    let (ike, esp) = (ike.unwrap(), esp.unwrap());
    assert_eq!(ike[0].to_string(), "aes128gcm16-prfsha256-x25519");
    assert!(ike.iter().all(|suite| !suite.uses_sha1()));
    assert!(esp.iter().all(|suite| !suite.uses_sha1()));
    let different: std::collections::HashSet<_> = ike.iter().collect();
    assert_eq!((ike.len(), different.len()), (9 * 3 * 7, 9 * 3 * 7));
    let different: std::collections::HashSet<_> = esp.iter().collect();
    assert_eq!((esp.len(), different.len()), (9 * 8 * 2, 9 * 8 * 2));
}

/// RFC 7296 §3.3: combined-mode algorithms and others are two proposals; each names everything once.
#[test]
fn an_offer_is_as_short_as_it_can_be() {
    let count = |text: &str| {
        let suites = IkeProposal::parse(text).unwrap();
        let offer = offer_ike(&suites, &[]);
        offer.iter().map(|p| p.transforms.len()).collect::<Vec<_>>()
    };
    assert_eq!(count("default"), [3 + 3 + 7, 2 + 3 + 3 + 7]);
    assert_eq!(count("aes128gcm16-prfsha256-x25519"), [3]);
    assert_eq!(
        count("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none"),
        [5]
    );
    let suites = EspProposal::defaults();
    let auth = offer_esp(&suites, [1; 4], EspExchange::IkeAuth);
    let create = offer_esp(&suites, [1; 4], EspExchange::CreateChildSa);
    let octets = |offer: &[gateway_ike::wire::Proposal]| {
        offer.iter().map(|p| p.transforms.len()).sum::<usize>()
    };
    assert_eq!((auth.len(), octets(&auth)), (2, 3 + 2 + 2 + 3 + 2));
    let count = 3 + 2 + 2 + 3 + 2 + 2 * 8;
    assert_eq!((create.len(), octets(&create)), (2, count));
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
            "aes128-prfsha256-x25519",
            "names no integrity algorithm; add one of sha256, sha384, sha512, sha1",
        ),
        (
            "3des-sha256-x25519",
            "\"3des\" is not an encryption algorithm that this gateway has",
        ),
        (
            "aes128gcm16-sha256-prfsha256-x25519",
            "take no integrity algorithm; leave it or the PRF out",
        ),
        (
            "aes128gcm16-aes128-sha256-x25519",
            "have to be two proposals",
        ),
        (
            "aes128-sha1_96-x25519",
            "\"sha1_96\" is not an integrity algorithm",
        ),
        (
            "aes128gcm16-prfaesxcbc-x25519",
            "\"prfaesxcbc\" is not a PRF that this gateway has",
        ),
        (
            "aes128gcm16-prfsha256-modp1024",
            "\"modp1024\" is not a key exchange method that this gateway has; allowed are",
        ),
        (
            "aes128gcm16-prfsha256-x25519-ke8_mlkem768",
            "\"ke8_mlkem768\" is not a key exchange method",
        ),
        (
            "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_mlkem768",
            "have to be different from each other",
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
        ("aes256", "names no integrity algorithm"),
        ("aes256gcm16-sha256", "take no integrity algorithm"),
        (
            "aes128gcm16-prfsha256",
            "\"prfsha256\" is for IKE only; allowed are aes128gcm16",
        ),
        (
            "aes128gcm16-modp1536",
            "\"modp1536\" is not a key exchange method",
        ),
        ("aes128gcm16-ke1_mlkem768", "needs a first one beside it"),
        (
            "aes128gcm16-x25519-modpnone-ke1_mlkem768",
            "needs a first one beside it",
        ),
    ];
    for (text, expected) in esp {
        let error = EspProposal::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let words = (1..=7).map(|n| {
        let of_each = ["mlkem512", "mlkem768", "mlkem1024", "x25519", "none"];
        of_each.map(|word| format!("-ke{n}_{word}")).concat()
    });
    let many = format!("aes128gcm16-prfsha256-x25519{}", words.collect::<String>());
    let error = IkeProposal::parse(&many).unwrap_err().to_string();
    assert!(error.contains("more than 4096 suites"), "{error}");
}

fn any_additional() -> impl Strategy<Value = AdditionalKes> {
    let method = prop::sample::select(KeyExchangeMethod::ALL.to_vec());
    prop::array::uniform7(prop::option::weighted(0.3, method))
        .prop_map(AdditionalKes::new)
        .prop_filter("duplicates", |one| !one.has_duplicates())
}

proptest! {
    #[test]
    fn text_round_trip(
        encryption in prop::sample::select(Encryption::all().collect::<Vec<_>>()),
        prf in prop::sample::select(Prf::ALL.to_vec()),
        ke in prop::sample::select(KeyExchangeMethod::ALL.to_vec()),
        additional in any_additional(),
        esn: bool,
        pfs: bool,
    ) {
        let ike = IkeProposal { encryption, prf, ke, additional };
        prop_assert_eq!(ike.to_string().parse(), Ok(ike));
        let esp = EspProposal {
            encryption,
            ke: pfs.then_some(ke),
            additional: if pfs { additional } else { AdditionalKes::NONE },
            esn,
        };
        prop_assert_eq!(esp.to_string().parse(), Ok(esp));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([a-z0-9]{0,6}-?){0,6}|\\PC{0,40}") {
        let _ = IkeProposal::parse(&text);
        let _ = EspProposal::parse(&text);
    }
}
