//! Two strongSwan 5.9.8 talking, recorded with their keys: we read what they say, and what we write
//! from that is, to the octet, what they wrote.

use std::collections::HashMap;

use super::hex;
use crate::aws_lc::AwsLc;
use crate::crypto::Encryption;
use crate::wire::{
    AuthMethod, Body, Chain, ExchangeType, IdType, Message, MessageBuilder, NotifyType, Opened,
    Payload, PayloadType, Payloads, ProtocolId, SaRepr, Transform, TransformType,
};

const RECORDING: &str = include_str!("../../../tests/data/strongswan-5.9.8-psk.txt");

struct Recording(HashMap<&'static str, Vec<u8>>);

impl Recording {
    fn load() -> Self {
        let values = RECORDING
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, value)| (name, hex(value)))
            .collect();
        Self(values)
    }

    fn message(&self, number: u8) -> &[u8] {
        &self.0[format!("message_{number}").as_str()]
    }

    /// Key and salt for a message: IKE SA 2 begins with message 13.
    fn keymat(&self, number: u8) -> &[u8] {
        let side = if self.message(number)[19] & 0x08 == 0 {
            "er"
        } else {
            "ei"
        };
        let sa = if number < 13 { 1 } else { 2 };
        &self.0[format!("sk_{side}_{sa}").as_str()]
    }

    fn open(&self, number: u8) -> Opened {
        let message = Message::parse(self.message(number)).unwrap();
        let Body::Encrypted(packet) = message.body() else {
            panic!("message {number} is not encrypted");
        };
        packet
            .open(&AwsLc, Encryption::AesGcm16Key128, self.keymat(number))
            .unwrap()
    }
}

fn rebuild(message: &Message<'_>, chain: Chain<'_>) -> MessageBuilder {
    chain.fold(MessageBuilder::new(*message.header()), |builder, raw| {
        builder.with(&Payload::parse(&raw).unwrap())
    })
}

#[test]
fn every_message_is_rebuilt_to_the_octet() {
    let recording = Recording::load();
    for number in 1..=16 {
        let octets = recording.message(number);
        let message = Message::parse(octets).unwrap();
        let rebuilt = match message.body() {
            Body::Clear(chain) => rebuild(&message, chain.clone()).finish().unwrap(),
            Body::Encrypted(packet) => {
                let opened = recording.open(number);
                let iv = u64::from_be_bytes(*packet.body().first_chunk().unwrap());
                rebuild(&message, opened.chain().unwrap())
                    .seal(
                        &AwsLc,
                        Encryption::AesGcm16Key128,
                        recording.keymat(number),
                        iv,
                    )
                    .unwrap()
            }
            Body::Fragment(..) => panic!("message {number} is a fragment"),
        };
        assert_eq!(rebuilt, octets, "message {number}");
    }
}

#[test]
fn ike_sa_init_request() {
    let recording = Recording::load();
    let message = Message::parse(recording.message(1)).unwrap();
    assert_eq!(message.header().exchange, ExchangeType::IKE_SA_INIT);
    assert!(message.header().from_initiator && !message.header().response);
    assert_eq!(message.header().responder_spi, [0; 8]);
    assert_eq!(message.header().message_id, 0);
    let Body::Clear(chain) = message.body() else {
        panic!("encrypted");
    };
    let payloads = Payloads::parse(chain.clone()).unwrap();

    let SaRepr { proposals } = payloads.require_sa().unwrap();
    assert_eq!(proposals.len(), 2);
    assert_eq!(
        (proposals[0].number, proposals[0].protocol),
        (1, ProtocolId::IKE)
    );
    assert!(proposals[0].spi.is_empty());
    let expected = [
        Transform::with_key_length(TransformType::ENCR, 20, 128),
        Transform::new(TransformType::PRF, 5),
        Transform::new(TransformType::KE, 31),
    ];
    assert_eq!(proposals[0].transforms, expected);
    let expected = [
        Transform::with_key_length(TransformType::ENCR, 20, 256),
        Transform::new(TransformType::PRF, 6),
        Transform::new(TransformType::KE, 19),
    ];
    assert_eq!(proposals[1].number, 2);
    assert_eq!(proposals[1].transforms, expected);

    let ke = payloads.require_ke().unwrap();
    assert_eq!((ke.method, ke.data.len()), (31, 32));
    assert_eq!(payloads.require_nonce().unwrap().data.len(), 32);
    for kind in [
        NotifyType::NAT_DETECTION_SOURCE_IP,
        NotifyType::NAT_DETECTION_DESTINATION_IP,
    ] {
        assert_eq!(payloads.notify(kind).unwrap().data.len(), 20);
    }
    let hashes = payloads
        .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
        .unwrap();
    assert_eq!(hashes.data, [0, 2, 0, 3, 0, 4, 0, 5]);
    assert!(payloads.error_notify().is_none());
}

