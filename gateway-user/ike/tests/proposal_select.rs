//! The choice of a suite out of an SA payload.

#![allow(clippy::unwrap_used)]

use gateway_ike::proposal::{
    EspExchange, EspProposal, IkeProposal, offer_ike, select_esp, select_ike,
};
use gateway_ike::wire::{
    Attribute, AttributeValue, Proposal, ProtocolId, Transform, TransformType,
};
use proptest::prelude::*;

const ENCR: TransformType = TransformType::ENCR;
const PRF: TransformType = TransformType::PRF;
const INTEG: TransformType = TransformType::INTEG;
const KE: TransformType = TransformType::KE;
const ESN: TransformType = TransformType::ESN;

/// Kind, id, key length (0: no attribute).
type Short = (TransformType, u16, u16);

const GCM128: Short = (ENCR, 20, 128);
const GCM256: Short = (ENCR, 20, 256);
const SHA256: Short = (PRF, 5, 0);
const SHA384: Short = (PRF, 6, 0);
const X25519: Short = (KE, 31, 0);
const ECP256: Short = (KE, 19, 0);
const MODP2048: Short = (KE, 14, 0);
const NO_ESN: Short = (ESN, 0, 0);
const USE_ESN: Short = (ESN, 1, 0);
const INTEG_NONE: Short = (INTEG, 0, 0);
const HMAC256: Short = (INTEG, 12, 0);
const KE_NONE: Short = (KE, 0, 0);

const AUTH: EspExchange = EspExchange::IkeAuth;
const CREATE: EspExchange = EspExchange::CreateChildSa;

fn transform((kind, id, bits): Short) -> Transform {
    match bits {
        0 => Transform::new(kind, id),
        bits => Transform::with_key_length(kind, id, bits),
    }
}

fn offer(number: u8, protocol: ProtocolId, spi: &[u8], transforms: &[Short]) -> Proposal {
    Proposal {
        number,
        protocol,
        spi: spi.to_vec(),
        transforms: transforms.iter().copied().map(transform).collect(),
    }
}

fn ike_offer(number: u8, transforms: &[Short]) -> Proposal {
    offer(number, ProtocolId::IKE, &[], transforms)
}

fn esp_offer(number: u8, transforms: &[Short]) -> Proposal {
    offer(number, ProtocolId::ESP, &[1, 2, 3, number], transforms)
}

fn ike(text: &str) -> Vec<IkeProposal> {
    text.split(',')
        .flat_map(|text| IkeProposal::parse(text).unwrap())
        .collect()
}

fn esp(text: &str) -> Vec<EspProposal> {
    text.split(',')
        .flat_map(|text| EspProposal::parse(text).unwrap())
        .collect()
}

/// The suite and the answer's number, or "none".
fn choose_ike(offered: &[Proposal], configured: &str) -> String {
    match select_ike(offered, &ike(configured), 0) {
        Ok(chosen) => format!("{} {}", chosen.answer(&[]).number, chosen.suite),
        Err(_) => "none".to_owned(),
    }
}

const OURS: &str = "aes128gcm16-prfsha256-x25519";

#[test]
fn our_order_of_preference_decides() {
    let offered = [
        ike_offer(1, &[GCM256, SHA384, ECP256]),
        ike_offer(
            2,
            &[GCM256, GCM128, SHA384, SHA256, MODP2048, ECP256, X25519],
        ),
    ];
    for (configured, expected) in [
        (OURS, "2 aes128gcm16-prfsha256-x25519"),
        (
            "aes256gcm16-prfsha384-ecp256,aes128gcm16-prfsha256-x25519",
            "1 aes256gcm16-prfsha384-ecp256",
        ),
        (
            "aes128gcm16-prfsha384-ecp256,aes256gcm16-prfsha384-ecp256",
            "2 aes128gcm16-prfsha384-ecp256",
        ),
    ] {
        assert_eq!(choose_ike(&offered, configured), expected);
    }
    assert_eq!(choose_ike(&offered[..1], OURS), "none");
    assert_eq!(choose_ike(&[], OURS), "none");
    assert!(select_ike(&offered, &[], 0).is_err(), "nothing configured");
}

