//! ESP without cryptography, for kernels that have none: a stand-in for XFRM on each member and at
//! the peer, so that steering, fence and membership can be timed at the machine's own speed.
//!
//! The stand-in does what the kernel does around the cipher: packets for the networks behind the
//! peer are routed into it (a TUN device), get the outbound SA's SPI, the next sequence number and
//! the SA's mark, and meet the fence on their way out; ESP that reaches the member for an SPI that
//! it has a copy of is opened and routed on, whoever owns it. It lives in the lab's process, so it
//! goes on like a kernel when the agent dies or stops. SAs, slots, and the numbers where each
//! member's copy stands are those that the agents negotiated and published.

use std::collections::HashMap;
use std::ffi::c_short;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap as BpfMap, Map, MapData};
use gateway_common::abi::{EspOutKey, EspOutValue, MARK_SA, map, mark};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::enter::spawn_in_netns;
use super::facts::find_pin;
use super::network::{INSIDE_HOST, Network, VIP, site_host};
use super::node::Node;
use super::traffic::{Carrier, PORT, Traffic};

/// ESP's protocol number.
const ESP: u8 = 50;
/// What an owner and each standby copy may count before a ceiling has to be raised: a run has to
/// stay below it, since nobody tells the agents how far a stand-in has counted.
pub const BLOCK: u32 = 16_384;

/// The SAs of one tunnel as the cluster tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Its site, from 0.
    pub site: u16,
    /// The peer's outer address.
    pub peer: Ipv4Addr,
    /// SPI of what the cluster receives.
    pub spi_in: u32,
    /// SPI of what it sends.
    pub spi_out: u32,
    /// Whose it is.
    pub slot: u8,
}

impl Tunnel {
    /// Reads an IKE SA as the control socket shows it.
    ///
    /// # Errors
    /// It is not a site's, or has no child.
    pub fn of(sa: &Value) -> Result<Self> {
        let site = sa["remote_id"]
            .as_str()
            .and_then(|id| id.strip_prefix("site-"));
        let site: u16 = site.context("not a site's SA")?.parse()?;
        let child = &sa["children"][0];
        let spi = |key: &str| -> Result<u32> {
            let text = child[key]
                .as_str()
                .with_context(|| format!("a child without {key}"))?;
            Ok(u32::from_str_radix(text, 16)?)
        };
        let remote = sa["remote"].as_str().and_then(|text| text.rsplit_once(':'));
        Ok(Self {
            site: site.checked_sub(1).context("sites count from 1")?,
            peer: remote
                .context("an SA without a remote address")?
                .0
                .parse()?,
            spi_in: spi("spi_in")?,
            spi_out: spi("spi_out")?,
            slot: u8::try_from(sa["slot"].as_u64().context("an SA without a slot")?)?,
        })
    }
}

impl Tunnel {
    /// Of its outbound SA in the fence's table.
    fn key(&self) -> EspOutKey {
        EspOutKey {
            spi: self.spi_out.to_be_bytes(),
            peer: IpAddr::from(self.peer).into(),
        }
    }
}

