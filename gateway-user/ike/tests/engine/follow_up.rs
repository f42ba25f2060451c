//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4): additional key exchanges after CREATE_CHILD_SA, with a peer
//! that can also misbehave. Loss, collisions and takeovers are in [`crate::collisions`] and
//! [`crate::kill`].

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use gateway_ike::config::Config;
use gateway_ike::crypto::{CryptoProvider, KeyExchange, KeyExchangeMethod};
use gateway_ike::endpoint::{Command, InitiateOrder, Target};
use gateway_ike::output::Transmit;
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::record::IkeSaRecord;
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::{
    ExchangeType, HeaderRepr, KeRepr, Message, MessageBuilder, NonceRepr, NotifyRepr, NotifyType,
    Payload, SaRepr,
};

use crate::config::config;
use crate::gateway::{Gateway, Kernel};
use crate::initiator::{Initiator, MyChild};
use crate::pair::Pair;

const NONCE: [u8; 32] = [0x5a; 32];
const ESP: &str = "aes256gcm16-x25519-ke1_mlkem512-ke4_ecp256";
const IKE: &str = "aes128gcm16-prfsha256-x25519-ke2_mlkem512-ke7_ecp256";
const METHODS: [KeyExchangeMethod; 2] = [KeyExchangeMethod::MlKem512, KeyExchangeMethod::Ecp256];
const ADDITIONAL: NotifyType = NotifyType::ADDITIONAL_KEY_EXCHANGE;

fn hybrid() -> Config {
    let mut config = config();
    let mut connection = (*config.connections[0]).clone();
    let mut child = (*connection.children[0]).clone();
    child.esp_proposals = EspProposal::parse(ESP).unwrap();
    connection.children = vec![Arc::new(child)];
    connection
        .proposals
        .extend(IkeProposal::parse(IKE).unwrap());
    config.connections = vec![Arc::new(connection)];
    config.limits.follow_ups_per_ike_sa = 3;
    config
}

fn established(seed: u64) -> (Gateway, Initiator, MyChild) {
    let mut gateway = Gateway::new(hybrid());
    let mut peer = Initiator::new(seed);
    peer.esp = EspProposal::parse(ESP).unwrap();
    let child = peer.connect(&mut gateway).unwrap();
    (gateway, peer, child)
}

/// A series of exchanges from the peer's side.
struct Series {
    /// The answer to CREATE_CHILD_SA.
    answer: Vec<u8>,
    nonce_r: Vec<u8>,
    shared: Vec<SecretBytes>,
    link: Option<Vec<u8>>,
}

impl Series {
    fn take(&mut self, peer: &Initiator, response: &[u8], ke: &dyn KeyExchange) {
        let opened = peer.open(response);
        let payloads = opened.payloads().unwrap();
        assert_eq!(payloads.error_notify(), None);
        let theirs = payloads.require_ke().unwrap();
        assert_eq!(theirs.method, ke.method().transform_id());
        self.shared.push(ke.agree(theirs.data).unwrap());
        let link = payloads.notify(ADDITIONAL).map(|n| n.data.to_vec());
        assert!(link.is_none() || link != self.link, "each has its own link");
        self.link = link;
    }

    fn begin(
        gateway: &mut Gateway,
        peer: &Initiator,
        request: &[u8],
        ke: &dyn KeyExchange,
    ) -> Self {
        let answer = gateway.exchange(peer.path, request);
        let opened = peer.open(&answer);
        let nonce_r = opened.payloads().unwrap().require_nonce().unwrap().data;
        let mut series = Self {
            nonce_r: nonce_r.to_vec(),
            answer: answer.clone(),
            shared: Vec::new(),
            link: None,
        };
        series.take(peer, &answer, ke);
        series
    }

    fn go_on(&mut self, gateway: &mut Gateway, peer: &mut Initiator, method: KeyExchangeMethod) {
        let ke = peer.crypto.key_exchange(method).unwrap();
        let request = follow_up(peer, &*ke, self.link.as_deref());
        let response = gateway.exchange(peer.path, &request);
        self.take(peer, &response, &*ke);
    }
}

