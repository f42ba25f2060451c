//! Known answers for SKEYSEED, SK_*, KEYMAT and AUTH.
//!
//! The RFCs have no vectors for these. The constants were computed from RFC 7296 §2.13–§2.18 and RFC
//! 9370 §2.2.4 with
//! Python's `hmac` module, by a script that first reproduced the SHA-1 case of NIST's CAVP vectors
//! for IKEv2 (SP 800-135) with the same functions. Inputs: Ni = 20..3f, Nr = 80..a7 (unequal in
//! length, so that an exchange of the two shows), g^ir, g^ir (new) and the SPIs of that CAVP case.

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
#[path = "support/hex.rs"]
mod hex;

use aws_lc::AwsLc;
use gateway_ike::crypto::{CryptoError, CryptoProvider, Encryption, Prf};
use gateway_ike::keys::{
    AuthInput, ChildKeys, IkeKeys, SkD, SkE, SkP, Skeyseed, prf_plus, psk_auth, verify_psk_auth,
};
use gateway_ike::secret::SecretBytes;
use hex::hex;

const GIR: &str = "4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52";
const GIR_NEW: &str = "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330";
const SPI_I: [u8; 8] = [0x34, 0xc9, 0xe7, 0xc1, 0x88, 0x86, 0x87, 0x85];
const SPI_R: [u8; 8] = [0x3f, 0xf7, 0x7d, 0x76, 0x0d, 0x2b, 0x21, 0x99];

struct Case {
    prf: Prf,
    encryption: Encryption,
    skeyseed: &'static str,
    /// d, ei, er, pi, pr.
    keys: [&'static str; 5],
    child: &'static str,
    child_pfs: &'static str,
    rekeyed: &'static str,
    /// KEYMAT, and SKEYSEED of a successor, with one and with two additional key exchanges.
    additional: [(&'static str, &'static str); 2],
    /// prf(prf("secret", pad), "the first message" | Nr | prf(SK_pi, 02000000 "gw.example.org")).
    auth_i: &'static str,
    /// SHA-256 of prf+(SK_d, Ni), 255 blocks.
    longest: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        prf: Prf::HmacSha256,
        encryption: Encryption::AesGcm16Key128,
        skeyseed: "fbcf54683cae9065d4843c41963fae50df71ad0bf948e75ef10269a3ba79c6da",
        keys: [
            "3b1dec7b6bb6b7d7643c634f74b1d7192c4d721fe84836ad7e829fab40354d98",
            "1faff8998ba84e43c4b09cd54f7fd2ca4bee653c",
            "9c568233069380ff56e471c0d8802d5775f828c3",
            "555cf1364078934abf2cd706b24307152d9806c32f1b0d32533fe81133a06c23",
            "67dcbebbc5f6a5512a12ee7fde51e075ba03efaa7df490de05d7301f5ced4c56",
        ],
        child: "a5230621078da23208b77379adb41a0b389b32ef
                bbba4019ac9355dedeb5f8e643c61a872cbfb32d",
        child_pfs: "5f0bba88db0aae1ccf839ba9a048689e15dd98f5
                    0c1b1fcf88b491ad91623df596a20b3dd1699e13",
        rekeyed: "87dc1499f7c57614eff1dda8d2326bf4b8b47f9c3097f5d458119b5e807b42ea",
        additional: [
            (
                "21eca837de07692d2f55f9ab1ce977d799862f1059b3c9fb24198ae49db3e9c5fcdcc2e82f14c31c",
                "93e96a6f7e0e6b76d98e5d3bff476558adfb21c12c2a8ea26d33cdf50c9aaaf5",
            ),
            (
                "5cec6589a3945837e76a4e4f97339a54c6bfbc7556351b8d0db89451551118aaa25443149801a0a8",
                "756c4400e82665b691e5e6a50c8c060941b80f3c69ed071627daea3950602eb9",
            ),
        ],
        auth_i: "b4fb3a10cbec15eb0e877f7e68f19b263d988c10c6b041f52ca8be16b77af2a8",
        longest: "36c7fb4c176d6233f52a2d602cadd986a59a5dfb93b6f34dc65bbd01483e4c1b",
    },
    Case {
        prf: Prf::HmacSha384,
        encryption: Encryption::AesGcm16Key256,
        skeyseed: "aa652cd4f2e01810933ae92a134da22a3351ad7fbbc72288
                   4e7cbd399675fd49fefc8757e0828bccb5bf76be1f697ba0",
        keys: [
            "65f99ceb37ac4dd6ec263bb04f6f76c1a6fdee19139fec3c
             317043dbe3551080a22af578243d7debe9f38c47ad393408",
            "5a576251788c407305f347c64a58876e2ecda0be6590da0ec0b1a8a5c34f8354fae3a586",
            "8a795b1617b1e9f29a5af837380110d1f3315bcdc7bbf1d75b363db6689b88ba011f676b",
            "ae53e50e646dd60860e5a077fefb02c9ebc1b0449e805a34
             51603c616a33e2d73153f032216494425f7b2b3f06cb6100",
            "7220fb517c6b9cbd83dbe67f085e56b07ccfefbd525ffb5c
             4e6ade7524ee339f73fa5e52a8a5c9ca875a94eaa560043d",
        ],
        child: "72f9be01a1412fc05e884d8918fb95f80172b3b55f09070e006d1cbaaecaaafba7fdaa0a
                c89edaa3efc76841ab53ce0652f14d55dcff49412188893ccfb018bc7e8cfa0235c0ed7a",
        child_pfs: "2ffd7644a25b7b6384aa453d6e7d998d46a718685739ce605e1fd653ea8db0100c0abca3
                    f4b25cb1a5ad1c711e32ef30c6f047b567cf5d59c43c2d2a4946d512b2ac255ac6584b98",
        rekeyed: "266e6931ad9b061df90a23d4a9d2f7a62c2d75971e549de9
                  fa491646a58cbb66b6824f999cb486af7481aa5ec59f228c",
        additional: [
            (
                "b350c3d8aac4b3dcaf99cee3912908006c7196db38113eed3752f185829ee65517048d625d165fb1e28ab602eb51b676650d563c4a2644ed7ef93b76a8478c3fce3de10833599d34",
                "aeec13e48fd8ab74d40e7acc323f13939b81cad08934780330bbe8496421080387ac0be3974d0f1d26ffb82bdb86622d",
            ),
            (
                "b39311393f0902db293e213a0deeafd33402d05c51db83152b94b565092da4321d94720e2789458f9a553258e257d032fc216853e3d69ef5d2ca1b691687ff62faf99862a1c50aee",
                "88943f55638888b893407eb65394ec49a49d150f87a0fcf0f26d01942a3ee5d364d1c61dd4746a89e49e7fc9479a7280",
            ),
        ],
        auth_i: "b4724c0abbc9960bf9a4bcd4cbfa8781090d72cba76c287b
                 77d23ca7ac22250d650d86a9535399295dd6acc416e98f3e",
        longest: "c6c1b6e464bcc2a090048f5cefb1cd7a8dafc6281f6f4bab3e7fb2e680fe08b7",
    },
];

