//! Between a live IKE SA and its record.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;

use super::iv::IvSequence;
use super::window::Window;
use super::{Child, Established, IkeSa, State};
use crate::config::{Config, Connection};
use crate::output::ChildSa;
use crate::record::{ChildRecord, IkeSaRecord};

impl Child {
    /// A child that the kernel has just confirmed.
    pub(super) fn installed(now: Instant, sa: ChildSa) -> Self {
        Self {
            installed_at: now,
            expires_at: now + lifetime(&sa),
            sa,
            unknown: Vec::new(),
        }
    }

    fn age(&self, now: Instant) -> Duration {
        lifetime(&self.sa).saturating_sub(self.expires_at.saturating_since(now))
    }
}

fn lifetime(sa: &ChildSa) -> Duration {
    Duration::from_secs(sa.hard_lifetime_seconds)
}

impl IkeSa {
    /// Everything that another member needs to go on; `None` before authentication. A CHILD_SA that
    /// the kernel has not confirmed yet is not in it: its exchange was never answered.
    pub(crate) fn export(&self, now: Instant) -> Option<IkeSaRecord> {
        let established = self.established()?;
        Some(IkeSaRecord {
            local_spi: self.local_spi,
            remote_spi: self.remote_spi,
            role: self.role,
            slot: self.slot,
            connection: established.connection.name.clone(),
            local_id: established.local_id.clone(),
            remote_id: established.remote_id.clone(),
            path: self.path,
            nat: self.nat,
            proposal: self.proposal,
            keys: self.keys.clone(),
            next_iv: self.ivs.position(),
            next_request: established.next_request,
            expected_request: self.window.expected(),
            last_response: self.window.last().cloned(),
            replaced: established.replaced,
            age: now.saturating_since(established.established_at),
            children: established
                .children
                .iter()
                .map(|child| ChildRecord {
                    sa: child.sa.clone(),
                    age: child.age(now),
                    unknown: child.unknown.clone(),
                })
                .collect(),
            unknown: established.unknown.clone(),
        })
    }

    /// An IKE SA that goes on from a record. The connection of that name may be gone from the
    /// configuration; then what exists goes on and nothing new is made.
    pub(crate) fn import(config: &Config, now: Instant, record: IkeSaRecord) -> Self {
        let connection = config
            .connection(&record.connection)
            .cloned()
            .unwrap_or_else(|| Arc::new(orphaned(&record)));
        let children = record
            .children
            .into_iter()
            .map(|child| Child {
                installed_at: earlier(now, child.age),
                // From what is left, not from when it began: that may be before our clock's zero.
                expires_at: now + lifetime(&child.sa).saturating_sub(child.age),
                sa: child.sa,
                unknown: child.unknown,
            })
            .collect();
        Self {
            local_spi: record.local_spi,
            remote_spi: record.remote_spi,
            role: record.role,
            slot: record.slot,
            path: record.path,
            nat: record.nat,
            announced: true,
            proposal: record.proposal,
            keys: record.keys,
            ivs: IvSequence::resume(config.member, config.incarnation, record.next_iv),
            window: Window::resume(record.expected_request, record.last_response),
            state: State::Established(Box::new(Established {
                connection,
                local_id: record.local_id,
                remote_id: record.remote_id,
                established_at: earlier(now, record.age),
                children,
                pending: None,
                next_request: record.next_request,
                replaced: record.replaced,
                unknown: record.unknown,
            })),
        }
    }
}

/// A monotonic clock starts at boot: what is older than that becomes as old as it.
fn earlier(now: Instant, age: Duration) -> Instant {
    Instant::from_nanos(0)
        + now
            .saturating_since(Instant::from_nanos(0))
            .saturating_sub(age)
}

fn orphaned(record: &IkeSaRecord) -> Connection {
    Connection {
        name: record.connection.clone(),
        local_addrs: Vec::new(),
        remote_addrs: Vec::new(),
        proposals: Vec::new(),
        local_id: record.local_id.clone(),
        remote_id: crate::identity::IdentityPattern::Exactly(record.remote_id.clone()),
        children: Vec::new(),
    }
}