/// One additional key exchange.
fn follow_up(peer: &mut Initiator, ke: &dyn KeyExchange, link: Option<&[u8]>) -> Vec<u8> {
    let mut payloads = vec![Payload::Ke(KeRepr {
        method: ke.method().transform_id(),
        data: ke.public_value(),
    })];
    payloads.extend(link.map(|link| Payload::Notify(NotifyRepr::new(ADDITIONAL, link))));
    peer.request(ExchangeType::IKE_FOLLOWUP_KE, &payloads)
}

/// CREATE_CHILD_SA for a CHILD_SA with inbound SPI `spi` at the peer.
fn create(
    gateway: &mut Gateway,
    peer: &mut Initiator,
    spi: [u8; 4],
    rekeys: Option<[u8; 4]>,
) -> Series {
    peer.spi_in = spi;
    let ke = peer.crypto.key_exchange(KeyExchangeMethod::X25519).unwrap();
    let request = peer.create_child(rekeys, Some(&*ke), &NONCE);
    Series::begin(gateway, peer, &request, &*ke)
}

/// What a follow-up with a link is answered.
fn error(gateway: &mut Gateway, peer: &mut Initiator, link: Option<&[u8]>) -> NotifyType {
    let ke = peer.crypto.key_exchange(METHODS[0]).unwrap();
    let request = follow_up(peer, &*ke, link);
    let response = gateway.exchange(peer.path, &request);
    peer.error(&response).unwrap().0
}

/// prf+ with HMAC-SHA-256, written for this test.
fn prf_plus(key: &[u8], seed: &[u8], len: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let (mut out, mut last) = (Vec::new(), Vec::new());
    for counter in 1..=u8::MAX {
        let input = [&last, seed, &[counter]].concat();
        last = hmac::sign(&key, &input).as_ref().to_vec();
        out.extend_from_slice(&last);
    }
    out.truncate(len);
    out
}

/// KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1) | SK(2)), the initiator's key first.
fn same_keys(gateway: &Gateway, peer: &Initiator, series: &Series) {
    let [sk0, sk1, sk2] = [0, 1, 2].map(|at| series.shared[at].expose());
    let seed = [sk0, &NONCE, &series.nonce_r, sk1, sk2].concat();
    let keymat = prf_plus(peer.keys.as_ref().unwrap().d.expose(), &seed, 72);
    let installs = gateway.installs();
    let (sa, _) = installs.last().unwrap();
    assert_eq!(sa.spi_out, peer.spi_in);
    assert_eq!([sa.key_in.expose(), sa.key_out.expose()].concat(), keymat);
}

fn record(gateway: &Gateway) -> IkeSaRecord {
    gateway.endpoint.export(gateway.now).next().unwrap()
}

#[test]
fn a_child_sa_is_made_by_the_last_of_them() {
    for rekeys in [false, true] {
        let (mut gateway, mut peer, old) = established(1);
        let from = gateway.log.len();
        let spi = rekeys.then_some(old.spi_in);
        let mut series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], spi);
        let opened = peer.open(&series.answer);
        let payloads = opened.payloads().unwrap();
        let notify = payloads.notify(ADDITIONAL).unwrap();
        // RFC 9370 §2.2.4: "the Protocol ID and SPI Size are both set to 0".
        assert_eq!((notify.protocol.0, notify.spi), (0, &[][..]));
        for method in METHODS {
            assert_eq!(gateway.installs().len(), 1);
            assert!(series.link.is_some());
            series.go_on(&mut gateway, &mut peer, method);
        }
        assert_eq!(series.link, None);
        same_keys(&gateway, &peer, &series);
        let order = gateway.order(from).into_iter().filter(|w| w != "event");
        // Each answer waits for the record of what it says.
        assert_eq!(
            order.collect::<Vec<_>>(),
            [
                "delta 3 upsert",
                "transmit after 3",
                "delta 4 upsert",
                "transmit after 4",
                "install",
                "delta 5 upsert",
                "transmit after 5"
            ]
        );
        let replaces = gateway.installs()[1].1.map(|old| old.spi_in);
        assert_eq!(replaces, rekeys.then_some(old.spi_out));
        assert_eq!(record(&gateway).follow_ups, []);
        assert_eq!(gateway.endpoint.counters().followup_ke_requests, 2);
        // The last answer goes out again as it is, and nothing is waited for.
        gateway.advance(Duration::from_secs(60));
        assert_eq!(gateway.endpoint.child_sas(), 2);
    }
}

