//! Connections in the words of swanctl.conf, as they come over VICI: brought into the shape of a
//! `[[connection]]` and checked as one.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use gateway_ike::config::{Connection, Ppk};
use gateway_ike::signature::SigningKey;
use gateway_ike::x509::Certificate;
use gateway_vici::{Item, Section, Value, from_section};

use super::authentication::Store;
use super::connection::check_connection;
use super::error::ConfigError;
use super::files::Folder;
use super::raw;

/// What connections authenticate with.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Our private keys.
    pub keys: Vec<Arc<dyn SigningKey>>,
    /// Certification authorities.
    pub authorities: Vec<Arc<Certificate>>,
    /// Post-quantum pre-shared keys.
    pub ppks: Vec<Ppk>,
}

/// A key of swanctl.conf that only has an effect which this gateway does not have: the values with
/// which it has none, and what to do instead of others.
type Fixed = (&'static str, &'static [&'static str], &'static str);

const IKEV1: &str = "this is about IKEv1, which is not supported: leave it out";
const VIRTUAL: &str = "virtual addresses are not supported yet: leave it out";
const NONE: &str = "this is not supported: leave it out";

const CONNECTION: &[Fixed] = &[
    ("version", &["0", "2"], "only IKEv2 is spoken: use 2"),
    ("aggressive", &["no"], IKEV1),
    ("pull", &["yes"], IKEV1),
    ("dpd_timeout", &["0", "0s"], IKEV1),
    ("send_certreq", &["yes"], NONE),
    ("vips", &[], VIRTUAL),
    ("pools", &[], VIRTUAL),
    (
        "local_port",
        &["500"],
        "it is always 500, and 4500 behind a NAT: leave it out",
    ),
    (
        "remote_port",
        &["500"],
        "it is always 500, and 4500 behind a NAT: leave it out",
    ),
    ("dscp", &["0", "000000"], NONE),
    ("mediation", &["no"], NONE),
    ("if_id_in", &["0"], "use that of the children"),
    ("if_id_out", &["0"], "use that of the children"),
];

const CHILD: &[Fixed] = &[
    (
        "mode",
        &["tunnel"],
        "only tunnel mode is supported: use tunnel",
    ),
    ("policies", &["yes"], "the gateway needs them: use yes"),
    ("policies_fwd_out", &["no"], NONE),
    (
        "ah_proposals",
        &[],
        "AH is not supported: use esp_proposals",
    ),
    ("ipcomp", &["no"], NONE),
    ("inactivity", &["0", "0s"], NONE),
    (
        "updown",
        &[],
        "scripts are not run: listen to the events child-updown instead",
    ),
    ("hostaccess", &["no", "yes"], NONE),
    ("reqid", &["0"], "the gateway draws it: leave it out"),
    ("priority", &["0"], NONE),
    ("interface", &[], "use if_id_in and if_id_out"),
    ("tfc_padding", &["0"], NONE),
    ("sha256_96", &["no"], NONE),
    ("copy_df", &["yes"], NONE),
    ("copy_ecn", &["yes"], NONE),
    ("copy_dscp", &["out"], NONE),
    ("label", &[], NONE),
    ("label_mode", &["system"], NONE),
];

const AUTH: &[Fixed] = &[
    (
        "round",
        &["0", "1"],
        "only one round of authentication is supported",
    ),
    (
        "eap_id",
        &[],
        "EAP is not supported yet: use auth = psk or pubkey",
    ),
    (
        "aaa_id",
        &[],
        "EAP is not supported yet: use auth = psk or pubkey",
    ),
    ("xauth_id", &[], IKEV1),
    ("groups", &[], NONE),
    ("cert_policy", &[], NONE),
    ("ca_id", &[], "use cacerts"),
    (
        "pubkeys",
        &[],
        "raw public keys are not supported: use certs",
    ),
];

/// Octets and packets may be written with a factor.
const VOLUMES: [&str; 6] = [
    "rekey_bytes",
    "life_bytes",
    "rand_bytes",
    "rekey_packets",
    "life_packets",
    "rand_packets",
];

/// A connection as `load-conn` has it.
///
/// # Errors
/// What is wrong with it or not supported, with the key's path and what to do.
pub fn connection(
    name: &str,
    section: &Section,
    vips: &[IpAddr],
    credentials: &Credentials,
) -> Result<Connection, ConfigError> {
    let key = format!("connections.{name}");
    let mut shaped = shape(&key, section)?;
    shaped.push("name", Item::Value(name.into()));
    let raw: raw::Connection =
        serde_path_to_error::deserialize(from_section(&shaped)).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." {
                key.clone()
            } else {
                format!("{key}.{path}")
            };
            let allowed = "the keys of deploy/gateway.toml, which are swanctl's";
            ConfigError::new(path, error.into_inner().to_string(), allowed)
        })?;
    let store = Store::loaded(Folder(Path::new("")), credentials);
    check_connection(&key, raw, vips, &store)
}

