//! UDP encapsulation on port 4500 (RFC 3948 §2, RFC 7296 §2.23).

/// The IKE port.
pub const PORT_IKE: u16 = 500;

/// The NAT traversal port, shared by IKE and ESP.
pub const PORT_NAT_T: u16 = 4500;

/// Stands before an IKE message on port 4500, where an ESP packet has its SPI.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The whole content of a NAT keepalive.
pub const NAT_KEEPALIVE: [u8; 1] = [0xff];

/// What a datagram on port 4500 carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulated<'a> {
    /// A NAT keepalive (RFC 3948 §2.3): to be ignored.
    Keepalive,
    /// An IKE message, the marker removed. May be empty.
    Ike(&'a [u8]),
    /// An ESP packet, from its SPI on, which is not zero.
    Esp(&'a [u8]),
    /// Too short to be any of them.
    Runt,
}

impl<'a> Encapsulated<'a> {
    /// Sorts a UDP payload.
    pub fn parse(datagram: &'a [u8]) -> Self {
        if datagram == NAT_KEEPALIVE {
            return Self::Keepalive;
        }
        match datagram.split_first_chunk() {
            Some((&NON_ESP_MARKER, message)) => Self::Ike(message),
            Some(_) => Self::Esp(datagram),
            None => Self::Runt,
        }
    }

    /// An IKE message with the marker before it.
    pub fn encode_ike(message: &[u8]) -> Vec<u8> {
        [&NON_ESP_MARKER, message].concat()
    }
}
