//! Post-quantum pre-shared keys (RFC 8784).

use super::{AuthContext, denied};
use crate::config::{Connection, Ppk};
use crate::error::IkeError;
use crate::keys::IkeKeys;
use crate::record::Role;
use crate::wire::{NotifyType, Payloads};

/// PPK_ID_FIXED (RFC 8784 §5.1).
const FIXED: u8 = 2;
/// PPK_ID_OPAQUE: octets that mean something to a back end.
const OPAQUE: u8 = 1;

/// With which keys the peer's AUTH is judged.
pub(super) enum Outcome<'a> {
    /// Those of the key exchange alone; the data are those of AUTH.
    Plain,
    /// With these, which have a PPK in them.
    Mixed(IkeKeys),
    /// Those of the key exchange alone, with this AUTH data instead (NO_PPK_AUTH).
    Fallback(&'a [u8]),
}

impl AuthContext<'_> {
    /// The PPK that we propose as initiator.
    ///
    /// # Errors
    /// We insist on one, and either we do not have it or the peer cannot do it.
    pub(super) fn proposed_ppk(&self, connection: &Connection) -> Result<Option<&Ppk>, IkeError> {
        let Some(policy) = &connection.auth.ppk else {
            return Ok(None);
        };
        let found = policy.id.as_ref().and_then(|id| self.find(id));
        if !self.transcript.announced.ppk {
            return refuse_if(policy.required, "the peer does not support PPKs");
        }
        match found {
            Some(ppk) => Ok(Some(ppk)),
            None => refuse_if(policy.required, "the PPK of ppk_id is not configured"),
        }
    }

    /// How the peer's AUTH has to be judged.
    ///
    /// # Errors
    /// There is no PPK that both have, and at least one side insists.
    pub(super) fn use_ppk<'a>(
        &self,
        connection: &Connection,
        payloads: &Payloads<'a>,
    ) -> Result<Outcome<'a>, IkeError> {
        let required = connection
            .auth
            .ppk
            .as_ref()
            .is_some_and(|policy| policy.required);
        let identity = payloads.notify(NotifyType::PPK_IDENTITY);
        if self.role == Role::Initiator {
            // RFC 8784 §3: with the notification the responder says that it used the PPK.
            return match (identity, self.proposed_ppk(connection)?) {
                (Some(_), Some(ppk)) => Ok(Outcome::Mixed(self.mix(ppk)?)),
                (None, Some(_)) if required => Err(denied(
                    "the peer did not use the PPK (ppk_required)".to_owned(),
                )),
                _ => Ok(Outcome::Plain),
            };
        }
        let Some(identity) = identity.filter(|_| self.transcript.announced.ppk) else {
            return if required {
                Err(denied("the peer uses no PPK (ppk_required)".to_owned()))
            } else {
                Ok(Outcome::Plain)
            };
        };
        let known = match identity.data.split_first() {
            Some((&(FIXED | OPAQUE), id)) => std::str::from_utf8(id)
                .ok()
                .filter(|id| accepts(connection, id))
                .and_then(|id| self.find(id)),
            _ => None,
        };
        if let Some(ppk) = known {
            return Ok(Outcome::Mixed(self.mix(ppk)?));
        }
        // RFC 8784 §3, Table 1.
        let fallback = payloads.notify(NotifyType::NO_PPK_AUTH);
        match fallback.filter(|_| !required) {
            Some(fallback) => Ok(Outcome::Fallback(fallback.data)),
            None => {
                let id = String::from_utf8_lossy(identity.data.get(1..).unwrap_or_default());
                Err(denied(format!(
                    "the PPK \"{}\" is not configured for connection {}, and {} insists on one",
                    id.escape_default(),
                    connection.name,
                    if required { "ppk_required" } else { "the peer" }
                )))
            }
        }
    }

    /// SK_d, SK_pi and SK_pr with the PPK in them (RFC 8784 §3).
    pub(super) fn mix(&self, ppk: &Ppk) -> Result<IkeKeys, IkeError> {
        let crypto = &*self.core.crypto;
        Ok(self.keys.with_ppk(crypto, self.prf, &ppk.secret)?)
    }

    fn find(&self, id: &str) -> Option<&Ppk> {
        self.core.config.ppks.iter().find(|ppk| ppk.id == id)
    }
}

/// PPK_IDENTITY's data.
pub(super) fn identity(ppk: &Ppk) -> Vec<u8> {
    let mut data = vec![FIXED];
    data.extend_from_slice(ppk.id.as_bytes());
    data
}

fn accepts(connection: &Connection, id: &str) -> bool {
    let policy = connection.auth.ppk.as_ref();
    policy.is_some_and(|policy| policy.id.as_ref().is_none_or(|only| only == id))
}

fn refuse_if<T>(required: bool, why: &str) -> Result<Option<T>, IkeError> {
    if required {
        return Err(denied(format!("{why} (ppk_required)")));
    }
    Ok(None)
}
