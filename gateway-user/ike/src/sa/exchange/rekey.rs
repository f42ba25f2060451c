//! CREATE_CHILD_SA that rekeys the IKE SA itself (RFC 7296 §1.3.2, §2.18), as its responder.

use gateway_common::time::Instant;

use crate::endpoint::{core::Core, spi};
use crate::error::{IkeError, LocalError, PeerError, PolicyError};
use crate::keys::{IkeKeys, Skeyseed};
use crate::proposal::select_ike;
use crate::record::Role;
use crate::sa::window::Window;
use crate::sa::{
    Answer, Established, IkeSa, Request, State, Step, draw_nonce, exchange, fresh_ivs,
};
use crate::wire::{KeRepr, MessageBuilder, NonceRepr, Payload, Payloads, SaRepr};

/// Octets of an IKE SPI in a proposal.
const IKE_SPI_LEN: usize = 8;

impl IkeSa {
    /// Makes the successor, which takes slot, children and identities. The peer, who asked, is its
    /// original initiator; Message IDs start at 0 again (RFC 7296 §2.18).
    pub(super) fn rekey(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let established = self
            .established()
            .ok_or(PeerError::Syntax("rekeying before authentication"))?;
        if self.is_replaced() {
            return Err(PolicyError::NoAdditionalSas("this IKE SA has a successor").into());
        }
        let offered = &payloads.require_sa()?.proposals;
        let chosen = select_ike(offered, &established.connection.proposals, IKE_SPI_LEN)
            .map_err(PolicyError::from)?;
        let remote_spi = <[u8; IKE_SPI_LEN]>::try_from(chosen.peer_spi.as_slice())
            .ok()
            .filter(|spi| *spi != [0; IKE_SPI_LEN])
            .ok_or(PeerError::Syntax("SPI of the new IKE SA is zero"))?;
        let nonce_i = payloads.require_nonce()?.data;
        let (shared, public) = exchange::agree_on(core, chosen.suite.ke, payloads.ke)?;
        let crypto = &*core.crypto;
        let local_spi = spi::draw_ike(crypto, core.config.member, |spi| {
            core.ike_spis.contains(spi)
        })
        .ok_or(LocalError::NoSpi)?;
        let nonce_r = draw_nonce(crypto);
        // RFC 7296 §2.18: SKEYSEED by the old PRF, everything else by the new one.
        let skeyseed = Skeyseed::rekeyed(
            crypto,
            self.proposal.prf,
            &self.keys.d,
            &shared,
            nonce_i,
            &nonce_r,
        );
        let keys = IkeKeys::derive(
            crypto,
            chosen.suite.prf,
            chosen.suite.encryption,
            &skeyseed,
            (nonce_i, &nonce_r),
            (&remote_spi, &local_spi),
        )?;
        let mut message = MessageBuilder::new(request.header.to_response());
        message
            .push(&Payload::Sa(SaRepr {
                proposals: vec![chosen.answer(&local_spi)],
            }))
            .push(&Payload::Nonce(NonceRepr { data: &nonce_r }))
            .push(&Payload::Ke(KeRepr {
                method: chosen.suite.ke.transform_id(),
                data: &public,
            }));
        let successor = Self {
            local_spi,
            remote_spi,
            role: Role::Responder,
            slot: self.slot,
            path: self.path,
            nat: self.nat,
            announced: true,
            proposal: chosen.suite,
            keys,
            ivs: fresh_ivs(&core.config),
            window: Window::resume(0, None),
            state: State::Established(Box::new(self.hand_over(now)?)),
        };
        Ok(Step::Rekeyed(
            Box::new(successor),
            Answer { request, message },
        ))
    }

    /// The successor's state. From here on this IKE SA only waits to be deleted.
    fn hand_over(&mut self, now: Instant) -> Result<Established, IkeError> {
        let established = self
            .established_mut()
            .ok_or(PeerError::Syntax("rekeying before authentication"))?;
        established.replaced = true;
        Ok(Established {
            connection: established.connection.clone(),
            local_id: established.local_id.clone(),
            remote_id: established.remote_id.clone(),
            established_at: now,
            children: std::mem::take(&mut established.children),
            pending: None,
            next_request: 0,
            replaced: false,
            unknown: Vec::new(),
        })
    }

    /// Whether the peer has rekeyed it.
    pub(crate) fn is_replaced(&self) -> bool {
        self.established().is_some_and(|e| e.replaced)
    }
}
