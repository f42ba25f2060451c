//! The replicated state of one IKE SA.

/// Everything a takeover needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSaRecord {}
