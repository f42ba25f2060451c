//! IKE SAs that we initiate, until the peer is authenticated (RFC 7296 §1.2).
//!
//! [`ExpectInitResponse`] has sent IKE_SA_INIT and has neither keys nor the peer's SPI. A usable
//! response makes an [`IkeSa`] of it, in state [`ExpectAuthResponse`]: IKE_AUTH is sent. What
//! comes back makes that one established, or ends it. All of this is local to the member: a
//! takeover begins anew.

mod auth;
mod init;
mod intermediate;
mod resend;

use std::net::IpAddr;
use std::sync::Arc;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

pub(crate) use self::init::{ExpectInitResponse, Next};
pub(crate) use self::resend::Overdue;

use self::intermediate::Additional;
use self::resend::Resend;
use super::{IkeSa, Intermediate};
use crate::auth::Transcript;
use crate::config::{ChildConfig, Connection};
use crate::output::Path;
use crate::record::ChildOffer;

/// What an initiation is to bring about.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) connection: Arc<Connection>,
    /// The CHILD_SA that IKE_AUTH asks for.
    pub(crate) child: Option<Arc<ChildConfig>>,
    pub(crate) slot: Slot,
    pub(crate) path: Path,
    /// When the attempt began.
    pub(crate) began: Instant,
    /// No IKE SA between these two identities is known (RFC 7296 §2.4: INITIAL_CONTACT).
    pub(crate) initial_contact: bool,
    /// The gateway that has sent us to this one (RFC 5685).
    pub(crate) redirected_from: Option<IpAddr>,
}

/// What IKE_SA_INIT has left that authentication needs.
pub(crate) struct Negotiated {
    pub(crate) plan: Plan,
    transcript: Transcript,
}

/// IKE_AUTH is sent, or an additional key exchange before it.
pub(crate) struct ExpectAuthResponse {
    pub(crate) negotiated: Negotiated,
    /// The CHILD_SA that it asks for.
    offer: Option<ChildOffer>,
    /// What comes before IKE_AUTH (RFC 9242), …
    intermediate: Intermediate,
    /// … and what of it is outstanding.
    additional: Option<Additional>,
    message_id: u32,
    bytes: Box<[u8]>,
    resend: Resend,
}

impl IkeSa {
    /// The connection that it is initiated for, until the peer is authenticated.
    pub(crate) fn opening(&self) -> Option<&Plan> {
        match &self.state {
            super::State::ExpectAuthResponse(state) => Some(&state.negotiated.plan),
            _ => None,
        }
    }
}