#[test]
fn an_ike_sa_is_rekeyed_by_the_last_of_them() {
    let (mut gateway, mut peer, _) = established(2);
    let suite = IkeProposal::parse(IKE).unwrap()[0];
    let ke = peer.crypto.key_exchange(suite.ke).unwrap();
    let spi = [9, 8, 7, 6, 5, 4, 3, 2];
    let payloads = [
        Payload::Sa(SaRepr {
            proposals: vec![suite.to_wire(1, &spi)],
        }),
        Payload::Nonce(NonceRepr { data: &NONCE }),
        Payload::Ke(KeRepr {
            method: 31,
            data: ke.public_value(),
        }),
    ];
    let request = peer.request(ExchangeType::CREATE_CHILD_SA, &payloads);
    let mut series = Series::begin(&mut gateway, &peer, &request, &*ke);
    assert_eq!(gateway.endpoint.sas().count(), 1);
    // Until then no CHILD_SA is made (RFC 7296 §2.25.2).
    let ke = peer.crypto.key_exchange(KeyExchangeMethod::X25519).unwrap();
    let request = peer.create_child(None, Some(&*ke), &NONCE);
    let response = gateway.exchange(peer.path, &request);
    let refused = peer.error(&response).unwrap().0;
    assert_eq!(refused, NotifyType::TEMPORARY_FAILURE);
    for method in METHODS {
        series.go_on(&mut gateway, &mut peer, method);
    }
    let opened = peer.open(&series.answer);
    let payloads = opened.payloads().unwrap();
    let spi_r = payloads.require_sa().unwrap().proposals[0].ike_spi();
    let (spis, nonces) = ((spi, spi_r.unwrap()), (&NONCE[..], &*series.nonce_r));
    let mut successor = peer.rekeyed(spis, nonces, &series.shared, suite);
    successor.is_alive(&mut gateway);
    assert_eq!(gateway.endpoint.sas().count(), 2);
    let sa = gateway.endpoint.sa(successor.spi_r).unwrap();
    assert_eq!((sa.children.len(), sa.proposal), (1, suite.iana()));
}

#[test]
fn what_belongs_to_nothing_is_not_found() {
    let (mut gateway, mut peer, _) = established(3);
    let not_found = NotifyType::STATE_NOT_FOUND;
    assert_eq!(error(&mut gateway, &mut peer, Some(&[1; 8])), not_found);
    let mut series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], None);
    let link = series.link.clone().unwrap();
    let mut garbled = link.clone();
    garbled[3] ^= 1;
    for wrong in [None, Some(&[][..]), Some(&garbled), Some(&link[1..])] {
        assert_eq!(error(&mut gateway, &mut peer, wrong), not_found);
    }
    // Not fatal; and the right one goes on. Then its link is used up.
    series.go_on(&mut gateway, &mut peer, METHODS[0]);
    assert_eq!(error(&mut gateway, &mut peer, Some(&link)), not_found);
    series.go_on(&mut gateway, &mut peer, METHODS[1]);
    same_keys(&gateway, &peer, &series);
    assert_eq!(error(&mut gateway, &mut peer, Some(&link)), not_found);
    peer.is_alive(&mut gateway);
}

