//! What the eBPF programs and the agent agree on.
//!
//! `no_std` and free of I/O: the layout of every map ([`abi`]), the identifiers of the cluster
//! ([`member`], [`slot`]), and a monotonic [`time::Instant`] that both sides read as nanoseconds.

#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod abi;
pub mod member;
pub mod slot;
pub mod time;
