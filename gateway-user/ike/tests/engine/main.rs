//! The engine against an initiator that can also misbehave.

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub, dead_code)]
#[path = "../../../src/crypto/mod.rs"]
mod aws_lc;

mod admission;
mod algorithms;
mod auth;
mod children;
mod closing;
mod collisions;
mod config;
mod decision;
mod divided;
mod follow_up;
mod fragments;
mod gateway;
mod hand_over;
mod handshake;
mod hostile;
mod ike_rekey;
mod initiated;
mod initiator;
mod kill;
mod mobike;
mod network;
mod opening;
mod orders;
mod pair;
#[allow(dead_code)]
#[path = "../support/pki.rs"]
mod pki;
mod record;
mod redirect;
mod retransmission;
mod stray;
mod takeover;
mod transport;
