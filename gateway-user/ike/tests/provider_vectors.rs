//! Known answers from the RFCs for the algorithms beside the usual ones.

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub, dead_code)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
#[path = "support/hex.rs"]
mod hex;

use aws_lc::AwsLc;
use aws_lc_rs::digest::{SHA256, digest};
use gateway_ike::crypto::{
    AesKey, CryptoError, CryptoProvider, Encryption, Integrity, KeyExchange, KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use hex::hex;

fn import(method: KeyExchangeMethod, private: &str) -> Box<dyn KeyExchange> {
    AwsLc
        .import_key_exchange(method, &SecretBytes::new(hex(private)))
        .unwrap()
}

/// Both private values, both public values, the secret.
struct Ecp {
    method: KeyExchangeMethod,
    private: [&'static str; 2],
    public: [&'static str; 2],
    secret: &'static str,
}

/// RFC 5903 §8.2 and §8.3.
const ECP: [Ecp; 2] = [
    Ecp {
        method: KeyExchangeMethod::Ecp384,
        private: [
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE\
             3FAEF896783AB194",
            "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2\
             960E4BD55A7448FC",
        ],
        public: [
            "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4\
             C88732AEE95F41AA9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38E\
             EB9FCFF3C2C947DAE69B4C634573A81C",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF9\
             6FDA41D0774A3571DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FF\
             F83FA40142209DFF5EAAD96DB9E6386C",
        ],
        secret: "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D0\
             9CF5D4A270F59746",
    },
    Ecp {
        method: KeyExchangeMethod::Ecp521,
        private: [
            "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C295\
             2C6771D937BA9777F5957B2639BAB072462F68C27A57382D4A52",
            "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C677D600B343757\
             A3BDBF2A3163E4C2F869CCA7458AA4A4EFFC311F5CB151685EB9",
        ],
        public: [
            "0015417E84DBF28C0AD3C278713349DC7DF153C897A1891BD98BAB4357C9ECBEE1E3BF42E00B8E38\
             0AEAE57C2D107564941885942AF5A7F4601723C4195D176CED3E017CAE20B6641D2EEB695786D8C9\
             46146239D099E18E1D5A514C739D7CB4A10AD8A788015AC405D7799DC75E7B7D5B6CF2261A6A7F15\
             07438BF01BEB6CA3926F9582",
            "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A219B97C356436ADC6E\
             95BB0352F6BE64A6C2912D4EF2D0433CED2B6171640012D9460F015C68226383956E3BD066E797B6\
             23C27CE0EAC2F551A10C2C724D9852077B87220B6536C5C408A1D2AEBB8E86D678AE49CB57091F47\
             32296579AB44FCD17F0FC56A",
        ],
        secret: "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D1427E73CA4BAA24\
             0A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3DDEA",
    },
];

#[test]
fn ecp_known_answers() {
    for case in ECP {
        for (own, other) in [(0, 1), (1, 0)] {
            let ours = import(case.method, case.private[own]);
            assert_eq!(ours.public_value(), hex(case.public[own]));
            let secret = ours.agree(&hex(case.public[other])).unwrap();
            assert_eq!(secret.expose(), hex(case.secret), "{:?}", case.method);
        }
    }
}

/// RFC 6989 §2.3.
#[test]
fn ecp_points_off_the_curve_are_refused() {
    for case in ECP {
        let ours = import(case.method, case.private[0]);
        let mut point = hex(case.public[1]);
        *point.last_mut().unwrap() ^= 1;
        assert_eq!(
            ours.agree(&point).err(),
            Some(CryptoError::InvalidPublicValue)
        );
    }
}

/// Our exponent, the other's, and SHA-256 of 2^ours and of the secret: computed from the primes as
/// RFC 3526 §3, §4 and §5 print them, with other software than ours.
const MODP: [(KeyExchangeMethod, [&str; 4]); 3] = [
    (
        KeyExchangeMethod::Modp2048,
        [
            "1063144c6ab5c053af35342451f9fe0d5e5e10d3c82614d70c4a3432733e82b5f418bcce547149da",
            "49f6a384db6424925d47a4db53ca02cd77c885191301c951465757e23c03134cd919e8e97db2c1a3",
            "ab1824168ba595375fa89bb2f45af7f65114e23116fcaceed0479443e340467d",
            "5150357832b392693abf90d1cdf5688f9697c63218bfdacddf8284d9994966bc",
        ],
    ),
    (
        KeyExchangeMethod::Modp3072,
        [
            "064e612dadb8c91e7fad4bb1f92ae219a9605e6a6a210d1fa2bca135929f30d2677c80d6e4ea2f19\
             bcf87b315d61c08d39170d62215cc1d5",
            "7e987c7ff01be596cef5608b6bb74adbe5c3204f56648cb8ecf3c177d1ce88b0933753c7d7c594e4\
             8904f4cb05483259cf8fa4f87f2cb103",
            "af2e128b4d0a85484afdac576c4f1fc3e496df3140e293b47a0701c124de8b25",
            "709986f5956b4b5f6b35a634776f86feeb8b762d91692d38cb61c27009b983ca",
        ],
    ),
    (
        KeyExchangeMethod::Modp4096,
        [
            "20042157baa856f93cb1fe6cd323e3c70342da605c4706384f6310f2b00b447933281007a6bf7271\
             d454a88d0b72b10b5858eacdd38bcd1df02073cdec0fa12e",
            "abf8b8ca90ab3143ddc9c0ed339d5a27457adbc25e2ecce5eb0e60bd0da839d04138ce0fe4c0511a\
             3afdbbf206bcafad630909c5be43b93fca5553349e4a0f37",
            "d11711143782be9165846782c0adf7e249bb7535a3bc6d40aa6cccdd115ce226",
            "7f6baa3289078b6c8391c0be7ea922a2e1ef0f7c63ec5256aec5171e679a086d",
        ],
    ),
];

#[test]
fn modp_known_answers() {
    for (method, [ours, theirs, public, secret]) in MODP {
        let (ours, theirs) = (import(method, ours), import(method, theirs));
        let hash = |octets: &[u8]| digest(&SHA256, octets).as_ref().to_vec();
        assert_eq!(ours.public_value().len(), method.public_len());
        assert_eq!(hash(ours.public_value()), hex(public), "{method:?}");
        let agreed = ours.agree(theirs.public_value()).unwrap();
        assert_eq!(hash(agreed.expose()), hex(secret), "{method:?}");
        let back = theirs.agree(ours.public_value()).unwrap();
        assert_eq!(agreed.expose(), back.expose());
    }
}

/// RFC 2202 §3, cases 1, 2, 3 and 6: key, data, HMAC-SHA-1.
const SHA1: [[&str; 3]; 4] = [
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "4869205468657265",
        "b617318655057264e28bc0b6fb378c8ef146be00",
    ],
    [
        "4a656665",
        "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddd",
        "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d20\
         48617368204b6579204669727374",
        "aa4ae5e15272d00e95705637ce8a3b55ed402112",
    ],
];

/// RFC 4868 §2.7.1: key, data, PRF-HMAC-SHA-512.
const SHA512: [[&str; 3]; 6] = [
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "4869205468657265",
        "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702\
         038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
    ],
    [
        "4a656665",
        "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a\
         6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddd",
        "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c8\
         06b485a47e67c807b946a337bee8942674278859e13292fb",
    ],
    [
        "0102030405060708090a0b0c0d0e0f10111213141516171819",
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcd",
        "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4\
         d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaa",
        "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d20\
         48617368204b6579204669727374",
        "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598\
         bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaa",
        "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b\
         2d73697a65206b657920616e642061206c6172676572207468616e20626c6f636b2d73697a652064\
         6174612e20546865206b6579206e6565647320746f20626520686173686564206265666f72652062\
         65696e6720757365642062792074686520484d414320616c676f726974686d2e",
        "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b1\
         0d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
    ],
];

/// RFC 4868 §2.7.2: key as long as the hash, data, PRF-HMAC-SHA-256, -384 and -512. The last key is
/// printed with a line too many, its first: 80 octets, said to be 64.
const AUTHENTICATOR: [(Prf, [&str; 3]); 12] = [
    (
        Prf::HmacSha256,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7",
        ],
    ),
    (
        Prf::HmacSha256,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "167f928588c5cc2eef8e3093caa0e87c9ff566a14794aa61648d81621a2a40c6",
        ],
    ),
    (
        Prf::HmacSha256,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddd",
            "cdcb1220d1ecccea91e53aba3092f962e549fe6ce9ed7fdc43191fbde45c30b0",
        ],
    ),
    (
        Prf::HmacSha256,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcd",
            "372efcf9b40b35c2115b1346903d2ef42fced46f0846e7257bb156d3d7b30d3f",
        ],
    ),
    (
        Prf::HmacSha384,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
         0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee9737a959796489bddbc4c5df61d5b3297b4\
         fb68dab9f1b582c2",
        ],
    ),
    (
        Prf::HmacSha384,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
         4a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184da86a368e9b8e16f5349524ca4e82400c\
         bde0686d403371c9",
        ],
    ),
    (
        Prf::HmacSha384,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddd",
            "809f439be00274321d4a538652164b53554a508184a0c3160353e3428597003d35914a18770f9443\
         987054944b7c4b4a",
        ],
    ),
    (
        Prf::HmacSha384,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f200a0b0c0d0e0f1011\
         1213141516171819",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcd",
            "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c2ebf182c83cc7428707fb92eab2536a5\
         812258228bc96687",
        ],
    ),
    (
        Prf::HmacSha512,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
         0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8ac2878ebd5803f6f\
         0b61dbce5e251ff8789a4722c1be65aea45fd464e89f8f5b",
        ],
    ),
    (
        Prf::HmacSha512,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
         4a6566654a6566654a6566654a6566654a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b154546aa334ae9fb9afc2\
         184932d8695e397bfa0ffb93466cfcceaae38c833b7dba38",
        ],
    ),
    (
        Prf::HmacSha512,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddd",
            "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8623c7b55cebefccf\
         02d5581acc1c9d5fb1ff68a1de45509fbe4da9a433922655",
        ],
    ),
    (
        Prf::HmacSha512,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728\
             292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcd",
            "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108b8c48cbc6b807dcf\
         bd850521a685babc7eae4a2a2e660dc0e86b931d65503fd2",
        ],
    ),
];

