//! MOBIKE (RFC 4555): the original initiator decides on the addresses, and says so.
//!
//! Our own address is a VIP that does not change. So as responder we answer, check that the peer
//! is where it says to be (§3.7) and then move the CHILD_SAs; as initiator we look for another
//! address of the peer when the one in use is silent.
//!
//! Nothing but the path of the IKE SA says that a CHILD_SA has to move: whoever goes on from a
//! record sees that the two differ, and checks the path again.

use std::net::{IpAddr, SocketAddr};

use gateway_common::time::Instant;

use super::initiate::{Outstanding, Task};
use super::{IkeSa, Request, nat};
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::output::{ChildSa, EventKind, KernelRequest, Path};
use crate::record::Purpose;
use crate::selector::SelectorConfig;
use crate::wire::{MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads};

/// Addresses of a peer that are remembered; more are not of use to anybody.
const MAX_ADDRESSES: usize = 16;

/// Octets of our COOKIE2 (RFC 4555 §4.2.5: 8 to 64).
pub(super) const COOKIE_LEN: usize = 16;

/// So often a request is sent again to the same address before others are tried.
const FAITHFUL: u32 = 2;

impl IkeSa {
    /// What IKE_AUTH says about mobility; the notifications that the answer gets.
    ///
    /// # Errors
    /// An address was changed on the way, and the peer does not want that (§3.9).
    pub(super) fn negotiate_mobike(
        &mut self,
        request: Request,
        payloads: &Payloads<'_>,
        wanted: bool,
    ) -> Result<Option<NotifyType>, IkeError> {
        if !wanted || !payloads.has_notify(NotifyType::MOBIKE_SUPPORTED) {
            return Ok(None);
        }
        if has_met_a_nat(payloads, request.path) {
            return Err(PeerError::UnexpectedNat.into());
        }
        self.take_mobike(payloads);
        Ok(Some(NotifyType::MOBIKE_SUPPORTED))
    }

    /// The peer supports MOBIKE, and so do we.
    pub(super) fn take_mobike(&mut self, payloads: &Payloads<'_>) {
        self.transport.mobike = true;
        self.transport.peer_addresses = addresses(payloads).unwrap_or_default();
    }

