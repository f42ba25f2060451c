use gateway_cluster::membership::Timing;
use gateway_ike::config::Uniqueness;
use gateway_ike::mark::{Mark, Marks};
use gateway_ike::proposal::EspProposal;

use super::*;

mod authentication;
mod kernel;
mod lifetimes;
mod rest;
mod schema;
mod start;

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

/// What an operator copies has to work, and the defaults that it names have to be the defaults.
#[test]
fn the_example_is_good() {
    const EXAMPLE: &str = include_str!("../../../deploy/gateway.toml");
    let file = "secret_file = \"/etc/gateway/psk/site-a\"";
    assert!(EXAMPLE.contains(file));
    let config = Config::parse(&EXAMPLE.replacen(file, "secret = \"psk\"", 1)).unwrap();
    let silent = Config::parse(GOOD.replacen("life_time = \"2h\"", "", 1).as_str()).unwrap();
    let times = |config: &Config| {
        let connection = &config.connections[0];
        let child = &connection.children[0];
        (
            (connection.rekey_time, connection.over_time),
            (connection.rand_time, connection.unique),
            (child.rekey_time, child.life_time, child.rand_time),
        )
    };
    assert_eq!(times(&config), times(&silent));
}

#[test]
fn uniqueness_has_swanctls_words() {
    let unique = |line: &str| {
        let text = GOOD.replacen("local = { id", &format!("{line}\nlocal = {{ id"), 1);
        Config::parse(&text).map(|config| config.connections[0].unique)
    };
    assert_eq!(unique("").unwrap(), Uniqueness::No);
    for (word, meaning) in [
        ("never", Uniqueness::Never),
        ("no", Uniqueness::No),
        ("keep", Uniqueness::Keep),
        ("replace", Uniqueness::Replace),
    ] {
        let line = format!("unique = \"{word}\"");
        assert_eq!(unique(&line).unwrap(), meaning);
    }
    let error = unique("unique = \"yes\"").unwrap_err().to_string();
    assert!(
        error.contains("unique") && error.contains("replace"),
        "{error}"
    );
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
            &["life_time", "10s"],
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
            "name = \"site-a\"\nmobile = true",
            &["connection[0]", "mobile"],
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
        ("life_time = \"2h\"", "rekey_time = 100"),
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

#[test]
fn transport_has_swanctls_words_and_defaults() {
    use gateway_ike::config::{Childless, Fragmentation, Gateway, Transport};
    let transport = |line: &str| {
        let text = GOOD.replacen("[[connection]]\n", &format!("[[connection]]\n{line}\n"), 1);
        Config::parse(&text).map(|config| config.connections[0].transport.clone())
    };
    assert_eq!(transport("").unwrap(), Transport::default());
    for (line, expected) in [
        (
            "fragmentation = \"accept\"\nfragment_size = 576",
            Transport {
                fragmentation: Fragmentation::Accept,
                fragment_size: 576,
                ..Transport::default()
            },
        ),
        (
            "encap = true\nkeepalive = \"7s\"\nmobike = false",
            Transport {
                encap: true,
                keepalive: Duration::from_secs(7),
                mobike: false,
                ..Transport::default()
            },
        ),
        (
            "keepalive = 0\nchildless = \"force\"\nredirect_to = \"gw2.example.org\"",
            Transport {
                keepalive: Duration::ZERO,
                childless: Childless::Force,
                redirect_to: Some(Gateway::Fqdn("gw2.example.org".into())),
                ..Transport::default()
            },
        ),
        (
            "redirect_to = \"2001:db8::1\"\nfollow_redirects = false",
            Transport {
                redirect_to: Some(Gateway::Address("2001:db8::1".parse().unwrap())),
                follow_redirects: false,
                ..Transport::default()
            },
        ),
    ] {
        assert_eq!(transport(line).unwrap(), expected, "{line}");
    }
    for (line, words) in [
        ("fragment_size = 199", ["fragment_size", "200 to 65535"]),
        ("fragmentation = \"maybe\"", ["fragmentation", "accept"]),
        ("childless = \"yes\"", ["childless", "never"]),
        ("keepalive = \"2h\"", ["keepalive", "3600s"]),
        ("redirect_to = \"10.0.0\"", ["redirect_to", "domain name"]),
        ("redirect_to = \"a b\"", ["redirect_to", "domain name"]),
    ] {
        let error = transport(line).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}

#[test]
fn who_decides_about_peers() {
    use gateway_ike::config::Authorization;
    let authorization = |lines: &str| {
        let text = GOOD.replacen("[[connection]]\n", &format!("[[connection]]\n{lines}\n"), 1);
        Config::parse(&text).map(|config| config.connections[0].auth.authorization.clone())
    };
    assert_eq!(authorization("").unwrap(), None);
    let by = "/run/gateway-authorize/socket";
    for (lines, seconds) in [("", 10), ("authorize_timeout = \"3s\"", 3)] {
        let found = authorization(&format!("authorize = \"{by}\"\n{lines}")).unwrap();
        let expected = Authorization {
            by: by.to_owned(),
            patience: Duration::from_secs(seconds),
        };
        assert_eq!(found, Some(expected));
    }
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&open, mode).unwrap();
    let long = format!("/run/{}", "x".repeat(110));
    for (path, words) in [
        ("socket", "not an absolute path"),
        ("/etc/passwd", "is not a socket"),
        (&*long, "longer than a socket's path"),
        (
            &*open.join("s").display().to_string(),
            "others than root can change",
        ),
    ] {
        let error = authorization(&format!("authorize = \"{path}\""))
            .unwrap_err()
            .to_string();
        for word in ["connection[0].authorize", words, "/run/gateway-authorize"] {
            assert!(error.contains(word), "{path}: {error}");
        }
    }
    for (lines, words) in [
        ("authorize_timeout = \"3s\"", "authorize is not"),
        (
            "authorize = \"/run/a\"\nauthorize_timeout = \"2m\"",
            "100ms to 60s",
        ),
    ] {
        let error = authorization(lines).unwrap_err().to_string();
        assert!(
            error.contains("authorize_timeout") && error.contains(words),
            "{error}"
        );
    }
}

#[test]
fn what_happens_after_a_takeover() {
    let usual = Config::parse(GOOD).unwrap();
    assert!(!usual.takeover.rekeys());
    assert_eq!(usual.takeover.checks_per_second, 200);
    for (policy, rekeys) in [("learn", false), ("strict", true), ("rekey", true)] {
        let text = format!("{GOOD}\n[takeover]\ninbound = \"{policy}\"");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.takeover.rekeys(), rekeys);
        // Members that treat the peers' packets differently are told apart.
        assert_eq!(config.digest == usual.digest, policy == "learn");
    }
    let error = error("[sync]", "[takeover]\nrekeys_per_second = 0\n[sync]");
    assert!(error.contains("takeover.rekeys_per_second"), "{error}");
}