fn nonces() -> (Vec<u8>, Vec<u8>) {
    ((0x20..0x40).collect(), (0x80..0xa8).collect())
}

fn ike_keys(case: &Case) -> IkeKeys {
    let (ni, nr) = nonces();
    let shared = SecretBytes::new(hex(GIR));
    let skeyseed = Skeyseed::initial(&AwsLc, case.prf, &ni, &nr, &shared);
    assert_eq!(skeyseed.expose(), hex(case.skeyseed));
    IkeKeys::derive(
        &AwsLc,
        case.prf,
        case.encryption,
        &skeyseed,
        (&ni, &nr),
        (&SPI_I, &SPI_R),
    )
    .unwrap()
}

#[test]
fn keys_of_an_ike_sa() {
    for case in &CASES {
        let keys = ike_keys(case);
        let all = [
            keys.d.expose(),
            keys.ei.expose(),
            keys.er.expose(),
            keys.pi.expose(),
            keys.pr.expose(),
        ];
        assert_eq!(all.map(<[u8]>::to_vec), case.keys.map(hex));
    }
}

#[test]
fn keys_of_a_child_sa() {
    let (ni, nr) = nonces();
    let new = [SecretBytes::new(hex(GIR_NEW))];
    for case in &CASES {
        let sk_d = ike_keys(case).d;
        let none: &[SecretBytes] = &[];
        for (shared, expected) in [(none, case.child), (&new, case.child_pfs)] {
            let keys =
                ChildKeys::derive(&AwsLc, case.prf, case.encryption, &sk_d, shared, &ni, &nr)
                    .unwrap();
            let both = [
                keys.initiator_to_responder.expose(),
                keys.responder_to_initiator.expose(),
            ];
            assert_eq!(both.concat(), hex(expected));
            assert_eq!(both[0].len(), case.encryption.keymat_len());
        }
    }
}

#[test]
fn skeyseed_of_a_rekeyed_ike_sa() {
    let (ni, nr) = nonces();
    let new = [SecretBytes::new(hex(GIR_NEW))];
    for case in &CASES {
        let sk_d = ike_keys(case).d;
        let skeyseed = Skeyseed::rekeyed(&AwsLc, case.prf, &sk_d, &new, &ni, &nr);
        assert_eq!(skeyseed.expose(), hex(case.rekeyed));
    }
}

