//! One identity, one slot (RFC 7296 §2.4): where a new IKE SA belongs, and how it gets there.
//!
//! An IKE SA whose pair of identities has a live one in another slot joins that slot before its
//! IKE_AUTH response leaves, so that uniqueness, INITIAL_CONTACT and reauthentication act in one
//! place. If the slot is another member's, that member sends the response, from the record.

use std::collections::BTreeMap;

use gateway_cluster::change::Stamp;
use gateway_common::{slot::Slot, time::Instant};
use gateway_ike::endpoint::Command;
use gateway_ike::output::{ChildSa, Transmit};
use gateway_ike::record::{Contact, IkeSaRecord};

use crate::effect::{Effect, KernelOp};
use crate::node::Node;
use crate::records::Spi;
use crate::translate;

/// Exchange type of IKE_AUTH (RFC 7296 §3.1), in the header's octet 18.
const IKE_AUTH: u8 = 35;

/// Messages of IKE SAs that are on their way to another member.
#[derive(Debug, Default)]
pub(crate) struct Moves(BTreeMap<Spi, Vec<Transmit>>);

impl Moves {
    /// The message, unless it has to wait for the end of a move.
    pub(crate) fn admit(&mut self, transmit: Transmit) -> Option<Transmit> {
        let moving = our_spi(&transmit.bytes).and_then(|spi| self.0.get_mut(&spi));
        match moving {
            Some(waiting) => {
                waiting.push(transmit);
                None
            }
            None => Some(transmit),
        }
    }
}

/// Where a new IKE SA goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// At first: a slot of this member's.
    pub(crate) here: Slot,
    /// Then, to another member's.
    pub(crate) there: Option<Slot>,
}

impl Node {
    /// Where an IKE SA goes that has just been established here. `None`: this member serves no
    /// slot, so that it cannot have one.
    pub(crate) fn place(&self, now: Instant, record: &IkeSaRecord) -> Option<Place> {
        let serves = |slot: &Slot| self.serves(now, *slot);
        let home = Some(record.slot)
            .filter(serves)
            .or_else(|| (0..=u8::MAX).map(Slot).find(serves))?;
        let identities = translate::identities(&*self.crypto, record);
        let mut others = self.cluster.ownership().by_identities(identities);
        let other = others.find(|held| held.sa.local_spi != record.local_spi);
        Some(match other.map(|held| held.slot) {
            Some(slot) if serves(&slot) => Place {
                here: slot,
                there: None,
            },
            Some(slot) if !self.cluster.owns(slot) => Place {
                here: home,
                there: Some(slot),
            },
            _ => Place {
                here: home,
                there: None,
            },
        })
    }

    /// The kernel's SAs of an IKE SA that was established for another slot get the right mark.
    pub(crate) fn mark_children(&mut self, record: &IkeSaRecord, slot: Slot) {
        for child in &record.children {
            let Some(standing) = self.cluster.standing(child.sa.spi_in) else {
                continue;
            };
            let child = Box::new(ChildSa {
                slot,
                ..child.sa.clone()
            });
            let op = KernelOp::Copy { child, standing };
            self.effects.push_back(Effect::Kernel(op));
        }
    }

    /// Begins the move of an IKE SA that has just been published. If that is impossible it stays.
    pub(crate) fn begin_move(&mut self, spi: Spi, slot: Slot) {
        if self.cluster.move_sa(spi, slot).is_ok() {
            self.moves.0.insert(spi, Vec::new());
        }
    }

    /// A move has ended.
    pub(crate) fn end_move(&mut self, now: Instant, spi: Spi, gone: bool) {
        let waiting = self.moves.0.remove(&spi).unwrap_or_default();
        if gone {
            let slots: Vec<Slot> = self.awake.keys().copied().collect();
            for slot in slots {
                self.put_to_sleep(now, slot, spi);
            }
            return;
        }
        for transmit in waiting {
            self.depart(now, transmit);
        }
    }

