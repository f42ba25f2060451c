use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use tempfile::TempDir;

use super::*;

fn init_options(force: bool) -> InitOptions {
    InitOptions {
        cluster: "hq".into(),
        days: CA_DAYS,
        force,
    }
}

fn issue_options(force: bool) -> IssueOptions {
    IssueOptions {
        member: MemberId::new(2).unwrap(),
        cluster: Some("hq".into()),
        sync_address: "10.99.0.2".parse().unwrap(),
        days: MEMBER_DAYS,
        force,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn a_members_certificate_verifies_and_names_it() {
    let dir = TempDir::new().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out/pki"));
    let made = init(&ca, &init_options(false)).unwrap();
    let years = (made.not_after - OffsetDateTime::now_utc()).whole_days() / 365;
    assert_eq!(years, 10);
    let made = issue(&ca, &out, &issue_options(false)).unwrap();
    assert_eq!(made.files.len(), 3);
    assert_eq!(
        (made.not_after - OffsetDateTime::now_utc()).whole_days(),
        730
    );

    let member = certificate(&out.join(MEMBER_CERTIFICATE));
    let identity = Identity::of(&member).unwrap();
    assert_eq!(identity.uri(), "gateway://hq/member/2");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&out.join(CA_CERTIFICATE))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().unwrap();
    let verify = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&member, &[], &name, &[], UnixTime::now())
    };
    assert!(verify("10.99.0.2").is_ok());
    assert!(verify("10.99.0.3").is_err());
    // The authority is no member.
    assert!(matches!(
        Identity::of(&certificate(&ca.join(CA_CERTIFICATE))),
        Err(IdentityError::Name(_))
    ));
}

#[test]
fn keys_are_for_their_owner_only() {
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca");
    init(&ca, &init_options(false)).unwrap();
    issue(&ca, &ca, &issue_options(false)).unwrap();
    assert_eq!(mode(&ca), 0o700);
    for (file, expected) in [
        (CA_KEY, 0o600),
        (MEMBER_KEY, 0o600),
        (CA_CERTIFICATE, 0o644),
        (MEMBER_CERTIFICATE, 0o644),
    ] {
        assert_eq!(mode(&ca.join(file)), expected, "{file}");
    }
}

#[test]
fn nothing_is_overwritten_without_force() {
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca");
    init(&ca, &init_options(false)).unwrap();
    issue(&ca, &ca, &issue_options(false)).unwrap();
    let read = |file: &str| fs::read(ca.join(file)).unwrap();
    let before = [CA_KEY, CA_CERTIFICATE, MEMBER_KEY, MEMBER_CERTIFICATE].map(read);
    let error = init(&ca, &init_options(false)).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    let error = issue(&ca, &ca, &issue_options(false)).unwrap_err();
    assert!(matches!(error, PkiError::Exists { .. }));
    let after = [CA_KEY, CA_CERTIFICATE, MEMBER_KEY, MEMBER_CERTIFICATE].map(read);
    assert_eq!(before, after);

    issue(&ca, &ca, &issue_options(true)).unwrap();
    assert_ne!(read(MEMBER_KEY), before[2]);
    init(&ca, &init_options(true)).unwrap();
    assert_ne!(read(CA_KEY), before[0]);
    assert_eq!(mode(&ca.join(CA_KEY)), 0o600);
    assert_eq!(
        fs::read_dir(&ca).unwrap().count(),
        4,
        "nothing is left behind"
    );
    // Another authority's ca.crt is not silently replaced in a member's folder.
    let (other, out) = (dir.path().join("other"), dir.path().join("out"));
    init(&other, &init_options(false)).unwrap();
    fs::create_dir(&out).unwrap();
    fs::copy(other.join(CA_CERTIFICATE), out.join(CA_CERTIFICATE)).unwrap();
    let error = issue(&ca, &out, &issue_options(false)).unwrap_err();
    assert!(matches!(error, PkiError::Exists { path } if path.ends_with(CA_CERTIFICATE)));
    assert!(!out.join(MEMBER_KEY).exists());
}

#[test]
fn errors_say_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca");
    let error = issue(&ca, &ca, &issue_options(false))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ca.crt") && error.contains("read"),
        "{error}"
    );
    for cluster in ["", "head quarters", "a/b", &"x".repeat(65)] {
        let options = InitOptions {
            cluster: cluster.into(),
            ..init_options(false)
        };
        let error = init(&ca, &options).unwrap_err();
        assert!(matches!(error, PkiError::ClusterName(_)));
    }
    for days in [0, MAX_DAYS + 1] {
        let options = InitOptions {
            days,
            ..init_options(false)
        };
        assert!(matches!(init(&ca, &options), Err(PkiError::Days(_))));
    }
    assert!(!ca.exists());
    init(&ca, &init_options(false)).unwrap();
    let branch = IssueOptions {
        cluster: Some("branch".into()),
        ..issue_options(false)
    };
    let error = issue(&ca, &ca, &branch).unwrap_err().to_string();
    assert!(error.contains("of cluster hq, not of branch"), "{error}");
    let other = dir.path().join("other");
    init(&other, &init_options(false)).unwrap();
    fs::copy(other.join(CA_KEY), ca.join(CA_KEY)).unwrap();
    let error = issue(&ca, &ca, &issue_options(false))
        .unwrap_err()
        .to_string();
    assert!(error.contains("not the key of ca.crt"), "{error}");
    fs::write(ca.join(CA_CERTIFICATE), "garbage").unwrap();
    let error = issue(&ca, &ca, &issue_options(false)).unwrap_err();
    assert!(matches!(error, PkiError::NotAnAuthority { .. }), "{error}");
    // A member's certificate is no authority.
    issue(&other, &other, &issue_options(false)).unwrap();
    fs::copy(other.join(MEMBER_CERTIFICATE), ca.join(CA_CERTIFICATE)).unwrap();
    fs::copy(other.join(MEMBER_KEY), ca.join(CA_KEY)).unwrap();
    let error = issue(&ca, &ca, &issue_options(true)).unwrap_err();
    assert!(matches!(error, PkiError::NotAnAuthority { .. }), "{error}");
}

#[test]
fn a_member_does_not_outlive_its_authority() {
    let dir = TempDir::new().unwrap();
    let short = InitOptions {
        days: 30,
        ..init_options(false)
    };
    let authority = init(dir.path(), &short).unwrap();
    let member = issue(dir.path(), dir.path(), &issue_options(false)).unwrap();
    assert_eq!(
        member.not_after.unix_timestamp(),
        authority.not_after.unix_timestamp()
    );
}
