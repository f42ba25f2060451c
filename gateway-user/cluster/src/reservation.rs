//! Reservation of outbound sequence numbers: no number is used twice, whoever dies.
//!
//! The owner of an SA sends up to a *ceiling*, which the fence enforces. Above it each member has a
//! block of its own, in which its copy of the SA stands by. The owner raises the ceiling at half
//! use; that takes effect when all members of the view have moved their copies above it. Who takes
//! over goes on in its own block. Earlier owners may have used theirs, so its first raise begins
//! above all blocks ([`Raise::advance`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway_common::time::Instant;

use crate::change::{Checkpoint, Cookie, Stamp};
use crate::frame::DeltaSeq;
use crate::view::Epoch;

/// Numbers that are reserved at least, and at first.
pub const FIRST: u64 = 16_384;

/// At most so many: with 63 members a jump over all blocks stays below 2^31 (RFC 4303 §2.2.1).
const MOST: u64 = 1 << 24;

/// Numbers for so long are reserved at the measured rate.
const AHEAD: Duration = Duration::from_secs(2);

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
    /// The outbound SA has to go on after this number, before the ceiling is raised.
    pub(crate) advance: Option<u64>,
}

/// The place of this member among those that have blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rank {
    /// From 0.
    pub(crate) index: u64,
    pub(crate) members: u64,
}

/// What this member sends itself.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// It sends numbers above this,
    start: u64,
    /// up to this.
    ceiling: u64,
    used: u64,
    /// When the slot came to this member, as of the last raise.
    gained: Epoch,
    /// Asked for and not in effect yet.
    pending: Option<Pending>,
    /// For the rate: a number, and when it was used.
    measured: Option<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Number of the delta; `None` before it is published.
    seq: Option<DeltaSeq>,
    checkpoint: Checkpoint,
    advance: Option<u64>,
    gained: Epoch,
}

#[derive(Clone, Debug)]
struct Entry {
    base: Checkpoint,
    written: Stamp,
    /// Nobody has ever reserved a number above this.
    top: u64,
    /// An earlier run of this member may have used its block: it stands here, with an empty one, and
    /// waits for a checkpoint that gives it another, or for its own first raise.
    spent: Option<u64>,
    own: Option<Own>,
}

/// The numbers of all CHILD_SAs of the cluster.
#[derive(Debug)]
pub(crate) struct Reservations {
    rank: Rank,
    entries: BTreeMap<SpiIn, Entry>,
    /// Changed, to be published.
    changed: Vec<SpiIn>,
    /// Published, not in effect yet.
    waiting: VecDeque<(DeltaSeq, SpiIn)>,
}

