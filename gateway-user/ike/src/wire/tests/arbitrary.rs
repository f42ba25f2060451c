//! Strategies for every value that the wire format can express.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::output::TrafficSelector;
use crate::wire::{
    Attribute, AttributeValue, AuthMethod, AuthRepr, CertEncoding, CertRepr, CertReqRepr,
    DeleteRepr, ExchangeType, HeaderRepr, IdRepr, IdType, KeRepr, NonceRepr, NotifyRepr,
    NotifyType, OpaqueRepr, Payload, PayloadType, Proposal, ProtocolId, SaRepr, Transform,
    TransformType, TsRepr, VendorIdRepr,
};

/// A payload that owns its octets. Values borrow from a packet, strategies cannot.
#[derive(Clone, Debug)]
pub(super) enum Owned {
    Sa(SaRepr),
    Ke(u16, Vec<u8>),
    Id(bool, u8, [u8; 3], Vec<u8>),
    Cert(u8, Vec<u8>),
    CertReq(u8, Vec<u8>),
    Auth(u8, Vec<u8>),
    Nonce(Vec<u8>),
    Notify(u8, Vec<u8>, u16, Vec<u8>),
    Delete(u8, u8, Vec<u8>),
    VendorId(Vec<u8>),
    Ts(bool, TsRepr),
    Config(Vec<u8>),
    Eap(Vec<u8>),
    Unknown(u8, Vec<u8>),
}

impl Owned {
    pub(super) fn payload(&self) -> Payload<'_> {
        match self {
            Self::Sa(repr) => Payload::Sa(repr.clone()),
            Self::Ke(method, data) => Payload::Ke(KeRepr {
                method: *method,
                data,
            }),
            Self::Id(initiator, kind, reserved, data) => {
                let repr = IdRepr {
                    kind: IdType(*kind),
                    reserved: *reserved,
                    data,
                };
                if *initiator {
                    Payload::IdInitiator(repr)
                } else {
                    Payload::IdResponder(repr)
                }
            }
            Self::Cert(encoding, data) => Payload::Cert(CertRepr {
                encoding: CertEncoding(*encoding),
                data,
            }),
            Self::CertReq(encoding, authorities) => Payload::CertReq(CertReqRepr {
                encoding: CertEncoding(*encoding),
                authorities,
            }),
            Self::Auth(method, data) => Payload::Auth(AuthRepr {
                method: AuthMethod(*method),
                data,
            }),
            Self::Nonce(data) => Payload::Nonce(NonceRepr { data }),
            Self::Notify(protocol, spi, kind, data) => Payload::Notify(NotifyRepr {
                protocol: ProtocolId(*protocol),
                spi,
                kind: NotifyType(*kind),
                data,
            }),
            Self::Delete(protocol, spi_size, spis) => Payload::Delete(DeleteRepr {
                protocol: ProtocolId(*protocol),
                spi_size: *spi_size,
                spis,
            }),
            Self::VendorId(data) => Payload::VendorId(VendorIdRepr { data }),
            Self::Ts(true, repr) => Payload::TsInitiator(repr.clone()),
            Self::Ts(false, repr) => Payload::TsResponder(repr.clone()),
            Self::Config(data) => Payload::Config(OpaqueRepr { data }),
            Self::Eap(data) => Payload::Eap(OpaqueRepr { data }),
            Self::Unknown(kind, data) => Payload::Unknown(PayloadType(*kind), OpaqueRepr { data }),
        }
    }
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        any::<u16>().prop_map(AttributeValue::Short),
        octets(12).prop_map(AttributeValue::Long),
    ];
    prop_oneof![
        Just(Attribute::key_length(256)),
        (0..0x8000_u16, value).prop_map(|(kind, value)| Attribute { kind, value }),
    ]
}

pub(super) fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3)).prop_map(|(kind, id, attributes)| {
        Transform {
            kind: TransformType(kind),
            id,
            attributes,
        }
    })
}

pub(super) fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), 0..6_u8, octets(10), vec(transform(), 0..6)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId(protocol),
            spi,
            transforms,
        },
    )
}

