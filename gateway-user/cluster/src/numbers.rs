//! What the cluster core does with the numbers of CHILD_SAs ([`crate::reservation`]).

use std::time::Duration;

use gateway_common::{slot::Slot, time::Instant};

use crate::change::{Change, Checkpoint, Cookie, Reserved, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, encode_delta, encode_entry};
use crate::output::Output;
use crate::ownership::Writer;
use crate::reservation::{Holding, JUMP, SpiIn, Standing};
use crate::secret::Secret;
use crate::slot_set::SlotSet;

/// Checkpoints per delta: about 32 KiB.
const BATCH: usize = 1024;

/// After a view copies move slowly, so that traffic and exchanges come first: so many IKE SAs,
const AT_ONCE: usize = 128;
/// and so long a pause.
const PLACING: Duration = Duration::from_millis(5);

/// Copies in slots that others got, which have to move on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placing {
    slots: SlotSet,
    cursor: Option<Cookie>,
    pub(crate) due: Instant,
}

impl Cluster {
    /// XFRM told that the outbound SA of a CHILD_SA of this member has used up `sequence`.
    pub fn handle_sent(&mut self, now: Instant, spi_in: SpiIn, sequence: u64) {
        let Some(slot) = self.slot_of_child(spi_in).filter(|slot| self.owns(*slot)) else {
            return;
        };
        let tenure = self.view.tenures.of(slot);
        if self.reservations.sent(now, spi_in, sequence, tenure) {
            self.flush_soon(now);
        }
    }

