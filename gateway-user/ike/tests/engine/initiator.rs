//! A minimal IKEv2 initiator, for tests only: honest by default, with every part replaceable.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway_ike::crypto::{CryptoProvider, KeyExchange, KeyExchangeMethod};
use gateway_ike::identity::Identity;
use gateway_ike::keys::{AuthInput, ChildKeys, IkeKeys, Skeyseed, psk_auth, verify_psk_auth};
use gateway_ike::output::{Path, TrafficSelector};
use gateway_ike::proposal::{EspExchange, EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::testing::Seeded;
use gateway_ike::wire::{
    AuthMethod, AuthRepr, Body, ExchangeType, HeaderRepr, IdRepr, KeRepr, Message, MessageBuilder,
    NonceRepr, NotifyRepr, NotifyType, Opened, Payload, Payloads, SaRepr, TsRepr, messages,
};

use crate::aws_lc::AwsLc;
use crate::config::{PSK, id, ts};
use crate::gateway::{Gateway, crypto, path};

pub(crate) struct Initiator {
    pub(crate) crypto: Arc<Seeded<AwsLc>>,
    pub(crate) path: Path,
    pub(crate) spi_i: [u8; 8],
    pub(crate) spi_r: [u8; 8],
    /// Offered suites; the first one's method is the guess of the KE payload.
    pub(crate) proposals: Vec<IkeProposal>,
    pub(crate) chosen: IkeProposal,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    ke: Box<dyn KeyExchange>,
    pub(crate) keys: Option<IkeKeys>,
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) init_request: Vec<u8>,
    pub(crate) init_response: Vec<u8>,
    /// Address and port that we believe to have; others than `path.remote` mean a NAT.
    pub(crate) own_address: SocketAddr,
    /// Where we believe to send to.
    pub(crate) peer_address: SocketAddr,
    pub(crate) next_id: u32,
    /// What IKE_INTERMEDIATE adds to AUTH.
    pub(crate) int_auth: Vec<u8>,
    iv: u64,
    pub(crate) id: Identity,
    pub(crate) wanted_id: Option<Identity>,
    pub(crate) psk: Vec<u8>,
    pub(crate) esp: Vec<EspProposal>,
    pub(crate) spi_in: [u8; 4],
    pub(crate) ts_i: Vec<TrafficSelector>,
    pub(crate) ts_r: Vec<TrafficSelector>,
    /// Additional notifications in IKE_SA_INIT.
    pub(crate) init_notifies: Vec<NotifyType>,
    /// Additional notifications in IKE_AUTH.
    pub(crate) auth_notifies: Vec<NotifyType>,
}

/// A CHILD_SA as the initiator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MyChild {
    pub(crate) spi_in: [u8; 4],
    pub(crate) spi_out: [u8; 4],
    pub(crate) key_in: SecretBytes,
    pub(crate) key_out: SecretBytes,
    pub(crate) ts_i: Vec<TrafficSelector>,
    pub(crate) ts_r: Vec<TrafficSelector>,
}

impl Initiator {
    pub(crate) fn new(seed: u64) -> Self {
        let crypto = crypto(0x1000 + seed);
        let mut spi_i = [0; 8];
        crypto.random(&mut spi_i);
        let mut nonce_i = vec![0; 32];
        crypto.random(&mut nonce_i);
        let path = path("203.0.113.10:500", "198.51.100.7:500");
        let proposals = IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap();
        Self {
            ke: crypto.key_exchange(proposals[0].ke).unwrap(),
            crypto,
            path,
            spi_i,
            spi_r: [0; 8],
            chosen: proposals[0],
            proposals,
            nonce_i,
            nonce_r: Vec::new(),
            keys: None,
            cookie: None,
            init_request: Vec::new(),
            init_response: Vec::new(),
            own_address: path.remote,
            peer_address: path.local,
            next_id: 1,
            int_auth: Vec::new(),
            iv: 0,
            id: id("peer.example.org"),
            wanted_id: Some(id("gw.example.org")),
            psk: PSK.to_vec(),
            esp: EspProposal::parse("aes128gcm16").unwrap(),
            spi_in: [0xc0, 0, 0, 1],
            ts_i: vec![ts("10.2.0.0/16")],
            ts_r: vec![ts("10.1.0.0/16")],
            init_notifies: Vec::new(),
            auth_notifies: Vec::new(),
        }
    }