#[test]
fn prf_known_answers() {
    for (prf, cases) in [(Prf::HmacSha1, &SHA1[..]), (Prf::HmacSha512, &SHA512[..])] {
        for [key, data, expected] in cases {
            let (key, data) = (hex(key), hex(data));
            // In one piece, and in two.
            let (front, back) = data.split_at(data.len() / 3);
            for pieces in [&[&data[..]][..], &[front, back]] {
                assert_eq!(AwsLc.prf(prf, &key, pieces).expose(), hex(expected));
            }
        }
    }
}

/// Keys as long as those that SK_d, SK_pi and SK_pr are.
#[test]
fn prf_known_answers_with_keys_of_the_preferred_length() {
    for (prf, [key, data, expected]) in AUTHENTICATOR {
        assert_eq!(hex(key).len(), hex(expected).len());
        assert_eq!(
            AwsLc.prf(prf, &hex(key), &[&hex(data)]).expose(),
            hex(expected)
        );
    }
}

const CHACHA_KEYMAT: &str = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f\
     a0a1a2a3";
const CHACHA_IV: &str = "1011121314151617";

/// RFC 7634 appendix B (the IKE message) and appendix A (the ESP packet): AAD, plaintext,
/// ciphertext with tag.
const CHACHA: [[&str; 3]; 2] = [
    [
        "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029",
        "0000000c000040010000000a00",
        "610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2",
    ],
    [
        "0102030400000005",
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b\
         0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233\
         3435363701020204",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb\
         61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da\
         9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
    ],
];

