//! Known answers for the provider that the agent ships.

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
#[path = "support/hex.rs"]
mod hex;

use aws_lc::AwsLc;
use gateway_ike::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use hex::hex;

fn import(method: KeyExchangeMethod, private: &str) -> Box<dyn KeyExchange> {
    AwsLc
        .import_key_exchange(method, &SecretBytes::new(hex(private)))
        .unwrap()
}

fn agree(private: &dyn KeyExchange, public: &str) -> Result<Vec<u8>, CryptoError> {
    private
        .agree(&hex(public))
        .map(|secret| secret.expose().to_vec())
}

/// Private value, peer's public value, secret: RFC 7748 §5.2 (the first two) and §6.1.
const X25519: [[&str; 3]; 4] = [
    [
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ],
    [
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ],
    [
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ],
    [
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ],
];

#[test]
fn x25519_known_answers() {
    for [private, public, secret] in X25519 {
        let ours = import(KeyExchangeMethod::X25519, private);
        assert_eq!(agree(&*ours, public).unwrap(), hex(secret));
        assert_eq!(ours.export().expose(), hex(private), "exported as imported");
    }
    let alice = import(KeyExchangeMethod::X25519, X25519[2][0]);
    assert_eq!(alice.public_value(), hex(X25519[3][1]));
}

/// The points of small order on the curve and its twist, and their other encodings: all give zero.
#[test]
fn x25519_small_order_is_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];
    let ours = AwsLc.key_exchange(KeyExchangeMethod::X25519).unwrap();
    for point in points {
        assert_eq!(
            agree(&*ours, point),
            Err(CryptoError::InvalidPublicValue),
            "{point}"
        );
    }
}

// RFC 5903 §8.1.
const ECP_I: &str = "C88F01F5 10D9AC3F 70A292DA A2316DE5 44E9AAB8 AFE84049 C62A9C57 862D1433";
const ECP_GI: &str = "DAD0B653 94221CF9 B051E1FE CA5787D0 98DFE637 FC90B9EF 945D0C37 72581180
     5271A046 1CDB8252 D61F1C45 6FA3E59A B1F45B33 ACCF5F58 389E0577 B8990BB3";
const ECP_R: &str = "C6EF9C5D 78AE012A 011164AC B397CE20 88685D8F 06BF9BE0 B283AB46 476BEE53";
const ECP_GR: &str = "D12DFB52 89C8D4F8 1208B702 70398C34 2296970A 0BCCB74C 736FC755 4494BF63
     56FBF3CA 366CC23E 8157854C 13C58D6A AC23F046 ADA30F83 53E74F33 039872AB";
const ECP_SECRET: &str = "D6840F6B 42F6EDAF D13116E0 E1256520 2FEF8E9E CE7DCE03 812464D0 4B9442DE";

#[test]
fn ecp256_known_answers() {
    for (private, public, peer) in [(ECP_I, ECP_GI, ECP_GR), (ECP_R, ECP_GR, ECP_GI)] {
        let ours = import(KeyExchangeMethod::Ecp256, private);
        assert_eq!(ours.public_value(), hex(public));
        assert_eq!(agree(&*ours, peer).unwrap(), hex(ECP_SECRET));
        assert_eq!(ours.export().expose(), hex(private), "exported as imported");
    }
}

/// RFC 6989 §2.3: x and y below p, and on the curve.
#[test]
fn ecp256_invalid_points_are_refused() {
    const P: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let (x, y) = ECP_GR.split_at(ECP_GR.find('\n').unwrap());
    let off_curve = format!("{x}{}", y.replace("039872AB", "039872AC"));
    let cases = [
        ("not on the curve", off_curve),
        ("zero", "00".repeat(64)),
        ("x is p", format!("{P}{y}")),
        ("y is p", format!("{x}{P}")),
        ("all ones", "ff".repeat(64)),
    ];
    let ours = AwsLc.key_exchange(KeyExchangeMethod::Ecp256).unwrap();
    for (what, point) in cases {
        assert_eq!(hex(&point).len(), 64, "{what}");
        let result = agree(&*ours, &point);
        assert_eq!(result, Err(CryptoError::InvalidPublicValue), "{what}");
    }
}