impl Reservations {
    pub(crate) fn new(rank: Rank) -> Self {
        Self {
            rank,
            entries: BTreeMap::new(),
            changed: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A CHILD_SA appeared; `owned` if this member made it, in a slot that it gained then; `spent`
    /// if it is older than this run of this member.
    pub(crate) fn open(
        &mut self,
        local_spi: Cookie,
        spi_in: SpiIn,
        owned: Option<Epoch>,
        spent: bool,
    ) {
        let rank = self.rank;
        self.entries.entry(spi_in).or_insert_with(|| {
            let base = Checkpoint {
                local_spi,
                spi_in,
                ceiling: FIRST,
                block: FIRST as u32,
                sequence_in: 0,
            };
            let top = top(&base, rank);
            Entry {
                base,
                written: Stamp::default(),
                top,
                own: owned.map(|gained| Own::new(0, FIRST, gained)),
                spent: spent.then_some(top),
            }
        });
        // A successor of the IKE SA inherits its children.
        if let Some(entry) = self.entries.get_mut(&spi_in) {
            entry.base.local_spi = local_spi;
        }
    }

    /// The IKE SA that a CHILD_SA came with.
    pub(crate) fn local_spi(&self, spi_in: SpiIn) -> Option<Cookie> {
        self.entries.get(&spi_in).map(|entry| entry.base.local_spi)
    }

    /// A CHILD_SA is gone.
    pub(crate) fn close(&mut self, spi_in: SpiIn) {
        self.entries.remove(&spi_in);
    }

    /// Up to where this member may send if the SA's slot is its own.
    pub(crate) fn standing(&self, spi_in: SpiIn) -> Option<Standing> {
        let entry = self.entries.get(&spi_in)?;
        let sequence_in = entry.base.sequence_in;
        Some(match &entry.own {
            Some(own) => Standing {
                sequence_out: own.start.max(own.used),
                ceiling: own.ceiling,
                sequence_in,
            },
            None => {
                let (start, ceiling) = entry.block(self.rank);
                Standing {
                    sequence_out: start,
                    ceiling,
                    sequence_in,
                }
            }
        })
    }

    /// The outbound SA, whose slot this member has owned since `gained`, has used up `sequence`.
    /// `true` if there is something to publish.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        spi_in: SpiIn,
        sequence: u64,
        gained: Epoch,
    ) -> bool {
        let rank = self.rank;
        let Some(entry) = self.entries.get_mut(&spi_in) else {
            return false;
        };
        let (start, ceiling) = entry.block(rank);
        let own = entry
            .own
            .get_or_insert_with(|| Own::new(start, ceiling, Epoch(u64::MAX)));
        own.used = own.used.max(sequence);
        let ahead = own.ahead(now);
        if own.pending.is_some() || own.used < own.start + own.ceiling.saturating_sub(own.start) / 2
        {
            return false;
        }
        let foreign = own.gained != gained;
        let from = if foreign {
            entry.top.max(own.used)
        } else {
            own.ceiling.max(own.used)
        };
        let checkpoint = Checkpoint {
            // Who does not hear of it in time goes on in a block of before.
            ceiling: (from + ahead).max(entry.top),
            block: ahead as u32,
            ..entry.base
        };
        own.pending = Some(Pending {
            seq: None,
            checkpoint,
            advance: foreign.then_some(from),
            gained,
        });
        self.changed.push(spi_in);
        true
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

    /// Up to `most` checkpoints that have to be published as delta `seq`.
    pub(crate) fn publish(&mut self, seq: DeltaSeq, most: usize) -> Vec<Checkpoint> {
        let mut checkpoints = Vec::new();
        self.changed.sort_unstable();
        self.changed.dedup();
        while checkpoints.len() < most
            && let Some(spi_in) = self.changed.pop()
        {
            let Some(entry) = self.entries.get_mut(&spi_in) else {
                continue;
            };
            let pending = entry.own.as_mut().and_then(|own| own.pending.as_mut());
            let mut checkpoint = entry.base;
            if let Some(pending) = pending {
                checkpoint.ceiling = pending.checkpoint.ceiling;
                checkpoint.block = pending.checkpoint.block;
                pending.checkpoint = checkpoint;
                pending.seq = Some(seq);
                self.waiting.push_back((seq, spi_in));
            }
            checkpoints.push(checkpoint);
        }
        checkpoints
    }

    /// Everything up to `seq` is on all members of the view.
    pub(crate) fn released(&mut self, seq: DeltaSeq) -> Vec<Raise> {
        let rank = self.rank;
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
            let Some(pending) = own.pending.take_if(|pending| pending.seq == Some(at)) else {
                continue;
            };
            let sequence_in = entry.base.sequence_in;
            entry.base = Checkpoint {
                sequence_in,
                ..pending.checkpoint
            };
            entry.top = entry.top.max(top(&entry.base, rank));
            entry.spent = None;
            own.start = pending.advance.unwrap_or(own.used);
            own.ceiling = pending.checkpoint.ceiling;
            own.gained = pending.gained;
            raises.push(Raise {
                spi_in,
                local_spi: entry.base.local_spi,
                ceiling: own.ceiling,
                advance: pending.advance,
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
                && let Some(pending) = own.pending.take_if(|pending| pending.seq == Some(at))
            {
                entry.top = entry.top.max(top(&pending.checkpoint, self.rank));
            }
        }
    }

    /// Another member wrote a checkpoint. While this member owns the SA its own numbers stay as they
    /// are: nobody has used those of a checkpoint that it did not acknowledge. Where the copy has to
    /// move, says where. `spent` if it may be older than this run of this member.
    pub(crate) fn take(
        &mut self,
        checkpoint: &Checkpoint,
        written: Stamp,
        owned: bool,
        checked: bool,
        spent: bool,
    ) -> Option<Standing> {
        let rank = self.rank;
        let entry = self.entries.get_mut(&checkpoint.spi_in)?;
        entry.top = entry.top.max(top(checkpoint, rank));
        // A raise has its stamp before it is in effect, and a snapshot may tell it then and later.
        let ceiling = entry.base.ceiling;
        let stale = checkpoint.ceiling < ceiling
            || (written, checkpoint.ceiling) <= (entry.written, ceiling);
        if owned || (checked && stale) {
            return None;
        }
        let moved = checkpoint.ceiling > entry.base.ceiling || !checked;
        entry.written = written;
        entry.base = Checkpoint {
            sequence_in: checkpoint.sequence_in.max(entry.base.sequence_in),
            ..*checkpoint
        };
        if moved {
            entry.own = None;
            entry.spent = spent.then_some(entry.top);
        }
        self.standing(checkpoint.spi_in)
    }

    /// What a member that knows nothing has to be told about a CHILD_SA.
    pub(crate) fn checkpoint(&self, spi_in: SpiIn) -> Option<(Checkpoint, Stamp)> {
        let entry = self.entries.get(&spi_in)?;
        let known = entry.base.ceiling != FIRST || entry.base.sequence_in != 0;
        known.then_some((entry.base, entry.written))
    }

    /// This member wrote the checkpoints of a delta.
    pub(crate) fn wrote(&mut self, checkpoints: &[Checkpoint], written: Stamp) {
        for checkpoint in checkpoints {
            if let Some(entry) = self.entries.get_mut(&checkpoint.spi_in) {
                entry.written = written;
                entry.top = entry.top.max(top(checkpoint, self.rank));
            }
        }
    }

    /// Checkpoints that wait for being published.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }
}

impl Entry {
    /// The block of the member with this rank; an empty one above all others if it is spent.
    const fn block(&self, rank: Rank) -> (u64, u64) {
        match self.spent {
            Some(top) => (top, top),
            None => block(&self.base, rank),
        }
    }
}

impl Own {
    const fn new(start: u64, ceiling: u64, gained: Epoch) -> Self {
        Self {
            start,
            ceiling,
            used: start,
            gained,
            pending: None,
            measured: None,
        }
    }

    /// How many numbers to reserve: what goes in two seconds.
    fn ahead(&mut self, now: Instant) -> u64 {
        let (since, from) = *self.measured.get_or_insert((now, self.used));
        let elapsed = now.saturating_since(since);
        if elapsed.is_zero() {
            return FIRST;
        }
        let packets = u128::from(self.used - from);
        let rate = packets * AHEAD.as_nanos() / elapsed.as_nanos();
        self.measured = Some((now, self.used));
        u64::try_from(rate).unwrap_or(MOST).clamp(FIRST, MOST)
    }
}

/// Above all that a checkpoint reserves.
const fn top(checkpoint: &Checkpoint, rank: Rank) -> u64 {
    checkpoint.ceiling + rank.members * checkpoint.block as u64
}

/// The block of the member with this rank: above `.0`, up to `.1`.
const fn block(checkpoint: &Checkpoint, rank: Rank) -> (u64, u64) {
    let width = checkpoint.block as u64;
    let start = checkpoint.ceiling + rank.index * width;
    (start, start + width)
}
