//! Reservation of outbound sequence numbers: no number is used twice, whoever dies, and whoever goes
//! on does so above all that was used before.
//!
//! What is reserved of an SA ([`Reserved`]) says up to which number, the *ceiling*, the slot's owner
//! sends, and which ownership of the slot that is: views number them ([`Tenure`]). Each ownership
//! that follows has the next block of numbers. A copy stands where the ownership begins that would
//! follow the present one, whichever member's it will be. So nothing has to be done for a takeover
//! itself; after it the copies of all members who did not get the slot move on by a block.
//!
//! At half use the owner raises its ceiling; that takes effect when all members of the view have
//! moved their copies above it. Of members that die meanwhile some may have heard of it, and others
//! not. Therefore
//!
//! * a new ceiling lies so far above the one before that what is reserved by it is never below what
//!   was, for any ownership: blocks never shrink;
//! * until it is known that all have heard of it a copy ends, too, where by what was reserved before
//!   the next one begins: blocks at most double, and are four times the raise.
//!
//! The first numbers of a new CHILD_SA are as much a reservation as the rest: its owner sends none before
//! all members know the SA. Who takes over before that may finish the exchange that the owner had
//! finished, a rekeying of ours: with the same nonces and key exchange, so with the same keys, from 1.
//!
//! Of a view of two that no majority follows both halves may go on. Who takes a slot over so jumps:
//! by [`JUMP`] above what its owner may have. Who keeps a slot, or has jumped, goes on by at most
//! [`ALONE`] with the SAs that both halves have, as long as it is alone. When the halves are one view
//! again, the slots that a half kept jump twice: once over where the other one went, which knows
//! nothing of it, and is not asked.

mod entry;
mod reserved;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use crate::change::{Checkpoint, Cookie, Reserved, Stamp};
use crate::frame::DeltaSeq;
use crate::view::{Epoch, Tenure};

use entry::{Entry, Own};

/// Numbers that a ceiling is raised by at least, and what the first owner has at first.
pub const FIRST: u64 = 16_384;

/// At most so many: a thousand ownerships without a raise are a jump below 2^32, and a hundred of
/// them one below 2^29 (RFC 4303 §2.2.1 allows 2^31).
const MOST: u64 = 1 << 20;

/// Blocks are so many times as wide as the raise.
const WIDTH: u64 = 4;

/// Who goes on with half of a view, and no majority, leaves so many numbers out. Four fit into 32 bits:
/// an SA without extended numbers is silent beyond, until it is rekeyed.
pub const JUMP: u64 = 1 << 30;

/// Half of a view uses at most so many numbers of an SA that the other half has, too. What the halves
/// know of each other's reservations differs by less than what this leaves of a jump.
pub const ALONE: u64 = 1 << 29;

/// Inbound SPI of a CHILD_SA, network order: unique in the cluster.
pub type SpiIn = [u8; 4];

/// Where a member's copy of a CHILD_SA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Last outbound sequence number that somebody else may use: the copy starts after it.
    pub sequence_out: u64,
    /// The copy may send up to this number.
    pub ceiling: u64,
    /// Highest inbound sequence number at the last checkpoint; 0 if none was made.
    pub sequence_in: u64,
}

/// A higher ceiling that is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) spi_in: SpiIn,
    pub(crate) local_spi: Cookie,
    pub(crate) ceiling: u64,
}

/// What a slot is to this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) tenure: Tenure,
    pub(crate) owned: bool,
}

impl Holding {
    /// The ownership that this member's follows, or would follow.
    pub(crate) const fn follows(self) -> Tenure {
        if self.owned {
            self.tenure.before()
        } else {
            self.tenure
        }
    }
}

/// The numbers of all CHILD_SAs of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    entries: BTreeMap<SpiIn, Entry>,
    /// Changed, to be published.
    changed: Vec<SpiIn>,
    /// Published, not in effect yet.
    waiting: VecDeque<(DeltaSeq, SpiIn)>,
    /// Only in tests of tests: copies stand in this block, whatever they follow.
    fixed: Option<u64>,
    /// There may be entries with a bound.
    alone: bool,
}

impl Reservations {
    pub(crate) fn new(fixed: Option<u64>) -> Self {
        Self {
            fixed,
            ..Self::default()
        }
    }

