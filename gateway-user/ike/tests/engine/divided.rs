//! Two members that serve the same IKE SA, because the cluster is divided.

use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::output::Transmit;
use gateway_ike::wire::{ExchangeType, HeaderRepr, Message, MessageBuilder};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::Initiator;
use crate::takeover::{ordered, transfer};

fn header(sent: &[Transmit]) -> HeaderRepr {
    *Message::parse(&sent[0].bytes).unwrap().header()
}

/// The two halves of a cluster, and the peer of the IKE SA that both have.
fn halves(seed: u64) -> (Gateway, Gateway, Initiator) {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(seed);
    peer.connect(&mut first).unwrap();
    let mut config = config();
    config.member = MemberId::new(6).unwrap();
    let mut second = Gateway::seeded(config, 106);
    ordered(&mut second, Command::Import(transfer(&first)));
    for half in [&mut first, &mut second] {
        ordered(half, Command::SetDivided(true));
    }
    (first, second, peer)
}

/// The other half has asked for something else under the same Message ID.
#[test]
fn an_answer_to_the_other_half_costs_no_ike_sa() {
    for divided in [false, true] {
        let (mut first, _, mut peer) = halves(180);
        ordered(&mut first, Command::SetDivided(divided));
        let spi = first.endpoint.sas().next().unwrap().children[0].spi_in;
        let sent = ordered(&mut first, Command::Rekey(Target::Child(spi)));
        let request = header(&sent);
        assert_eq!(request.exchange, ExchangeType::CREATE_CHILD_SA);
        let other = HeaderRepr {
            exchange: ExchangeType::INFORMATIONAL,
            ..request
        };
        let answer = peer.seal(MessageBuilder::new(other.to_response()));
        first.receive(peer.path, &answer);
        assert_eq!(transfer(&first).closing, !divided);
        if divided {
            let sent = first.advance(Duration::from_secs(60));
            assert_eq!(header(&sent).message_id, 1);
            assert_eq!(first.endpoint.sas().count(), 1);
        }
    }
}

/// The halves have met: Message IDs go on behind what the other one has used, and what that one had asked
/// for last is sent once more, since nobody knows whether the peer has it.
#[test]
fn message_ids_go_on_behind_those_of_the_other_half() {
    for answered in [false, true] {
        let (mut first, mut second, mut peer) = halves(181);
        let local_spi = peer.spi_r;
        let asked = ordered(&mut second, Command::Liveness { local_spi });
        let answer = peer.seal(MessageBuilder::new(header(&asked).to_response()));
        if answered {
            second.receive(peer.path, &answer);
        }
        // A request of the peer's came there, too.
        let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
        let response = second.exchange(peer.path, &request);
        ordered(&mut first, Command::Reconcile(transfer(&second)));
        assert_eq!(first.exchange(peer.path, &request), response);
        peer.is_alive(&mut first);
        let again = first.advance(Duration::from_millis(1));
        let octets: Vec<_> = again.iter().map(|sent| &sent.bytes).collect();
        if answered {
            assert!(octets.is_empty());
        } else {
            assert_eq!(octets, [&asked[0].bytes]);
            first.receive(peer.path, &answer);
        }
        let next = ordered(&mut first, Command::Liveness { local_spi });
        assert_eq!(header(&next).message_id, 1, "answered: {answered}");
    }
}

/// What the peer has deleted at the other half is over.
#[test]
fn what_the_peer_has_deleted_at_the_other_half_is_over() {
    let (mut first, second, _) = halves(182);
    let mut closed = transfer(&first);
    closed.closed = Some(Duration::from_secs(4));
    drop(second);
    let sent = ordered(&mut first, Command::Reconcile(closed));
    assert!(sent.is_empty());
    assert_eq!(first.endpoint.sas().count(), 0);
}
