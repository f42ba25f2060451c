//! Additional key exchanges (RFC 9370 §2.2.4) that a peer begins and goes on with, or not.

use gateway_ike::crypto::{Encryption, KeyExchange, KeyExchangeMethod, Prf};
use gateway_ike::keys::Skeyseed;
use gateway_ike::proposal::{AdditionalKes, EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::{ExchangeType, NotifyType, Payloads};

use super::draft::Draft;
use super::peer::{Offer, Peer, ke, notify};
use super::setup::traffic;
use super::world::World;
use super::{pick_session, send};
use crate::fuzz::input::Input;

const ADDITIONAL: AdditionalKes = AdditionalKes::new([
    Some(KeyExchangeMethod::MlKem512),
    None,
    Some(KeyExchangeMethod::Ecp256),
    None,
    None,
    None,
    None,
]);

/// The last one that is configured.
pub(super) const IKE: IkeProposal = IkeProposal {
    encryption: Encryption::AesGcm16Key128,
    prf: Prf::HmacSha256,
    ke: KeyExchangeMethod::X25519,
    additional: ADDITIONAL,
};

/// As above.
pub(super) const ESP: EspProposal = EspProposal {
    encryption: Encryption::AesGcm16Key128,
    ke: Some(KeyExchangeMethod::X25519),
    additional: ADDITIONAL,
    esn: false,
};

/// What the peer goes on with.
pub(super) struct Series {
    session: usize,
    link: Vec<u8>,
    pending: Vec<KeyExchangeMethod>,
    /// Message ID and private value of the exchange that is under way.
    asked: Option<(u32, Box<dyn KeyExchange>)>,
    successor: Option<Successor>,
}

/// A successor of the IKE SA that is about to be made.
pub(super) struct Successor {
    pub(super) offer: Offer,
    pub(super) nonce_r: Vec<u8>,
    /// The engine's SPI.
    pub(super) spi_r: [u8; 8],
    /// So far.
    pub(super) secrets: Vec<SecretBytes>,
}

impl Peer {
    /// The answer to CREATE_CHILD_SA says that additional key exchanges have to follow.
    pub(super) fn begin_series(
        &mut self,
        session: usize,
        payloads: &Payloads<'_>,
        successor: Option<Successor>,
    ) {
        let Some(link) = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) else {
            return;
        };
        self.series = Some(Series {
            session,
            link: link.data.to_vec(),
            pending: ADDITIONAL.iter().collect(),
            asked: None,
            successor,
        });
    }

    /// IKE_FOLLOWUP_KE; `garbled` changes the link.
    fn follow_up(&mut self, session: usize, garbled: u8) -> Draft {
        let header = self.sessions[session].header(ExchangeType::IKE_FOLLOWUP_KE);
        let series = self.series.as_mut().filter(|s| s.session == session);
        let method = series.as_ref().and_then(|s| s.pending.first().copied());
        let method = method.unwrap_or(KeyExchangeMethod::MlKem512);
        let private = self.crypto.key_exchange(method).expect("toy");
        let mut link = series.as_ref().map_or(vec![0; 8], |s| s.link.clone());
        if let Some(octet) = link.first_mut() {
            *octet ^= garbled;
        }
        let link = notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        let draft = Draft::new(header, &[ke(&*private), link]);
        // Of two under one Message ID the answer does not say which of them it is for.
        match series {
            Some(series) if series.asked.is_none() => {
                series.asked = Some((header.message_id, private));
            }
            _ => self.series = None,
        }
        draft
    }

    /// A request of this Message ID is answered.
    pub(super) fn advance_series(
        &mut self,
        session: usize,
        answered: u32,
        payloads: &Payloads<'_>,
    ) {
        let Some(mut series) = self.series.take() else {
            return;
        };
        let mine = |(id, _): &mut (u32, Box<dyn KeyExchange>)| *id == answered;
        if series.session != session {
            self.series = Some(series);
            return;
        }
        let Some((_, private)) = series.asked.take_if(mine) else {
            self.series = Some(series);
            return;
        };
        // What else was sent under this Message ID has another method, or none.
        let wanted = series.pending[0].transform_id();
        let Some(theirs) = payloads.ke.filter(|ke| ke.method == wanted) else {
            return;
        };
        let shared = private.agree(theirs.data).expect("a good public value");
        series.pending.remove(0);
        if let Some(successor) = &mut series.successor {
            successor.secrets.push(shared);
        }
        if let Some(link) = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) {
            let link = link.data.to_vec();
            self.series = Some(Series { link, ..series });
            return;
        }
        let Some(successor) = series.successor else {
            return;
        };
        let Successor {
            offer,
            nonce_r,
            spi_r,
            secrets,
        } = successor;
        let old = &self.sessions[session];
        let (prf, sk_d) = (old.proposal.prf, &old.keys.d);
        let seed = Skeyseed::rekeyed(&*self.crypto, prf, sk_d, &secrets, &offer.nonce, &nonce_r);
        let successor = self.session(&offer, &seed, &nonce_r, spi_r);
        self.sessions.push(successor);
    }
}

/// Begins, goes on, or does something wrong.
pub(super) fn follow_up(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let choice = input.octet();
    let peer = &mut world.peers[at];
    let draft = match choice & 7 {
        0 | 1 => {
            let rekeys = (choice & 1 != 0)
                .then(|| peer.esp_spis.get(input.index(peer.esp_spis.len())).copied())
                .flatten();
            peer.create_child(session, ESP, rekeys, traffic(choice & 0x40 != 0, false))
        }
        2 => peer.rekey(session, IKE),
        3 => peer.follow_up(session, input.octet()),
        _ => peer.follow_up(session, 0),
    };
    send(world, input, (at, session), draft);
}
