//! Captures: what really passed an interface, with the kernel's time stamps.
//!
//! A tap is an AF_PACKET socket. Outgoing packets are seen behind the fence, when the device takes
//! them; incoming ones behind XDP, so a frame that XDP redirected is not among them.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::enter::spawn_in_netns;
use super::fault::HEARTBEATS;
use super::node::Node;

/// Octets of each packet that are looked at.
const SNAP: usize = 128;
/// Room for bursts while the reader does not get a processor.
const BUFFER: libc::c_int = 64 << 20;

/// A moment on the machine's wall clock, in nanoseconds: one clock for all namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `time` after this.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// What a packet is, as far as the lab's assertions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// ESP, native or in UDP.
    Esp {
        /// As in the packet.
        spi: u32,
        /// The low 32 bits, which are all that is on the wire.
        sequence: u32,
    },
    /// IKE, on port 500 or 4500.
    Ike {
        /// The initiator's SPI.
        initiator_spi: u64,
        /// 34 is IKE_SA_INIT (RFC 7296 §3.1).
        exchange: u8,
        /// Whether the Response flag is set.
        response: bool,
        /// As in the packet.
        message_id: u32,
    },
    /// A NAT keepalive (RFC 3948 §2.3).
    Keepalive,
    /// A datagram of the members' to each other: heartbeats, votes.
    Heartbeat,
    /// Any other IP packet.
    Plain,
}

/// IKE_SA_INIT (RFC 7296 §3.1).
pub const IKE_SA_INIT: u8 = 34;

/// One captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Moment,
    /// Whether the node sent it.
    pub out: bool,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What it is.
    pub what: What,
}

/// A capture that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Seen>>>>,
}

impl Tap {
    /// Captures the IP packets of an interface of a node.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn start(node: &Node, interface: &str) -> Result<Self> {
        let socket = node.inside(|| open(interface))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let name = format!("{}:{interface}", node.name);
        let thread = spawn_in_netns(&node.netns_path(), move || {
            record(&socket, &flag).with_context(|| format!("the capture on {name}"))
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the capture and returns what it saw, in order.
    ///
    /// # Errors
    /// The capture has holes: packets came faster than they were read.
    pub fn finish(mut self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a tap that has ended")?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is a live integer of the length given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

fn open(interface: &str) -> Result<OwnedFd> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a live C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    // Protocol 0: nothing arrives before the socket is bound to the interface.
    // SAFETY: socket(2) takes no pointers; the descriptor is ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd).context("AF_PACKET")?;
        OwnedFd::from_raw_fd(fd)
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    // SAFETY: an all-zero address is valid; the pointer is to a live value of the length given.
    unsafe {
        let mut address: libc::sockaddr_ll = zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        check(libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        ))?;
    }
    Ok(socket)
}

fn record(socket: &OwnedFd, stop: &AtomicBool) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    loop {
        // What had arrived before the stop is still read; what goes on arriving is not waited for.
        let last = stop.load(Ordering::Relaxed);
        if wait(socket)? {
            while let Some(packet) = receive(socket)? {
                seen.extend(packet);
            }
        }
        if last {
            break;
        }
    }
    ensure!(lost(socket)? == 0, "packets were lost to the capture");
    Ok(seen)
}

/// Waits for a packet, a tenth of a second at most.
fn wait(socket: &OwnedFd) -> Result<bool> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    check(unsafe { libc::poll(&raw mut poll, 1, 100) })?;
    // An error is read like a packet: the interface may be gone.
    Ok(poll.revents != 0)
}

/// The next packet, `Some(None)` if it is not IP, `None` if there is none now.
fn receive(socket: &OwnedFd) -> Result<Option<Option<Seen>>> {
    let mut data = [0_u8; SNAP];
    let mut control = [0_u64; 16];
    // SAFETY: all-zero is valid for these; every pointer below is to a live local of the length
    // given with it, for the time of the call.
    let (length, address, stamp) = unsafe {
        let mut address: libc::sockaddr_ll = zeroed();
        let mut vector = libc::iovec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: data.len(),
        };
        let mut message: libc::msghdr = zeroed();
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // The interface goes down or away: that is the end of what can be seen.
                Some(libc::ENETDOWN | libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error.into()),
            };
        }
        (length as usize, address, timestamp(&message))
    };
    let Some(at) = stamp else {
        bail!("a packet without a time stamp")
    };
    let Some((source, destination, what)) = decode(&data[..length.min(SNAP)]) else {
        return Ok(Some(None));
    };
    Ok(Some(Some(Seen {
        at,
        out: address.sll_pkttype == libc::PACKET_OUTGOING,
        source,
        destination,
        what,
    })))
}

