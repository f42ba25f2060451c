//! Member identifiers.

use core::fmt;

/// Identifies one member of the cluster: 1 to 63. Zero means "unset" wherever a raw byte is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u8);

impl MemberId {
    /// Highest identifier. The drawing member stands in the low 6 bits of every SPI.
    pub const MAX: u8 = 63;

    /// `None` unless `id` is within 1..=63.
    pub const fn new(id: u8) -> Option<Self> {
        if id >= 1 && id <= Self::MAX {
            Some(Self(id))
        } else {
            None
        }
    }

    /// The raw identifier, 1..=63.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
