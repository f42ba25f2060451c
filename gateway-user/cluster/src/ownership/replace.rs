//! Replacing everything that one member announced.

use std::collections::BTreeSet;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use super::Ownership;
use crate::change::{Cookie, Negotiation, Sa};

/// One entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// An open negotiation.
    Negotiation {
        /// Its slot.
        slot: Slot,
        /// Its keys.
        negotiation: Negotiation,
        /// When to forget it.
        expires: Instant,
    },
    /// An established IKE SA.
    Sa {
        /// Its slot.
        slot: Slot,
        /// The SA.
        sa: Sa,
    },
}

impl Announcement {
    /// Our IKE SPI.
    pub const fn cookie(&self) -> Cookie {
        match self {
            Self::Negotiation { negotiation, .. } => negotiation.local_cookie,
            Self::Sa { sa, .. } => sa.local_spi,
        }
    }
}

impl Ownership {
    /// Exactly `snapshot` is what `announcer` has: adds what is new, replaces what changed, and then
    /// forgets what is not in it. What other members announced stays untouched, and what did not
    /// change has no effect at all. Of several entries for one cookie the last one counts.
    pub fn replace(
        &mut self,
        now: Instant,
        announcer: MemberId,
        snapshot: impl IntoIterator<Item = Announcement>,
    ) {
        let (mut negotiations, mut sas) = (BTreeSet::new(), BTreeSet::new());
        for announcement in snapshot {
            let cookie = announcement.cookie();
            match announcement {
                Announcement::Negotiation {
                    slot,
                    negotiation,
                    expires,
                } => {
                    sas.remove(&cookie);
                    negotiations.insert(cookie);
                    // An SA of that cookie is from before.
                    self.remove(announcer, cookie);
                    self.reopen(now, announcer, slot, negotiation, expires);
                }
                Announcement::Sa { slot, sa } => {
                    negotiations.remove(&cookie);
                    sas.insert(cookie);
                    self.upsert(announcer, slot, sa);
                }
            }
        }
        self.forget_all_but(announcer, &negotiations, &sas);
    }

    /// As [`Ownership::open`], but leaves an entry alone that is already there: only its remaining
    /// time has been measured again.
    fn reopen(
        &mut self,
        now: Instant,
        announcer: MemberId,
        slot: Slot,
        negotiation: Negotiation,
        expires: Instant,
    ) {
        let known = self.opened(announcer, negotiation.local_cookie);
        if known.is_none_or(|known| known.negotiation != negotiation || known.slot != slot) {
            self.open(now, announcer, slot, negotiation, expires);
        }
    }

    fn forget_all_but(
        &mut self,
        announcer: MemberId,
        negotiations: &BTreeSet<Cookie>,
        sas: &BTreeSet<Cookie>,
    ) {
        let Some(announced) = self.announced.get(&announcer) else {
            return;
        };
        let stale_negotiations: Vec<Cookie> = announced
            .negotiations
            .keys()
            .filter(|cookie| !negotiations.contains(*cookie))
            .copied()
            .collect();
        let stale_sas: Vec<Cookie> = announced
            .sas
            .keys()
            .filter(|cookie| !sas.contains(*cookie))
            .copied()
            .collect();
        for cookie in stale_negotiations {
            self.close(announcer, cookie);
        }
        for cookie in stale_sas {
            self.remove(announcer, cookie);
        }
    }
}
