use super::host::{effective, missing};
use super::{Check, Severity, preflight};
use crate::steering::test_config;

#[test]
fn capabilities_are_read_from_the_effective_set() {
    let root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    assert!(missing(effective(root).unwrap(), true).is_empty());
    // CAP_NET_ADMIN and CAP_NET_RAW alone.
    let plain = effective("CapEff:\t0000000000003000").unwrap();
    assert_eq!(missing(plain, true), ["CAP_BPF", "CAP_PERFMON"]);
    assert!(missing(plain, false).is_empty());
    assert_eq!(effective("CapEff: xyz"), None);
    assert_eq!(effective(""), None);
}

#[test]
fn missing_interfaces_are_each_named() {
    let mut config = test_config();
    config.public = vec!["no-such-0".to_owned()];
    config.inside = vec!["no-such-2".to_owned()];
    config.sync = "no-such-1".to_owned();
    let failed: Vec<String> = preflight(&config)
        .into_iter()
        .filter(|check| check.name == "interface" && !check.ok)
        .map(|check| check.subject)
        .collect();
    assert_eq!(failed, ["no-such-0", "no-such-1", "no-such-2"]);
}

#[test]
fn a_check_reads_as_the_command_line_prints_it() {
    let check = Check::failed(
        "rp_filter",
        "eth1",
        Severity::Error,
        "strict".to_owned(),
        "sysctl -w net.ipv4.conf.eth1.rp_filter=2".to_owned(),
    );
    assert_eq!(
        serde_json::to_value(&check).unwrap(),
        serde_json::json!({
            "name": "rp_filter", "subject": "eth1", "ok": false, "severity": "error",
            "message": "strict", "fix": "sysctl -w net.ipv4.conf.eth1.rp_filter=2",
        })
    );
}
