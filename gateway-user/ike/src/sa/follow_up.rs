//! Additional key exchanges after CREATE_CHILD_SA (RFC 9370 §2.2.4): what is waited for as their
//! responder, and the keys in the end, which both roles derive in the same way.
//!
//! A series of exchanges that the peer does not go on with is forgotten after a while. Until then it
//! keeps off what would collide with its outcome.

use gateway_common::time::Instant;

use super::clock::Clock;
use super::reassembly::Incoming;
use super::window::Window;
use super::{Answer, Established, IkeSa, Request, State, Step, fresh_ivs};
use crate::config::Limits;
use crate::crypto::Encryption;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PolicyError};
use crate::keys::{ChildKeys, IkeKeys, Skeyseed};
use crate::output::{ChildSa, EventKind};
use crate::proposal::IkeProposal;
use crate::record::{FollowUp, KeyInputs, PeerFollowUp, Role, Settled};
use crate::secret::SecretBytes;
use crate::wire::{MessageBuilder, NotifyRepr, NotifyType, Payload};

/// What the peer makes by additional key exchanges, while we wait for the next of them.
pub(super) struct Awaited {
    /// The content of our last ADDITIONAL_KEY_EXCHANGE. It need not be secret, only different from
    /// all others: the peer is authenticated.
    pub(super) link: [u8; 8],
    /// When we forget it.
    deadline: Instant,
    pub(super) follow_up: FollowUp,
}

impl Awaited {
    pub(super) fn export(&self, now: Instant) -> PeerFollowUp {
        PeerFollowUp {
            link: self.link,
            left: self.deadline.saturating_since(now),
            follow_up: self.follow_up.clone(),
        }
    }

    pub(super) fn import(now: Instant, record: PeerFollowUp) -> Self {
        Self {
            link: record.link,
            deadline: now + record.left,
            follow_up: record.follow_up,
        }
    }

    /// Our inbound SPI of the CHILD_SA, if it is one.
    fn child_spi(&self) -> Option<[u8; 4]> {
        match &self.follow_up.settled {
            Settled::Child { sa, .. } => Some(sa.spi_in),
            Settled::Ike { .. } => None,
        }
    }

    /// Our SPI of the successor, if it is one.
    fn ike_spi(&self) -> Option<[u8; 8]> {
        match &self.follow_up.settled {
            Settled::Child { .. } => None,
            Settled::Ike { local_spi, .. } => Some(*local_spi),
        }
    }

    /// Our inbound SPI of the CHILD_SA that is rekeyed, if one is.
    fn rekeys(&self) -> Option<[u8; 4]> {
        match &self.follow_up.settled {
            Settled::Child { rekeys, .. } => *rekeys,
            Settled::Ike { .. } => None,
        }
    }

    fn release(&self, core: &mut Core) {
        match &self.follow_up.settled {
            Settled::Child { sa, .. } => core.esp_spis.release(&sa.spi_in),
            Settled::Ike { local_spi, .. } => {
                core.ike_spis.remove(local_spi);
            }
        }
    }
}

/// Zeros in the place of a CHILD_SA's key.
pub(super) fn unkeyed(encryption: Encryption) -> SecretBytes {
    SecretBytes::new(vec![0; encryption.keymat_len()])
}

impl Established {
    /// CHILD_SAs that there are or may be soon.
    pub(super) fn children_to_come(&self) -> usize {
        self.children.len()
            + self
                .follow_ups
                .iter()
                .filter_map(Awaited::child_spi)
                .count()
    }

    /// Whether one more series of additional key exchanges can be waited for.
    pub(super) fn may_wait(&self, limits: &Limits) -> Result<(), PolicyError> {
        if self.follow_ups.len() < limits.follow_ups_per_ike_sa {
            Ok(())
        } else {
            Err(PolicyError::TemporaryFailure(
                "too many exchanges wait for additional key exchanges",
            ))
        }
    }

    /// Whether the peer is about to rekey the IKE SA.
    pub(super) fn awaits_successor(&self) -> bool {
        self.follow_ups.iter().any(|one| one.ike_spi().is_some())
    }

    /// Whether the peer is about to make or rekey a CHILD_SA.
    pub(super) fn awaits_child(&self) -> bool {
        self.follow_ups.iter().any(|one| one.child_spi().is_some())
    }

    /// Whether the peer is about to rekey the child with this inbound SPI.
    pub(super) fn awaits_successor_of(&self, spi: [u8; 4]) -> bool {
        self.follow_ups.iter().any(|one| one.rekeys() == Some(spi))
    }

