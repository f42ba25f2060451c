//! A SAD and SPD in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::SaKernel;
use super::error::XfrmError;
use super::event::XfrmEvent;
use super::replay::{Position, Seen, Standpoint};
use super::types::{Action, KeyCheck, Policy, PolicyKey, Replay, Request, Sa, SaId, SaState};

/// A kernel that only keeps books: requests succeed and fail as in the real one, nothing is ever
/// encrypted, and keys are not kept.
///
/// Clones share their state, so that a test can look at what the agent does.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sas: BTreeMap<SaId, Entry>,
    events: VecDeque<XfrmEvent>,
    policies: BTreeMap<PolicyKey, Policy>,
    failures: Vec<(usize, i32)>,
    requests: usize,
}

/// An SA, and what the kernel keeps of its events.
#[derive(Debug)]
struct Entry {
    state: SaState,
    event_every: u32,
    /// Numbers at the last event or move: (sent, received).
    told: (u64, u64),
}

impl Recording {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request after `skip` more ones fails with `errno` (positive), once.
    pub fn fail_after(&self, skip: usize, errno: i32) {
        let mut state = self.lock();
        let at = state.requests + skip;
        state.failures.push((at, errno));
    }

    /// Forgets failures that have not come yet.
    pub fn clear_failures(&self) {
        self.lock().failures.clear();
    }

    /// Does what the kernel does at a hard lifetime, or an operator's `ip xfrm state delete`:
    /// the SA is gone. Whether it was there.
    pub fn expire(&self, id: &SaId) -> bool {
        self.lock().sas.remove(id).is_some()
    }

    /// Counts a packet of `bytes` octets on an SA. Whether it was there.
    pub fn count(&self, id: &SaId, bytes: u64) -> bool {
        match self.lock().sas.get_mut(id) {
            Some(Entry { state, .. }) => {
                state.packets += 1;
                state.bytes += bytes;
                state.last_used_at = Some(unix_now());
                true
            }
            None => false,
        }
    }

    /// Uses up `packets` sequence numbers of an SA, sent and received ones, one by one as traffic
    /// does: with the events that the kernel makes of them. Whether it was there.
    pub fn advance(&self, id: &SaId, sent: u64, received: u64) -> bool {
        let mut state = self.lock();
        let State { sas, events, .. } = &mut *state;
        let Some(entry) = sas.get_mut(id) else {
            return false;
        };
        for step in 0..sent.max(received) {
            entry.state.sequence_out += u64::from(step < sent);
            entry.state.sequence_in += u64::from(step < received);
            events.extend(entry.event());
        }
        true
    }

    /// What [`super::Events`] would tell next.
    pub fn next_event(&self) -> Option<XfrmEvent> {
        self.lock().events.pop_front()
    }

    /// Requests so far, also refused ones.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder cannot leave the books half-written: each request is one
        // insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// As `xfrm_replay_notify` counts.
    fn event(&mut self) -> Option<XfrmEvent> {
        let (sent, received) = (self.state.sequence_out, self.state.sequence_in);
        let every = u64::from(self.event_every);
        let due = sent - self.told.0 >= every || received - self.told.1 >= every;
        if every == 0 || !due {
            return None;
        }
        self.told = (sent, received);
        Some(XfrmEvent::Replay {
            sa: self.state.id,
            sequence_out: sent,
            sequence_in: received,
        })
    }
}

