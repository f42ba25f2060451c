//! Events as log lines: one each, and the unauthenticated ones at most a few per second.

use std::time::Duration;

use gateway_cluster::membership;
use gateway_cluster::output::{self as cluster, Severity};
use gateway_common::time::Instant;
use gateway_ike::output::{Event, EventKind};

use crate::authorize::Decision;

/// Lines per second of one kind that anybody could have caused.
const LINES_PER_SECOND: u32 = 5;

/// Writes the engine's events to the log. Failed exchanges and dropped datagrams have a budget
/// each: a flood of garbage must not hide why a tunnel does not come up.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    failures: Budget,
    drops: Budget,
}

/// One line for an event of the cluster core.
pub(super) fn cluster(event: &cluster::Event) {
    match event.severity() {
        Severity::Info => tracing::info!("{event}"),
        Severity::Warning => tracing::warn!("{event}"),
    }
}

/// One line for a peer that somebody else lets in.
pub(super) fn let_in(decision: &Decision) {
    let Decision {
        question, reason, ..
    } = decision;
    let spi = format!("{:016x}", u64::from_be_bytes(question.handle.local_spi));
    let (connection, peer) = (&question.connection, question.path.remote.to_string());
    let (id, by) = (&question.remote_id, &question.authorization.by);
    let because = if reason.is_empty() { "" } else { ": " };
    tracing::info!(
        connection,
        peer,
        spi,
        "{id} is let in, by {by}{because}{reason}"
    );
}

/// One line for an event of the membership.
pub(super) fn membership(event: &membership::Event) {
    use membership::Event as E;
    match event {
        E::State {
            member,
            from,
            to,
            reason,
        } => tracing::info!(%member, "state {from} -> {to}: {reason}"),
        E::View {
            epoch,
            members,
            unsafe_takeover,
        } => {
            let majority = if *unsafe_takeover {
                ", without a majority"
            } else {
                ""
            };
            tracing::info!(%epoch, "view of members {members:?}{majority}");
        }
        E::Frozen { late } => tracing::warn!(
            "this member was stopped or starved for {} ms: it judges nobody until it has heard \
             the others",
            late.as_millis()
        ),
        E::Thawed => tracing::info!("this member follows the others again"),
        E::LeaseEnded(epoch) => tracing::warn!(
            %epoch,
            "no majority of the view acknowledges this member: it sends nothing any more"
        ),
        E::Restarted {
            member,
            incarnation,
        } => {
            tracing::info!(%member, run = format!("{:x}", incarnation.0), "member restarted");
        }
        E::ConfigDiffers(member) => {
            tracing::warn!(%member, "is configured differently in what has to be alike");
        }
        E::ColdStartWaits { heard } => tracing::warn!(
            "too few members to form a view without risk, only {heard:?} are heard \
             (`gatewayctl bootstrap` if the others serve nothing)"
        ),
        E::Refused { command, reason } => tracing::warn!("{command:?} refused: {reason}"),
    }
}

/// So many lines per second.
#[derive(Debug, Default)]
struct Budget {
    second: Instant,
    written: u32,
    suppressed: u64,
}

impl EventLog {
    /// One line for an event of the engine; `false` if there were too many of its kind.
    pub(super) fn write(&mut self, now: Instant, event: &Event) -> bool {
        let admitted = match &event.kind {
            EventKind::ExchangeFailed { .. } => self.failures.admits(now),
            EventKind::DatagramDropped { .. } => self.drops.admits(now),
            _ => true,
        };
        if admitted {
            line(event);
        }
        admitted
    }
}

fn line(event: &Event) {
    let spi = event
        .local_spi
        .map(|spi| format!("{:016x}", u64::from_be_bytes(spi)));
    let spi = spi.as_deref().unwrap_or("-");
    let connection = event.connection.as_deref().unwrap_or("-");
    let remote = event.path.map(|path| path.remote.to_string());
    let peer = remote.as_deref().unwrap_or("-");
    match &event.kind {
        EventKind::IkeSaEstablished { remote_id } => {
            tracing::info!(connection, peer, spi, "IKE SA established with {remote_id}");
        }
        EventKind::IkeSaClosed { reason } => {
            tracing::info!(connection, peer, spi, "IKE SA closed: {reason}");
        }
        EventKind::ChildSaInstalled { child, replaces } => {
            let inbound = u32::from_be_bytes(child.spi_in);
            let rekeyed = if replaces.is_some() { " (rekeyed)" } else { "" };
            tracing::info!(
                connection,
                peer,
                spi,
                "CHILD_SA {inbound:08x} installed{rekeyed}"
            );
        }
        EventKind::ChildSaRemoved { child, reason } => {
            let inbound = u32::from_be_bytes(child.spi_in);
            tracing::info!(
                connection,
                peer,
                spi,
                "CHILD_SA {inbound:08x} removed: {reason}"
            );
        }
        EventKind::ExchangeFailed { reason } => {
            tracing::warn!(connection, peer, spi, "{reason}");
        }
        EventKind::DatagramDropped { reason } => {
            tracing::info!(connection, peer, spi, "dropped: {reason}");
        }
    }
}

impl Budget {
    fn admits(&mut self, now: Instant) -> bool {
        if now - self.second >= Duration::from_secs(1) {
            if self.suppressed > 0 {
                tracing::info!("{} more lines like these were suppressed", self.suppressed);
            }
            *self = Self {
                second: now,
                ..Self::default()
            };
        }
        self.written += 1;
        let admitted = self.written <= LINES_PER_SECOND;
        self.suppressed += u64::from(!admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_datagrams_is_not_a_flood_of_lines() {
        let mut log = Budget::default();
        let second = |n: u64| Instant::from_nanos(n * 1_000_000_000);
        let admitted = (0..1000).filter(|_| log.admits(second(10))).count();
        assert_eq!(admitted, 5);
        assert_eq!(log.suppressed, 995);
        assert!(log.admits(second(11)));
    }
}
