//! Authentications that pause while somebody else decides.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{Authorization, Config, Connection};
use gateway_ike::output::{DecisionHandle, Output, Transmit, Verdict};
use gateway_ike::wire::{DeleteRepr, ExchangeType, NotifyType, Payload};

use crate::config::config;
use crate::gateway::{Gateway, Kernel};
use crate::initiator::Initiator;
use crate::pair::{Decisions, Order, Pair, Weather};

fn refuse(reason: &str) -> Verdict {
    Verdict::Refuse {
        reason: reason.to_owned(),
    }
}

fn authorized(connection: &mut Connection) {
    connection.auth.authorization = Some(Authorization {
        by: "the porter".to_owned(),
        patience: Duration::from_secs(10),
    });
}

pub(crate) fn careful() -> Config {
    let mut config = config();
    authorized(Arc::make_mut(&mut config.connections[0]));
    config
}

/// A peer whose IKE_AUTH waits for a decision, and its request.
pub(crate) fn waiting(gateway: &mut Gateway, peer: &mut Initiator) -> (Vec<u8>, DecisionHandle) {
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let request = peer.auth();
    let from = gateway.log.len();
    gateway.ignores(peer.path, &request);
    assert_eq!(gateway.order(from), ["decide"]);
    let handle = gateway.questions().last().unwrap().handle;
    (request, handle)
}

fn only(mut sent: Vec<Transmit>) -> Vec<u8> {
    assert_eq!(sent.len(), 1);
    sent.pop().unwrap().bytes
}

#[test]
fn a_peer_is_answered_when_it_is_let_in_and_not_before() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4000);
    let (request, handle) = waiting(&mut gateway, &mut peer);
    let question = gateway.questions()[0];
    assert_eq!(question.authorization.by, "the porter");
    assert_eq!(question.connection, "site");
    assert_eq!(question.remote_id, "peer.example.org");
    assert_eq!(question.local_id, "gw.example.org");
    assert_eq!(question.path, peer.path);
    // Nothing is there yet, and the same request asks no second time.
    assert_eq!(
        (gateway.endpoint.half_open(), gateway.endpoint.child_sas()),
        (1, 0)
    );
    assert_eq!(gateway.endpoint.sas().count(), 0);
    gateway.ignores(peer.path, &request);
    let init = peer.init_request.clone();
    gateway.ignores(peer.path, &init);
    assert_eq!(gateway.questions().len(), 1);
    assert_eq!(gateway.endpoint.counters().retransmissions_dropped, 2);

    gateway.advance(Duration::from_secs(9));
    let from = gateway.log.len();
    let answer = only(gateway.decide(handle, Verdict::Accept));
    assert_eq!(
        gateway.order(from),
        [
            "install",
            "event",
            "event",
            "delta 2 upsert",
            "transmit after 2"
        ]
    );
    peer.take_auth(&answer).unwrap();
    assert_eq!(gateway.exchange(peer.path, &request), answer);
    assert_eq!(
        (gateway.endpoint.half_open(), gateway.endpoint.child_sas()),
        (0, 1)
    );
    // The IKE SA lives as any other.
    let delete = [Payload::Delete(DeleteRepr::ike())];
    let bytes = peer.request(ExchangeType::INFORMATIONAL, &delete);
    gateway.exchange(peer.path, &bytes);
    assert_eq!(gateway.endpoint.sas().count(), 0);
}

#[test]
fn who_is_not_let_in_is_told_so_and_nothing_else() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4001);
    let (request, handle) = waiting(&mut gateway, &mut peer);
    let from = gateway.log.len();
    let answer = only(gateway.decide(handle, refuse("its contract has ended")));
    assert_eq!(gateway.order(from), ["event", "delta 2 closed", "transmit"]);
    let error = Some((NotifyType::AUTHENTICATION_FAILED, Vec::new()));
    assert_eq!(peer.error(&answer), error);
    assert_eq!(
        gateway.complaints(),
        [
            "IKE_AUTH: authentication failed: peer.example.org proved who it is and is not let in, \
          by the porter: its contract has ended"
        ]
    );
    let named = gateway.log.iter().any(|output| {
        matches!(output, Output::Event(event) if event.connection.as_deref() == Some("site"))
    });
    assert!(named, "the line says which connection");
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert!(gateway.installs().is_empty());
    // It may have been lost.
    assert_eq!(gateway.exchange(peer.path, &request), answer);
    assert_eq!(gateway.endpoint.counters().decisions_refused, 1);
}

#[test]
fn decisions_that_nobody_waits_for_are_counted() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4002);
    let (_, handle) = waiting(&mut gateway, &mut peer);
    let mut ignored = 0;
    let mut ignores = |gateway: &mut Gateway, handle: DecisionHandle, verdict: Verdict| {
        let from = gateway.log.len();
        assert!(gateway.decide(handle, verdict).is_empty());
        assert!(gateway.order(from).is_empty());
        ignored += 1;
        assert_eq!(gateway.endpoint.counters().decisions_ignored, ignored);
    };
    let other = DecisionHandle {
        message_id: handle.message_id + 1,
        ..handle
    };
    ignores(&mut gateway, other, Verdict::Accept);
    let nobody = DecisionHandle {
        local_spi: [9; 8],
        ..handle
    };
    ignores(&mut gateway, nobody, refuse("?"));
    only(gateway.decide(handle, Verdict::Accept));
    ignores(&mut gateway, handle, Verdict::Accept);
    ignores(&mut gateway, handle, refuse("second thoughts"));
    assert_eq!(gateway.endpoint.sas().count(), 1);
}

