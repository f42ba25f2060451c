//! What must hold (DESIGN §6), on everything that happens.
//!
//! 1. *One exchange, one member*: of every message of an IKE SA (SPIs, direction, Message ID) only
//!    one version is ever on the wire, and no two members' agents could process the same IKE SA.
//! 2. *No (key, number) twice*: every ESP packet that a fence lets out takes its sequence numbers
//!    from its key's unused ones, above all that were used before, whoever used them: below that the
//!    peer's window refuses them. Every sealed IKE message takes its IV.
//! 3. *One fence*: after every change of a SLOT_OWNER or a LEASE no slot is open on two hosts,
//!    agents dead or alive.
//! 4. *On the wire means on every replica*: when a message of an IKE SA leaves, the record on every
//!    running member of the sender's view contains what the message depends on.
//! 5. *Nothing is lost*: in the end every IKE SA and CHILD_SA of every peer is known to all members
//!    and passes packets both ways, and no peer began again after it was established.
//! 6. *SPIs are unique*: an SPI never stands for two sets of keys.
//! 7. *Convergence*: in the end all members are in one view, their tables are equal, and the maps
//!    are what the tables say.
//! 8. *No key in clear*: no datagram outside the encrypted sync channel contains the beginning of a
//!    key.
//! 9. *Strangers change nothing*: a forged datagram leaves all tables of established SAs alone.
//! 10. *No cleartext*: packets without an SA meet the block policy. (The kernel is a model here, so
//!     this only says that members keep SAs and policies installed in the right order.)

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use gateway_ike::output::ChildSa;
use gateway_ike::record::IkeSaRecord;

use super::esp::{KeyId, Packet, Used, key_id};

/// An IKE message, as far as these rules read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) initiator: [u8; 8],
    pub(super) responder: [u8; 8],
    pub(super) from_initiator: bool,
    pub(super) response: bool,
    pub(super) exchange: u8,
    pub(super) id: u32,
    /// Of an SK payload that comes first.
    pub(super) iv: Option<[u8; 8]>,
}

/// One use of one key: the SPIs of sender and receiver stand for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sealed {
    ours: [u8; 8],
    theirs: [u8; 8],
    iv: [u8; 8],
}

/// Next Payload of SK (RFC 7296 §3.14).
const SK: u8 = 46;

impl Message {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (flags, next) = (*bytes.get(19)?, *bytes.get(16)?);
        let iv = (next == SK).then(|| bytes.get(32..40)?.try_into().ok());
        Some(Self {
            initiator: bytes.get(0..8)?.try_into().ok()?,
            responder: bytes.get(8..16)?.try_into().ok()?,
            from_initiator: flags & 0x08 != 0,
            response: flags & 0x20 != 0,
            exchange: *bytes.get(18)?,
            id: u32::from_be_bytes(bytes.get(20..24)?.try_into().ok()?),
            iv: iv.flatten(),
        })
    }

    /// The sender's SPI.
    pub(super) const fn sender_spi(&self) -> [u8; 8] {
        if self.from_initiator {
            self.initiator
        } else {
            self.responder
        }
    }

    /// The receiver's SPI.
    const fn receiver_spi(&self) -> [u8; 8] {
        if self.from_initiator {
            self.responder
        } else {
            self.initiator
        }
    }
}

/// What has been seen so far.
#[derive(Default)]
pub(super) struct Check {
    esp: HashMap<KeyId, Used>,
    ivs: HashMap<Sealed, u64>,
    versions: HashMap<Message, u64>,
    ike_spis: HashMap<[u8; 8], [u8; 8]>,
    child_spis: HashMap<[u8; 4], KeyId>,
    keys: HashSet<[u8; 8]>,
    pub(super) violation: Option<String>,
    /// A member has gone on without a majority.
    pub(super) halves: bool,
    /// IKE messages and ESP packets that left.
    pub(super) ike_sent: u64,
    pub(super) esp_sent: u64,
}

impl Check {
    pub(super) fn fail(&mut self, what: String) {
        // DESIGN §6: "Then only invariant 2 is promised".
        if self.halves && !what.starts_with("invariant 2") {
            return;
        }
        self.violation.get_or_insert(what);
    }

    /// A fence let ESP out.
    pub(super) fn esp_leaves(&mut self, who: &dyn std::fmt::Display, packet: &Packet) {
        self.esp_sent += packet.last - packet.first + 1;
        let used = self.esp.entry(packet.key).or_default();
        let (top, spi) = (used.top(), packet.spi);
        if let Some(number) = used.take(packet.first, packet.last) {
            self.fail(format!(
                "invariant 2: sequence number {number} of SPI {spi:02x?} again, by member {who}"
            ));
        } else if packet.first <= top && !self.halves {
            self.fail(format!(
                "invariant 2: SPI {spi:02x?} goes on at {} after {top}, by member {who}",
                packet.first
            ));
        }
    }

    /// A fence let IKE out.
    pub(super) fn ike_leaves(&mut self, who: &dyn std::fmt::Display, bytes: &[u8]) {
        self.ike_sent += 1;
        let Some(message) = Message::read(bytes) else {
            return self.fail(format!("member {who} sent what is no IKE message"));
        };
        let digest = digest(bytes);
        if let Some(iv) = message.iv {
            let (ours, theirs) = (message.sender_spi(), message.receiver_spi());
            let key = Sealed { ours, theirs, iv };
            if *self.ivs.entry(key).or_insert(digest) != digest {
                self.fail(format!(
                    "invariant 2: IV {iv:02x?} again, by member {who}: {message:?}"
                ));
            }
            let bound = *self.ike_spis.entry(ours).or_insert(theirs);
            if bound != theirs {
                self.fail(format!("invariant 6: SPI {ours:02x?} of two IKE SAs"));
            }
            let version = Message {
                iv: None,
                ..message
            };
            if *self.versions.entry(version).or_insert(digest) != digest {
                self.fail(format!(
                    "invariant 1: two versions of one message, the second by member {who}: \
                     {message:?}"
                ));
            }
        }
        self.in_clear("IKE", bytes);
    }

    /// A member installed a CHILD_SA of its own.
    pub(super) fn installs(&mut self, child: &ChildSa) {
        let key = key_id(child.key_in.expose());
        if *self.child_spis.entry(child.spi_in).or_insert(key) != key {
            let spi = child.spi_in;
            self.fail(format!("invariant 6: SPI {spi:02x?} of two CHILD_SAs"));
        }
        self.secret(child.key_in.expose());
        self.secret(child.key_out.expose());
    }

    /// The record of what a message is about: its keys must not show anywhere.
    pub(super) fn learn(&mut self, record: &IkeSaRecord) {
        // Of one that is over they are erased.
        if record.closed.is_some() {
            return;
        }
        let keys = &record.keys;
        for key in [
            keys.d.expose(),
            keys.ei.expose(),
            keys.er.expose(),
            keys.pi.expose(),
            keys.pr.expose(),
        ] {
            self.secret(key);
        }
    }

    fn secret(&mut self, key: &[u8]) {
        if let Some(beginning) = key.first_chunk() {
            self.keys.insert(*beginning);
        }
    }

    /// A datagram that anybody on its way can read.
    pub(super) fn in_clear(&mut self, what: &str, octets: &[u8]) {
        let leak = octets
            .windows(8)
            .filter_map(|window| window.first_chunk())
            .any(|window| self.keys.contains(window));
        if leak {
            self.fail(format!("invariant 8: a key in a datagram ({what})"));
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
