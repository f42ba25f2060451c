//! A peer that initiates, keeps to the protocol, and can be made to break it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_ike::crypto::{CryptoProvider, KeyExchange};
use gateway_ike::identity::Identity;
use gateway_ike::keys::{AuthInput, IkeKeys, Skeyseed, psk_auth};
use gateway_ike::output::{Path, TrafficSelector};
use gateway_ike::proposal::{EspExchange, EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::{
    AuthMethod, AuthRepr, Body, ExchangeType, HeaderRepr, IdRepr, KeRepr, Message, NonceRepr,
    NotifyRepr, NotifyType, Payload, Payloads, ProtocolId, SaRepr, TsRepr, WireError,
};

use super::draft::Draft;
use super::follow_up::{Series, Successor};
use gateway_ike::testing::Toy;

/// An IKE SA from the peer's side, which has always initiated it.
pub(crate) struct Session {
    pub(crate) spi_i: [u8; 8],
    pub(crate) spi_r: [u8; 8],
    pub(crate) proposal: IkeProposal,
    pub(crate) keys: IkeKeys,
    /// Message ID of the next request.
    pub(crate) next_id: u32,
    iv: u64,
    /// Both IKE_SA_INIT messages and nonces, request first; nothing for a rekeyed IKE SA.
    auth: Option<Box<AuthBasis>>,
}

struct AuthBasis {
    request: Vec<u8>,
    response: Vec<u8>,
    nonce_r: Vec<u8>,
}

/// A key exchange that waits for its answer.
pub(super) struct Offer {
    spi: [u8; 8],
    pub(super) nonce: Vec<u8>,
    proposal: IkeProposal,
    private: Box<dyn KeyExchange>,
    /// The IKE_SA_INIT request, or which session is rekeyed by which request.
    by: Basis,
}

enum Basis {
    Init(Vec<u8>),
    Rekey { session: usize, message_id: u32 },
}

pub(crate) struct Peer {
    number: u8,
    pub(super) crypto: Arc<dyn CryptoProvider>,
    /// Whether it announces a NAT that is not there.
    nat: bool,
    drawn: u32,
    pub(crate) path: Path,
    /// Announces IKE fragmentation.
    pub(crate) fragments: bool,
    pub(crate) identity: Identity,
    cookie: Option<Vec<u8>>,
    offer: Option<Offer>,
    /// Additional key exchanges that are under way.
    pub(super) series: Option<Series>,
    pub(crate) sessions: Vec<Session>,
    /// Inbound SPIs that it offered.
    pub(crate) esp_spis: Vec<[u8; 4]>,
    /// The last request of the engine: session and header.
    pub(crate) asked: Option<(usize, HeaderRepr)>,
    /// Sessions and Message IDs of rekeyings.
    rekeyings: BTreeSet<(usize, u32)>,
}

impl Peer {
    /// A peer of the gateway at `local`, with a toy's cryptography.
    pub(crate) fn new(number: u8, local: SocketAddr) -> Self {
        let remote = SocketAddr::from(([198, 51, 100, number], 500));
        let crypto = Toy::new(1000 + u64::from(number));
        Self {
            nat: number != 0,
            ..Self::real(number, Path::new(local, remote), Arc::new(crypto))
        }
    }

    /// A peer that means what it does.
    pub(crate) fn real(number: u8, path: Path, crypto: Arc<dyn CryptoProvider>) -> Self {
        Self {
            number,
            crypto,
            nat: false,
            drawn: 0,
            path,
            fragments: false,
            identity: Identity::Fqdn(format!("p{number}.example.org")),
            cookie: None,
            offer: None,
            series: None,
            sessions: Vec::new(),
            esp_spis: Vec::new(),
            asked: None,
            rekeyings: BTreeSet::new(),
        }
    }

    fn draw_spi(&mut self) -> [u8; 8] {
        self.drawn += 1;
        let [a, b, c, d] = self.drawn.to_be_bytes();
        [0xee, self.number, 0, 0, a, b, c, d]
    }

    fn draw_esp_spi(&mut self) -> [u8; 4] {
        self.drawn += 1;
        let [_, _, c, d] = self.drawn.to_be_bytes();
        let spi = [0xe5, self.number, c, d];
        self.esp_spis.push(spi);
        spi
    }

    fn draw_nonce(&self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.crypto.random(&mut nonce);
        nonce
    }

    /// An IKE_SA_INIT request, with the cookie if one was demanded of the same offer.
    pub(crate) fn init(&mut self, proposal: IkeProposal, again: bool) -> Draft {
        let last = self.offer.take().filter(|offer| {
            again && offer.proposal == proposal && matches!(offer.by, Basis::Init(_))
        });
        let cookie = self.cookie.take().filter(|_| last.is_some());
        let offer = last.unwrap_or_else(|| Offer {
            spi: self.draw_spi(),
            nonce: self.draw_nonce(),
            proposal,
            private: self.crypto.key_exchange(proposal.ke).expect("toy"),
            by: Basis::Init(Vec::new()),
        });
        let header = HeaderRepr {
            initiator_spi: offer.spi,
            responder_spi: [0; 8],
            exchange: ExchangeType::IKE_SA_INIT,
            from_initiator: true,
            response: false,
            message_id: 0,
        };
        let hash = [self.number; 20];
        let mut payloads = Vec::new();
        if let Some(cookie) = &cookie {
            payloads.push(notify(NotifyType::COOKIE, cookie));
        }
        payloads.extend([
            Payload::Sa(SaRepr {
                proposals: vec![proposal.to_wire(1, &[])],
            }),
            ke(&*offer.private),
            Payload::Nonce(NonceRepr { data: &offer.nonce }),
        ]);
        if self.nat {
            payloads.extend([
                notify(NotifyType::NAT_DETECTION_SOURCE_IP, &hash),
                notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &hash),
            ]);
        }
        if self.fragments {
            payloads.push(notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]));
        }
        let draft = Draft::new(header, &payloads);
        self.offer = Some(offer);
        draft
    }

    /// The request of the last [`Self::init`] as it was sent; `None` if it was spoilt.
    pub(crate) fn init_sent(&mut self, request: Option<&[u8]>) {
        match (request, &mut self.offer) {
            (Some(request), Some(offer)) => offer.by = Basis::Init(request.to_vec()),
            _ => self.offer = None,
        }
    }

    /// Whether the last session still has to be authenticated.
    pub(crate) fn can_authenticate(&self) -> bool {
        self.sessions.last().is_some_and(|s| s.auth.is_some())
    }

    /// IKE_AUTH on the last session.
    pub(crate) fn auth(
        &mut self,
        secret: &SecretBytes,
        (with_child, initial_contact): (bool, bool),
        esp: EspProposal,
        traffic: (TrafficSelector, TrafficSelector),
    ) -> Option<Draft> {
        let spi = self.draw_esp_spi();
        let session = self.sessions.last()?;
        let basis = session.auth.as_ref()?;
        let (kind, data) = self.identity.to_payload();
        let id = IdRepr::new(kind, &data);
        let auth = psk_auth(
            &*self.crypto,
            session.proposal.prf,
            secret,
            AuthInput {
                message: &basis.request,
                peer_nonce: &basis.nonce_r,
                sk_p: &session.keys.pi,
                id_body: &id.rest_of_payload(),
                int_auth: &[],
            },
        );
        let mut payloads = vec![Payload::IdInitiator(id)];
        if initial_contact {
            payloads.push(notify(NotifyType::INITIAL_CONTACT, &[]));
        }
        payloads.push(Payload::Auth(AuthRepr {
            method: AuthMethod::SHARED_KEY,
            data: &auth,
        }));
        if with_child {
            payloads.push(Payload::Sa(SaRepr {
                proposals: vec![esp.to_wire(1, spi, EspExchange::IkeAuth)],
            }));
            payloads.extend(selectors(traffic));
        }
        Some(Draft::new(
            session.header(ExchangeType::IKE_AUTH),
            &payloads,
        ))
    }

    /// CREATE_CHILD_SA for a new CHILD_SA, or for the successor of one.
    pub(crate) fn create_child(
        &mut self,
        session: usize,
        esp: EspProposal,
        rekeys: Option<[u8; 4]>,
        traffic: (TrafficSelector, TrafficSelector),
    ) -> Draft {
        let spi = self.draw_esp_spi();
        let nonce = self.draw_nonce();
        let private = esp
            .ke
            .map(|method| self.crypto.key_exchange(method).expect("toy"));
        let mut payloads = Vec::new();
        if let Some(spi) = &rekeys {
            payloads.push(Payload::Notify(NotifyRepr::esp(NotifyType::REKEY_SA, spi)));
        }
        payloads.push(Payload::Sa(SaRepr {
            proposals: vec![esp.to_wire(1, spi, EspExchange::CreateChildSa)],
        }));
        payloads.push(Payload::Nonce(NonceRepr { data: &nonce }));
        payloads.extend(private.as_deref().map(ke));
        payloads.extend(selectors(traffic));
        let header = self.sessions[session].header(ExchangeType::CREATE_CHILD_SA);
        Draft::new(header, &payloads)
    }

    /// CREATE_CHILD_SA that rekeys the IKE SA.
    pub(crate) fn rekey(&mut self, session: usize, proposal: IkeProposal) -> Draft {
        let spi = self.draw_spi();
        let nonce = self.draw_nonce();
        let private = self.crypto.key_exchange(proposal.ke).expect("toy");
        let header = self.sessions[session].header(ExchangeType::CREATE_CHILD_SA);
        let draft = Draft::new(
            header,
            &[
                Payload::Sa(SaRepr {
                    proposals: vec![proposal.to_wire(1, &spi)],
                }),
                Payload::Nonce(NonceRepr { data: &nonce }),
                ke(&*private),
            ],
        );
        // Of two under one Message ID the answer does not say which of them it is for.
        let only = self.rekeyings.insert((session, header.message_id));
        self.offer = only.then_some(Offer {
            spi,
            nonce,
            proposal,
            private,
            by: Basis::Rekey {
                session,
                message_id: header.message_id,
            },
        });
        draft
    }

    /// What was sent last was spoilt: no keys come out of it.
    pub(crate) fn forget_offer(&mut self) {
        self.offer = None;
        self.series = None;
    }

    /// Seals a draft of a session.
    pub(crate) fn seal(&mut self, session: usize, draft: &Draft) -> Vec<u8> {
        let session = &mut self.sessions[session];
        session.iv += 1;
        draft.sealed(
            &*self.crypto,
            session.proposal.encryption,
            session.keys.ei.expose(),
            session.iv,
        )
    }

    /// Seals a draft of a session in fragments of `chunk` octets each.
    pub(crate) fn seal_fragments(
        &mut self,
        session: usize,
        draft: &Draft,
        chunk: usize,
    ) -> Vec<Vec<u8>> {
        let (first, chain) = draft.chain();
        let total = u16::try_from(chain.chunks(chunk).count()).expect("a small message");
        (1..)
            .zip(chain.chunks(chunk))
            .map(|(number, content)| {
                let first = if number == 1 { first } else { 0 };
                let content = [content, &[0]].concat();
                self.seal_fragment(session, &draft.header, (number, total), (first, &content))
            })
            .collect()
    }

    /// Seals one fragment: its two fields, the type of the first payload, and content with padding.
    pub(crate) fn seal_fragment(
        &mut self,
        session: usize,
        header: &HeaderRepr,
        fields: (u16, u16),
        content: (u8, &[u8]),
    ) -> Vec<u8> {
        let session = &mut self.sessions[session];
        session.iv += 1;
        let key = (session.proposal.encryption, session.keys.ei.expose());
        super::draft::seal_fragment(&*self.crypto, key, header, session.iv, fields, content)
    }

    /// Seals anything.
    pub(crate) fn seal_raw(
        &mut self,
        session: usize,
        header: &HeaderRepr,
        content: (u8, &[u8]),
    ) -> Vec<u8> {
        let session = &mut self.sessions[session];
        session.iv += 1;
        let key = (session.proposal.encryption, session.keys.ei.expose());
        super::draft::seal(&*self.crypto, key, header, session.iv, content)
    }

    /// Takes a response. Which session it belongs to and what it answers, if it is encrypted.
    ///
    /// # Panics
    ///
    /// If it is none that this peer can read.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Option<([u8; 8], u32)> {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            // INVALID_MAJOR_VERSION echoes the SPIs, whatever they are.
            Err(WireError::ZeroInitiatorSpi) => return None,
            Err(error) => panic!("the engine sent what we cannot read: {error}"),
        };
        let header = *message.header();
        if !header.response {
            // Unanswered unless the input says so: the engine has to cope with that.
            let spis = (header.initiator_spi, header.responder_spi);
            let same = |session: &Session| (session.spi_i, session.spi_r) == spis;
            self.asked = self.sessions.iter().position(same).map(|at| (at, header));
            return None;
        }
        match message.body() {
            Body::Clear(chain) => {
                let payloads = Payloads::parse(chain.clone()).expect("well-formed payloads");
                self.receive_init(bytes, &header, &payloads);
                None
            }
            Body::Encrypted(packet) => {
                let spis = (header.initiator_spi, header.responder_spi);
                let index = self
                    .sessions
                    .iter()
                    .position(|session| (session.spi_i, session.spi_r) == spis)
                    .expect("a session of this peer");
                let session = &self.sessions[index];
                let opened = packet
                    .open(
                        &*self.crypto,
                        session.proposal.encryption,
                        session.keys.er.expose(),
                    )
                    .expect("sealed with the right key");
                let payloads = opened.payloads().expect("well-formed payloads");
                if header.message_id == session.next_id {
                    self.advance(index, &payloads);
                }
                Some((spis.1, header.message_id))
            }
            Body::Fragment(..) => panic!("fragments were not negotiated"),
        }
    }

    fn receive_init(&mut self, bytes: &[u8], header: &HeaderRepr, payloads: &Payloads<'_>) {
        let Some(offer) = &self.offer else { return };
        let Basis::Init(request) = &offer.by else {
            return;
        };
        if header.exchange != ExchangeType::IKE_SA_INIT || header.initiator_spi != offer.spi {
            return;
        }
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            self.cookie = Some(cookie.data.to_vec());
            return;
        }
        let (Some(ke), Some(nonce)) = (payloads.ke, payloads.nonce) else {
            return;
        };
        let shared = offer.private.agree(ke.data).expect("a good public value");
        let prf = offer.proposal.prf;
        let seed = Skeyseed::initial(&*self.crypto, prf, &offer.nonce, nonce.data, &shared);
        let basis = AuthBasis {
            request: request.clone(),
            response: bytes.to_vec(),
            nonce_r: nonce.data.to_vec(),
        };
        let session = self.session(offer, &seed, nonce.data, header.responder_spi);
        self.offer = None;
        self.sessions.push(Session {
            next_id: 1,
            auth: Some(Box::new(basis)),
            ..session
        });
    }

    pub(super) fn session(
        &self,
        offer: &Offer,
        seed: &Skeyseed,
        nonce_r: &[u8],
        spi_r: [u8; 8],
    ) -> Session {
        let keys = IkeKeys::derive(
            &*self.crypto,
            offer.proposal.prf,
            offer.proposal.encryption,
            seed,
            (&offer.nonce, nonce_r),
            (&offer.spi, &spi_r),
        );
        Session {
            spi_i: offer.spi,
            spi_r,
            proposal: offer.proposal,
            keys: keys.expect("lengths of the suite"),
            next_id: 0,
            iv: 0,
            auth: None,
        }
    }

    /// The request of this Message ID is answered.
    fn advance(&mut self, index: usize, payloads: &Payloads<'_>) {
        let answered = self.sessions[index].next_id;
        self.sessions[index].next_id += 1;
        if let Some(basis) = self.sessions[index].auth.take()
            && payloads.auth.is_some()
        {
            assert_ne!(basis.request, basis.response);
        }
        self.advance_series(index, answered, payloads);
        let is_rekey = self.offer.as_ref().is_some_and(|offer| {
            matches!(offer.by, Basis::Rekey { session, message_id }
                if session == index && message_id == answered)
        });
        let proposal = payloads.sa.as_ref().and_then(|sa| sa.proposals.first());
        if let (true, Some(spi_r), Some(nonce), Some(ke)) = (
            is_rekey,
            proposal
                .filter(|p| p.protocol == ProtocolId::IKE)
                .and_then(gateway_ike::wire::Proposal::ike_spi),
            payloads.nonce,
            payloads.ke,
        ) && let Some(offer) = self.offer.take()
        {
            let shared = offer.private.agree(ke.data).expect("a good public value");
            if payloads.has_notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) {
                let successor = Successor {
                    offer,
                    nonce_r: nonce.data.to_vec(),
                    spi_r,
                    secrets: vec![shared],
                };
                self.begin_series(index, payloads, Some(successor));
                return;
            }
            let old = &self.sessions[index];
            let seed = Skeyseed::rekeyed(
                &*self.crypto,
                old.proposal.prf,
                &old.keys.d,
                &[shared],
                &offer.nonce,
                nonce.data,
            );
            let session = self.session(&offer, &seed, nonce.data, spi_r);
            self.sessions.push(session);
        } else if payloads.sa.is_some() {
            self.begin_series(index, payloads, None);
        }
    }
}

impl Session {
    /// Header of the next request.
    pub(crate) const fn header(&self, exchange: ExchangeType) -> HeaderRepr {
        HeaderRepr {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            exchange,
            from_initiator: true,
            response: false,
            message_id: self.next_id,
        }
    }
}

pub(super) const fn notify<'a>(kind: NotifyType, data: &'a [u8]) -> Payload<'a> {
    Payload::Notify(NotifyRepr::new(kind, data))
}

pub(super) fn ke(private: &dyn KeyExchange) -> Payload<'_> {
    Payload::Ke(KeRepr {
        method: private.method().transform_id(),
        data: private.public_value(),
    })
}

fn selectors<'a>((ours, theirs): (TrafficSelector, TrafficSelector)) -> [Payload<'a>; 2] {
    [
        Payload::TsInitiator(TsRepr {
            selectors: vec![ours],
        }),
        Payload::TsResponder(TsRepr {
            selectors: vec![theirs],
        }),
    ]
}
