//! A sans-IO IKEv2 engine (RFC 7296) whose state can be exported, mirrored and resumed.
//!
//! No sockets, no clock, no randomness of its own: every input is an argument of
//! `Endpoint`, every effect is an [`output::Output`] value.

pub mod crypto;
pub mod output;
pub mod record;
pub mod secret;
