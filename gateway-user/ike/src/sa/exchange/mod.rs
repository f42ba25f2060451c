//! The exchanges, one file each, responder side.

mod auth;
mod child;
pub(crate) mod decision;
mod follow_up;
mod informational;
pub(crate) mod init;
pub(crate) mod intermediate;
mod rekey;

use crate::crypto::KeyExchangeMethod;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PolicyError};
use crate::secret::SecretBytes;
use crate::wire::KeRepr;

/// Our half of a key exchange under an IKE SA: g^ir and our public value.
///
/// # Errors
/// INVALID_KE_PAYLOAD unless the peer's KE payload is of `method` (RFC 7296 §1.3: "the responder
/// MUST reject the request and indicate its preferred Diffie-Hellman group").
pub(super) fn agree_on(
    core: &Core,
    method: KeyExchangeMethod,
    ke: Option<KeRepr<'_>>,
) -> Result<(SecretBytes, Vec<u8>), IkeError> {
    let got = ke.map_or(0, |ke| ke.method);
    let Some(ke) = ke.filter(|ke| ke.method == method.transform_id()) else {
        return Err(PolicyError::InvalidKePayload {
            got,
            wanted: method,
        }
        .into());
    };
    let ours = core.crypto.answer_key_exchange(method, ke.data)?;
    Ok((ours.shared, ours.public))
}
