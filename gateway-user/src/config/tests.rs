use gateway_cluster::membership::Timing;
use gateway_ike::config::Uniqueness;
use gateway_ike::mark::{Mark, Marks};
use gateway_ike::proposal::EspProposal;

use super::*;

mod authentication;
mod rest;
mod schema;

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

/// swanctl's defaults, and how what is given shapes what is not.
#[test]
fn lifetimes_follow_from_each_other() {
    let secs = Duration::from_secs;
    let ike = |lines: &str| {
        let text = GOOD.replacen("local = { id", &format!("{lines}\nlocal = {{ id"), 1);
        let connection = Config::parse(&text).unwrap().connections.remove(0);
        let times = (connection.rekey_time, connection.over_time);
        (times, connection.rand_time, connection.dpd_delay)
    };
    let h4 = secs(14_400);
    let off = Duration::ZERO;
    assert_eq!(ike(""), ((h4, h4 / 10), h4 / 10, off));
    assert_eq!(
        ike("rekey_time = \"100s\"\ndpd_delay = 30"),
        ((secs(100), secs(10)), secs(10), secs(30))
    );
    assert_eq!(
        ike("rekey_time = \"100s\"\nover_time = \"20s\""),
        ((secs(100), secs(20)), secs(20), off)
    );
    assert_eq!(
        ike("rekey_time = 100\nrand_time = 0"),
        ((secs(100), secs(10)), off, off)
    );
    assert_eq!(ike("rekey_time = \"0s\""), ((off, off), off, off));

    let child = |lines: &str| {
        let text = GOOD.replacen("life_time = \"2h\"", lines, 1);
        let config = Config::parse(&text).unwrap();
        let child = &config.connections[0].children[0];
        let times = [child.rekey_time, child.life_time, child.rand_time];
        times.map(|time| time.as_secs())
    };
    assert_eq!(child(""), [3600, 3960, 360]);
    assert_eq!(child("life_time = 3300"), [3000, 3300, 300]);
    assert_eq!(child("rekey_time = \"50m\""), [3000, 3300, 300]);
    assert_eq!(
        child("rekey_time = 50\nlife_time = 1000"),
        [50, 1000, 50],
        "never more than rekey_time"
    );
    assert_eq!(
        child("rekey_time = 50\nlife_time = 80\nrand_time = 5"),
        [50, 80, 5]
    );
    assert_eq!(child("rekey_time = 0"), [0, 3960, 0]);
    assert_eq!(child("rekey_time = 0\nlife_time = 100"), [0, 100, 0]);
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
fn lifetimes_out_of_range_or_order_are_errors() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "local = { id",
            "rekey_time = \"5s\"\nlocal = { id",
            &["connection[0].rekey_time", "0 to switch it off", "10s"],
        ),
        (
            "local = { id",
            "rekey_time = 60\nrand_time = 61\nlocal = { id",
            &["connection[0].rand_time", "0s to 60s"],
        ),
        (
            "local = { id",
            "dpd_delay = \"2d\"\nlocal = { id",
            &["connection[0].dpd_delay", "86400s"],
        ),
        (
            "local = { id",
            "over_time = 0\nlocal = { id",
            &["connection[0].over_time", "is \"0\"", "1s"],
        ),
        (
            "life_time = \"2h\"",
            "life_time = \"2h\"\nrekey_time = \"2h\"",
            &["children.net.rekey_time", "is 7200s", "less than life_time"],
        ),
        (
            "life_time = \"2h\"",
            "life_time = 0",
            &["children.net.life_time", "10s"],
        ),
    ];
    for (from, to, words) in cases {
        let error = error(from, to);
        for word in words {
            assert!(error.contains(word), "{error}: no {word}");
        }
    }
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

#[test]
fn what_is_started_by_us() {
    use gateway_ike::config::{CloseAction, DpdAction, StartAction, Volume};
    const LIFE: &str = "life_time = \"2h\"";
    const LOCAL: &str = "local = { id = \"gw.example.org\" }";
    let file = GOOD.replacen(
        LIFE,
        "start_action = \"start\"\nclose_action = \"start\"\ndpd_action = \"restart\"\n\
         rekey_bytes = 1000\nlife_packets = 7",
        1,
    );
    let addressed = file.replacen(
        LOCAL,
        &format!(
            "{LOCAL}\nremote_addrs = [\"198.51.100.1\"]\nkeyingtries = 0\nreauth_time = \"1d\""
        ),
        1,
    );
    let connection = Config::parse(&addressed).unwrap().connections.remove(0);
    let child = &connection.children[0];
    assert_eq!(child.actions.start, StartAction::Start);
    assert_eq!(child.actions.close, CloseAction::Start);
    assert_eq!(child.actions.dpd, DpdAction::Restart);
    let volume = Volume {
        rekey_bytes: 1000,
        rand_bytes: 100,
        life_bytes: 1100,
        life_packets: 7,
        ..Volume::default()
    };
    assert_eq!(child.volume, volume);
    assert_eq!(connection.initiation.keyingtries, 0);
    assert_eq!(
        connection.initiation.reauth_time,
        Duration::from_secs(86_400)
    );
    assert_eq!(connection.destinations().len(), 1);
    // Without an address there is nobody to start with; packets start nothing.
    let nobody = Config::parse(&file).unwrap_err().to_string();
    assert!(nobody.contains("children.net could be started"), "{nobody}");
    for (key, allowed) in [
        ("close_action", "none or start"),
        ("dpd_action", "clear or restart"),
    ] {
        let refused = error(LIFE, &format!("{key} = \"trap\""));
        assert!(
            refused.contains(key) && refused.contains(allowed),
            "{refused}"
        );
    }
    let late = error(LIFE, "rekey_packets = 10\nlife_packets = 10");
    assert!(late.contains("it would end before it is rekeyed"), "{late}");
}

