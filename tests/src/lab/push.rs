//! Traffic that enters one member from the inside, whatever becomes of that member.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::enter::spawn_in_netns;
use super::network::{INSIDE_PUSHER, Network, site_host};

/// The discard port: nobody answers.
const PORT: u16 = 9;

/// Datagrams from the inside host's second address to the host behind every site, by way of one
/// member. Dropping it ends them.
#[derive(Debug)]
pub struct Push {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Push {
    /// Starts sending through `member` to the first `sites` sites, to each every `interval`.
    ///
    /// # Errors
    /// The route or the socket cannot be made.
    pub fn start(network: &Network, member: u8, sites: u16, interval: Duration) -> Result<Self> {
        network.push_via(member)?;
        let socket = network
            .host
            .inside(|| Ok(UdpSocket::bind((INSIDE_PUSHER, 0))?))?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (flag, count) = (stop.clone(), sent.clone());
        let thread = spawn_in_netns(&network.host.netns_path(), move || {
            let pause = interval / u32::from(sites.max(1));
            for site in (0..sites).cycle() {
                if flag.load(Ordering::Relaxed) {
                    break;
                }
                // An error about an earlier datagram, or no route: it simply does not count.
                if socket.send_to(&[0; 64], (site_host(site), PORT)).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(pause);
            }
            Ok(())
        })?;
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// How many datagrams went out so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
