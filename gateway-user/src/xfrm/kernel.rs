//! The real SAD and SPD.

use std::fmt;

use super::SaKernel;
use super::error::XfrmError;
use super::parse;
use super::query::LastWords;
use super::replay::{Position, Seen, Standpoint};
use super::socket::{BATCH, Outcome, Socket};
use super::types::{Policy, Request, SaId, SaState};
use super::uapi::msg;

/// More numbers than an SA can use between a question and its deletion, some ten microseconds.
const UNHEARD: u64 = 1 << 16;

/// The kernel's SAD and SPD, over a netlink socket of its own.
///
/// Works in the network namespace of the thread that opened it, from any thread. Needs
/// CAP_NET_ADMIN there.
pub struct Xfrm {
    socket: Socket,
    last_words: LastWords,
    overruns: u64,
}

impl fmt::Debug for Xfrm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xfrm")
    }
}

impl Xfrm {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no XFRM (CONFIG_XFRM_USER).
    pub fn open() -> Result<Self, XfrmError> {
        Ok(Self {
            socket: Socket::open()?,
            last_words: LastWords::open()?,
            overruns: 0,
        })
    }

    /// The socket, to make it small.
    #[cfg(test)]
    pub(super) fn descriptor(&self) -> &std::os::fd::OwnedFd {
        self.socket.descriptor()
    }

    /// How often the receive buffer ran over since the socket was opened.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Sends the requests that are valid; outcomes by position, `None` = lost.
    fn exchange(&mut self, requests: &[Request<'_>]) -> Vec<Result<(), XfrmError>> {
        let outcomes = match self.socket.exchange(requests) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // The caller has to know for each request; only the first gets the cause itself.
                let mut results: Vec<_> = requests
                    .iter()
                    .map(|r| Err(XfrmError::refused(r, libc::EIO, None)))
                    .collect();
                if let Some(first) = results.first_mut() {
                    *first = Err(error);
                }
                return results;
            }
        };
        let lost = outcomes.iter().any(Option::is_none);
        let seen = if lost { self.look() } else { None };
        requests
            .iter()
            .zip(outcomes)
            .map(|(request, outcome)| match outcome {
                Some(outcome) => result(request, outcome),
                None => resolve(request, seen.as_ref()),
            })
            .collect()
    }

    /// What stands in the kernel, to find out how requests ended whose answers were lost.
    fn look(&mut self) -> Option<Table> {
        self.overruns += 1;
        tracing::warn!("netlink receive buffer overrun: reading SAD and SPD again");
        Some(Table {
            sas: self.dump_sas().ok()?,
            policies: self.dump_policies().ok()?,
        })
    }
}

struct Table {
    sas: Vec<SaState>,
    policies: Vec<Policy>,
}

fn result(request: &Request<'_>, outcome: Outcome) -> Result<(), XfrmError> {
    outcome.map_err(|(errno, words)| XfrmError::refused(request, errno, words))
}

/// Success is what can be seen: a lost answer to a deletion of what never was counts as success,
/// and one to an installation that was refused for another reason reads ENOBUFS.
fn resolve(request: &Request<'_>, seen: Option<&Table>) -> Result<(), XfrmError> {
    let done = seen.is_some_and(|seen| match *request {
        Request::NewSa(sa) | Request::UpdateSa(sa) => seen
            .sas
            .iter()
            .any(|s| s.id == sa.id && s.reqid == sa.reqid && s.src == sa.src),
        Request::MoveSa(to) => {
            let (sent, received) = to.position.fitted(to.replay);
            seen.sas
                .iter()
                .any(|s| s.id == to.id && s.sequence_out >= sent && s.sequence_in >= received)
        }
        // What nothing shows did not happen.
        Request::Pace(..) => false,
        Request::DeleteSa(id) => !seen.sas.iter().any(|s| s.id == *id),
        Request::NewPolicy(policy) | Request::UpdatePolicy(policy) => {
            seen.policies.contains(policy)
        }
        Request::DeletePolicy(key) => !seen.policies.iter().any(|p| p.key == *key),
    });
    if done {
        return Ok(());
    }
    Err(XfrmError::refused(request, libc::ENOBUFS, None))
}

impl SaKernel for Xfrm {
    fn name(&self) -> &'static str {
        "xfrm"
    }

    fn apply(&mut self, requests: &[Request<'_>]) -> Vec<Result<(), XfrmError>> {
        let mut results: Vec<Result<(), XfrmError>> = requests
            .iter()
            .map(|request| match request {
                Request::NewSa(sa) | Request::UpdateSa(sa) => sa.check(),
                _ => Ok(()),
            })
            .collect();
        let valid: Vec<usize> = (0..requests.len())
            .filter(|&i| results[i].is_ok())
            .collect();
        for chunk in valid.chunks(BATCH) {
            let chunk_requests: Vec<Request<'_>> = chunk.iter().map(|&i| requests[i]).collect();
            for (&i, result) in chunk.iter().zip(self.exchange(&chunk_requests)) {
                results[i] = result;
            }
        }
        results
    }

    fn standpoints(&mut self, ids: &[SaId]) -> Vec<Result<Standpoint, XfrmError>> {
        let mut all = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(BATCH) {
            match self.socket.standpoints(chunk) {
                Ok(answers) => all.extend(answers),
                Err(error) => {
                    // Only the first gets the cause itself.
                    all.push(Err(error));
                    let unread = || Err(XfrmError::Protocol("replay states could not be read"));
                    all.extend(chunk.iter().skip(1).map(|_| unread()));
                }
            }
        }
        all
    }

    /// The kernel's notification tells exactly; without it, the state before the deletion and
    /// [`UNHEARD`] numbers more than anything can have sent since.
    fn take_sa(&mut self, id: &SaId) -> Result<Position, XfrmError> {
        let before = self.query_sa(id)?;
        self.last_words.listen()?;
        let deleted = self.request(Request::DeleteSa(id));
        let words = self.last_words.of(id);
        deleted?;
        if let Some(state) = words {
            return Ok(Position {
                sequence_out: state.sequence_out,
                sequence_in: state.sequence_in,
                seen: state.seen,
            });
        }
        tracing::warn!(sa = %id, "an SA went without its last words");
        Ok(Position {
            sequence_out: before.sequence_out.saturating_add(UNHEARD),
            sequence_in: before.sequence_in,
            seen: Seen::All,
        })
    }

    fn query_sa(&mut self, id: &SaId) -> Result<SaState, XfrmError> {
        self.socket.query(id, parse::sa)
    }

    fn dump_sas(&mut self) -> Result<Vec<SaState>, XfrmError> {
        self.socket.dump(msg::GETSA, parse::sa)
    }

    fn dump_policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        self.socket.dump(msg::GETPOLICY, parse::policy)
    }
}
