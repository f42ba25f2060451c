//! Who decides, beside the engine, whether a peer is let in.

use std::time::Duration;

/// Somebody outside decides whether a peer that has proved who it is may have an IKE SA: a peer
/// that begins is not answered before ([`crate::output::Output::Decide`]). What we begin ourselves
/// is wanted, and nobody is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authorization {
    /// Who is asked, in the driver's words; stands in the question and in refusals.
    pub by: String,
    /// How long the driver waits for the answer. The engine itself refuses a peer whose
    /// negotiation is older than [`crate::config::Limits::half_open_timeout`].
    pub patience: Duration,
}
