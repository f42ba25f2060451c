//! The kernel's SAD and SPD (XFRM).
//!
//! * [`SaKernel`] is the kernel as the agent sees it: SAs and policies, requests in batches.
//!   [`Xfrm`] speaks netlink to the real one, [`Recording`] keeps everything in memory with the
//!   same semantics, for kernels without ESP and for tests.
//! * [`Tunnels`] stands on top: it turns CHILD_SAs into SAs and policies, and knows who holds
//!   which policy when children overlap, are rekeyed or go.
//!   [`Tunnels::carry_out`] takes the node's operations: own children, standby copies of the other
//!   members' (in blocks of sequence numbers of their own), and moves of these, which pass a [`Gate`].
//! * [`Events`] tells what the kernel did on its own: hard lifetimes, and how many sequence numbers
//!   are used up. [`Tunnels::hear`] says what that means for the node.
//! * [`CryptoApi`] makes the kernel's algorithms ready before an SA needs them.
//! * [`bypass`] exempts the IKE sockets from all policies.
//!
//! The messages are written by this module and not by a netlink crate: the types there derive
//! `Debug` for raw keys, leave them in freed memory, and their transport logs what it cannot decode
//! in hex. Their encoder serves the tests as a second opinion.

mod adopt;
mod algorithms;
mod block;
pub mod bypass;
mod carry_out;
mod child;
mod copies;
mod error;
mod event;
mod gate;
mod generations;
mod installed;
mod kernel;
mod message;
mod parse;
mod path;
mod policies;
mod query;
mod recording;
mod replay;
mod reqid;
mod selector;
mod socket;
mod survey;
#[cfg(test)]
mod tests;
mod trap;
mod tunnels;
mod types;
mod uapi;
mod upkeep;

pub use algorithms::{CryptoApi, transform_name};
pub use block::Blocks;
pub use copies::{CopyMove, Moved};
pub use error::{Refusal, XfrmError};
pub use event::{
    ASK_AGAIN_SECONDS, EventStream, Events, XfrmEvent, ask_again_soon, quiet_defaults,
};
pub use gate::Gate;
pub use kernel::Xfrm;
pub use recording::Recording;
pub use replay::{
    EVENT_EVERY_IN, EVENT_EVERY_IN_STRICT, EVENT_EVERY_OUT, InboundPolicy, Move, Position, Seen,
    Standpoint,
};
pub use selector::{MAX_SELECTORS, PolicySelector, PortMatch};
pub use trap::{Trap, Trapped};
pub use tunnels::Tunnels;
pub use types::{
    Action, Direction, Encapsulation, KeyCheck, Policy, PolicyKey, Replay, Request, Sa, SaId,
    SaState, Template,
};
pub use upkeep::{ChildCounters, Reconciled};

/// A kernel's SAD and SPD.
///
/// Calls are synchronous: a netlink request is complete when `sendmsg` returns, and takes 10 to
/// 300 µs. The trait is object-safe; the agent holds a `Box<dyn SaKernel>`.
pub trait SaKernel: Send {
    /// `"xfrm"` or `"recording"`, as in the `kernel.backend` setting.
    fn name(&self) -> &'static str;

    /// Carries out `requests` in order and answers each one; one that fails does not stop the
    /// ones after it. The result has as many elements as `requests`.
    fn apply(&mut self, requests: &[Request<'_>]) -> Vec<Result<(), XfrmError>>;

    /// Counters and replay state of one SA.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such SA.
    fn query_sa(&mut self, id: &SaId) -> Result<SaState, XfrmError>;

    /// Where SAs stand, in the order of `ids`.
    fn standpoints(&mut self, ids: &[SaId]) -> Vec<Result<Standpoint, XfrmError>>;

    /// Deletes an SA and tells where it stood when nothing could use it any more: what is installed
    /// with the same key at that position continues it without a repetition or a gap.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such SA.
    fn take_sa(&mut self, id: &SaId) -> Result<Position, XfrmError>;

    /// All ESP tunnel SAs, also those that others installed.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    fn dump_sas(&mut self) -> Result<Vec<SaState>, XfrmError>;

    /// All main policies, also those that others installed; not those of sockets.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    fn dump_policies(&mut self) -> Result<Vec<Policy>, XfrmError>;

    /// One request.
    ///
    /// # Errors
    /// What the kernel answered.
    fn request(&mut self, request: Request<'_>) -> Result<(), XfrmError> {
        self.apply(&[request])
            .pop()
            .unwrap_or(Err(XfrmError::Protocol("no answer")))
    }

    /// Installs an SA.
    ///
    /// # Errors
    /// [`XfrmError::exists`] when the SPI is taken at that address.
    fn install_sa(&mut self, sa: &Sa) -> Result<(), XfrmError> {
        self.request(Request::NewSa(sa))
    }

    /// Changes what may change in an installed SA: ports of the encapsulation, output mark,
    /// interface id, lifetimes. Never keys, window, counters or reqid.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such SA.
    fn update_sa(&mut self, sa: &Sa) -> Result<(), XfrmError> {
        self.request(Request::UpdateSa(sa))
    }

    /// Puts an installed SA somewhere else, without a look at where it is: see [`Move`].
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such SA.
    fn move_sa(&mut self, to: &Move) -> Result<(), XfrmError> {
        self.request(Request::MoveSa(to))
    }

    /// Deletes an SA.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such SA.
    fn delete_sa(&mut self, id: &SaId) -> Result<(), XfrmError> {
        self.request(Request::DeleteSa(id))
    }

    /// Installs a policy.
    ///
    /// # Errors
    /// [`XfrmError::exists`] when one with the same key is there, whatever its priority.
    fn install_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.request(Request::NewPolicy(policy))
    }

    /// Puts a policy in the place of the one with the same key, in one step, or installs it.
    ///
    /// # Errors
    /// What the kernel answered.
    fn update_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.request(Request::UpdatePolicy(policy))
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when there is no such policy.
    fn delete_policy(&mut self, key: &PolicyKey) -> Result<(), XfrmError> {
        self.request(Request::DeletePolicy(key))
    }

    /// SAs and policies as JSON, for the labs. There is no key in it: [`SaState`] has none.
    ///
    /// # Errors
    /// When a dump fails.
    fn describe(&mut self) -> Result<serde_json::Value, XfrmError> {
        Ok(serde_json::json!({
            "backend": self.name(),
            "sas": self.dump_sas()?,
            "policies": self.dump_policies()?,
        }))
    }
}

impl SaKernel for Box<dyn SaKernel> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn apply(&mut self, requests: &[Request<'_>]) -> Vec<Result<(), XfrmError>> {
        (**self).apply(requests)
    }
    fn query_sa(&mut self, id: &SaId) -> Result<SaState, XfrmError> {
        (**self).query_sa(id)
    }
    fn standpoints(&mut self, ids: &[SaId]) -> Vec<Result<Standpoint, XfrmError>> {
        (**self).standpoints(ids)
    }
    fn take_sa(&mut self, id: &SaId) -> Result<Position, XfrmError> {
        (**self).take_sa(id)
    }
    fn dump_sas(&mut self) -> Result<Vec<SaState>, XfrmError> {
        (**self).dump_sas()
    }
    fn dump_policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        (**self).dump_policies()
    }
}
