//! Sets of members as bit maps: they are compared, intersected and sent all the time.

use std::fmt;

use gateway_common::member::MemberId;

/// A set of members: bit n stands for member n.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberSet(u64);

impl MemberSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// From the bits of a datagram or file; bit 0 stands for nobody and is dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & !1)
    }

    /// Bit n stands for member n.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `member` is in it.
    pub const fn contains(self, member: MemberId) -> bool {
        self.0 & bit(member) != 0
    }

    /// Adds `member`.
    pub const fn insert(&mut self, member: MemberId) {
        self.0 |= bit(member);
    }

    /// Takes `member` out.
    pub const fn remove(&mut self, member: MemberId) {
        self.0 &= !bit(member);
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `self` are in `other`.
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// In the order of the ids.
    pub fn iter(self) -> impl Iterator<Item = MemberId> + Clone {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let member = MemberId::new(u8::try_from(left.trailing_zeros()).ok()?)?;
            left &= left - 1;
            Some(member)
        })
    }
}

const fn bit(member: MemberId) -> u64 {
    1 << member.get()
}

impl FromIterator<MemberId> for MemberSet {
    fn from_iter<T: IntoIterator<Item = MemberId>>(members: T) -> Self {
        let mut set = Self::EMPTY;
        for member in members {
            set.insert(member);
        }
        set
    }
}

impl fmt::Debug for MemberSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
