//! Identities: configuration text, payloads, comparison.

#![allow(clippy::unwrap_used)]

use gateway_ike::identity::{Identity, IdentityError, IdentityPattern, MAX_IDENTITY_LEN};
use gateway_ike::wire::IdType;
use gateway_ike::x509::{Name, NameError};
use proptest::prelude::*;

fn ip(text: &str) -> Identity {
    Identity::Ip(text.parse().unwrap())
}

fn fqdn(text: &str) -> Identity {
    Identity::Fqdn(text.to_owned())
}

fn rfc822(text: &str) -> Identity {
    Identity::Rfc822(text.to_owned())
}

#[test]
fn configuration_text() {
    let cases = [
        ("192.0.2.1", ip("192.0.2.1")),
        ("2001:db8::1", ip("2001:db8::1")),
        ("::", ip("::")),
        ("ipv4:192.0.2.1", ip("192.0.2.1")),
        ("ipv6:2001:db8::1", ip("2001:db8::1")),
        ("gw.example.org", fqdn("gw.example.org")),
        (" gw.example.org ", fqdn("gw.example.org")),
        ("site-a", fqdn("site-a")),
        ("@gw.example.org", fqdn("gw.example.org")),
        ("@10.0.0.1", fqdn("10.0.0.1")),
        ("fqdn:gw.example.org", fqdn("gw.example.org")),
        ("DNS:10.0.0.1", fqdn("10.0.0.1")),
        ("user@example.org", rfc822("user@example.org")),
        ("@@user@example.org", rfc822("user@example.org")),
        ("rfc822:user@example.org", rfc822("user@example.org")),
        ("email:user@example.org", rfc822("user@example.org")),
        (
            "keyid:0xDEADbeef",
            Identity::KeyId(vec![0xde, 0xad, 0xbe, 0xef]),
        ),
        ("keyid:#de:ad", Identity::KeyId(vec![0xde, 0xad])),
        ("keyid:printer", Identity::KeyId(b"printer".to_vec())),
        ("@#6162", Identity::KeyId(b"ab".to_vec())),
        ("asn1dn:#3000", Identity::Dn(vec![0x30, 0])),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Identity>(), Ok(expected), "{text}");
    }
}

