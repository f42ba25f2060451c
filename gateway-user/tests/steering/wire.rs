//! Raw frames in and out of an interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::lab::{index, run};

/// A packet socket on one interface; sees what arrives there, not what is sent.
pub(crate) struct Tap(OwnedFd);

impl Tap {
    pub(crate) fn open(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: socket takes no pointers; the result is checked.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            )
        };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the address is plain integers, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index(interface).cast_signed();
        // SAFETY: the address is live and of the stated length.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// Sets `skb->mark` of everything sent here.
    pub(crate) fn set_mark(&self, mark: u32) {
        let socket = socket2::SockRef::from(&self.0);
        socket.set_mark(mark).unwrap();
    }

    /// Sends a frame. `false` if something on the way out dropped it.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the frame is live for the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            return true;
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
        false
    }

    /// The first frame that arrives within `patience` and that `wanted` accepts.
    pub(crate) fn receive(
        &self,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            // SAFETY: the buffer is live for the call.
            let received = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(received) {
                Ok(length) if wanted(&buffer[..length]) => return Some(buffer[..length].to_vec()),
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Counts the frames waiting here that `wanted` accepts.
    pub(crate) fn count(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let mut count = 0;
        while self.receive(Duration::ZERO, &wanted).is_some() {
            count += 1;
        }
        count
    }
}

pub(crate) const VIP: [u8; 4] = [203, 0, 113, 10];
pub(crate) const PEER: [u8; 4] = [198, 51, 100, 7];

/// The Ethernet address of an interface.
pub(crate) fn mac(interface: &str) -> [u8; 6] {
    let link = run(&format!("ip -brief link show {interface}"));
    let octets: Vec<u8> = link
        .split_whitespace()
        .nth(2)
        .unwrap()
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

/// An ESP frame.
pub(crate) fn esp(to: [u8; 6], source: [u8; 4], destination: [u8; 4], spi: u32) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 0x77, 0x08, 0x00]);
    let mut header = [
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&destination);
    let sum: u32 = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&spi.to_be_bytes());
    frame.extend_from_slice(&1u32.to_be_bytes());
    frame.extend_from_slice(&[0xa5; 18]);
    frame
}

/// Whether `frame` is ESP with this SPI.
pub(crate) fn has_spi(frame: &[u8], spi: u32) -> bool {
    frame.get(23) == Some(&50) && frame.get(34..38) == Some(&spi.to_be_bytes()[..])
}
