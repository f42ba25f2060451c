//! A SAD and SPD in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::SaKernel;
use super::error::XfrmError;
use super::types::{Action, Policy, PolicyKey, Request, Sa, SaId, SaState};

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
    sas: BTreeMap<SaId, SaState>,
    policies: BTreeMap<PolicyKey, Policy>,
    failures: Vec<(usize, i32)>,
    requests: usize,
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
            Some(sa) => {
                sa.packets += 1;
                sa.bytes += bytes;
                sa.last_used_at = Some(unix_now());
                true
            }
            None => false,
        }
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
                self.sas.insert(sa.id, recorded(sa));
            }
            Request::UpdateSa(sa) => {
                sa.check()?;
                let Some(state) = self.sas.get_mut(&sa.id) else {
                    return refused(libc::ESRCH);
                };
                state.encapsulation = sa.encapsulation;
                state.output_mark = sa.output_mark;
                state.if_id = sa.if_id;
                state.hard_lifetime_seconds = sa.hard_lifetime_seconds;
            }
            Request::DeleteSa(id) => {
                if self.sas.remove(id).is_none() {
                    return refused(libc::ESRCH);
                }
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

fn recorded(sa: &Sa) -> SaState {
    SaState {
        id: sa.id,
        src: sa.src,
        reqid: sa.reqid,
        encapsulation: sa.encapsulation,
        replay: sa.replay,
        output_mark: sa.output_mark,
        if_id: sa.if_id,
        hard_lifetime_seconds: sa.hard_lifetime_seconds,
        packets: 0,
        bytes: 0,
        sequence_out: 0,
        sequence_in: 0,
        replays: 0,
        outside_window: 0,
        integrity_failures: 0,
        added_at: unix_now(),
        first_used_at: 0,
        last_used_at: None,
    }
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
        self.lock().sas.get(id).cloned().ok_or_else(|| {
            XfrmError::refused_operation(format!("query SA {id}"), libc::ESRCH, None)
        })
    }

    fn dump_sas(&mut self) -> Result<Vec<SaState>, XfrmError> {
        Ok(self.lock().sas.values().cloned().collect())
    }

    fn dump_policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        Ok(self.lock().policies.values().copied().collect())
    }
}