/// The library would take other encodings of a key, and our peers must not be able to send them.
#[test]
fn public_values_of_other_lengths_are_refused() {
    for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
        let (ours, theirs) = (
            AwsLc.key_exchange(method).unwrap(),
            AwsLc.key_exchange(method).unwrap(),
        );
        let good = theirs.public_value();
        assert_eq!(good.len(), method.public_len());
        assert!(ours.agree(good).is_ok());
        let spki = hex("302a300506032b656e032100");
        for bad in [
            Vec::new(),
            good[1..].to_vec(),
            [good, &[0]].concat(),
            [&[4], good].concat(),
            [&[2], &good[..32]].concat(),
            [&spki, &good[..32]].concat(),
        ] {
            let result = ours.agree(&bad);
            assert_eq!(result, Err(CryptoError::InvalidPublicValue), "{bad:02x?}");
        }
    }
}

#[test]
fn a_private_value_moves_to_another_member() {
    for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
        let (first, peer) = (
            AwsLc.key_exchange(method).unwrap(),
            AwsLc.key_exchange(method).unwrap(),
        );
        let second = AwsLc.import_key_exchange(method, &first.export()).unwrap();
        assert_eq!(second.method(), method);
        assert_eq!(second.public_value(), first.public_value());
        let secret = peer.agree(first.public_value()).unwrap();
        assert!(second.agree(peer.public_value()).unwrap() == secret);
        assert!(first.public_value() != peer.public_value());
    }
}

#[test]
fn private_values_out_of_range_are_refused() {
    let import = |method, octets| {
        AwsLc
            .import_key_exchange(method, &SecretBytes::new(octets))
            .err()
    };
    for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
        for len in [0, 31, 33, 64] {
            let error = import(method, vec![1; len]);
            assert_eq!(error, Some(CryptoError::WrongLength));
        }
    }
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    for bad in [vec![0; 32], order, vec![0xff; 32]] {
        let error = import(KeyExchangeMethod::Ecp256, bad);
        assert_eq!(error, Some(CryptoError::Library));
    }
}

