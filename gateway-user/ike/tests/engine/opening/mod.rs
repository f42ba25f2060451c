//! The engine as initiator, against the engine as responder.

mod additional;
mod certificates;
mod diagnosis;
mod handshake;
mod lifecycle;
pub(crate) mod link;
mod storm;