/// # Safety
/// `message` has been filled in by recvmsg(2).
unsafe fn timestamp(message: &libc::msghdr) -> Option<Moment> {
    // SAFETY: the kernel's control messages, walked with its own macros; the time stamp is copied.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let time = libc::CMSG_DATA(header)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                return Some(Moment(
                    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
                ));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

/// Packets that the socket had no room for.
fn lost(socket: &OwnedFd) -> Result<u32> {
    // SAFETY: all-zero is valid; the length is the structure's.
    unsafe {
        let mut statistics: libc::tpacket_stats = zeroed();
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        check(libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        ))?;
        Ok(statistics.tp_drops)
    }
}

/// Source, destination and kind of an IP packet. Written by hand, so that the lab does not trust
/// the code that it tests.
fn decode(packet: &[u8]) -> Option<(IpAddr, IpAddr, What)> {
    let (source, destination, protocol, offset): (IpAddr, IpAddr, u8, usize) =
        match packet.first()? >> 4 {
            4 => {
                let address = |at: usize| Some(Ipv4Addr::from(u32_at(packet, at)?));
                let fragment = u16_at(packet, 6)? & 0x1fff != 0;
                let protocol = if fragment { u8::MAX } else { packet[9] };
                let header = usize::from(packet[0] & 15) * 4;
                (address(12)?.into(), address(16)?.into(), protocol, header)
            }
            6 => {
                let address = |at: usize| {
                    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                    Some(Ipv6Addr::from(octets))
                };
                (address(8)?.into(), address(24)?.into(), packet[6], 40)
            }
            _ => return None,
        };
    let what = transport(protocol, packet.get(offset..).unwrap_or_default()).unwrap_or(What::Plain);
    Some((source, destination, what))
}

fn transport(protocol: u8, data: &[u8]) -> Option<What> {
    if protocol == 50 {
        return esp(data);
    }
    if protocol != 17 {
        return None;
    }
    let ports = [u16_at(data, 0)?, u16_at(data, 2)?];
    if ports.contains(&4500) {
        if u16_at(data, 4)? < 12 {
            return Some(What::Keepalive);
        }
        return match u32_at(data, 8) {
            // The non-ESP marker (RFC 3948 §2.2).
            Some(0) => ike(data.get(12..)?),
            _ => esp(data.get(8..)?),
        };
    }
    if ports.contains(&500) {
        return ike(data.get(8..)?);
    }
    ports.contains(&HEARTBEATS).then_some(What::Heartbeat)
}

fn esp(data: &[u8]) -> Option<What> {
    Some(What::Esp {
        spi: u32_at(data, 0)?,
        sequence: u32_at(data, 4)?,
    })
}

fn ike(data: &[u8]) -> Option<What> {
    Some(What::Ike {
        initiator_spi: u64::from_be_bytes(data.get(..8)?.try_into().ok()?),
        exchange: *data.get(18)?,
        response: data.get(19)? & 0x20 != 0,
        message_id: u32_at(data, 20)?,
    })
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 203, 0, 113, 10,
        ];
        packet.extend(payload);
        packet
    }

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = port.to_be_bytes().to_vec();
        datagram.extend(port.to_be_bytes());
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend(payload);
        ipv4(17, &datagram)
    }

    #[test]
    fn esp_is_found_bare_and_in_udp() {
        let body = [0xc0, 0, 0, 1, 0, 0, 0, 7, 9, 9];
        let expected = What::Esp {
            spi: 0xc000_0001,
            sequence: 7,
        };
        let (source, _, what) = decode(&ipv4(50, &body)).unwrap();
        assert_eq!((source, what), ("192.0.2.1".parse().unwrap(), expected));
        assert_eq!(decode(&udp(4500, &body)).unwrap().2, expected);
        assert_eq!(decode(&udp(4501, &body)).unwrap().2, What::Plain);
        assert_eq!(decode(&udp(4515, &body)).unwrap().2, What::Heartbeat);
        assert_eq!(decode(&udp(4500, &[0xff])).unwrap().2, What::Keepalive);
    }

    #[test]
    fn ike_is_found_on_both_ports() {
        let message = super::super::flood::ike_sa_init(7);
        let expected = What::Ike {
            initiator_spi: 0x1bad_b002_0000_0008,
            exchange: IKE_SA_INIT,
            response: false,
            message_id: 0,
        };
        assert_eq!(decode(&udp(500, &message)).unwrap().2, expected);
        let marked: Vec<u8> = [0; 4].into_iter().chain(message).collect();
        assert_eq!(decode(&udp(4500, &marked)).unwrap().2, expected);
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut packet = udp(500, &[0; 40]);
        packet[7] = 3;
        assert_eq!(decode(&packet).unwrap().2, What::Plain);
    }
}
