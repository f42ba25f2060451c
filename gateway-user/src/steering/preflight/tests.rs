use super::{Check, Severity, preflight};
use crate::steering::test_config;

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
