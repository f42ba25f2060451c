//! Packets.

use zeroize::Zeroizing;

use crate::parse::{self, Reader};
use crate::section::Section;
use crate::{MAX_PACKET, ParseError, WriteError, wire, write};

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A client asks for something.
    Request {
        /// What.
        command: String,
        /// With these arguments.
        message: Section,
    },
    /// The answer to a request; its events come before it.
    Response(Section),
    /// The answer to a request that the server does not know.
    UnknownCommand,
    /// A client wants events of this name from now on.
    Register(String),
    /// Or no longer.
    Unregister(String),
    /// The answer to both.
    Confirm,
    /// The answer to both for events that the server does not know.
    UnknownEvent,
    /// Something happened, or is part of an answer.
    Event {
        /// Name of the event.
        name: String,
        /// What happened.
        message: Section,
    },
}

/// The length that the four octets before a packet say, 1 to [`MAX_PACKET`].
///
/// # Errors
/// If it is more, or nothing.
pub fn packet_length(prefix: [u8; 4]) -> Result<usize, ParseError> {
    match usize::try_from(u32::from_be_bytes(prefix)) {
        Ok(0) => Err(ParseError::Truncated),
        Ok(len) if len <= MAX_PACKET => Ok(len),
        Ok(len) => Err(ParseError::TooLong(len)),
        Err(_) => Err(ParseError::TooLong(usize::MAX)),
    }
}

impl Packet {
    /// Reads a packet, without the length before it.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(octets: &[u8]) -> Result<Self, ParseError> {
        if octets.len() > MAX_PACKET {
            return Err(ParseError::TooLong(octets.len()));
        }
        let mut reader = Reader(octets);
        let packet = match reader.octet().ok_or(ParseError::Truncated)? {
            wire::CMD_REQUEST => {
                let command = reader.name()?;
                let message = parse::message(reader.0)?;
                return Ok(Self::Request { command, message });
            }
            wire::CMD_RESPONSE => return parse::message(reader.0).map(Self::Response),
            wire::EVENT => {
                let name = reader.name()?;
                let message = parse::message(reader.0)?;
                return Ok(Self::Event { name, message });
            }
            wire::CMD_UNKNOWN => Self::UnknownCommand,
            wire::EVENT_REGISTER => Self::Register(reader.name()?),
            wire::EVENT_UNREGISTER => Self::Unregister(reader.name()?),
            wire::EVENT_CONFIRM => Self::Confirm,
            wire::EVENT_UNKNOWN => Self::UnknownEvent,
            other => return Err(ParseError::PacketType(other)),
        };
        if reader.0.is_empty() {
            Ok(packet)
        } else {
            Err(ParseError::Trailing)
        }
    }

    /// As octets, with the length before them.
    ///
    /// # Errors
    /// [`WriteError`] for what does not fit.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, WriteError> {
        let mut out = Zeroizing::new(vec![0; 4]);
        match self {
            Self::Request { command, message } => {
                out.push(wire::CMD_REQUEST);
                write::name(&mut out, command)?;
                write::message(&mut out, message)?;
            }
            Self::Response(message) => {
                out.push(wire::CMD_RESPONSE);
                write::message(&mut out, message)?;
            }
            Self::Event { name, message } => {
                out.push(wire::EVENT);
                write::name(&mut out, name)?;
                write::message(&mut out, message)?;
            }
            Self::Register(name) => {
                out.push(wire::EVENT_REGISTER);
                write::name(&mut out, name)?;
            }
            Self::Unregister(name) => {
                out.push(wire::EVENT_UNREGISTER);
                write::name(&mut out, name)?;
            }
            Self::UnknownCommand => out.push(wire::CMD_UNKNOWN),
            Self::Confirm => out.push(wire::EVENT_CONFIRM),
            Self::UnknownEvent => out.push(wire::EVENT_UNKNOWN),
        }
        let len = out.len() - 4;
        if len > MAX_PACKET {
            return Err(WriteError::Packet(len));
        }
        let prefix = u32::try_from(len).map_err(|_| WriteError::Packet(len))?;
        out.splice(..4, prefix.to_be_bytes());
        Ok(out)
    }
}
