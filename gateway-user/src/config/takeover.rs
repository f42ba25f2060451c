//! `[takeover]`: what becomes of the SAs of a member that was lost.

use crate::xfrm::InboundPolicy;

use super::error::ConfigError;
use super::{raw, value};

/// `[takeover]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takeover {
    /// What is done about packets that may have come before and come again after it.
    pub inbound: InboundPolicy,
    /// IKE SAs whose peers are asked for a sign of life, per second.
    pub checks_per_second: u32,
    /// IKE SAs whose CHILD_SAs are rekeyed, per second.
    pub rekeys_per_second: u32,
}

impl Takeover {
    /// Whether every CHILD_SA that comes by takeover gets other keys.
    pub const fn rekeys(&self) -> bool {
        match self.inbound {
            InboundPolicy::Learn => false,
            InboundPolicy::Strict | InboundPolicy::Rekey => true,
        }
    }
}

pub(super) fn check(raw: &raw::Takeover) -> Result<Takeover, ConfigError> {
    let rate = |key: &str, found| value::in_range(key, found, 1, 10_000);
    Ok(Takeover {
        inbound: match raw.inbound {
            raw::Inbound::Learn => InboundPolicy::Learn,
            raw::Inbound::Strict => InboundPolicy::Strict,
            raw::Inbound::Rekey => InboundPolicy::Rekey,
        },
        checks_per_second: rate("takeover.checks_per_second", raw.checks_per_second)?,
        rekeys_per_second: rate("takeover.rekeys_per_second", raw.rekeys_per_second)?,
    })
}
