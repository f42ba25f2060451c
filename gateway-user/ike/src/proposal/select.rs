//! The responder's choice (RFC 7296 §2.7, §3.3.6).

use super::additional::ADDITIONAL_TYPES;
use super::names::offer_text;
use super::{AdditionalKes, EspProposal, IkeProposal, offer_esp, offer_ike};
use crate::crypto::{Encryption, KeyExchangeMethod};
use crate::wire::{Proposal, ProtocolId, Transform, TransformType};

/// Transform ID of "none" for INTEG, KE and the additional key exchanges.
pub(super) const NONE: u16 = 0;

/// What was chosen out of an SA payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<P> {
    /// The suite.
    pub suite: P,
    /// The initiator's SPI from the chosen proposal: empty in IKE_SA_INIT, 8 octets when an IKE SA
    /// is rekeyed, 4 for ESP.
    pub peer_spi: Vec<u8>,
    answer: Proposal,
}

impl<P> Chosen<P> {
    /// The proposal for the response's SA payload: the number of the chosen one, one transform of
    /// every type in it, and our SPI (empty in IKE_SA_INIT).
    pub fn answer(&self, our_spi: &[u8]) -> Proposal {
        Proposal {
            spi: our_spi.to_vec(),
            ..self.answer.clone()
        }
    }
}

/// Nothing that the peer offers is configured (RFC 7296 §2.7: NO_PROPOSAL_CHOSEN).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no proposal chosen: offered {offered}; we accept {accepted}")]
pub struct NoProposalChosen {
    /// The offer in strongSwan's notation, cut to a length that fits a log line.
    pub offered: String,
    /// Our list in strongSwan's notation.
    pub accepted: String,
}

/// Which exchange an ESP offer came in: the rules for key exchange methods differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EspExchange {
    /// IKE_AUTH: there is no KE payload, so a method other than NONE cannot be meant and is ignored
    /// (RFC 7296 §1.2), and a configured one does not apply yet.
    IkeAuth,
    /// CREATE_CHILD_SA: the method is negotiated. Answer INVALID_KE_PAYLOAD with
    /// [`EspProposal::ke`] of the chosen suite if the request's KE payload is of another one
    /// (RFC 7296 §1.3).
    CreateChildSa,
}

/// Transform types 1 to 12 by number; 0 is none.
const TYPES: usize = 13;

/// What a proposal offers of what we know: for every transform type that is in it the transforms,
/// one bit each. Looked at once, however many suites are compared with it.
struct Offered([Option<u64>; TYPES]);

/// Bit 0 is NONE, and for ESN "no".
const NONE_BIT: u64 = 1;

impl Offered {
    /// `None` if there is a type that we do not know: the proposal is unacceptable (RFC 7296
    /// §3.3.6).
    ///
    /// Transforms with unknown ids or attributes are skipped, because they are no wanted transform;
    /// so is AES without Key Length (§3.3.5, RFC 5282 §7.3).
    fn new(proposal: &Proposal) -> Option<Self> {
        let mut offered = [None; TYPES];
        for transform in &proposal.transforms {
            let kind = usize::from(transform.kind.0);
            let types = offered.get_mut(kind).filter(|_| kind != 0)?;
            *types = Some(types.unwrap_or(0) | known_bit(transform).unwrap_or(0));
        }
        Some(Self(offered))
    }

    fn of(&self, kind: TransformType) -> Option<u64> {
        self.0.get(usize::from(kind.0)).copied().flatten()
    }

