//! The messages of VICI (Versatile IKE Configuration Interface), strongSwan's control protocol that
//! swanctl speaks.
//!
//! A connection carries packets, each behind its length in four octets, network order
//! ([`packet_length`]). A [`Packet`] has a type and, depending on it, a name and a message; a message
//! is a tree of [`Section`]s, lists and values. All values are octets, most of them text.
//!
//! The parser is total: any octets give a tree or an error, with [`MAX_PACKET`], [`MAX_DEPTH`] and
//! [`MAX_ELEMENTS`] as bounds of what it takes up. Values can be secrets: they have no readable
//! `Debug` and are wiped when they are dropped.

#![forbid(unsafe_code)]

mod de;
mod error;
mod packet;
mod parse;
mod section;
mod write;

pub use de::{DeError, from_section};
pub use error::{ParseError, WriteError};
pub use packet::{Packet, packet_length};
pub use section::{Item, Section, Value};

/// Longest packet behind its length, in octets: what strongSwan's libvici takes.
pub const MAX_PACKET: usize = 512 * 1024;
/// Most sections within each other. A connection has three.
pub const MAX_DEPTH: usize = 16;
/// Most elements of a message.
pub const MAX_ELEMENTS: usize = 65_536;

/// Types of packets and of elements, as they stand on the wire.
mod wire {
    pub(crate) const CMD_REQUEST: u8 = 0;
    pub(crate) const CMD_RESPONSE: u8 = 1;
    pub(crate) const CMD_UNKNOWN: u8 = 2;
    pub(crate) const EVENT_REGISTER: u8 = 3;
    pub(crate) const EVENT_UNREGISTER: u8 = 4;
    pub(crate) const EVENT_CONFIRM: u8 = 5;
    pub(crate) const EVENT_UNKNOWN: u8 = 6;
    pub(crate) const EVENT: u8 = 7;

    pub(crate) const SECTION_START: u8 = 1;
    pub(crate) const SECTION_END: u8 = 2;
    pub(crate) const KEY_VALUE: u8 = 3;
    pub(crate) const LIST_START: u8 = 4;
    pub(crate) const LIST_ITEM: u8 = 5;
    pub(crate) const LIST_END: u8 = 6;
}

#[cfg(test)]
mod tests;