/// The trap stands as long as it is configured, so that "trap" after an end asks for nothing more.
#[test]
fn what_the_first_packet_starts() {
    use gateway_ike::config::{CloseAction, DpdAction, StartAction};
    const LOCAL: &str = "local = { id = \"gw.example.org\" }";
    let file = |child: &str| {
        let addressed = format!("{LOCAL}\nremote_addrs = [\"198.51.100.1\"]");
        let text = GOOD.replacen(LOCAL, &addressed, 1);
        text.replacen("life_time = \"2h\"", child, 1)
    };
    let all = "start_action = \"trap\"\nclose_action = \"trap\"\ndpd_action = \"trap\"";
    let connection = Config::parse(&file(all)).unwrap().connections.remove(0);
    let actions = connection.children[0].actions;
    assert_eq!(
        (actions.start, actions.close, actions.dpd),
        (StartAction::Trap, CloseAction::None, DpdAction::Clear)
    );
    // Nobody to ask.
    let nobody = GOOD.replacen("life_time = \"2h\"", all, 1);
    let nobody = Config::parse(&nobody).unwrap_err().to_string();
    assert!(nobody.contains("children.net could be started"), "{nobody}");
    // With the tunnel's own address it has to be known.
    let dynamic = |text: String| text.replacen("[\"10.2.0.0/16\"]", "[\"dynamic\"]", 1);
    assert!(Config::parse(&dynamic(file(all))).is_ok());
    let several = file(all).replacen(".1\"]", ".1\", \"198.51.100.2\"]", 1);
    assert!(Config::parse(&several).is_ok());
    let several = Config::parse(&dynamic(several)).unwrap_err().to_string();
    assert!(
        several.contains("net.start_action") && several.contains("a single address"),
        "{several}"
    );
    let wide = file(all).replacen("remote_ts = [", "remote_ts = [\"0.0.0.0/0\", ", 1);
    let wide = Config::parse(&wide).unwrap_err().to_string();
    assert!(
        wide.contains("start_action") && wide.contains("if_id_out"),
        "{wide}"
    );
}

#[test]
fn replay_windows_from_none_to_the_kernels_widest() {
    let child = |line: &str| {
        let text = GOOD.replacen("life_time", &format!("{line}\nlife_time"), 1);
        Config::parse(&text).map(|config| {
            let child = &config.connections[0].children[0];
            assert!(child.replay_window > 0 || child.esp_proposals.iter().all(|suite| !suite.esn));
            child.replay_window
        })
    };
    assert_eq!(child("").unwrap(), 32);
    assert_eq!(child("replay_window = 0").unwrap(), 0);
    assert_eq!(child("replay_window = 4096").unwrap(), 4096);
    for (line, words) in [
        ("replay_window = 4097", ["replay_window", "0 to 4096"]),
        (
            "replay_window = 0\nesp_proposals = [\"aes128gcm16-esn\"]",
            ["replay_window", "esn"],
        ),
        (
            "hw_offload = \"packet\"",
            ["hw_offload", "sequence numbers"],
        ),
        ("hw_offload = \"auto\"", ["hw_offload", "cluster"]),
    ] {
        let error = child(line).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{line}: {error}");
        }
    }
    assert_eq!(child("hw_offload = \"no\"").unwrap(), 32);
}

fn with_marks(lines: &str) -> Result<Marks, String> {
    let text = GOOD.replacen("life_time = \"2h\"", lines, 1);
    let config = Config::parse(&text).map_err(|error| error.to_string())?;
    Ok(config.connections[0].children[0].marks)
}

#[test]
fn marks_are_swanctls() {
    assert_eq!(with_marks(""), Ok(Marks::default()));
    let marks = with_marks(
        "mark_in = \"42\"\nmark_in_sa = true\nmark_out = \"0x2b/0xff\"\n\
         set_mark_in = \"%same\"\nset_mark_out = \"%same/0xfffc00ff\"",
    );
    let expected = Marks {
        inbound: Mark::new(42, u32::MAX),
        inbound_sa: true,
        outbound: Mark::new(0x2b, 0xff),
        set_in: Mark::new(42, u32::MAX),
        set_out: Mark::new(0x2b, 0xfffc_00ff),
    };
    assert_eq!(marks, Ok(expected));
    // Bits of ours in the mask alone: packets that are not encrypted yet have none of them.
    assert!(with_marks("mark_out = \"0xff/0xffffff\"").is_ok());
}

#[test]
fn marks_that_the_gateway_needs_itself_are_refused_with_the_free_bits() {
    for (line, problem) in [
        ("mark_in = \"0x100\"", "values of the free bits, 0xfffc00ff"),
        (
            "mark_out = \"0x20000/0xf0000\"",
            "values of the free bits, 0xfffc00ff",
        ),
        (
            "set_mark_in = \"0x1ff\"",
            "values of the free bits, 0xfffc00ff",
        ),
        ("set_mark_out = \"42\"", "like \"0x2a/0xfffc00ff\""),
        ("mark_in = \"%unique\"", "a mark of its own for each child"),
        (
            "mark_out = \"%unique-dir\"",
            "a mark of its own for each child",
        ),
        ("mark_in = \"red\"", "a mark like \"42\""),
        ("mark_in_sa = true", "there is no mark_in"),
    ] {
        let error = with_marks(line).unwrap_err();
        let key = line.split(' ').next().unwrap();
        assert!(error.contains(&format!("children.net.{key}")), "{error}");
        assert!(error.contains(problem), "{line}: {error}");
    }
}
