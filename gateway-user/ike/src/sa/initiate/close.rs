//! INFORMATIONAL requests (RFC 7296 §1.4): liveness, DELETE of CHILD_SAs and of the IKE SA.

use std::sync::Arc;

use super::{Draft, Task};
use crate::config::{ChildConfig, Gateway};
use crate::endpoint::core::Core;
use crate::error::IkeError;
use crate::record::{ChildState, Purpose};
use crate::sa::mobike::COOKIE_LEN;
use crate::sa::redirect::redirect_data;
use crate::sa::{Cause, Child, IkeSa, Step};
use crate::wire::{DeleteRepr, ExchangeType, MessageBuilder, NotifyRepr, NotifyType, Payload};

impl IkeSa {
    /// An empty request (RFC 7296 §2.4).
    pub(super) fn draft_empty(&self) -> Result<Draft, IkeError> {
        self.informational_draft(Purpose::Liveness, None)
    }

    pub(super) fn draft_close(&mut self) -> Result<Draft, IkeError> {
        if let Some(established) = self.established_mut() {
            established.closing = true;
        }
        let delete = Payload::Delete(DeleteRepr::ike());
        self.informational_draft(Purpose::CloseIke, Some(&delete))
    }

    /// A check that the peer is where it says to be (RFC 4555 §3.7).
    pub(super) fn draft_check(&self, core: &Core) -> Result<Draft, IkeError> {
        let mut cookie = [0; COOKIE_LEN];
        core.crypto.random(&mut cookie);
        let path = self.path;
        let notify = NotifyRepr::new(NotifyType::COOKIE2, &cookie);
        let purpose = Purpose::VerifyPath { cookie, path };
        self.informational_draft(purpose, Some(&Payload::Notify(notify)))
    }

    /// Our new addresses (RFC 4555 §3.5).
    pub(super) fn draft_update(&self, core: &Core) -> Result<Draft, IkeError> {
        let mut cookie = [0; COOKIE_LEN];
        core.crypto.random(&mut cookie);
        let path = self.path;
        let purpose = Purpose::UpdateAddresses { cookie, path };
        let mut draft = self.informational_draft(purpose, None)?;
        let header = self.next_header(ExchangeType::INFORMATIONAL)?;
        self.push_update(core, &header, &cookie, &mut draft.message);
        Ok(draft)
    }

    /// Sends the peer to another gateway (RFC 5685 §5).
    pub(super) fn draft_redirect(&self, gateway: &Gateway) -> Result<Draft, IkeError> {
        let data = redirect_data(gateway, &[]);
        let notify = NotifyRepr::new(NotifyType::REDIRECT, &data);
        self.informational_draft(Purpose::Redirect, Some(&Payload::Notify(notify)))
    }

    /// DELETE of everything that is to be closed, in one exchange.
    pub(super) fn draft_close_children(&mut self) -> Result<Option<Draft>, IkeError> {
        let Some(established) = self.established_mut() else {
            return Ok(None);
        };
        let mut spis = established.unwanted.clone();
        let closing = |child: &&Child| child.state == ChildState::Closing;
        spis.extend(
            established
                .children
                .iter()
                .filter(closing)
                .map(|child| child.sa.spi_in),
        );
        if spis.is_empty() {
            return Ok(None);
        }
        let delete = Payload::Delete(DeleteRepr::esp(&spis));
        let purpose = Purpose::CloseChildren(spis.clone());
        let draft = self.informational_draft(purpose, Some(&delete))?;
        if let Some(established) = self.established_mut() {
            established.unwanted.clear();
        }
        Ok(Some(draft))
    }

    fn informational_draft(
        &self,
        purpose: Purpose,
        payload: Option<&Payload<'_>>,
    ) -> Result<Draft, IkeError> {
        let header = self.next_header(ExchangeType::INFORMATIONAL)?;
        let mut message = MessageBuilder::new(header);
        if let Some(payload) = payload {
            message.push(payload);
        }
        Ok(Draft {
            message_id: header.message_id,
            message,
            purpose,
        })
    }

    /// The peer has confirmed a DELETE of CHILD_SAs. What else is in the response does not matter:
    /// it may name the paired SAs or, if it deleted them itself meanwhile, nothing (RFC 7296
    /// §1.4.1, §2.25.1).
    pub(super) fn children_closed(&mut self, core: &mut Core, spis: &[[u8; 4]]) {
        for spi in spis {
            self.take_out_child(core, *spi, "deleted by us");
        }
    }

    /// Removes one installed child from the list, the kernel and the tables.
    pub(in crate::sa) fn take_out_child(
        &mut self,
        core: &mut Core,
        spi: [u8; 4],
        reason: &str,
    ) -> Option<Child> {
        let established = self.established_mut()?;
        let position = established
            .children
            .iter()
            .position(|child| child.sa.spi_in == spi)?;
        let child = established.children.remove(position);
        established.dirty = true;
        core.cancel_lifetime(&child);
        self.remove_child(core, &child.sa, reason);
        Some(child)
    }

