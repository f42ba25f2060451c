//! Between a live IKE SA and its record.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;

use super::follow_up::Awaited;
use super::initiate::{Outstanding, Task};
use super::iv::IvSequence;
use super::reassembly::Incoming;
use super::window::Window;
use super::{Child, Established, IkeSa, State};
use crate::config::{Config, Connection};
use crate::output::ChildSa;
use crate::record::{ChildRecord, ChildState, IkeSaRecord};

impl Child {
    /// A child that the kernel has just confirmed.
    pub(super) fn installed(now: Instant, sa: ChildSa) -> Self {
        Self {
            installed_at: now,
            expires_at: now + lifetime(&sa),
            rekey_at: None,
            state: ChildState::Current,
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
            next_request: u32::try_from(established.next_request).unwrap_or(u32::MAX),
            expected_request: self.window.expected(),
            last_response: self.window.last().cloned(),
            outstanding: established
                .outstanding
                .as_ref()
                .map(|outstanding| outstanding.request.clone()),
            replaced: established.replaced,
            closing: established.closing,
            predecessor: established.predecessor,
            peer_syncs: established.peer_syncs,
            peer_synced: established.peer_synced,
            transport: self.transport.clone(),
            age: now.saturating_since(established.established_at),
            negotiated_in: self
                .began
                .map(|began| established.established_at.saturating_since(began)),
            rekey_after: established
                .rekey_at
                .map(|at| at.saturating_since(established.established_at)),
            reauth_after: established
                .reauth_at
                .map(|at| at.saturating_since(established.established_at)),
            expires_after: established
                .expires_at
                .map(|at| at.saturating_since(established.established_at)),
            wanted: established.wanted_children(),
            contact: established.contact,
            closed: None,
            children: established
                .children
                .iter()
                .map(|child| ChildRecord {
                    sa: child.sa.clone(),
                    age: child.age(now),
                    rekey_after: child
                        .rekey_at
                        .map(|at| child.age(now) + at.saturating_since(now)),
                    state: child.state,
                    unknown: child.unknown.clone(),
                })
                .collect(),
            follow_ups: established
                .follow_ups
                .iter()
                .map(|awaited| awaited.export(now))
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
                installed_at: now.before(child.age),
                // From what is left, not from when it began: that may be before our clock's zero.
                expires_at: now + lifetime(&child.sa).saturating_sub(child.age),
                rekey_at: left(now, child.rekey_after, child.age),
                state: child.state,
                sa: child.sa,
                unknown: child.unknown,
            })
            .collect();
        let mut established = Established::new(connection, record.local_id, record.remote_id, now);
        established.established_at = now.before(record.age);
        established.children = children;
        established.next_request = u64::from(record.next_request);
        established.replaced = record.replaced;
        established.closing = record.closing;
        established.predecessor = record.predecessor;
        established.contact = record.contact;
        established.resumed = true;
        established.peer_syncs = record.peer_syncs;
        established.peer_synced = record.peer_synced;
        established.rekey_at = left(now, record.rekey_after, record.age);
        established.reauth_at = left(now, record.reauth_after, record.age);
        established.expires_at = left(now, record.expires_after, record.age);
        established.follow_ups = record
            .follow_ups
            .into_iter()
            .map(|awaited| Awaited::import(now, awaited))
            .collect();
        established.unknown = record.unknown;
        established.outstanding = record
            .outstanding
            .map(|request| Box::new(Outstanding::resume(request)));
        established
            .tasks
            .extend(record.wanted.into_iter().map(Task::CreateChild));
        Self {
            local_spi: record.local_spi,
            remote_spi: record.remote_spi,
            role: record.role,
            slot: record.slot,
            path: record.path,
            nat: record.nat,
            announced: true,
            began: record
                .negotiated_in
                .map(|took| record.age.saturating_add(took))
                // What was before our clock's zero cannot be compared.
                .filter(|ago| ago.as_nanos() < u128::from(now.as_nanos()))
                .map(|ago| now.before(ago)),
            proposal: record.proposal,
            keys: record.keys,
            ivs: IvSequence::of(config, record.next_iv),
            window: Window::resume(record.expected_request, record.last_response),
            transport: record.transport,
            incoming: Incoming::default(),
            state: State::Established(Box::new(established)),
        }
    }
}

/// When something is due at age `after`, of which `age` has passed. What is overdue is due now.
fn left(now: Instant, after: Option<Duration>, age: Duration) -> Option<Instant> {
    after.map(|after| now + after.saturating_sub(age))
}

fn orphaned(record: &IkeSaRecord) -> Connection {
    Connection {
        name: record.connection.clone(),
        local_addrs: Vec::new(),
        remote_addrs: Vec::new(),
        proposals: Vec::new(),
        local_id: record.local_id.clone(),
        remote_id: crate::identity::IdentityPattern::Exactly(record.remote_id.clone()),
        auth: crate::config::Authentication::default(),
        children: Vec::new(),
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: crate::config::Uniqueness::default(),
        transport: crate::config::Transport::default(),
        initiation: crate::config::Initiation::default(),
    }
}
