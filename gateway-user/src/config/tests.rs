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
