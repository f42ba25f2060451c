//! A stranger on one of the networks: frames of any content, and what passes by.

use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use super::node::Node;

/// A raw Ethernet socket on an interface of a node.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// Opens the interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open(node: &Node, interface: &str) -> Result<Self> {
        node.inside(|| open(interface))
    }

    /// Sends a whole Ethernet frame.
    ///
    /// # Errors
    /// The interface is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        (&self.socket).write_all(frame).context("sending a frame")
    }

    /// Takes up to `count` frames that `wanted` accepts, for at most `limit` (times patience).
    ///
    /// # Errors
    /// The socket fails.
    pub fn collect(
        &self,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let end = Instant::now() + limit * super::patience();
        let mut found = Vec::new();
        let mut buffer = [0; 2048];
        self.socket
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        while found.len() < count && Instant::now() < end {
            // A time-out is no error: the loop looks at the clock.
            if let Ok(length) = (&self.socket).read(&mut buffer)
                && wanted(&buffer[..length])
            {
                found.push(buffer[..length].to_vec());
            }
        }
        Ok(found)
    }
}

fn open(interface: &str) -> Result<Wire> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a live C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket(2) takes no pointers, and its descriptor is ours alone; an all-zero address is
    // valid, and bind(2) reads a live one of the length given.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(protocol),
        );
        ensure!(fd >= 0, "AF_PACKET: {}", std::io::Error::last_os_error());
        let socket = Socket::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let result = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length);
        ensure!(result == 0, "bind: {}", std::io::Error::last_os_error());
        socket
    };
    Ok(Wire { socket })
}

/// An Ethernet frame with a UDP datagram over IPv4.
pub fn udp_frame(
    macs: ([u8; 6], [u8; 6]),
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let udp = (8 + payload.len()) as u16;
    let (source, destination) = macs;
    let mut frame = destination.to_vec();
    frame.extend(source);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + udp).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.0.octets());
    frame.extend(to.0.octets());
    let header = frame[14..34].chunks(2);
    let sum: u32 = header
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    // A zero UDP checksum means none (RFC 768).
    for field in [from.1, to.1, udp, 0] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// The UDP ports of an IPv4 frame without options or tags: source, destination.
pub fn udp_ports(frame: &[u8]) -> Option<(u16, u16)> {
    let is_udp = frame.get(12..15)? == [8, 0, 0x45] && *frame.get(23)? == 17;
    let port = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    if is_udp {
        Some((port(34)?, port(36)?))
    } else {
        None
    }
}

impl Node {
    /// The Ethernet address of an interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let text = self.output("ip", &["-j", "link", "show", "dev", interface])?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        let text = shown[0]["address"]
            .as_str()
            .context("no Ethernet address")?;
        let mut mac = [0; 6];
        for (place, octet) in mac.iter_mut().zip(text.split(':')) {
            *place = u8::from_str_radix(octet, 16)?;
        }
        Ok(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_shows_its_ports() {
        let (from, to) = (([10, 0, 0, 1].into(), 7), ([10, 0, 0, 2].into(), 4515));
        let frame = udp_frame(([2; 6], [4; 6]), from, to, b"x");
        assert_eq!(udp_ports(&frame), Some((7, 4515)));
        assert_eq!(&frame[..12], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]);
        assert_eq!(udp_ports(&frame[..20]), None);
    }
}
