use gateway_cluster::membership::Timing;
use gateway_ike::proposal::EspProposal;

use super::*;

const GOOD: &str = r#"
[cluster]
local = 1
vips = ["203.0.113.10", "2001:db8:1::10"]
[[cluster.member]]
id = 1
sync_address = "10.99.0.1"
[[cluster.member]]
id = 2
name = "b"
sync_address = "10.99.0.2"
[interfaces]
public = ["eth0"]
inside = ["eth2"]
sync = "eth1"
[sync]
[[connection]]
name = "site-a"
proposals = ["aes128gcm16-prfsha256-x25519"]
local = { id = "gw.example.org" }
remote = { id = "site-a.example.org" }
[connection.children.net]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.2.0.0/16"]
life_time = "2h"
[[secret]]
ids = ["gw.example.org", "site-a.example.org"]
secret = "0x00ff"
"#;

#[test]
fn a_file_with_what_is_needed_gets_the_defaults() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!(config.cluster.id, 1);
    assert_eq!(config.cluster.mode, Mode::LoadSharing);
    assert_eq!(config.sync.port, 4514);
    assert_eq!(config.table_max_entries, 65_536);
    assert!(config.ike_forwarding && config.forwarding_block);
    let connection = &config.connections[0];
    assert_eq!(connection.children[0].life_time, Duration::from_secs(7200));
    assert_eq!(
        connection.children[0].esp_proposals.len(),
        EspProposal::defaults().len()
    );
    assert_eq!(config.secrets[0].secret.expose(), [0, 0xff]);
}

/// Replaces `from` in the good file by `to` and returns the error.
fn error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Config::parse(&GOOD.replacen(from, to, 1))
        .unwrap_err()
        .to_string()
}

#[test]
fn errors_name_the_key_what_is_wrong_and_what_is_allowed() {
    let cases: [(&str, &str, &[&str]); 15] = [
        ("local = 1", "local = 3", &["cluster.local", "is 3", "1, 2"]),
        ("local = 1", "local = \"x\"", &["cluster.local", "line 3"]),
        ("id = 2", "id = 64", &["cluster.member[1].id", "1 to 63"]),
        ("id = 2", "id = 1", &["cluster.member[1]", "another member"]),
        ("[sync]", "[sync]\nprot = 1", &["sync", "prot", "port"]),
        (
            "[sync]",
            "[ike]\nhalf_open_timeout = \"1x\"\n[sync]",
            &["half_open_timeout", "1x", "30s"],
        ),
        (
            "\"203.0.113.10\"",
            "\"host\"",
            &["cluster.vips[0]", "host", "address"],
        ),
        (
            "public = [\"eth0\"]",
            "public = []",
            &["interfaces.public", "empty"],
        ),
        ("sync = \"eth1\"", "sync = \"eth0\"", &["eth0", "two roles"]),
        (
            "aes128gcm16-prfsha256-x25519",
            "aes128gcm16-prfsha999-x25519",
            &["connection[0].proposals[0]", "prfsha999"],
        ),
        (
            "\"10.1.0.0/16\"",
            "\"10.1.0.0/33\"",
            &["connection[0].children.net.local_ts[0]", "10.1.0.0/33"],
        ),
        (
            "life_time = \"2h\"",
            "life_time = \"1s\"",
            &["life_time", "60s"],
        ),
        (
            "site-a.example.org\"]",
            "other.example.org\"]",
            &["site-a", "secret"],
        ),
        (
            "name = \"site-a\"",
            "name = \"site-a\"\nlocal_addrs = [\"192.0.2.1\"]",
            &["local_addrs", "192.0.2.1", "VIP"],
        ),
        (
            "name = \"site-a\"",
            "name = \"site-a\"\nmobike = true",
            &["connection[0]", "mobike"],
        ),
    ];
    for (from, to, expected) in cases {
        let error = error(from, to);
        for word in expected {
            assert!(error.contains(word), "{to}: \"{word}\" is not in: {error}");
        }
    }
}

#[test]
fn the_membership_has_profiles_and_overrides() {
    let timing = |line: &str| {
        let text = GOOD.replacen("local = 1", &format!("local = 1\n{line}"), 1);
        Config::parse(&text).map(|config| config.cluster.timing)
    };
    assert_eq!(timing("").unwrap(), Timing::DEFAULT);
    assert_eq!(timing("profile = \"fast\"").unwrap(), Timing::FAST);
    let slow = timing("heartbeat = \"200ms\"\nlease = \"800ms\"\nlost = \"2s\"").unwrap();
    assert_eq!(slow.heartbeat, Duration::from_millis(200));
    assert_eq!(slow.silence, Duration::from_secs(2));
    for (line, words) in [
        ("lease = \"120ms\"", ["cluster.lease", "150ms"]),
        ("lost = \"210ms\"", ["cluster.lost", "still be sending"]),
        ("cold_start = \"500ms\"", ["cluster.cold_start", "600ms"]),
        ("heartbeat = \"1ms\"", ["cluster.heartbeat", "5ms to 60s"]),
    ] {
        let error = timing(line).unwrap_err().to_string();
        for word in words {
            assert!(
                error.contains(word),
                "{line}: \"{word}\" is not in: {error}"
            );
        }
    }
}

