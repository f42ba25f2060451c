//! Suites as the proposals of an offer, and the answer to one (RFC 7296 §3.3).

use super::additional::ADDITIONAL_TYPES;
use super::select::{EspExchange, NONE};
use super::{AdditionalKes, EspProposal, IkeProposal, MAX_ADDITIONAL_KES};
use crate::crypto::{Encryption, Integrity, KeyExchangeMethod, Prf};
use crate::wire::{Proposal, ProtocolId, Transform, TransformType};

/// The transforms of a suite, one of each type that it has.
type Row = Vec<Transform>;

/// Suites as proposals, in order of preference. Neighbours that are all combinations of some
/// transforms become one proposal. `spi` is empty in IKE_SA_INIT and our new SPI when an IKE SA is
/// rekeyed.
pub fn offer_ike(suites: &[IkeProposal], spi: &[u8]) -> Vec<Proposal> {
    let additional = ever_used(suites.iter().map(|suite| &suite.additional));
    let rows = suites.iter().map(|suite| {
        let mut row = encryption_row(suite.encryption);
        row.push(transform(TransformType::PRF, suite.prf.transform_id()));
        row.push(transform(TransformType::KE, suite.ke.transform_id()));
        push_additional(&mut row, &suite.additional, additional);
        in_order(row)
    });
    proposals(&rows.collect::<Vec<_>>(), ProtocolId::IKE, spi)
}

/// As [`offer_ike`], for a CHILD_SA. `spi` is our inbound SPI.
pub fn offer_esp(suites: &[EspProposal], spi: [u8; 4], exchange: EspExchange) -> Vec<Proposal> {
    let with_ke = exchange == EspExchange::CreateChildSa;
    let additional = ever_used(suites.iter().map(|suite| &suite.additional));
    let any_ke = suites.iter().any(|suite| suite.ke.is_some());
    let rows = suites.iter().map(|suite| {
        let mut row = encryption_row(suite.encryption);
        if with_ke && any_ke {
            let id = suite.ke.map_or(NONE, KeyExchangeMethod::transform_id);
            row.push(transform(TransformType::KE, id));
            push_additional(&mut row, &suite.additional, additional);
        }
        row.push(transform(TransformType::ESN, u16::from(suite.esn)));
        in_order(row)
    });
    proposals(&rows.collect::<Vec<_>>(), ProtocolId::ESP, &spi)
}

/// By type, as answers have them too.
fn in_order(mut row: Row) -> Row {
    row.sort_by_key(|transform| transform.kind.0);
    row
}

fn transform(kind: TransformType, id: u16) -> Transform {
    Transform::new(kind, id)
}

fn encryption_row(encryption: Encryption) -> Row {
    let id = encryption.transform_id();
    let cipher = match encryption.key_length_attribute() {
        Some(bits) => Transform::with_key_length(TransformType::ENCR, id, bits),
        None => transform(TransformType::ENCR, id),
    };
    // RFC 5282 §8: combined-mode algorithms are offered without an integrity algorithm.
    let integrity = encryption.integrity();
    let integrity = integrity.map(|one| transform(TransformType::INTEG, one.transform_id()));
    [cipher].into_iter().chain(integrity).collect()
}

/// Which additional key exchanges any of the suites has.
fn ever_used<'a>(all: impl Iterator<Item = &'a AdditionalKes>) -> [bool; MAX_ADDITIONAL_KES] {
    let mut used = [false; MAX_ADDITIONAL_KES];
    for one in all {
        for (used, method) in used.iter_mut().zip(one.by_type()) {
            *used |= method.is_some();
        }
    }
    used
}

/// RFC 9370 §2.2.1: NONE makes a key exchange that other suites have optional.
fn push_additional(row: &mut Row, additional: &AdditionalKes, used: [bool; MAX_ADDITIONAL_KES]) {
    let types = ADDITIONAL_TYPES.iter().zip(additional.by_type()).zip(used);
    row.extend(types.filter(|(_, used)| *used).map(|((kind, method), _)| {
        transform(*kind, method.map_or(NONE, KeyExchangeMethod::transform_id))
    }));
}

/// As few proposals as say the same in the same order; there is room for 255.
fn proposals(rows: &[Row], protocol: ProtocolId, spi: &[u8]) -> Vec<Proposal> {
    let mut distinct: Vec<&Row> = Vec::new();
    for row in rows {
        if !distinct.contains(&row) {
            distinct.push(row);
        }
    }
    let mut rest = &distinct[..];
    let mut all = Vec::new();
    for number in 1..=u8::MAX {
        if rest.is_empty() {
            break;
        }
        let (transforms, taken) = fold(rest);
        rest = rest.get(taken..).unwrap_or_default();
        all.push(Proposal {
            number,
            protocol,
            spi: spi.to_vec(),
            transforms,
        });
    }
    all
}

/// The longest beginning of `rows` that is all combinations of some transforms: these, by type, and
/// how many rows they stand for.
fn fold(rows: &[&Row]) -> (Vec<Transform>, usize) {
    let kinds = |row: &Row| row.iter().map(|t| t.kind).collect::<Vec<_>>();
    let Some(first) = rows.first() else {
        return (Vec::new(), 0);
    };
    let mut columns: Vec<Vec<Transform>> = vec![Vec::new(); first.len()];
    let mut best = (Vec::new(), 0);
    for (index, row) in rows.iter().enumerate() {
        if kinds(row) != kinds(first) {
            break;
        }
        for (column, transform) in columns.iter_mut().zip(row.iter()) {
            if !column.contains(transform) {
                column.push(transform.clone());
            }
        }
        // The rows are distinct, so as many as there are combinations are all of them.
        if columns.iter().map(Vec::len).product::<usize>() == index + 1 {
            best = (columns.concat(), index + 1);
        }
    }
    best
}

