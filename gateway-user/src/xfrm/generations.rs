//! Generations of a CHILD_SA: which of them sends (RFC 7296 §2.8).

use gateway_ike::output::{ChildId, ChildSa};

use super::error::XfrmError;
use super::installed::kinship;
use super::tunnels::Tunnels;
use super::types::SaId;

impl Tunnels {
    /// Lets rekeyed children send whose peer has shown that it has the new SA, by using it
    /// (RFC 7296 §2.8). To be called about once a second; costs one query per child that waits.
    /// Returns those that now send.
    ///
    /// # Errors
    /// The first refusal of the kernel.
    pub fn promote_used(&mut self) -> Result<Vec<ChildId>, XfrmError> {
        let waiting: Vec<(ChildId, SaId)> = self
            .waiting
            .keys()
            .filter_map(|id| Some((*id, self.children.get(id)?.sa_in)))
            .collect();
        let mut promoted = Vec::new();
        for (id, sa_in) in waiting {
            match self.kernel.query_sa(&sa_in) {
                Ok(state) if state.packets > 0 => {
                    self.promote(id)?;
                    promoted.push(id);
                }
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(promoted)
    }

    /// Lets a rekeyed child send, although the child that it replaces is still installed.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn promote(&mut self, id: ChildId) -> Result<(), XfrmError> {
        let Some(old) = self.waiting.remove(&id) else {
            return Ok(());
        };
        let Some(out) = self.children.get(&id).and_then(|child| child.out.as_ref()) else {
            return Ok(());
        };
        for key in &out.keys {
            self.book.raise_above(id, old, key);
        }
        self.book.sync(&mut *self.kernel, &out.keys)
    }

    /// An SA is gone ([`super::XfrmEvent::Expired`] with `hard`): a child that rekeys the one it
    /// belonged to sends from now on. Returns that one; it stays in the books until
    /// [`Self::remove_child`]. `None`: the SA was not ours.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn expired(&mut self, sa: &SaId) -> Result<Option<ChildId>, XfrmError> {
        let Some(id) = self.child_of(sa) else {
            return Ok(None);
        };
        let successors: Vec<ChildId> = self
            .waiting
            .iter()
            .filter(|&(_, old)| *old == id)
            .map(|(new, _)| *new)
            .collect();
        for new in successors {
            self.promote(new)?;
        }
        Ok(Some(id))
    }

    /// The latest installed child that is the same to an operator: names, peer and selectors.
    pub(super) fn generation_before(&self, child: &ChildSa) -> Option<ChildId> {
        let id = child.id();
        let kin = self.kin.get(&kinship(child))?;
        kin.iter().rev().find(|other| **other != id).copied()
    }
}
