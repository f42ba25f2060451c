//! `[rest]`.

use std::os::unix::fs::PermissionsExt;

use super::super::{Config, Role};

fn parse(text: &str) -> Result<super::super::Rest, String> {
    let config = Config::parse(&format!("{}\n[rest]\n{text}", super::GOOD));
    config
        .map(|config| config.rest.unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn by_default_there_is_a_socket_for_root_alone() {
    let rest = parse("").unwrap();
    assert_eq!(rest.socket, Some("/run/gateway/rest.sock".into()));
    assert_eq!((rest.mode, rest.group, rest.rate), (0o600, None, 200));
    assert!(rest.tls.is_none() && rest.access.group_role.is_none());
    assert!(parse("socket = \"\"").unwrap().socket.is_none());
    let shared = parse("group = 990\ngroup_role = \"operate\"").unwrap();
    assert_eq!(
        (shared.mode, shared.access.group_role),
        (0o660, Some(Role::Operate))
    );
}

#[test]
fn tcp_is_never_without_tls_and_somebody_who_may() {
    for wrong in [
        "listen = \"127.0.0.1:1\"",
        "listen = \"127.0.0.1:1\"\ncertificate = \"a\"\nkey = \"b\"",
        "listen = \"127.0.0.1:1\"\ncertificate = \"a\"",
        "[[rest.client]]\ncn = \"x\"\nrole = \"read\"",
        "rate = 0",
        "listen = \"127.0.0.1:1\"\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n\
         [[rest.client]]\nrole = \"admin\"",
        "listen = \"127.0.0.1:1\"\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n\
         [[rest.client]]\nfingerprint = \"12\"\nrole = \"admin\"",
    ] {
        let error = parse(wrong).unwrap_err();
        assert!(error.contains("rest."), "{wrong}: {error}");
    }
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let text = format!(
        "listen = \"127.0.0.1:1\"\ncertificate = \"a\"\nkey = \"b\"\n\
         [[rest.token]]\nname = \"x\"\nrole = \"read\"\nfile = \"{}\"",
        file.display()
    );
    let write = |token: &str, mode| {
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        parse(&text)
    };
    let good = "0123456789abcdef0123456789abcdef";
    let rest = write(&format!("{good}\n"), 0o600).unwrap();
    assert_eq!(rest.access.tokens[0].secret.expose(), good.as_bytes());
    for (token, mode, fix) in [
        (good, 0o644, "chmod 600"),
        (good, 0o620, "chmod 600"),
        ("short", 0o600, "openssl rand"),
    ] {
        let error = write(token, mode).unwrap_err();
        assert!(error.contains(fix), "{error}");
        assert!(!error.contains(good), "{error}");
    }
}
