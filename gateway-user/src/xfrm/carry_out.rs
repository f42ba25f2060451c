//! The node's operations on the kernel, and what the kernel tells the node.

use gateway_ike::output::{ChildId, KernelRequest, KernelResult};
use gateway_node::effect::{KernelEvent, KernelOp};

use super::copies::CopyMove;
use super::error::XfrmError;
use super::event::XfrmEvent;
use super::replay::event_every;
use super::tunnels::Tunnels;
use super::types::{Request, SaId};

impl Tunnels {
    /// Carries out one operation. Only `Own { request: Install }` is answered.
    ///
    /// A copy that cannot be installed or moved is logged, and its outbound SA is not left where it
    /// stood: this member then has nothing to send with, which repeats no number.
    pub fn carry_out(&mut self, op: &KernelOp) -> Option<KernelResult> {
        match op {
            KernelOp::Own { request, start } => return self.perform_at(request, *start),
            KernelOp::Copy { child, standing } => {
                if let Err(error) = self.install_copy(child, *standing) {
                    tracing::error!(spi = ?child.spi_in, %error, "installing a copy");
                    self.copy_failures += 1;
                }
            }
            KernelOp::MoveCopy { .. } => {
                self.carry_out_moves(std::slice::from_ref(op));
            }
            KernelOp::Advance { child, to, .. } => self.advance(*child, *to),
            KernelOp::RemoveCopy(child) => self.remove_logged(*child),
        }
        None
    }

    /// Copies that could not be installed or moved, since the start: for each of them a takeover costs a
    /// tunnel, until its record comes again.
    pub const fn copy_failures(&self) -> u64 {
        self.copy_failures
    }

    /// Carries out operations in order, with the answers in order. Moves that follow each other share
    /// requests to the kernel.
    pub fn carry_out_all(&mut self, ops: &[KernelOp]) -> Vec<KernelResult> {
        let is_move = |op: &KernelOp| matches!(op, KernelOp::MoveCopy { .. });
        let mut results = Vec::new();
        for run in ops.chunk_by(|a, b| is_move(a) && is_move(b)) {
            match run {
                [KernelOp::MoveCopy { .. }, ..] => self.carry_out_moves(run),
                run => results.extend(run.iter().filter_map(|op| self.carry_out(op))),
            }
        }
        results
    }

    /// Carries out a request of the IKE engine for a CHILD_SA that was never used. Only `Install`
    /// is answered.
    pub fn perform(&mut self, request: &KernelRequest) -> Option<KernelResult> {
        self.perform_at(request, 0)
    }

    fn perform_at(&mut self, request: &KernelRequest, start: u64) -> Option<KernelResult> {
        match request {
            KernelRequest::Install { child, replaces } => {
                let id = child.id();
                Some(match self.install_owned(child, *replaces, start) {
                    Ok(()) => KernelResult::Installed(id),
                    Err(error) => KernelResult::Failed {
                        child: id,
                        reason: error.to_string(),
                    },
                })
            }
            KernelRequest::Remove { child } => {
                self.remove_logged(*child);
                None
            }
            KernelRequest::Promote { child } => {
                if let Err(error) = self.promote(*child) {
                    tracing::warn!(spi = ?child.spi_in, %error, "sending on a rekeyed CHILD_SA");
                }
                None
            }
            KernelRequest::Update { child } => {
                if let Err(error) = self.update_path(child) {
                    tracing::error!(
                        spi = ?child.spi_in,
                        "the peer has moved behind its NAT, and a CHILD_SA cannot follow: {error}"
                    );
                }
                None
            }
        }
    }

    fn remove_logged(&mut self, child: ChildId) {
        if let Err(error) = self.remove_child(child) {
            tracing::warn!(spi = ?child.spi_in, %error, "removing a CHILD_SA");
        }
    }

