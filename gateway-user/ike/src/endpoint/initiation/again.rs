//! What becomes of tunnels that end, and of those that both sides make at the same time.

use std::cmp::Ordering;
use std::sync::Arc;

use gateway_common::time::Instant;

use super::super::{Endpoint, InitiateOrder};
use crate::config::{ChildConfig, CloseAction, DpdAction, Uniqueness};
use crate::output::EventKind;
use crate::record::Role;
use crate::sa::{Cause, IkeSa};

impl Endpoint {
    /// The children of an IKE SA that ends which are to be made anew, as their configuration says.
    pub(in crate::endpoint) fn to_make_anew(
        &self,
        sa: &IkeSa,
        cause: Cause,
    ) -> Option<InitiateOrder> {
        let established = sa.established().filter(|_| sa.announced)?;
        let wanted = |child: &ChildConfig| match cause {
            Cause::OurWill => false,
            Cause::PeersWill => child.actions.close == CloseAction::Start,
            Cause::Failure => child.actions.dpd == DpdAction::Restart,
        };
        let children: Vec<String> = sa
            .children_in_use()
            .filter(|child| wanted(child))
            .map(|child| child.name.clone())
            .collect();
        if children.is_empty() || established.connection.destinations().is_empty() {
            return None;
        }
        Some(InitiateOrder {
            connection: established.connection.name.clone(),
            children,
            persistent: true,
            initial_contact: true,
            slot: Some(sa.slot),
        })
    }

    /// Whether the peer of this IKE SA has another one with the same identities that was made at
    /// the same time, each by its own side's initiative. One is enough: both sides choose the same,
    /// because both know the SPIs. `began`: when the first message of `sa` was sent or came.
    pub(in crate::endpoint) fn settle_twins(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        began: Instant,
    ) {
        for twin in self.twins(sa, began) {
            let loses = self
                .sas
                .get(&twin)
                .is_some_and(|twin| compare(sa, twin) == Ordering::Less);
            let reason = "both sides have initiated; the other IKE SA stays".to_owned();
            if loses {
                let children = sa.children_to_be();
                sa.event(&mut self.core, EventKind::ExchangeFailed { reason });
                sa.terminate();
                self.with_sa(now, twin, |twin, _| twin.want_children(&children));
                return;
            }
            let mut children: Vec<Arc<ChildConfig>> = Vec::new();
            self.with_sa(now, twin, |twin, core| {
                children = twin.children_to_be();
                twin.event(core, EventKind::ExchangeFailed { reason });
                twin.terminate();
            });
            sa.want_children(&children);
        }
    }

    /// Our SPIs of those that were made at the same time as `sa`.
    pub(in crate::endpoint) fn twins(&self, sa: &IkeSa, began: Instant) -> Vec<[u8; 8]> {
        let Some(established) = sa.established() else {
            return Vec::new();
        };
        if established.connection.unique == Uniqueness::Never {
            return Vec::new();
        }
        let is_twin = |spi: &[u8; 8]| {
            *spi != sa.local_spi
                && self.sas.get(spi).is_some_and(|other| {
                    other.role != sa.role
                        && other.serves(&established.connection.name)
                        && other
                            .established()
                            .is_some_and(|other| other.established_at >= began)
                })
        };
        self.find(&established.local_id, &established.remote_id)
            .filter(is_twin)
            .collect()
    }
}

/// By SPIs, the initiator's first, as both sides see them.
fn compare(a: &IkeSa, b: &IkeSa) -> Ordering {
    let spis = |sa: &IkeSa| match sa.role {
        Role::Initiator => (sa.local_spi, sa.remote_spi),
        Role::Responder => (sa.remote_spi, sa.local_spi),
    };
    spis(a).cmp(&spis(b))
}
