//! Who asks, and what they may.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use crate::config::{RestAccess, Role};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A process of this host, by the kernel's word (`SO_PEERCRED`).
    Local {
        /// Its effective user id.
        uid: u32,
    },
    /// Somebody behind TLS.
    Remote {
        /// Where the connection comes from.
        address: std::net::SocketAddr,
        /// What the client's certificate says, if it showed one that our authority issued.
        certificate: Option<ClientCertificate>,
    },
}

/// What a verified client certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    /// SHA-256 of its DER encoding, lower-case hexadecimal digits.
    pub(super) fingerprint: String,
    /// Common name of the subject.
    pub(super) common_name: Option<String>,
    /// Organizational units of the subject.
    pub(super) units: Vec<String>,
}

/// A peer that has been told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    /// For the audit log and the rate limit.
    pub(super) name: String,
    /// What it may; `None`: nothing.
    pub(super) role: Option<Role>,
    /// Whether it speaks over the Unix socket.
    pub(super) local: bool,
}

/// Tells peers apart. `bearer` is the token of the request, if it has one.
pub(super) fn principal(access: &RestAccess, peer: &Peer, bearer: Option<&str>) -> Principal {
    match peer {
        Peer::Local { uid } => Principal {
            name: format!("uid:{uid}"),
            role: local_role(access, *uid),
            local: true,
        },
        Peer::Remote {
            address,
            certificate,
        } => {
            let found = bearer
                .and_then(|token| by_token(access, token))
                .or_else(|| by_certificate(access, certificate.as_ref()?));
            let (name, role) = match found {
                Some((name, role)) => (name, Some(role)),
                None => (format!("unknown:{}", address.ip()), None),
            };
            Principal {
                name,
                role,
                local: false,
            }
        }
    }
}

/// Root and the agent's own user may everything; who else can open the socket is in its group.
fn local_role(access: &RestAccess, uid: u32) -> Option<Role> {
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || uid == own {
        Some(Role::Admin)
    } else {
        access.group_role
    }
}

/// Compares with every token, each in a time that does not depend on what is equal.
fn by_token(access: &RestAccess, given: &str) -> Option<(String, Role)> {
    let mut found = None;
    for token in &access.tokens {
        let expected = token.secret.expose();
        if bool::from(expected.ct_eq(given.as_bytes())) {
            found = Some((format!("token:{}", token.name), token.role));
        }
    }
    found
}

fn by_certificate(access: &RestAccess, shown: &ClientCertificate) -> Option<(String, Role)> {
    let matching = access.clients.iter().find(|client| client.matches(shown));
    let name = shown.common_name.as_ref().unwrap_or(&shown.fingerprint);
    matching.map(|client| (format!("certificate:{name}"), client.role))
}

impl crate::config::RestClient {
    fn matches(&self, shown: &ClientCertificate) -> bool {
        let asks = [
            self.fingerprint.as_ref().map(|f| *f == shown.fingerprint),
            self.common_name
                .as_ref()
                .map(|name| shown.common_name.as_ref() == Some(name)),
            self.unit.as_ref().map(|unit| shown.units.contains(unit)),
        ];
        asks.iter().any(Option::is_some) && asks.iter().flatten().all(|matches| *matches)
    }
}

/// Principals whose requests are remembered; beyond it all are counted together.
const MAX_BUCKETS: usize = 4096;

/// A token bucket for each principal.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Requests per second.
    rate: u32,
    buckets: Mutex<HashMap<String, (Duration, Instant)>>,
}

impl RateLimit {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            buckets: Mutex::default(),
        }
    }

    /// Whether `who` may make a request at `now`: `rate` in every second, and as many at once.
    pub(super) fn admits(&self, who: &str, now: Instant) -> bool {
        let full = Duration::from_secs(1);
        let cost = full / self.rate;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, (_, last)| now.saturating_duration_since(*last) < full);
        }
        let known = buckets.len() < MAX_BUCKETS || buckets.contains_key(who);
        let key = if known { who } else { "" };
        let (credit, last) = buckets.entry(key.to_owned()).or_insert((full, now));
        *credit = (*credit + now.saturating_duration_since(*last)).min(full);
        *last = now;
        let admitted = *credit >= cost;
        if admitted {
            *credit -= cost;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RestClient, RestToken};
    use gateway_ike::secret::SecretBytes;

    fn access() -> RestAccess {
        RestAccess {
            group_role: Some(Role::Read),
            tokens: vec![RestToken {
                name: "noc".into(),
                role: Role::Operate,
                secret: SecretBytes::from(&b"0123456789abcdef0123456789abcdef"[..]),
            }],
            clients: vec![
                RestClient {
                    unit: Some("vpn".into()),
                    common_name: Some("alice".into()),
                    role: Role::Admin,
                    ..RestClient::default()
                },
                RestClient {
                    fingerprint: Some("aa".into()),
                    role: Role::Read,
                    ..RestClient::default()
                },
            ],
        }
    }

    fn remote(certificate: Option<ClientCertificate>) -> Peer {
        Peer::Remote {
            address: "192.0.2.1:5".parse().unwrap(),
            certificate,
        }
    }

    #[test]
    fn tokens_count_only_as_a_whole_and_only_over_tls() {
        let access = access();
        let role = |peer: &Peer, token| principal(&access, peer, token).role;
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(role(&remote(None), Some(good)), Some(Role::Operate));
        for bad in ["", "0123456789abcdef", "0123456789abcdef0123456789abcdeX"] {
            assert_eq!(role(&remote(None), Some(bad)), None, "{bad}");
        }
        assert_eq!(role(&remote(None), None), None);
        let local = Peer::Local { uid: 4711 };
        assert_eq!(role(&local, Some(good)), Some(Role::Read));
        assert_eq!(role(&Peer::Local { uid: 0 }, None), Some(Role::Admin));
    }

    #[test]
    fn a_client_has_to_match_in_everything_that_is_asked() {
        let access = access();
        let shown = |name: &str, unit: &str, fingerprint: &str| {
            let certificate = ClientCertificate {
                fingerprint: fingerprint.into(),
                common_name: Some(name.into()),
                units: vec!["staff".into(), unit.into()],
            };
            principal(&access, &remote(Some(certificate)), None).role
        };
        assert_eq!(shown("alice", "vpn", "bb"), Some(Role::Admin));
        assert_eq!(shown("alice", "web", "bb"), None);
        assert_eq!(shown("bob", "vpn", "bb"), None);
        assert_eq!(shown("bob", "web", "aa"), Some(Role::Read));
    }

    #[test]
    fn each_principal_has_its_own_rate() {
        let limit = RateLimit::new(10);
        let start = Instant::now();
        let admitted = |who: &str, ms: u64| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| limit.admits(who, now)).count()
        };
        assert_eq!(admitted("a", 0), 10);
        assert_eq!(admitted("a", 250), 2);
        assert_eq!(admitted("b", 250), 10);
        assert_eq!(admitted("a", 60_000), 10);
    }
}
