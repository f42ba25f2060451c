//! Path validation: every rule by a certificate that breaks just it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../src/crypto/mod.rs"]
#[allow(unreachable_pub)]
mod aws_lc;
#[path = "support/pki.rs"]
#[allow(dead_code)]
mod pki;

use std::sync::Arc;

use aws_lc::AwsLc;
use gateway_ike::x509::path::{
    Ago, MAX_PATH_LEN, PathError, Reason, Revocation, UnixTime, Validation,
};
use gateway_ike::x509::{Certificate, Crl};
use pki::{Authority, DAY, NOW, at, ca_params, key, params, parse, peer_params};
use rcgen::{
    BasicConstraints, CidrSubnet, CrlDistributionPoint, CustomExtension, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints, SanType,
};

struct Check<'a> {
    authorities: Vec<Arc<Certificate>>,
    crls: Vec<Arc<Crl>>,
    others: Vec<Certificate>,
    revocation: Revocation,
    end: &'a Certificate,
}

impl<'a> Check<'a> {
    fn new(root: &Authority, end: &'a Certificate) -> Self {
        Self {
            authorities: vec![root.certificate()],
            crls: Vec::new(),
            others: Vec::new(),
            revocation: Revocation::Relaxed,
            end,
        }
    }

    fn via(mut self, others: &[&Authority]) -> Self {
        self.others = others.iter().map(|o| (*o.certificate()).clone()).collect();
        self
    }

    fn crl(mut self, crl: Arc<Crl>) -> Self {
        self.crls.push(crl);
        self
    }

    fn revocation(mut self, revocation: Revocation) -> Self {
        self.revocation = revocation;
        self
    }

    fn run(&self) -> Result<(), PathError> {
        let validation = Validation {
            crypto: &AwsLc,
            now: NOW,
            authorities: &self.authorities,
            crls: &self.crls,
            revocation: self.revocation,
        };
        validation.check(self.end, &self.others)
    }

    fn fails(&self) -> Reason {
        self.run().expect_err("must be refused").reason
    }
}

fn end(root: &Authority) -> Certificate {
    root.issue(&peer_params("peer.example.org"), &key())
}

#[test]
fn a_good_path() {
    let root = Authority::root("Root");
    let end = end(&root);
    Check::new(&root, &end).run().unwrap();
    let middle = root.below(ca_params("Middle"));
    let lower = middle.below(ca_params("Lower"));
    let end = self::end(&lower);
    // In any order, and with one that does not belong to it.
    let stranger = Authority::root("Stranger");
    Check::new(&root, &end)
        .via(&[&stranger, &lower, &middle])
        .run()
        .unwrap();
    // The lower authority may be the trusted one.
    Check::new(&lower, &end).run().unwrap();
}

#[test]
fn wrong_authority() {
    let (root, other) = (Authority::root("Root"), Authority::root("Other"));
    let end = end(&root);
    let Reason::UnknownIssuer(issuer) = Check::new(&other, &end).fails() else {
        panic!("another reason");
    };
    assert_eq!(issuer, "C=DE, O=Example, CN=Root");
    // The same name with another key.
    let twin = Authority::root("Root");
    assert!(matches!(
        Check::new(&twin, &end).fails(),
        Reason::BadSignature(_)
    ));
    // Sending one's own root does not make it trusted.
    let check = Check::new(&other, &end).via(&[&root]);
    assert!(matches!(check.fails(), Reason::UnknownIssuer(_)));
    // Nor does being self-signed.
    let alone = Authority::root_with(peer_params("peer.example.org"));
    let alone = alone.certificate();
    assert!(matches!(
        Check::new(&root, &alone).fails(),
        Reason::UnknownIssuer(_)
    ));
}

