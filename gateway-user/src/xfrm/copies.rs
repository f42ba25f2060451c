//! Copies of other members' CHILD_SAs.
//!
//! A copy is the same in the kernel as its owner's SAs, policies included, but for where its sequence
//! numbers stand: cleartext that reaches a member that is not the owner is encrypted by the copy
//! and stopped by the fence, and a takeover touches no SA. The copy's outbound SA stands in a block of
//! numbers that nobody else uses and moves with its owner's reservation, forwards only.

use std::collections::HashMap;
use std::sync::MutexGuard;

use gateway_common::slot::Slot;
use gateway_ike::output::{ChildId, ChildSa};
use gateway_node::effect::Standing;

use super::child::outbound_replay;
use super::error::XfrmError;
use super::gate::Owned;
use super::installed::Start;
use super::replay::{Move, Position, Standpoint, event_every};
use super::selector::flows;
use super::tunnels::Tunnels;
use super::types::{Request, SaId};

/// Copies that are moved while the gate is held once: two SAs each, one `sendmsg`.
pub(super) const MOVES_AT_ONCE: usize = 32;

/// Where a copy has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyMove {
    /// Which.
    pub child: ChildId,
    /// Its slot.
    pub slot: Slot,
    /// Where to.
    pub standing: Standing,
}

/// What became of a [`CopyMove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Both SAs stand where they should, or further on.
    Done,
    /// The slot is this member's: nothing was touched.
    Ours,
    /// There is no such child, or the kernel has dropped its outbound SA.
    Missing,
    /// The kernel refused. The outbound SA was deleted: it stood in numbers that are another's now.
    Failed,
}

impl Tunnels {
    /// Installs a copy of another member's CHILD_SA, or brings the one that stands there in line:
    /// its addresses and ports, then its sequence numbers, forwards only. Of a child that this member
    /// owned until now the SAs stay as they are and move into their block. Idempotent.
    ///
    /// A child that stands here with the same names, peer and selectors is taken for the generation
    /// before it: its outbound policies stay in force, as on the owner (see
    /// [`Self::install_child`]), until it is removed or the new one is used.
    ///
    /// # Errors
    /// As for [`Self::install_child`].
    pub fn install_copy(&mut self, child: &ChildSa, standing: Standing) -> Result<(), XfrmError> {
        let id = child.id();
        if self.adopt_copy(child)? || self.children.contains_key(&id) {
            return self.align_copy(child, standing);
        }
        let start = self.copy_start(standing);
        let replaces = self.generation_before(child);
        self.install_at(child, replaces, &start)?;
        let owned = self.gate.hold();
        if let Some(installed) = self.children.get_mut(&id) {
            installed.owned = false;
            installed.quiet_since = (!owned.owns(child.slot)).then(|| owned.gained(child.slot));
        }
        Ok(())
    }

    /// Moves copies, in batches, each under the gate. An entry whose slot is this member's is refused
    /// when it would be carried out, whenever it was decided on.
    pub fn move_copies(&mut self, moves: &[CopyMove]) -> Vec<Moved> {
        let gate = self.gate.clone();
        let mut results = Vec::with_capacity(moves.len());
        for chunk in moves.chunks(MOVES_AT_ONCE) {
            let owned = gate.hold();
            results.extend(self.move_chunk(&owned, chunk));
            drop(owned);
        }
        results
    }

    /// The outbound SA of a child of this member goes on after the number `to`, forwards. If it
    /// cannot, it must not be used: the numbers in between are other members'.
    pub fn advance(&mut self, child: ChildId, to: u64) {
        let Some(installed) = self.children.get_mut(&child) else {
            return;
        };
        let replay = outbound_replay(installed.replay);
        let Some(out) = &mut installed.out else {
            return;
        };
        out.stands = out.stands.max(to);
        // The next raise says what is reserved beyond that.
        out.ceiling = to as u32;
        let out = out.sa;
        let stands = match self.kernel.standpoints(&[out]).pop() {
            Some(Ok(standpoint)) => standpoint.position.sequence_out,
            _ => 0,
        };
        if stands >= to {
            return;
        }
        let to = Move {
            id: out,
            replay,
            position: Position::sent(to),
        };
        let answer = self.kernel.apply(&[Request::MoveSa(&to)]).pop();
        if !matches!(answer, Some(Ok(()))) {
            tracing::error!(sa = %out, ?answer, "moving an SA on");
            if let Err(error) = self.delete_sa(&out) {
                tracing::error!(sa = %out, %error, "deleting an SA that could not be moved on");
            }
            self.copy_failures += 1;
        }
    }