/// The suite of an answer, if it is one that we offered (RFC 7296 §2.7: one transform of each type,
/// out of one of our proposals).
pub(crate) fn agreed_ike(offered: &[Proposal], answer: &Proposal) -> Option<IkeProposal> {
    let answer = Answer::to(offered, answer)?;
    Some(IkeProposal {
        encryption: answer.encryption()?,
        prf: Prf::from_transform_id(answer.id(TransformType::PRF))?,
        ke: KeyExchangeMethod::from_transform_id(answer.id(TransformType::KE))?,
        additional: answer.additional()?,
    })
}

/// As [`agreed_ike`], for a CHILD_SA.
pub(crate) fn agreed_esp(offered: &[Proposal], answer: &Proposal) -> Option<EspProposal> {
    let answer = Answer::to(offered, answer)?;
    let ke = match answer.id(TransformType::KE) {
        NONE => None,
        id => Some(KeyExchangeMethod::from_transform_id(id)?),
    };
    Some(EspProposal {
        encryption: answer.encryption()?,
        ke,
        additional: answer.additional()?,
        esn: answer.id(TransformType::ESN) == 1,
    })
}

/// An answer that is one of the combinations that we offered.
struct Answer<'a>(&'a [Transform]);

impl<'a> Answer<'a> {
    fn to(offered: &[Proposal], answer: &'a Proposal) -> Option<Self> {
        let offer = offered
            .iter()
            .find(|o| o.number == answer.number && o.protocol == answer.protocol)?;
        let transforms = &answer.transforms;
        let count = |list: &[Transform], kind| list.iter().filter(|t| t.kind == kind).count();
        // Who takes NONE may leave the type out, as strongSwan 5.9.8 does with key exchanges.
        let optional = |kind| {
            let none = |t: &Transform| t.kind == kind && t.id == NONE;
            kind != TransformType::ESN && offer.transforms.iter().any(none)
        };
        let one_of_each =
            offer
                .transforms
                .iter()
                .all(|offered| match count(transforms, offered.kind) {
                    0 => optional(offered.kind),
                    count => count == 1,
                });
        let all_offered = transforms.iter().all(|t| offer.transforms.contains(t));
        (one_of_each && all_offered).then_some(Self(transforms))
    }

    /// The id of this type, [`NONE`] if there is none.
    fn id(&self, kind: TransformType) -> u16 {
        let found = self.0.iter().find(|t| t.kind == kind);
        found.map_or(NONE, |transform| transform.id)
    }

    fn encryption(&self) -> Option<Encryption> {
        let cipher = self.0.iter().find(|t| t.kind == TransformType::ENCR)?;
        let integrity = match self.id(TransformType::INTEG) {
            NONE => None,
            id => Some(Integrity::from_transform_id(id)?),
        };
        Encryption::all().find(|one| {
            one.transform_id() == cipher.id
                && one.key_length_attribute() == cipher.key_length()
                && one.integrity() == integrity
        })
    }

    /// `None` if a method comes twice (RFC 9370 §2.2.1).
    fn additional(&self) -> Option<AdditionalKes> {
        let mut methods = [None; MAX_ADDITIONAL_KES];
        for (method, kind) in methods.iter_mut().zip(ADDITIONAL_TYPES) {
            *method = match self.id(kind) {
                NONE => None,
                id => Some(KeyExchangeMethod::from_transform_id(id)?),
            };
        }
        let additional = AdditionalKes::new(methods);
        (!additional.has_duplicates()).then_some(additional)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7296 §3.3.3: a type of which NONE was offered is optional. strongSwan 5.9.8 leaves it out.
    #[test]
    fn who_takes_none_may_leave_the_type_out() {
        let texts = ["aes128gcm16", "aes128gcm16-x25519"];
        let suites = texts.map(|text| EspProposal::parse(text).unwrap()).concat();
        let offered = offer_esp(&suites, [1; 4], EspExchange::CreateChildSa);
        assert_eq!(offered.len(), 1, "one proposal says both");
        let answer = |keep: &dyn Fn(&Transform) -> bool| {
            let mut answer = offered[0].clone();
            answer.transforms.retain(keep);
            agreed_esp(&offered, &answer)
        };
        let without_ke = answer(&|t| t.kind != TransformType::KE).unwrap();
        assert_eq!(without_ke, suites[0]);
        let with_none = answer(&|t| t.kind != TransformType::KE || t.id == NONE).unwrap();
        assert_eq!(with_none, without_ke);
        let with_ke = answer(&|t| t.kind != TransformType::KE || t.id != NONE).unwrap();
        assert_eq!(with_ke, suites[1]);
        // What nobody made optional has to be there, and an extended sequence number's 0 is no NONE.
        assert_eq!(answer(&|t| t.kind != TransformType::ESN), None);
        assert_eq!(answer(&|t| t.kind != TransformType::ENCR), None);
        let strict = offer_esp(&suites[1..], [1; 4], EspExchange::CreateChildSa);
        let mut answer = strict[0].clone();
        answer.transforms.retain(|t| t.kind != TransformType::KE);
        assert_eq!(agreed_esp(&strict, &answer), None);
    }
}
