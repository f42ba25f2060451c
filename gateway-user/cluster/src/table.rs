//! Changes of the steering tables, in the types of the BPF maps.

use gateway_common::abi::{
    EspOutKey, EspSaKey, IkeSaKey, NegotiationKey, NegotiationValue, RemoteNet, SlotValue,
};
use gateway_common::slot::Slot;

/// One write to a steering map. Within the stream that the core emits, a key that only changes its
/// value is overwritten and never removed in between, and what replaces an entry comes before the
/// removal of what it replaces: a packet never meets a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// `SEP_my_IKE_packet`.
    PutNegotiation {
        /// Key.
        key: NegotiationKey,
        /// Value; its times are on this member's clock.
        value: NegotiationValue,
    },
    /// `SEP_my_IKE_packet`.
    RemoveNegotiation(NegotiationKey),
    /// `IKE_SA`.
    PutIkeSa {
        /// Key.
        key: IkeSaKey,
        /// Value.
        value: SlotValue,
    },
    /// `IKE_SA`.
    RemoveIkeSa(IkeSaKey),
    /// `ESP_SA`.
    PutEspSa {
        /// Key.
        key: EspSaKey,
        /// Value.
        value: SlotValue,
    },
    /// `ESP_SA`.
    RemoveEspSa(EspSaKey),
    /// `ESP_OUT`.
    PutEspOut {
        /// Key.
        key: EspOutKey,
        /// Its slot.
        slot: Slot,
        /// Low word of the highest sequence number that this member may send: of its reservation if
        /// it is the owner, else of the block that it would go on with as the owner.
        ceiling: u32,
    },
    /// `ESP_OUT`.
    RemoveEspOut(EspOutKey),
    /// `REMOTE_NET`.
    PutRemoteNet {
        /// Prefix length in bits as the LPM trie counts it.
        prefix_len: u32,
        /// Key data.
        net: RemoteNet,
        /// Value.
        value: SlotValue,
    },
    /// `REMOTE_NET`.
    RemoveRemoteNet {
        /// Prefix length in bits as the LPM trie counts it.
        prefix_len: u32,
        /// Key data.
        net: RemoteNet,
    },
}

/// A key of the tables whose values are slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SaKey {
    Ike(IkeSaKey),
    EspIn(EspSaKey),
    EspOut(EspOutKey),
    RemoteNet(u32, RemoteNet),
}

impl SaKey {
    pub(crate) fn put(self, slot: Slot, ceiling: u32) -> TableChange {
        let value = SlotValue::new(slot.0);
        match self {
            Self::Ike(key) => TableChange::PutIkeSa { key, value },
            Self::EspIn(key) => TableChange::PutEspSa { key, value },
            Self::EspOut(key) => TableChange::PutEspOut { key, slot, ceiling },
            Self::RemoteNet(prefix_len, net) => TableChange::PutRemoteNet {
                prefix_len,
                net,
                value,
            },
        }
    }

    pub(crate) fn remove(self) -> TableChange {
        match self {
            Self::Ike(key) => TableChange::RemoveIkeSa(key),
            Self::EspIn(key) => TableChange::RemoveEspSa(key),
            Self::EspOut(key) => TableChange::RemoveEspOut(key),
            Self::RemoteNet(prefix_len, net) => TableChange::RemoveRemoteNet { prefix_len, net },
        }
    }
}