fn shape(key: &str, section: &Section) -> Result<Section, ConfigError> {
    let mut shaped = Section::new();
    for (name, item) in section.entries() {
        let here = format!("{key}.{name}");
        let side = ["local", "remote"].into_iter().find(|side| {
            let rest = name.strip_prefix(side);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        match (name, item, side) {
            ("children", Item::Section(children), _) => {
                let mut all = Section::new();
                for (child, section) in children.sections() {
                    let shape = shape_child(&format!("{here}.{child}"), section)?;
                    all.push(child, Item::Section(shape));
                }
                shaped.push(name, Item::Section(all));
            }
            (_, Item::Section(auth), Some(side)) => {
                if shaped.get(side).is_some() {
                    return Err(unsupported(
                        &here,
                        "is a second round",
                        "only one round of authentication is supported",
                    ));
                }
                shaped.push(side, Item::Section(shape_auth(&here, auth)?));
            }
            _ if is_fixed(&here, name, item, CONNECTION)? => {}
            ("local_addrs", item, _) => shaped.push(name, without_any(item)),
            _ => shaped.push(name, item.clone()),
        }
    }
    for side in ["local", "remote"] {
        if shaped.get(side).is_none() {
            return Err(unsupported(
                &format!("{key}.{side}"),
                "is missing",
                "a section with auth = psk or pubkey",
            ));
        }
    }
    Ok(shaped)
}

fn shape_child(key: &str, section: &Section) -> Result<Section, ConfigError> {
    let mut shaped = Section::new();
    for (name, item) in section.entries() {
        let here = format!("{key}.{name}");
        if is_fixed(&here, name, item, CHILD)? {
            continue;
        }
        match item {
            Item::Value(value) if VOLUMES.contains(&name) => {
                shaped.push(name, Item::Value(volume(&here, value)?));
            }
            _ => shaped.push(name, item.clone()),
        }
    }
    for side in ["local_ts", "remote_ts"] {
        if shaped.get(side).is_none() {
            shaped.push(side, Item::List(vec!["dynamic".into()]));
        }
    }
    Ok(shaped)
}

fn shape_auth(key: &str, section: &Section) -> Result<Section, ConfigError> {
    let mut shaped = Section::new();
    for (name, item) in section.entries() {
        let here = format!("{key}.{name}");
        if is_fixed(&here, name, item, AUTH)? {
            continue;
        }
        let text = match item {
            Item::Value(value) => value.text(),
            Item::List(_) | Item::Section(_) => None,
        };
        if name == "auth"
            && let Some(text) = text
            && (text.starts_with("eap") || text.starts_with("xauth"))
        {
            return Err(unsupported(
                &here,
                &format!("is {text}: not supported yet"),
                "psk or pubkey",
            ));
        }
        // Any identity is what no key stands for.
        if name != "id" || text != Some("%any") {
            shaped.push(name, item.clone());
        }
    }
    if shaped.get("auth").is_none() {
        shaped.push("auth", Item::Value("pubkey".into()));
    }
    Ok(shaped)
}

/// Whether it is a key that has no effect here with this value.
fn is_fixed(key: &str, name: &str, item: &Item, table: &[Fixed]) -> Result<bool, ConfigError> {
    let Some((_, allowed, advice)) = table.iter().find(|(known, ..)| *known == name) else {
        return Ok(false);
    };
    let text = match item {
        Item::Value(value) => value.text(),
        Item::List(_) | Item::Section(_) => None,
    };
    match text {
        Some(text) if allowed.contains(&text) => Ok(true),
        Some(text) => Err(unsupported(key, &format!("is {text}"), advice)),
        None => Err(unsupported(key, "is there", advice)),
    }
}

fn unsupported(key: &str, problem: &str, advice: &str) -> ConfigError {
    ConfigError::new(key, problem, advice)
}

/// `%any` is what an empty list stands for.
fn without_any(item: &Item) -> Item {
    match item {
        Item::List(values) => {
            let named = values.iter().filter(|value| value.text() != Some("%any"));
            Item::List(named.cloned().collect())
        }
        Item::Value(_) | Item::Section(_) => item.clone(),
    }
}

/// `500M` as 524288000, as swanctl takes it.
fn volume(key: &str, value: &Value) -> Result<Value, ConfigError> {
    let text = value.text().unwrap_or_default();
    let (number, shift) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 10),
        Some('m' | 'M') => (&text[..text.len() - 1], 20),
        Some('g' | 'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = number.parse().ok();
    let total = number.and_then(|number| number.checked_mul(1 << shift));
    match total {
        Some(total) => Ok(total.to_string().into()),
        None => Err(ConfigError::new(
            key,
            "is no amount",
            "a number, with k, m or g behind it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn psk(id: &str) -> Section {
        Section::new().with("auth", "psk").with("id", id)
    }

    fn child() -> Section {
        Section::new()
            .with_list("local_ts", ["10.1.0.0/16"])
            .with_list("remote_ts", ["10.2.0.0/16"])
    }

    fn site(child: Section) -> Section {
        Section::new()
            .with("version", 2)
            .with_list("local_addrs", ["%any"])
            .with_list("proposals", ["aes128gcm16-prfsha256-x25519", "default"])
            .with("mobike", "no")
            .with("rekey_time", "2h")
            .with_section("local-1", psk("gw.example.org"))
            .with_section("remote", psk("%any"))
            .with_section("children", Section::new().with_section("net", child))
    }

    fn check(section: &Section) -> Result<Connection, String> {
        let vips = ["203.0.113.10".parse().unwrap()];
        connection("site", section, &vips, &Credentials::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_swanctl_sends_is_a_connection() {
        let child = child()
            .with("mode", "tunnel")
            .with("rekey_bytes", "500M")
            .with("policies", "yes")
            .with("start_action", "none");
        let connection = check(&site(child)).unwrap();
        assert_eq!(connection.name, "site");
        assert!(connection.local_addrs.is_empty());
        assert!(connection.proposals.len() > 1, "without the default");
        assert_eq!(connection.rekey_time.as_secs(), 7200);
        assert_eq!(
            connection.remote_id,
            gateway_ike::identity::IdentityPattern::Any
        );
        let child = &connection.children[0];
        assert_eq!(
            (child.name.as_str(), child.volume.rekey_bytes),
            ("net", 500 << 20)
        );
    }

    #[test]
    fn without_selectors_they_are_the_tunnels_own_addresses() {
        let selectors = |child| {
            let connection = check(&site(child)).unwrap();
            let child = &connection.children[0];
            [&child.local_ts, &child.remote_ts].map(|ts| {
                let texts: Vec<String> = ts.iter().map(ToString::to_string).collect();
                texts.join(" ")
            })
        };
        assert_eq!(selectors(Section::new()), ["dynamic", "dynamic"]);
        let child = Section::new().with_list("remote_ts", ["dynamic[tcp/443]", "10.2.0.0/16"]);
        let both = ["dynamic", "dynamic[tcp/443] 10.2.0.0/16"];
        assert_eq!(selectors(child), both);
    }

    #[test]
    fn marks_load() {
        let child = child()
            .with("mark_in", "42")
            .with("mark_in_sa", "yes")
            .with("set_mark_in", "%same");
        let marks = check(&site(child)).unwrap().children[0].marks;
        assert_eq!(marks.of_inbound_sa().value, 42);
        assert_eq!((marks.set_in.value, marks.outbound.is_none()), (42, true));
    }

    #[test]
    fn what_is_not_there_is_named_with_its_path_and_what_to_do() {
        let with = |change: &dyn Fn(Section) -> Section| check(&change(site(child()))).unwrap_err();
        let cases = [
            (
                with(&|site| site.with_list("vips", ["0.0.0.0"])),
                "connections.site.vips is there (allowed: virtual addresses are not supported yet: \
                 leave it out)",
            ),
            (
                with(&|mut site| {
                    site.replace("version", Item::Value("1".into()));
                    site
                }),
                "connections.site.version is 1 (allowed: only IKEv2 is spoken: use 2)",
            ),
            (
                with(&|site| site.with_section("local-2", psk("second"))),
                "connections.site.local-2 is a second round",
            ),
            (
                with(&|mut site| {
                    site.replace(
                        "remote",
                        Item::Section(Section::new().with("auth", "eap-tls")),
                    );
                    site
                }),
                "connections.site.remote.auth is eap-tls: not supported yet (allowed: psk or pubkey)",
            ),
            (
                with(&|site| site.with("nonsense", 1)),
                "connections.site.nonsense unknown field `nonsense`",
            ),
            (
                check(&site(child().with("mode", "transport"))).unwrap_err(),
                "connections.site.children.net.mode is transport (allowed: only tunnel mode",
            ),
            (
                check(&site(child().with("updown", "/bin/x"))).unwrap_err(),
                "connections.site.children.net.updown is /bin/x (allowed: scripts are not run",
            ),
            (
                check(&site(child().with("start_action", "trap"))).unwrap_err(),
                "connections.site.remote_addrs has no single address to which children.net could be \
                 started",
            ),
            (
                check(&site(child().with("close_action", "trap"))).unwrap_err(),
                "connections.site.children.net.close_action is \"trap\", and start_action is not",
            ),
        ];
        for (error, wanted) in cases {
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