#[test]
fn an_abandoned_series_is_forgotten() {
    let (mut gateway, mut peer, old) = established(4);
    let spi = [0xc0, 0, 0, 9];
    let series = create(&mut gateway, &mut peer, spi, Some(old.spi_in));
    assert_eq!(gateway.endpoint.child_sas(), 2);
    gateway.advance(Duration::from_secs(19));
    assert_eq!(record(&gateway).follow_ups.len(), 1);
    gateway.advance(Duration::from_secs(2));
    assert_eq!(gateway.endpoint.child_sas(), 1);
    assert_eq!(record(&gateway).follow_ups, []);
    assert_eq!(gateway.last_record().1.follow_ups, [], "the replicas know");
    let said = gateway.complaints();
    assert!(
        said.iter().any(|text| text.contains("has not gone on")),
        "{said:?}"
    );
    let link = series.link.as_deref();
    assert_eq!(
        error(&mut gateway, &mut peer, link),
        NotifyType::STATE_NOT_FOUND
    );
    // It can be begun again.
    let mut series = create(&mut gateway, &mut peer, spi, Some(old.spi_in));
    for method in METHODS {
        gateway.advance(Duration::from_secs(19));
        series.go_on(&mut gateway, &mut peer, method);
    }
    same_keys(&gateway, &peer, &series);
}

/// A takeover does not give more time.
#[test]
fn the_time_goes_on_in_a_replica() {
    let (mut gateway, mut peer, _) = established(5);
    let series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], None);
    let mut record = record(&gateway);
    record.grow_older(Duration::from_secs(15));
    let record = IkeSaRecord::decode(record.encode().expose()).unwrap();
    let mut other = Gateway::seeded(hybrid(), 6);
    let import = Command::Import(Box::new(record));
    other.endpoint.handle_command(other.now, import);
    assert_eq!(other.endpoint.child_sas(), 2, "its SPI is not given away");
    other.advance(Duration::from_secs(6));
    assert_eq!(other.endpoint.child_sas(), 1);
    let link = series.link.as_deref();
    assert_eq!(
        error(&mut other, &mut peer, link),
        NotifyType::STATE_NOT_FOUND
    );
}

/// RFC 9370 §2.2.4: that is what the link is for.
#[test]
fn series_can_be_interleaved_up_to_a_limit() {
    let (mut gateway, mut peer, _) = established(7);
    let spi = |number| [0xc0, 0, 0, number];
    let mut all: Vec<_> = (1..=3)
        .map(|number| create(&mut gateway, &mut peer, spi(number), None))
        .collect();
    let ke = peer.crypto.key_exchange(KeyExchangeMethod::X25519).unwrap();
    let request = peer.create_child(None, Some(&*ke), &NONCE);
    let response = gateway.exchange(peer.path, &request);
    let refused = peer.error(&response).unwrap().0;
    assert_eq!(refused, NotifyType::TEMPORARY_FAILURE);
    for method in METHODS {
        for (number, series) in (1..).zip(&mut all) {
            peer.spi_in = spi(number);
            series.go_on(&mut gateway, &mut peer, method);
        }
    }
    for (series, (sa, _)) in all.iter().zip(&gateway.installs()[1..]) {
        let [sk0, sk1, sk2] = [0, 1, 2].map(|at| series.shared[at].expose());
        let seed = [sk0, &NONCE, &series.nonce_r, sk1, sk2].concat();
        let keymat = prf_plus(peer.keys.as_ref().unwrap().d.expose(), &seed, 72);
        assert_eq!([sa.key_in.expose(), sa.key_out.expose()].concat(), keymat);
    }
    assert_eq!(gateway.endpoint.child_sas(), 4);
}

#[test]
fn a_new_attempt_takes_the_place_of_an_abandoned_one() {
    let (mut gateway, mut peer, old) = established(8);
    let first = create(&mut gateway, &mut peer, [0xc0, 0, 0, 8], Some(old.spi_in));
    let mut second = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], Some(old.spi_in));
    assert_eq!(record(&gateway).follow_ups.len(), 1);
    let link = first.link.as_deref();
    assert_eq!(
        error(&mut gateway, &mut peer, link),
        NotifyType::STATE_NOT_FOUND
    );
    for method in METHODS {
        second.go_on(&mut gateway, &mut peer, method);
    }
    same_keys(&gateway, &peer, &second);
}

