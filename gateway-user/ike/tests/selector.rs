//! Traffic selectors: text, prefixes, examples of narrowing.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use gateway_ike::selector::{
    MAX_PAIRS, MAX_SELECTORS, SelectorConfig, SelectorsError, TrafficSelector, narrow, narrow_both,
    validate,
};

fn ts(text: &str) -> TrafficSelector {
    text.parse().unwrap()
}

fn list(text: &str) -> Vec<TrafficSelector> {
    text.split_whitespace().map(ts).collect()
}

fn show(selectors: &[TrafficSelector]) -> String {
    let words: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    words.join(" ")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn text() {
    let whole = |start: &str, end: &str| TrafficSelector::range(ip(start), ip(end)).unwrap();
    let cases = [
        ("10.1.0.0/16", whole("10.1.0.0", "10.1.255.255")),
        ("0.0.0.0/0", whole("0.0.0.0", "255.255.255.255")),
        ("192.0.2.1/32", whole("192.0.2.1", "192.0.2.1")),
        ("10.0.0.1..10.0.0.9", whole("10.0.0.1", "10.0.0.9")),
        (
            "2001:db8::/32",
            whole("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ),
        (
            "::/0",
            whole("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ),
        ("::1/128", whole("::1", "::1")),
        (
            "10.1.0.0/16[tcp]",
            whole("10.1.0.0", "10.1.255.255").with_protocol(6),
        ),
        (
            "10.1.0.0/16[tcp/80]",
            whole("10.1.0.0", "10.1.255.255")
                .with_protocol(6)
                .with_ports(80, 80),
        ),
        (
            "::1/128[udp/0-1023]",
            whole("::1", "::1").with_protocol(17).with_ports(0, 1023),
        ),
        (
            "10.0.0.0/8[icmp/8]",
            whole("10.0.0.0", "10.255.255.255")
                .with_protocol(1)
                .with_ports(0x800, 0x8ff),
        ),
        (
            "::1/128[ipv6-icmp/3(4)]",
            whole("::1", "::1")
                .with_protocol(58)
                .with_ports(0x304, 0x304),
        ),
        (
            "10.0.0.0/8[200]",
            whole("10.0.0.0", "10.255.255.255").with_protocol(200),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{text}");
        assert_eq!(expected.to_string(), text);
        assert!(expected.is_enforceable());
    }
    for (text, same) in [
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
        (" 10.1.0.0/16 [TCP/any]", "10.1.0.0/16[tcp]"),
        ("10.1.0.0/16[tcp/0-65535]", "10.1.0.0/16[tcp]"),
        ("10.1.0.0/16[6/80]", "10.1.0.0/16[tcp/80]"),
        ("10.1.0.0/16[0]", "10.1.0.0/16"),
        ("::/0[icmpv6]", "::/0[ipv6-icmp]"),
    ] {
        assert_eq!(ts(text).to_string(), same);
    }
}

#[test]
fn wrong_text_is_explained() {
    for (text, expected) in [
        ("", "\"\" is not an IP address"),
        ("10.1.0.0/33", "allowed are /0 to /32"),
        ("::/129", "allowed are /0 to /128"),
        ("10.1.0.0/", "is not a prefix length"),
        (
            "10.1.0.1/16",
            "bits behind the prefix are set; write 10.1.0.0/16",
        ),
        ("10.1.0.300", "\"10.1.0.300\" is not an IP address"),
        ("10.0.0.9-10.0.0.1", "not a range that runs upwards"),
        ("10.0.0.1-::1", "not a range that runs upwards"),
        ("10.0.0.0/8[tcp", "without \"]\""),
        (
            "10.0.0.0/8[smtp]",
            "\"smtp\" is not a protocol; allowed are 0 to 255, icmp",
        ),
        ("10.0.0.0/8[256]", "is not a protocol"),
        ("10.0.0.0/8[tcp/http]", "\"http\" is not a port; write 80"),
        ("10.0.0.0/8[tcp/90-80]", "is not a port"),
        ("10.0.0.0/8[tcp/65536]", "is not a port"),
        (
            "10.0.0.0/8[icmp/256]",
            "is not an ICMP type; write 8, or 3(4)",
        ),
        ("10.0.0.0/8[gre/1]", "protocol gre has no ports"),
        ("10.0.0.0/8[0/80]", "protocol 0 has no ports"),
    ] {
        let error = text.parse::<TrafficSelector>().unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(&format!("\"{text}\"")),
            "{error}"
        );
    }
}

#[test]
fn opaque_and_reversed_selectors_are_out() {
    let any = ts("10.0.0.0/8");
    let opaque = any.with_protocol(6).with_ports(u16::MAX, 0);
    assert!(!opaque.is_enforceable());
    assert_eq!(opaque.to_string(), "10.0.0.0/8[tcp/opaque]");
    let mut reversed = any;
    (reversed.start, reversed.end) = (any.end, any.start);
    let mixed = TrafficSelector {
        end: ip("::1"),
        ..any
    };
    let ports_of_nothing = any.with_ports(80, 80);
    for bad in [opaque, reversed, mixed, ports_of_nothing] {
        assert_eq!(
            (any.intersect(&bad), bad.intersect(&any)),
            (None, None),
            "{bad}"
        );
        assert_eq!(narrow(&[any], &[bad]), []);
    }
    assert!(reversed.prefixes().is_empty() && mixed.prefixes().is_empty());
    assert!(opaque.port_masks().is_empty());
}

#[test]
fn worst_case_of_prefixes() {
    let v4 = ts("0.0.0.1-255.255.255.254").prefixes();
    assert_eq!(v4.len(), 62);
    assert_eq!(
        (v4[0].to_string(), v4[61].to_string()),
        ("0.0.0.1/32".into(), "255.255.255.254/32".into())
    );
    let v6 = ts("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").prefixes();
    assert_eq!(v6.len(), 254);
    for all in ["0.0.0.0/0", "::/0", "10.1.2.3/32", "::1/128"] {
        let prefixes = ts(all).prefixes();
        assert_eq!(
            (prefixes.len(), prefixes[0].to_string()),
            (1, all.to_owned())
        );
    }
    let range = ts("10.0.0.5-10.0.1.1").prefixes();
    assert_eq!(
        range.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "10.0.0.5/32",
            "10.0.0.6/31",
            "10.0.0.8/29",
            "10.0.0.16/28",
            "10.0.0.32/27",
            "10.0.0.64/26",
            "10.0.0.128/25",
            "10.0.1.0/31"
        ]
    );
}

#[test]
fn port_masks() {
    let masks = |start, end| -> Vec<_> {
        let selector = ts("::/0[udp]").with_ports(start, end);
        selector
            .port_masks()
            .iter()
            .map(|m| (m.port, m.mask))
            .collect()
    };
    assert_eq!(masks(0, 65535), [(0, 0)]);
    assert_eq!(masks(80, 80), [(80, 0xffff)]);
    assert_eq!(
        masks(1024, 65535),
        [
            (1024, 0xfc00),
            (2048, 0xf800),
            (4096, 0xf000),
            (8192, 0xe000),
            (16384, 0xc000),
            (32768, 0x8000)
        ]
    );
    assert_eq!(masks(1, 65534).len(), 30);
}

#[test]
fn narrowing_examples() {
    let cases = [
        // configured, proposed, answer
        ("10.1.0.0/16", "0.0.0.0/0", "10.1.0.0/16"),
        ("0.0.0.0/0", "10.1.2.0/24", "10.1.2.0/24"),
        ("10.1.0.0/16", "10.2.0.0/16", ""),
        ("10.1.0.0/16", "::/0", ""),
        (
            "10.1.0.0/16 2001:db8::/32",
            "0.0.0.0/0 ::/0",
            "10.1.0.0/16 2001:db8::/32",
        ),
        // The packet's selector in front, and the policy that covers it behind: RFC 7296 §2.9.
        (
            "10.1.0.0/16",
            "10.1.0.5[icmp/8(0)] 10.1.0.0/16",
            "10.1.0.0/16",
        ),
        (
            "10.1.0.0/24 10.1.9.0/24",
            "10.1.9.5[tcp/80] 10.1.0.0/16",
            "10.1.9.0/24 10.1.0.0/24",
        ),
        ("10.1.0.0/24", "10.1.9.5[tcp/80] 10.1.0.0/16", "10.1.0.0/24"),
        ("10.1.0.0/16[tcp]", "10.1.0.0/16", "10.1.0.0/16[tcp]"),
        ("10.1.0.0/16[tcp]", "10.1.0.0/16[udp]", ""),
        (
            "10.1.0.0/16[tcp/80]",
            "10.1.0.0/16[tcp/0-1023]",
            "10.1.0.0/16[tcp/80]",
        ),
        ("10.1.0.0/16[tcp/80]", "10.1.0.0/16[tcp/443]", ""),
        (
            "10.0.0.1-10.0.0.9",
            "10.0.0.5-10.0.0.20",
            "10.0.0.5..10.0.0.9",
        ),
        ("10.0.0.0/8 10.1.0.0/16", "10.1.0.0/16", "10.1.0.0/16"),
        ("", "10.1.0.0/16", ""),
        ("10.1.0.0/16", "", ""),
    ];
    for (configured, proposed, expected) in cases {
        let answer = narrow(&list(configured), &list(proposed));
        assert_eq!(show(&answer), expected, "{configured} / {proposed}");
    }
}

#[test]
fn both_sides() {
    let both = |local, remote, ts_local, ts_remote| {
        let (local, remote) = (list(local), list(remote));
        narrow_both((&local, &remote), (&list(ts_local), &list(ts_remote)))
            .map(|narrowed| format!("{} === {}", show(&narrowed.local), show(&narrowed.remote)))
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        both("10.1.0.0/16", "10.2.0.0/16", "0.0.0.0/0", "10.2.3.0/24").unwrap(),
        "10.1.0.0/16 === 10.2.3.0/24"
    );
    assert_eq!(
        both(
            "10.1.0.0/16 ::/0",
            "10.2.0.0/16",
            "0.0.0.0/0 ::/0",
            "0.0.0.0/0 ::/0"
        )
        .unwrap(),
        "10.1.0.0/16 === 10.2.0.0/16",
        "no packet goes from IPv6 to IPv4"
    );
    assert_eq!(
        both(
            "10.1.0.0/16",
            "10.2.0.0/16",
            "10.1.0.0/16[tcp] 10.1.0.0/16[udp/53]",
            "10.2.0.0/16[udp]"
        )
        .unwrap(),
        "10.1.0.0/16[udp/53] === 10.2.0.0/16[udp]"
    );
    assert_eq!(
        both(
            "10.1.0.0/16",
            "10.2.0.0/16",
            "10.1.0.0/16[tcp]",
            "10.2.0.0/16[udp]"
        )
        .unwrap_err(),
        "no common traffic selectors: proposed 10.1.0.0/16[tcp] === 10.2.0.0/16[udp]; \
         configured 10.1.0.0/16 === 10.2.0.0/16"
    );
    let many = vec!["10.9.0.0/24"; 40].join(" ");
    let error = both("10.1.0.0/16", "10.2.0.0/16", &many, "").unwrap_err();
    assert!(error.contains("(and 32 more) === (none);"), "{error}");
}

/// A peer that asks for as many separate selectors as fit into a message gets a bounded answer,
/// and the first ones of it.
#[test]
fn answers_are_bounded() {
    let hosts: Vec<_> = (0..255u8)
        .map(|last| ts(&format!("10.1.0.{last}/32")))
        .collect();
    let answer = narrow(&list("0.0.0.0/0"), &hosts);
    assert_eq!(answer, hosts[..MAX_SELECTORS]);
    let stripes: Vec<_> = (0..64u8)
        .map(|i| ts(&format!("10.0.{i}.0-10.200.0.{i}")))
        .collect();
    let ports: Vec<_> = (1..=64u16)
        .map(|i| ts("0.0.0.0/0[tcp]").with_ports(i, 1000 + i))
        .collect();
    assert_eq!(narrow(&stripes, &ports).len(), MAX_SELECTORS, "of 4096");

    let all = list("0.0.0.0/0");
    let narrowed = narrow_both((&all, &all), (&hosts, &hosts)).unwrap();
    assert_eq!((narrowed.local.len(), narrowed.remote.len()), (16, 16));
    assert_eq!(narrowed.local.len() * narrowed.remote.len(), MAX_PAIRS);
    assert_eq!(narrowed.local, hosts[..16]);
    let narrowed = narrow_both((&all, &all), (&hosts, &hosts[..3])).unwrap();
    assert_eq!((narrowed.local.len(), narrowed.remote.len()), (64, 3));
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let hosts: Vec<_> = (0..65u8)
        .map(|last| ts(&format!("10.1.0.{last}/32")).into())
        .collect();
    assert_eq!(validate(&hosts[..16], &hosts[..16]), Ok(()));
    assert_eq!(validate(&hosts[..64], &hosts[..4]), Ok(()));
    for (a, b) in [(65, 1), (1, 65), (17, 16)] {
        let error = validate(&hosts[..a], &hosts[..b]);
        assert_eq!(error, Err(SelectorsError::TooMany(a, b)));
    }
    assert_eq!(validate(&[], &hosts[..1]), Err(SelectorsError::Empty));
    assert_eq!(validate(&hosts[..1], &[]), Err(SelectorsError::Empty));
    let list = |texts: &str| -> Vec<SelectorConfig> {
        let texts = texts.split(' ');
        texts.map(|text| text.parse().unwrap()).collect()
    };
    let mixed = list("10.1.0.0/16 2001:db8::/32");
    assert_eq!(validate(&mixed, &list("::/0")), Ok(()));
    let error = validate(&list("10.1.0.0/16"), &list("::/0")).unwrap_err();
    assert!(
        error.to_string().contains("10.1.0.0/16 === ::/0"),
        "{error}"
    );
    assert!(validate(&list("10.1.0.0/16[tcp]"), &list("10.2.0.0/16[udp]")).is_err());
    for fits in ["10.1.0.0/16", "::/0", "dynamic", "dynamic[tcp/443]"] {
        assert_eq!(validate(&list("dynamic[tcp]"), &list(fits)), Ok(()));
    }
    let error = validate(&list("dynamic[tcp]"), &list("dynamic[udp] ::/0[udp]")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("dynamic[tcp] === dynamic[udp] ::/0[udp]"),
        "{error}"
    );
}