    /// Uses these suites, and guesses the first one's key exchange method.
    pub(crate) fn offer(mut self, proposals: &str) -> Self {
        self.proposals = IkeProposal::parse(proposals).unwrap();
        self.guess(self.proposals[0].ke);
        self
    }

    pub(crate) fn guess(&mut self, method: KeyExchangeMethod) {
        self.ke = self.crypto.key_exchange(method).unwrap();
    }

    pub(crate) fn init_header(&self) -> HeaderRepr {
        HeaderRepr {
            initiator_spi: self.spi_i,
            responder_spi: [0; 8],
            exchange: ExchangeType::IKE_SA_INIT,
            from_initiator: true,
            response: false,
            message_id: 0,
        }
    }

    /// IKE_SA_INIT's payloads, COOKIE first if we have one (RFC 7296 §2.6).
    pub(crate) fn init_builder(&self) -> MessageBuilder {
        let mut builder = MessageBuilder::new(self.init_header());
        if let Some(cookie) = &self.cookie {
            builder.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::COOKIE,
                cookie,
            )));
        }
        let proposals = (1..)
            .zip(&self.proposals)
            .map(|(number, proposal)| proposal.to_wire(number, &[]))
            .collect();
        builder
            .push(&Payload::Sa(SaRepr { proposals }))
            .push(&Payload::Ke(KeRepr {
                method: self.ke.method().transform_id(),
                data: self.ke.public_value(),
            }))
            .push(&Payload::Nonce(NonceRepr {
                data: &self.nonce_i,
            }));
        for (kind, address) in [
            (NotifyType::NAT_DETECTION_SOURCE_IP, self.own_address),
            (NotifyType::NAT_DETECTION_DESTINATION_IP, self.peer_address),
        ] {
            let hash = nat_hash(&*self.crypto, self.spi_i, [0; 8], address);
            builder.push(&Payload::Notify(NotifyRepr::new(kind, &hash)));
        }
        for kind in &self.init_notifies {
            builder.push(&Payload::Notify(NotifyRepr::new(*kind, &[])));
        }
        builder
    }

    pub(crate) fn init(&mut self) -> Vec<u8> {
        self.init_request = self.init_builder().finish().unwrap();
        self.init_request.clone()
    }

    /// Takes the IKE_SA_INIT response and derives the keys.
    pub(crate) fn take_init(&mut self, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        let payloads = clear(&message);
        assert_eq!(payloads.error_notify(), None);
        let header = message.header();
        assert!(!header.from_initiator);
        self.spi_r = header.responder_spi;
        let answered = &payloads.require_sa().unwrap().proposals;
        assert_eq!(answered.len(), 1);
        self.chosen = *self
            .proposals
            .iter()
            .zip(1..)
            .map(|(ours, number)| (ours, ours.to_wire(number, &[])))
            .find(|(_, wire)| *wire == answered[0])
            .expect("one of our proposals, unchanged")
            .0;
        let ke_r = payloads.require_ke().unwrap();
        assert_eq!(ke_r.method, self.chosen.ke.transform_id());
        self.nonce_r = payloads.require_nonce().unwrap().data.to_vec();
        let shared = self.ke.agree(ke_r.data).unwrap();
        let crypto = &*self.crypto;
        let prf = self.chosen.prf;
        let skeyseed = Skeyseed::initial(crypto, prf, &self.nonce_i, &self.nonce_r, &shared);
        self.keys = Some(self.derive(&skeyseed));
        self.init_response = bytes.to_vec();
    }

    pub(crate) fn derive(&self, skeyseed: &Skeyseed) -> IkeKeys {
        IkeKeys::derive(
            &*self.crypto,
            self.chosen.prf,
            self.chosen.encryption,
            skeyseed,
            (&self.nonce_i, &self.nonce_r),
            (&self.spi_i, &self.spi_r),
        )
        .unwrap()
    }

    pub(crate) fn header(&self, exchange: ExchangeType, message_id: u32) -> HeaderRepr {
        HeaderRepr {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            exchange,
            from_initiator: true,
            response: false,
            message_id,
        }
    }

    /// A builder for the next request.
    pub(crate) fn next(&mut self, exchange: ExchangeType) -> MessageBuilder {
        let header = self.header(exchange, self.next_id);
        self.next_id += 1;
        MessageBuilder::new(header)
    }

    pub(crate) fn seal(&mut self, builder: MessageBuilder) -> Vec<u8> {
        self.iv += 1;
        let keys = self.keys.as_ref().unwrap();
        builder
            .seal(
                &*self.crypto,
                self.chosen.encryption,
                keys.ei.expose(),
                self.iv,
            )
            .unwrap()
    }

    /// A request in fragments of at most `limit` octets.
    pub(crate) fn fragments(&mut self, builder: MessageBuilder, limit: usize) -> Vec<Vec<u8>> {
        let keys = self.keys.as_ref().unwrap();
        let iv = &mut self.iv;
        let octets = builder
            .seal_within(
                &*self.crypto,
                self.chosen.encryption,
                keys.ei.expose(),
                limit,
                || {
                    *iv += 1;
                    Some(*iv)
                },
            )
            .unwrap();
        messages(&octets).map(<[u8]>::to_vec).collect()
    }

    /// The next request with these payloads.
    pub(crate) fn request(&mut self, exchange: ExchangeType, payloads: &[Payload<'_>]) -> Vec<u8> {
        let mut builder = self.next(exchange);
        for payload in payloads {
            builder.push(payload);
        }
        self.seal(builder)
    }

    /// Our AUTH data over what was really sent and received.
    pub(crate) fn auth_data(&self) -> Vec<u8> {
        let (kind, data) = self.id.to_payload();
        let input = AuthInput {
            message: &self.init_request,
            peer_nonce: &self.nonce_r,
            sk_p: &self.keys.as_ref().unwrap().pi,
            id_body: &IdRepr::new(kind, &data).rest_of_payload(),
            int_auth: &self.int_auth,
        };
        let psk = SecretBytes::from(&self.psk[..]);
        psk_auth(&*self.crypto, self.chosen.prf, &psk, input)
    }

    /// IKE_AUTH without the payloads of a CHILD_SA.
    pub(crate) fn auth_builder(&mut self) -> MessageBuilder {
        let mut builder = self.next(ExchangeType::IKE_AUTH);
        let (kind, data) = self.id.to_payload();
        builder.push(&Payload::IdInitiator(IdRepr::new(kind, &data)));
        if let Some(wanted) = &self.wanted_id {
            let (kind, data) = wanted.to_payload();
            builder.push(&Payload::IdResponder(IdRepr::new(kind, &data)));
        }
        let auth = self.auth_data();
        builder.push(&Payload::Auth(AuthRepr {
            method: AuthMethod::SHARED_KEY,
            data: &auth,
        }));
        for kind in &self.auth_notifies {
            builder.push(&Payload::Notify(NotifyRepr::new(*kind, &[])));
        }
        builder
    }

    pub(crate) fn esp_offer(&self, exchange: EspExchange) -> Payload<'static> {
        let proposals = (1..)
            .zip(&self.esp)
            .map(|(number, proposal)| proposal.to_wire(number, self.spi_in, exchange))
            .collect();
        Payload::Sa(SaRepr { proposals })
    }

    pub(crate) fn selectors(&self) -> [Payload<'static>; 2] {
        [
            Payload::TsInitiator(TsRepr {
                selectors: self.ts_i.clone(),
            }),
            Payload::TsResponder(TsRepr {
                selectors: self.ts_r.clone(),
            }),
        ]
    }

    pub(crate) fn auth(&mut self) -> Vec<u8> {
        let [ts_i, ts_r] = self.selectors();
        let builder = self
            .auth_builder()
            .with(&self.esp_offer(EspExchange::IkeAuth))
            .with(&ts_i)
            .with(&ts_r);
        self.seal(builder)
    }

    /// Decrypts a response; one in fragments as they stand one after the other.
    pub(crate) fn open(&self, bytes: &[u8]) -> Opened {
        assert!(
            Message::parse(messages(bytes).next().unwrap())
                .unwrap()
                .header()
                .response
        );
        self.open_any(bytes)
    }

    /// Decrypts a request or response of the gateway.
    pub(crate) fn open_any(&self, bytes: &[u8]) -> Opened {
        let mut parts = messages(bytes).map(|bytes| self.open_part(bytes));
        let mut whole = parts.next().unwrap();
        parts.for_each(|part| whole.plaintext.extend_from_slice(&part.plaintext));
        whole
    }

    fn open_part(&self, bytes: &[u8]) -> Opened {
        let message = Message::parse(bytes).unwrap();
        let header = message.header();
        assert!(!header.from_initiator);
        assert_eq!(
            (header.initiator_spi, header.responder_spi),
            (self.spi_i, self.spi_r)
        );
        let (Body::Encrypted(encrypted) | Body::Fragment(_, encrypted)) = message.body() else {
            panic!("a response in clear");
        };
        let keys = self.keys.as_ref().unwrap();
        encrypted
            .open(&*self.crypto, self.chosen.encryption, keys.er.expose())
            .unwrap()
    }

    /// Decrypts a request of the gateway's.
    pub(crate) fn open_request(&self, bytes: &[u8]) -> Opened {
        let message = Message::parse(bytes).unwrap();
        assert!(!message.header().response);
        let Body::Encrypted(encrypted) = message.body() else {
            panic!("a request in clear");
        };
        let keys = self.keys.as_ref().unwrap();
        encrypted
            .open(&*self.crypto, self.chosen.encryption, keys.er.expose())
            .unwrap()
    }

    /// The error that a response reports.
    pub(crate) fn error(&self, bytes: &[u8]) -> Option<(NotifyType, Vec<u8>)> {
        let opened = self.open(bytes);
        let payloads = opened.payloads().unwrap();
        payloads.error_notify().map(|n| (n.kind, n.data.to_vec()))
    }

    /// Checks IDr and AUTH of the IKE_AUTH response and takes the child, if there is one.
    pub(crate) fn take_auth(&self, bytes: &[u8]) -> Option<MyChild> {
        let opened = self.open(bytes);
        let payloads = opened.payloads().unwrap();
        let id_r = payloads.require_id_responder().unwrap();
        let auth = payloads.require_auth().unwrap();
        assert_eq!(auth.method, AuthMethod::SHARED_KEY);
        let input = AuthInput {
            message: &self.init_response,
            peer_nonce: &self.nonce_i,
            sk_p: &self.keys.as_ref().unwrap().pr,
            id_body: &id_r.rest_of_payload(),
            int_auth: &self.int_auth,
        };
        let psk = SecretBytes::from(&self.psk[..]);
        assert!(verify_psk_auth(
            &*self.crypto,
            self.chosen.prf,
            &psk,
            input,
            auth.data
        ));
        payloads.sa.as_ref()?;
        Some(self.child(&payloads, &self.nonce_i, &self.nonce_r, None))
    }

    /// The child that a response agrees to.
    pub(crate) fn child(
        &self,
        payloads: &Payloads<'_>,
        nonce_i: &[u8],
        nonce_r: &[u8],
        shared: Option<&SecretBytes>,
    ) -> MyChild {
        let proposals = &payloads.require_sa().unwrap().proposals;
        assert_eq!(proposals.len(), 1);
        let suite = self
            .esp
            .iter()
            .zip(1u8..)
            .find(|(_, number)| *number == proposals[0].number)
            .unwrap()
            .0;
        let keys = ChildKeys::derive(
            &*self.crypto,
            self.chosen.prf,
            suite.encryption,
            &self.keys.as_ref().unwrap().d,
            shared.map_or(&[], std::slice::from_ref),
            nonce_i,
            nonce_r,
        )
        .unwrap();
        MyChild {
            spi_in: self.spi_in,
            spi_out: proposals[0].esp_spi().unwrap(),
            key_in: keys.responder_to_initiator,
            key_out: keys.initiator_to_responder,
            ts_i: payloads.require_ts_initiator().unwrap().selectors.clone(),
            ts_r: payloads.require_ts_responder().unwrap().selectors.clone(),
        }
    }

    /// CREATE_CHILD_SA for a child, with `rekeys` as our inbound SPI of the old one.
    pub(crate) fn create_child(
        &mut self,
        rekeys: Option<[u8; 4]>,
        ke: Option<&dyn KeyExchange>,
        nonce: &[u8],
    ) -> Vec<u8> {
        let mut builder = self.next(ExchangeType::CREATE_CHILD_SA);
        if let Some(spi) = &rekeys {
            builder.push(&Payload::Notify(NotifyRepr::esp(NotifyType::REKEY_SA, spi)));
        }
        builder
            .push(&self.esp_offer(EspExchange::CreateChildSa))
            .push(&Payload::Nonce(NonceRepr { data: nonce }));
        if let Some(ke) = ke {
            builder.push(&Payload::Ke(KeRepr {
                method: ke.method().transform_id(),
                data: ke.public_value(),
            }));
        }
        let [ts_i, ts_r] = self.selectors();
        builder.push(&ts_i).push(&ts_r);
        self.seal(builder)
    }

    /// Follows the gateway onto an IKE SA that replaces this one.
    pub(crate) fn rekeyed(
        &self,
        spis: ([u8; 8], [u8; 8]),
        nonces: (&[u8], &[u8]),
        shared: &[SecretBytes],
        chosen: IkeProposal,
    ) -> Self {
        let old = self.keys.as_ref().unwrap();
        let crypto = &*self.crypto;
        let skeyseed =
            Skeyseed::rekeyed(crypto, self.chosen.prf, &old.d, shared, nonces.0, nonces.1);
        let mut successor = Self::new(999);
        successor.crypto = Arc::clone(&self.crypto);
        successor.path = self.path;
        (successor.spi_i, successor.spi_r) = spis;
        successor.nonce_i = nonces.0.to_vec();
        successor.nonce_r = nonces.1.to_vec();
        successor.chosen = chosen;
        successor.next_id = 0;
        successor.keys = Some(successor.derive(&skeyseed));
        successor
    }

    /// From nothing to an established IKE SA.
    pub(crate) fn connect(&mut self, gateway: &mut Gateway) -> Option<MyChild> {
        let response = gateway.exchange(self.path, &self.init());
        self.take_init(&response);
        let response = gateway.exchange(self.path, &self.auth());
        self.take_auth(&response)
    }

    /// An empty INFORMATIONAL exchange.
    pub(crate) fn is_alive(&mut self, gateway: &mut Gateway) {
        let request = self.request(ExchangeType::INFORMATIONAL, &[]);
        let response = gateway.exchange(self.path, &request);
        assert_eq!(
            self.open(&response).payloads().unwrap(),
            Payloads::default()
        );
    }

    /// Moves to port 4500, as after NAT detection.
    pub(crate) fn float(&mut self) {
        self.path.local.set_port(4500);
        self.path.remote.set_port(4500);
    }
}

/// The payloads of a message in clear.
pub(crate) fn clear<'a>(message: &Message<'a>) -> Payloads<'a> {
    let Body::Clear(chain) = message.body() else {
        panic!("an encrypted response");
    };
    Payloads::parse(chain.clone()).unwrap()
}

/// The one notification of an unprotected error.
pub(crate) fn clear_notify(bytes: &[u8]) -> (NotifyType, Vec<u8>) {
    let message = Message::parse(bytes).unwrap();
    assert!(message.header().response);
    assert_eq!(message.header().responder_spi, [0; 8]);
    let payloads = clear(&message);
    assert_eq!(payloads.notifies.len(), 1);
    (
        payloads.notifies[0].kind,
        payloads.notifies[0].data.to_vec(),
    )
}

/// SHA-1(SPIi | SPIr | IP | port), RFC 7296 §2.23.
pub(crate) fn nat_hash(
    crypto: &dyn CryptoProvider,
    spi_i: [u8; 8],
    spi_r: [u8; 8],
    address: SocketAddr,
) -> [u8; 20] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    crypto.sha1(&[&spi_i, &spi_r, &ip, &address.port().to_be_bytes()])
}
