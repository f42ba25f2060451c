//! The frames that are measured, and the random keys in them.

use std::net::Ipv4Addr;

/// Source address of every frame, as if the router had sent it.
pub(super) const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Destination address of every frame: ours.
pub(super) const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The cluster's address.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Not the cluster's.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The peer's address.
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

const ESP: u8 = 50;
const UDP: u8 = 17;
const IKE_PORT: u16 = 500;
/// The smallest Ethernet frame without its checksum.
const MIN_FRAME: usize = 60;

/// Exchange type IKE_AUTH.
const IKE_AUTH: u8 = 35;
const FLAG_INITIATOR: u8 = 0x08;
/// Next payload Encrypted.
const SK: u8 = 46;

/// Message id in every IKE frame.
pub(super) const MESSAGE_ID: [u8; 4] = [0, 0, 0, 1];

/// A small generator with a fixed seed: the same keys in every run (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next value.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// `count` different values.
    pub(super) fn distinct(&mut self, count: usize) -> Vec<u64> {
        let mut seen = std::collections::HashSet::with_capacity(count);
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            // The low half alone must differ: it is the SPI.
            let value = self.next();
            if value as u32 > 0xff && seen.insert(value as u32) {
                values.push(value);
            }
        }
        values
    }
}

/// The SPI made of `key`.
pub(super) const fn spi(key: u64) -> [u8; 4] {
    (key as u32).to_be_bytes()
}

/// An ESP frame from the peer to the cluster.
pub(super) fn esp(key: u64) -> Vec<u8> {
    let mut payload = spi(key).to_vec();
    payload.extend_from_slice(&1u32.to_be_bytes());
    payload.extend_from_slice(&[0xa5; 18]);
    ipv4(PEER, VIP, ESP, &payload)
}

/// The same in the other direction: what the fence sees.
pub(super) fn esp_out(key: u64) -> Vec<u8> {
    let mut payload = spi(key).to_vec();
    payload.extend_from_slice(&1u32.to_be_bytes());
    payload.extend_from_slice(&[0xa5; 18]);
    ipv4(VIP, PEER, ESP, &payload)
}

/// ESP to an address that is not the cluster's; the key is in the source address.
pub(super) fn not_ours(key: u64) -> Vec<u8> {
    let mut payload = spi(key).to_vec();
    payload.extend_from_slice(&[0; 22]);
    ipv4(Ipv4Addr::from(key as u32), ELSEWHERE, ESP, &payload)
}

/// An IKE_AUTH request from the peer; `key` is our cookie.
pub(super) fn ike(key: u64) -> Vec<u8> {
    let mut message = [0u8; 28];
    message[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_be_bytes());
    message[8..16].copy_from_slice(&key.to_be_bytes());
    message[16] = SK;
    message[17] = 0x20;
    message[18] = IKE_AUTH;
    message[19] = FLAG_INITIATOR;
    message[20..24].copy_from_slice(&MESSAGE_ID);
    message[24..28].copy_from_slice(&28u32.to_be_bytes());
    let length = 8 + message.len() as u16;
    let mut datagram = Vec::with_capacity(usize::from(length));
    for field in [IKE_PORT, IKE_PORT, length, 0] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    datagram.extend_from_slice(&message);
    ipv4(PEER, VIP, UDP, &datagram)
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MIN_FRAME + 14);
    frame.extend_from_slice(&OUR_MAC);
    frame.extend_from_slice(&ROUTER_MAC);
    frame.extend_from_slice(&[0x08, 0x00]);
    let length = 20 + payload.len() as u16;
    let [high, low] = length.to_be_bytes();
    let mut header = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    frame.extend_from_slice(&header);
    frame.extend_from_slice(payload);
    frame.resize(frame.len().max(MIN_FRAME), 0);
    frame
}

fn checksum(header: &[u8; 20]) -> u16 {
    let sum: u32 = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
