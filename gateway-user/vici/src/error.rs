//! Why octets are no packet, or a packet no octets.

/// What is wrong with received octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The length before a packet is more than [`crate::MAX_PACKET`].
    #[error("a packet of {0} octets: at most {max} are taken", max = crate::MAX_PACKET)]
    TooLong(usize),
    /// Something ends before its length says.
    #[error("the packet ends within an element")]
    Truncated,
    /// A packet type that VICI does not have.
    #[error("{0} is no packet type")]
    PacketType(u8),
    /// An element type that VICI does not have, or not there.
    #[error("element type {0} where it cannot stand")]
    Element(u8),
    /// A name that is not UTF-8.
    #[error("a name is not text")]
    Name,
    /// Sections or lists that begin and do not end, or the other way round.
    #[error("a section or list has no end, or no beginning")]
    Unbalanced,
    /// More than [`crate::MAX_DEPTH`] sections within each other.
    #[error("more than {max} sections within each other", max = crate::MAX_DEPTH)]
    TooDeep,
    /// More than [`crate::MAX_ELEMENTS`].
    #[error("more than {max} elements", max = crate::MAX_ELEMENTS)]
    TooMany,
    /// Octets behind a packet that has no message.
    #[error("octets behind the end of the packet")]
    Trailing,
}

/// Why something cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A name of more than 255 octets.
    #[error("a name has {0} octets: at most 255 fit")]
    Name(usize),
    /// A value of more than 65,535 octets.
    #[error("a value has {0} octets: at most 65535 fit")]
    Value(usize),
    /// A packet of more than [`crate::MAX_PACKET`].
    #[error("the packet has {0} octets: at most {max} fit", max = crate::MAX_PACKET)]
    Packet(usize),
}