/// Nobody decides: after as long as a negotiation may be open the peer is refused, in one line.
#[test]
fn a_decision_that_does_not_come_is_a_refusal() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4003);
    let (request, handle) = waiting(&mut gateway, &mut peer);
    assert!(gateway.advance(Duration::from_secs(29)).is_empty());
    let answer = only(gateway.advance(Duration::from_secs(1)));
    let error = Some((NotifyType::AUTHENTICATION_FAILED, Vec::new()));
    assert_eq!(peer.error(&answer), error);
    let complaints = gateway.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].contains("by the porter: no decision in time"),
        "{complaints:?}"
    );
    let counters = *gateway.endpoint.counters();
    assert_eq!(
        (counters.decisions_overdue, counters.half_open_timeouts),
        (1, 0)
    );
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.exchange(peer.path, &request), answer);
    assert!(gateway.decide(handle, Verdict::Accept).is_empty());
    assert_eq!(gateway.endpoint.sas().count(), 0);
    gateway.advance(Duration::from_secs(60));
    assert_eq!(gateway.endpoint.poll_timeout(), None);
}

#[test]
fn who_waits_is_half_open() {
    let mut config = careful();
    config.limits.half_open_limit_per_source = 3;
    let mut gateway = Gateway::new(config);
    let mut handles = Vec::new();
    for number in 0..3 {
        handles.push(waiting(&mut gateway, &mut Initiator::new(4010 + number)).1);
    }
    let mut fourth = Initiator::new(4013);
    let init = fourth.init();
    gateway.ignores(fourth.path, &init);
    assert_eq!(gateway.endpoint.counters().dropped_half_open_limit, 1);
    only(gateway.decide(handles[1], refuse("one too many")));
    waiting(&mut gateway, &mut fourth);
    assert_eq!(gateway.endpoint.half_open(), 3);
}

#[test]
fn the_kernel_has_its_say_after_the_decision() {
    let mut gateway = Gateway::new(careful());
    gateway.kernel = Kernel::Refuses;
    let mut peer = Initiator::new(4020);
    let (_, handle) = waiting(&mut gateway, &mut peer);
    only(gateway.decide(handle, Verdict::Accept));
    assert_eq!(
        (gateway.endpoint.sas().count(), gateway.endpoint.child_sas()),
        (1, 0)
    );
    let complaint = &gateway.complaints()[0];
    assert!(
        complaint.contains("the kernel did not install"),
        "{complaint}"
    );
}

/// Who cannot prove anything costs nobody a question.
#[test]
fn nobody_is_asked_about_strangers() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4021);
    peer.psk = b"wrong".to_vec();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let request = peer.auth();
    gateway.exchange(peer.path, &request);
    assert!(gateway.questions().is_empty());
}

#[test]
fn what_waits_can_be_given_up() {
    let mut gateway = Gateway::new(careful());
    let mut peer = Initiator::new(4022);
    let (request, handle) = waiting(&mut gateway, &mut peer);
    let abort = gateway_ike::endpoint::Command::Abort {
        local_spi: handle.local_spi,
    };
    gateway.endpoint.handle_command(gateway.now, abort);
    assert!(gateway.drain().is_empty());
    gateway.ignores(peer.path, &request);
    assert!(gateway.decide(handle, Verdict::Accept).is_empty());
    assert_eq!(gateway.endpoint.half_open(), 0);
}

fn pair(seed: u64) -> Pair {
    Pair::unconnected(seed, |_, connection, _| {
        connection.dpd_delay = Duration::from_secs(5);
        authorized(connection);
    })
}

const MINUTES: Duration = Duration::from_secs(300);

/// Loss, copies, reordering; deciders that are slower than the retransmissions, refuse now and then,
/// or never answer. Whoever is to be up comes up in the end.
#[test]
fn decisions_in_a_storm() {
    for seed in 0..200 {
        let mut pair = pair(0x6000 + seed);
        pair.weather = Weather::STORM;
        pair.decisions = Decisions {
            delay_ms: 2500,
            refused: 20,
            unanswered: 10,
        };
        pair.order_now(0, Order::Initiate { persistent: true });
        pair.settle(MINUTES);
        pair.assert_well(&format!("seed {seed}"));
    }
}

/// A member dies at each point of a handshake that pauses: before, while and after somebody decides.
#[test]
fn a_kill_at_each_point_of_a_decision() {
    let run = |side: usize, death: Option<u64>| {
        let mut pair = pair(0x7000);
        pair.decisions = Decisions {
            delay_ms: 700,
            ..pair.decisions
        };
        pair.sides[side].starts = true;
        pair.deaths.extend(death);
        pair.order_now(side, Order::Initiate { persistent: true });
        pair.settle(Duration::from_secs(3));
        let points = pair.points;
        pair.settle(2 * MINUTES);
        pair.assert_well(&format!("begun by {side}, death at {death:?}"));
        points
    };
    for side in 0..2 {
        let points = run(side, None);
        assert!(points > 10, "{points}");
        for death in 1..=points {
            run(side, Some(death));
        }
    }
}

/// With the member that asked dies what was asked: a late answer opens nothing at its successor.
#[test]
fn the_question_of_a_dead_member_is_nobodys() {
    let mut pair = pair(0x7100);
    pair.decisions = Decisions {
        delay_ms: 1000,
        ..pair.decisions
    };
    pair.order_now(0, Order::Initiate { persistent: false });
    pair.settle(Duration::from_millis(20));
    let side = &mut pair.sides[1];
    assert_eq!(side.endpoint.counters().decisions_asked, 1);
    assert_eq!((side.spis().len(), side.endpoint.half_open()), (0, 1));
    side.take_over(pair.now);
    pair.settle(Duration::from_secs(2));
    let side = &pair.sides[1];
    assert!(side.endpoint.counters().decisions_ignored >= 1);
    assert_eq!((side.spis().len(), side.endpoint.half_open()), (0, 0));
}