#[test]
fn times() {
    let root = Authority::root("Root");
    let mut expired = peer_params("peer.example.org");
    expired.not_after = at(-3 * DAY);
    let expired = root.issue(&expired, &key());
    assert_eq!(
        Check::new(&root, &expired).fails(),
        Reason::Expired(Ago(3 * 86_400), UnixTime(NOW - 3 * 86_400))
    );
    let mut early = peer_params("peer.example.org");
    early.not_before = at(60);
    let early = root.issue(&early, &key());
    assert_eq!(
        Check::new(&root, &early).fails(),
        Reason::NotYetValid(Ago(60), UnixTime(NOW + 60))
    );
    // The last second still counts, as does the first.
    let mut exact = peer_params("peer.example.org");
    (exact.not_before, exact.not_after) = (at(0), at(0));
    let exact = root.issue(&exact, &key());
    Check::new(&root, &exact).run().unwrap();
    // Also in the middle, and of the trusted authority.
    let mut middle = ca_params("Middle");
    middle.not_after = at(-1);
    let middle = root.below(middle);
    let end = end(&middle);
    let check = Check::new(&root, &end).via(&[&middle]);
    let expired = Reason::Expired(Ago(1), UnixTime(NOW - 1));
    assert_eq!(check.fails(), expired);
    let mut old = ca_params("Old");
    old.not_after = at(-1);
    let old = Authority::root_with(old);
    let end = self::end(&old);
    assert_eq!(Check::new(&old, &end).fails(), expired);
}

#[test]
fn who_may_issue() {
    let root = Authority::root("Root");
    for not_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let mut middle = ca_params("Middle");
        middle.is_ca = not_ca;
        let middle = root.below(middle);
        let end = end(&middle);
        let check = Check::new(&root, &end).via(&[&middle]);
        assert!(matches!(check.fails(), Reason::NoAuthority(_)));
    }
    let mut middle = ca_params("Middle");
    middle.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let middle = root.below(middle);
    let end = end(&middle);
    let check = Check::new(&root, &end).via(&[&middle]);
    assert_eq!(check.fails(), Reason::KeyUsage("sign certificates"));
}

#[test]
fn path_length() {
    let mut short = ca_params("Root");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Authority::root_with(short);
    let direct = end(&root);
    Check::new(&root, &direct).run().unwrap();
    let middle = root.below(ca_params("Middle"));
    let end = end(&middle);
    let check = Check::new(&root, &end).via(&[&middle]);
    assert_eq!(check.fails(), Reason::PathLen(0));
    // A self-issued one does not count (RFC 5280 §6.1.4 (l)).
    let rollover = root.below(ca_params("Root"));
    let end = self::end(&rollover);
    Check::new(&root, &end).via(&[&rollover]).run().unwrap();
    // No more than a bound, whatever is allowed.
    let root = Authority::root("Root");
    let mut chain = vec![root.below(ca_params("0"))];
    for index in 1..MAX_PATH_LEN {
        chain.push(chain[index - 1].below(ca_params(&index.to_string())));
    }
    for (index, last) in chain.iter().enumerate() {
        let end = self::end(last);
        // The end, the root, and what is between.
        let whole = index + 3;
        let between: Vec<&Authority> = chain.iter().take(index + 1).collect();
        let check = Check::new(&root, &end).via(&between);
        match check.run() {
            Ok(()) => assert!(whole <= MAX_PATH_LEN, "{whole}"),
            Err(error) => {
                assert!(whole > MAX_PATH_LEN, "{whole}: {error}");
                assert_eq!(error.reason, Reason::TooLong);
            }
        }
    }
}

