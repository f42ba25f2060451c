use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use crate::{
    Item, MAX_DEPTH, MAX_ELEMENTS, MAX_PACKET, Packet, ParseError, Section, Value, WriteError,
    from_section, packet_length,
};

fn item() -> impl Strategy<Value = Item> {
    let octets = || vec(any::<u8>(), 0..20).prop_map(Value::from);
    let leaf = prop_oneof![
        octets().prop_map(Item::Value),
        vec(octets(), 0..4).prop_map(Item::List),
    ];
    leaf.prop_recursive(6, 32, 4, |inner| {
        vec((".{0,8}", inner), 0..4).prop_map(|entries| Item::Section(section(entries)))
    })
}

fn section(entries: Vec<(String, Item)>) -> Section {
    let mut section = Section::new();
    for (name, item) in entries {
        section.push(name, item);
    }
    section
}

fn packet() -> impl Strategy<Value = Packet> {
    let message = || vec((".{0,8}", item()), 0..5).prop_map(section);
    prop_oneof![
        (".{0,20}", message()).prop_map(|(command, message)| Packet::Request { command, message }),
        message().prop_map(Packet::Response),
        (".{0,20}", message()).prop_map(|(name, message)| Packet::Event { name, message }),
        ".{0,20}".prop_map(Packet::Register),
        ".{0,20}".prop_map(Packet::Unregister),
        Just(Packet::UnknownCommand),
        Just(Packet::Confirm),
        Just(Packet::UnknownEvent),
    ]
}

fn behind_length(octets: &[u8]) -> &[u8] {
    let (prefix, rest) = octets.split_first_chunk().unwrap();
    assert_eq!(packet_length(*prefix), Ok(rest.len()));
    rest
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(packet in packet()) {
        let octets = packet.encode().unwrap();
        prop_assert_eq!(Packet::parse(behind_length(&octets)), Ok(packet));
    }

    #[test]
    fn what_is_cut_is_refused_or_a_shorter_message(packet in packet(), cut in any::<prop::sample::Index>()) {
        let octets = packet.encode().unwrap();
        let octets = behind_length(&octets);
        let cut = &octets[..cut.index(octets.len())];
        prop_assert_ne!(Packet::parse(cut), Ok(packet));
    }

    #[test]
    fn what_is_read_is_written_the_same(octets in vec(0u8..9, 0..200)) {
        if let Ok(packet) = Packet::parse(&octets) {
            let written = packet.encode().unwrap();
            prop_assert_eq!(behind_length(&written), &octets[..]);
        }
    }
}

/// As swanctl 5.9.8 sends it, recorded from its socket.
#[test]
fn a_recorded_request_reads() {
    let octets = b"\x00\x09load-conn\x01\x06site-a\x03\x07version\x00\x012\x04\x0blocal_addr\
                   s\x05\x00\x0c203.0.113.10\x06\x04\x0cremote_addrs\x05\x00\x0c198.51.100.7\
                   \x05\x00\x04%any\x06\x04\x09proposals\x05\x00\x1caes256gcm16-prfsha384-ec\
                   p256\x05\x00\x07default\x06\x03\x06mobike\x00\x02no\x03\x09dpd_delay\x00\x03\
                   30s\x03\x0arekey_time\x00\x024h\x01\x05local\x03\x04auth\x00\x03psk\x03\x02\
                   id\x00\x0egw.example.org\x02\x01\x06remote\x03\x04auth\x00\x03psk\x03\x02\
                   id\x00\x12site-a.example.org\x02\x01\x08children\x01\x03net\x04\x08local_\
                   ts\x05\x00\x0b10.1.0.0/16\x06\x04\x09remote_ts\x05\x00\x0b10.2.0.0/16\x05\
                   \x00\x0b10.3.0.0/16\x06\x04\x0desp_proposals\x05\x00\x0baes128gcm16\x06\x03\
                   \x0cstart_action\x00\x04none\x02\x02\x02";
    let Ok(Packet::Request { command, message }) = Packet::parse(octets) else {
        panic!("not a request");
    };
    assert_eq!(command, "load-conn");
    let (name, site) = message.sections().next().unwrap();
    assert_eq!(name, "site-a");
    assert_eq!(site.list("local_addrs"), ["203.0.113.10".into()]);
    assert_eq!(site.text("version"), Some("2"));
    assert_eq!(
        site.section("local").and_then(|local| local.text("auth")),
        Some("psk")
    );
    let children = site.section("children").unwrap();
    let net = children.section("net").unwrap();
    assert_eq!(
        net.list("remote_ts"),
        ["10.2.0.0/16".into(), "10.3.0.0/16".into()]
    );
}