    /// Whether the peer is about to make the child with this inbound SPI.
    pub(super) fn awaits_this_child(&self, spi: [u8; 4]) -> bool {
        self.follow_ups
            .iter()
            .any(|one| one.child_spi() == Some(spi))
    }

    /// Whether the peer is about to make the successor with this SPI of ours.
    pub(super) fn awaits_this_successor(&self, spi: [u8; 8]) -> bool {
        self.follow_ups.iter().any(|one| one.ike_spi() == Some(spi))
    }

    /// The series that makes the child with this inbound SPI has come to its end; the SPI remains.
    pub(super) fn end_follow_up(&mut self, spi: [u8; 4]) {
        self.follow_ups.retain(|one| one.child_spi() != Some(spi));
    }
}

impl IkeSa {
    /// The CHILD_SA with its keys (RFC 7296 §2.17, RFC 9370 §2.2.4), for the path that the IKE SA has
    /// now.
    ///
    /// # Errors
    /// Then its SPI is free again.
    pub(super) fn finish_child(
        &self,
        core: &mut Core,
        role: Role,
        sa: &ChildSa,
        inputs: &KeyInputs,
    ) -> Result<ChildSa, IkeError> {
        let (nonce_i, nonce_r) = &inputs.nonces;
        let keys = ChildKeys::derive(
            &*core.crypto,
            self.proposal.prf,
            sa.encryption,
            &self.keys.d,
            &inputs.shared,
            nonce_i,
            nonce_r,
        )
        .inspect_err(|_| core.esp_spis.release(&sa.spi_in))?;
        let (key_in, key_out) = match role {
            Role::Initiator => (keys.responder_to_initiator, keys.initiator_to_responder),
            Role::Responder => (keys.initiator_to_responder, keys.responder_to_initiator),
        };
        Ok(ChildSa {
            slot: self.slot,
            local: self.path.local.ip(),
            remote: self.path.remote.ip(),
            encap: self.encap(self.path),
            key_in,
            key_out,
            ..sa.clone()
        })
    }

    /// The successor with its keys (RFC 7296 §2.18, RFC 9370 §2.2.4) and without children. `role` is
    /// ours in the exchange that makes it; `spis` are ours and the peer's. Message IDs start at 0
    /// again.
    ///
    /// # Errors
    /// Then our SPI is free again.
    pub(super) fn finish_successor(
        &self,
        core: &mut Core,
        now: Instant,
        role: Role,
        (spis, proposal): (([u8; 8], [u8; 8]), IkeProposal),
        inputs: &KeyInputs,
    ) -> Result<Self, IkeError> {
        let (local_spi, remote_spi) = spis;
        let keys = self
            .successor_keys(core, role, (spis, proposal), inputs)
            .inspect_err(|_| {
                core.ike_spis.remove(&local_spi);
            })?;
        Ok(Self {
            local_spi,
            remote_spi,
            role,
            slot: self.slot,
            path: self.path,
            nat: self.nat,
            announced: true,
            began: None,
            proposal,
            keys,
            ivs: fresh_ivs(&core.config),
            window: Window::resume(0, None),
            transport: self.transport.clone(),
            incoming: Incoming::default(),
            state: State::Established(Box::new(self.heir(core, now)?)),
        })
    }

    fn successor_keys(
        &self,
        core: &Core,
        role: Role,
        ((local_spi, remote_spi), proposal): (([u8; 8], [u8; 8]), IkeProposal),
        inputs: &KeyInputs,
    ) -> Result<IkeKeys, IkeError> {
        let crypto = &*core.crypto;
        let (nonce_i, nonce_r) = &inputs.nonces;
        // RFC 7296 §2.18: SKEYSEED by the old PRF, everything else by the new one.
        let (old_prf, sk_d) = (self.proposal.prf, &self.keys.d);
        let skeyseed = Skeyseed::rekeyed(crypto, old_prf, sk_d, &inputs.shared, nonce_i, nonce_r);
        let spis = match role {
            Role::Initiator => (&local_spi, &remote_spi),
            Role::Responder => (&remote_spi, &local_spi),
        };
        Ok(IkeKeys::derive(
            crypto,
            proposal.prf,
            proposal.encryption,
            &skeyseed,
            (nonce_i, nonce_r),
            spis,
        )?)
    }

