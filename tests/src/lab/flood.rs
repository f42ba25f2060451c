//! A flood of IKE_SA_INIT requests with forged sources.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::network::VIP;
use super::node::Node;

/// Sends `count` requests from changing sources in 100.64.0.0/10, spread evenly over `time`.
///
/// Every request is well-formed (one proposal that the cluster accepts, a public value, a nonce),
/// so it costs the gateway as much as an unauthenticated packet can.
///
/// # Errors
/// The socket cannot be opened, or sending fails for another reason than a full queue.
pub fn flood(node: &Node, count: u32, time: Duration) -> Result<u32> {
    node.inside(|| {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )
        .context("raw socket")?;
        let target = SockAddr::from(std::net::SocketAddrV4::new(VIP, 0));
        let start = Instant::now();
        let mut sent = 0;
        for number in 0..count {
            let due = start + time.mul_f64(f64::from(number) / f64::from(count));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match socket.send_to(&packet(number), &target) {
                Ok(_) => sent += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(sent)
    })
}

/// The `number`-th packet: IPv4, UDP, IKE_SA_INIT.
fn packet(number: u32) -> Vec<u8> {
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + number);
    let ike = ike_sa_init(number);
    let udp_length = (8 + ike.len()) as u16;
    let mut packet = Vec::with_capacity(20 + usize::from(udp_length));
    // The kernel fills in total length, checksum and, being zero, the identification.
    packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(VIP.octets());
    packet.extend(500u16.to_be_bytes());
    packet.extend(500u16.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(ike);
    packet
}

/// A minimal request (RFC 7296 §1.2): SA, KE, Ni. Written by hand, so that the lab does not trust
/// the code that it tests.
pub fn ike_sa_init(number: u32) -> Vec<u8> {
    let sa = [
        // One proposal, IKE, three transforms (RFC 7296 §3.3).
        0, 0, 0, 36, 1, 1, 0, 3, //
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 0, 128, // ENCR AES-GCM-16, 128 bit
        3, 0, 0, 8, 2, 0, 0, 5, // PRF HMAC-SHA2-256
        0, 0, 0, 8, 4, 0, 0, 31, // Curve25519
    ];
    let mut public = [0x42; 32];
    public[..4].copy_from_slice(&number.to_be_bytes());
    let mut key_exchange = vec![0, 31, 0, 0];
    key_exchange.extend(public);
    let mut body = Vec::new();
    for (next, data) in [(34u8, &sa[..]), (40, &key_exchange), (0, &public)] {
        body.extend([next, 0]);
        body.extend((4 + data.len() as u16).to_be_bytes());
        body.extend(data);
    }
    let mut message = Vec::new();
    message.extend(((0x1badb002_u64 << 32) | (u64::from(number) + 1)).to_be_bytes());
    message.extend([0; 8]);
    message.extend([33, 0x20, 34, 0x08]);
    message.extend(0u32.to_be_bytes());
    message.extend((28 + body.len() as u32).to_be_bytes());
    message.extend(body);
    message
}

/// Sends a datagram to the VIP's port 500 and returns the first answer within `wait`, if any.
///
/// # Errors
/// The socket cannot be used.
pub fn exchange(
    node: &Node,
    from: Ipv4Addr,
    bytes: &[u8],
    wait: Duration,
) -> Result<Option<Vec<u8>>> {
    node.inside(|| {
        let socket = std::net::UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(wait * super::patience()))?;
        socket.send_to(bytes, (VIP, 500))?;
        let mut buffer = vec![0; 4096];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(error) if timed_out(&error) => Ok(None),
            Err(error) => Err(error).context("receiving"),
        }
    })
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_agree() {
        let message = ike_sa_init(7);
        let length = u32::from_be_bytes(message[24..28].try_into().unwrap());
        assert_eq!(length as usize, message.len());
        assert_eq!(message.len(), 28 + (4 + 36) + (4 + 36) + (4 + 32));
    }
}
