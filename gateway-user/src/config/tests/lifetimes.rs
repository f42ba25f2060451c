//! Lifetimes and rekeying.

use super::*;

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