#[test]
fn what_the_end_may_do() {
    let root = Authority::root("Root");
    let mut usage = peer_params("peer.example.org");
    usage.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let end = root.issue(&usage, &key());
    assert_eq!(
        Check::new(&root, &end).fails(),
        Reason::KeyUsage("make signatures")
    );
    for (purposes, good) in [
        (vec![], true),
        (
            vec![ExtendedKeyUsagePurpose::Other(vec![
                1, 3, 6, 1, 5, 5, 7, 3, 17,
            ])],
            true,
        ),
        (vec![ExtendedKeyUsagePurpose::Any], true),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], true),
        (vec![ExtendedKeyUsagePurpose::CodeSigning], false),
    ] {
        let mut params = peer_params("peer.example.org");
        params.extended_key_usages = purposes;
        let end = root.issue(&params, &key());
        let result = Check::new(&root, &end).run();
        assert_eq!(result.is_ok(), good, "{result:?}");
    }
    // Without keyUsage anything goes.
    let mut none = peer_params("peer.example.org");
    none.key_usages = Vec::new();
    let end = root.issue(&none, &key());
    Check::new(&root, &end).run().unwrap();
}

#[test]
fn critical_extensions() {
    let root = Authority::root("Root");
    let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    let mut params = peer_params("peer.example.org");
    params.custom_extensions = vec![unknown];
    let end = root.issue(&params, &key());
    Check::new(&root, &end).run().unwrap();
    unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.set_criticality(true);
    params.custom_extensions = vec![unknown];
    let end = root.issue(&params, &key());
    assert_eq!(
        Check::new(&root, &end).fails(),
        Reason::Extension("1.2.3.4".to_owned())
    );
    // One that decides, malformed: 2.5.29.15 is keyUsage.
    let mut params = peer_params("peer.example.org");
    params.key_usages = Vec::new();
    let broken = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![5, 0]);
    params.custom_extensions = vec![broken];
    let end = root.issue(&params, &key());
    assert_eq!(
        Check::new(&root, &end).fails(),
        Reason::Extension("2.5.29.15".to_owned())
    );
}

#[test]
fn tampered() {
    let root = Authority::root("Root");
    let good = end(&root);
    let der = good.der();
    let mut refused = 0;
    for index in 0..der.len() {
        let mut other = der.to_vec();
        other[index] ^= 1;
        let Ok(certificate) = Certificate::from_der(&other) else {
            continue;
        };
        Check::new(&root, &certificate).fails();
        refused += 1;
    }
    assert!(refused > 100, "only {refused} could be parsed");
}

#[test]
fn revoked() {
    let root = Authority::root("Root");
    let (end, other) = (end(&root), end(&root));
    let serial = end.serial().to_vec();
    for revocation in [Revocation::Strict, Revocation::IfUri, Revocation::Relaxed] {
        let check = Check::new(&root, &end).revocation(revocation);
        let check = check.crl(root.crl(&[&serial], DAY));
        assert!(matches!(check.fails(), Reason::Revoked(_)));
        // Even if the list is stale: nobody is taken back.
        let check = Check::new(&root, &end).revocation(revocation);
        let check = check.crl(root.crl(&[&serial], -1));
        assert!(matches!(check.fails(), Reason::Revoked(_)));
        // Another one is not revoked.
        let check = Check::new(&root, &other).revocation(revocation);
        check.crl(root.crl(&[&serial], DAY)).run().unwrap();
    }
    // In the middle of the path, too.
    let middle = root.below(ca_params("Middle"));
    let end = self::end(&middle);
    let check = Check::new(&root, &end).via(&[&middle]);
    let check = check.crl(root.crl(&[middle.certificate().serial()], DAY));
    assert!(matches!(check.fails(), Reason::Revoked(_)));
}