#[test]
fn chacha20_poly1305_known_answers() {
    for [aad, plain, sealed] in CHACHA {
        let (keymat, iv, aad) = (hex(CHACHA_KEYMAT), hex(CHACHA_IV), hex(aad));
        let mut buffer = hex(plain);
        let encryption = Encryption::ChaCha20Poly1305;
        AwsLc
            .seal(encryption, &keymat, &iv, &aad, &mut buffer)
            .unwrap();
        assert_eq!(buffer, hex(sealed));
        AwsLc
            .open(encryption, &keymat, &iv, &aad, &mut buffer)
            .unwrap();
        assert_eq!(buffer, hex(plain));
    }
}

/// RFC 3602 §4, cases 1, 2 and 4: key, IV, plaintext, ciphertext.
const CBC: [[&str; 4]; 3] = [
    [
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        "53696e676c6520626c6f636b206d7367",
        "e353779c1079aeb82708942dbe77181a",
    ],
    [
        "c286696d887c9aa0611bbb3e2025a45a",
        "562e17996d093d28ddb3ba695a2e6f58",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    ],
    [
        "56e47a38c5598974bc46903dba290349",
        "8ce82eefbea0da3c44699ed7db51b7d9",
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\
         c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
        "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
         35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
    ],
];

/// Behind the ciphertext stands the ICV over AAD, IV and ciphertext, cut as RFC 4868 §2.3 and
/// RFC 2404 §3 say.
#[test]
fn aes_cbc_known_answers() {
    let with = [
        (Integrity::HmacSha1_96, Prf::HmacSha1, 12),
        (Integrity::HmacSha256_128, Prf::HmacSha256, 16),
        (Integrity::HmacSha384_192, Prf::HmacSha384, 24),
        (Integrity::HmacSha512_256, Prf::HmacSha512, 32),
    ];
    for [key, iv, plain, cipher] in CBC {
        for (integrity, prf, icv_len) in with {
            let encryption = Encryption::AesCbc(AesKey::Bits128, integrity);
            let mac_key: Vec<u8> = (0..).take(integrity.key_len()).collect();
            let keymat = [hex(key), mac_key.clone()].concat();
            let (iv, aad) = (hex(iv), b"header".to_vec());
            let mut buffer = hex(plain);
            AwsLc
                .seal(encryption, &keymat, &iv, &aad, &mut buffer)
                .unwrap();
            let (text, icv) = buffer.split_at(buffer.len() - icv_len);
            assert_eq!(text, hex(cipher));
            let whole = AwsLc.prf(prf, &mac_key, &[&aad, &iv, text]);
            assert_eq!(icv, &whole.expose()[..icv_len]);
            AwsLc
                .open(encryption, &keymat, &iv, &aad, &mut buffer)
                .unwrap();
            assert_eq!(buffer, hex(plain));
        }
    }
}

