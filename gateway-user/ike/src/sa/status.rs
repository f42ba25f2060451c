//! What operators see.

use super::IkeSa;
use crate::endpoint::{ChildStatus, SaStatus};
use crate::proposal::{AdditionalKes, EspProposal};
use crate::record::Role;

impl IkeSa {
    /// `None` until it is established.
    pub(crate) fn status(&self) -> Option<SaStatus> {
        let established = self.established().filter(|_| self.announced)?;
        let children = established
            .children
            .iter()
            .map(|child| ChildStatus {
                name: child.sa.name.clone(),
                spi_in: child.sa.spi_in,
                spi_out: child.sa.spi_out,
                proposal: EspProposal {
                    encryption: child.sa.encryption,
                    ke: None,
                    additional: AdditionalKes::NONE,
                    esn: child.sa.esn,
                }
                .iana(),
                local_ts: child.sa.local_ts.clone(),
                remote_ts: child.sa.remote_ts.clone(),
                marks: child.sa.marks,
                encap: child.sa.encap.is_some(),
                installed_at: child.installed_at,
                rekey_at: child.rekey_at,
                expires_at: child.expires_at,
            })
            .collect();
        Some(SaStatus {
            connection: established.connection.name.clone(),
            local_spi: self.local_spi,
            remote_spi: self.remote_spi,
            slot: self.slot,
            local: self.path.local,
            remote: self.path.remote,
            local_id: established.local_id.to_string(),
            remote_id: established.remote_id.to_string(),
            proposal: self.proposal.iana(),
            established_at: established.established_at,
            nat: self.nat.any(),
            initiator: self.role == Role::Initiator,
            rekey_at: established.rekey_at,
            reauth_at: established.reauth_at,
            children,
        })
    }
}