#[test]
fn wrong_packets_are_told_apart() {
    let refused = |octets: &[u8]| Packet::parse(octets).unwrap_err();
    assert_eq!(refused(b""), ParseError::Truncated);
    assert_eq!(refused(b"\x08"), ParseError::PacketType(8));
    assert_eq!(refused(b"\x00\x05sta"), ParseError::Truncated);
    assert_eq!(refused(b"\x00\x01\xff"), ParseError::Name);
    assert_eq!(refused(b"\x05\x00"), ParseError::Trailing);
    assert_eq!(refused(b"\x01\x02"), ParseError::Unbalanced);
    assert_eq!(refused(b"\x01\x01\x01a"), ParseError::Unbalanced);
    assert_eq!(refused(b"\x01\x04\x01a"), ParseError::Unbalanced);
    assert_eq!(refused(b"\x01\x05\x00\x00"), ParseError::Element(5));
    assert_eq!(refused(b"\x01\x04\x01a\x03"), ParseError::Element(3));
    assert_eq!(refused(b"\x01\x03\x01a\x00\x05b"), ParseError::Truncated);
}

#[test]
fn limits_hold_on_both_sides() {
    let deep = |depth: usize| {
        let mut octets = vec![1];
        octets.extend(b"\x01\x01a".repeat(depth));
        octets.extend(b"\x02".repeat(depth));
        Packet::parse(&octets)
    };
    assert!(deep(MAX_DEPTH).is_ok());
    assert_eq!(deep(MAX_DEPTH + 1), Err(ParseError::TooDeep));

    let many = |values: usize| {
        let mut octets = b"\x01\x04\x00".to_vec();
        octets.extend(b"\x05\x00\x00".repeat(values));
        octets.push(6);
        Packet::parse(&octets)
    };
    assert!(many(MAX_ELEMENTS - 2).is_ok());
    assert_eq!(many(MAX_ELEMENTS - 1), Err(ParseError::TooMany));

    let len = |n: usize| packet_length(u32::try_from(n).unwrap().to_be_bytes());
    assert_eq!(len(MAX_PACKET), Ok(MAX_PACKET));
    assert_eq!(
        len(MAX_PACKET + 1),
        Err(ParseError::TooLong(MAX_PACKET + 1))
    );
    assert_eq!(len(0), Err(ParseError::Truncated));

    let long = |n: usize| Packet::Response(Section::new().with("a", "x".repeat(n))).encode();
    assert!(long(65_535).is_ok());
    assert_eq!(long(65_536), Err(WriteError::Value(65_536)));
    let name = "n".repeat(256);
    assert_eq!(Packet::Register(name).encode(), Err(WriteError::Name(256)));
    let big = (0..9).fold(Section::new(), |all, _| all.with("a", "x".repeat(65_000)));
    assert!(matches!(
        Packet::Response(big).encode(),
        Err(WriteError::Packet(_))
    ));
}

#[test]
fn values_do_not_show_in_debug() {
    let shown = format!("{:?}", Section::new().with("data", "s3cret"));
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    #[serde(default)]
    list: Vec<String>,
    flag: Option<bool>,
    number: Option<u32>,
    word: Option<Word>,
    #[serde(default)]
    inner: BTreeMap<String, Example>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Some,
}

fn example(section: &Section) -> Result<Example, String> {
    Example::deserialize(from_section(section)).map_err(|error| error.to_string())
}

#[test]
fn a_section_becomes_what_a_type_wants() {
    let inner = Section::new().with("list", "one").with("flag", "no");
    let section = Section::new()
        .with_list("list", ["a", "b"])
        .with("flag", "yes")
        .with("number", 7)
        .with("word", "some")
        .with_section("inner", Section::new().with_section("x", inner));
    let example = example(&section).unwrap();
    assert_eq!(example.list, ["a", "b"]);
    assert_eq!((example.flag, example.number), (Some(true), Some(7)));
    assert_eq!(example.word, Some(Word::Some));
    assert_eq!(example.inner["x"].list, ["one"]);
    assert_eq!(example.inner["x"].flag, Some(false));
}

#[test]
fn what_a_type_does_not_want_is_refused() {
    let refused = |section: Section| example(&section).unwrap_err();
    assert!(refused(Section::new().with("other", 1)).contains("unknown field `other`"));
    assert!(refused(Section::new().with("flag", "maybe")).contains("neither yes nor no"));
    assert!(refused(Section::new().with("number", "4294967296")).contains("4294967296"));
    assert!(refused(Section::new().with("word", "none")).contains("unknown variant"));
    assert!(refused(Section::new().with_list("flag", ["yes"])).contains("is a list"));
    assert!(refused(Section::new().with("flag", 1).with("flag", 1)).contains("duplicate field"));
}
