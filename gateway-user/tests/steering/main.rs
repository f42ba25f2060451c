//! Steering against the running kernel. Every test has its own network namespace, mount namespace
//! and bpf file system. They need root and say so where they have to be skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod everywhere;
mod fence;
mod lab;
mod members;
mod pins;
mod preflight;
mod start;
mod traffic;
mod wire;
