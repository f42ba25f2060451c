//! What may come in on the VICI socket.

use gateway_vici::{Packet, packet_length};

/// One packet, without the length before it.
pub(super) fn packet(data: &[u8]) {
    let Ok(packet) = Packet::parse(data) else {
        return;
    };
    let written = packet.encode().expect("what was read can be written");
    let (prefix, octets) = written.split_first_chunk().expect("a length");
    assert_eq!(packet_length(*prefix), Ok(octets.len()));
    assert_eq!(octets, data, "what was read is written the same");
}
