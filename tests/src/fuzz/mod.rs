//! Bodies of the fuzz targets: one plain function per parser that faces a network.
//!
//! Each takes any octets and panics if a promise is broken: no panic in the parser itself, what
//! was parsed can be written and reads the same again, what does not verify stays shut.
//!
//! `tests/fuzz` is the cargo-fuzz package: it compiles this module in and makes a binary of every
//! function in [`TARGETS`]. `tests/tests/fuzz_corpus.rs` replays the committed corpora on the stable
//! toolchain. A new target is a function here, a line in [`TARGETS`], a file of two lines in
//! `tests/fuzz/fuzz_targets`, a `[[bin]]` in `tests/fuzz/Cargo.toml` and a corpus of its own.

pub(crate) mod endpoint;
mod frame;
mod input;
mod sync;
mod vici;
mod wire;
mod x509;

/// A fuzz target: its name, which is that of its binary and of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("ike_encapsulation", wire::encapsulation),
    ("ike_header", wire::header),
    ("ike_message", wire::message),
    ("ike_chain", wire::chain),
    ("ike_sa", wire::security_association),
    ("ike_ke", wire::key_exchange),
    ("ike_id", wire::identification),
    ("ike_cert", wire::certificate),
    ("ike_certreq", wire::certificate_request),
    ("ike_auth", wire::authentication),
    ("ike_nonce", wire::nonce),
    ("ike_notify", wire::notify),
    ("ike_delete", wire::delete),
    ("ike_ts", wire::traffic_selectors),
    ("ike_fragment", wire::fragment),
    ("ike_sk_open", wire::sk_open),
    ("x509_certificate", x509::certificate),
    ("x509_crl", x509::crl),
    ("x509_name", x509::name),
    ("endpoint", endpoint::endpoint),
    ("reassembly", endpoint::reassembly),
    ("record", endpoint::record),
    ("sync_frame", sync::frame),
    ("sync_peer", sync::peer),
    ("vici", vici::packet),
    ("frame", frame::frame),
    ("frame_mutated", frame::mutated),
];

/// Runs a target's body.
///
/// # Panics
///
/// If there is no such target, and if the body finds a promise broken.
pub fn run(name: &str, data: &[u8]) {
    let (_, body) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("no fuzz target {name}"));
    body(data);
}