    /// One transform of every type in the proposal, or `None` if that cannot be.
    fn choose(&self, wanted: &Wanted) -> Option<Vec<Transform>> {
        let mut chosen = Vec::new();
        for (kind, wish) in (1..).map(TransformType).zip(wanted.0.get(1..)?) {
            let Some(bits) = self.of(kind) else {
                match wish {
                    Wish::Transform(_) => return None,
                    Wish::Nothing | Wish::Ignored | Wish::Foreign => continue,
                }
            };
            match wish {
                Wish::Transform(transform) if bits & known_bit(transform)? != 0 => {
                    chosen.push(transform.clone());
                }
                Wish::Nothing if bits & NONE_BIT != 0 => chosen.push(Transform::new(kind, NONE)),
                Wish::Ignored => {
                    if bits & NONE_BIT != 0 {
                        chosen.push(Transform::new(kind, NONE));
                    }
                }
                Wish::Transform(_) | Wish::Nothing | Wish::Foreign => return None,
            }
        }
        Some(chosen)
    }
}

/// The bit of a transform, if we know it.
fn known_bit(transform: &Transform) -> Option<u64> {
    if transform.kind == TransformType::ENCR {
        let same = |one: &Encryption| {
            one.transform_id() == transform.id
                && one.key_length_attribute() == transform.key_length()
        };
        // A key length that it must not have is an attribute too much.
        let at = Encryption::all().position(|one| same(&one))?;
        return (transform.has_only_known_attributes()).then_some(1 << (at + 1));
    }
    let known = transform.attributes.is_empty() && transform.id < 64;
    known.then(|| 1 << transform.id)
}

/// What a suite wants of each transform type.
struct Wanted([Wish; TYPES]);

enum Wish {
    /// The proposal must offer this transform.
    Transform(Transform),
    /// No such transform: not a word about the type is as good as an offer of NONE (RFC 7296
    /// §3.3.3: optional types).
    Nothing,
    /// Whatever is offered of this type is ignored; NONE, if there, is answered with NONE.
    Ignored,
    /// The type does not belong into such a proposal.
    Foreign,
}

impl Wanted {
    fn new() -> Self {
        Self([const { Wish::Foreign }; TYPES])
    }

    fn set(&mut self, kind: TransformType, wish: Wish) {
        if let Some(place) = self.0.get_mut(usize::from(kind.0)) {
            *place = wish;
        }
    }

    fn transform(&mut self, kind: TransformType, id: u16) {
        self.set(kind, Wish::Transform(Transform::new(kind, id)));
    }

    fn encryption(&mut self, encryption: Encryption) {
        let (kind, id) = (TransformType::ENCR, encryption.transform_id());
        match encryption.key_length_attribute() {
            Some(bits) => {
                let transform = Transform::with_key_length(kind, id, bits);
                self.set(kind, Wish::Transform(transform));
            }
            None => self.transform(kind, id),
        }
        match encryption.integrity() {
            Some(integrity) => self.transform(TransformType::INTEG, integrity.transform_id()),
            None => self.set(TransformType::INTEG, Wish::Nothing),
        }
    }

    fn key_exchange(&mut self, kind: TransformType, method: Option<KeyExchangeMethod>) {
        match method {
            Some(method) => self.transform(kind, method.transform_id()),
            None => self.set(kind, Wish::Nothing),
        }
    }

    fn additional(&mut self, additional: &AdditionalKes) {
        for (kind, method) in ADDITIONAL_TYPES.into_iter().zip(additional.by_type()) {
            self.key_exchange(kind, *method);
        }
    }

    fn ike(suite: &IkeProposal) -> Self {
        let mut wanted = Self::new();
        wanted.encryption(suite.encryption);
        wanted.transform(TransformType::PRF, suite.prf.transform_id());
        wanted.key_exchange(TransformType::KE, Some(suite.ke));
        wanted.additional(&suite.additional);
        wanted
    }

    fn esp(suite: &EspProposal, exchange: EspExchange) -> Self {
        let mut wanted = Self::new();
        wanted.encryption(suite.encryption);
        wanted.transform(TransformType::ESN, u16::from(suite.esn));
        match exchange {
            EspExchange::IkeAuth => {
                wanted.set(TransformType::KE, Wish::Ignored);
                for kind in ADDITIONAL_TYPES {
                    wanted.set(kind, Wish::Ignored);
                }
            }
            EspExchange::CreateChildSa => {
                wanted.key_exchange(TransformType::KE, suite.ke);
                wanted.additional(&suite.additional);
            }
        }
        wanted
    }
}