#[test]
fn every_member_has_an_address_in_each_heartbeat_network() {
    let with = |first: &str, second: &str| {
        let text = GOOD
            .replace(
                "\"10.99.0.1\"",
                &format!("\"10.99.0.1\"\nheartbeat_addresses = {first}"),
            )
            .replace(
                "\"10.99.0.2\"",
                &format!("\"10.99.0.2\"\nheartbeat_addresses = {second}"),
            );
        Config::parse(&text).map_err(|error| error.to_string())
    };
    let config = with("[\"10.1.0.1\"]", "[\"10.1.0.2\"]").unwrap();
    let addresses: Vec<_> = config.cluster.local_member().addresses().collect();
    assert_eq!(
        addresses,
        ["10.99.0.1", "10.1.0.1"].map(|a| a.parse::<IpAddr>().unwrap())
    );
    let error = with("[\"10.1.0.1\"]", "[]").unwrap_err();
    assert!(error.contains("of member 2"), "{error}");
    let error = with("[\"10.1.0.1\"]", "[\"10.99.0.1\"]").unwrap_err();
    assert!(error.contains("cluster.member[1]"), "{error}");
    let error = with("[\"10.99.0.1\"]", "[\"10.1.0.2\"]").unwrap_err();
    assert!(
        error.contains("cluster.member[0].heartbeat_addresses"),
        "{error}"
    );
}

#[test]
fn in_ha_mode_the_vips_float_unless_told_otherwise() {
    let ha = |lines: &str| {
        let text = GOOD.replacen("local = 1", "local = 1\nmode = \"ha\"", 1);
        Config::parse(&text.replacen("[sync]", &format!("{lines}\n[sync]"), 1))
    };
    let config = ha("").unwrap();
    let on = |net: &str, interface: &str| FloatingAddress {
        net: net.parse().unwrap(),
        interface: interface.into(),
    };
    let usual = [
        on("203.0.113.10/32", "eth0"),
        on("2001:db8:1::10/128", "eth0"),
    ];
    assert_eq!(config.floating, usual);
    assert!(config.standing_vips().is_empty());
    let config = ha("[ha]\naddresses = [\"203.0.113.10/24 dev eth0\", \"10.1.0.9/16 dev eth2\"]");
    let config = config.unwrap();
    assert_eq!(config.floating[1], on("10.1.0.9/16", "eth2"));
    assert_eq!(config.standing_vips(), config.cluster.vips[1..]);
    for (line, word) in [
        ("\"203.0.113.10/24\"", "dev interface"),
        ("\"10.1.0.9/16 dev eth1\"", "eth1"),
        ("\"10.99.0.1/24 dev eth0\"", "in use"),
    ] {
        let error = ha(&format!("[ha]\naddresses = [{line}]"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ha.addresses") && error.contains(word),
            "{error}"
        );
    }
    let error = error("[sync]", "[ha]\naddresses = []\n[sync]");
    assert!(error.contains("cluster.mode"), "{error}");
    assert!(Config::parse(GOOD).unwrap().floating.is_empty());
}

#[test]
fn the_digest_covers_what_has_to_be_alike_and_nothing_else() {
    let digest = |from: &str, to: &str| Config::parse(&GOOD.replacen(from, to, 1)).unwrap().digest;
    let good = digest("", "");
    for (from, to) in [
        ("local = 1", "local = 1\nlost = \"400ms\""),
        ("local = 1", "local = 1\ntwo_member = \"consistency\""),
        ("name = \"b\"", "weight = 3"),
        ("10.2.0.0/16", "10.3.0.0/16"),
    ] {
        assert_ne!(digest(from, to), good, "{to}");
    }
    for (from, to) in [
        ("local = 1", "local = 2"),
        ("local = 1", "local = 1\nstate_dir = \"/srv\""),
        ("\"eth2\"", "\"eth3\""),
        ("0x00ff", "0x00fe"),
    ] {
        assert_eq!(digest(from, to), good, "{to}");
    }
}

#[test]
fn the_witness_key_is_read_from_its_file_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("witness.key");
    crate::pki::witness_key(&file, false).unwrap();
    let table = format!(
        "[witness]\naddress = \"192.0.2.99\"\nkey_file = \"{}\"\n[sync]",
        file.display()
    );
    let witness = Config::parse(&GOOD.replacen("[sync]", &table, 1))
        .unwrap()
        .witness
        .unwrap();
    assert_eq!(witness.port, 4516);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!format!("{witness:?}").contains(text.trim()));

    let own = folder.path().join("witness.toml");
    let lines = format!(
        "members = [1, 2]\nlisten = \"192.0.2.99\"\nkey_file = \"{}\"\n",
        file.display()
    );
    std::fs::write(&own, lines).unwrap();
    let theirs = WitnessConfig::load(&own).unwrap();
    assert_eq!(theirs.key.expose(), witness.key.expose());

    std::fs::write(&file, "hush").unwrap();
    let error = Config::parse(&GOOD.replacen("[sync]", &table, 1))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("witness.key_file") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn an_error_never_quotes_a_secret() {
    let error = error("secret = \"0x00ff\"", "secret = \"0xhush-hush\"");
    assert!(
        error.contains("secret[0].secret") && !error.contains("hush"),
        "{error}"
    );
    let error =
        Config::parse(&GOOD.replace("secret = \"0x00ff\"", "secret = \"hush\" hush")).unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn secrets_have_swanctls_forms() {
    for (text, bytes) in [("0xAb01", &[0xab, 1][..]), ("0saGk=", b"hi"), ("hi", b"hi")] {
        let config = Config::parse(&GOOD.replace("0x00ff", text)).unwrap();
        assert_eq!(config.secrets[0].secret.expose(), bytes);
    }
}
