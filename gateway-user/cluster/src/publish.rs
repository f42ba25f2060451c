//! Announcing what this member owns.

use std::sync::Arc;

use gateway_common::{slot::Slot, time::Instant};

use crate::change::{Change, Mirror, NEGOTIATION_LIFETIME, Sa};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, MAX_FRAME, encode_delta};
use crate::output::Output;
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
}

impl Cluster {
    /// Announces a change of what this member owns: applies it to the tables and mirrors it.
    ///
    /// Whatever depends on the change may leave once [`Output::Released`] names the returned number
    /// or a higher one (with no peer in sync: already among the outputs of this call). A change that
    /// the others need not know (a half-open negotiation above rate or threshold, the end of one
    /// that they never heard of) takes no number; then it is the number of the change before.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the change is too large for a frame.
    pub fn publish(
        &mut self,
        now: Instant,
        slot: Slot,
        change: Change,
        mirror: Mirror,
    ) -> Result<DeltaSeq, PublishError> {
        let (change, mirrored) = match change {
            Change::NegotiationOpened { .. } => self.publish_opened(now, slot, change),
            Change::NegotiationClosed { local_cookie } => {
                self.ownership.close(self.config.local, local_cookie);
                (change, self.gate.ended(local_cookie))
            }
            Change::SaUpsert(sa) => return self.publish_sa(now, slot, sa, mirror),
            Change::SaRemoved { local_spi } => {
                self.own.remove(&local_spi);
                let known = self.ownership.remove(self.config.local, local_spi);
                (change, known)
            }
        };
        if mirrored {
            let frame = encode_delta(self.outbox.last().next(), slot, &change);
            self.enqueue(now, Arc::new(frame), mirror);
        }
        self.release();
        Ok(self.outbox.last())
    }

    fn publish_opened(&mut self, now: Instant, slot: Slot, mut change: Change) -> (Change, bool) {
        let Change::NegotiationOpened {
            negotiation,
            lifetime,
        } = &mut change
        else {
            return (change, false);
        };
        let local = self.config.local;
        if self.own.contains_key(&negotiation.local_cookie) {
            return (change, false);
        }
        if self.ownership.half_open(local) >= self.config.limits.half_open_entries {
            self.half_open_refused += 1;
            return (change, false);
        }
        *lifetime = (*lifetime).min(NEGOTIATION_LIFETIME);
        self.ownership
            .open(now, local, slot, *negotiation, now + *lifetime);
        let half_open = self.ownership.half_open(local);
        let limits = &self.config.limits;
        let mirrored = self
            .gate
            .admit(limits, now, half_open, negotiation.local_cookie);
        (change, mirrored)
    }

    fn publish_sa(
        &mut self,
        now: Instant,
        slot: Slot,
        sa: Sa,
        mirror: Mirror,
    ) -> Result<DeltaSeq, PublishError> {
        let change = Change::SaUpsert(sa);
        let frame = Arc::new(encode_delta(self.outbox.last().next(), slot, &change));
        if frame.len() > MAX_FRAME {
            return Err(PublishError::TooLarge {
                octets: frame.len(),
            });
        }
        if let Change::SaUpsert(mut sa) = change {
            // The engine has the record, and `own` has it encoded; a third copy serves nobody.
            sa.record = Secret::default();
            self.gate.ended(sa.local_spi);
            self.own.insert(sa.local_spi, Arc::clone(&frame));
            self.ownership.upsert(self.config.local, slot, sa);
        }
        self.enqueue(now, frame, mirror);
        self.release();
        Ok(self.outbox.last())
    }

    fn enqueue(&mut self, now: Instant, frame: Arc<Secret>, mirror: Mirror) {
        self.outbox.push(frame);
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
            .filter_map(crate::peer::Peer::needs_after)
            .min()
            .unwrap_or(self.outbox.last());
        self.outbox
            .trim(everyone_has, limits.retained_deltas, limits.retained_bytes);
    }

    /// Says what has been released since it was last said.
    pub(crate) fn release(&mut self) {
        let blocking = self
            .peers
            .values()
            .filter(|peer| peer.standing.blocks())
            .map(|peer| peer.acked.unwrap_or_default())
            .min();
        let reached = blocking.unwrap_or(self.outbox.last());
        if reached > self.released {
            self.released = reached;
            self.outputs.push_back(Output::Released(reached));
        }
    }
}
