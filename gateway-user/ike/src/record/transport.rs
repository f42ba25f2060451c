//! What two gateways have agreed on about the way between them.

use std::net::IpAddr;

use super::decode::Fields;
use super::tlv::{Reader, Writer};
use super::{RecordError, kind};
use gateway_common::abi::Address;

/// Fragmentation, forced encapsulation and mobility of one IKE SA. A successor inherits it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportState {
    /// Both sides have announced IKE fragmentation (RFC 7383).
    pub fragments: bool,
    /// ESP goes in UDP though there is no NAT: swanctl's `encap`.
    pub forced_encap: bool,
    /// Both sides have announced MOBIKE (RFC 4555).
    pub mobike: bool,
    /// Addresses of the peer beside the one in use, as it told us last (RFC 4555 §3.6).
    pub peer_addresses: Vec<IpAddr>,
    /// We initiated the first IKE SA of this series: with MOBIKE, we decide on the addresses,
    /// whoever rekeyed it since (RFC 4555 §1.3).
    pub original_initiator: bool,
    /// The peer has announced that it can be redirected (RFC 5685).
    pub redirectable: bool,
}

impl TransportState {
    pub(super) fn encode(&self, out: &mut Writer) {
        for (set, kind) in [
            (self.fragments, kind::FRAGMENTS),
            (self.forced_encap, kind::FORCED_ENCAP),
            (self.mobike, kind::MOBIKE),
            (self.redirectable, kind::REDIRECTABLE),
            (self.original_initiator, kind::ORIGINAL_INITIATOR),
        ] {
            if set {
                out.tlv(kind, &[]);
            }
        }
        for address in &self.peer_addresses {
            let address = Address::from(*address).octets;
            out.tlv(kind::PEER_ADDRESS, &[&address]);
        }
    }

    /// `addresses` are the values of [`kind::PEER_ADDRESS`], of which there may be any number.
    pub(super) fn decode(
        fields: &mut Fields<'_>,
        addresses: Vec<Reader<'_>>,
    ) -> Result<Self, RecordError> {
        let mut set = |kind| fields.optional(kind).is_some();
        Ok(Self {
            fragments: set(kind::FRAGMENTS),
            forced_encap: set(kind::FORCED_ENCAP),
            mobike: set(kind::MOBIKE),
            redirectable: set(kind::REDIRECTABLE),
            original_initiator: set(kind::ORIGINAL_INITIATOR),
            peer_addresses: addresses
                .into_iter()
                .map(|mut address| address.address())
                .collect::<Result<_, _>>()?,
        })
    }
}