/// FIPS 203 §7.1 and §7.3: lengths of the keys and ciphertexts that go into KE payloads, agreement,
/// and implicit rejection of a changed ciphertext.
#[test]
fn ml_kem_round_trip_and_implicit_rejection() {
    for (method, encapsulation_key, ciphertext) in [
        (KeyExchangeMethod::MlKem512, 800, 768),
        (KeyExchangeMethod::MlKem768, 1184, 1088),
        (KeyExchangeMethod::MlKem1024, 1568, 1568),
    ] {
        let ours = AwsLc.key_exchange(method).unwrap();
        assert_eq!(ours.public_value().len(), encapsulation_key);
        let answer = AwsLc
            .answer_key_exchange(method, ours.public_value())
            .unwrap();
        assert_eq!(answer.public.len(), ciphertext);
        let shared = ours.agree(&answer.public).unwrap();
        assert_eq!(shared.expose(), answer.shared.expose());
        let moved = AwsLc.import_key_exchange(method, &ours.export()).unwrap();
        assert_eq!(moved.public_value(), ours.public_value());
        assert_eq!(
            moved.agree(&answer.public).unwrap().expose(),
            shared.expose()
        );
        // It looks like any other secret, the same each time, and is not the peer's.
        let mut changed = answer.public.clone();
        changed[0] ^= 1;
        let rejected = ours.agree(&changed).unwrap();
        assert_ne!(rejected.expose(), shared.expose());
        assert_eq!(rejected.expose(), moved.agree(&changed).unwrap().expose());
        // A coefficient that is not below q (FIPS 203 §7.2).
        let mut wrong = ours.public_value().to_vec();
        wrong[..2].fill(0xff);
        assert!(AwsLc.answer_key_exchange(method, &wrong).is_err());
    }
}

/// One block of `data/ml-kem.txt`.
#[derive(Default)]
struct Decapsulation {
    method: Option<KeyExchangeMethod>,
    encapsulation_key: Option<Vec<u8>>,
    private: String,
    ciphertext: Vec<u8>,
    secret: Vec<u8>,
}

fn decapsulations() -> Vec<Decapsulation> {
    let text = include_str!("data/ml-kem.txt");
    let blocks = text.split("\n\n").filter(|block| block.contains("set = "));
    let parse = |block: &str| {
        let mut case = Decapsulation::default();
        for (name, value) in block.lines().filter_map(|line| line.split_once(" = ")) {
            match name {
                "set" => {
                    case.method = Some(match value {
                        "512" => KeyExchangeMethod::MlKem512,
                        "768" => KeyExchangeMethod::MlKem768,
                        "1024" => KeyExchangeMethod::MlKem1024,
                        other => panic!("{other}"),
                    });
                }
                "ek" => case.encapsulation_key = Some(hex(value)),
                "dk" => case.private = value.to_owned(),
                "c" => case.ciphertext = hex(value),
                "K" => case.secret = hex(value),
                other => panic!("{other}"),
            }
        }
        case
    };
    blocks.map(parse).collect()
}

/// FIPS 203 §6.3, with keys and ciphertexts of others; the sources are in the file. Keys cannot be
/// made from a seed through the provider, so decapsulation is what there is to compare.
#[test]
fn ml_kem_known_answers() {
    let cases = decapsulations();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let ours = import(case.method.unwrap(), &case.private);
        if let Some(expected) = &case.encapsulation_key {
            assert_eq!(ours.public_value(), expected);
        }
        let secret = ours.agree(&case.ciphertext).unwrap();
        assert_eq!(secret.expose(), case.secret, "{:?}", case.method);
    }
}
