//! Why a certificate is refused: one line that names the certificate, who issued it, what is wrong
//! and what to do; of the peer's whichever side begins. The rules themselves are in `x509_path.rs`.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{
    Credential, LocalAuth, RemoteAuth, RemotePublicKey, SendCert, SignaturePolicy,
};
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::endpoint::Command;
use gateway_ike::secret::SecretBytes;
use gateway_ike::x509::path::Revocation;
use gateway_ike::x509::{Certificate, Crl};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};

use super::link::{Link, configs};
use crate::aws_lc::AwsLc;
use crate::config::id;
use crate::pki::{Authority, DAY, NOW, at, ca_params, key, params, peer_params};

/// What the judging side knows, and what the side that is refused has.
struct Parties {
    root: Authority,
    remote: RemotePublicKey,
    crls: Vec<Arc<Crl>>,
    clock: Option<u64>,
    chain: Vec<Arc<Certificate>>,
    key: KeyPair,
    policy: SignaturePolicy,
    send: SendCert,
}

const NAMES: [&str; 2] = ["gw.example.org", "peer.example.org"];

fn policy(text: &str) -> SignaturePolicy {
    text.parse().unwrap()
}

impl Parties {
    fn new(name: &str) -> Self {
        let (root, key) = (Authority::root("Root"), key());
        let end = root.issue(&peer_params(name), &key);
        Self {
            remote: RemotePublicKey {
                authorities: vec![root.certificate()],
                policy: policy("pubkey"),
                ..RemotePublicKey::default()
            },
            crls: Vec::new(),
            clock: Some(NOW),
            chain: vec![Arc::new(end)],
            key,
            policy: policy("pubkey"),
            send: SendCert::Always,
            root,
        }
    }

    /// The same with another certificate, issued by the root.
    fn issue(&mut self, params: &CertificateParams) {
        self.chain = vec![Arc::new(self.root.issue(params, &self.key))];
    }

    /// … or by an authority below it.
    fn issue_below(&mut self, authority: CertificateParams, name: &str) {
        let middle = self.root.below(authority);
        let end = middle.issue(&peer_params(name), &self.key);
        self.chain = vec![Arc::new(end), middle.certificate()];
    }

    fn serial(&self) -> Vec<u8> {
        self.chain[0].serial().to_vec()
    }
}

/// A cause; the peer's identity is given to what makes it; what the line has to contain.
struct Case {
    cause: &'static str,
    spoil: fn(&mut Parties, &str),
    says: &'static [&'static str],
}

