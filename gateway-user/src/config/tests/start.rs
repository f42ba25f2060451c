//! What begins a tunnel, and what is begun again.

use super::*;

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