    /// A CHILD_SA appeared, of which `reserved` was told; `made` if this member made it. Whether it
    /// was not known before.
    pub(crate) fn open(
        &mut self,
        local_spi: Cookie,
        spi_in: SpiIn,
        reserved: Reserved,
        holding: Holding,
        made: bool,
    ) -> bool {
        let (fixed, alone) = (self.fixed, self.alone);
        let known = self.entries.contains_key(&spi_in);
        let entry = self.entries.entry(spi_in).or_insert_with(|| {
            let base = Checkpoint {
                local_spi,
                spi_in,
                reserved,
                sequence_in: 0,
            };
            let mut entry = Entry {
                base,
                written: Stamp::default(),
                fresh: reserved.ceiling != FIRST,
                stands: (0, 0),
                follows: holding.follows(),
                own: made.then(|| Own::new(holding.tenure, reserved.first_number())),
                bound: (made && alone).then_some(reserved.ceiling.saturating_add(ALONE)),
            };
            entry.stands = if made {
                (reserved.first_number(), reserved.ceiling)
            } else {
                entry.place(fixed, holding.follows())
            };
            entry
        });
        // A successor of the IKE SA inherits its children.
        entry.base.local_spi = local_spi;
        // Told anew for another slot.
        if entry.base.reserved.slot != reserved.slot {
            entry.base.reserved = reserved;
            entry.fresh = false;
            entry.follows = holding.follows();
            if entry.own.take().is_some_and(|_| holding.owned) {
                let from = entry.stands.0;
                entry.own = Some(Own::new(holding.tenure, from));
                entry.stands.1 = reserved.limit(holding.tenure);
            } else {
                entry.move_to(fixed, holding.follows());
            }
        }
        !known
    }

    /// This member, which owns the CHILD_SA in `tenure` from now on, uses it only when delta `seq` is
    /// on all members; `made` if it is the first owner.
    pub(crate) fn hold(&mut self, spi_in: SpiIn, tenure: Tenure, seq: DeltaSeq, made: bool) {
        if let Some(entry) = self.entries.get_mut(&spi_in) {
            let (start, end) = entry.stands;
            entry.stands = (start, start);
            let mut own = Own::new(tenure, start);
            own.pending = Some((seq, end));
            own.first = made;
            entry.own = Some(own);
            self.waiting.push_back((seq, spi_in));
        }
    }

    /// What has to be told of a CHILD_SA that is written in `slot`, whose numbers until now are those
    /// of ownership `from` of the slot that it was in. `None` if it is not known.
    pub(crate) fn reserved(
        &self,
        spi_in: SpiIn,
        from: Tenure,
        slot: Slot,
        to: Tenure,
    ) -> Option<Reserved> {
        let reserved = self.entries.get(&spi_in)?.base.reserved;
        Some(if reserved.slot == slot {
            reserved
        } else {
            Reserved {
                slot,
                tenure: to,
                ceiling: reserved.limit(from),
                block: reserved.block,
            }
        })
    }

    /// This member is half of a view: what it has may be used up to a bound. As expensive as there are
    /// SAs.
    pub(crate) fn isolate(&mut self) {
        for entry in self.entries.values_mut() {
            entry.bound = Some(entry.stands.1.saturating_add(ALONE));
        }
        self.alone = true;
    }

    /// A majority stands behind the view.
    pub(crate) fn rejoin(&mut self) {
        if std::mem::take(&mut self.alone) {
            for entry in self.entries.values_mut() {
                entry.bound = None;
            }
        }
    }

    /// The IKE SA that a CHILD_SA came with.
    pub(crate) fn local_spi(&self, spi_in: SpiIn) -> Option<Cookie> {
        self.entries.get(&spi_in).map(|entry| entry.base.local_spi)
    }

    /// Whether the copy of a CHILD_SA stands where it may follow ownership `tenure`, and nothing is
    /// on its way that changes what is reserved.
    pub(crate) fn is_settled(&self, spi_in: SpiIn, tenure: Tenure) -> bool {
        self.entries.get(&spi_in).is_none_or(|entry| {
            let changes = |own: Own| own.pending.is_some() && !own.first;
            entry.follows >= tenure && !entry.own.is_some_and(changes)
        })
    }

    /// A CHILD_SA is gone.
    pub(crate) fn close(&mut self, spi_in: SpiIn) {
        self.entries.remove(&spi_in);
    }

    /// Up to where this member may send if the SA's slot is its own.
    pub(crate) fn standing(&self, spi_in: SpiIn) -> Option<Standing> {
        self.entries.get(&spi_in).map(Entry::standing)
    }

