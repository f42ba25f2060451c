//! Pre-shared keys: the Shared Key Message Integrity Code (RFC 7296 §2.15).

use super::{AuthContext, Proof, denied};
use crate::error::IkeError;
use crate::identity::Identity;
use crate::keys::{psk_auth, verify_psk_auth};
use crate::secret::SecretBytes;
use crate::wire::{AuthMethod, IdRepr};

impl AuthContext<'_> {
    /// Our AUTH data; `remote_id` is `None` if whoever answers will do.
    pub(super) fn prove_by_psk(
        &self,
        local_id: &Identity,
        remote_id: Option<&Identity>,
    ) -> Result<Proof, IkeError> {
        let secret = self.secret(local_id, remote_id)?;
        let (kind, data) = local_id.to_payload();
        let id_body = IdRepr::new(kind, &data).rest_of_payload();
        let covered = self.covered(self.role, &id_body);
        let data = psk_auth(&*self.core.crypto, self.prf, secret, covered);
        Ok(Proof::new(AuthMethod::SHARED_KEY, data))
    }

    /// Judges the peer's AUTH data; `id` is its ID payload as received.
    pub(super) fn verify_psk(
        &self,
        local_id: &Identity,
        remote_id: &Identity,
        id: &IdRepr<'_>,
        data: &[u8],
    ) -> Result<(), IkeError> {
        let secret = self.secret(local_id, Some(remote_id))?;
        let id_body = id.rest_of_payload();
        let covered = self.covered(self.peer_role(), &id_body);
        if verify_psk_auth(&*self.core.crypto, self.prf, secret, covered, data) {
            return Ok(());
        }
        Err(denied(format!(
            "{remote_id} used another pre-shared key than the one configured for {local_id} and it"
        )))
    }

    fn secret(
        &self,
        local_id: &Identity,
        remote_id: Option<&Identity>,
    ) -> Result<&SecretBytes, IkeError> {
        self.core.config.secret(local_id, remote_id).ok_or_else(|| {
            let remote = remote_id.map_or_else(|| "%any".to_owned(), Identity::to_string);
            denied(format!(
                "no pre-shared key configured for {local_id} and {remote}"
            ))
        })
    }
}
