//! What becomes of tunnels that end, and of those that both sides make at the same time.

use std::cmp::Ordering;
use std::sync::Arc;

use gateway_common::time::Instant;

use super::super::{Endpoint, InitiateOrder};
use crate::config::{ChildConfig, CloseAction, DpdAction, Uniqueness};
use crate::endpoint::core::Core;
use crate::output::EventKind;
use crate::record::{IkeSaRecord, Role};
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
            by_packet: false,
            initial_contact: true,
            slot: Some(sa.slot),
        })
    }

    /// Whether the peer of this IKE SA has another one with the same identities that was made at
    /// the same time, each by its own side's initiative. One is enough: both sides choose the same,
    /// because both know the SPIs. Rekeyed ones do not count.
    pub(in crate::endpoint) fn settle_twins(&mut self, now: Instant, sa: &mut IkeSa) {
        for twin in self.twins(sa) {
            let loses = self
                .sas
                .get(&twin)
                .is_some_and(|twin| compare(sa, twin) == Ordering::Less);
            if loses {
                let children = sa.children_to_be();
                sa.yield_to_twin(&mut self.core);
                self.with_sa(now, twin, |twin, _| twin.want_children(&children));
                return;
            }
            let mut children: Vec<Arc<ChildConfig>> = Vec::new();
            self.with_sa(now, twin, |twin, core| {
                children = twin.children_to_be();
                twin.yield_to_twin(core);
            });
            sa.want_children(&children);
        }
    }

    /// The same for one that another member has, which judges it likewise.
    pub(in crate::endpoint) fn meet(&mut self, now: Instant, record: IkeSaRecord) {
        let elsewhere = IkeSa::import(&self.core.config, now, record);
        for twin in self.twins(&elsewhere) {
            let children = elsewhere.children_to_be();
            self.with_sa(now, twin, |twin, core| {
                if compare(twin, &elsewhere) == Ordering::Less {
                    twin.yield_to_twin(core);
                } else {
                    twin.want_children(&children);
                }
            });
        }
    }

    /// Our SPIs of those that were made at the same time as `sa`: each was established after the
    /// other was begun.
    pub(in crate::endpoint) fn twins(&self, sa: &IkeSa) -> Vec<[u8; 8]> {
        let (Some(established), Some(began)) = (sa.established(), sa.began) else {
            return Vec::new();
        };
        let name = &established.connection.name;
        if established.connection.unique == Uniqueness::Never || !sa.serves(name) {
            return Vec::new();
        }
        let is_twin = |spi: &[u8; 8]| {
            let other = self.sas.get(spi);
            let other = other.filter(|other| *spi != sa.local_spi && other.role != sa.role);
            other.is_some_and(|other| {
                let since = other.established().map(|other| other.established_at);
                let before = other.began;
                other.serves(name)
                    && since.is_some_and(|since| since >= began)
                    && before.is_some_and(|before| established.established_at >= before)
            })
        };
        self.find(&established.local_id, &established.remote_id)
            .filter(is_twin)
            .collect()
    }
}

impl IkeSa {
    fn yield_to_twin(&mut self, core: &mut Core) {
        let reason = "both sides have initiated; the other IKE SA stays".to_owned();
        self.event(core, EventKind::ExchangeFailed { reason });
        self.terminate();
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
