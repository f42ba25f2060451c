//! The four programs as pure functions: a frame and the tables in, a verdict out.
//!
//! The eBPF programs call them with packet memory and maps, the tests with slices and ordinary
//! maps. Nothing here writes.

mod fence;
mod ingress;
mod inside;
mod sync;

pub use fence::{Leaving, Link, fence, segments};
pub use ingress::ingress;
pub use inside::inside;
pub use sync::{Received, sync};

use crate::abi::{
    Address, EspOutKey, EspOutValue, EspSaKey, MEMBER_FORWARDABLE, MEMBER_KNOWN, MemberValue,
    NET_LOCAL, RemoteNet, Settings, SlotValue,
};
use crate::packet::Ethernet;
use crate::reason::{Program, Reason};
use crate::route::IkeTables;

/// Everything that the programs look up.
pub trait Tables: IkeTables {
    /// `SETTINGS`.
    fn settings(&self) -> Option<&Settings>;

    /// `VIP`: whether `address` is one of the cluster's.
    fn is_vip(&self, address: &Address) -> bool;

    /// The same if it is known without a look-up; else `None`.
    #[inline(always)]
    fn is_vip_at_once(&self, _address: &Address) -> Option<bool> {
        None
    }

    /// `ESP_SA`: the slot of an inbound SA.
    fn esp_sa(&self, key: &EspSaKey) -> Option<SlotValue>;

    /// `ESP_OUT`: the slot and the ceiling of an outbound SA.
    fn esp_out(&self, key: &EspOutKey) -> Option<EspOutValue>;

    /// `LEASE`: until when this member may transmit, monotonic nanoseconds; 0 = not at all.
    fn lease(&self) -> u64;

    /// The clock of [`IkeTables::now_ns`], read from the hardware: never behind, but not cheap.
    fn exact_now_ns(&self) -> u64;

    /// `REMOTE_NET`: the longest prefix that contains the address.
    fn remote_net(&self, key: &RemoteNet) -> Option<SlotValue>;

    /// `MEMBER`.
    fn member(&self, id: u32) -> Option<&MemberValue>;

    /// `LIVE`: the id at `index`, 0 if there is none.
    fn live(&self, index: u32) -> u32;
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is passed or dropped, as the reason says.
    Stay(Reason),
    /// It is sent to another member, if the sync device is there.
    Forward(Forward<'a>),
}

/// How a frame is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'a> {
    /// Why.
    pub reason: Reason,
    /// To whom, 1..=63.
    pub member: u32,
    /// That member's entry: the device, and the new addresses (destination: its sync interface;
    /// source: our marked one). Not copied: an octet in a register is an octet on the stack.
    pub value: &'a MemberValue,
    /// VLAN tags to pop before the addresses are written.
    pub tags: u8,
}

/// The reasons of one kind of traffic, by who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Another member does.
    pub(crate) forwarded: Reason,
    /// This member does.
    pub(crate) local: Reason,
    /// Nobody does, or nobody that frames can be forwarded to.
    pub(crate) unreachable: Reason,
}

/// Sends the frame to `member`, unless that is this one or cannot be reached.
#[inline(always)]
pub(crate) fn hand_over<'a, T: Tables>(
    member: u32,
    kind: Kind,
    ethernet: &Ethernet,
    settings: &Settings,
    tables: &'a T,
) -> Result<Forward<'a>, Reason> {
    if member == settings.member {
        return Err(kind.local);
    }
    let Some(value) = tables.member(member) else {
        return Err(kind.unreachable);
    };
    if member == 0 || !is_forwardable(value) {
        return Err(kind.unreachable);
    }
    Ok(Forward {
        reason: kind.forwarded,
        member,
        value,
        tags: ethernet.tags,
    })
}

/// The reason of a frame that could not be forwarded because `SYNC_DEV` has no such device.
#[inline(always)]
pub const fn without_device(program: Program) -> Reason {
    match program {
        Program::Inside => Reason::InsideNoSyncDevice,
        _ => Reason::NoSyncDevice,
    }
}

/// Whether frames may be sent to a member with this entry.
#[inline(always)]
pub const fn is_forwardable(value: &MemberValue) -> bool {
    value.flags & MEMBER_FORWARDABLE != 0
}

/// Whether frames of a member with this entry are accepted.
#[inline(always)]
pub(crate) const fn is_known(value: &MemberValue) -> bool {
    value.flags & MEMBER_KNOWN != 0
}

/// The slot of the peer's network that `address` lies in, `Err` if the prefix stays local.
#[inline(always)]
pub(crate) fn remote_net<T: Tables>(address: Address, tables: &T) -> Option<Result<u8, ()>> {
    let value = tables.remote_net(&RemoteNet {
        zone: [0; 4],
        address,
    })?;
    if value.flags & NET_LOCAL != 0 {
        return Some(Err(()));
    }
    Some(Ok(value.slot))
}