/// What is added to a good suite, and whether the proposal is still acceptable.
#[rustfmt::skip]
const IKE_ADDITIONS: [(&str, &[Short], bool); 10] = [
    ("nothing", &[], true),
    ("INTEG NONE", &[INTEG_NONE], true),
    ("INTEG NONE and integrity", &[HMAC256, INTEG_NONE], true),
    ("integrity", &[HMAC256], false),
    ("unknown ids", &[(ENCR, 9999, 0), (PRF, 99, 0), (KE, 1025, 0)], true),
    ("KE NONE", &[KE_NONE], true),
    ("an additional key exchange", &[(TransformType::ADDKE1, 36, 0)], false),
    ("an additional key exchange that may be none", &[(TransformType::ADDKE1, 0, 0)], true),
    ("an unknown type", &[(TransformType(77), 1, 0)], false),
    ("a type that is not for IKE", &[NO_ESN], false),
];

#[test]
fn additions_to_an_ike_offer() {
    for (what, more, acceptable) in IKE_ADDITIONS {
        let good = [GCM128, SHA256, X25519];
        for transforms in [[&good, more].concat(), [more, &good].concat()] {
            let offered = [ike_offer(1, &transforms), ike_offer(2, &good)];
            let number = if acceptable { 1 } else { 2 };
            assert_eq!(
                choose_ike(&offered, OURS),
                format!("{number} {OURS}"),
                "{what}"
            );
        }
    }
}

#[rustfmt::skip]
const BAD_IKE: [(&str, ProtocolId, &[u8], &[Short]); 12] = [
    ("no KE", ProtocolId::IKE, &[], &[GCM128, SHA256]),
    ("only KE NONE", ProtocolId::IKE, &[], &[GCM128, SHA256, KE_NONE]),
    ("no PRF", ProtocolId::IKE, &[], &[GCM128, X25519]),
    ("no encryption", ProtocolId::IKE, &[], &[SHA256, X25519]),
    ("no key length", ProtocolId::IKE, &[], &[(ENCR, 20, 0), SHA256, X25519]),
    ("192 bits", ProtocolId::IKE, &[], &[(ENCR, 20, 192), SHA256, X25519]),
    ("a key length for a PRF", ProtocolId::IKE, &[], &[GCM128, (PRF, 5, 256), X25519]),
    ("CBC", ProtocolId::IKE, &[], &[(ENCR, 12, 128), SHA256, HMAC256, X25519]),
    ("no transforms", ProtocolId::IKE, &[], &[]),
    ("an SPI", ProtocolId::IKE, &[1; 8], &[GCM128, SHA256, X25519]),
    ("ESP", ProtocolId::ESP, &[], &[GCM128, SHA256, X25519]),
    ("unknown protocol", ProtocolId(9), &[], &[GCM128, SHA256, X25519]),
];

/// A bad proposal is not chosen, and does not spoil the good one after it.
#[test]
fn bad_ike_offers() {
    for (what, protocol, spi, transforms) in BAD_IKE {
        let bad = offer(1, protocol, spi, transforms);
        let good = ike_offer(2, &[GCM128, SHA256, X25519]);
        let chosen = choose_ike(&[bad.clone(), good], OURS);
        assert_eq!(chosen, format!("2 {OURS}"), "{what}");
        assert_eq!(choose_ike(&[bad], OURS), "none", "{what}");
    }
}