const CASES: [Case; 25] = [
    Case {
        cause: "expired",
        spoil: |parties, name| {
            let mut params = peer_params(name);
            params.not_after = at(-3 * DAY);
            parties.issue(&params);
        },
        says: &[
            "expired 3 days ago, on 2029-12-29T00:00:00Z",
            "fix: issue a new one",
        ],
    },
    Case {
        cause: "not yet valid",
        spoil: |parties, name| {
            let mut params = peer_params(name);
            params.not_before = at(DAY);
            parties.issue(&params);
        },
        says: &[
            "is valid only in 24 hours, from 2030-01-02T00:00:00Z",
            "fix: set this host's clock",
        ],
    },
    Case {
        cause: "an unknown authority",
        spoil: |parties, _| {
            parties.remote.authorities = vec![Authority::root("Other").certificate()];
        },
        says: &[
            "was issued by \"C=DE, O=Example, CN=Root\", which is neither",
            "fix: have the peer send the certificates between",
        ],
    },
    Case {
        cause: "an authority of the same name",
        spoil: |parties, _| {
            parties.remote.authorities = vec![Authority::root("Root").certificate()];
        },
        says: &[
            "is not signed by the key of \"C=DE, O=Example, CN=Root\"",
            "fix: ",
        ],
    },
    Case {
        cause: "the authority is expired",
        spoil: |parties, name| {
            let mut authority = ca_params("Middle");
            authority.not_after = at(-1);
            parties.issue_below(authority, name);
        },
        says: &[
            "certificate \"C=DE, O=Example, CN=Middle\"",
            "expired 1 seconds ago",
        ],
    },
    Case {
        cause: "issued by a peer",
        spoil: |parties, name| parties.issue_below(params("Middle"), name),
        says: &[
            "CN=Middle",
            "is no certification authority's",
            "fix: issue peers' certificates",
        ],
    },
    Case {
        cause: "an authority that may not sign certificates",
        spoil: |parties, name| {
            let mut authority = ca_params("Middle");
            authority.key_usages = vec![KeyUsagePurpose::CrlSign];
            parties.issue_below(authority, name);
        },
        says: &["CN=Middle", "may not sign certificates (keyUsage)", "fix: "],
    },
    Case {
        cause: "an authority below an authority that allows none",
        spoil: |parties, name| {
            let mut root = ca_params("Root");
            root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            parties.root = Authority::root_with(root);
            parties.remote.authorities = vec![parties.root.certificate()];
            parties.issue_below(ca_params("Middle"), name);
        },
        says: &[
            "allows 0 intermediate authorities",
            "pathLenConstraint",
            "larger pathlen",
        ],
    },
    Case {
        cause: "a chain that is too long",
        spoil: |parties, name| {
            let mut chain = vec![];
            let mut authority = parties.root.below(ca_params("0"));
            for number in 1..7 {
                chain.push(authority.certificate());
                authority = authority.below(ca_params(&number.to_string()));
            }
            chain.push(authority.certificate());
            chain.push(Arc::new(authority.issue(&peer_params(name), &parties.key)));
            chain.reverse();
            parties.chain = chain;
        },
        says: &[
            "is too far from a trusted authority: more than 8",
            "fix: trust an authority",
        ],
    },
    Case {
        cause: "a key that may not sign",
        spoil: |parties, name| {
            let mut params = peer_params(name);
            params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
            parties.issue(&params);
        },
        says: &["may not make signatures (keyUsage)", "digitalSignature"],
    },
    Case {
        cause: "a certificate for other purposes",
        spoil: |parties, name| {
            let mut params = peer_params(name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            parties.issue(&params);
        },
        says: &["is not for IKE (extendedKeyUsage)", "ipsecIKE"],
    },
    Case {
        cause: "a critical extension that nobody knows",
        spoil: |parties, name| {
            let mut params = peer_params(name);
            let mut odd =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            odd.set_criticality(true);
            params.custom_extensions = vec![odd];
            parties.issue(&params);
        },
        says: &["1.3.6.1.4.1.99999.1", "critical", "fix: issue it without"],
    },
    Case {
        cause: "a name that the authority may not issue",
        spoil: |parties, name| {
            let mut authority = ca_params("Middle");
            authority.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
                excluded_subtrees: Vec::new(),
            });
            parties.issue_below(authority, name);
        },
        says: &[
            "CN=Middle\" (serial",
            "may not issue (nameConstraints)",
            "fix: use a name",
        ],
    },
    Case {
        cause: "revoked",
        spoil: |parties, _| parties.crls = vec![parties.root.crl(&[&parties.serial()], DAY)],
        says: &[
            "is revoked by \"C=DE, O=Example, CN=Root\"",
            "in its CRL of 2029-12-31T00:00:00Z",
        ],
    },
    Case {
        cause: "a stale CRL",
        spoil: |parties, _| {
            parties.remote.revocation = Revocation::Strict;
            parties.crls = vec![parties.root.crl(&[], -1)];
        },
        says: &[
            "may be revoked: the CRL of \"C=DE, O=Example, CN=Root\"",
            "a newer one was due on 2029-12-31T23:59:59Z",
            "fix: put a current CRL",
        ],
    },
    Case {
        cause: "no CRL",
        spoil: |parties, _| parties.remote.revocation = Revocation::Strict,
        says: &[
            "may be revoked: there is no CRL of",
            "CN=Root",
            "[[authority]] crls",
        ],
    },
    Case {
        cause: "a CRL of somebody else's",
        spoil: |parties, _| {
            parties.remote.revocation = Revocation::Strict;
            parties.crls = vec![Authority::root("Root").crl(&[], DAY)];
        },
        says: &["may be revoked: the CRL of", "is not signed by"],
    },
    Case {
        cause: "an identity that is not in the certificate",
        spoil: |parties, _| parties.issue(&peer_params("other.example.org")),
        says: &[
            "is not in the certificate that was sent",
            "which is for \"C=DE, O=Example, CN=other.example.org\", other.example.org",
            "fix: one of these as the peer's identity",
        ],
    },
    Case {
        cause: "another key than that of the certificate",
        spoil: |parties, _| parties.key = key(),
        says: &[
            "the signature of",
            "is not by the key of its certificate",
            "fix: the private key",
        ],
    },
    Case {
        cause: "no certificate at all",
        spoil: |parties, _| parties.send = SendCert::Never,
        says: &[
            "sent no certificate, and connection site has none",
            "send_cert = always",
        ],
    },
    Case {
        cause: "others than the one certificate that is trusted",
        spoil: |parties, _| {
            let other = parties
                .root
                .issue(&peer_params("other.example.org"), &key());
            parties.remote.certificates = vec![Arc::new(other)];
            parties.remote.authorities.clear();
        },
        says: &["takes none but those in remote.certs", "fix: add it there"],
    },
    Case {
        cause: "too many certificates",
        spoil: |parties, _| {
            let more = (0..9).map(|number| Authority::root(&number.to_string()).certificate());
            parties.chain.extend(more);
        },
        says: &["sent more than 8 certificates", "fix: have it send only"],
    },
    Case {
        cause: "a kind of key that is not wanted",
        spoil: |parties, _| parties.remote.policy = policy("rsa"),
        says: &[
            "has a key of ECDSA",
            "remote.auth is rsa",
            "fix: a certificate with such a key",
        ],
    },
    Case {
        cause: "a hash that is not wanted",
        spoil: |parties, _| parties.remote.policy = policy("ecdsa-sha384"),
        says: &["remote.auth is ecdsa-sha384", "fix: "],
    },
    Case {
        cause: "nobody knows what time it is",
        spoil: |parties, _| parties.clock = None,
        says: &[
            "no certificate of",
            "time of day is not known",
            "fix: set this host's clock",
        ],
    },
];

