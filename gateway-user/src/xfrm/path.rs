//! A CHILD_SA whose peer moved: other addresses, other ports, another slot.
//!
//! `XFRM_MSG_UPDSA` changes the ports of the encapsulation and the output mark under the SA's lock, and
//! nothing else moves: no packet is lost, no number is touched. It cannot change an address: the
//! outer destination is part of the SA's identity, the source is not copied (`xfrm_state_update`), nor
//! can it begin or end encapsulation. `XFRM_MSG_MIGRATE` could, but it copies the counter of the old
//! SA, installs the new one and only then deletes the old: what another CPU sends in between is sent
//! again under the same numbers. It also needs CONFIG_XFRM_MIGRATE, and kernels before 5.16 lose the
//! interface id on the way. So the SA is deleted, says with its last words where it stood, and is
//! installed anew right there: a gap of microseconds, in which policies keep cleartext in.

use gateway_ike::output::{ChildId, ChildSa};

use super::child::{inbound, outbound, policies};
use super::error::XfrmError;
use super::installed::{Path, Start, sa_out};
use super::replay::Position;
use super::selector::flows;
use super::tunnels::Tunnels;
use super::types::{Direction, PolicyKey, Request, Sa};

impl Tunnels {
    /// Brings the SAs and policies of an installed child in line with its addresses, ports and slot.
    /// Sequence numbers and windows go on where they are. Nothing is done if nothing changed.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when the child or one of its SAs is not installed; what the kernel
    /// answered. The child may have lost an SA then: remove it, or install its copy again.
    pub fn update_path(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let id = child.id();
        let Some(installed) = self.children.get(&id) else {
            return Err(missing(id));
        };
        let (before, after) = (installed.path, Path::of(child));
        if before == after {
            return Ok(());
        }
        let same_kind = before.encap.is_some() == after.encap.is_some();
        if before.remote == after.remote && same_kind {
            self.update_in_place(child)?;
        } else {
            self.move_outbound(child)?;
            self.move_inbound(child)?;
            self.readdress(child)?;
        }
        if let Some(installed) = self.children.get_mut(&id) {
            installed.path = after;
        }
        Ok(())
    }

    /// Deletes the outbound SA, if it is there, and installs it anew after `start`, or after what it
    /// has sent if that is more.
    pub(super) fn reinstall_outbound(
        &mut self,
        child: &ChildSa,
        start: &Start,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        let Some(out) = self.children.get(&id).and_then(|c| c.out.as_ref()) else {
            return Err(missing(id));
        };
        let reqid = out.reqid;
        let sent = match self.kernel.take_sa(&out.sa) {
            Ok(position) => position.sequence_out,
            Err(error) if error.is_missing() => 0,
            Err(error) => return Err(error),
        };
        let start = Start {
            sequence_out: start.sequence_out.max(sent),
            ..*start
        };
        let sa = sa_out(child, reqid, &start);
        self.kernel.install_sa(&sa)?;
        self.book_moved(id, &sa);
        Ok(())
    }

    fn update_in_place(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let Some(installed) = self.children.get(&child.id()) else {
            return Ok(());
        };
        let sa_in = inbound(child, installed.reqid_in);
        let sa_out = installed.out.as_ref().map(|out| outbound(child, out.reqid));
        let mut requests = vec![Request::UpdateSa(&sa_in)];
        requests.extend(sa_out.as_ref().map(Request::UpdateSa));
        self.kernel.apply(&requests).into_iter().collect()
    }

    fn move_outbound(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let id = child.id();
        let Some(out) = self.children.get(&id).and_then(|c| c.out.as_ref()) else {
            return Ok(());
        };
        let (reqid, event_every) = (out.reqid, out.event_every);
        let position = self.kernel.take_sa(&out.sa)?;
        let sa = Sa {
            start: Position::sent(position.sequence_out),
            event_every,
            ..outbound(child, reqid)
        };
        self.kernel.install_sa(&sa)?;
        self.book_moved(id, &sa);
        Ok(())
    }

    fn book_moved(&mut self, id: ChildId, sa: &Sa) {
        if let Some(out) = self.children.get_mut(&id).and_then(|c| c.out.as_mut()) {
            self.by_sa.remove(&out.sa);
            self.by_sa.insert(sa.id, id);
            out.sa = sa.id;
            out.stands = out.stands.max(sa.start.sequence_out);
            out.event_every = sa.event_every;
        }
    }

    fn move_inbound(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let Some(installed) = self.children.get(&child.id()) else {
            return Ok(());
        };
        let reqid = installed.reqid_in;
        let position = self.kernel.take_sa(&installed.sa_in)?;
        let sa = Sa {
            start: Position {
                sequence_out: 0,
                ..position
            },
            event_every: self.inbound_policy.event_every(),
            ..inbound(child, reqid)
        };
        self.kernel.install_sa(&sa)
    }

    /// The templates of its policies, each in its place.
    fn readdress(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let id = child.id();
        let Some(installed) = self.children.get(&id) else {
            return Ok(());
        };
        let mut sides = vec![
            (Direction::In, installed.reqid_in),
            (Direction::Fwd, installed.reqid_in),
        ];
        sides.extend(
            installed
                .out
                .as_ref()
                .map(|out| (Direction::Out, out.reqid)),
        );
        let flows = flows(&child.local_ts, &child.remote_ts)?;
        let mut keys: Vec<PolicyKey> = Vec::new();
        for (direction, reqid) in sides {
            for policy in policies(child, &flows, direction, reqid) {
                keys.push(policy.key);
                self.book.replace(id, policy);
            }
        }
        self.book.sync(&mut *self.kernel, &keys)
    }
}

fn missing(id: ChildId) -> XfrmError {
    let operation = format!("update CHILD_SA {:08x}", u32::from_be_bytes(id.spi_in));
    XfrmError::refused_operation(operation, libc::ESRCH, None)
}