pub(super) fn selector() -> impl Strategy<Value = TrafficSelector> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
    ];
    let ports = prop_oneof![
        Just((u16::MAX, 0)),
        Just((0, u16::MAX)),
        any::<[u16; 2]>().prop_map(|[a, b]| (a.min(b), a.max(b))),
    ];
    (any::<u8>(), ports, addresses).prop_map(|(protocol, (start_port, end_port), [a, b])| {
        TrafficSelector {
            protocol,
            start_port,
            end_port,
            start: a.min(b),
            end: a.max(b),
        }
    })
}

fn identity() -> impl Strategy<Value = (u8, Vec<u8>)> {
    any::<u8>().prop_flat_map(|kind| {
        let len = match IdType(kind) {
            IdType::ID_IPV4_ADDR => 4..=4,
            IdType::ID_IPV6_ADDR => 16..=16,
            _ => 0..=40,
        };
        (Just(kind), vec(any::<u8>(), len))
    })
}

fn delete() -> impl Strategy<Value = Owned> {
    prop_oneof![
        Just(Owned::Delete(1, 0, Vec::new())),
        (2..4_u8, vec(any::<[u8; 4]>(), 0..5)).prop_map(|(protocol, spis)| Owned::Delete(
            protocol,
            4,
            spis.concat()
        )),
        (4..=u8::MAX, 1..9_u8, 0..5_u8).prop_map(|(protocol, size, count)| Owned::Delete(
            protocol,
            size,
            vec![0xd5; usize::from(size * count)]
        )),
    ]
}

fn unknown_type() -> impl Strategy<Value = u8> {
    (1..=u8::MAX).prop_filter("unknown", |kind| !PayloadType(*kind).is_known())
}

pub(super) fn payload() -> impl Strategy<Value = Owned> {
    let cert_request = (any::<u8>(), octets(3)).prop_map(|(encoding, hashes)| {
        Owned::CertReq(encoding, hashes.into_iter().flat_map(|h| [h; 20]).collect())
    });
    prop_oneof![
        vec(proposal(), 1..5).prop_map(|proposals| Owned::Sa(SaRepr { proposals })),
        (any::<u16>(), vec(any::<u8>(), 1..80)).prop_map(|(m, data)| Owned::Ke(m, data)),
        (any::<bool>(), identity(), any::<[u8; 3]>())
            .prop_map(|(side, (kind, data), reserved)| Owned::Id(side, kind, reserved, data)),
        (any::<u8>(), octets(60)).prop_map(|(encoding, data)| Owned::Cert(encoding, data)),
        cert_request,
        (any::<u8>(), octets(60)).prop_map(|(method, data)| Owned::Auth(method, data)),
        vec(any::<u8>(), 16..=256).prop_map(Owned::Nonce),
        (any::<u8>(), octets(255), any::<u16>(), octets(60))
            .prop_map(|(protocol, spi, kind, data)| Owned::Notify(protocol, spi, kind, data)),
        delete(),
        octets(40).prop_map(Owned::VendorId),
        (any::<bool>(), vec(selector(), 1..6))
            .prop_map(|(side, selectors)| Owned::Ts(side, TsRepr { selectors })),
        octets(40).prop_map(Owned::Config),
        octets(40).prop_map(Owned::Eap),
        (unknown_type(), octets(40)).prop_map(|(kind, data)| Owned::Unknown(kind, data)),
    ]
}

pub(super) fn header() -> impl Strategy<Value = HeaderRepr> {
    let spis = (1..=u64::MAX, any::<u64>());
    let flags = option::of(any::<bool>());
    (spis, any::<u8>(), flags, any::<u32>()).prop_map(|(spis, exchange, flags, message_id)| {
        HeaderRepr {
            initiator_spi: spis.0.to_be_bytes(),
            responder_spi: spis.1.to_be_bytes(),
            exchange: ExchangeType(exchange),
            from_initiator: flags.is_some(),
            response: flags.unwrap_or(true),
            message_id,
        }
    })
}
