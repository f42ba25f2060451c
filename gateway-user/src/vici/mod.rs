//! The VICI socket: strongSwan's control protocol, so that stock swanctl, exporters and scripts work
//! with this gateway.
//!
//! Every client has a task. Questions about SAs and orders go the way of the control socket
//! ([`crate::api`]); what clients load goes to the agent's loop as a [`Call`]. Events come from a
//! [`Hub`].

mod client;
mod commands;
mod hub;
mod log;
mod sas;
mod server;
mod show;
mod wait;

use gateway_vici::Section;
use tokio::sync::oneshot;

pub use hub::{Happened, Hub};
pub use log::LogLayer;
pub use sas::ike_section;
pub use server::{Baseline, Links, serve};

/// Default path of the socket.
pub const DEFAULT_SOCKET: &str = "/run/gateway/charon.vici";

/// A request about connections and credentials, on its way to the agent's loop.
pub struct Call {
    /// Name of the command, "load-conn" for example.
    pub command: String,
    /// Its arguments, which may be secret.
    pub message: Section,
    /// Where the answer goes: sections, or why there are none.
    pub reply: oneshot::Sender<Result<Vec<Section>, String>>,
}

#[cfg(test)]
mod tests;