impl State {
    fn apply(&mut self, request: &Request<'_>) -> Result<(), XfrmError> {
        let number = self.requests;
        self.requests += 1;
        let refused = |errno| Err(XfrmError::refused(request, errno, None));
        if let Some(at) = self.failures.iter().position(|&(n, _)| n == number) {
            let (_, errno) = self.failures.swap_remove(at);
            return refused(errno);
        }
        match *request {
            Request::NewSa(sa) => {
                sa.check()?;
                if self.sas.contains_key(&sa.id) {
                    return refused(libc::EEXIST);
                }
                self.sas.insert(
                    sa.id,
                    Entry {
                        state: recorded(sa),
                        event_every: sa.event_every,
                        told: sa.start.fitted(sa.replay),
                    },
                );
            }
            Request::UpdateSa(sa) => {
                sa.check()?;
                let Some(Entry { state, .. }) = self.sas.get_mut(&sa.id) else {
                    return refused(libc::ESRCH);
                };
                // The kernel changes no kind of encapsulation, only its ports.
                if state.encapsulation.is_some() != sa.encapsulation.is_some() {
                    return refused(libc::EINVAL);
                }
                state.encapsulation = sa.encapsulation;
                if sa.output_mark.is_some() || sa.if_id != 0 {
                    state.output_mark = sa.output_mark;
                    state.if_id = sa.if_id;
                }
                state.hard_lifetime_seconds = sa.hard_lifetime_seconds;
                state.quota = sa.quota;
            }
            Request::DeleteSa(id) => {
                if self.sas.remove(id).is_none() {
                    return refused(libc::ESRCH);
                }
            }
            Request::MoveSa(to) => {
                let Some(entry) = self.sas.get_mut(&to.id) else {
                    return refused(libc::ESRCH);
                };
                if entry.state.replay != to.replay {
                    return refused(libc::EINVAL);
                }
                entry.told = to.position.fitted(to.replay);
                (entry.state.sequence_out, entry.state.sequence_in) = entry.told;
                entry.state.seen = bitmap(to.replay, &to.position.seen);
            }
            Request::Pace(id, packets) => {
                let Some(entry) = self.sas.get_mut(id) else {
                    return refused(libc::ESRCH);
                };
                entry.event_every = packets;
            }
            Request::NewPolicy(policy) => {
                if self.policies.contains_key(&policy.key) {
                    return refused(libc::EEXIST);
                }
                self.put(policy);
            }
            Request::UpdatePolicy(policy) => self.put(policy),
            Request::DeletePolicy(key) => {
                if self.policies.remove(key).is_none() {
                    return refused(libc::ENOENT);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, policy: &Policy) {
        let mut policy = *policy;
        // The kernel normalizes prefixes when it compares; keep the books comparable.
        policy.key.selector.src = policy.key.selector.src.trunc();
        policy.key.selector.dst = policy.key.selector.dst.trunc();
        debug_assert!(!matches!(policy.action, Action::Protect(t) if t.reqid == 0));
        self.policies.insert(policy.key, policy);
    }
}

fn bitmap(replay: Replay, seen: &Seen) -> Seen {
    let words = replay.window.div_ceil(32).max(u32::from(!replay.esn));
    Seen::Bitmap((0..words as usize).map(|index| seen.word(index)).collect())
}

fn recorded(sa: &Sa) -> SaState {
    let (sequence_out, sequence_in) = sa.start.fitted(sa.replay);
    SaState {
        id: sa.id,
        src: sa.src,
        reqid: sa.reqid,
        encapsulation: sa.encapsulation,
        replay: sa.replay,
        output_mark: sa.output_mark,
        if_id: sa.if_id,
        hard_lifetime_seconds: sa.hard_lifetime_seconds,
        quota: sa.quota,
        packets: 0,
        bytes: 0,
        sequence_out,
        sequence_in,
        replays: 0,
        outside_window: 0,
        integrity_failures: 0,
        added_at: unix_now(),
        first_used_at: 0,
        last_used_at: None,
        seen: bitmap(sa.replay, &sa.start.seen),
        key: KeyCheck::of(sa),
    }
}

fn missing(id: &SaId) -> XfrmError {
    XfrmError::refused_operation(format!("query SA {id}"), libc::ESRCH, None)
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl SaKernel for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn apply(&mut self, requests: &[Request<'_>]) -> Vec<Result<(), XfrmError>> {
        let mut state = self.lock();
        requests.iter().map(|r| state.apply(r)).collect()
    }

    fn query_sa(&mut self, id: &SaId) -> Result<SaState, XfrmError> {
        let state = self.lock();
        let entry = state.sas.get(id).ok_or_else(|| missing(id))?;
        Ok(entry.state.clone())
    }

    fn standpoints(&mut self, ids: &[SaId]) -> Vec<Result<Standpoint, XfrmError>> {
        let state = self.lock();
        let of = |id| {
            let entry = state.sas.get(id).ok_or_else(|| missing(id))?;
            Ok(Standpoint {
                position: entry.state.position(),
                event_every: entry.event_every,
                timed: entry.event_every == 0,
            })
        };
        ids.iter().map(of).collect()
    }

    fn take_sa(&mut self, id: &SaId) -> Result<Position, XfrmError> {
        let position = self.query_sa(id)?.position();
        self.request(Request::DeleteSa(id))?;
        Ok(position)
    }

    fn dump_sas(&mut self) -> Result<Vec<SaState>, XfrmError> {
        Ok(self.lock().sas.values().map(|e| e.state.clone()).collect())
    }

    fn dump_policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        Ok(self.lock().policies.values().copied().collect())
    }
}
