//! The cluster core, sans-IO: who owns which slot, who serves which negotiation and SA, and how
//! members keep each other informed.
//!
//! Every input is a method argument, time included ([`gateway_common::time::Instant`]); every effect
//! comes out as a value ([`output::Output`]). No sockets, no clock, no randomness, and no iteration
//! order that differs from run to run.
//!
//! [`Cluster`] is the whole of it: [`Cluster::publish`] announces what this member owns,
//! [`Cluster::handle_frame`] takes what the others announce, [`Cluster::route`] says who processes an
//! IKE datagram.

pub mod change;
mod cluster;
pub mod config;
mod feed;
pub mod frame;
mod half_open;
mod level;
pub mod membership;
mod moves;
pub mod network;
mod numbers;
mod outbox;
pub mod output;
pub mod ownership;
mod peer;
mod publish;
mod receive;
pub mod reservation;
pub mod route;
pub mod secret;
mod send;
pub mod slot_map;
pub mod slot_set;
mod snapshot;
pub mod status;
mod stream;
pub mod table;
mod timers;
pub mod view;
mod views;

pub use cluster::{Cluster, MAX_DATAGRAM};
pub use publish::PublishError;

#[cfg(test)]
mod tests;