#[test]
fn wrong_text_is_explained() {
    let cases = [
        ("", "may not be empty"),
        ("@", "may not be empty"),
        ("keyid:", "may not be empty"),
        ("keyid:0x", "may not be empty"),
        ("%any", "wildcards are %any, alone"),
        ("*@example.org", "wildcards are %any, alone"),
        ("C=DE, O", "is not TYPE=value"),
        ("C=DE, X=Example", "is not a type of attribute"),
        ("keyid:0xabc", "even number of hexadecimal digits"),
        ("keyid:0xzz", "hexadecimal digits"),
        ("ipv4:2001:db8::1", "not an IPv4 address"),
        ("ipv6:192.0.2.1", "not an IPv6 address"),
        ("two words", "without blanks"),
        ("fqdn:two words", "without blanks"),
        ("bell\u{7}", "without blanks and control"),
        ("name:gw", "known types are ipv4"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Identity>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let long = "a".repeat(MAX_IDENTITY_LEN + 1);
    let error = Err(IdentityError::TooLong(MAX_IDENTITY_LEN + 1));
    assert_eq!(long.parse::<Identity>(), error);
    assert!(long[1..].parse::<Identity>().is_ok());
}

#[test]
fn payloads() {
    let cases = [
        (ip("192.0.2.1"), IdType::ID_IPV4_ADDR, vec![192, 0, 2, 1]),
        (
            ip("2001:db8::1"),
            IdType::ID_IPV6_ADDR,
            vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
        (fqdn("gw"), IdType::ID_FQDN, b"gw".to_vec()),
        (rfc822("u@gw"), IdType::ID_RFC822_ADDR, b"u@gw".to_vec()),
        (
            Identity::KeyId(vec![0, 255]),
            IdType::ID_KEY_ID,
            vec![0, 255],
        ),
        (
            Identity::Dn(vec![0x30, 0]),
            IdType::ID_DER_ASN1_DN,
            vec![0x30, 0],
        ),
    ];
    for (identity, kind, data) in cases {
        assert_eq!(identity.to_payload(), (kind, data.clone()));
        assert_eq!(Identity::from_payload(kind, &data), Ok(identity));
    }
}

#[test]
fn wrong_payloads() {
    let malformed = |kind| Err(IdentityError::Payload(kind));
    for (kind, data) in [
        (IdType::ID_IPV4_ADDR, &[1, 2, 3][..]),
        (IdType::ID_IPV4_ADDR, &[1, 2, 3, 4, 5]),
        (IdType::ID_IPV6_ADDR, &[0; 15]),
        (IdType::ID_FQDN, b"gw\0"),
        (IdType::ID_FQDN, b"gw\r\n"),
        (IdType::ID_FQDN, b"\xff"),
        (IdType::ID_RFC822_ADDR, b"u @gw"),
    ] {
        assert_eq!(
            Identity::from_payload(kind, data),
            malformed(kind),
            "{kind}"
        );
    }
    for kind in 0..=255 {
        let empty = Identity::from_payload(IdType(kind), &[]);
        assert_eq!(empty, Err(IdentityError::Empty));
        let long = Identity::from_payload(IdType(kind), &[b'a'; MAX_IDENTITY_LEN + 1]);
        assert_eq!(long, Err(IdentityError::TooLong(MAX_IDENTITY_LEN + 1)));
    }
    for kind in [
        IdType(0),
        IdType::ID_DER_ASN1_GN,
        IdType::ID_NULL,
        IdType(201),
    ] {
        let result = Identity::from_payload(kind, b"gw");
        assert_eq!(result, Err(IdentityError::UnknownType(kind)));
    }
}

#[test]
fn comparison() {
    assert_eq!(fqdn("GW.Example.org"), fqdn("gw.example.ORG"));
    assert_eq!(rfc822("User@gw"), rfc822("user@GW"));
    assert_ne!(fqdn("gw.example.org"), fqdn("gw.example.org."));
    assert_ne!(fqdn("ä"), fqdn("Ä"), "only ASCII folds");
    assert_ne!(fqdn("10.0.0.1"), ip("10.0.0.1"));
    assert_ne!(fqdn("u@gw"), rfc822("u@gw"));
    assert_ne!(Identity::KeyId(b"gw".to_vec()), fqdn("gw"));
    assert_ne!(
        Identity::KeyId(b"GW".to_vec()),
        Identity::KeyId(b"gw".to_vec())
    );
    let set: std::collections::HashSet<_> = [fqdn("GW"), fqdn("gw"), rfc822("gw")].into();
    assert_eq!(set.len(), 2, "equal identities hash equally");
}

#[test]
fn patterns() {
    let any: IdentityPattern = "%any".parse().unwrap();
    let one: IdentityPattern = "gw.example.org".parse().unwrap();
    assert!(any.matches(&ip("192.0.2.1")) && any.matches(&fqdn("x")));
    assert!(one.matches(&fqdn("GW.example.org")) && !one.matches(&fqdn("gw2.example.org")));
    assert!(one.rank() < any.rank());
    assert_eq!(
        (any.to_string(), one.to_string()),
        ("%any".into(), "gw.example.org".into())
    );
    assert!("%any6".parse::<IdentityPattern>().is_err());
}

proptest! {
    /// Whatever comes in a payload goes back as it was, and its text means the same.
    #[test]
    fn payload_and_text_round_trip(kind in 0u8..14, data in prop::collection::vec(any::<u8>(), 0..24)) {
        if let Ok(identity) = Identity::from_payload(IdType(kind), &data) {
            prop_assert_eq!(identity.to_payload(), (IdType(kind), data));
            let text = identity.to_string();
            prop_assert_eq!(text.parse::<Identity>(), Ok(identity), "{}", text);
        }
    }

    /// The same for names, which random octets rarely are.
    #[test]
    fn names_round_trip(kind in 2u8..4, name in "[a-z0-9@:#%=.*\u{e4}-]{1,12}") {
        let identity = Identity::from_payload(IdType(kind), name.as_bytes()).unwrap();
        let text = identity.to_string();
        prop_assert_eq!(text.parse::<Identity>(), Ok(identity), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = text.parse::<Identity>();
        let _ = text.parse::<IdentityPattern>();
    }
}

#[test]
fn distinguished_names() {
    let parse = |text: &str| text.parse::<Identity>().unwrap();
    let name = parse("C=DE, O=Example Ltd, CN=gw");
    assert!(matches!(name, Identity::Dn(_)));
    for same in [
        "C=DE,O=Example Ltd,CN=gw",
        "/C=DE/O=Example Ltd/CN=gw",
        "c=de, o=\"example  ltd\", cn=GW",
        "asn1dn:C=DE, O=Example Ltd, CN=gw",
        "2.5.4.6=DE, 2.5.4.10=Example Ltd, 2.5.4.3=gw",
    ] {
        assert_eq!(parse(same), name, "{same}");
    }
    for other in [
        "C=DE, O=Example Ltd",
        "O=Example Ltd, C=DE, CN=gw",
        "C=DE, O=Example, CN=gw",
    ] {
        assert_ne!(parse(other), name, "{other}");
    }
    for text in [
        "C=DE, O=Example Ltd, CN=gw",
        "C=DE, O=B\u{fc}ro\\, Rest, CN=a\\+b:c@d, E=x@example.org",
    ] {
        assert_eq!(parse(text).to_string(), text);
        assert_eq!(parse(&parse(text).to_string()), parse(text));
    }
}

#[test]
fn wildcards() {
    for (pattern, identity, fits) in [
        ("C=DE, O=Example, CN=*", "C=DE, O=Example, CN=gw", true),
        ("C=DE, O=Example, CN=*", "C=DE, O=Other, CN=gw", false),
        (
            "C=DE, O=Example, CN=*",
            "C=DE, O=Example, OU=x, CN=gw",
            false,
        ),
        ("C=DE, O=*, CN=gw", "c=de, o=anything, cn=gw", true),
        ("C=DE, O=Example, CN=*", "gw.example.org", false),
        ("*.example.org", "gw.Example.org", true),
        ("*.example.org", "a.b.example.org", true),
        ("*.example.org", "example.org", false),
        ("*.example.org", "user@x.example.org", false),
        ("*@example.org", "user@example.org", true),
        ("*@example.org", "@example.org", false),
        ("*@example.org", "user@sub.example.org", false),
    ] {
        let parsed: IdentityPattern = pattern.parse().unwrap();
        let identity: Identity = identity.parse().unwrap();
        assert_eq!(parsed.matches(&identity), fits, "{pattern} {identity}");
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }
    let ranks = ["gw", "*.example.org", "%any"].map(|text| {
        let pattern: IdentityPattern = text.parse().unwrap();
        pattern.rank()
    });
    assert_eq!(ranks, [0, 1, 2]);
}

/// X.690 §8.19.2: 2.5.4.3 with an octet 0x80 before the last number is no object identifier.
#[test]
fn padded_object_identifiers_are_no_names() {
    let name = |oid: &[u8]| {
        let value = [&[6, oid.len() as u8], oid, &[12, 1, b'a']].concat();
        let attribute = [&[0x30, value.len() as u8], &value[..]].concat();
        let set = [&[0x31, attribute.len() as u8], &attribute[..]].concat();
        [&[0x30, set.len() as u8], &set[..]].concat()
    };
    let good = Name::from_der(&name(&[0x55, 4, 3])).unwrap();
    assert_eq!(good, good.to_string().parse().unwrap());
    for oid in [&[0x55, 0x80, 3][..], &[0x55, 4, 0x80, 3], &[0x80, 0x55, 4]] {
        assert_eq!(Name::from_der(&name(oid)), Err(NameError::Der), "{oid:x?}");
    }
    // In the middle of a number it is a digit: 1.2.16384.
    assert!(Name::from_der(&name(&[0x2a, 0x81, 0x80, 0])).is_ok());
}
