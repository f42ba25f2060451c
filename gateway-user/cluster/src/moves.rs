//! Moves of one IKE SA into a slot of another member: for one identity, one slot.
//!
//! The giver leaves the SA alone until the taker answers, and keeps it unless the taker's change
//! arrives; the taker answers when all members of the view have it. Whoever dies meanwhile: its
//! stream is levelled, so that all survivors agree which slot the SA is in.

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, Cookie, Mirror, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, encode_delta, encode_move};
use crate::output::Output;
use crate::ownership::Writer;
use crate::publish::PublishError;
use crate::view::Epoch;

/// An IKE SA that this member gives away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Giving {
    to: MemberId,
    from: Slot,
    slot: Slot,
    epoch: Epoch,
}

impl Cluster {
    /// Hands an established IKE SA of this member over to the owner of `slot`. Until
    /// [`Output::MoveEnded`] the engine must not touch it, and [`Cluster::publish`] refuses changes
    /// of it. A slot of this member's own needs no move: publish the SA in it.
    ///
    /// # Errors
    ///
    /// [`PublishError::NotOwner`] if the SA is not this member's to give, or if `slot` has no other
    /// owner that can be reached.
    pub fn move_sa(&mut self, local_spi: Cookie, slot: Slot) -> Result<(), PublishError> {
        let refused = PublishError::NotOwner(slot);
        let held = self.ownership.sa(local_spi).ok_or(refused)?;
        let to = self.slots().owner(slot).ok_or(refused)?;
        let tenure = self.view.tenures.of(held.slot).before();
        let mut children = held.sa.children.iter();
        if !children.all(|child| self.reservations.is_settled(child.spi_in, tenure)) {
            return Err(refused);
        }
        if !self.ready.contains(held.slot) || to == self.local() || !self.is_up(to) {
            return Err(refused);
        }
        let frame = encode_move(slot, &held.sa);
        let giving = Giving {
            to,
            from: held.slot,
            slot,
            epoch: self.view.epoch,
        };
        self.giving.insert(local_spi, giving);
        self.send(to, frame);
        Ok(())
    }

    /// Whether the SA is on its way to another member.
    pub fn is_moving(&self, local_spi: Cookie) -> bool {
        self.giving.contains_key(&local_spi)
    }

    /// Another member gives an IKE SA to this one.
    pub(crate) fn take_move(&mut self, now: Instant, from: MemberId, slot: Slot, mut sa: Sa) {
        let local_spi = sa.local_spi;
        let known = self.ownership.sa(local_spi).map(|held| held.slot);
        // Asked again, after a broken connection.
        let again = known == Some(slot) && self.ready.contains(slot);
        let giver = known.and_then(|slot| self.slots().owner(slot));
        let known = again || self.number(slot, &mut sa).is_some();
        let taken = again || (known && giver == Some(from) && self.ready.contains(slot));
        if !taken || self.levelled != self.view.epoch || !self.view.members.contains_key(&from) {
            let taken = false;
            self.send(from, Frame::Moved { local_spi, taken }.encode());
            return;
        }
        if !again {
            sa.moves = sa.moves.saturating_add(1);
            let seq = self.outbox.last().next();
            let epoch = self.written_epoch();
            let frame = encode_delta(seq, slot, &Change::SaUpsert(sa.clone()));
            self.take_sa(Writer::Snapshot, slot, sa, Stamp { epoch, seq });
            self.enqueue(now, std::sync::Arc::new(frame), Mirror::Urgent);
        }
        self.taking.push_back((self.outbox.last(), from, local_spi));
        self.release();
        self.answer_moves(self.released);
    }

    /// What was taken up to `seq` is on all members.
    pub(crate) fn answer_moves(&mut self, seq: DeltaSeq) {
        while let Some((at, from, local_spi)) = self.taking.front().copied()
            && at <= seq
        {
            self.taking.pop_front();
            let taken = true;
            self.send(from, Frame::Moved { local_spi, taken }.encode());
        }
    }

    /// The member that an IKE SA was given to has answered.
    pub(crate) fn move_answered(&mut self, now: Instant, from: MemberId, spi: Cookie) {
        if self
            .giving
            .get(&spi)
            .is_some_and(|giving| giving.to == from)
        {
            self.end_move(now, spi);
        }
    }

    fn end_move(&mut self, now: Instant, local_spi: Cookie) {
        if let Some(giving) = self.giving.remove(&local_spi) {
            let held = self.ownership.sa(local_spi);
            let kept = held.is_some_and(|held| self.owns(held.slot));
            // Who is out of the view hears the taker's stream and this one in any order: this one
            // has to say by itself that the slot does not contain the SA any more.
            if held.is_none_or(|held| held.slot != giving.from) && self.ready.contains(giving.from)
            {
                let change = Change::SaRemoved { local_spi };
                self.mirror(now, giving.from, &change, Mirror::Background);
            }
            self.outputs.push_back(Output::MoveEnded {
                local_spi,
                gone: !kept,
            });
        }
    }

    /// This member is level in a new view: moves of earlier ones have ended one way or the other.
    pub(crate) fn end_moves(&mut self, now: Instant) {
        let epoch = self.view.epoch;
        let giving = self.giving.iter();
        let old: Vec<Cookie> = giving
            .filter(|(_, giving)| giving.epoch < epoch)
            .map(|(spi, _)| *spi)
            .collect();
        for spi in old {
            self.end_move(now, spi);
        }
    }

    /// A connection is back: asks again.
    pub(crate) fn repeat_moves(&mut self, member: MemberId) {
        let epoch = self.view.epoch;
        let giving = self.giving.iter();
        let again: Vec<(Cookie, Slot)> = giving
            .filter(|(_, giving)| giving.to == member && giving.epoch == epoch)
            .map(|(spi, giving)| (*spi, giving.slot))
            .collect();
        for (spi, slot) in again {
            if let Some(held) = self.ownership.sa(spi) {
                let frame = encode_move(slot, &held.sa);
                self.send(member, frame);
            }
        }
    }
}