/// One side judges the other's certificate; the other one takes a pre-shared key. What the judge
/// says.
fn complaint(seed: u64, judge: usize, begins: usize, case: &Case) -> Vec<String> {
    let other = 1 - judge;
    let mut parties = Parties::new(NAMES[other]);
    (case.spoil)(&mut parties, NAMES[other]);
    let der = SecretBytes::from(parties.key.serialized_der());
    let local = LocalAuth::PublicKey {
        credentials: vec![Credential {
            chain: parties.chain.clone(),
            key: AwsLc.signing_key(&der).unwrap(),
        }],
        policy: parties.policy.clone(),
    };
    let configs = configs(|side, connection, _| {
        assert_eq!(connection.local_id, id(NAMES[side]));
        if side == judge {
            connection.auth.remote = RemoteAuth::PublicKey(parties.remote.clone());
        } else {
            connection.auth.local = local.clone();
            connection.auth.send_cert = parties.send;
        }
    });
    let mut link = Link::with(seed, configs);
    let gateway = &mut link.sides[judge];
    let now = gateway.now;
    if let Some(unix_seconds) = parties.clock {
        let clock = Command::SetWallClock { unix_seconds };
        gateway.endpoint.handle_command(now, clock);
    }
    let crls = Command::SetCrls(parties.crls.clone());
    gateway.endpoint.handle_command(now, crls);
    link.initiate(begins);
    link.pass(Duration::from_secs(200), &mut |_, t| Some(t.bytes.clone()));
    let lines = link.sides[judge].complaints();
    let failed = |line: &&String| line.contains("authentication failed");
    lines.iter().filter(failed).cloned().collect()
}

#[test]
fn each_refusal_says_which_certificate_why_and_what_to_do() {
    let mut unsaid = Vec::new();
    let mut seed = 970;
    for case in &CASES {
        for (judge, begins) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            seed += 1;
            let lines = complaint(seed, judge, begins, case);
            let [line] = &lines[..] else {
                unsaid.push(format!(
                    "{}: {judge} {begins}: not one line: {lines:#?}",
                    case.cause
                ));
                continue;
            };
            let missing = case.says.iter().any(|word| !line.contains(word));
            let whose = line.contains(NAMES[1 - judge]) && line.contains("fix: ");
            if missing || !whose || line.contains('\n') {
                unsaid.push(format!("{}: {judge} {begins}: {line}", case.cause));
            }
        }
    }
    assert!(unsaid.is_empty(), "{unsaid:#?}");
}

/// The same with nothing wrong: what is refused above is refused for what was changed.
#[test]
fn nothing_is_refused_when_nothing_is_wrong() {
    let good = Case {
        cause: "none",
        spoil: |_, _| (),
        says: &[],
    };
    for (seed, (judge, begins)) in (960..).zip([(0, 0), (0, 1), (1, 0), (1, 1)]) {
        let lines = complaint(seed, judge, begins, &good);
        assert!(lines.is_empty(), "{lines:?}");
    }
}
