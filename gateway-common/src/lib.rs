//! What the eBPF programs and the agent agree on.
//!
//! `no_std` and free of I/O: the layout of every map ([`abi`]), the identifiers of the cluster
//! ([`member`], [`slot`]), a monotonic [`time::Instant`] that both sides read as nanoseconds, and
//! the packet logic itself: reading ([`packet`]), routing ([`route`]), the verdicts of the four
//! programs ([`steer`]) and their reasons ([`reason`]).

#![cfg_attr(not(any(test, feature = "user", feature = "model")), no_std)]

pub mod abi;
pub mod member;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod packet;
pub mod reason;
pub mod route;
pub mod slot;
pub mod steer;
pub mod time;
