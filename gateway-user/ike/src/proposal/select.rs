//! The responder's choice (RFC 7296 §2.7, §3.3.6).

use super::{EspProposal, IkeProposal, offer_text};
use crate::crypto::Encryption;
use crate::wire::{Proposal, ProtocolId, Transform, TransformType};

/// Transform ID of "none" for INTEG and KE.
const NONE: u16 = 0;

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

/// For every type of transform in a proposal, the id that is wanted; a type that is not here
/// must not be in the proposal.
struct Wanted {
    /// The transform itself (a key length belongs to it), and whether the proposal must have it.
    transforms: Vec<(Transform, Presence)>,
}

/// How a type of transform may be absent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// The proposal must offer this transform.
    Required,
    /// Not a word about the type is as good as an offer of NONE (RFC 7296 §3.3.3: optional types).
    IfPresent,
    /// Whatever is offered of this type is ignored; NONE, if there, is answered with NONE.
    Ignored,
}

impl Wanted {
    fn ike(suite: IkeProposal) -> Self {
        let [encryption, prf, ke] = ike_transforms(suite);
        Self {
            transforms: vec![
                (encryption, Presence::Required),
                (prf, Presence::Required),
                (no_integrity(), Presence::IfPresent),
                (ke, Presence::Required),
            ],
        }
    }

    fn esp(suite: EspProposal, exchange: EspExchange) -> Self {
        let ke = match (exchange, suite.ke) {
            (EspExchange::IkeAuth, _) => (transform(TransformType::KE, NONE), Presence::Ignored),
            (EspExchange::CreateChildSa, None) => {
                (transform(TransformType::KE, NONE), Presence::IfPresent)
            }
            (EspExchange::CreateChildSa, Some(method)) => (
                transform(TransformType::KE, method.transform_id()),
                Presence::Required,
            ),
        };
        Self {
            transforms: vec![
                (encryption(suite.encryption), Presence::Required),
                (no_integrity(), Presence::IfPresent),
                ke,
                (esn(suite.esn), Presence::Required),
            ],
        }
    }

    /// One transform of every type in `offered`, or `None` if that cannot be.
    ///
    /// Transforms with unknown ids or attributes are skipped, because they are no wanted transform;
    /// so is AES-GCM without Key Length (RFC 7296 §3.3.5, RFC 5282 §7.3). A type that we do not
    /// know makes the proposal unacceptable (§3.3.6).
    fn choose(&self, offered: &Proposal) -> Option<Vec<Transform>> {
        let known = |transform: &Transform| {
            self.transforms
                .iter()
                .any(|(wanted, _)| wanted.kind == transform.kind)
        };
        if !offered.transforms.iter().all(known) {
            return None;
        }
        let mut chosen = Vec::new();
        for (wanted, presence) in &self.transforms {
            if offered.transforms.contains(wanted) {
                chosen.push(wanted.clone());
                continue;
            }
            let absent = offered.transforms.iter().all(|t| t.kind != wanted.kind);
            match presence {
                Presence::Ignored => {}
                Presence::IfPresent if absent => {}
                Presence::IfPresent | Presence::Required => return None,
            }
        }
        Some(chosen)
    }
}

fn transform(kind: TransformType, id: u16) -> Transform {
    Transform::new(kind, id)
}

fn encryption(encryption: Encryption) -> Transform {
    Transform::with_key_length(
        TransformType::ENCR,
        encryption.transform_id(),
        encryption.key_bits(),
    )
}

fn no_integrity() -> Transform {
    transform(TransformType::INTEG, NONE)
}

fn esn(esn: bool) -> Transform {
    transform(TransformType::ESN, u16::from(esn))
}

fn ike_transforms(suite: IkeProposal) -> [Transform; 3] {
    [
        encryption(suite.encryption),
        transform(TransformType::PRF, suite.prf.transform_id()),
        transform(TransformType::KE, suite.ke.transform_id()),
    ]
}

impl IkeProposal {
    /// The suite as a proposal of an offer. `number` counts from 1; `spi` is empty in IKE_SA_INIT
    /// and our new SPI when an IKE SA is rekeyed.
    pub fn to_wire(&self, number: u8, spi: &[u8]) -> Proposal {
        Proposal {
            number,
            protocol: ProtocolId::IKE,
            spi: spi.to_vec(),
            transforms: ike_transforms(*self).to_vec(),
        }
    }
}

impl EspProposal {
    /// The suite as a proposal of an offer in `exchange`. `number` counts from 1; `spi` is our
    /// inbound SPI.
    pub fn to_wire(&self, number: u8, spi: [u8; 4], exchange: EspExchange) -> Proposal {
        let ke = self.ke.filter(|_| exchange == EspExchange::CreateChildSa);
        let mut transforms = vec![encryption(self.encryption)];
        transforms.extend(ke.map(|ke| transform(TransformType::KE, ke.transform_id())));
        transforms.push(esn(self.esn));
        Proposal {
            number,
            protocol: ProtocolId::ESP,
            spi: spi.to_vec(),
            transforms,
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
        |suite| Wanted::ike(*suite),
        IkeProposal::iana,
    )
}

/// Chooses a CHILD_SA's suite: our first one that is in any of the offered proposals. For an offer
/// in IKE_AUTH the chosen suite has no [`EspProposal::ke`].
pub fn select_esp(
    offered: &[Proposal],
    configured: &[EspProposal],
    exchange: EspExchange,
) -> Result<Chosen<EspProposal>, NoProposalChosen> {
    let mut chosen = select(
        offered,
        configured,
        (ProtocolId::ESP, 4),
        |suite| Wanted::esp(*suite, exchange),
        EspProposal::iana,
    )?;
    if exchange == EspExchange::IkeAuth {
        chosen.suite.ke = None;
    }
    Ok(chosen)
}

fn select<P: Copy>(
    offered: &[Proposal],
    configured: &[P],
    (protocol, spi_len): (ProtocolId, usize),
    wanted: impl Fn(&P) -> Wanted,
    iana: impl Fn(&P) -> String,
) -> Result<Chosen<P>, NoProposalChosen> {
    for suite in configured {
        let wanted = wanted(suite);
        let candidates = offered
            .iter()
            .filter(|offer| offer.protocol == protocol && offer.spi.len() == spi_len);
        for offer in candidates {
            if let Some(transforms) = wanted.choose(offer) {
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
    let accepted: Vec<_> = configured.iter().map(iana).collect();
    Err(NoProposalChosen {
        offered: offer_text(offered),
        accepted: accepted.join(", "),
    })
}
