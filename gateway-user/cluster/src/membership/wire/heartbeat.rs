//! What a member tells of itself.

use gateway_common::member::MemberId;

use super::DecodeError;
use super::cursor::{Cursor, Writer};
use crate::membership::set::MemberSet;
use crate::membership::state::MemberState;
use crate::view::{Epoch, SyncReport};

/// Longest reason that is sent, octets.
pub const MAX_REASON: usize = 64;

const STANDING: u8 = 1;
const HEARD: u8 = 2;
const CONFIG: u8 = 3;
const SYNC: u8 = 4;
const PREFERENCE: u8 = 5;
const REASON: u8 = 6;

const ADMITTED: u8 = 1;
const COLD: u8 = 2;
const FROZEN: u8 = 4;
const PIVOT: u8 = 8;
const DRAINED: u8 = 16;
const STOPPING: u8 = 32;

/// What a member tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its installed view.
    pub epoch: Epoch,
    /// Its run is in that view, and the view can go on.
    pub admitted: bool,
    /// It knows of no view that can go on.
    pub cold: bool,
    /// Its own timers came late.
    pub frozen: bool,
    /// It holds the VIPs in load sharing.
    pub pivot: bool,
    /// It shall own no slots.
    pub drained: bool,
    /// It leaves.
    pub stopping: bool,
    /// Its state.
    pub state: MemberState,
    /// Why.
    pub reason: String,
    /// Critical devices with a problem.
    pub problems: u8,
    /// Who takes its share while it is drained.
    pub heir: Option<MemberId>,
    /// Load in 1/255.
    pub load: u8,
    /// Whom it hears.
    pub heard: MemberSet,
    /// Its cluster interfaces that are up, bit n for interface n.
    pub links: u32,
    /// Digest of its configuration.
    pub config_hash: u64,
    /// How its synchronisation stands.
    pub sync: SyncReport,
    /// The last failover command that it knows of.
    pub preference: Preference,
}

/// A failover command in HA mode. The one with the highest stamp counts, everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    /// Grows.
    pub stamp: u64,
    /// Who shall be active; `None` = as configured.
    pub to: Option<MemberId>,
}

impl Heartbeat {
    pub(super) fn encode(&self, out: &mut Writer) {
        let flags = [
            (self.admitted, ADMITTED),
            (self.cold, COLD),
            (self.frozen, FROZEN),
            (self.pivot, PIVOT),
            (self.drained, DRAINED),
            (self.stopping, STOPPING),
        ];
        let flags = flags.iter().filter(|(set, _)| *set);
        out.tlv(STANDING, |out| {
            out.u64(self.epoch.0);
            out.u8(flags.fold(0, |all, (_, bit)| all | bit));
            out.u8(self.state.code());
            out.u8(self.problems);
            out.member(self.heir);
            out.u8(self.load);
        });
        out.tlv(HEARD, |out| {
            out.u64(self.heard.bits());
            out.u32(self.links);
        });
        out.tlv(CONFIG, |out| out.u64(self.config_hash));
        out.tlv(SYNC, |out| {
            let sets = [
                &self.sync.complete_from,
                &self.sync.lagging,
                &self.sync.caught_up,
            ];
            for set in sets {
                out.u64(set.iter().copied().collect::<MemberSet>().bits());
            }
            out.u64(self.sync.levelled.0);
        });
        if self.preference != Preference::default() {
            out.tlv(PREFERENCE, |out| {
                out.u64(self.preference.stamp);
                out.member(self.preference.to);
            });
        }
        if !self.reason.is_empty() {
            out.tlv(REASON, |out| out.bytes(clip(&self.reason).as_bytes()));
        }
    }
}

/// The part of `reason` that is sent.
fn clip(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

pub(super) fn decode(mut body: Cursor<'_>) -> Result<Heartbeat, DecodeError> {
    let mut heartbeat = Heartbeat::default();
    let mut standing = false;
    while !body.0.is_empty() {
        let kind = body.u8()?;
        let length = body.u16()?;
        let mut value = Cursor(body.bytes(usize::from(length))?);
        match kind {
            STANDING => {
                heartbeat.read_standing(&mut value)?;
                standing = true;
            }
            HEARD => {
                heartbeat.heard = MemberSet::from_bits(value.u64()?);
                heartbeat.links = value.u32()?;
            }
            CONFIG => heartbeat.config_hash = value.u64()?,
            SYNC => heartbeat.sync = read_sync(&mut value)?,
            PREFERENCE => {
                heartbeat.preference = Preference {
                    stamp: value.u64()?,
                    to: value.optional_member()?,
                };
            }
            REASON => {
                let reason = String::from_utf8_lossy(value.0);
                heartbeat.reason = clip(&reason).chars().filter(|c| !c.is_control()).collect();
            }
            _ => {}
        }
    }
    if standing {
        Ok(heartbeat)
    } else {
        Err(DecodeError::Truncated)
    }
}

impl Heartbeat {
    fn read_standing(&mut self, value: &mut Cursor<'_>) -> Result<(), DecodeError> {
        self.epoch = Epoch(value.u64()?);
        let flags = value.u8()?;
        self.admitted = flags & ADMITTED != 0;
        self.cold = flags & COLD != 0;
        self.frozen = flags & FROZEN != 0;
        self.pivot = flags & PIVOT != 0;
        self.drained = flags & DRAINED != 0;
        self.stopping = flags & STOPPING != 0;
        self.state = MemberState::from_code(value.u8()?).ok_or(DecodeError::Invalid("state"))?;
        self.problems = value.u8()?;
        self.heir = value.optional_member()?;
        self.load = value.u8()?;
        Ok(())
    }
}

fn read_sync(value: &mut Cursor<'_>) -> Result<SyncReport, DecodeError> {
    let mut set = || Ok(MemberSet::from_bits(value.u64()?).iter().collect());
    Ok(SyncReport {
        complete_from: set()?,
        lagging: set()?,
        caught_up: set()?,
        levelled: Epoch(value.u64()?),
    })
}