/// The stand-in on one member. Dropping it ends it.
#[derive(Debug)]
pub struct StandIn {
    stop: Arc<AtomicBool>,
    produced: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl StandIn {
    /// Starts on a member that has all the tunnels in its tables.
    ///
    /// # Errors
    /// No TUN device, or the member's fence does not know an SA.
    pub fn start(node: &Node, tunnels: &[Tunnel]) -> Result<Self> {
        let (tun, raw) = node.inside(|| Ok((tun()?, esp_socket()?)))?;
        node.ip("link set esp0 up\nroute replace 10.2.0.0/16 dev esp0")?;
        let ceilings = ceilings(node)?;
        let mut engine = Engine {
            tun,
            raw,
            outbound: outbound(node, &ceilings, tunnels)?,
            ceilings,
            inbound: tunnels.iter().map(|tunnel| tunnel.spi_in).collect(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let produced = Arc::new(AtomicU64::new(0));
        let (flag, count) = (stop.clone(), produced.clone());
        let thread = spawn_in_netns(&node.netns_path(), move || engine.run(&flag, &count))?;
        Ok(Self {
            stop,
            produced,
            thread: Some(thread),
        })
    }

    /// ESP packets that it made, whether the fence let them out or not.
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::Relaxed)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The fence's table of outbound SAs.
type Ceilings = BpfMap<MapData, EspOutKey, EspOutValue>;

/// An outbound SA: the last number used, and where it goes.
struct Outbound {
    tunnel: Tunnel,
    sequence: u32,
}

impl Outbound {
    /// Whoever moves a copy in the kernel moves its ceiling in the fence's table along with it: here
    /// the copy follows. After each takeover those of all members that it left out move on.
    fn follow(&mut self, ceilings: &Ceilings) {
        if let Ok(value) = ceilings.get(&self.tunnel.key(), 0) {
            self.sequence = self.sequence.max(value.ceiling.saturating_sub(BLOCK));
        }
    }
}

struct Engine {
    tun: File,
    raw: Socket,
    /// By the third octet of the network behind the peer.
    outbound: HashMap<u8, Outbound>,
    inbound: Vec<u32>,
    ceilings: Ceilings,
}

fn ceilings(node: &Node) -> Result<Ceilings> {
    let pin = find_pin(node.bpf_dir().context("no BPF file system")?, map::ESP_OUT)?;
    Ok(Map::HashMap(MapData::from_pin(&pin)?).try_into()?)
}

/// Every copy stands at the beginning of the block whose end is its own fence's ceiling.
fn outbound(node: &Node, ceilings: &Ceilings, tunnels: &[Tunnel]) -> Result<HashMap<u8, Outbound>> {
    let mut found = HashMap::new();
    for tunnel in tunnels {
        let value = ceilings.get(&tunnel.key(), 0).with_context(|| {
            format!(
                "{}: no outbound SA {:08x} in the fence's table",
                node.name, tunnel.spi_out
            )
        })?;
        ensure!(
            value.slot == tunnel.slot,
            "the SA's slot: {value:?}, {tunnel:?}"
        );
        let sequence = value.ceiling.checked_sub(BLOCK);
        let sequence =
            sequence.with_context(|| format!("a ceiling within the first block: {value:?}"))?;
        let tunnel = *tunnel;
        found.insert(
            site_host(tunnel.site).octets()[2],
            Outbound { tunnel, sequence },
        );
    }
    Ok(found)
}

impl Engine {
    fn run(&mut self, stop: &AtomicBool, produced: &AtomicU64) -> Result<()> {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let [outward, inward] = readable([self.tun.as_raw_fd(), self.raw.as_raw_fd()])?;
            if outward && let Ok(length) = self.tun.read(&mut buffer) {
                produced.fetch_add(
                    u64::from(self.encapsulate(&buffer[..length])),
                    Ordering::Relaxed,
                );
            }
            if inward && let Ok(length) = (&self.raw).read(&mut buffer) {
                self.open(&buffer[..length]);
            }
        }
        Ok(())
    }

    /// A packet for a network behind the peer leaves as ESP. Returns whether there is an SA for it.
    fn encapsulate(&mut self, inner: &[u8]) -> bool {
        let Some(sa) = inner.get(18).and_then(|octet| self.outbound.get_mut(octet)) else {
            return false;
        };
        sa.follow(&self.ceilings);
        sa.sequence = sa.sequence.wrapping_add(1);
        let packet = packet(VIP, sa.tunnel.peer, sa.tunnel.spi_out, sa.sequence, inner);
        // What the fence drops comes back as an error here; to XFRM it makes no difference either.
        let _ = self.raw.set_mark(mark(MARK_SA, sa.tunnel.slot));
        let _ = self.raw.send_to(
            &packet,
            &SockAddr::from(std::net::SocketAddrV4::new(sa.tunnel.peer, 0)),
        );
        true
    }

    /// ESP for an SA that there is a copy of is routed on in clear.
    fn open(&mut self, packet: &[u8]) {
        if let Some((spi, _, inner)) = parse(packet)
            && self.inbound.contains(&spi)
        {
            let _ = self.tun.write(inner);
        }
    }
}

/// Which of two descriptors can be read, within a tenth of a second.
fn readable(descriptors: [RawFd; 2]) -> Result<[bool; 2]> {
    let mut polls = descriptors.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: two live pollfds.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), 2, 100) };
    ensure!(ready >= 0, "poll: {}", std::io::Error::last_os_error());
    Ok(polls.map(|poll| poll.revents & libc::POLLIN != 0))
}

/// The TUN device `esp0`.
fn tun() -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let file = file.context("/dev/net/tun")?;
    // SAFETY: all-zero is a valid ifreq; the name is shorter than its field and zero-terminated; the
    // pointer is to a live structure.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, octet) in request.ifr_name.iter_mut().zip(b"esp0") {
            *place = octet.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as c_short;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request)
    };
    ensure!(
        result == 0,
        "TUNSETIFF: {}",
        std::io::Error::last_os_error()
    );
    Ok(file)
}

