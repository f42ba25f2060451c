//! IKE_SA_INIT and IKE_AUTH as a peer's side of them: the engine under test only answers these.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_ike::crypto::{CryptoProvider, KeyExchange};
use gateway_ike::identity::Identity;
use gateway_ike::keys::{AuthInput, ChildKeys, IkeKeys, Skeyseed, psk_auth, verify_psk_auth};
use gateway_ike::output::{Path, TrafficSelector};
use gateway_ike::proposal::{EspExchange, EspProposal, IkeProposal};
use gateway_ike::record::{IkeSaRecord, Role};
use gateway_ike::secret::SecretBytes;
use gateway_ike::testing::{FreshSa, Toy, fresh_child};
use gateway_ike::wire::{
    AuthMethod, AuthRepr, Body, ExchangeType, HeaderRepr, IdRepr, KeRepr, Message, MessageBuilder,
    NonceRepr, NotifyRepr, NotifyType, Payload, Payloads, SaRepr, TsRepr,
};

/// Who negotiates, and about what.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) path: Path,
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) psk: SecretBytes,
    pub(super) local_ts: TrafficSelector,
    pub(super) remote_ts: TrafficSelector,
    /// Says so in IKE_AUTH (RFC 7296 §2.4).
    pub(super) initial_contact: bool,
}

/// One attempt.
pub(super) struct Handshake {
    crypto: Arc<Toy>,
    party: Party,
    proposal: IkeProposal,
    esp: EspProposal,
    pub(super) spi_i: [u8; 8],
    spi_r: [u8; 8],
    nonce_i: [u8; 32],
    nonce_r: Vec<u8>,
    ke: Box<dyn KeyExchange>,
    keys: Option<IkeKeys>,
    child_spi: [u8; 4],
    init_request: Vec<u8>,
    init_response: Vec<u8>,
    /// What waits for an answer; retransmitted as it is.
    pub(super) request: Vec<u8>,
}

/// What a response has led to.
pub(super) enum Progress {
    /// Not for this attempt, or not authentic: nothing has changed.
    Ignored,
    /// There is a new request to send.
    Next,
    /// The gateway refused, in an authentic message.
    Refused(String),
    /// Established.
    Done(Box<IkeSaRecord>),
}

impl Handshake {
    pub(super) fn new(crypto: &Arc<Toy>, party: Party) -> Option<Self> {
        let proposal = *IkeProposal::parse("aes128gcm16-prfsha256-x25519")
            .ok()?
            .first()?;
        let esp = *EspProposal::parse("aes128gcm16-esn").ok()?.first()?;
        let (mut spi_i, mut nonce_i, mut child_spi) = ([0; 8], [0; 32], [0; 4]);
        crypto.random(&mut spi_i);
        crypto.random(&mut nonce_i);
        crypto.random(&mut child_spi);
        child_spi[0] |= 0xc0;
        let mut handshake = Self {
            crypto: Arc::clone(crypto),
            ke: crypto.key_exchange(proposal.ke).ok()?,
            party,
            proposal,
            esp,
            spi_i,
            spi_r: [0; 8],
            nonce_i,
            nonce_r: Vec::new(),
            keys: None,
            child_spi,
            init_request: Vec::new(),
            init_response: Vec::new(),
            request: Vec::new(),
        };
        handshake.request = handshake.init(None)?;
        Some(handshake)
    }

    fn header(&self, exchange: ExchangeType, message_id: u32) -> HeaderRepr {
        HeaderRepr {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            exchange,
            from_initiator: true,
            response: false,
            message_id,
        }
    }

