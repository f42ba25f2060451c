//! CREATE_CHILD_SA (RFC 7296 §1.3): new CHILD_SAs and successors of old ones.

use gateway_common::time::Instant;

use crate::endpoint::core::Core;
use crate::error::{IkeError, PolicyError};
use crate::record::Purpose;
use crate::sa::child::{ChildRequest, rekeyed};
use crate::sa::{IkeSa, Request, Step, draw_nonce};
use crate::wire::{MessageBuilder, Payloads, ProtocolId};

impl IkeSa {
    /// RFC 7296 §2.25.2: no CHILD_SA is made or rekeyed while the IKE SA is rekeyed or closed.
    fn collides_with_child(&self) -> Result<(), PolicyError> {
        let Some(established) = self.established() else {
            return Ok(());
        };
        if established.closing {
            return Err(PolicyError::TemporaryFailure("this IKE SA is being closed"));
        }
        match established.outstanding.as_ref().map(|o| &o.request.purpose) {
            _ if established.awaits_successor() => Err(PolicyError::TemporaryFailure(
                "this IKE SA is being rekeyed, with additional key exchanges",
            )),
            Some(Purpose::RekeyIke(_)) => Err(PolicyError::TemporaryFailure(
                "this IKE SA is being rekeyed",
            )),
            _ => Ok(()),
        }
    }

    /// Answers CREATE_CHILD_SA of an authenticated peer.
    ///
    /// # Errors
    /// What the peer is told; a failed attempt leaves the IKE SA as it is (RFC 7296 §1.3.1) unless
    /// the error is fatal.
    pub(in crate::sa) fn create_child_sa(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        // RFC 7296 §2.18: "The TS payloads are omitted when rekeying an IKE SA", and the proposals
        // are for IKE.
        let is_for_ike = payloads
            .require_sa()?
            .proposals
            .first()
            .is_some_and(|proposal| proposal.protocol == ProtocolId::IKE);
        if is_for_ike {
            return self.rekey(core, now, request, payloads);
        }
        if self.is_replaced() {
            // RFC 7296 §2.25.2 asks for TEMPORARY_FAILURE while we rekey the IKE SA; here the peer
            // already did, so there is nothing to wait for.
            return Err(PolicyError::NoAdditionalSas("this IKE SA has a successor").into());
        }
        self.collides_with_child()?;
        let nonce_r = draw_nonce(&*core.crypto);
        let child = ChildRequest::in_create(payloads, &nonce_r, rekeyed(payloads)?)?;
        // RFC 7296 §1.3.1: USE_TRANSPORT_MODE is declined by leaving it out of the answer; so are
        // IPCOMP_SUPPORTED and NON_FIRST_FRAGMENTS_ALSO.
        let base = MessageBuilder::new(request.header.to_response());
        self.create_child(core, now, request, &child, base, None)
    }
}