#[test]
fn unknown_revocation() {
    let root = Authority::root("Root");
    let plain = end(&root);
    let mut params = peer_params("peer.example.org");
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec!["http://example.org/crl".to_owned()],
    }];
    let with_uri = root.issue(&params, &key());
    let stale = root.crl(&[], -1);
    // Of another authority with the same name.
    let forged = pki::crl(&Issuer::new(ca_params("Root"), key()), &[], DAY);
    for (end, revocation, good) in [
        (&plain, Revocation::Strict, false),
        (&with_uri, Revocation::Strict, false),
        (&plain, Revocation::IfUri, true),
        (&with_uri, Revocation::IfUri, false),
        (&plain, Revocation::Relaxed, true),
        (&with_uri, Revocation::Relaxed, true),
    ] {
        for crl in [None, Some(&stale), Some(&forged)] {
            let mut check = Check::new(&root, end).revocation(revocation);
            check.crls.extend(crl.cloned());
            match check.run() {
                Ok(()) => assert!(good, "{revocation:?} {crl:?}"),
                Err(error) => {
                    assert!(!good, "{revocation:?} {crl:?}: {error}");
                    assert!(matches!(error.reason, Reason::RevocationUnknown(_)));
                }
            }
        }
        let check = Check::new(&root, end).revocation(revocation);
        check.crl(root.crl(&[], DAY)).run().unwrap();
    }
}

#[test]
fn a_forged_list_revokes_nobody() {
    let root = Authority::root("Root");
    let end = end(&root);
    let forged = pki::crl(&Issuer::new(ca_params("Root"), key()), &[end.serial()], DAY);
    Check::new(&root, &end).crl(forged).run().unwrap();
}

#[test]
fn name_constraints() {
    let permitted = |subtree| NameConstraints {
        permitted_subtrees: vec![subtree],
        excluded_subtrees: Vec::new(),
    };
    let excluded = |subtree| NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![subtree],
    };
    let dns = |text: &str| GeneralSubtree::DnsName(text.to_owned());
    let ip = GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
    for (constraints, good) in [
        (permitted(dns("example.org")), true),
        (permitted(dns("example.com")), false),
        (excluded(dns("example.org")), false),
        (excluded(dns("example.com")), true),
        (permitted(ip.clone()), true),
        (excluded(ip), false),
        (
            permitted(GeneralSubtree::DirectoryName(pki::name("peer.example.org"))),
            true,
        ),
        (
            permitted(GeneralSubtree::DirectoryName(pki::name("other"))),
            false,
        ),
        (
            permitted(GeneralSubtree::Rfc822Name("example.org".to_owned())),
            true,
        ),
        (
            permitted(GeneralSubtree::Rfc822Name(".example.org".to_owned())),
            false,
        ),
        (
            excluded(GeneralSubtree::Rfc822Name("peer@example.org".to_owned())),
            false,
        ),
    ] {
        let mut ca = ca_params("Root");
        ca.name_constraints = Some(constraints);
        let root = Authority::root_with(ca);
        let mut params = peer_params("peer.example.org");
        params
            .subject_alt_names
            .push(SanType::IpAddress("10.1.2.3".parse().unwrap()));
        params
            .subject_alt_names
            .push(SanType::Rfc822Name("peer@example.org".try_into().unwrap()));
        let end = root.issue(&params, &key());
        let result = Check::new(&root, &end).run();
        assert_eq!(result.is_ok(), good, "{result:?}");
    }
}

#[test]
fn the_work_is_bounded() {
    // Many authorities with one name, none of which signed: all would have to be tried.
    let root = Authority::root("Root");
    let end = end(&root);
    let mut check = Check::new(&Authority::root("Other"), &end);
    check.others = (0..40)
        .map(|_| parse(Authority::root("Root").0.der()))
        .collect();
    assert_eq!(check.fails(), Reason::TooMuchWork);
}

#[test]
fn errors_name_the_certificate() {
    let root = Authority::root("Root");
    let mut expired = params("peer \"x\"\n");
    expired.not_after = at(-3 * DAY);
    let end = root.issue(&expired, &key());
    let error = Check::new(&root, &end).run().unwrap_err().to_string();
    assert!(
        error.starts_with("certificate \"C=DE, O=Example, CN=#0c09"),
        "{error}"
    );
    let says = "of \"C=DE, O=Example, CN=Root\" expired 3 days ago, on 2029-12-29T00:00:00Z (fix: ";
    assert!(error.contains(says), "{error}");
    assert!(!error.contains('\n'), "{error}");
}