/// RFC 4231 §4.2 to §4.5, §4.7 and §4.8: key, data,
/// HMAC-SHA-256, HMAC-SHA-384.
fn hmac_cases() -> [[Vec<u8>; 4]; 6] {
    let text = |text: &str| text.as_bytes().to_vec();
    [
        [
            vec![0x0b; 20],
            text("Hi There"),
            hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            hex(
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
                 faea9ea9076ede7f4af152e8b2fa9cb6",
            ),
        ],
        [
            text("Jefe"),
            text("what do ya want for nothing?"),
            hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            hex(
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
                 8e2240ca5e69e2c78b3239ecfab21649",
            ),
        ],
        [
            vec![0xaa; 20],
            vec![0xdd; 50],
            hex("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            hex(
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b
                 2a5ab39dc13814b94e3ab6e101a34f27",
            ),
        ],
        [
            (1..=25).collect(),
            vec![0xcd; 50],
            hex("82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
            hex(
                "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e
                 6801dd23c4a7d679ccf8a386c674cffb",
            ),
        ],
        [
            vec![0xaa; 131],
            text("Test Using Larger Than Block-Size Key - Hash Key First"),
            hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            hex(
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6
                 0c2ef6ab4030fe8296248df163f44952",
            ),
        ],
        [
            vec![0xaa; 131],
            text(
                "This is a test using a larger than block-size key and a larger than block-size \
                 data. The key needs to be hashed before being used by the HMAC algorithm.",
            ),
            hex("9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
            hex(
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5
                 a678cc31e799176d3860e6110c46523e",
            ),
        ],
    ]
}

#[test]
fn prf_known_answers() {
    for [key, data, sha256, sha384] in hmac_cases() {
        let (head, tail) = data.split_at(data.len() / 3);
        for (prf, expected) in [(Prf::HmacSha256, sha256), (Prf::HmacSha384, sha384)] {
            assert_eq!(AwsLc.prf(prf, &key, &[&data]).expose(), expected);
            let parts = AwsLc.prf(prf, &key, &[head, &[], tail]);
            assert_eq!(parts.expose(), expected, "in parts");
        }
    }
}

/// Test cases 4 and 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega).
#[test]
fn aead_known_answers() {
    const KEY: &str = "feffe9928665731c6d6a8f9467308308";
    let (salt, iv) = ("cafebabe", hex("facedbaddecaf888"));
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plaintext = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let cases = [
        (
            Encryption::AesGcm16Key128,
            hex(&format!("{KEY}{salt}")),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
             5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            Encryption::AesGcm16Key256,
            hex(&format!("{KEY}{KEY}{salt}")),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
             76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ];
    for (encryption, keymat, sealed) in cases {
        let mut buffer = plaintext.clone();
        AwsLc
            .seal(encryption, &keymat, &iv, &aad, &mut buffer)
            .unwrap();
        assert_eq!(buffer, hex(sealed));
        AwsLc
            .open(encryption, &keymat, &iv, &aad, &mut buffer)
            .unwrap();
        assert_eq!(buffer, plaintext);
    }
}

#[test]
fn a_changed_message_does_not_open() {
    for encryption in [Encryption::AesGcm16Key128, Encryption::AesGcm16Key256] {
        let keymat = vec![7; encryption.keymat_len()];
        let open = |keymat: &[u8], iv: &[u8; 8], aad: &[u8], mut buffer: Vec<u8>| {
            AwsLc.open(encryption, keymat, iv, aad, &mut buffer)
        };
        let (iv, aad) = ([1; 8], b"header");
        let mut sealed = b"inner payloads".to_vec();
        AwsLc
            .seal(encryption, &keymat, &iv, aad, &mut sealed)
            .unwrap();
        assert_eq!(sealed.len(), 14 + encryption.icv_len());
        assert_eq!(open(&keymat, &iv, aad, sealed.clone()), Ok(()));

        let failed = Err(CryptoError::IntegrityFailed);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 0x40;
            assert_eq!(open(&keymat, &iv, aad, changed), failed, "octet {index}");
        }
        assert_eq!(open(&keymat, &[2; 8], aad, sealed.clone()), failed, "IV");
        assert_eq!(open(&keymat, &iv, b"Header", sealed.clone()), failed, "AAD");
        for index in 0..keymat.len() {
            let mut changed = keymat.clone();
            changed[index] ^= 1;
            let result = open(&changed, &iv, aad, sealed.clone());
            assert_eq!(result, failed, "key or salt octet {index}");
        }
        for len in 0..encryption.icv_len() {
            assert_eq!(open(&keymat, &iv, aad, vec![0; len]), failed, "too short");
        }
        for bad in [&keymat[1..], &[]] {
            let wrong = Err(CryptoError::WrongLength);
            assert_eq!(open(bad, &iv, aad, sealed.clone()), wrong);
        }
    }
}

/// FIPS 180-4 examples.
#[test]
fn digest_known_answers() {
    assert_eq!(
        AwsLc.sha1(&[b"a", b"", b"bc"]),
        *hex("a9993e364706816aba3e25717850c26c9cd0d89d")
    );
    assert_eq!(
        AwsLc.sha256(&[b"ab", b"c"]),
        *hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
    assert_eq!(
        AwsLc.sha256(&[]),
        *hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    );
}

#[test]
fn random_octets_differ() {
    let (mut a, mut b) = ([0; 32], [0; 32]);
    AwsLc.random(&mut a);
    AwsLc.random(&mut b);
    assert_ne!(a, b);
    assert_ne!(a, [0; 32]);
}