/// As everywhere, malformed requests are fatal (RFC 7296 §2.21.3).
#[test]
fn another_method_or_none_is_malformed() {
    for method in [Some(KeyExchangeMethod::MlKem768), None] {
        let (mut gateway, mut peer, _) = established(9);
        let series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], None);
        let link = NotifyRepr::new(ADDITIONAL, series.link.as_deref().unwrap());
        let request = match method {
            Some(method) => {
                let ke = peer.crypto.key_exchange(method).unwrap();
                follow_up(&mut peer, &*ke, series.link.as_deref())
            }
            None => peer.request(ExchangeType::IKE_FOLLOWUP_KE, &[Payload::Notify(link)]),
        };
        let response = gateway.exchange(peer.path, &request);
        let refused = peer.error(&response).unwrap().0;
        assert_eq!(refused, NotifyType::INVALID_SYNTAX);
        assert_eq!(gateway.endpoint.sas().count(), 0);
        assert_eq!(gateway.endpoint.child_sas(), 0, "no SPI is left over");
        assert!(gateway.last_record().1.follow_ups.is_empty());
    }
}

#[test]
fn a_kernel_that_refuses_ends_the_series() {
    let (mut gateway, mut peer, _) = established(10);
    let mut series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], None);
    series.go_on(&mut gateway, &mut peer, METHODS[0]);
    gateway.kernel = Kernel::Refuses;
    let ke = peer.crypto.key_exchange(METHODS[1]).unwrap();
    let request = follow_up(&mut peer, &*ke, series.link.as_deref());
    let response = gateway.exchange(peer.path, &request);
    let refused = peer.error(&response).unwrap().0;
    assert_eq!(refused, NotifyType::TEMPORARY_FAILURE);
    assert_eq!(gateway.endpoint.child_sas(), 1);
    assert_eq!(record(&gateway).follow_ups, []);
    peer.is_alive(&mut gateway);
}

/// The kernel takes longer than the peer may take.
#[test]
fn a_series_that_the_kernel_ends_is_not_overdue() {
    let (mut gateway, mut peer, _) = established(11);
    let mut series = create(&mut gateway, &mut peer, [0xc0, 0, 0, 9], None);
    series.go_on(&mut gateway, &mut peer, METHODS[0]);
    gateway.advance(Duration::from_secs(19));
    gateway.kernel = Kernel::IsSilent;
    let ke = peer.crypto.key_exchange(METHODS[1]).unwrap();
    let request = follow_up(&mut peer, &*ke, series.link.as_deref());
    assert!(gateway.receive(peer.path, &request).is_empty());
    gateway.advance(Duration::from_secs(3));
    assert_eq!(
        record(&gateway).follow_ups.len(),
        1,
        "a replica answers anew"
    );
    let child = gateway.installs().last().unwrap().0.id();
    let installed = gateway_ike::output::KernelResult::Installed(child);
    let response = gateway.answer_kernel(installed).remove(0).bytes;
    series.take(&peer, &response, &*ke);
    same_keys(&gateway, &peer, &series);
    assert_eq!(record(&gateway).follow_ups, []);
}

/// The gateway asks for a successor of its child, and the peer answers CREATE_CHILD_SA with or
/// without a link. Returns what the gateway sends next.
fn asked(gateway: &mut Gateway, peer: &mut Initiator, link: Option<&[u8]>) -> Vec<Transmit> {
    let child = gateway.endpoint.sas().next().unwrap().children[0].spi_in;
    let rekey = Command::Rekey(Target::Child(child));
    gateway.endpoint.handle_command(gateway.now, rekey);
    let sent = gateway.drain();
    let opened = peer.open_request(&sent[0].bytes);
    let payloads = opened.payloads().unwrap();
    let ke = payloads.require_ke().unwrap();
    let method = KeyExchangeMethod::X25519;
    let answer = peer.crypto.answer_key_exchange(method, ke.data).unwrap();
    let suite = EspProposal::parse(ESP).unwrap()[0];
    let exchange = gateway_ike::proposal::EspExchange::CreateChildSa;
    let [ts_i, ts_r] = peer.selectors();
    let (Payload::TsInitiator(theirs), Payload::TsResponder(ours)) = (ts_i, ts_r) else {
        panic!();
    };
    let mut message = MessageBuilder::new(response_to(&sent[0].bytes));
    message
        .push(&Payload::Sa(SaRepr {
            proposals: vec![suite.to_wire(1, [0xc0, 0, 0, 77], exchange)],
        }))
        .push(&Payload::Nonce(NonceRepr { data: &NONCE }))
        .push(&Payload::Ke(KeRepr {
            method: method.transform_id(),
            data: &answer.public,
        }))
        .push(&Payload::TsInitiator(ours))
        .push(&Payload::TsResponder(theirs));
    if let Some(link) = link {
        message.push(&Payload::Notify(NotifyRepr::new(ADDITIONAL, link)));
    }
    let response = peer.seal(message);
    gateway.receive(peer.path, &response)
}

