//! `gateway_sync`: frames of the other members, told by their marked source address.

use super::{Tables, is_known, remote_net};
use crate::abi::{MARKED_MAC_PREFIX, Settings};
use crate::packet::{Ethernet, Frame, Ip};
use crate::reason::Reason;

/// What `gateway_sync` found. Frames are never forwarded on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Passed or dropped, and why.
    pub reason: Reason,
    /// The member that forwarded an accepted frame, 1..=63; else 0.
    pub member: u32,
}

/// Judges a frame that arrived on a sync interface.
#[inline(always)]
pub fn sync<F: Frame, T: Tables>(frame: &F, tables: &T) -> Received {
    match judge(frame, tables) {
        Ok(member) => Received {
            reason: Reason::SyncAccepted,
            member,
        },
        Err(reason) => Received { reason, member: 0 },
    }
}

#[inline(always)]
fn judge<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<u32, Reason> {
    let settings = match tables.settings() {
        Some(settings) if settings.member != 0 => settings,
        _ => return Err(Reason::SyncNotConfigured),
    };
    let Ok(ethernet) = Ethernet::read(frame) else {
        return Err(unreadable(frame));
    };
    if !ethernet.is_marked() {
        return Err(Reason::SyncUnmarked);
    }
    let member = sender(&ethernet, settings, tables)?;
    if is_for_the_cluster(frame, &ethernet, tables)? {
        Ok(member)
    } else {
        Err(Reason::SyncWrongDestination)
    }
}

/// The reason for a frame without a readable Ethernet header: marked or not?
#[inline(always)]
fn unreadable<F: Frame>(frame: &F) -> Reason {
    if frame.u32(6).unwrap_or(0) == u32::from_be_bytes(MARKED_MAC_PREFIX) {
        Reason::SyncMalformed
    } else {
        Reason::SyncUnmarked
    }
}

/// The member that a marked address names, if it is a configured other one of this cluster.
#[inline(always)]
fn sender<T: Tables>(ethernet: &Ethernet, settings: &Settings, tables: &T) -> Result<u32, Reason> {
    let (cluster, member) = ethernet.marked_by();
    if cluster != settings.cluster {
        return Err(Reason::SyncForeignCluster);
    }
    match tables.member(member) {
        Some(value) if member != 0 && member != settings.member && is_known(value) => Ok(member),
        _ => Err(Reason::SyncUnknownMember),
    }
}

/// Whether the destination is a VIP or lies in a peer's network.
#[inline(always)]
fn is_for_the_cluster<F: Frame, T: Tables>(
    frame: &F,
    ethernet: &Ethernet,
    tables: &T,
) -> Result<bool, Reason> {
    if !ethernet.is_unicast() {
        return Err(Reason::SyncMalformed);
    }
    let Ok(ip) = Ip::read_addresses(frame, ethernet.kind, ethernet.payload()) else {
        return Err(Reason::SyncMalformed);
    };
    let destination = ip.destination(frame);
    Ok(tables.is_vip(&destination) || matches!(remote_net(destination, tables), Some(Ok(_))))
}
