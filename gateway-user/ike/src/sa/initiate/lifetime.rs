//! What an IKE SA waits for: retries, lifetimes, silence.

use gateway_common::time::Instant;

use super::super::clock::{Clock, jitter};
use super::{Established, IkeSa, Step, Task};
use crate::endpoint::core::Core;
use crate::record::ChildState;

impl IkeSa {
    /// Tries again later.
    pub(super) fn defer(&mut self, core: &mut Core, now: Instant, task: Task) {
        let delay = core.config.limits.retry_delay;
        let at = now + delay + jitter(&*core.crypto, delay / 2);
        let Some(established) = self.established_mut() else {
            return;
        };
        established.deferred.push((at, task));
        self.wait_for_deferred(core);
    }

    pub(super) fn wait_for_deferred(&mut self, core: &mut Core) {
        let next = self
            .established()
            .and_then(|e| e.deferred.iter().map(|(at, _)| *at).min());
        match next {
            Some(at) => self.set_clock(core, Clock::Retry, at),
            None => self.stop_clock(core, Clock::Retry),
        }
    }

    /// One of the deadlines has come.
    pub(crate) fn clock_due(&mut self, core: &mut Core, now: Instant, clock: Clock) -> Step {
        self.stop_clock(core, clock);
        match clock {
            Clock::Retransmit => return self.retransmit(core, now),
            Clock::Install => return self.install_timeout(core, now),
            Clock::Replaced => return self.terminate(),
            Clock::Expire => return self.terminate_failed(),
            Clock::Reauthenticate => return Step::Reauthenticate,
            Clock::Rekey => self.add_task(Task::RekeyIke),
            Clock::Retry => {
                if let Some(established) = self.established_mut() {
                    let (due, later) = std::mem::take(&mut established.deferred)
                        .into_iter()
                        .partition(|(at, _)| *at <= now);
                    established.deferred = later;
                    let due: Vec<(Instant, Task)> = due;
                    established
                        .tasks
                        .extend(due.into_iter().map(|(_, task)| task));
                }
                self.wait_for_deferred(core);
            }
            Clock::FollowUp => self.follow_ups_overdue(core, now),
            Clock::Idle => self.idle(core, now),
            Clock::Reassembly => self.discard_fragments(core),
            Clock::Keepalive => self.keep_alive(core, now),
        }
        Step::Waiting
    }

    /// RFC 7296 §2.4: the peer has been silent; or it has not, and the clock starts anew.
    fn idle(&mut self, core: &mut Core, now: Instant) {
        let Some(established) = self.established() else {
            return;
        };
        let delay = established.connection.dpd_delay;
        let heard = established.heard_at;
        if now.saturating_since(heard) >= delay {
            self.add_task(Task::Liveness);
            self.set_clock(core, Clock::Idle, now + delay);
        } else {
            self.set_clock(core, Clock::Idle, heard + delay);
        }
    }

    /// Starts the clocks of a new IKE SA, or of one that came from a record.
    pub(crate) fn start_clocks(&mut self, core: &mut Core, now: Instant) {
        let Some(established) = self.established() else {
            return;
        };
        let dpd = established.connection.dpd_delay;
        let (replaced, closing) = (established.replaced, established.closing);
        let (rekey_at, expires_at) = (established.rekey_at, established.expires_at);
        let reauth_at = established.reauth_at;
        let outstanding = established.outstanding.is_some();
        let owed = !established.unwanted.is_empty()
            || established
                .children
                .iter()
                .any(|child| child.state == ChildState::Closing);
        self.start_keepalives(core, now);
        self.watch_follow_ups(core);
        if let Some(at) = rekey_at.filter(|_| !replaced) {
            self.set_clock(core, Clock::Rekey, at);
        }
        if let Some(at) = reauth_at.filter(|_| !replaced) {
            self.set_clock(core, Clock::Reauthenticate, at);
        }
        if let Some(at) = expires_at {
            self.set_clock(core, Clock::Expire, at);
        }
        if !dpd.is_zero() {
            self.set_clock(core, Clock::Idle, now + dpd);
        }
        if replaced && !closing {
            if let Some(established) = self.established_mut() {
                established.replaced_since.get_or_insert(now);
            }
            let timeout = core.config.limits.replaced_timeout;
            self.set_clock(core, Clock::Replaced, now + timeout);
        }
        if outstanding {
            self.set_clock(core, Clock::Retransmit, now);
        }
        self.catch_up();
        if owed {
            self.add_task(Task::CloseChildren);
        }
        if closing {
            self.add_task(Task::CloseIke);
        }
    }
}

impl Established {
    /// Lifetimes of a new IKE SA. Jitter keeps the two sides from rekeying at the same time
    /// (RFC 7296 §2.8).
    pub(in crate::sa) fn set_lifetimes(&mut self, core: &Core, now: Instant) {
        let connection = &self.connection;
        let rekey_time = connection.rekey_time;
        if !rekey_time.is_zero() {
            let early = jitter(&*core.crypto, connection.rand_time);
            self.rekey_at = Some(now + rekey_time.saturating_sub(early));
            self.expires_at = Some(now + rekey_time + connection.over_time);
        }
        let reauth_time = connection.initiation.reauth_time;
        if !reauth_time.is_zero() {
            let early = jitter(&*core.crypto, connection.rand_time.min(reauth_time / 2));
            self.reauth_at = Some(now + reauth_time.saturating_sub(early));
        }
        self.end_after_reauthentication();
    }

    /// An IKE SA that should have been authenticated anew ends, as one that should have been
    /// rekeyed does.
    pub(in crate::sa) fn end_after_reauthentication(&mut self) {
        let connection = &self.connection;
        let grace = connection
            .over_time
            .max(connection.initiation.reauth_time / 10);
        if let Some(at) = self.reauth_at {
            let end = at + connection.rand_time + grace;
            self.expires_at = Some(self.expires_at.map_or(end, |other| other.min(end)));
        }
    }

    /// Names of children that are to be made from scratch, whether now or later.
    pub(in crate::sa) fn wanted_children(&self) -> Vec<String> {
        let later = self.deferred.iter().map(|(_, task)| task);
        let mut names: Vec<String> = self
            .tasks
            .iter()
            .chain(later)
            .filter_map(|task| match task {
                Task::CreateChild(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Takes out what concerns children, now or later.
    pub(in crate::sa) fn take_children_tasks(&mut self) -> Vec<Task> {
        let concerns = |task: &Task| {
            matches!(
                task,
                Task::CloseChildren | Task::RekeyChild(_) | Task::CreateChild(_)
            )
        };
        let mut taken: Vec<Task> = self.tasks.iter().filter(|t| concerns(t)).cloned().collect();
        self.tasks.retain(|task| !concerns(task));
        taken.extend(
            self.deferred
                .extract_if(.., |(_, task)| concerns(task))
                .map(|(_, task)| task),
        );
        taken
    }
}
