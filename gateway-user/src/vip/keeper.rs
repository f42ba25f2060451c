//! Addresses that move with the active member (HA mode).

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::announce;
use super::packet::PacketSocket;
use crate::config::FloatingAddress;
use crate::rtnl::{self, Socket};

/// The kernel removes an address that was not renewed for so long, in seconds: the agent is dead
/// or hangs, and another member has the address by then.
const LIFETIME: u32 = 5;
const RENEWAL: Duration = Duration::from_secs(1);
/// When neighbours are told: at once, and again for those that lost a frame.
const BURSTS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// Holds or drops the addresses, in a thread of its own.
#[derive(Clone, Debug)]
pub struct Keeper {
    orders: Option<mpsc::Sender<bool>>,
}

impl Keeper {
    /// Drops what an earlier run held, then waits for orders.
    ///
    /// # Errors
    /// The addresses cannot be dropped, or there is no thread.
    pub fn start(addresses: Vec<FloatingAddress>) -> io::Result<Self> {
        if addresses.is_empty() {
            return Ok(Self { orders: None });
        }
        drop_floating(&addresses)?;
        let (orders, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("addresses".into())
            .spawn(move || run(&addresses, &receiver))?;
        Ok(Self {
            orders: Some(orders),
        })
    }

    /// Hold the addresses and tell the neighbours, or drop them.
    pub fn hold(&self, hold: bool) {
        if let Some(orders) = &self.orders {
            // The thread ends with the last sender only.
            let _ = orders.send(hold);
        }
    }
}

/// Drops the addresses, whoever put them there.
///
/// # Errors
/// The kernel's answer. Interfaces that are not there have no addresses.
pub fn drop_floating(addresses: &[FloatingAddress]) -> io::Result<()> {
    let mut socket = Socket::open()?;
    for address in addresses {
        if let Some(link) = rtnl::link_by_name(&mut socket, &address.interface)? {
            let net = (address.net.addr(), address.net.prefix_len());
            rtnl::drop_address(&mut socket, link.index, net)?;
        }
    }
    Ok(())
}

/// When what is due while the addresses are held.
struct Due {
    renewal: Instant,
    burst: Option<(usize, Instant)>,
    since: Instant,
}

impl Due {
    fn from(now: Instant) -> Self {
        Self {
            renewal: now,
            burst: Some((0, now)),
            since: now,
        }
    }

    fn next(&self) -> Instant {
        let burst = self.burst.map(|(_, at)| at);
        burst.map_or(self.renewal, |at| at.min(self.renewal))
    }

    /// Whether neighbours are to be told now.
    fn takes_burst(&mut self, now: Instant) -> bool {
        let Some((number, _)) = self.burst.filter(|(_, at)| *at <= now) else {
            return false;
        };
        let next = BURSTS.get(number + 1);
        self.burst = next.map(|after| (number + 1, self.since + *after));
        true
    }
}

fn run(addresses: &[FloatingAddress], orders: &mpsc::Receiver<bool>) {
    let mut due: Option<Due> = None;
    loop {
        let order = match &due {
            None => orders
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(due) => orders.recv_timeout(due.next().saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(true) if due.is_none() => due = Some(Due::from(Instant::now())),
            Ok(true) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(false) => {
                due = None;
                report(drop_floating(addresses), "dropped");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let Some(due) = &mut due else {
            continue;
        };
        if due.renewal <= now {
            due.renewal = now + RENEWAL;
            report(hold_all(addresses), "held");
        }
        if due.takes_burst(now) {
            report(announce_all(addresses), "announced");
        }
    }
}

fn report(result: io::Result<()>, what: &str) {
    if let Err(error) = result {
        tracing::error!("the addresses of [ha] could not be {what}: {error}");
    }
}

fn hold_all(addresses: &[FloatingAddress]) -> io::Result<()> {
    let mut socket = Socket::open()?;
    each_link(&mut socket, addresses, |socket, link, address| {
        let net = (address.net.addr(), address.net.prefix_len());
        Ok(rtnl::hold_address(socket, link.index, net, LIFETIME)?)
    })
}

fn announce_all(addresses: &[FloatingAddress]) -> io::Result<()> {
    let mut socket = Socket::open()?;
    each_link(&mut socket, addresses, |_, link, address| {
        let Some(mac) = link.mac else {
            return Ok(());
        };
        let packets = PacketSocket::open(link.index)?;
        announce::announcements(mac, address.net.addr())
            .iter()
            .try_for_each(|frame| packets.send(frame))
    })
}

/// All of them, whatever happens to one; the first error.
fn each_link(
    socket: &mut Socket,
    addresses: &[FloatingAddress],
    action: impl Fn(&mut Socket, &rtnl::Link, &FloatingAddress) -> io::Result<()>,
) -> io::Result<()> {
    let mut first = Ok(());
    for address in addresses {
        let name = &address.interface;
        let result = match rtnl::link_by_name(socket, name) {
            Ok(Some(link)) => action(socket, &link, address),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no interface {name}"),
            )),
            Err(error) => Err(error.into()),
        };
        first = first.and(result);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_three_times() {
        let start = Instant::now();
        let mut due = Due::from(start);
        assert!(due.takes_burst(start));
        assert!(!due.takes_burst(start));
        assert_eq!(due.next(), start);
        due.renewal = start + RENEWAL;
        assert_eq!(due.next(), start + BURSTS[1]);
        assert!(due.takes_burst(start + BURSTS[1]));
        assert!(due.takes_burst(start + BURSTS[2]));
        assert!(!due.takes_burst(start + BURSTS[2] * 9));
        assert_eq!(due.next(), start + RENEWAL);
    }
}
