//! Continuous traffic through the tunnels: numbered probes from the hosts behind the peer to the
//! inside host, which returns them.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::enter::spawn_in_netns;
use super::network::{INSIDE_HOST, Network, site_host};
use super::node::Node;
use super::tap::Moment;
use super::wait::patience;

/// The echo port on the inside host.
pub(crate) const PORT: u16 = 7007;
/// Octets of a probe: its number first, the rest is filling.
const LENGTH: usize = 64;

/// How often each tunnel is probed: every 10 ms. Where the machine is slow the members need it for
/// more than for encryption: every 25 ms times patience.
pub fn probe_interval() -> Duration {
    match patience() {
        1 => Duration::from_millis(10),
        slower => Duration::from_millis(25) * slower,
    }
}

/// Probes that run. Dropping them ends them.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    prober: Option<JoinHandle<Result<Vec<Probes>>>>,
    echo: Option<JoinHandle<Result<()>>>,
}

/// What became of one tunnel's probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// The tunnel's site (0-based).
    pub site: u16,
    /// When each was sent.
    pub sent: Vec<Moment>,
    /// When each was answered for the first time.
    pub answered: Vec<Option<Moment>>,
    /// Answers beyond the first: something on the way doubled a packet.
    pub doubled: u32,
}

/// What brings probes to the inside host and back.
pub(crate) trait Carrier: Send {
    /// How many tunnels there are.
    fn sites(&self) -> usize;
    /// Sends a probe through a tunnel. What cannot be sent is a lost probe like any other.
    fn send(&mut self, site: usize, probe: &[u8]);
    /// The next answer that has arrived, and the tunnel that it came through; `None` if there is
    /// none now.
    fn receive(&mut self, answer: &mut [u8]) -> Option<(usize, usize)>;
    /// What to wait on for answers.
    fn descriptors(&self) -> Vec<RawFd>;
}