/// RFC 9370 §2.2.4, with SK(1) = c0..df and SK(2) = 00..2f.
#[test]
fn keys_after_additional_key_exchanges() {
    let (ni, nr) = nonces();
    let shared = [hex(GIR_NEW), (0xc0..0xe0).collect(), (0..0x30).collect()];
    let shared = shared.map(SecretBytes::new);
    for case in &CASES {
        let sk_d = ike_keys(case).d;
        for (count, (child, rekeyed)) in (2..).zip(case.additional) {
            let shared = &shared[..count];
            let skeyseed = Skeyseed::rekeyed(&AwsLc, case.prf, &sk_d, shared, &ni, &nr);
            assert_eq!(skeyseed.expose(), hex(rekeyed));
            let (prf, encryption) = (case.prf, case.encryption);
            let keys = ChildKeys::derive(&AwsLc, prf, encryption, &sk_d, shared, &ni, &nr);
            let keys = keys.unwrap();
            let both = [
                keys.initiator_to_responder.expose(),
                keys.responder_to_initiator.expose(),
            ];
            assert_eq!(both.concat(), hex(child));
        }
    }
}

#[test]
fn auth_with_a_shared_key() {
    let (ni, nr) = nonces();
    let id = [&[2, 0, 0, 0], &b"gw.example.org"[..]].concat();
    for case in &CASES {
        let keys = ike_keys(case);
        let secret = SecretBytes::from(&b"secret"[..]);
        let input = AuthInput {
            message: b"the first message",
            peer_nonce: &nr,
            sk_p: &keys.pi,
            id_body: &id,
            int_auth: &[],
        };
        let auth = psk_auth(&AwsLc, case.prf, &secret, input);
        assert_eq!(auth, hex(case.auth_i));

        let verify = |secret: &[u8], input, received: &[u8]| {
            verify_psk_auth(
                &AwsLc,
                case.prf,
                &SecretBytes::from(secret),
                input,
                received,
            )
        };
        assert!(verify(b"secret", input, &auth));
        assert!(!verify(b"Secret", input, &auth));
        assert!(!verify(b"secret", input, &auth[1..]));
        assert!(!verify(b"secret", input, &[]));
        let mut last = auth.clone();
        *last.last_mut().unwrap() ^= 1;
        assert!(!verify(b"secret", input, &last));
        let other_inputs = [
            AuthInput {
                message: b"The first message",
                ..input
            },
            AuthInput {
                peer_nonce: &ni,
                ..input
            },
            AuthInput {
                sk_p: &keys.pr,
                ..input
            },
            AuthInput {
                id_body: &id[1..],
                ..input
            },
            AuthInput {
                int_auth: &[0],
                ..input
            },
        ];
        for other in other_inputs {
            assert!(!verify(b"secret", other, &auth));
        }
    }
}

#[test]
fn prf_plus_ends_at_255_blocks() {
    let (ni, _) = nonces();
    for case in &CASES {
        let key = hex(case.keys[0]);
        let expand = |len| prf_plus(&AwsLc, case.prf, &key, &[&ni], len);
        let most = 255 * case.prf.output_len();
        let longest = expand(most).unwrap();
        assert_eq!(AwsLc.sha256(&[longest.expose()]), *hex(case.longest));
        assert_eq!(expand(most + 1), Err(CryptoError::WrongLength));
        for len in [0, 1, case.prf.output_len(), case.prf.output_len() + 1] {
            assert_eq!(expand(len).unwrap().expose(), &longest.expose()[..len]);
        }
    }
}

/// Says whether a type has `Debug`: the inherent function exists only then, and comes first.
struct Probe<T>(std::marker::PhantomData<T>);

impl<T: std::fmt::Debug> Probe<T> {
    const PRINTS: bool = true;
}

trait Fallback {
    const PRINTS: bool = false;
}

impl<T> Fallback for Probe<T> {}

#[test]
fn keys_cannot_be_printed() {
    const { assert!(Probe::<SecretBytes>::PRINTS, "the probe works") };
    let printed = format!("{:?}", SecretBytes::from(&b"\x2a\x2a"[..]));
    assert_eq!(printed, "SecretBytes(2 octets)");
    assert_eq!(
        [
            Probe::<Skeyseed>::PRINTS,
            Probe::<SkD>::PRINTS,
            Probe::<SkE>::PRINTS,
            Probe::<SkP>::PRINTS,
            Probe::<IkeKeys>::PRINTS,
            Probe::<ChildKeys>::PRINTS,
        ],
        [false; 6]
    );
}