    /// Whether a CHILD_SA has used up half of what this member, which is half of a view, may use of it.
    pub fn runs_out(&self, spi_in: SpiIn) -> bool {
        self.reservations.runs_out(spi_in)
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

    pub(crate) fn flush_soon(&mut self, now: Instant) {
        let at = now + self.config.limits.background_delay;
        self.flush_at.get_or_insert(at);
    }

    /// What the slot of a CHILD_SA is to this member.
    fn holding(&self, slot: Slot) -> Holding {
        Holding {
            tenure: self.view.tenures.of(slot),
            owned: self.owns(slot),
        }
    }

    /// Puts the checkpoints that wait into the outbox. Not before this member is level: what earlier
    /// owners reserved decides on what can be.
    pub(crate) fn publish_checkpoints(&mut self) {
        if self.levelled < self.view.epoch {
            return;
        }
        while self.reservations.has_changes() {
            let seq = self.outbox.last().next();
            let epoch = self.written_epoch();
            let written = Stamp { epoch, seq };
            let mut checkpoints = Vec::new();
            let mut at = None;
            for spi_in in self.reservations.take_changes(BATCH) {
                let owned = |slot: &Slot| self.owns(*slot);
                let Some(slot) = self.slot_of_child(spi_in).filter(owned) else {
                    continue;
                };
                let moving = self.reservations.local_spi(spi_in);
                if moving.is_some_and(|local_spi| self.is_moving(local_spi)) {
                    continue;
                }
                let tenure = self.view.tenures.of(slot);
                checkpoints.extend(self.reservations.write(spi_in, tenure, written));
                at = at.or(Some(slot));
            }
            let Some(slot) = at.filter(|_| !checkpoints.is_empty()) else {
                continue;
            };
            let frame = encode_delta(seq, slot, &Change::Checkpoints(checkpoints));
            self.outbox.push(std::sync::Arc::new(frame));
            if self.config.limits.mutations.no_ceiling {
                self.raise(seq);
                self.answer_moves(seq);
            }
        }
    }

    /// Everything up to `seq` is on all members of the view.
    pub(crate) fn raise(&mut self, seq: DeltaSeq) {
        for raise in self.reservations.released(seq) {
            let ceiling = raise.ceiling as u32;
            self.ownership
                .set_ceiling(raise.spi_in, raise.local_spi, ceiling);
            self.emit_ownership();
        }
    }

    pub(crate) fn take_checkpoints(
        &mut self,
        writer: Writer,
        checkpoints: &[Checkpoint],
        written: Stamp,
    ) {
        let told = writer == Writer::Snapshot || self.config.limits.mutations.no_epoch_check;
        for checkpoint in checkpoints {
            let Some(slot) = self.slot_of_child(checkpoint.spi_in) else {
                continue;
            };
            let holding = self.holding(slot);
            if let Some(standing) = self.reservations.take(checkpoint, written, holding, told) {
                self.move_copy(checkpoint.spi_in, slot, standing);
            }
        }
    }

    fn move_copy(&mut self, spi_in: SpiIn, slot: Slot, standing: Standing) {
        let Some(local_spi) = self.reservations.local_spi(spi_in) else {
            return;
        };
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

    /// What the others have to know of the numbers of an IKE SA's children, when it is written in
    /// `slot` by this member. `None` if they are another's until this member has made sure.
    pub(crate) fn number(&self, slot: Slot, sa: &mut Sa) -> Option<()> {
        let tenure = self.view.tenures.of(slot);
        let held = self.ownership.sa(sa.local_spi).map(|held| held.slot);
        let holding = self.holding(held.unwrap_or(slot));
        for child in &mut sa.children {
            // Given by another member: this one's ownership follows.
            let to = if holding.owned {
                tenure
            } else {
                tenure.before()
            };
            let spi_in = child.spi_in;
            if held.is_some_and(|held| held != slot)
                && !self.reservations.is_settled(spi_in, holding.follows())
            {
                return None;
            }
            let known = self.reservations.reserved(spi_in, holding.tenure, slot, to);
            let first = Reserved::first(slot, tenure);
            child.reserved = known.unwrap_or(first.starting_after(self.first_number(slot)));
        }
        Some(())
    }

    /// The number after which this member's new outbound SAs in `slot` start.
    ///
    /// In slots that it got by a view without a majority the former owner may have finished the same
    /// exchange, and have the same keys; so may, once the halves have met, the one whose state did not
    /// prevail: there it is one to three times [`crate::reservation::JUMP`],
    /// by the jumps of the slot so far. This member may keep the slot and be alone again before the
    /// exchange ends; who takes it over then stands one jump further.
    pub fn first_number(&self, slot: Slot) -> u64 {
        if self.half_gained.contains(slot) && !self.config.limits.mutations.no_jump {
            let jumps = self.view.tenures.of(slot).jumps();
            JUMP * u64::from(1 + jumps % 3)
        } else {
            0
        }
    }

    /// Takes an IKE SA into the tables, its CHILD_SAs with their numbers.
    pub(crate) fn take_sa(&mut self, writer: Writer, slot: Slot, sa: Sa, written: Stamp) {
        if !self.ownership.counts(writer, &sa, written) {
            self.ownership.name(sa.local_spi);
            return;
        }
        // One of its children may just have left with another state of the SA, or another slot: what
        // follows from that must not end what begins here.
        self.emit_ownership();
        let holding = self.holding(slot);
        for child in &sa.children {
            let made = writer == Writer::Local;
            let spi_in = child.spi_in;
            let new = self
                .reservations
                .open(sa.local_spi, spi_in, child.reserved, holding, made);
            // Unknown to the others, who may make it, too; or given by another member, which keeps
            // it if this does not reach everybody.
            let given = writer == Writer::Snapshot && self.ready.contains(slot);
            let unheard = made && new && !self.config.limits.mutations.no_first_wait;
            if given || unheard {
                self.reservations
                    .hold(spi_in, holding.tenure, written.seq, made);
            }
            if let Some(standing) = self.reservations.standing(spi_in) {
                self.ownership
                    .set_ceiling(spi_in, [0; 8], standing.ceiling as u32);
            }
        }
        self.ownership.upsert(writer, slot, sa, written);
    }

    /// A view was installed. Copies in slots that came must stand after the ownership that has
    /// ended; they do, unless that was as short as to leave no time for [`Cluster::place_copies`],
    /// or ownerships were left out. Then the SAs of slots that stayed go on, too.
    pub(crate) fn place_gained(&mut self) {
        let mut late = SlotSet::EMPTY;
        for slot in self.owned().iter() {
            let follows = self.holding(slot).follows();
            let placed = &mut self.placed[usize::from(slot.0)];
            if *placed < follows {
                *placed = follows;
                late.insert(slot);
            }
        }
        let mut cursor = None;
        while !late.is_empty()
            && let Some(next) = self.place_after(cursor, &late)
        {
            cursor = Some(next);
        }
        self.placing = None;
    }

    /// This member is level: its copies in slots that others got begin to move.
    pub(crate) fn begin_placing(&mut self, now: Instant) {
        let behind = |slot: &Slot| {
            let holding = self.holding(*slot);
            !holding.owned && self.placed[usize::from(slot.0)] < holding.follows()
        };
        let slots: SlotSet = (0..=u8::MAX).map(Slot).filter(behind).collect();
        if !slots.is_empty() {
            let (cursor, due) = (None, now + PLACING);
            self.placing = Some(Placing { slots, cursor, due });
        }
    }

    /// Moves a few of the copies that the last view left behind.
    pub(crate) fn place_copies(&mut self, now: Instant) {
        let Some(mut placing) = self.placing.take_if(|placing| placing.due <= now) else {
            return;
        };
        for _ in 0..AT_ONCE {
            placing.cursor = self.place_after(placing.cursor, &placing.slots);
            if placing.cursor.is_none() {
                for slot in placing.slots.iter() {
                    self.placed[usize::from(slot.0)] = self.holding(slot).follows();
                }
                return;
            }
        }
        placing.due = now + PLACING;
        self.placing = Some(placing);
    }

    /// Moves the copies of the first IKE SA in `slots` with an SPI above `after`, and says which.
    fn place_after(&mut self, after: Option<Cookie>, slots: &SlotSet) -> Option<Cookie> {
        let held = self.ownership.sa_after(after, slots)?;
        let (local_spi, slot) = (held.sa.local_spi, held.slot);
        let children: Vec<SpiIn> = held.sa.children.iter().map(|child| child.spi_in).collect();
        let follows = self.holding(slot).follows();
        for spi_in in children {
            let level = self.levelled;
            let Some(standing) = self.reservations.follow(spi_in, follows, level) else {
                continue;
            };
            if self.active.contains(slot) {
                self.outputs.push_back(Output::Advance {
                    local_spi,
                    spi_in,
                    to: standing.sequence_out,
                });
                let ceiling = standing.ceiling as u32;
                self.ownership.set_ceiling(spi_in, local_spi, ceiling);
                self.emit_ownership();
            } else {
                self.move_copy(spi_in, slot, standing);
            }
        }
        Some(local_spi)
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

    /// Which block all copies of this member stand in, if a test wants to see what comes of it.
    pub(crate) fn fixed_block(config: &crate::config::Config) -> Option<u64> {
        let mutations = config.limits.mutations;
        let rank = || {
            let lower = config.members.iter().filter(|m| m.member < config.local);
            lower.count() as u64
        };
        match (mutations.overlapping_blocks, mutations.blocks_by_member) {
            (true, _) => Some(0),
            (_, true) => Some(rank()),
            _ => None,
        }
    }
}