    fn carry_out_moves(&mut self, ops: &[KernelOp]) {
        let moves: Vec<CopyMove> = ops
            .iter()
            .filter_map(|op| match op {
                KernelOp::MoveCopy {
                    child,
                    slot,
                    standing,
                    ..
                } => Some(CopyMove {
                    child: *child,
                    slot: *slot,
                    standing: *standing,
                }),
                _ => None,
            })
            .collect();
        self.move_copies(&moves);
    }

    /// Tells the kernel how many outbound numbers of a child are reserved at a time: its events come
    /// after a quarter of them. To be called with each new ceiling; costs a request only when the
    /// reservation has at least doubled or halved. Touches no sequence number.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn pace(&mut self, child: ChildId, reserved: u64) -> Result<(), XfrmError> {
        let every = event_every(reserved);
        let installed = self.children.get_mut(&child);
        let Some(out) = installed.and_then(|installed| installed.out.as_mut()) else {
            return Ok(());
        };
        if every / 2 < out.event_every && every > out.event_every / 2 {
            return Ok(());
        }
        self.kernel.request(Request::Pace(&out.sa, every))?;
        out.event_every = every;
        Ok(())
    }

    /// As [`Self::pace`], of the outbound SA whose ceiling is `ceiling` (low word) now, as the fence is
    /// told: what it was raised by is what is reserved at a time. Unknown SAs are nobody's.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn ceiling_raised(&mut self, sa: &SaId, ceiling: u32) -> Result<(), XfrmError> {
        let Some(child) = self.child_of(sa) else {
            return Ok(());
        };
        let installed = self.children.get_mut(&child);
        let Some(out) = installed.and_then(|installed| installed.out.as_mut()) else {
            return Ok(());
        };
        let by = ceiling.wrapping_sub(std::mem::replace(&mut out.ceiling, ceiling));
        // Half of the circle or more is no raise.
        if by == 0 || by >= 1 << 31 {
            return Ok(());
        }
        self.pace(child, u64::from(by))
    }

    /// What an event of [`super::Events`] means for the node. After an overrun a survey begins
    /// ([`Self::survey_part`]).
    ///
    /// Of sequence numbers it tells only where the slot is this member's: what a copy uses up, the
    /// fence has stopped.
    ///
    /// # Errors
    /// What the kernel answered to what had to be done or asked.
    pub fn hear(&mut self, event: &XfrmEvent) -> Result<Vec<KernelEvent>, XfrmError> {
        match event {
            XfrmEvent::Replay {
                sa,
                sequence_out,
                sequence_in,
            } => {
                let Some(child) = self.child_of(sa) else {
                    return Ok(Vec::new());
                };
                let sequences = (*sequence_out, *sequence_in);
                Ok(self.told(child, sa, sequences).into_iter().collect())
            }
            XfrmEvent::Expired { sa, hard } => {
                let child = if *hard {
                    self.expired(sa)?
                } else {
                    self.child_of(sa)
                };
                let event = |child| KernelEvent::Expired { child, hard: *hard };
                Ok(child.map(event).into_iter().collect())
            }
            // No SA: see [`Self::trapped`].
            XfrmEvent::Acquire { .. } => Ok(Vec::new()),
            XfrmEvent::Overrun => {
                let lost = self.reconcile()?.lost;
                let gone = |child| KernelEvent::Expired { child, hard: true };
                self.begin_survey();
                Ok(lost.into_iter().map(gone).collect())
            }
        }
    }

    pub(super) fn told(
        &self,
        child: ChildId,
        sa: &SaId,
        (sent, received): (u64, u64),
    ) -> Option<KernelEvent> {
        let installed = self.children.get(&child)?;
        if !self.gate.owns(installed.path.slot) {
            return None;
        }
        if installed.sa_in == *sa {
            return (received != 0).then_some(KernelEvent::ReceivedUpTo {
                child,
                sequence: received,
            });
        }
        (sent != 0).then_some(KernelEvent::SentUpTo {
            child,
            sequence: sent,
        })
    }
}
