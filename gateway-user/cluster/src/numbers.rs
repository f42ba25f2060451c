//! What the cluster core does with the numbers of CHILD_SAs ([`crate::reservation`]).

use gateway_common::{slot::Slot, time::Instant};

use crate::change::{Change, Checkpoint, Cookie, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, encode_delta, encode_entry};
use crate::output::Output;
use crate::ownership::Writer;
use crate::reservation::{Rank, SpiIn, Standing};
use crate::secret::Secret;
use crate::view::Epoch;

/// Checkpoints per delta: about 32 KiB.
const BATCH: usize = 1024;

impl Cluster {
    /// XFRM told that the outbound SA of a CHILD_SA of this member has used up `sequence`.
    pub fn handle_sent(&mut self, now: Instant, spi_in: SpiIn, sequence: u64) {
        let Some(slot) = self.slot_of_child(spi_in).filter(|slot| self.owns(*slot)) else {
            return;
        };
        let gained = self.gained[usize::from(slot.0)];
        if self.reservations.sent(now, spi_in, sequence, gained) {
            self.flush_soon(now);
        }
    }

    /// XFRM told that the inbound SA of a CHILD_SA of this member has seen `sequence`.
    pub fn handle_received(&mut self, now: Instant, spi_in: SpiIn, sequence: u64) {
        let owned = self.slot_of_child(spi_in);
        if owned.is_some_and(|slot| self.owns(slot)) && self.reservations.received(spi_in, sequence)
        {
            self.flush_soon(now);
        }
    }

    /// Where the SAs of a CHILD_SA stand on this member, or have to start when they are installed.
    pub fn standing(&self, spi_in: SpiIn) -> Option<Standing> {
        self.reservations.standing(spi_in)
    }

    fn slot_of_child(&self, spi_in: SpiIn) -> Option<Slot> {
        let local_spi = self.reservations.local_spi(spi_in)?;
        self.ownership.sa(local_spi).map(|held| held.slot)
    }

    fn flush_soon(&mut self, now: Instant) {
        let at = now + self.config.limits.background_delay;
        self.flush_at.get_or_insert(at);
    }

    /// Puts the checkpoints that wait into the outbox.
    pub(crate) fn publish_checkpoints(&mut self) {
        while self.reservations.has_changes() {
            let seq = self.outbox.last().next();
            let checkpoints = self.reservations.publish(seq, BATCH);
            let Some(first) = checkpoints.first() else {
                continue;
            };
            let slot = self.slot_of_child(first.spi_in).unwrap_or(Slot(0));
            let epoch = self.written_epoch();
            self.reservations.wrote(&checkpoints, Stamp { epoch, seq });
            let frame = encode_delta(seq, slot, &Change::Checkpoints(checkpoints));
            self.outbox.push(std::sync::Arc::new(frame));
            if self.config.limits.mutations.no_ceiling {
                self.take_effect(seq);
            }
        }
    }

    /// Everything up to `seq` is on all members of the view.
    pub(crate) fn take_effect(&mut self, seq: DeltaSeq) {
        for raise in self.reservations.released(seq) {
            if let Some(to) = raise.advance {
                self.outputs.push_back(Output::Advance {
                    local_spi: raise.local_spi,
                    spi_in: raise.spi_in,
                    to,
                });
            }
            self.emit_ownership();
            let ceiling = raise.ceiling as u32;
            self.ownership
                .set_ceiling(raise.spi_in, raise.local_spi, ceiling);
            self.emit_ownership();
        }
        self.answer_moves(seq);
    }

    pub(crate) fn take_checkpoints(
        &mut self,
        writer: Writer,
        checkpoints: &[Checkpoint],
        written: Stamp,
    ) {
        let spent = self.may_be_spent(writer);
        let checked = !self.config.limits.mutations.no_epoch_check;
        for checkpoint in checkpoints {
            let spi_in = checkpoint.spi_in;
            let Some(slot) = self.slot_of_child(spi_in) else {
                continue;
            };
            let owned = self.owns(slot);
            let Some(standing) = self
                .reservations
                .take(checkpoint, written, owned, checked, spent)
            else {
                continue;
            };
            let local_spi = checkpoint.local_spi;
            self.ownership
                .set_ceiling(spi_in, local_spi, standing.ceiling as u32);
            self.emit_ownership();
            self.outputs.push_back(Output::Moved {
                local_spi,
                spi_in,
                slot,
                standing,
            });
        }
    }

    /// Whether an earlier run of this member may know what it is told now.
    fn may_be_spent(&self, writer: Writer) -> bool {
        writer == Writer::Snapshot || !self.admitted()
    }

    /// Takes an IKE SA into the tables, its CHILD_SAs with their numbers.
    pub(crate) fn take_sa(&mut self, writer: Writer, slot: Slot, sa: Sa, written: Stamp) {
        if !self.ownership.counts(writer, &sa, written) {
            self.ownership.name(sa.local_spi);
            return;
        }
        let owned = (writer == Writer::Local).then(|| self.gained[usize::from(slot.0)]);
        for child in &sa.children {
            let spent = self.may_be_spent(writer);
            self.reservations
                .open(sa.local_spi, child.spi_in, owned, spent);
            if let Some(standing) = self.reservations.standing(child.spi_in) {
                self.ownership
                    .set_ceiling(child.spi_in, [0; 8], standing.ceiling as u32);
            }
        }
        self.ownership.upsert(writer, slot, sa, written);
    }

    pub(crate) fn reservation_entry(&self, local_spi: Cookie) -> Option<Secret> {
        let held = self.ownership.sa(local_spi)?;
        let known = held.sa.children.iter();
        let known: Vec<_> = known
            .filter_map(|child| self.reservations.checkpoint(child.spi_in))
            .collect();
        let written = known.iter().map(|(_, written)| *written).max()?;
        let checkpoints = known.into_iter().map(|(checkpoint, _)| checkpoint);
        let change = Change::Checkpoints(checkpoints.collect());
        Some(encode_entry(written, held.slot, &change))
    }

    /// This member is level: from when on it has owned which slot.
    pub(crate) fn note_gained(&mut self, epoch: Epoch, slots: &crate::slot_set::SlotSet) {
        for slot in slots.iter() {
            self.gained[usize::from(slot.0)] = epoch;
        }
    }

    pub(crate) fn rank(config: &crate::config::Config) -> Rank {
        let mut ids: Vec<_> = config.members.iter().map(|m| m.member).collect();
        ids.sort_unstable();
        ids.dedup();
        let index = ids.iter().position(|id| *id == config.local).unwrap_or(0);
        let overlapping = config.limits.mutations.overlapping_blocks;
        Rank {
            index: if overlapping { 0 } else { index as u64 },
            members: ids.len() as u64,
        }
    }
}