    /// The part of an INFORMATIONAL request that is about addresses; adds to its answer.
    pub(super) fn mobility(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
        mut message: MessageBuilder,
    ) -> MessageBuilder {
        // RFC 4555 §4.2.5: whatever else it says.
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2)
            && (8..=64).contains(&cookie.data.len())
        {
            let data = cookie.data;
            message.push(&Payload::Notify(NotifyRepr::new(NotifyType::COOKIE2, data)));
        }
        if !self.transport.mobike {
            return message;
        }
        let moves = payloads.has_notify(NotifyType::UPDATE_SA_ADDRESSES)
            && !self.transport.original_initiator;
        let list = addresses(payloads);
        if (moves || list.is_some()) && has_met_a_nat(payloads, request.path) {
            let notify = NotifyRepr::new(NotifyType::UNEXPECTED_NAT_DETECTED, &[]);
            return message.with(&Payload::Notify(notify));
        }
        if moves && !self.is_acceptable(request.path) {
            let reason = format!(
                "the peer wants to move to {} with {} on our side, which is not possible",
                request.path.remote, request.path.local
            );
            self.event(core, EventKind::ExchangeFailed { reason });
            let notify = NotifyRepr::new(NotifyType::UNACCEPTABLE_ADDRESSES, &[]);
            return message.with(&Payload::Notify(notify));
        }
        if let Some(list) = list {
            self.transport.peer_addresses = list;
        }
        let crypto = &*core.crypto;
        let detected = nat::detect(crypto, payloads, &request.header, request.path);
        if detected.is_some() {
            let header = request.header.to_response();
            let forced = self.transport.forced_encap;
            nat::announce(crypto, &mut message, &header, request.path, forced);
        }
        if moves {
            self.nat = detected.unwrap_or(self.nat);
            self.path = request.path;
            self.check_path(core);
            self.start_keepalives(core, now);
        }
        if let Some(established) = self.established_mut() {
            established.dirty = true;
        }
        message
    }

    /// Our address cannot change: the SAs are found by it on every member.
    fn is_acceptable(&self, path: Path) -> bool {
        path.local.ip() == self.path.local.ip() && path.remote.is_ipv4() == path.local.is_ipv4()
    }

    /// The CHILD_SAs follow the path: at once, if the peer has only another port, or after it has
    /// proved that it is there (RFC 4555 §3.7: "before updating the IPsec SAs").
    pub(super) fn check_path(&mut self, core: &mut Core) {
        let address = self.path.remote.ip();
        let elsewhere = self
            .established()
            .is_some_and(|e| e.children.iter().any(|child| child.sa.remote != address));
        if elsewhere {
            self.add_task(Task::VerifyPath);
        } else {
            self.follow_path(core);
        }
    }

    /// Whether a CHILD_SA is not where the path of the IKE SA leads.
    pub(super) fn is_behind_its_path(&self) -> bool {
        let (remote, encap) = (self.path.remote.ip(), self.encap(self.path));
        self.transport.mobike
            && self.established().is_some_and(|e| {
                let mut children = e.children.iter().map(|child| &child.sa);
                children.any(|sa| sa.remote != remote || sa.encap != encap)
            })
    }

    /// Sees to it that the CHILD_SAs catch up with the path, if nobody does already.
    pub(super) fn catch_up(&mut self) {
        let asked = matches!(
            self.purpose(),
            Some(Purpose::VerifyPath { .. } | Purpose::UpdateAddresses { .. })
        );
        if self.is_behind_its_path() && !asked {
            self.add_task(if self.transport.original_initiator {
                Task::UpdateAddresses
            } else {
                Task::VerifyPath
            });
        }
    }

    /// The same for one that is about to be added.
    pub(super) fn catch_up_later(&mut self, child: &ChildSa) {
        let here = self.encap(self.path);
        if child.remote == self.path.remote.ip() && child.encap == here {
            return;
        }
        self.add_task(if self.transport.original_initiator {
            Task::UpdateAddresses
        } else {
            Task::VerifyPath
        });
    }

    /// Moves the CHILD_SAs to the path of the IKE SA.
    ///
    /// Their selectors stay what was negotiated, as RFC 4555 has no word for other ones. Where these
    /// were the peer's address itself (`dynamic`), they are of no more use to it, so that its
    /// CHILD_SAs are rekeyed for the new one.
    pub(super) fn follow_path(&mut self, core: &mut Core) {
        let (path, encap) = (self.path, self.encap(self.path));
        let Some(established) = self.established_mut() else {
            return;
        };
        let mut outdated = Vec::new();
        for child in &mut established.children {
            let sa = &mut child.sa;
            let moved = sa.remote != path.remote.ip() || sa.encap != encap;
            if moved && sa.local == path.local.ip() {
                let mut configs = established.connection.children.iter();
                let config = configs.find(|config| config.name == sa.name);
                let dynamic =
                    config.is_some_and(|c| c.remote_ts.iter().any(SelectorConfig::is_dynamic));
                if dynamic && sa.remote != path.remote.ip() {
                    outdated.push(Task::RekeyChild(sa.spi_in));
                }
                (sa.remote, sa.encap) = (path.remote.ip(), encap);
                core.out.kernel(KernelRequest::Update {
                    child: Box::new(sa.clone()),
                });
                established.dirty = true;
            }
        }
        for task in outdated {
            self.add_task(task);
        }
    }

    /// The peer has answered a check of its path.
    pub(super) fn path_answered(
        &mut self,
        core: &mut Core,
        cookie: &[u8],
        path: Path,
        payloads: &Payloads<'_>,
    ) -> Result<(), IkeError> {
        let copied = payloads.notify(NotifyType::COOKIE2);
        if copied.is_none_or(|copied| copied.data != cookie) {
            // RFC 4555 §3.7: "If the values do not match, the IKE_SA MUST be closed."
            return Err(PeerError::Syntax("COOKIE2 was not copied").into());
        }
        if path == self.path {
            self.follow_path(core);
        } else {
            // Sent to several addresses, it says nothing about any of them.
            self.check_path(core);
        }
        Ok(())
    }

    /// Where an unanswered request of ours is sent again: as original initiator, to the peer's
    /// other addresses in turn (RFC 4555 §3.5, §3.10).
    pub(super) fn retransmission_path(&self, resent: u32) -> Path {
        let usual = self.path;
        let others = &self.transport.peer_addresses;
        let may = self.transport.mobike && self.transport.original_initiator;
        if !may || resent < FAITHFUL {
            return usual;
        }
        let same_family = |address: &&IpAddr| address.is_ipv4() == usual.local.is_ipv4();
        let known = usual.remote.ip();
        let candidates: Vec<IpAddr> = std::iter::once(known)
            .chain(others.iter().filter(same_family).copied())
            .collect();
        let turn = usize::try_from(resent - FAITHFUL + 1).unwrap_or(0) % candidates.len();
        let address = candidates.get(turn).copied().unwrap_or(known);
        Path::new(usual.local, SocketAddr::new(address, usual.remote.port()))
    }

    /// A response has come from another address of the peer's, to which we had sent the request:
    /// that one works.
    pub(super) fn heard_from(&mut self, path: Path) {
        let other = path.remote.ip();
        let wanted = self.transport.mobike
            && self.transport.original_initiator
            && path.local == self.path.local
            && other != self.path.remote.ip()
            && self.transport.peer_addresses.contains(&other);
        if !wanted {
            return;
        }
        let before = std::mem::replace(&mut self.path, path).remote.ip();
        let list = &mut self.transport.peer_addresses;
        list.retain(|address| *address != other);
        list.push(before);
        if let Some(established) = self.established_mut() {
            established.dirty = true;
        }
        self.add_task(Task::UpdateAddresses);
    }

    /// UPDATE_SA_ADDRESSES of ours.
    pub(super) fn push_update(
        &self,
        core: &Core,
        header: &crate::wire::HeaderRepr,
        cookie: &[u8],
        message: &mut MessageBuilder,
    ) {
        let update = NotifyRepr::new(NotifyType::UPDATE_SA_ADDRESSES, &[]);
        message.push(&Payload::Notify(update));
        let forced = self.transport.forced_encap;
        nat::announce(&*core.crypto, message, header, self.path, forced);
        message.push(&Payload::Notify(NotifyRepr::new(
            NotifyType::COOKIE2,
            cookie,
        )));
    }

    /// The peer has answered UPDATE_SA_ADDRESSES.
    pub(super) fn update_answered(
        &mut self,
        core: &mut Core,
        outstanding: &Outstanding,
        header: &crate::wire::HeaderRepr,
        payloads: &Payloads<'_>,
    ) -> Result<(), IkeError> {
        let Purpose::UpdateAddresses { cookie, path } = &outstanding.request.purpose else {
            return Ok(());
        };
        let path = *path;
        // The address changed again meanwhile: another update follows.
        if path != self.path {
            self.add_task(Task::UpdateAddresses);
            return Ok(());
        }
        // The peer refused: the CHILD_SAs stay where they are, and the next silence begins anew.
        if payloads.error_notify().is_some() {
            return Ok(());
        }
        let crypto = &*core.crypto;
        self.nat = nat::detect(crypto, payloads, header, path).unwrap_or(self.nat);
        self.path_answered(core, cookie, path, payloads)
    }

    /// The NAT before us is kept awake (RFC 3948 §4), by the IKE SA that is in use.
    pub(super) fn start_keepalives(&mut self, core: &mut Core, now: Instant) {
        if let Some(interval) = self.keepalive_interval() {
            self.set_clock(core, super::Clock::Keepalive, now + interval);
        }
    }

    /// Sends a keepalive.
    pub(super) fn keep_alive(&mut self, core: &mut Core, now: Instant) {
        if self.keepalive_interval().is_some() {
            let octets = crate::wire::NAT_KEEPALIVE.to_vec();
            core.counters.keepalives_sent += 1;
            core.out.transmit(self.path, octets, self.slot, None);
        }
        self.start_keepalives(core, now);
    }

    fn keepalive_interval(&self) -> Option<std::time::Duration> {
        let established = self.established().filter(|e| !e.replaced)?;
        let interval = established.connection.transport.keepalive;
        let needed = self.nat.local && self.path.local.port() != crate::wire::PORT_IKE;
        (needed && !interval.is_zero()).then_some(interval)
    }
}

