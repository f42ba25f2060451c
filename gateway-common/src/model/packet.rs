//! Frames, built from the inside out.

use core::net::IpAddr;

use crate::abi::Address;
use crate::packet::IkeHeader;

/// Address of this member's public and inside interfaces.
pub const OUR_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Address of the router that sends the frames.
pub const ROUTER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
/// See [`IPV4`].
pub const IPV6: u16 = 0x86dd;

/// An Ethernet frame from the router to this member.
pub fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], kind, payload)
}

/// The same with VLAN tags of these EtherTypes, outermost first.
pub fn tagged(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [OUR_MAC, ROUTER_MAC].concat();
    for (number, tag) in (100u16..).zip(tags) {
        frame.extend(tag.to_be_bytes());
        frame.extend(number.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame with the EtherType that fits the IP packet.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|b| b >> 4 == 6) {
        IPV6
    } else {
        IPV4
    };
    ethernet(kind, packet)
}

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source.
    pub source: IpAddr,
    /// Destination, of the same family.
    pub destination: IpAddr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// IPv4: options, a multiple of four octets. IPv6: extension headers, the first one's kind in
    /// front; their own next-header fields must be right but for the last, which is filled in.
    pub extra: Vec<u8>,
    /// Identification and fragment field of IPv4.
    pub fragment: (u16, u16),
    /// Payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet without options, not fragmented.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            extra: Vec::new(),
            fragment: (0x1234, 0),
            payload,
        }
    }

    /// The octets; IPv4 with a valid checksum.
    pub fn octets(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => self.v4(),
            _ => self.v6(),
        }
    }

    /// In an Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.octets())
    }

    fn v4(&self) -> Vec<u8> {
        let header = 20 + self.extra.len();
        let total = u16::try_from(header + self.payload.len()).unwrap_or(u16::MAX);
        let first = 0x40 | u8::try_from(header / 4).unwrap_or(15);
        let mut packet = vec![first, 0];
        packet.extend(total.to_be_bytes());
        packet.extend(self.fragment.0.to_be_bytes());
        packet.extend(self.fragment.1.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(&Address::from(self.source).octets[12..]);
        packet.extend(&Address::from(self.destination).octets[12..]);
        packet.extend(&self.extra);
        let sum = checksum(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(&self.payload);
        packet
    }

    fn v6(&self) -> Vec<u8> {
        let (first, extensions) = match self.extra.split_first() {
            Some((first, extensions)) => (*first, extensions),
            None => (self.protocol, [].as_slice()),
        };
        let length = extensions.len() + self.payload.len();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        packet.extend([first, 64]);
        packet.extend(Address::from(self.source).octets);
        packet.extend(Address::from(self.destination).octets);
        packet.extend(extensions);
        packet.extend(&self.payload);
        packet
    }
}

/// IPv6 extension headers for [`Packet::extra`]: each a kind and its octets after the
/// next-header field.
pub fn extensions(headers: &[(u8, &[u8])], protocol: u8) -> Vec<u8> {
    let mut extra = vec![headers.first().map_or(protocol, |(kind, _)| *kind)];
    for (index, (_, rest)) in headers.iter().enumerate() {
        extra.push(headers.get(index + 1).map_or(protocol, |(kind, _)| *kind));
        extra.extend(*rest);
    }
    extra
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A UDP datagram without checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    for field in [source, destination, length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// ESP: SPI, a sequence number, something opaque.
pub fn esp(spi: u32) -> Vec<u8> {
    numbered_esp(spi, 7)
}

/// The same with this sequence number.
pub fn numbered_esp(spi: u32, sequence: u32) -> Vec<u8> {
    let mut packet = spi.to_be_bytes().to_vec();
    packet.extend(sequence.to_be_bytes());
    packet.extend([0xe5; 32]);
    packet
}

/// An IKE message of 16 octets behind its header.
#[derive(Clone, Copy, Debug)]
pub struct Ike {
    /// Initiator's cookie.
    pub initiator: [u8; 8],
    /// Responder's cookie.
    pub responder: [u8; 8],
    /// Version octet.
    pub version: u8,
    /// Flags.
    pub flags: u8,
    /// Message id.
    pub message_id: u32,
}

impl Ike {
    /// An IKEv2 message of the original initiator.
    pub fn from_initiator(initiator: &[u8; 8], responder: &[u8; 8]) -> Self {
        Self {
            initiator: *initiator,
            responder: *responder,
            version: 0x20,
            flags: IkeHeader::INITIATOR,
            message_id: 1,
        }
    }

    /// An IKEv2 message of the original responder.
    pub fn from_responder(initiator: &[u8; 8], responder: &[u8; 8]) -> Self {
        Self {
            flags: 0x20,
            ..Self::from_initiator(initiator, responder)
        }
    }

    /// The octets.
    pub fn octets(&self) -> Vec<u8> {
        let mut message = [self.initiator, self.responder].concat();
        message.extend([33, self.version, 34, self.flags]);
        message.extend(self.message_id.to_be_bytes());
        message.extend(44u32.to_be_bytes());
        message.extend([0xab; 16]);
        message
    }

    /// Behind the non-ESP marker of port 4500.
    pub fn marked(&self) -> Vec<u8> {
        [vec![0; 4], self.octets()].concat()
    }
}

/// An ICMP error of `kind` that quotes the first `limit` octets of a packet.
pub fn icmp_error(kind: u8, quoted: &Packet, limit: usize) -> Vec<u8> {
    let mut message = vec![kind, 4, 0, 0, 0, 0, 5, 0x78];
    message.extend(quoted.octets().iter().take(limit));
    message
}