fn response_to(request: &[u8]) -> HeaderRepr {
    HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(request).unwrap().header()
    }
}

fn exchange_of(transmit: &Transmit) -> ExchangeType {
    Message::parse(&transmit.bytes).unwrap().header().exchange
}

#[test]
fn the_link_comes_back_intact() {
    for link in [&[][..], &[7], &[0x42; 300]] {
        let (mut gateway, mut peer, _) = established(12);
        let sent = asked(&mut gateway, &mut peer, Some(link));
        assert_eq!(exchange_of(&sent[0]), ExchangeType::IKE_FOLLOWUP_KE);
        assert!(sent[0].after.is_some());
        let opened = peer.open_request(&sent[0].bytes);
        let payloads = opened.payloads().unwrap();
        assert_eq!(payloads.require_ke().unwrap().method, 35);
        assert_eq!(payloads.notify(ADDITIONAL).unwrap().data, link);
        let outstanding = gateway.last_record().1.outstanding.clone().unwrap();
        assert_eq!(*outstanding.bytes, *sent[0].bytes);
    }
}

#[test]
fn a_peer_that_does_not_say_how_to_go_on_is_closed() {
    let (mut gateway, mut peer, _) = established(13);
    let sent = asked(&mut gateway, &mut peer, None);
    let opened = peer.open_request(&sent[0].bytes);
    let deletes = opened.payloads().unwrap().deletes.len();
    assert_eq!(
        (exchange_of(&sent[0]), deletes),
        (ExchangeType::INFORMATIONAL, 1)
    );
}

/// RFC 9370 §2.2.4: the whole series has failed; it is tried again, and not for ever.
#[test]
fn a_state_that_the_peer_does_not_find() {
    let (mut gateway, mut peer, _) = established(14);
    let mut tries = 0;
    loop {
        let sent = asked(&mut gateway, &mut peer, Some(&[1]));
        tries += 1;
        let notify = NotifyRepr::new(NotifyType::STATE_NOT_FOUND, &[]);
        let message = MessageBuilder::new(response_to(&sent[0].bytes));
        let response = peer.seal(message.with(&Payload::Notify(notify)));
        let sent = gateway.receive(peer.path, &response);
        assert_eq!(gateway.endpoint.child_sas(), 1, "the old one stays");
        if let Some(sent) = sent.first() {
            let opened = peer.open_request(&sent.bytes);
            assert_eq!(opened.payloads().unwrap().deletes.len(), 1);
            break;
        }
        gateway.now = gateway.now + Duration::from_secs(60);
    }
    assert_eq!(tries, 4, "after three minutes");
}

/// The third use: a CHILD_SA from scratch, engine to engine, by either side.
#[test]
fn a_child_sa_from_scratch() {
    for side in 0..2 {
        let mut pair = Pair::tweaked(15, |_, _, child| {
            child.esp_proposals = EspProposal::parse(ESP).unwrap();
        });
        let records = pair.sides[side].records(pair.now);
        let spi = records[0].children[0].sa.spi_in;
        pair.command(side, Command::Terminate(Target::Child(spi)));
        pair.settle(Duration::from_secs(2));
        let order = InitiateOrder {
            connection: records[0].connection.clone(),
            ..InitiateOrder::default()
        };
        pair.command(side, Command::Initiate(order));
        pair.settle(Duration::from_secs(2));
        pair.assert_well("a CHILD_SA from scratch");
        let peer = pair.sides[1 - side].endpoint.counters();
        assert_eq!(peer.followup_ke_requests, 2);
    }
}