/// Whether addresses that the peer protected (NO_NATS_ALLOWED) are not those of the datagram.
fn has_met_a_nat(payloads: &Payloads<'_>, path: Path) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    payloads
        .notify(NotifyType::NO_NATS_ALLOWED)
        .is_some_and(|notify| {
            let expected = [
                octets(path.remote.ip()),
                octets(path.local.ip()),
                path.remote.port().to_be_bytes().to_vec(),
                path.local.port().to_be_bytes().to_vec(),
            ];
            notify.data != expected.concat()
        })
}

/// The list of the sender's other addresses, if the message has one (RFC 4555 §3.6: it replaces the
/// old one).
fn addresses(payloads: &Payloads<'_>) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    let mut any = false;
    for notify in &payloads.notifies {
        let address = match notify.kind {
            NotifyType::ADDITIONAL_IP4_ADDRESS => {
                <[u8; 4]>::try_from(notify.data).ok().map(IpAddr::from)
            }
            NotifyType::ADDITIONAL_IP6_ADDRESS => {
                <[u8; 16]>::try_from(notify.data).ok().map(IpAddr::from)
            }
            NotifyType::NO_ADDITIONAL_ADDRESSES => None,
            _ => continue,
        };
        any = true;
        found.extend(address.filter(|address| !address.is_unspecified()));
    }
    found.truncate(MAX_ADDRESSES);
    any.then_some(found)
}