impl IkeProposal {
    /// The suite as the only proposal of an offer, numbered `number`; see [`offer_ike`].
    pub fn to_wire(&self, number: u8, spi: &[u8]) -> Proposal {
        let transforms = offer_ike(&[*self], spi).into_iter().next();
        Proposal {
            number,
            protocol: ProtocolId::IKE,
            spi: spi.to_vec(),
            transforms: transforms.map(|one| one.transforms).unwrap_or_default(),
        }
    }
}

impl EspProposal {
    /// The suite as the only proposal of an offer, numbered `number`; see [`offer_esp`].
    pub fn to_wire(&self, number: u8, spi: [u8; 4], exchange: EspExchange) -> Proposal {
        let transforms = offer_esp(&[*self], spi, exchange).into_iter().next();
        Proposal {
            number,
            protocol: ProtocolId::ESP,
            spi: spi.to_vec(),
            transforms: transforms.map(|one| one.transforms).unwrap_or_default(),
        }
    }
}

/// Chooses the IKE SA's suite: our first one that is in any of the offered proposals. `spi_len` is
/// 0 in IKE_SA_INIT and 8 when an IKE SA is rekeyed.
///
/// If the request's KE payload is not of [`IkeProposal::ke`] of the chosen suite, only the
/// initiator's guess was wrong: answer INVALID_KE_PAYLOAD with that method (RFC 7296 §1.2, §2.7).
pub fn select_ike(
    offered: &[Proposal],
    configured: &[IkeProposal],
    spi_len: usize,
) -> Result<Chosen<IkeProposal>, NoProposalChosen> {
    select(
        offered,
        configured,
        (ProtocolId::IKE, spi_len),
        Wanted::ike,
        |configured| offer_text(&offer_ike(configured, &[])),
    )
}

/// Chooses a CHILD_SA's suite: our first one that is in any of the offered proposals. For an offer
/// in IKE_AUTH the chosen suite has no key exchange.
pub fn select_esp(
    offered: &[Proposal],
    configured: &[EspProposal],
    exchange: EspExchange,
) -> Result<Chosen<EspProposal>, NoProposalChosen> {
    let mut chosen = select(
        offered,
        configured,
        (ProtocolId::ESP, 4),
        |suite| Wanted::esp(suite, exchange),
        |configured| offer_text(&offer_esp(configured, [0; 4], exchange)),
    )?;
    if exchange == EspExchange::IkeAuth {
        chosen.suite.ke = None;
        chosen.suite.additional = AdditionalKes::NONE;
    }
    Ok(chosen)
}

fn select<P: Copy>(
    offered: &[Proposal],
    configured: &[P],
    (protocol, spi_len): (ProtocolId, usize),
    wanted: impl Fn(&P) -> Wanted,
    text: impl Fn(&[P]) -> String,
) -> Result<Chosen<P>, NoProposalChosen> {
    let candidates: Vec<_> = offered
        .iter()
        .filter(|offer| offer.protocol == protocol && offer.spi.len() == spi_len)
        .filter_map(|offer| Some((offer, Offered::new(offer)?)))
        .collect();
    for suite in configured {
        let wanted = wanted(suite);
        for (offer, contents) in &candidates {
            if let Some(transforms) = contents.choose(&wanted) {
                return Ok(Chosen {
                    suite: *suite,
                    peer_spi: offer.spi.clone(),
                    answer: Proposal {
                        number: offer.number,
                        protocol,
                        spi: Vec::new(),
                        transforms,
                    },
                });
            }
        }
    }
    Err(NoProposalChosen {
        offered: offer_text(offered),
        accepted: text(configured),
    })
}
