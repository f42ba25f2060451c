//! Every algorithm engine to engine, and additional key exchanges as initiator (RFC 9370).

use std::time::Duration;

use gateway_ike::crypto::{Encryption, KeyExchangeMethod};
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::proposal::{AdditionalKes, EspProposal, IkeProposal};
use gateway_ike::wire::{ExchangeType, Message, messages};

use super::link::{Link, order};

fn link(seed: u64, ike: &str, esp: &str) -> Link {
    let (ike, esp) = (IkeProposal::parse(ike), EspProposal::parse(esp));
    let (ike, esp) = (ike.unwrap(), esp.unwrap());
    Link::tweaked(seed, |_, connection, child| {
        connection.proposals = ike.clone();
        child.esp_proposals = esp.clone();
    })
}

#[test]
fn every_encryption_and_every_group() {
    let kes = KeyExchangeMethod::ALL.into_iter().cycle();
    for (seed, (encryption, ke)) in (0..).zip(Encryption::all().zip(kes)) {
        let esp = EspProposal {
            encryption,
            ke: None,
            additional: AdditionalKes::NONE,
            esn: seed % 2 == 0,
        };
        let cipher = EspProposal { esn: false, ..esp }.to_string();
        let ke = EspProposal {
            ke: Some(ke),
            esn: false,
            ..esp
        };
        let suffix = ke.to_string().split_off(cipher.len());
        let ike = format!("{cipher}-prfsha512{suffix}");
        let mut link = link(seed, &ike, &esp.to_string());
        link.initiate(0);
        link.assert_one_tunnel();
        let [a, b] = [0, 1].map(|side| link.sides[side].endpoint.sas().next().unwrap());
        assert_eq!(a.proposal, b.proposal);
    }
}

const HYBRID: &str = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768-ke2_mlkem1024-ke7_x25519";

#[test]
fn additional_key_exchanges_come_before_ike_auth() {
    let mut link = link(1, HYBRID, "aes256gcm16");
    let mut sent = Vec::new();
    link.order(0, order());
    link.run_with(&mut |side, transmit| {
        let first = messages(&transmit.bytes).next().unwrap();
        let header = *Message::parse(first).unwrap().header();
        sent.push((side, header.exchange, header.message_id));
        Some(transmit.bytes.clone())
    });
    link.assert_one_tunnel();
    // Those of ML-KEM-768 on are sent in fragments.
    sent.dedup();
    let kinds = [
        ExchangeType::IKE_SA_INIT,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType::IKE_AUTH,
    ];
    let expected: Vec<_> = (0..)
        .zip(kinds)
        .flat_map(|(id, kind)| [(0, kind, id), (1, kind, id)])
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn lost_datagrams_of_additional_key_exchanges_are_sent_again() {
    for lost in 0..10 {
        let mut link = link(20 + lost, HYBRID, "aes256gcm16");
        let mut count = 0;
        link.order(0, order());
        let mut tap = |_: usize, transmit: &gateway_ike::output::Transmit| {
            count += 1;
            (count != lost + 1).then(|| transmit.bytes.clone())
        };
        link.run_with(&mut tap);
        link.pass(Duration::from_secs(6), &mut tap);
        link.assert_one_tunnel();
    }
}

/// RFC 9370 §2.2.1: NONE among the alternatives lets peers without ML-KEM in.
#[test]
fn an_optional_additional_key_exchange() {
    let optional = "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none";
    for (theirs, expected) in [
        (
            optional,
            "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768",
        ),
        (
            "aes128gcm16-prfsha256-x25519",
            "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519",
        ),
    ] {
        let suites = [optional, theirs].map(|text| IkeProposal::parse(text).unwrap());
        for initiator in 0..2 {
            let mut link = Link::tweaked(3, |side, connection, _| {
                connection.proposals = suites[side].clone();
            });
            link.initiate(initiator);
            link.assert_one_tunnel();
            let sa = link.sides[0].endpoint.sas().next().unwrap();
            assert_eq!(sa.proposal, expected);
        }
    }
}

/// RFC 9370 §2.2.4: IKE_FOLLOWUP_KE, for the IKE SA and its CHILD_SA.
#[test]
fn rekeying_has_additional_key_exchanges_as_well() {
    for side in 0..2 {
        let mut link = link(50, HYBRID, "aes256gcm16-x25519-ke1_mlkem512");
        link.initiate(0);
        let before = link.sides[side].endpoint.sas().next().unwrap();
        let targets = [
            Target::Child(before.children[0].spi_in),
            Target::Ike(before.local_spi),
        ];
        let mut follow_ups = Vec::new();
        for target in targets {
            let gateway = &mut link.sides[side];
            gateway
                .endpoint
                .handle_command(gateway.now, Command::Rekey(target));
            let mut requests = std::collections::BTreeSet::new();
            link.run_with(&mut |_, transmit| {
                let first = messages(&transmit.bytes).next().unwrap();
                let header = *Message::parse(first).unwrap().header();
                if header.exchange == ExchangeType::IKE_FOLLOWUP_KE && !header.response {
                    requests.insert(header.message_id);
                }
                Some(transmit.bytes.clone())
            });
            follow_ups.push(requests.len());
        }
        assert_eq!(follow_ups, [1, 3]);
        assert_eq!([link.count(0), link.count(1)], [(1, 1); 2]);
        let after = link.sides[side].endpoint.sas().next().unwrap();
        assert_ne!(after.local_spi, before.local_spi);
        assert_ne!(after.children[0].spi_in, before.children[0].spi_in);
        assert_eq!(after.proposal, before.proposal);
    }
}
