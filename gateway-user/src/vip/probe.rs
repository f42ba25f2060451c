//! Whether a member that is not heard is there after all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_cluster::membership::ProbeResult;
use gateway_common::member::MemberId;

use super::announce;
use super::packet::PacketSocket;
use crate::rtnl::{self, Socket};

/// How long an answer may take; the question is asked twice.
const PATIENCE: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 2;

/// Asks by ARP and neighbour discovery, over every network that this member shares with others.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Own addresses, and each other member's in the same order.
    own: Vec<IpAddr>,
    members: BTreeMap<MemberId, Vec<IpAddr>>,
}

impl Prober {
    /// `own`: this member's addresses on the cluster's networks; `members`: the others', in the same
    /// order.
    pub const fn new(own: Vec<IpAddr>, members: BTreeMap<MemberId, Vec<IpAddr>>) -> Self {
        Self { own, members }
    }

    /// Looks for `member`; takes up to a fifth of a second per network. `own_good` says whether this
    /// member's own interfaces work. What cannot be asked counts as an answer: then nothing is known.
    pub fn probe(&self, member: MemberId, own_good: bool) -> ProbeResult {
        let theirs = self.members.get(&member).into_iter().flatten();
        let answered = self
            .own
            .iter()
            .zip(theirs)
            .any(|(own, target)| has_answer(*own, *target).unwrap_or(false));
        ProbeResult {
            member,
            own_good,
            answered,
        }
    }
}

/// `None` if the address is not on one of this host's networks.
fn has_answer(own: IpAddr, target: IpAddr) -> Option<bool> {
    let mut netlink = Socket::open().ok()?;
    let addresses = rtnl::addresses(&mut netlink).ok()?;
    let address = addresses.iter().find(|found| found.address == own)?;
    let link = rtnl::link_by_index(&mut netlink, address.index).ok()??;
    let question = announce::question(link.mac?, own, target)?;
    let socket = PacketSocket::open(link.index).ok()?;
    for _ in 0..ATTEMPTS {
        socket.send(&question).ok()?;
        if socket.wait_for(PATIENCE, |frame| announce::answers(frame, target)) {
            return Some(true);
        }
    }
    Some(false)
}
