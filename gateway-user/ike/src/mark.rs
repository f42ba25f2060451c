//! Marks of packets (`skb->mark`), by which a kernel tells flows apart that have the same addresses.

use std::fmt;
use std::str::FromStr;

/// Bits of a mark and which of them count. The value has no bit outside the mask; a mask of 0 is no
/// mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The bits.
    pub value: u32,
    /// Those that count.
    pub mask: u32,
}

impl Mark {
    /// No mark: matches every packet, changes none.
    pub const NONE: Self = Self { value: 0, mask: 0 };

    /// `value` as far as it is in `mask`.
    pub const fn new(value: u32, mask: u32) -> Self {
        Self {
            value: value & mask,
            mask,
        }
    }

    /// Whether it is no mark.
    pub const fn is_none(self) -> bool {
        self.mask == 0
    }
}

/// `0x0000002a/0xffffffff`.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}/{:#010x}", self.value, self.mask)
    }
}

/// A text that is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mark, like \"42\" or \"0x2a/0xff\"")]
pub struct MarkError;

/// Decimal or hexadecimal; without a mask all bits count. Bits outside the mask are left out, as
/// swanctl does.
impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            match digits {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => text.parse(),
            }
            .map_err(|_| MarkError)
        };
        match text.trim().split_once('/') {
            Some((value, mask)) => Ok(Self::new(number(value)?, number(mask)?)),
            None => Ok(Self::new(number(text.trim())?, u32::MAX)),
        }
    }
}

/// The marks of a CHILD_SA, with the names of swanctl.conf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// `mark_in`: what the inbound policies match, after decryption.
    pub inbound: Mark,
    /// `mark_in_sa`: whether the inbound SA matches it, too, before decryption.
    pub inbound_sa: bool,
    /// `mark_out`: what the outbound policies match.
    pub outbound: Mark,
    /// `set_mark_in`: what the inbound SA writes into decrypted packets.
    pub set_in: Mark,
    /// `set_mark_out`: what the outbound SA writes into encrypted packets, beside our own bits.
    pub set_out: Mark,
}

impl Marks {
    /// What the inbound SA itself matches.
    pub const fn of_inbound_sa(&self) -> Mark {
        if self.inbound_sa {
            self.inbound
        } else {
            Mark::NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_written_as_in_swanctl_conf() {
        let mark = |text: &str| text.parse::<Mark>();
        assert_eq!(mark("42"), Ok(Mark::new(42, u32::MAX)));
        assert_eq!(mark("0x2a/0xff"), Ok(Mark::new(42, 0xff)));
        assert_eq!(mark("0x12a/255"), Ok(Mark::new(42, 0xff)));
        assert_eq!(mark("0/0x00000000"), Ok(Mark::NONE));
        assert_eq!(
            mark("0x2a/0xff").unwrap().to_string(),
            "0x0000002a/0x000000ff"
        );
        for wrong in [
            "",
            "42/",
            "/1",
            "-1",
            "4294967296",
            "%unique",
            "1/2/3",
            "0x",
        ] {
            assert_eq!(mark(wrong), Err(MarkError), "{wrong}");
        }
    }
}
