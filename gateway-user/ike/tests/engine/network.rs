//! A peer behind a network that loses, doubles and reorders, in both directions.

use gateway_ike::wire::{DeleteRepr, ExchangeType, Payload};
use proptest::prelude::*;

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::Initiator;

/// Decides on every datagram, reproducibly.
struct Weather {
    state: u64,
    loss: u64,
    doubling: u64,
}

impl Weather {
    fn next(&mut self) -> u64 {
        // A linear congruential generator is random enough for weather.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Sends `request` until an answer gets through. What was sent earlier may come again, in any
/// order, between the attempts.
fn persist(
    gateway: &mut Gateway,
    peer: &Initiator,
    weather: &mut Weather,
    history: &mut Vec<Vec<u8>>,
    request: &[u8],
) -> Vec<u8> {
    history.push(request.to_vec());
    for _ in 0..1000 {
        let mut arriving = Vec::new();
        if !weather.chance(weather.loss) {
            arriving.push(request.to_vec());
        }
        while weather.chance(weather.doubling) {
            let old = usize::try_from(weather.next()).unwrap() % history.len();
            let place = usize::try_from(weather.next()).unwrap() % (arriving.len() + 1);
            arriving.insert(place, history[old].clone());
        }
        let mut answer = None;
        for datagram in arriving {
            let sent = gateway.receive(peer.path, &datagram);
            assert!(sent.len() <= 1);
            if datagram == request && !weather.chance(weather.loss) {
                answer = answer.or(sent.into_iter().next());
            }
        }
        if let Some(answer) = answer {
            return answer.bytes;
        }
    }
    panic!("no answer in a thousand attempts");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every exchange is processed once, and its answers are equal.
    #[test]
    fn exchanges_survive_any_weather(seed in any::<u64>(), loss in 0u64..70, doubling in 0u64..60) {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(seed);
        let mut weather = Weather { state: seed, loss, doubling };
        let mut history = Vec::new();
        let request = peer.init();
        let response = persist(&mut gateway, &peer, &mut weather, &mut history, &request);
        peer.take_init(&response);
        let request = peer.auth();
        let response = persist(&mut gateway, &peer, &mut weather, &mut history, &request);
        let child = peer.take_auth(&response).unwrap();
        peer.spi_in = [0xc0, 0, 0, 2];
        let request = peer.create_child(Some(child.spi_in), None, &[1; 32]);
        let response = persist(&mut gateway, &peer, &mut weather, &mut history, &request);
        prop_assert_eq!(peer.error(&response), None);
        for _ in 0..3 {
            let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
            persist(&mut gateway, &peer, &mut weather, &mut history, &request);
        }
        prop_assert_eq!(gateway.endpoint.sas().count(), 1);
        prop_assert_eq!(gateway.endpoint.child_sas(), 2);
        let delete = [Payload::Delete(DeleteRepr::ike())];
        let request = peer.request(ExchangeType::INFORMATIONAL, &delete);
        persist(&mut gateway, &peer, &mut weather, &mut history, &request);
        prop_assert_eq!(gateway.endpoint.sas().count(), 0);
        prop_assert_eq!(gateway.endpoint.half_open(), 0);
        prop_assert_eq!(gateway.installs().len(), 2);
        prop_assert_eq!(gateway.removals().len(), 2);
        let counters = gateway.endpoint.counters();
        prop_assert_eq!(counters.exchanges_processed, 7);
        prop_assert_eq!(counters.auth_requests, 1);
        prop_assert_eq!(counters.create_child_requests, 1);
        prop_assert_eq!(counters.informational_requests, 4);
    }
}
