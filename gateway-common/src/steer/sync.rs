//! `gateway_sync`: frames of the other members, told by their marked source address.

use super::{Tables, is_known, remote_net};
use crate::abi::Settings;
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
    let addresses = frame.read(0).ok_or(Reason::SyncUnmarked)?;
    let [_, _, _, _, _, _, s0, s1, s2, s3, s4, s5]: [u8; 12] = addresses;
    let source = [s0, s1, s2, s3, s4, s5];
    if !is_marked(source) {
        return Err(Reason::SyncUnmarked);
    }
    let member = sender(source, settings, tables)?;
    if is_for_the_cluster(frame, tables)? {
        Ok(member)
    } else {
        Err(Reason::SyncWrongDestination)
    }
}

#[inline(always)]
fn is_marked(source: [u8; 6]) -> bool {
    let [a, b, c, d, ..] = source;
    [a, b, c, d] == crate::abi::MARKED_MAC_PREFIX
}

/// The member that a marked address names, if it is a configured other one of this cluster.
#[inline(always)]
fn sender<T: Tables>(source: [u8; 6], settings: &Settings, tables: &T) -> Result<u32, Reason> {
    let [.., cluster, member] = source;
    if u32::from(cluster) != settings.cluster {
        return Err(Reason::SyncForeignCluster);
    }
    let member = u32::from(member);
    match tables.member(member) {
        Some(value) if member != 0 && member != settings.member && is_known(value) => Ok(member),
        _ => Err(Reason::SyncUnknownMember),
    }
}

/// Whether the destination is a VIP or lies in a peer's network.
#[inline(always)]
fn is_for_the_cluster<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<bool, Reason> {
    let ethernet = Ethernet::read(frame).map_err(|_| Reason::SyncMalformed)?;
    if !ethernet.is_unicast() {
        return Err(Reason::SyncMalformed);
    }
    let (_, destination) = Ip::addresses(frame, ethernet.kind, ethernet.payload())
        .map_err(|_| Reason::SyncMalformed)?;
    Ok(tables.is_vip(&destination) || matches!(remote_net(destination, tables), Some(Ok(_))))
}