#[test]
fn ike_auth_request() {
    let opened = Recording::load().open(3);
    assert_eq!(opened.first, PayloadType::IDI);
    let payloads = opened.payloads().unwrap();
    let id = payloads.require_id_initiator().unwrap();
    assert_eq!(
        (id.kind, id.data),
        (IdType::ID_FQDN, b"a.example.org".as_slice())
    );
    assert_eq!(id.rest_of_payload(), b"\x02\0\0\0a.example.org");
    assert_eq!(
        payloads.require_id_responder().unwrap().data,
        b"b.example.org"
    );
    let auth = payloads.require_auth().unwrap();
    assert_eq!((auth.method, auth.data.len()), (AuthMethod::SHARED_KEY, 32));
    assert!(payloads.has_notify(NotifyType::INITIAL_CONTACT));

    let proposal = &payloads.require_sa().unwrap().proposals[0];
    assert_eq!(proposal.protocol, ProtocolId::ESP);
    assert!(proposal.esp_spi().is_some() && proposal.ike_spi().is_none());
    assert!(
        proposal
            .transforms
            .contains(&Transform::new(TransformType::ESN, 0))
    );
    let local = &payloads.require_ts_initiator().unwrap().selectors;
    let remote = &payloads.require_ts_responder().unwrap().selectors;
    assert_eq!(local.len(), 2);
    assert_eq!(local[0].start.to_string(), "10.1.0.0");
    assert_eq!(local[0].end.to_string(), "10.1.255.255");
    assert_eq!((local[0].protocol, local[0].end_port), (0, u16::MAX));
    assert_eq!(local[1].start.to_string(), "2001:db8:1::");
    assert_eq!(remote[0].start.to_string(), "10.2.0.0");
    assert_eq!(
        (remote[0].protocol, remote[0].start_port, remote[0].end_port),
        (6, 80, 80)
    );
}

#[test]
fn rekeying_and_deleting() {
    let recording = Recording::load();
    let (request, response) = (recording.open(3), recording.open(4));
    let spi_of = |opened: &Opened| {
        let payloads = opened.payloads().unwrap();
        payloads.sa.unwrap().proposals[0].esp_spi().unwrap()
    };
    let (initiator, responder) = (spi_of(&request), spi_of(&response));

    let rekey = recording.open(5);
    let payloads = rekey.payloads().unwrap();
    let notify = payloads.notify(NotifyType::REKEY_SA).unwrap();
    assert_eq!(notify.esp_spi(), Some(initiator));
    assert_eq!(payloads.require_ke().unwrap().method, 31);

    for (number, spi) in [(7, initiator), (8, responder)] {
        let opened = recording.open(number);
        let payloads = opened.payloads().unwrap();
        let spis: Vec<_> = payloads.deletes[0].esp_spis().collect();
        assert_eq!(spis, [spi]);
    }

    let rekey = recording.open(9);
    let payloads = rekey.payloads().unwrap();
    let proposal = &payloads.require_sa().unwrap().proposals[0];
    let spi = proposal.ike_spi().unwrap();
    assert_eq!(spi, recording.message(13)[..8]);

    let delete = recording.open(15);
    let payloads = delete.payloads().unwrap();
    assert_eq!(payloads.deletes[0].protocol, ProtocolId::IKE);
    let empty = recording.open(16);
    assert_eq!(empty.first, PayloadType::NONE);
    assert_eq!(empty.payloads().unwrap(), Payloads::default());
}