/// Sends whole IPv4 packets, receives those of protocol ESP that are for this host.
fn esp_socket() -> Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Protocol::from(i32::from(ESP))),
    )?;
    socket.set_header_included_v4(true)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}

/// IPv4, ESP, and the inner packet as it is.
fn packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    spi: u32,
    sequence: u32,
    inner: &[u8],
) -> Vec<u8> {
    // The kernel fills in total length, checksum and, being zero, the identification.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ESP, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(spi.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(inner);
    packet
}

/// SPI, sequence number and inner packet of what a raw socket received.
fn parse(packet: &[u8]) -> Option<(u32, u32, &[u8])> {
    let header = usize::from(packet.first()? & 15) * 4;
    let esp = packet.get(header..)?;
    let word = |at: usize| Some(u32::from_be_bytes(esp.get(at..at + 4)?.try_into().ok()?));
    Some((word(0)?, word(4)?, esp.get(8..)?))
}

/// The peer's side: probes as the host behind it sends them, in the peer's ESP.
struct Peer {
    raw: Socket,
    tunnels: Vec<Tunnel>,
    sequences: Vec<u32>,
    /// Outbound SPI → place among the tunnels.
    by_spi: HashMap<u32, usize>,
}

impl Traffic {
    /// Starts probing tunnels whose members have stand-ins.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn synthetic(network: &Network, tunnels: &[Tunnel], interval: Duration) -> Result<Self> {
        let mut tunnels = tunnels.to_vec();
        tunnels.sort_by_key(|tunnel| tunnel.site);
        let places = tunnels.iter().enumerate();
        let peer = Peer {
            raw: network.peer.inside(esp_socket)?,
            sequences: vec![0; tunnels.len()],
            by_spi: places
                .map(|(place, tunnel)| (tunnel.spi_out, place))
                .collect(),
            tunnels,
        };
        Self::over(network, peer, interval)
    }
}

impl Carrier for Peer {
    fn sites(&self) -> usize {
        self.tunnels.len()
    }

    fn send(&mut self, site: usize, probe: &[u8]) {
        let tunnel = &self.tunnels[site];
        self.sequences[site] += 1;
        let inner = inner(site_host(tunnel.site), probe);
        let packet = packet(
            tunnel.peer,
            VIP,
            tunnel.spi_in,
            self.sequences[site],
            &inner,
        );
        let to = SockAddr::from(std::net::SocketAddrV4::new(VIP, 0));
        let _ = self.raw.send_to(&packet, &to);
    }

    fn receive(&mut self, answer: &mut [u8]) -> Option<(usize, usize)> {
        let mut buffer = [0; 2048];
        loop {
            let length = (&self.raw).read(&mut buffer).ok()?;
            let Some((spi, _, inner)) = parse(&buffer[..length]) else {
                continue;
            };
            // IPv4 without options, UDP.
            if let (Some(site), Some(payload)) = (self.by_spi.get(&spi), inner.get(28..)) {
                let length = payload.len().min(answer.len());
                answer[..length].copy_from_slice(&payload[..length]);
                return Some((*site, length));
            }
        }
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.raw.as_raw_fd()]
    }
}

/// A UDP datagram from the host behind a site to the inside host's echo port.
fn inner(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(INSIDE_HOST.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    // A zero UDP checksum means none (RFC 768).
    for field in [PORT, PORT, udp, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_leads_back() {
        let inner = inner("10.2.1.1".parse().unwrap(), b"probe");
        let packet = packet(
            VIP,
            "198.51.100.10".parse().unwrap(),
            0xc000_0001,
            7,
            &inner,
        );
        assert_eq!(parse(&packet), Some((0xc000_0001, 7, &inner[..])));
        let sum: u32 = inner[..20]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(
            (sum & 0xffff) + (sum >> 16),
            0xffff,
            "the header's checksum"
        );
        assert_eq!(&inner[28..], b"probe");
    }

    #[test]
    fn tunnels_are_read_from_the_control_socket() {
        let sa = serde_json::json!({
            "remote_id": "site-3", "remote": "198.51.100.12:4500", "slot": 9,
            "children": [{"spi_in": "00000041", "spi_out": "c0ffee00"}],
        });
        let tunnel = Tunnel::of(&sa).unwrap();
        assert_eq!((tunnel.site, tunnel.slot, tunnel.spi_in), (2, 9, 0x41));
        assert_eq!(tunnel.spi_out, 0xc0ff_ee00);
        assert!(Tunnel::of(&serde_json::json!({})).is_err());
    }
}