    fn copy_start(&self, standing: Standing) -> Start {
        Start {
            sequence_out: standing.sequence_out,
            sequence_in: self.inbound_policy.window_top(standing.sequence_in),
            ceiling: standing.ceiling,
            event_every: event_every(standing.ceiling.saturating_sub(standing.sequence_out)),
        }
    }

    fn align_copy(&mut self, child: &ChildSa, standing: Standing) -> Result<(), XfrmError> {
        let id = child.id();
        self.update_path(child)?;
        if let Some(installed) = self.children.get_mut(&id) {
            installed.owned = false;
        }
        let start = self.copy_start(standing);
        if self.children.get(&id).is_some_and(|c| c.out.is_none()) {
            let flows = flows(&child.local_ts, &child.remote_ts)?;
            let before = self.generation_before(child);
            self.add_outbound(child, &flows, before, &start)?;
        }
        let to = CopyMove {
            child: id,
            slot: child.slot,
            standing,
        };
        match self.move_copies(&[to]).first() {
            Some(Moved::Missing | Moved::Failed) => self.reinstall_outbound(child, &start),
            _ => Ok(()),
        }
    }

    fn move_chunk(&mut self, owned: &MutexGuard<'_, Owned>, chunk: &[CopyMove]) -> Vec<Moved> {
        let plans: Vec<Result<Plan, Moved>> = chunk.iter().map(|to| self.plan(owned, to)).collect();
        let asked: Vec<SaId> = plans.iter().flatten().flat_map(Plan::questions).collect();
        let answers = self.kernel.standpoints(&asked);
        let known: HashMap<SaId, Result<Standpoint, XfrmError>> =
            asked.into_iter().zip(answers).collect();
        let steps: Vec<Vec<Step>> = plans
            .iter()
            .map(|plan| plan.as_ref().map_or(Vec::new(), |plan| plan.steps(&known)))
            .collect();
        let requests: Vec<Request<'_>> = steps.iter().flatten().filter_map(Step::request).collect();
        let mut answers = self.kernel.apply(&requests).into_iter();
        let mut results = Vec::with_capacity(chunk.len());
        for (plan, steps) in plans.into_iter().zip(&steps) {
            let mut result = Moved::Done;
            for step in steps {
                let answer = match step {
                    Step::Unknown { missing, .. } if *missing => Err(Moved::Missing),
                    Step::Unknown { .. } => Err(Moved::Failed),
                    Step::Stands(_) => Ok(()),
                    Step::Go(to, _) => match answers.next() {
                        Some(Ok(())) => Ok(()),
                        Some(Err(error)) if error.is_missing() => Err(Moved::Missing),
                        refused => {
                            tracing::error!(sa = %to.id, ?refused, "moving a copy");
                            Err(Moved::Failed)
                        }
                    },
                    Step::Pace(..) => answers.next().map_or(Ok(()), |_| Ok(())),
                };
                if let Err(failure) = answer {
                    result = self.not_moved(step, failure, result);
                } else if let Ok(plan) = &plan {
                    self.note_step(plan, step);
                }
            }
            results.push(plan.map_or_else(|refused| refused, |_| result));
        }
        results
    }

    fn plan(&self, owned: &MutexGuard<'_, Owned>, to: &CopyMove) -> Result<Plan, Moved> {
        let installed = self.children.get(&to.child).ok_or(Moved::Missing)?;
        if owned.owns(to.slot) || owned.owns(installed.path.slot) {
            return Err(Moved::Ours);
        }
        let out = installed.out.as_ref().ok_or(Moved::Missing)?;
        let block = to.standing.ceiling.saturating_sub(to.standing.sequence_out);
        let every = event_every(block);
        let gained = owned.gained(installed.path.slot);
        Ok(Plan {
            child: to.child,
            sa_out: out.sa,
            sa_in: installed.sa_in,
            replay: installed.replay,
            out: (to.standing.sequence_out > out.stands).then_some(to.standing.sequence_out),
            // What it sent while the slot was ours is in no book.
            look: installed.quiet_since != Some(gained),
            gained,
            ceiling: to.standing.ceiling as u32,
            top: Some(self.inbound_policy.window_top(to.standing.sequence_in))
                .filter(|top| *top > installed.stands_in),
            every: (every / 2 >= out.event_every || every <= out.event_every / 2).then_some(every),
        })
    }

