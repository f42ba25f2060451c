//! Announcing what this member owns.

use std::sync::Arc;

use gateway_common::{slot::Slot, time::Instant};

use crate::change::{Change, Cookie, Mirror, NEGOTIATION_LIFETIME, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, MAX_FRAME, encode_delta};
use crate::output::Output;
use crate::ownership::Writer;
use crate::secret::Secret;

/// A change that cannot be mirrored; nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The encoded change exceeds [`MAX_FRAME`].
    #[error(
        "the record and networks of this IKE SA take {octets} octets, at most {MAX_FRAME} can be \
         mirrored: use fewer CHILD_SAs or wider traffic selectors"
    )]
    TooLarge {
        /// Its size.
        octets: usize,
    },
    /// The slot is not this member's in the installed view, or this member is not level yet:
    /// whoever owned it before may know more.
    #[error("{0} is not this member's")]
    NotOwner(Slot),
    /// It is on its way to another member ([`Cluster::move_sa`]).
    #[error("this IKE SA is on its way to another member")]
    Moving,
    /// A kind of change that is not for the caller to make.
    #[error("this change follows from others")]
    Internal,
}

impl Cluster {
    /// Announces a change of what this member owns: applies it to the tables and mirrors it.
    ///
    /// Whatever depends on the change may leave once [`Output::Released`] names the returned number
    /// or a higher one (with no other member in the view: already among the outputs of this call),
    /// and never if [`Output::Discarded`] does. A change that
    /// the others need not know (a half-open negotiation above rate or threshold, the end of one
    /// that they never heard of) takes no number; then it is the number of the change before.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the change is too large for a frame, or about an established IKE SA in a
    /// slot that is not this member's.
    pub fn publish(
        &mut self,
        now: Instant,
        slot: Slot,
        change: Change,
        mirror: Mirror,
    ) -> Result<DeltaSeq, PublishError> {
        match change {
            Change::NegotiationOpened { .. } => self.publish_opened(now, slot, change, mirror),
            Change::NegotiationClosed { local_cookie } => {
                self.ownership.close(self.config.local, local_cookie);
                if self.gate.ended(local_cookie) {
                    self.mirror(now, slot, &change, mirror);
                }
            }
            Change::SaUpsert(sa) => return self.publish_sa(now, slot, sa, mirror),
            Change::SaRemoved { local_spi } => {
                self.check_owner(slot)?;
                self.remove_own(now, slot, local_spi, mirror);
            }
            Change::CookieSecret(secret) => {
                self.check_owner(Slot(0))?;
                let change = Change::CookieSecret(secret.clone());
                let seq = self.mirror(now, Slot(0), &change, mirror);
                let epoch = self.written_epoch();
                self.cookie_secret = Some((Stamp { epoch, seq }, secret));
            }
            Change::View(_) | Change::Checkpoints(_) | Change::Unknown { .. } => {
                return Err(PublishError::Internal);
            }
        }
        self.release();
        Ok(self.outbox.last())
    }

    fn check_owner(&self, slot: Slot) -> Result<(), PublishError> {
        if self.owns(slot) && self.ready.contains(slot) {
            Ok(())
        } else {
            Err(PublishError::NotOwner(slot))
        }
    }

    fn publish_opened(&mut self, now: Instant, slot: Slot, mut change: Change, mirror: Mirror) {
        let Change::NegotiationOpened {
            negotiation,
            lifetime,
        } = &mut change
        else {
            return;
        };
        let local = self.config.local;
        if self.ownership.sa(negotiation.local_cookie).is_some() {
            return;
        }
        if self.ownership.half_open(local) >= self.config.limits.half_open_entries {
            self.half_open_refused += 1;
            return;
        }
        *lifetime = (*lifetime).min(NEGOTIATION_LIFETIME);
        self.ownership
            .open(now, local, slot, *negotiation, now + *lifetime);
        let half_open = self.ownership.half_open(local);
        let limits = &self.config.limits;
        let cookie = negotiation.local_cookie;
        // What we begin ourselves nobody can flood us with, and its answer may reach any member.
        let ours = negotiation.peer_cookie == [0; 8];
        if ours {
            self.gate.pass(cookie);
        }
        if ours || self.gate.admit(limits, now, half_open, cookie) {
            self.mirror(now, slot, &change, mirror);
        }
    }