    /// Another member gave this one an IKE SA that it has just established: its IKE_AUTH response
    /// leaves from here, when all members have the record.
    pub(crate) fn welcome(&mut self, now: Instant, spi: Spi, written: Stamp) {
        let Some(held) = self.cluster.ownership().sa(spi) else {
            return;
        };
        if held.sa.moves == 0 || !self.cluster.serves(held.slot) {
            return;
        }
        let slot = held.slot;
        let Some(record) = self.index.open(now, held).ok() else {
            return;
        };
        self.adopt(now, spi, slot, record.clone());
        let response = record.last_response.as_ref();
        let Some(response) = response.filter(|r| r.bytes.get(18) == Some(&IKE_AUTH)) else {
            return;
        };
        let transmit = Transmit {
            path: record.path,
            bytes: response.bytes.to_vec(),
            slot,
            after: None,
        };
        if let Some(transmit) = self.held.wait(written.seq, transmit) {
            self.transmit(now, transmit);
        }
    }
}

impl Node {
    /// The engine takes in what another member authenticated.
    fn adopt(&mut self, now: Instant, spi: Spi, slot: Slot, record: IkeSaRecord) {
        self.awake.entry(slot).or_default().insert(spi);
        self.counters.woken += 1;
        let identities = translate::identities(&*self.crypto, &record);
        let others = self.cluster.ownership().by_identities(identities);
        // Uniqueness looks at those that the engine has.
        let others: Vec<Spi> = others.map(|held| held.sa.local_spi).collect();
        for other in others.into_iter().filter(|other| *other != spi) {
            self.wake(now, other);
        }
        let command = Command::Adopt(Box::new(record));
        self.endpoint.handle_command(now, command);
    }

    /// An IKE SA was established in this member's slot while older ones of the same identities were
    /// sealed, so that the engine has not seen them; or, if `late`, whoever established it has left
    /// them to this member.
    pub(crate) fn meet_kin(
        &mut self,
        now: Instant,
        spi: Spi,
        slot: Slot,
        contact: Contact,
        late: bool,
    ) {
        let held = self.cluster.ownership().sa(spi);
        let Some(identities) = held.and_then(|held| held.sa.identities) else {
            return;
        };
        let kin = self.cluster.ownership().by_identities(identities);
        let kin = kin
            .filter(|held| held.slot == slot)
            .map(|held| held.sa.local_spi);
        let asleep: Vec<Spi> = kin.filter(|kin| !self.is_awake(slot, *kin)).collect();
        if asleep.is_empty() && !late {
            return;
        }
        for kin in asleep {
            self.wake(now, kin);
        }
        let local_spi = spi;
        self.endpoint
            .handle_command(now, Command::Decide { local_spi, contact });
    }
}

impl Node {
    /// Another member has established an IKE SA in `slot`: perhaps one in a slot of this member's
    /// was made at the same time, because both sides began, and neither member knew of the other's.
    pub(crate) fn meet_twins(&mut self, now: Instant, slot: Slot, record: &IkeSaRecord) {
        let over = record.closed.is_some() || record.replaced || record.closing;
        if over || self.cluster.serves(slot) {
            return;
        }
        let identities = translate::identities(&*self.crypto, record);
        let kin = self.cluster.ownership().by_identities(identities);
        let kin = kin.map(|held| held.sa.local_spi);
        let kin: Vec<Spi> = kin.filter(|kin| *kin != record.local_spi).collect();
        let mut met = false;
        for kin in kin {
            met |= self.wake(now, kin);
        }
        if met {
            let command = Command::Meet(Box::new(record.clone()));
            self.endpoint.handle_command(now, command);
        }
    }
}

/// Our SPI in a message that we send.
pub(crate) fn our_spi(message: &[u8]) -> Option<Spi> {
    let from_initiator = message.get(19)? & 0x08 != 0;
    let spi = if from_initiator {
        message.get(..8)
    } else {
        message.get(8..16)
    };
    spi?.try_into().ok()
}
