//! The cluster core, sans-IO: who owns which slot, who serves which negotiation and SA, and how
//! members keep each other informed.
//!
//! Every input is a method argument, time included ([`gateway_common::time::Instant`]); every effect
//! comes out as a value. No sockets, no clock, no randomness, and no iteration order that differs
//! from run to run.

pub mod change;
pub mod frame;
pub mod network;
pub mod ownership;
pub mod secret;
pub mod slot_map;
pub mod table;
