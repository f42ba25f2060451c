//! Between the words of the engine and those of the cluster core.

use gateway_cluster::change::{Change, Child, Identities, Mirror, Negotiation, Reserved, Sa};
use gateway_cluster::network::Network;
use gateway_cluster::secret::Secret;
use gateway_common::time::Instant;
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::identity::Identity;
use gateway_ike::output;
use gateway_ike::record::IkeSaRecord;

/// Routing zone of everything in this release.
const MAIN_ZONE: u32 = 0;

/// The engine's change as the members tell it to each other.
pub(crate) fn change(crypto: &dyn CryptoProvider, now: Instant, change: output::Change) -> Change {
    match change {
        output::Change::NegotiationOpened {
            peer_cookie,
            local_cookie,
            peer,
            expires,
        } => Change::NegotiationOpened {
            negotiation: Negotiation {
                local_cookie,
                peer_cookie,
                peer,
            },
            lifetime: expires - now,
        },
        output::Change::NegotiationClosed { local_cookie, .. } => {
            Change::NegotiationClosed { local_cookie }
        }
        output::Change::Upsert(record) => Change::SaUpsert(sa(crypto, &record)),
        output::Change::Removed { local_spi } => Change::SaRemoved { local_spi },
    }
}

/// An IKE message waits for everything but half-open negotiations of unknown peers. Those that we
/// begin ourselves are no flood, and their answers may reach any member.
pub(crate) fn mirror(change: &Change) -> Mirror {
    match change {
        Change::NegotiationOpened { negotiation, .. } if negotiation.peer_cookie == [0; 8] => {
            Mirror::Urgent
        }
        Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. } => Mirror::Background,
        _ => Mirror::Urgent,
    }
}

fn sa(crypto: &dyn CryptoProvider, record: &IkeSaRecord) -> Sa {
    Sa {
        local_spi: record.local_spi,
        children: record
            .children
            .iter()
            .map(|child| self::child(&child.sa))
            .collect(),
        // A tombstone is nobody's kin.
        identities: record.closed.is_none().then(|| identities(crypto, record)),
        record: Secret::new(record.encode().expose().to_vec()),
        ..Sa::default()
    }
}

/// Under which equal pairs of identities are equal: names compare without regard to case.
pub(crate) fn identities(crypto: &dyn CryptoProvider, record: &IkeSaRecord) -> Identities {
    identity_pair(crypto, &record.local_id, &record.remote_id)
}

/// The same for two identities.
pub(crate) fn identity_pair(
    crypto: &dyn CryptoProvider,
    local_id: &Identity,
    remote_id: &Identity,
) -> Identities {
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
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = crypto.sha256(&[&key]);
    digest
}

fn child(sa: &output::ChildSa) -> Child {
    let remote_nets = sa
        .remote_ts
        .iter()
        .flat_map(output::TrafficSelector::prefixes)
        .filter_map(|prefix| Network::new(MAIN_ZONE, prefix.address, prefix.len))
        .collect();
    Child {
        spi_in: sa.spi_in,
        vip: sa.local,
        spi_out: sa.spi_out,
        peer: sa.remote,
        remote_nets,
        reserved: Reserved::default(),
    }
}