    fn init(&mut self, cookie: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut builder = MessageBuilder::new(self.header(ExchangeType::IKE_SA_INIT, 0));
        if let Some(cookie) = cookie {
            builder.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::COOKIE,
                cookie,
            )));
        }
        builder
            .push(&Payload::Sa(SaRepr {
                proposals: vec![self.proposal.to_wire(1, &[])],
            }))
            .push(&Payload::Ke(KeRepr {
                method: self.ke.method().transform_id(),
                data: self.ke.public_value(),
            }))
            .push(&Payload::Nonce(NonceRepr {
                data: &self.nonce_i,
            }));
        for (kind, address) in [
            (NotifyType::NAT_DETECTION_SOURCE_IP, self.party.path.local),
            (
                NotifyType::NAT_DETECTION_DESTINATION_IP,
                self.party.path.remote,
            ),
        ] {
            let hash = nat_hash(&*self.crypto, self.spi_i, address);
            builder.push(&Payload::Notify(NotifyRepr::new(kind, &hash)));
        }
        self.init_request = builder.finish().ok()?;
        Some(self.init_request.clone())
    }

    /// A datagram of the gateway.
    pub(super) fn handle(&mut self, bytes: &[u8]) -> Progress {
        let Ok(message) = Message::parse(bytes) else {
            return Progress::Ignored;
        };
        let header = *message.header();
        if !header.response || header.from_initiator || header.initiator_spi != self.spi_i {
            return Progress::Ignored;
        }
        let progress = match (header.exchange, self.keys.is_some()) {
            (ExchangeType::IKE_SA_INIT, false) => self.take_init(bytes, &message),
            (ExchangeType::IKE_AUTH, true) if header.responder_spi == self.spi_r => {
                self.take_auth(&message)
            }
            _ => None,
        };
        progress.unwrap_or(Progress::Ignored)
    }

    fn take_init(&mut self, bytes: &[u8], message: &Message<'_>) -> Option<Progress> {
        let Body::Clear(chain) = message.body() else {
            return None;
        };
        let payloads = Payloads::parse(chain.clone()).ok()?;
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            let cookie = cookie.data.to_vec();
            self.request = self.init(Some(&cookie))?;
            return Some(Progress::Next);
        }
        // Whatever else comes unprotected may be forged: go on waiting.
        if payloads.error_notify().is_some() {
            return None;
        }
        let shared = self.ke.agree(payloads.require_ke().ok()?.data).ok()?;
        self.nonce_r = payloads.require_nonce().ok()?.data.to_vec();
        self.spi_r = message.header().responder_spi;
        let prf = self.proposal.prf;
        let crypto = &*self.crypto;
        let skeyseed = Skeyseed::initial(crypto, prf, &self.nonce_i, &self.nonce_r, &shared);
        let keys = IkeKeys::derive(
            crypto,
            prf,
            self.proposal.encryption,
            &skeyseed,
            (&self.nonce_i, &self.nonce_r),
            (&self.spi_i, &self.spi_r),
        );
        self.keys = keys.ok();
        self.init_response = bytes.to_vec();
        self.request = self.auth()?;
        Some(Progress::Next)
    }

    fn auth(&self) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let (kind, data) = self.party.local_id.to_payload();
        let id = IdRepr::new(kind, &data);
        let input = AuthInput {
            message: &self.init_request,
            peer_nonce: &self.nonce_r,
            sk_p: &keys.pi,
            id_body: &id.rest_of_payload(),
            int_auth: &[],
        };
        let auth = psk_auth(&*self.crypto, self.proposal.prf, &self.party.psk, input);
        let (wanted_kind, wanted) = self.party.remote_id.to_payload();
        let mut builder = MessageBuilder::new(self.header(ExchangeType::IKE_AUTH, 1));
        builder
            .push(&Payload::IdInitiator(IdRepr::new(kind, &data)))
            .push(&Payload::IdResponder(IdRepr::new(wanted_kind, &wanted)))
            .push(&Payload::Auth(AuthRepr {
                method: AuthMethod::SHARED_KEY,
                data: &auth,
            }));
        if self.party.initial_contact {
            let notify = NotifyRepr::new(NotifyType::INITIAL_CONTACT, &[]);
            builder.push(&Payload::Notify(notify));
        }
        let offer = self.esp.to_wire(1, self.child_spi, EspExchange::IkeAuth);
        builder
            .push(&Payload::Sa(SaRepr {
                proposals: vec![offer],
            }))
            .push(&Payload::TsInitiator(TsRepr {
                selectors: vec![self.party.local_ts],
            }))
            .push(&Payload::TsResponder(TsRepr {
                selectors: vec![self.party.remote_ts],
            }));
        let sealed = builder.seal(&*self.crypto, self.proposal.encryption, keys.ei.expose(), 0);
        sealed.ok()
    }

    fn take_auth(&self, message: &Message<'_>) -> Option<Progress> {
        let Body::Encrypted(encrypted) = message.body() else {
            return None;
        };
        let keys = self.keys.as_ref()?;
        let crypto = &*self.crypto;
        let opened = encrypted
            .open(crypto, self.proposal.encryption, keys.er.expose())
            .ok()?;
        let payloads = opened.payloads().ok()?;
        if let Some(error) = payloads.error_notify() {
            return Some(Progress::Refused(error.kind.to_string()));
        }
        let input = AuthInput {
            message: &self.init_response,
            peer_nonce: &self.nonce_i,
            sk_p: &keys.pr,
            id_body: &payloads.require_id_responder().ok()?.rest_of_payload(),
            int_auth: &[],
        };
        let auth = payloads.require_auth().ok()?.data;
        if !verify_psk_auth(crypto, self.proposal.prf, &self.party.psk, input, auth) {
            return None;
        }
        let spi_out = payloads.require_sa().ok()?.proposals.first()?.esp_spi()?;
        let child = ChildKeys::derive(
            crypto,
            self.proposal.prf,
            self.esp.encryption,
            &keys.d,
            &[],
            &self.nonce_i,
            &self.nonce_r,
        );
        let record = self.record(keys, spi_out, &child.ok()?);
        Some(Progress::Done(Box::new(record)))
    }

    /// What the peer's engine goes on with.
    fn record(&self, keys: &IkeKeys, spi_out: [u8; 4], child: &ChildKeys) -> IkeSaRecord {
        let party = &self.party;
        let path = party.path;
        let mut sa = fresh_child(
            "gateway",
            (self.child_spi, spi_out),
            (path.local.ip(), path.remote.ip()),
            (self.esp.encryption, self.esp.esn),
            (
                child.responder_to_initiator.clone(),
                child.initiator_to_responder.clone(),
            ),
        );
        sa.local_ts = vec![party.local_ts];
        sa.remote_ts = vec![party.remote_ts];
        FreshSa {
            spis: (self.spi_i, self.spi_r),
            role: Role::Initiator,
            ids: (party.local_id.clone(), party.remote_id.clone()),
            path,
            proposal: self.proposal,
            keys: keys.clone(),
            child: sa,
        }
        .record()
    }
}

/// SHA-1(SPIi | SPIr | IP | port), RFC 7296 §2.23.
fn nat_hash(crypto: &dyn CryptoProvider, spi_i: [u8; 8], address: SocketAddr) -> [u8; 20] {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    crypto.sha1(&[&spi_i, &[0; 8], &ip, &address.port().to_be_bytes()])
}