    /// The outbound SA, which this member owns in `tenure`, has used up `sequence`. `true` if there
    /// is something to publish.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        spi_in: SpiIn,
        sequence: u64,
        tenure: Tenure,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&spi_in) else {
            return false;
        };
        let start = entry.stands.0;
        let own = entry.own.get_or_insert_with(|| Own::new(tenure, start));
        if own.tenure != tenure {
            *own = Own::new(tenure, start);
        }
        own.used = own.used.max(sequence);
        own.ahead = own.ahead(now);
        let wanted = entry.wants();
        if wanted {
            self.changed.push(spi_in);
        }
        wanted
    }

    /// Whether half of what a bound leaves is used.
    pub(crate) fn runs_out(&self, spi_in: SpiIn) -> bool {
        let entry = self.entries.get(&spi_in);
        entry.is_some_and(|entry| {
            let used = entry.own.map_or(0, |own| own.used);
            entry
                .bound
                .is_some_and(|bound| used >= bound.saturating_sub(ALONE / 2))
        })
    }

    /// The inbound SA has seen `sequence`. `true` if there is something to publish.
    pub(crate) fn received(&mut self, spi_in: SpiIn, sequence: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&spi_in) else {
            return false;
        };
        if sequence <= entry.base.sequence_in {
            return false;
        }
        entry.base.sequence_in = sequence;
        self.changed.push(spi_in);
        true
    }

    /// What is to be published, each once.
    pub(crate) fn take_changes(&mut self, most: usize) -> Vec<SpiIn> {
        self.changed.sort_unstable();
        self.changed.dedup();
        let rest = self.changed.len().saturating_sub(most);
        self.changed.split_off(rest)
    }

    /// The checkpoint of a CHILD_SA that this member owns in `tenure`, for the delta `written`.
    pub(crate) fn write(
        &mut self,
        spi_in: SpiIn,
        tenure: Tenure,
        written: Stamp,
    ) -> Option<Checkpoint> {
        let entry = self.entries.get_mut(&spi_in)?;
        if entry.wants()
            && let Some(own) = entry.own.as_mut().filter(|own| own.tenure == tenure)
        {
            let reserved = &mut entry.base.reserved;
            let before = u64::from(reserved.block) / WIDTH;
            let ahead = own.ahead.clamp(before, (2 * before).min(MOST).max(before));
            let ahead = ahead.next_multiple_of(Reserved::UNIT.into());
            let ceiling = reserved.limit(tenure).max(own.used).saturating_add(ahead);
            *reserved = Reserved {
                slot: reserved.slot,
                tenure,
                ceiling: ceiling.min(entry.bound.unwrap_or(u64::MAX)),
                block: (ahead * WIDTH) as u32,
            };
            entry.fresh = true;
            own.pending = Some((written.seq, reserved.ceiling));
            self.waiting.push_back((written.seq, spi_in));
        }
        entry.written = written;
        Some(entry.base)
    }

    /// Everything up to `seq` is on all members of the view.
    pub(crate) fn released(&mut self, seq: DeltaSeq) -> Vec<Raise> {
        let mut raises = Vec::new();
        while let Some((at, spi_in)) = self.waiting.front().copied()
            && at <= seq
        {
            self.waiting.pop_front();
            let Some(entry) = self.entries.get_mut(&spi_in) else {
                continue;
            };
            let Some(own) = &mut entry.own else {
                continue;
            };
            let Some((_, ceiling)) = own.pending.take_if(|(pending, _)| *pending == at) else {
                continue;
            };
            own.from = own.used;
            own.first = false;
            entry.fresh = false;
            entry.stands.1 = ceiling;
            raises.push(Raise {
                spi_in,
                local_spi: entry.base.local_spi,
                ceiling,
            });
        }
        raises
    }

    /// What was published up to `seq` and not released never will be in effect.
    pub(crate) fn discarded(&mut self, seq: DeltaSeq) {
        while let Some((at, spi_in)) = self.waiting.front().copied()
            && at <= seq
        {
            self.waiting.pop_front();
            if let Some(entry) = self.entries.get_mut(&spi_in)
                && let Some(own) = &mut entry.own
            {
                own.pending = own.pending.filter(|(pending, _)| *pending != at);
            }
        }
    }

    /// Another member wrote a checkpoint. While this member owns the SA, where it stands stays as it
    /// is: nobody has used the numbers of a checkpoint that it did not acknowledge. Where the copy has
    /// to move, says where. `told` if it is the owner's word, whatever is known.
    pub(crate) fn take(
        &mut self,
        checkpoint: &Checkpoint,
        written: Stamp,
        holding: Holding,
        told: bool,
    ) -> Option<Standing> {
        let fixed = self.fixed;
        let entry = self.entries.get_mut(&checkpoint.spi_in)?;
        let reserved = checkpoint.reserved;
        let newer = told || written > entry.written;
        if !newer || reserved.slot != entry.base.reserved.slot {
            return None;
        }
        if holding.owned && reserved.tenure >= holding.tenure {
            return None;
        }
        entry.written = written;
        let moved = reserved != entry.base.reserved;
        entry.base = Checkpoint {
            sequence_in: checkpoint.sequence_in.max(entry.base.sequence_in),
            ..*checkpoint
        };
        entry.fresh |= moved;
        if holding.owned {
            return None;
        }
        if moved {
            entry.own = None;
            entry.move_to(fixed, holding.follows());
        }
        Some(entry.standing())
    }

    /// The copy of a CHILD_SA moves to where it follows the ownership `follows`, if it does not stand
    /// there. `level` is the view in which all members know what was written before it.
    pub(crate) fn follow(
        &mut self,
        spi_in: SpiIn,
        follows: Tenure,
        level: Epoch,
    ) -> Option<Standing> {
        let fixed = self.fixed;
        let entry = self.entries.get_mut(&spi_in)?;
        if entry.written.epoch < level {
            entry.fresh = false;
        }
        if entry.follows >= follows {
            return None;
        }
        entry.own = None;
        entry.move_to(fixed, follows);
        Some(entry.standing())
    }

    /// What a member that knows nothing has to be told about a CHILD_SA.
    pub(crate) fn checkpoint(&self, spi_in: SpiIn) -> Option<(Checkpoint, Stamp)> {
        let entry = self.entries.get(&spi_in)?;
        Some((entry.base, entry.written))
    }

    /// Checkpoints that wait for being published.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }
}