/// RFC 7296 §3.3.6: a transform with an attribute that we do not know is not chosen.
#[test]
fn unknown_attributes() {
    let mut offered = [ike_offer(1, &[GCM128, SHA256, X25519])];
    let attribute = |kind, value| Attribute { kind, value };
    for attributes in [
        vec![
            attribute(14, AttributeValue::Short(128)),
            attribute(99, AttributeValue::Short(1)),
        ],
        vec![attribute(14, AttributeValue::Long(vec![0, 128]))],
        vec![attribute(14, AttributeValue::Short(128)); 2],
        vec![attribute(15, AttributeValue::Short(128))],
    ] {
        offered[0].transforms[0].attributes = attributes;
        assert_eq!(choose_ike(&offered, OURS), "none");
    }
}

#[test]
fn the_answer_has_one_transform_of_every_type_offered() {
    let offered = [
        ike_offer(1, &[(ENCR, 12, 256), HMAC256, SHA256, MODP2048]),
        ike_offer(
            2,
            &[SHA384, SHA256, INTEG_NONE, X25519, ECP256, GCM256, GCM128],
        ),
    ];
    let chosen = select_ike(&offered, &ike(OURS), 0).unwrap();
    assert_eq!(
        chosen.answer(&[]),
        ike_offer(2, &[GCM128, SHA256, INTEG_NONE, X25519])
    );
    assert_eq!(chosen.peer_spi, []);

    let rekey = [offer(
        1,
        ProtocolId::IKE,
        &[9; 8],
        &[GCM128, SHA256, X25519],
    )];
    let chosen = select_ike(&rekey, &ike(OURS), 8).unwrap();
    assert_eq!(chosen.peer_spi, [9; 8]);
    assert_eq!(
        chosen.answer(&[7; 8]),
        offer(1, ProtocolId::IKE, &[7; 8], &[GCM128, SHA256, X25519])
    );
}