    /// Completes an answer with the link to the next additional key exchange, and waits for that.
    pub(super) fn await_follow_up(
        &mut self,
        core: &mut Core,
        now: Instant,
        (request, mut message): (Request, MessageBuilder),
        follow_up: FollowUp,
    ) -> Step {
        let mut link = [0; 8];
        core.crypto.random(&mut link);
        message.push(&Payload::Notify(NotifyRepr::new(
            NotifyType::ADDITIONAL_KEY_EXCHANGE,
            &link,
        )));
        let deadline = now + core.config.limits.follow_up_timeout;
        if let Some(established) = self.established_mut() {
            established.follow_ups.push(Awaited {
                link,
                deadline,
                follow_up,
            });
        }
        self.watch_follow_ups(core);
        Step::Answer(Answer { request, message })
    }

    /// Sets the clock for what is waited for.
    pub(super) fn watch_follow_ups(&mut self, core: &mut Core) {
        let installing = self.child_for_peer();
        let next = self.established().and_then(|e| {
            let waiting = e.follow_ups.iter();
            // The last exchange of this one has come; the kernel is at work.
            let waiting =
                waiting.filter(|one| one.child_spi().is_none() || one.child_spi() != installing);
            waiting.map(|one| one.deadline).min()
        });
        match next {
            Some(at) => self.set_clock(core, Clock::FollowUp, at),
            None => self.stop_clock(core, Clock::FollowUp),
        }
    }

    /// Forgets what the peer has not gone on with. RFC 9370 §2.2.4: the responder "MUST handle this
    /// situation gracefully and delete the associated state".
    pub(super) fn follow_ups_overdue(&mut self, core: &mut Core, now: Instant) {
        let installing = self.child_for_peer();
        let late = |one: &Awaited| {
            let installs = one.child_spi().is_some() && one.child_spi() == installing;
            one.deadline <= now && !installs
        };
        let dropped = self.drop_follow_ups(core, late);
        for _ in 0..dropped {
            let reason = "the peer has not gone on with its additional key exchanges".to_owned();
            self.event(core, EventKind::ExchangeFailed { reason });
        }
        self.watch_follow_ups(core);
    }

    /// Our inbound SPI of the child that the kernel installs for the peer.
    fn child_for_peer(&self) -> Option<[u8; 4]> {
        let pending = self.established()?.pending.as_ref()?;
        Some(pending.child.spi_in)
    }

    /// Forgets some of what is waited for; how many.
    fn drop_follow_ups(&mut self, core: &mut Core, which: impl Fn(&Awaited) -> bool) -> usize {
        let Some(established) = self.established_mut() else {
            return 0;
        };
        let dropped: Vec<_> = established
            .follow_ups
            .extract_if(.., |one| which(one))
            .collect();
        established.dirty |= !dropped.is_empty();
        for one in &dropped {
            one.release(core);
        }
        dropped.len()
    }

    /// The peer rekeys a child anew: it does not go on with an earlier attempt.
    pub(super) fn supersede_rekeying(&mut self, core: &mut Core, rekeys: Option<[u8; 4]>) {
        if rekeys.is_some() {
            self.drop_follow_ups(core, |one| one.rekeys() == rekeys);
            self.watch_follow_ups(core);
        }
    }

    /// The child with this inbound SPI will not be made.
    pub(super) fn drop_child_to_be(&mut self, core: &mut Core, spi: [u8; 4]) {
        self.drop_follow_ups(core, |one| one.child_spi() == Some(spi));
        self.watch_follow_ups(core);
    }

    /// The peer's successor will not be made.
    pub(super) fn drop_successor_to_be(&mut self, core: &mut Core) {
        self.drop_follow_ups(core, |one| one.ike_spi().is_some());
        self.watch_follow_ups(core);
    }

    /// The IKE SA is over, or another member's.
    pub(super) fn release_follow_ups(&mut self, core: &mut Core) {
        self.drop_follow_ups(core, |_| true);
    }

    /// SPIs of ours that the peer's additional key exchanges will give to SAs.
    pub(super) fn awaited_spis(
        &self,
    ) -> (
        impl Iterator<Item = [u8; 4]> + '_,
        impl Iterator<Item = [u8; 8]> + '_,
    ) {
        let all = || self.established().into_iter().flat_map(|e| &e.follow_ups);
        (
            all().filter_map(Awaited::child_spi),
            all().filter_map(Awaited::ike_spi),
        )
    }
}
