//! Records of IKE SAs that nothing has happened to since IKE_AUTH.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::slot::Slot;

use crate::crypto::Encryption;
use crate::identity::Identity;
use crate::keys::IkeKeys;
use crate::output::{ChildSa, Path, Quota};
use crate::proposal::IkeProposal;
use crate::record::{ChildRecord, ChildState, IkeSaRecord, NatState, Role, TransportState};
use crate::secret::SecretBytes;

/// What IKE_AUTH settles; the rest of a record is as it is then.
#[derive(Clone)]
pub struct FreshSa {
    /// Our SPI and the peer's.
    pub spis: ([u8; 8], [u8; 8]),
    /// Our role.
    pub role: Role,
    /// Our identity and the peer's.
    pub ids: (Identity, Identity),
    /// Its path.
    pub path: Path,
    /// Its algorithms.
    pub proposal: IkeProposal,
    /// Its keys.
    pub keys: IkeKeys,
    /// Its CHILD_SA, whose connection and slot are its own.
    pub child: ChildSa,
}

impl FreshSa {
    /// The record.
    pub fn record(self) -> IkeSaRecord {
        // IKE_SA_INIT and IKE_AUTH have numbers 0 and 1.
        let (next_request, expected_request) = match self.role {
            Role::Initiator => (2, 0),
            Role::Responder => (0, 2),
        };
        IkeSaRecord {
            local_spi: self.spis.0,
            remote_spi: self.spis.1,
            role: self.role,
            slot: self.child.slot,
            connection: self.child.connection.clone(),
            local_id: self.ids.0,
            remote_id: self.ids.1,
            path: self.path,
            nat: NatState::default(),
            proposal: self.proposal,
            keys: self.keys,
            next_iv: 1,
            next_request,
            expected_request,
            last_response: None,
            outstanding: None,
            replaced: false,
            closing: false,
            predecessor: None,
            contact: None,
            closed: None,
            peer_syncs: false,
            peer_synced: None,
            transport: TransportState::default(),
            age: Duration::ZERO,
            negotiated_in: None,
            rekey_after: None,
            reauth_after: None,
            expires_after: None,
            wanted: Vec::new(),
            children: vec![ChildRecord {
                sa: self.child,
                age: Duration::ZERO,
                rekey_after: None,
                state: ChildState::Current,
                unknown: Vec::new(),
            }],
            follow_ups: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

/// Child `net` of `connection`, in slot 0, with a window of 128 and without selectors.
///
/// `spis` and `keys`: inbound and outbound; `ends`: our outer address and the peer's.
pub fn fresh_child(
    connection: &str,
    spis: ([u8; 4], [u8; 4]),
    ends: (IpAddr, IpAddr),
    (encryption, esn): (Encryption, bool),
    keys: (SecretBytes, SecretBytes),
) -> ChildSa {
    ChildSa {
        name: "net".into(),
        connection: connection.into(),
        slot: Slot(0),
        spi_in: spis.0,
        spi_out: spis.1,
        local: ends.0,
        remote: ends.1,
        encap: None,
        encryption,
        key_in: keys.0,
        key_out: keys.1,
        esn,
        replay_window: 128,
        local_ts: Vec::new(),
        remote_ts: Vec::new(),
        if_id_in: 0,
        if_id_out: 0,
        marks: crate::mark::Marks::default(),
        hard_lifetime_seconds: 100_000,
        quota: Quota::default(),
    }
}
