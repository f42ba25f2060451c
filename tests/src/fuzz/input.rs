//! Decisions out of the octets of an input.

/// Reads an input from its beginning; behind its end everything is zero.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn octet(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&octet, rest)) => {
                self.0 = rest;
                octet
            }
            None => 0,
        }
    }

    pub(super) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// Below `count`; 0 if that is 0.
    pub(super) fn index(&mut self, count: usize) -> usize {
        usize::from(self.octet()).checked_rem(count).unwrap_or(0)
    }

    /// A length octet and as many octets, or what is left.
    pub(super) fn octets(&mut self) -> &'a [u8] {
        let wanted = usize::from(self.octet());
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