/// What it is about, the offer, the exchange, our list, what is chosen.
type EspCase = (
    &'static str,
    &'static [Short],
    EspExchange,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const ESP_CASES: [EspCase; 20] = [
    ("plain", &[GCM128, NO_ESN], AUTH, "aes128gcm16", "aes128gcm16"),
    ("both ESN, we do not want it", &[GCM128, USE_ESN, NO_ESN], AUTH, "aes128gcm16", "aes128gcm16"),
    ("both ESN, we want it", &[GCM128, USE_ESN, NO_ESN], AUTH, "aes128gcm16-esn", "aes128gcm16-esn"),
    ("ESN only, we do not want it", &[GCM128, USE_ESN], AUTH, "aes128gcm16", "none"),
    ("ESN only, we take either", &[GCM128, USE_ESN], AUTH, "aes128gcm16-noesn-esn", "aes128gcm16-esn"),
    ("ESN is mandatory", &[GCM128], AUTH, "aes128gcm16", "none"),
    ("INTEG NONE", &[GCM128, INTEG_NONE, NO_ESN], AUTH, "aes128gcm16", "aes128gcm16"),
    ("integrity", &[GCM128, HMAC256, NO_ESN], AUTH, "aes128gcm16", "none"),
    ("a KE in IKE_AUTH is ignored", &[GCM128, X25519, NO_ESN], AUTH, "aes128gcm16", "aes128gcm16"),
    ("also an unknown one", &[GCM128, MODP2048, NO_ESN], AUTH, "aes128gcm16", "aes128gcm16"),
    ("PFS does not count in IKE_AUTH", &[GCM128, NO_ESN], AUTH, "aes128gcm16-x25519", "aes128gcm16"),
    ("nor is it chosen there", &[GCM128, X25519, NO_ESN], AUTH, "aes128gcm16-x25519", "aes128gcm16"),
    ("PFS", &[GCM128, MODP2048, X25519, NO_ESN], CREATE, "aes128gcm16-x25519", "aes128gcm16-x25519"),
    ("PFS missing", &[GCM128, NO_ESN], CREATE, "aes128gcm16-x25519", "none"),
    ("PFS of another kind", &[GCM128, ECP256, NO_ESN], CREATE, "aes128gcm16-x25519", "none"),
    ("PFS not wanted", &[GCM128, X25519, NO_ESN], CREATE, "aes128gcm16", "none"),
    ("optional PFS not wanted", &[GCM128, X25519, KE_NONE, NO_ESN], CREATE, "aes128gcm16", "aes128gcm16"),
    ("optional PFS wanted", &[GCM128, X25519, KE_NONE, NO_ESN], CREATE, "aes128gcm16-x25519", "aes128gcm16-x25519"),
    ("a PRF", &[GCM128, SHA256, NO_ESN], CREATE, "aes128gcm16", "none"),
    ("unknown type", &[GCM128, NO_ESN, (TransformType(60), 1, 0)], AUTH, "aes128gcm16", "none"),
];

#[test]
fn esp_offers() {
    for (what, transforms, exchange, configured, expected) in ESP_CASES {
        let offered = [esp_offer(1, transforms)];
        let chosen = match select_esp(&offered, &esp(configured), exchange) {
            Ok(chosen) => chosen.suite.to_string(),
            Err(_) => "none".to_owned(),
        };
        assert_eq!(chosen, expected, "{what}");
    }
}

#[test]
fn esp_answer_and_spi() {
    let offered = [
        esp_offer(1, &[GCM256, NO_ESN]),
        esp_offer(2, &[GCM128, KE_NONE, INTEG_NONE, USE_ESN, NO_ESN]),
    ];
    for exchange in [AUTH, CREATE] {
        let chosen = select_esp(&offered, &esp("aes128gcm16"), exchange).unwrap();
        assert_eq!(chosen.peer_spi, [1, 2, 3, 2]);
        let expected = offer(
            2,
            ProtocolId::ESP,
            &[9; 4],
            &[GCM128, INTEG_NONE, KE_NONE, NO_ESN],
        );
        assert_eq!(chosen.answer(&[9; 4]), expected);
    }
    // Not answered, because it is not meant: RFC 7296 §1.2.
    let offered = [esp_offer(1, &[GCM128, X25519, NO_ESN])];
    let chosen = select_esp(&offered, &esp("aes128gcm16-x25519"), EspExchange::IkeAuth).unwrap();
    assert_eq!(chosen.suite.ke, None);
    assert_eq!(
        chosen.answer(&[9; 4]),
        offer(1, ProtocolId::ESP, &[9; 4], &[GCM128, NO_ESN])
    );

    for (protocol, spi) in [
        (ProtocolId::AH, &[1; 4][..]),
        (ProtocolId::ESP, &[1; 8]),
        (ProtocolId::ESP, &[]),
    ] {
        let offered = [offer(1, protocol, spi, &[GCM128, NO_ESN])];
        assert!(select_esp(&offered, &esp("aes128gcm16"), AUTH).is_err());
    }
}

#[test]
fn no_proposal_is_explained_in_one_line() {
    let offered = [
        ike_offer(1, &[(ENCR, 12, 128), HMAC256, SHA256, MODP2048]),
        ike_offer(2, &[(ENCR, 20, 0), (PRF, 99, 0), (TransformType(77), 5, 0)]),
        offer(3, ProtocolId(9), &[], &[]),
    ];
    let error = select_ike(
        &offered,
        &ike("aes256gcm16-prfsha384-ecp256,aes128gcm16-prfsha256-x25519"),
        0,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "no proposal chosen: offered IKE:AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048, \
         IKE:AES_GCM_16/PRF_99/TYPE_77_5, PROTO_9; we accept \
         IKE:AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_256, \
         IKE:AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
    );
    let flood = vec![ike_offer(1, &[(ENCR, 12, 128); 255]); 8];
    let error = select_ike(&flood, &ike(OURS), 0).unwrap_err();
    assert!(error.offered.len() < 1100, "{}", error.offered.len());
    let nothing = select_esp(&[], &esp("aes128gcm16"), EspExchange::IkeAuth).unwrap_err();
    assert_eq!(
        nothing.to_string(),
        "no proposal chosen: offered nothing; we accept ESP:AES_GCM_16-128/NO_EXT_SEQ"
    );
}

fn any_transform() -> impl Strategy<Value = Short> {
    prop::sample::select(vec![
        GCM128,
        GCM256,
        SHA256,
        SHA384,
        X25519,
        ECP256,
        MODP2048,
        NO_ESN,
        USE_ESN,
        INTEG_NONE,
        HMAC256,
        KE_NONE,
        (ENCR, 20, 0),
        (ENCR, 12, 128),
        (TransformType(77), 1, 0),
    ])
}

/// Proposals of random transforms, with a complete suite among them every other time.
fn any_offer(
    protocol: ProtocolId,
    spi: &'static [u8],
    suite: [&'static [Short]; 3],
) -> impl Strategy<Value = Vec<Proposal>> {
    let pick = |choice: &'static [Short]| prop::sample::select(choice);
    let suite = (pick(suite[0]), pick(suite[1]), pick(suite[2]));
    let random = |most| prop::collection::vec(any_transform(), 0..most);
    let one = prop_oneof![
        random(8),
        (suite, random(4))
            .prop_map(|((a, b, c), more)| [vec![a, b, c], more].concat())
            .prop_shuffle(),
    ];
    prop::collection::vec(one, 0..4).prop_map(move |proposals| {
        (1..)
            .zip(proposals)
            .map(|(number, transforms)| offer(number, protocol, spi, &transforms))
            .collect()
    })
}

fn any_ike_offer() -> impl Strategy<Value = Vec<Proposal>> {
    let suite: [&[Short]; 3] = [&[GCM128, GCM256], &[SHA256, SHA384], &[X25519, ECP256]];
    any_offer(ProtocolId::IKE, &[], suite)
}

fn any_esp_offer() -> impl Strategy<Value = Vec<Proposal>> {
    let suite: [&[Short]; 3] = [
        &[GCM128, GCM256],
        &[NO_ESN, USE_ESN],
        &[X25519, KE_NONE, INTEG_NONE],
    ];
    any_offer(ProtocolId::ESP, &[1; 4], suite)
}

fn shuffled_defaults() -> impl Strategy<Value = Vec<IkeProposal>> {
    (Just(IkeProposal::defaults()).prop_shuffle(), 0usize..9)
        .prop_map(|(all, count)| all.into_iter().take(count).collect())
}

fn shuffled_esp() -> impl Strategy<Value = Vec<EspProposal>> {
    (
        Just(esp("default,aes128gcm16-esn,aes256gcm16-x25519-esn")).prop_shuffle(),
        0usize..9,
    )
        .prop_map(|(all, count)| all.into_iter().take(count).collect())
}

/// What RFC 7296 §3.3.6 says of an accepted proposal: it is a choice of one of the offered
/// transforms for every type that is offered.
fn is_choice_from(answer: &Proposal, offer: &Proposal, may_miss: Option<TransformType>) -> bool {
    let once = |kind| answer.transforms.iter().filter(|t| t.kind == kind).count() == 1;
    answer
        .transforms
        .iter()
        .all(|t| offer.transforms.contains(t) && once(t.kind))
        && offer
            .transforms
            .iter()
            .all(|t| once(t.kind) || may_miss == Some(t.kind))
}

/// Whether `offer` allows `suite`, said in another way than in the code: take from the offer what
/// is of no importance, and compare with what we would offer ourselves.
fn allows(offer: &Proposal, ours: &Proposal, ignore_ke: bool) -> bool {
    let kinds = [ENCR, PRF, INTEG, KE, ESN];
    offer.transforms.iter().all(|t| kinds.contains(&t.kind))
        && kinds.iter().all(|&kind| {
            let offered: Vec<_> = offer.transforms.iter().filter(|t| t.kind == kind).collect();
            let none = Transform::new(kind, 0);
            match ours.transforms.iter().find(|t| t.kind == kind) {
                Some(wanted) => offered.contains(&wanted),
                None if kind == KE && ignore_ke => true,
                None if kind == KE || kind == INTEG => {
                    offered.is_empty() || offered.contains(&&none)
                }
                None => offered.is_empty(),
            }
        })
}

proptest! {
    #[test]
    fn ike_selection(offered in any_ike_offer(), configured in shuffled_defaults()) {
        let first = configured.iter().find_map(|suite| {
            let ours = suite.to_wire(1, &[]);
            let offer = offered.iter().find(|offer| allows(offer, &ours, false))?;
            Some((*suite, offer))
        });
        match (select_ike(&offered, &configured, 0), first) {
            (Ok(chosen), Some((suite, offer))) => {
                prop_assert_eq!(chosen.suite, suite);
                let answer = chosen.answer(&[]);
                prop_assert_eq!(answer.number, offer.number);
                prop_assert!(is_choice_from(&answer, offer, None));
                // An initiator that had offered just this finds its suite in the answer.
                prop_assert_eq!(select_ike(&[answer], &[suite], 0).unwrap().suite, suite);
            }
            (Err(_), None) => {}
            (result, expected) => prop_assert!(false, "{:?}, expected {:?}", result, expected),
        }
    }

    #[test]
    fn esp_selection(offered in any_esp_offer(), configured in shuffled_esp(), auth: bool) {
        let exchange = if auth { EspExchange::IkeAuth } else { EspExchange::CreateChildSa };
        let first = configured.iter().find_map(|suite| {
            let ours = suite.to_wire(1, [1; 4], exchange);
            let offer = offered.iter().find(|offer| allows(offer, &ours, auth))?;
            Some((EspProposal { ke: suite.ke.filter(|_| !auth), ..*suite }, offer))
        });
        match (select_esp(&offered, &configured, exchange), first) {
            (Ok(chosen), Some((suite, offer))) => {
                prop_assert_eq!(chosen.suite, suite);
                let answer = chosen.answer(&[2; 4]);
                prop_assert_eq!(answer.number, offer.number);
                prop_assert!(is_choice_from(&answer, offer, auth.then_some(KE)));
            }
            (Err(_), None) => {}
            (result, expected) => prop_assert!(false, "{:?}, expected {:?}", result, expected),
        }
    }

    /// An offer of many says exactly what they say one by one.
    #[test]
    fn a_folded_offer_allows_the_same(
        offered in prop::collection::vec(prop::sample::select(IkeProposal::defaults()), 1..12),
        asked in prop::sample::select(IkeProposal::defaults()),
    ) {
        let folded = offer_ike(&offered, &[]);
        let chosen = select_ike(&folded, &[asked], 0).ok().map(|chosen| chosen.suite);
        prop_assert_eq!(chosen, offered.contains(&asked).then_some(asked));
    }

    /// What we would offer we also accept.
    #[test]
    fn own_offers_are_accepted(configured in shuffled_defaults(), esp in shuffled_esp()) {
        let offered: Vec<_> = (1..).zip(&configured).map(|(n, suite)| suite.to_wire(n, &[])).collect();
        let chosen = select_ike(&offered, &configured, 0).ok().map(|chosen| chosen.suite);
        prop_assert_eq!(chosen.as_ref(), configured.first());
        let exchange = EspExchange::CreateChildSa;
        let offered: Vec<_> = (1..).zip(&esp).map(|(n, suite)| suite.to_wire(n, [n; 4], exchange)).collect();
        let chosen = select_esp(&offered, &esp, exchange).ok().map(|chosen| chosen.suite);
        prop_assert_eq!(chosen.as_ref(), esp.first());
    }
}
