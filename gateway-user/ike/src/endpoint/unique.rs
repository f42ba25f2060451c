//! IKE SAs of the same two identities (RFC 7296 §2.4).

use gateway_common::time::Instant;

use super::Endpoint;
use crate::config::Uniqueness;
use crate::identity::Identity;
use crate::output::EventKind;
use crate::record::{Contact, IkeSaRecord};
use crate::sa::{Cause, IkeSa};

impl Endpoint {
    /// Our SPIs of the live IKE SAs between two identities, those that have a successor included:
    /// their slot is where another one of the same identities belongs.
    pub fn find(
        &self,
        local_id: &Identity,
        remote_id: &Identity,
    ) -> impl Iterator<Item = [u8; 8]> + '_ {
        let spis = self.by_identity.get(&pair_key(local_id, remote_id));
        spis.into_iter().flatten().copied()
    }

    /// Takes in what another member authenticated.
    pub(super) fn adopt(&mut self, now: Instant, record: IkeSaRecord) {
        let spi = record.local_spi;
        let contact = record.contact.unwrap_or(Contact::Further);
        self.import(now, record);
        self.decide(now, spi, contact);
    }

    /// Older IKE SAs of the same identities have been imported after this one was established.
    pub(super) fn decide(&mut self, now: Instant, spi: [u8; 8], contact: Contact) {
        if let Some(mut sa) = self.sas.remove(&spi) {
            sa.settle_contact();
            self.enforce_uniqueness(now, &mut sa, contact);
            self.settle_twins(now, &mut sa);
            self.keep(now, sa);
        }
    }

    /// Deals with older IKE SAs of the same identities. `sa` is not in the table.
    pub(super) fn enforce_uniqueness(&mut self, now: Instant, sa: &mut IkeSa, contact: Contact) {
        let Some(established) = sa.established() else {
            return;
        };
        let (policy, since) = (established.connection.unique, established.established_at);
        let Some(pair) = identity_pair(sa) else {
            return;
        };
        let mut others = self.by_identity.get(&pair).cloned().unwrap_or_default();
        others.remove(&sa.local_spi);
        // The decision may come late, when the peer has made newer ones.
        others.retain(|other| {
            let other = self.sas.get(other).and_then(|other| other.established());
            other.is_some_and(|other| other.established_at <= since)
        });
        // What both sides have made at the same time is dealt with otherwise: the peer did not know
        // of ours when it said that there is no other.
        let twins = self.twins(sa);
        others.retain(|other| !twins.contains(other));
        match policy {
            Uniqueness::Never => {}
            // RFC 7296 §2.4: the recipient MAY delete all others with the same identities without
            // waiting for a timeout.
            _ if contact == Contact::Initial => {
                for other in others {
                    if let Some(other) = self.sas.remove(&other) {
                        let why = (Cause::OurWill, "the peer made initial contact again");
                        self.close(now, other, why, None);
                    }
                }
            }
            Uniqueness::No => {}
            Uniqueness::Replace => {
                for other in others {
                    self.at_sa(now, other, |sa, _| sa.terminate());
                }
            }
            Uniqueness::Keep => {
                if !others.is_empty() {
                    let reason = "these identities have an IKE SA already".to_owned();
                    sa.event(&mut self.core, EventKind::ExchangeFailed { reason });
                    sa.terminate();
                }
            }
        }
    }

    /// Our SPIs of the IKE SAs of its identities, itself included.
    pub(super) fn kin(&self, sa: &IkeSa) -> impl Iterator<Item = [u8; 8]> + '_ {
        let pair = identity_pair(sa);
        let kin = pair.and_then(|pair| self.by_identity.get(&pair));
        kin.into_iter().flatten().copied()
    }

    pub(super) fn book_identity(&mut self, sa: &IkeSa) {
        if let Some(pair) = identity_pair(sa) {
            self.by_identity
                .entry(pair)
                .or_default()
                .insert(sa.local_spi);
        }
    }

    pub(super) fn forget_identity(&mut self, sa: &IkeSa) {
        if let Some(pair) = identity_pair(sa)
            && let Some(spis) = self.by_identity.get_mut(&pair)
        {
            spis.remove(&sa.local_spi);
            if spis.is_empty() {
                self.by_identity.remove(&pair);
            }
        }
    }
}

fn identity_pair(sa: &IkeSa) -> Option<Box<[u8]>> {
    let established = sa.established()?;
    Some(pair_key(&established.local_id, &established.remote_id))
}

/// A key for a pair of identities under which equal ones are equal: names compare without regard
/// to case.
fn pair_key(local_id: &Identity, remote_id: &Identity) -> Box<[u8]> {
    let mut key = Vec::new();
    for identity in [local_id, remote_id] {
        let (kind, mut data) = identity.to_payload();
        if matches!(identity, Identity::Fqdn(_) | Identity::Rfc822(_)) {
            data.make_ascii_lowercase();
        }
        key.push(kind.0);
        key.extend_from_slice(&data.len().to_be_bytes());
        key.extend_from_slice(&data);
    }
    key.into()
}
