//! The ownership tables, as the agent writes and reads them.

use std::net::IpAddr;

use gateway_common::abi::{
    Counter, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MemberValue, NegotiationKey,
    NegotiationValue, Settings, SlotValue,
};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use ipnet::IpNet;

/// A table operation failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The table has no room for another entry.
    #[error("table {0} is full")]
    Full(&'static str),
    /// The kernel refused.
    #[error("table {table}: {operation} failed: {reason}")]
    Kernel {
        /// Which map.
        table: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// An argument does not fit the table's layout.
    #[error("table {table}: {reason}")]
    Invalid {
        /// Which map.
        table: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
}

/// How full `SEP_my_IKE_packet` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries in the table, expired ones included until they are removed.
    pub entries: u32,
    /// Its size.
    pub max_entries: u32,
}

impl Fill {
    /// Whether the table holds at least `percent` (0..=100) of its entries.
    pub const fn reaches(self, percent: u32) -> bool {
        self.entries as u64 * 100 >= self.max_entries as u64 * percent as u64
    }
}

/// A copy of the tables. Taken entry by entry while others may write: each entry is consistent,
/// the whole is not a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// `SEP_my_IKE_packet`.
    pub negotiations: Vec<(NegotiationKey, NegotiationValue)>,
    /// `IKE_SA`.
    pub ike_sas: Vec<(IkeSaKey, Slot)>,
    /// `ESP_SA`.
    pub esp_sas: Vec<(EspSaKey, Slot)>,
    /// `ESP_OUT`.
    pub esp_outs: Vec<(EspOutKey, EspOutValue)>,
    /// `REMOTE_NET`: zone, prefix, slot; `None` = stays here.
    pub remote_nets: Vec<(u32, IpNet, Option<Slot>)>,
    /// `SLOT_OWNER`, by slot; `None` = unset.
    pub slot_owners: Vec<Option<MemberId>>,
    /// `LEASE`: until when this member may transmit; the origin = not at all.
    pub lease: Instant,
}

/// `STATS` and `PEER_STATS`, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Indexed by `Reason as usize`.
    pub reasons: Vec<Counter>,
    /// Frames forwarded, by member id (64 values, index 0 unused).
    pub forwarded: Vec<Counter>,
    /// Forwarded frames received, by member id (64 values, index 0 unused).
    pub received: Vec<Counter>,
}