    /// Deletes the IKE SA, with a DELETE to the peer.
    pub(crate) fn terminate(&mut self) -> Step {
        if let Some(established) = self.established_mut() {
            established.closing = true;
            established.dirty = true;
        }
        self.add_task(Task::CloseIke);
        Step::Waiting
    }

    /// As [`Self::terminate`], because something went wrong.
    pub(super) fn terminate_failed(&mut self) -> Step {
        if let Some(established) = self.established_mut() {
            established.failed = true;
        }
        self.terminate()
    }

    /// Why we have deleted it.
    pub(super) fn cause_of_closing(&self) -> Cause {
        match self.established() {
            Some(established) if established.failed => Cause::Failure,
            _ => Cause::OurWill,
        }
    }

    /// Configurations of the children that it has and that have no successor.
    pub(crate) fn children_in_use(&self) -> impl Iterator<Item = &Arc<ChildConfig>> {
        let established = self.established();
        let configured = established.map(|e| &e.connection.children);
        configured.into_iter().flatten().filter(move |config| {
            established.is_some_and(|e| {
                let current = |child: &&Child| child.state == ChildState::Current;
                let mut current = e.children.iter().filter(current);
                current.any(|child| child.sa.name == config.name)
            })
        })
    }

    /// Configurations of the children that it has, or will have if the peer agrees.
    pub(crate) fn children_to_be(&self) -> Vec<Arc<ChildConfig>> {
        let configured = self.established().map(|e| &e.connection.children);
        let all = configured.into_iter().flatten();
        all.filter(|config| self.has_child(&config.name))
            .cloned()
            .collect()
    }

    /// Deletes a child, with a DELETE to the peer. It is used until the peer has confirmed.
    pub(crate) fn terminate_child(&mut self, spi: [u8; 4]) {
        if let Some(established) = self.established_mut()
            && let Some(child) = established.child_mut(spi)
        {
            child.state = ChildState::Closing;
            established.dirty = true;
            self.add_task(Task::CloseChildren);
        }
    }

    /// Asks for a successor of a child, if it has none yet.
    pub(crate) fn rekey_child(&mut self, spi: [u8; 4]) {
        let current = self
            .established()
            .and_then(|e| e.child(spi))
            .is_some_and(|child| child.state == ChildState::Current);
        if current {
            self.add_task(Task::RekeyChild(spi));
        }
    }

    /// The life of a child is over: whoever keeps the time, nothing may be sent with its keys any
    /// more. The peer is told, and asked for a new one in its place.
    pub(crate) fn expire_child(&mut self, core: &mut Core, spi: [u8; 4]) {
        let Some(child) = self.take_out_child(core, spi, "hard lifetime reached") else {
            return;
        };
        let being_rekeyed = self.is_rekeying_child(spi);
        let Some(established) = self.established_mut() else {
            return;
        };
        established.tasks.remove(&Task::RekeyChild(spi));
        let asked_already = established.outstanding.as_ref().is_some_and(
            |o| matches!(&o.request.purpose, Purpose::CloseChildren(spis) if spis.contains(&spi)),
        );
        if !asked_already {
            established.unwanted.push(spi);
            self.add_task(Task::CloseChildren);
        }
        if child.state == ChildState::Current && !being_rekeyed {
            self.want_child(&child.sa.name);
        }
    }

    /// Asks for a child from scratch, unless its configuration is gone.
    pub(in crate::sa) fn want_child(&mut self, name: &str) {
        let configured = self
            .established()
            .is_some_and(|e| e.connection.children.iter().any(|c| c.name == name));
        if configured {
            self.add_task(Task::CreateChild(name.to_owned()));
            if let Some(established) = self.established_mut() {
                established.dirty = true;
            }
        }
    }

    /// Asks for those of these children that it does not have.
    pub(crate) fn want_children(&mut self, children: &[Arc<ChildConfig>]) {
        for child in children {
            if !self.has_child(&child.name) {
                self.want_child(&child.name);
            }
        }
    }

    /// Whether there is a child of this name, or will be if the peer agrees.
    pub(in crate::sa) fn has_child(&self, name: &str) -> bool {
        let Some(established) = self.established() else {
            return false;
        };
        let asked = |purpose: &Purpose| matches!(purpose, Purpose::Child(o) if o.name == name);
        established
            .children
            .iter()
            .any(|child| child.sa.name == name && child.state == ChildState::Current)
            || self.purpose().is_some_and(asked)
            || established.wanted_children().iter().any(|n| n == name)
    }

    /// Whether it is of this connection and can make children.
    pub(crate) fn serves(&self, connection: &str) -> bool {
        self.announced
            && self
                .established()
                .is_some_and(|e| e.connection.name == connection && !e.replaced && !e.closing)
    }

    /// Whether we have asked for a successor of this child and not got the answer.
    pub(in crate::sa) fn is_rekeying_child(&self, spi: [u8; 4]) -> bool {
        self.established()
            .and_then(|e| e.outstanding.as_ref())
            .is_some_and(|o| {
                matches!(&o.request.purpose, Purpose::Child(offer) if offer.rekeys == Some(spi))
            })
    }
}
