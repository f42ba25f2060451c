//! The engine as initiator, against the engine as responder.

mod handshake;
mod link;