impl Traffic {
    /// Starts probing the first `sites` tunnels, each every `interval`.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn start(network: &Network, sites: u16, interval: Duration) -> Result<Self> {
        let sockets = network
            .peer
            .inside(|| (0..sites).map(socket).collect::<Result<Vec<_>>>())?;
        Self::over(network, Sockets(sockets), interval)
    }

    /// The same over another carrier, which sends from the peer.
    pub(crate) fn over(
        network: &Network,
        mut carrier: impl Carrier + 'static,
        interval: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let echo = echo(&network.host, stop.clone())?;
        let flag = stop.clone();
        let prober = spawn_in_netns(&network.peer.netns_path(), move || {
            probe(&mut carrier, interval, &flag)
        })?;
        Ok(Self {
            stop,
            prober: Some(prober),
            echo: Some(echo),
        })
    }

    /// Stops sending, waits for what is under way, and returns what became of all, by site.
    ///
    /// # Errors
    /// A socket failed.
    pub fn finish(mut self) -> Result<Vec<Probes>> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |thread: Option<JoinHandle<_>>| thread.map(JoinHandle::join);
        let probes = join(self.prober.take()).context("traffic that has ended")?;
        let probes = probes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if let Some(Ok(outcome)) = self.echo.take().map(JoinHandle::join) {
            outcome.context("the inside host")?;
        }
        Ok(probes)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn socket(site: u16) -> Result<UdpSocket> {
    let from = site_host(site);
    let socket = UdpSocket::bind((from, 0)).with_context(|| from.to_string())?;
    socket.connect((INSIDE_HOST, PORT))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The inside host returns every probe.
fn echo(host: &Node, stop: Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let socket = host.inside(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    spawn_in_netns(&host.netns_path(), move || {
        let mut buffer = [0; 2048];
        // The probes' own grace period is longer than one look at the flag.
        let mut end = None;
        while end.is_none_or(|end| Instant::now() < end) {
            if end.is_none() && stop.load(Ordering::Relaxed) {
                end = Some(Instant::now() + grace());
            }
            // What fails is no route for the moment, or an ICMP error about an earlier answer.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
        Ok(())
    })
}

/// How long an answer may be on its way.
fn grace() -> Duration {
    Duration::from_millis(500) * patience()
}

/// One socket per tunnel, connected to the inside host: the kernel does the rest.
struct Sockets(Vec<UdpSocket>);

impl Carrier for Sockets {
    fn sites(&self) -> usize {
        self.0.len()
    }

    fn send(&mut self, site: usize, probe: &[u8]) {
        let _ = self.0[site].send(probe);
    }

    fn receive(&mut self, answer: &mut [u8]) -> Option<(usize, usize)> {
        let mut sockets = self.0.iter().enumerate();
        sockets.find_map(|(site, socket)| Some((site, socket.recv(answer).ok()?)))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

fn probe(carrier: &mut impl Carrier, interval: Duration, stop: &AtomicBool) -> Result<Vec<Probes>> {
    let one = |site| Probes {
        site,
        ..Probes::default()
    };
    let mut probes: Vec<Probes> = (0..).take(carrier.sites()).map(one).collect();
    // The tunnels' turns are spread over the interval.
    let step = interval / u32::try_from(probes.len().max(1))?;
    let mut due = Instant::now();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < due {
            wait(&carrier.descriptors(), due - now)?;
        } else {
            send(carrier, turn, &mut probes[turn]);
            turn = (turn + 1) % probes.len();
            // A prober that did not get the processor does not make up for it with a burst.
            due = (due + step).max(now);
        }
        receive(carrier, &mut probes);
    }
    let end = Instant::now() + grace();
    let left = |end: Instant| end.checked_duration_since(Instant::now());
    while let Some(left) = left(end).filter(|left| !left.is_zero()) {
        wait(&carrier.descriptors(), left)?;
        receive(carrier, &mut probes);
    }
    Ok(probes)
}

fn send(carrier: &mut impl Carrier, site: usize, probes: &mut Probes) {
    let mut packet = [0; LENGTH];
    packet[..8].copy_from_slice(&(probes.sent.len() as u64).to_be_bytes());
    probes.sent.push(Moment::now());
    probes.answered.push(None);
    carrier.send(site, &packet);
}

fn wait(descriptors: &[RawFd], limit: Duration) -> Result<()> {
    let poll = |fd: &RawFd| libc::pollfd {
        fd: *fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polls: Vec<libc::pollfd> = descriptors.iter().map(poll).collect();
    let limit = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: live pollfds of the number given, a live time, no signal mask.
    let ready = unsafe {
        libc::ppoll(
            polls.as_mut_ptr(),
            polls.len() as libc::nfds_t,
            &raw const limit,
            std::ptr::null(),
        )
    };
    if ready < 0 {
        return Err(std::io::Error::last_os_error()).context("poll");
    }
    Ok(())
}

fn receive(carrier: &mut impl Carrier, probes: &mut [Probes]) {
    let mut buffer = [0; LENGTH];
    while let Some((site, length)) = carrier.receive(&mut buffer) {
        let probes = &mut probes[site];
        let number = u64::from_be_bytes(buffer[..8].try_into().unwrap_or_default());
        let number = usize::try_from(number).ok();
        match number.and_then(|number| probes.answered.get_mut(number)) {
            Some(place @ None) if length == LENGTH => *place = Some(Moment::now()),
            _ => probes.doubled += 1,
        }
    }
}

impl Probes {
    /// How many were sent and never answered.
    pub fn lost(&self) -> usize {
        self.answered
            .iter()
            .filter(|answer| answer.is_none())
            .count()
    }

    /// The longest time without an answer, and when it began: between two answers, from the first
    /// probe to the first answer, or from the last answer to the last probe.
    pub fn longest_silence(&self) -> (Duration, Moment) {
        let Some((first, last)) = self.sent.first().zip(self.sent.last()) else {
            return Default::default();
        };
        let mut moments: Vec<Moment> = self.answered.iter().flatten().copied().collect();
        moments.sort();
        moments.insert(0, *first);
        moments.push(*last);
        let silences = moments
            .windows(2)
            .map(|pair| (pair[1].since(pair[0]), pair[0]));
        silences.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(sent: &[u64], answered: &[Option<u64>]) -> Probes {
        Probes {
            sent: sent.iter().copied().map(Moment).collect(),
            answered: answered.iter().map(|answer| answer.map(Moment)).collect(),
            ..Probes::default()
        }
    }

    #[test]
    fn silence_between_answers() {
        let some = probes(&[0, 10, 20, 30], &[Some(1), None, None, Some(31)]);
        assert_eq!(some.lost(), 2);
        assert_eq!(
            some.longest_silence(),
            (Duration::from_nanos(30), Moment(1))
        );
    }

    #[test]
    fn silence_that_never_ends_counts_until_the_last_probe() {
        let dead = probes(&[0, 10, 20, 500], &[Some(1), None, None, None]);
        assert_eq!(
            dead.longest_silence(),
            (Duration::from_nanos(499), Moment(1))
        );
        let never = probes(&[5, 10], &[None, None]);
        assert_eq!(
            never.longest_silence(),
            (Duration::from_nanos(5), Moment(5))
        );
    }
}
