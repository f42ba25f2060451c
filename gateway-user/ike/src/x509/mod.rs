//! X.509 certificates and CRLs as IKE uses them (RFC 5280, RFC 4945).
//!
//! Parsing is total and bounded: nothing here panics, and memory is a small multiple of the octets
//! parsed, at most [`MAX_CERTIFICATE_LEN`] for a certificate. Nothing is verified by parsing; that
//! is what [`path`] does, with a [`crate::crypto::CryptoProvider`] and a time of day from outside.

mod certificate;
mod crl;
mod extensions;
mod name;
pub mod path;

pub use self::certificate::Certificate;
pub use self::crl::Crl;
pub use self::extensions::AltName;
pub use self::name::{DnPattern, Name, NameError};

/// Most octets of a certificate that we look at. Real ones have one or two thousand; a few
/// hundred names or a post-quantum key make more.
pub const MAX_CERTIFICATE_LEN: usize = 16 * 1024;

/// Octets that are no certificate, or no CRL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// More than [`MAX_CERTIFICATE_LEN`] octets.
    #[error("{0} octets are too long for a certificate; at most {MAX_CERTIFICATE_LEN} are read")]
    TooLong(usize),
    /// Not the DER of one.
    #[error("malformed {what}: {cause}")]
    Malformed {
        /// Of what.
        what: &'static str,
        /// The decoder's words.
        cause: String,
    },
}

impl X509Error {
    fn malformed(what: &'static str) -> impl Fn(der::Error) -> Self {
        move |error| Self::Malformed {
            what,
            cause: error.kind().to_string(),
        }
    }
}

/// Octets in hexadecimal, for messages.
fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