    fn publish_sa(
        &mut self,
        now: Instant,
        slot: Slot,
        mut sa: Sa,
        mirror: Mirror,
    ) -> Result<DeltaSeq, PublishError> {
        self.check_owner(slot)?;
        if self.is_moving(sa.local_spi) {
            return Err(PublishError::Moving);
        }
        if let Some(held) = self.ownership.sa(sa.local_spi) {
            self.check_owner(held.slot)?;
            let moved = u32::from(held.slot != slot);
            sa.moves = held.sa.moves.saturating_add(moved);
        }
        self.number(slot, &mut sa)
            .ok_or(PublishError::NotOwner(slot))?;
        let change = Change::SaUpsert(sa);
        let seq = self.outbox.last().next();
        let frame = Arc::new(encode_delta(seq, slot, &change));
        if frame.len() > MAX_FRAME {
            return Err(PublishError::TooLarge {
                octets: frame.len(),
            });
        }
        if let Change::SaUpsert(sa) = change {
            self.gate.ended(sa.local_spi);
            let epoch = self.written_epoch();
            self.take_sa(Writer::Local, slot, sa, Stamp { epoch, seq });
        }
        self.enqueue(now, frame, mirror);
        self.release();
        Ok(seq)
    }

    pub(crate) fn remove_own(&mut self, now: Instant, slot: Slot, spi: Cookie, mirror: Mirror) {
        let seq = self.outbox.last().next();
        let epoch = self.written_epoch();
        let written = Stamp { epoch, seq };
        let moves = self.ownership.sa(spi).map_or(0, |held| held.sa.moves);
        if self.ownership.remove(Writer::Local, slot, spi, written) {
            self.remember_removal(spi, moves, written);
            let change = Change::SaRemoved { local_spi: spi };
            self.mirror(now, slot, &change, mirror);
        }
    }

    /// An older change of an SA may come after its removal where one that left wrote it, or who gave
    /// it away.
    pub(crate) fn remember_removal(&mut self, spi: Cookie, moves: u32, written: Stamp) {
        if self.admitted() && (moves > 0 || self.settled < self.view.epoch) {
            self.ownership.bury(spi, moves, written);
        }
    }

    /// Gives a change its number.
    pub(crate) fn mirror(
        &mut self,
        now: Instant,
        slot: Slot,
        change: &Change,
        mirror: Mirror,
    ) -> DeltaSeq {
        let seq = self.outbox.last().next();
        self.enqueue(now, Arc::new(encode_delta(seq, slot, change)), mirror);
        seq
    }

    pub(crate) fn enqueue(&mut self, now: Instant, frame: Arc<Secret>, mirror: Mirror) {
        self.outbox.push(frame);
        let (deltas, octets) = self.outbox.retained();
        self.peaks.note(deltas, octets);
        match mirror {
            Mirror::Urgent => self.flush(now),
            Mirror::Background => {
                let at = now + self.config.limits.background_delay;
                self.flush_at.get_or_insert(at);
            }
        }
        self.trim();
    }

    /// Lets waiting changes out to all peers.
    pub(crate) fn flush(&mut self, now: Instant) {
        self.flush_at = None;
        self.publish_checkpoints();
        if self.outbox.flush() {
            self.pump_all(now);
        }
    }

    /// Forgets the deltas that no peer can need any more, or that exceed the bounds.
    pub(crate) fn trim(&mut self) {
        let limits = &self.config.limits;
        let everyone_has = self
            .peers
            .values()
            .filter_map(|peer| peer.out.needs_after())
            .min()
            .unwrap_or(self.outbox.last());
        self.outbox
            .trim(everyone_has, limits.retained_deltas, limits.retained_bytes);
    }

    /// Says what has been released since it was last said: what all other members of the view have
    /// acknowledged, in a view that they are in, too. Who has caught up outside may be in the next
    /// view, and then this member may not be: it is waited for as well, as long as it is in sync.
    pub(crate) fn release(&mut self) {
        let last = self.outbox.last();
        let reached = if self.config.limits.mutations.no_flush_and_ack {
            last
        } else if self.admitted() && self.levelled == self.view.epoch {
            let confirmed = |member| self.peers.get(&member).map(|p| p.out.confirmed);
            let members = self.others().map(|m| confirmed(m).unwrap_or_default());
            let joiners = self
                .peers
                .iter()
                .filter(|(_, peer)| self.has_caught_up(peer));
            let joiners = joiners.map(|(_, peer)| peer.out.confirmed);
            members.chain(joiners).min().unwrap_or(last)
        } else {
            return;
        };
        if reached > self.released {
            self.released = reached;
            // Ceilings first: what is released may make the kernel or the peer use an SA.
            self.raise(reached);
            self.outputs.push_back(Output::Released(reached));
            self.answer_moves(reached);
        }
    }
}
