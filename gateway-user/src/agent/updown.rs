//! What the engine tells, as events of VICI.

use gateway_common::time::Instant;
use gateway_ike::endpoint::SaStatus;
use gateway_ike::output::{ChildId, Event, EventKind};
use gateway_vici::Section;

use super::Agent;
use super::answers::ike_sa;
use crate::vici::{Happened, ike_section};

impl Agent {
    /// Tells the clients of the VICI socket.
    pub(super) fn tell_vici(&self, now: Instant, event: &Event) {
        if !self.hub.has_listeners() {
            return;
        }
        let reason = match &event.kind {
            EventKind::ExchangeFailed { reason } | EventKind::IkeSaClosed { reason } => {
                Some(reason.clone())
            }
            _ => None,
        };
        let (name, message) = match &event.kind {
            EventKind::IkeSaEstablished { .. } => match self.predecessor(now, event) {
                Some(old) => ("ike-rekey", self.ike_rekeyed(now, event, old)),
                None => ("ike-updown", self.updown(now, event, true, None)),
            },
            // It goes on under its successor, which has been told of.
            EventKind::IkeSaClosed { .. } if self.is_replaced(now, event) => return,
            EventKind::IkeSaClosed { .. } => ("ike-updown", self.updown(now, event, false, None)),
            EventKind::ChildSaInstalled {
                child,
                replaces: None,
            } => ("child-updown", self.updown(now, event, true, Some(child))),
            EventKind::ChildSaInstalled {
                child,
                replaces: Some(old),
            } => ("child-rekey", self.rekeyed(now, event, old, child)),
            EventKind::ChildSaRemoved { child, .. } => {
                ("child-updown", self.updown(now, event, false, Some(child)))
            }
            // Only those who wait for an order want it.
            EventKind::ExchangeFailed { .. } => ("", Section::new()),
            EventKind::DatagramDropped { .. } => return,
        };
        self.hub.tell(Happened {
            name,
            connection: event.connection.clone(),
            reason,
            message,
        });
    }

    fn updown(&self, now: Instant, event: &Event, up: bool, child: Option<&ChildId>) -> Section {
        let children = match child {
            Some(child) => vec![*child],
            None => Vec::new(),
        };
        let section = self.about(now, event, &children, child.is_none());
        Section::new()
            .with_some("up", up.then_some("yes"))
            .with_section(event.connection.as_deref().unwrap_or_default(), section)
    }

    fn rekeyed(&self, now: Instant, event: &Event, old: &ChildId, new: &ChildId) -> Section {
        let section = self.about(now, event, &[*old, *new], false);
        Section::new().with_section(event.connection.as_deref().unwrap_or_default(), section)
    }

    /// What the IKE SA of an event was made from by rekeying.
    fn predecessor(&self, now: Instant, event: &Event) -> Option<[u8; 8]> {
        self.node.record(now, event.local_spi?)?.predecessor
    }

    fn is_replaced(&self, now: Instant, event: &Event) -> bool {
        let record = event.local_spi.and_then(|spi| self.node.record(now, spi));
        record.is_some_and(|record| record.replaced)
    }

    fn ike_rekeyed(&self, now: Instant, event: &Event, old: [u8; 8]) -> Section {
        let before = Event {
            local_spi: Some(old),
            ..event.clone()
        };
        let both = Section::new()
            .with_section("old", self.about(now, &before, &[], true))
            .with_section("new", self.about(now, event, &[], true));
        Section::new().with_section(event.connection.as_deref().unwrap_or_default(), both)
    }

    /// The IKE SA, with those of its children that are meant, or all.
    fn about(&self, now: Instant, event: &Event, children: &[ChildId], all: bool) -> Section {
        let found = event.local_spi.and_then(|spi| self.node.sa(now, spi));
        let Some((owner, status)) = found else {
            return gone(event, children);
        };
        let owner = owner.map_or(0, gateway_common::member::MemberId::get);
        let info = ike_sa(&status, owner, now, &std::collections::BTreeMap::new());
        let wanted = |status: &SaStatus, spi_in: &str| {
            all || children.iter().any(|child| {
                let spi = format!("{:08x}", u32::from_be_bytes(child.spi_in));
                spi == spi_in && child.local == status.local.ip()
            })
        };
        let chosen: Vec<_> = info
            .children
            .iter()
            .filter(|child| wanted(&status, &child.spi_in))
            .collect();
        ike_section(&info, owner == self.config.cluster.local.get(), &chosen)
    }
}

/// It is gone already: what the event itself says.
fn gone(event: &Event, children: &[ChildId]) -> Section {
    let spi = event.local_spi.map(u64::from_be_bytes);
    let host = |ours: bool| {
        event.path.map(|path| {
            let end = if ours { path.local } else { path.remote };
            end.ip()
        })
    };
    let all = children.iter().fold(Section::new(), |all, child| {
        let id = u32::from_be_bytes(child.spi_in);
        let section = Section::new()
            .with("uniqueid", id)
            .with("state", "DELETED")
            .with("protocol", "ESP")
            .with("spi-in", format!("{id:08x}"));
        all.with_section(&id.to_string(), section)
    });
    Section::new()
        .with_some("uniqueid", spi.map(|spi| spi & 0xffff_ffff))
        .with("version", 2)
        .with("state", "DELETING")
        .with_some("local-host", host(true))
        .with_some("remote-host", host(false))
        .with_section("child-sas", all)
}
