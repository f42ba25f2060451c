//! A sans-IO IKEv2 engine (RFC 7296) whose state can be exported, mirrored and resumed.
//!
//! No sockets, no clock, no randomness of its own: every input is an argument of
//! `Endpoint`, every effect is an [`output::Output`] value.

mod auth;
pub mod config;
pub mod crypto;
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod keys;
pub mod mark;
pub mod output;
pub mod proposal;
pub mod record;
mod sa;
pub mod secret;
pub mod selector;
pub mod signature;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;
pub mod x509;

// The tests need a real library. Its provider lives in gateway-user, which depends on this crate:
// its source is compiled in, under the name by which it refers to us.
#[cfg(test)]
extern crate self as gateway_ike;
#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