    fn note_step(&mut self, plan: &Plan, step: &Step) {
        let Some(installed) = self.children.get_mut(&plan.child) else {
            return;
        };
        match step {
            Step::Go(_, Side::Out(stands)) | Step::Stands(Side::Out(stands)) => {
                installed.quiet_since = Some(plan.gained);
                installed.owned = false;
                if let Some(out) = &mut installed.out {
                    out.stands = out.stands.max(*stands);
                    out.ceiling = plan.ceiling;
                }
            }
            Step::Go(_, Side::In(stands)) | Step::Stands(Side::In(stands)) => {
                installed.stands_in = installed.stands_in.max(*stands);
            }
            Step::Pace(_, every) => {
                if let Some(out) = &mut installed.out {
                    out.event_every = *every;
                }
            }
            Step::Unknown { .. } => {}
        }
    }

    /// An outbound SA that could not be moved must not be used from where it stands. Its policies stay:
    /// without them cleartext would leave.
    fn not_moved(&mut self, step: &Step, failure: Moved, so_far: Moved) -> Moved {
        let out = match step {
            Step::Go(to, Side::Out(_)) => to.id,
            Step::Unknown { sa, out: true, .. } => *sa,
            // Inbound it only means that the window stands where it stood.
            _ => return so_far,
        };
        if failure == Moved::Failed
            && let Err(error) = self.delete_sa(&out)
        {
            tracing::error!(sa = %out, %error, "deleting a copy that could not be moved");
        }
        self.copy_failures += 1;
        failure
    }
}

/// What has to be done for one [`CopyMove`].
struct Plan {
    child: ChildId,
    sa_out: SaId,
    sa_in: SaId,
    replay: super::types::Replay,
    out: Option<u64>,
    look: bool,
    gained: u32,
    ceiling: u32,
    top: Option<u64>,
    every: Option<u32>,
}

#[derive(Clone, Copy)]
enum Side {
    Out(u64),
    In(u64),
}

enum Step {
    Go(Move, Side),
    Pace(SaId, u32),
    /// It stands there already, or further on.
    Stands(Side),
    /// The kernel would not say where it stands.
    Unknown {
        sa: SaId,
        out: bool,
        missing: bool,
    },
}

impl Step {
    fn request(&self) -> Option<Request<'_>> {
        match self {
            Self::Go(to, _) => Some(Request::MoveSa(to)),
            Self::Pace(id, every) => Some(Request::Pace(id, *every)),
            Self::Stands(_) | Self::Unknown { .. } => None,
        }
    }
}

impl Plan {
    /// Of which SAs the kernel has to say where they stand. An inbound copy takes in packets (those
    /// that it reassembles), so its window may be further on than any checkpoint.
    fn questions(&self) -> impl Iterator<Item = SaId> {
        let out = (self.look && self.out.is_some()).then_some(self.sa_out);
        let inbound = self.top.map(|_| self.sa_in);
        out.into_iter().chain(inbound)
    }

    fn steps(&self, known: &HashMap<SaId, Result<Standpoint, XfrmError>>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(3);
        if let Some(target) = self.out {
            let replay = outbound_replay(self.replay);
            steps.push(
                match known.get(&self.sa_out).filter(|_| self.look).map(|a| {
                    a.as_ref()
                        .map(|standpoint| standpoint.position.sequence_out)
                }) {
                    Some(Err(error)) => Step::Unknown {
                        sa: self.sa_out,
                        out: true,
                        missing: error.is_missing(),
                    },
                    Some(Ok(sent)) if sent >= target => Step::Stands(Side::Out(sent)),
                    _ => Step::Go(
                        Move {
                            id: self.sa_out,
                            replay,
                            position: Position::sent(target),
                        },
                        Side::Out(target),
                    ),
                },
            );
        }
        if let Some(every) = self.every {
            steps.push(Step::Pace(self.sa_out, every));
        }
        if let Some(top) = self.top {
            steps.push(match known.get(&self.sa_in) {
                Some(Ok(standpoint)) if standpoint.position.sequence_in >= top => {
                    Step::Stands(Side::In(standpoint.position.sequence_in))
                }
                Some(Ok(_)) => Step::Go(
                    Move {
                        id: self.sa_in,
                        replay: self.replay,
                        position: Position::received(top),
                    },
                    Side::In(top),
                ),
                _ => Step::Unknown {
                    sa: self.sa_in,
                    out: false,
                    missing: true,
                },
            });
        }
        steps
    }
}
