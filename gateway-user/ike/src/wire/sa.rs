//! The Security Association payload (RFC 7296 §3.3).

use super::transform::malformed;
use super::{EncodeError, Malformation, PayloadType, Proposal, ProposalPacket, WireError};

/// Most proposals in an SA payload: they are numbered from 1 in one octet.
pub const MAX_PROPOSALS: usize = 255;

/// A view of an SA payload's body.
#[derive(Clone, Copy, Debug)]
pub struct SaPacket<'a>(&'a [u8]);

impl<'a> SaPacket<'a> {
    /// Checks the proposals' lengths, not what is inside them. Fails if there is none, or more
    /// than [`MAX_PROPOSALS`].
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        if body.is_empty() {
            return Err(malformed(Malformation::Empty));
        }
        let mut rest = body;
        let mut count = 0;
        while !rest.is_empty() {
            count += 1;
            if count > MAX_PROPOSALS {
                return Err(malformed(Malformation::Count));
            }
            (_, rest) = ProposalPacket::split_checked(rest)?;
        }
        Ok(Self(body))
    }

    /// The proposals.
    pub fn proposals(&self) -> impl Iterator<Item = ProposalPacket<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            // At the end of the octets, which were checked, this fails and ends the iteration.
            let (packet, tail) = ProposalPacket::split_checked(rest).ok()?;
            rest = tail;
            Some(packet)
        })
    }
}

/// An offer, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaRepr {
    /// 1–255, in order of preference.
    pub proposals: Vec<Proposal>,
}

impl SaRepr {
    /// Fails as [`Proposal::parse`].
    pub fn parse(packet: &SaPacket<'_>) -> Result<Self, WireError> {
        let proposals = packet
            .proposals()
            .map(|proposal| Proposal::parse(&proposal))
            .collect::<Result<_, _>>()?;
        Ok(Self { proposals })
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        self.proposals.iter().map(Proposal::buffer_len).sum()
    }

    /// Appends the body. Fails without proposals, or with more than [`MAX_PROPOSALS`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.proposals.is_empty() || self.proposals.len() > MAX_PROPOSALS {
            return Err(EncodeError::OutOfRange(PayloadType::SA));
        }
        for (index, proposal) in self.proposals.iter().enumerate() {
            proposal.encode(index + 1 == self.proposals.len(), out)?;
        }
        Ok(())
    }
}
