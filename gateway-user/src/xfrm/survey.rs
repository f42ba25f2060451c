//! Where the SAs of this member's slots stand, asked of the kernel a part at a time.
//!
//! Events tell of what a member's own SAs have used up. They do not tell what a copy used up before
//! its slot came, nor what was said while the event socket ran over. Asking about 100,000 SAs at once
//! would hold up the peers' exchanges and the other members' acknowledgements for a second.

use std::ops::Bound;

use gateway_ike::output::ChildId;
use gateway_node::effect::KernelEvent;

use super::socket::BATCH;
use super::tunnels::Tunnels;
use super::types::SaId;

/// Children that are looked at in one part; each has two SAs to ask about.
const PART: usize = BATCH;

/// A walk over all children.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The last child that was looked at; `None`: none is under way.
    after: Option<Bound<ChildId>>,
}

impl Tunnels {
    /// Begins to ask where all SAs of this member's slots stand, or begins again.
    pub const fn begin_survey(&mut self) {
        self.survey.after = Some(Bound::Unbounded);
    }

    /// Whether [`Self::survey_part`] has something to do.
    pub const fn is_surveying(&self) -> bool {
        self.survey.after.is_some()
    }

    /// Asks about the next few children. What the kernel does not tell is left out: that an SA is gone
    /// its own events say.
    pub fn survey_part(&mut self) -> Vec<KernelEvent> {
        let Some(after) = self.survey.after.take() else {
            return Vec::new();
        };
        let rest = self.children.range((after, Bound::Unbounded));
        let part: Vec<_> = rest.take(PART).collect();
        if part.len() == PART {
            self.survey.after = part.last().map(|(id, _)| Bound::Excluded(**id));
        }
        let asked: Vec<(ChildId, SaId)> = part
            .into_iter()
            .filter(|(_, installed)| self.gate.owns(installed.path.slot))
            .flat_map(|(id, installed)| {
                let out = installed.out.as_ref().map(|out| out.sa);
                [Some(installed.sa_in), out].map(|sa| sa.map(|sa| (*id, sa)))
            })
            .flatten()
            .collect();
        let ids: Vec<SaId> = asked.iter().map(|(_, sa)| *sa).collect();
        let answers = self.kernel.standpoints(&ids);
        let mut events = Vec::new();
        for ((child, sa), answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(stands) => {
                    let at = (stands.position.sequence_out, stands.position.sequence_in);
                    events.extend(self.told(child, &sa, at));
                }
                Err(error) if error.is_missing() => {}
                Err(error) => tracing::warn!(%sa, %error, "where an SA stands could not be read"),
            }
        }
        events
    }
}