/// The tables. Plain set semantics: `put` inserts or overwrites, `remove` says whether there was
/// an entry; counting references to a shared entry is the caller's business.
///
/// Implemented by the BPF maps, and by [`MemoryTables`](super::MemoryTables) for
/// `attach = "none"` and for tests.
pub trait Tables: Send + Sync + std::fmt::Debug {
    /// Writes a negotiation. When the table is full the least recently used one goes.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn put_negotiation(
        &self,
        key: &NegotiationKey,
        value: &NegotiationValue,
    ) -> Result<(), TableError>;

    /// Removes a negotiation.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remove_negotiation(&self, key: &NegotiationKey) -> Result<bool, TableError>;

    /// Writes an established IKE SA.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Kernel`].
    fn put_ike_sa(&self, key: &IkeSaKey, slot: Slot) -> Result<(), TableError>;

    /// Removes an established IKE SA.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remove_ike_sa(&self, key: &IkeSaKey) -> Result<bool, TableError>;

    /// Writes an inbound ESP SA.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Kernel`].
    fn put_esp_sa(&self, key: &EspSaKey, slot: Slot) -> Result<(), TableError>;

    /// Removes an inbound ESP SA.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remove_esp_sa(&self, key: &EspSaKey) -> Result<bool, TableError>;

    /// Writes an outbound ESP SA, and the highest sequence number (its low 32 bits) that the fence
    /// lets out. Without an entry the fence lets out nothing: write it before the SA can be used.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Kernel`].
    fn put_esp_out(&self, key: &EspOutKey, slot: Slot, ceiling: u32) -> Result<(), TableError>;

    /// Raises the ceiling of an outbound ESP SA, effective with the next packet; a ceiling that is
    /// not higher (serial arithmetic, so less than 2³¹ ahead) changes nothing. `false` if there is
    /// no such SA. One thread writes `ESP_OUT`: a read and a write are two steps.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn raise_ceiling(&self, key: &EspOutKey, ceiling: u32) -> Result<bool, TableError>;

    /// Removes an outbound ESP SA.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remove_esp_out(&self, key: &EspOutKey) -> Result<bool, TableError>;

    /// Writes a peer's network. Host bits of `net` are ignored. `zone` 0 is the main one.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Kernel`].
    fn put_remote_net(&self, zone: u32, net: IpNet, slot: Slot) -> Result<(), TableError>;

    /// Excepts a network from a wider one of a peer: it belongs to this member or its inside
    /// networks. Host bits of `net` are ignored.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Kernel`].
    fn put_local_net(&self, zone: u32, net: IpNet) -> Result<(), TableError>;

    /// The longest prefix that `address` lies in, as `gateway_inside` finds it.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remote_net(&self, zone: u32, address: IpAddr) -> Result<Option<SlotValue>, TableError>;

    /// Removes a peer's network, or an exception.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn remove_remote_net(&self, zone: u32, net: IpNet) -> Result<bool, TableError>;

    /// Writes all of `SLOT_OWNER`. `None` = unset: packets of that slot stay where they arrive.
    /// One system call, some ten microseconds, in which packets may meet old and new owners.
    ///
    /// # Errors
    /// [`TableError::Kernel`]; some slots may have been written then.
    fn set_slot_owners(&self, owners: &[Option<MemberId>; Slot::COUNT]) -> Result<(), TableError>;

    /// Writes `LEASE`: until when this member may transmit in the cluster's name, effective with
    /// the next packet; [`Instant::default`] = not at all. Exact, but what passed the fence before
    /// may still stand in a queue of the device.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn set_lease(&self, until: Instant) -> Result<(), TableError>;

    /// Writes one member's MACs, device and flags.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn set_member(&self, id: MemberId, value: &MemberValue) -> Result<(), TableError>;

    /// Reads one member's MACs, device and flags.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn member(&self, id: MemberId) -> Result<MemberValue, TableError>;

    /// Writes the list of live members that share the fragments, and its length in the settings.
    /// Order matters: every member must write the same one (ascending ids).
    ///
    /// # Errors
    /// [`TableError::Invalid`] for more than 63 members, [`TableError::Kernel`].
    fn set_live(&self, live: &[MemberId]) -> Result<(), TableError>;

    /// Makes `vips` the set of the cluster's addresses.
    ///
    /// # Errors
    /// [`TableError::Full`] above 256 addresses, [`TableError::Kernel`].
    fn set_vips(&self, vips: &[IpAddr]) -> Result<(), TableError>;

    /// Writes `SETTINGS` but for `live_members`, which [`Self::set_live`] keeps.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn set_settings(&self, settings: Settings) -> Result<(), TableError>;

    /// Reads `SETTINGS`.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn settings(&self) -> Result<Settings, TableError>;

    /// Looks a negotiation up, expired ones included.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn negotiation(&self, key: &NegotiationKey) -> Result<Option<NegotiationValue>, TableError>;

    /// Copies `SEP_my_IKE_packet`.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn negotiations(&self) -> Result<Vec<(NegotiationKey, NegotiationValue)>, TableError>;

    /// Looks an established IKE SA up.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn ike_sa(&self, key: &IkeSaKey) -> Result<Option<Slot>, TableError>;

    /// Looks an inbound ESP SA up.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn esp_sa(&self, key: &EspSaKey) -> Result<Option<Slot>, TableError>;

    /// Looks an outbound ESP SA up.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn esp_out(&self, key: &EspOutKey) -> Result<Option<EspOutValue>, TableError>;

    /// Reads `SLOT_OWNER`.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn slot_owners(&self) -> Result<Vec<Option<MemberId>>, TableError>;

    /// Reads the list of live members.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn live(&self) -> Result<Vec<MemberId>, TableError>;

    /// [`Tables::dump`] without `ESP_OUT` and `REMOTE_NET`, which can only be walked from key to key
    /// while nobody writes. May take its time on any thread: writers go on.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn dump_owners(&self) -> Result<Dump, TableError>;

    /// Copies all tables.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn dump(&self) -> Result<Dump, TableError>;

    /// Counts the negotiations. Reads the whole table, which takes milliseconds when it is full:
    /// for once a second, not for every packet.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn fill(&self) -> Result<Fill, TableError>;

    /// Reads the counters.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    fn counters(&self) -> Result<Counters, TableError>;
}
