//! `[[connection]]` and `[[secret]]`, in the engine's own types.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use gateway_ike::config::{
    Actions, ChildConfig, CloseAction, Connection, DpdAction, Initiation, LocalAuth, RemoteAddress,
    RemoteAuth, Secret, StartAction, Uniqueness,
};
use gateway_ike::identity::{Identity, IdentityPattern};
use gateway_ike::output::TrafficSelector;
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::selector::{self, SelectorConfig};
use zeroize::Zeroizing;

use super::authentication::{self, Store};
use super::error::ConfigError;
use super::files::Folder;
use super::{lifetimes, marks, raw, transport, value};

const IKE_EXAMPLE: &str = "encryption-prf-group, like \"aes256gcm16-prfsha384-ecp256\", or \
    encryption-integrity-group, like \"aes128-sha256-modp2048\"";
const ESP_EXAMPLE: &str = "encryption, then a group for PFS, then additional key exchanges, like \
    \"aes128gcm16\", \"aes256gcm16-x25519\" or \"aes256gcm16-x25519-ke1_mlkem768\"";
const TS_EXAMPLE: &str = "a prefix like \"10.1.0.0/16\" or \"2001:db8::/32\", or \"dynamic\" for the tunnel's own address, \
     with \"[tcp/443]\" behind it if need be";

pub(super) fn check_connections(
    raw: Vec<raw::Connection>,
    vips: &[IpAddr],
    store: &Store<'_>,
) -> Result<Vec<Arc<Connection>>, ConfigError> {
    let mut found: Vec<Arc<Connection>> = Vec::with_capacity(raw.len());
    for (index, connection) in raw.into_iter().enumerate() {
        let connection =
            check_connection(&format!("connection[{index}]"), connection, vips, store)?;
        if found.iter().any(|other| other.name == connection.name) {
            return Err(ConfigError::new(
                format!("connection[{index}].name"),
                format!("\"{}\" names two connections", connection.name),
                "a name of its own for every [[connection]]",
            ));
        }
        found.push(Arc::new(connection));
    }
    Ok(found)
}

pub(super) fn check_connection(
    key: &str,
    raw: raw::Connection,
    vips: &[IpAddr],
    store: &Store<'_>,
) -> Result<Connection, ConfigError> {
    let times = lifetimes::ike(key, &raw)?;
    let transport = transport::check(key, &raw)?;
    let name = value::name(&format!("{key}.name"), raw.name.clone())?;
    let local_addrs = value::addresses(&format!("{key}.local_addrs"), &raw.local_addrs)?;
    if let Some(foreign) = local_addrs.iter().find(|address| !vips.contains(address)) {
        return Err(ConfigError::new(
            format!("{key}.local_addrs"),
            format!("{foreign} is not a VIP of this cluster"),
            format!("addresses of cluster.vips: {}", value::list(vips)),
        ));
    }
    let source_addrs = if local_addrs.is_empty() {
        vips.to_vec()
    } else {
        local_addrs.clone()
    };
    let own_address = local_addrs.first().or(vips.first()).copied();
    let auth = store.authentication(key, &raw)?;
    let default_id = authentication::default_id(&auth).or(own_address.map(Identity::Ip));
    let local_id = match (&raw.local.id, default_id) {
        (Some(text), _) => identity(&format!("{key}.local.id"), text)?,
        (None, Some(identity)) => identity,
        (None, None) => {
            return Err(ConfigError::new(
                format!("{key}.local.id"),
                "is missing",
                "an identity",
            ));
        }
    };
    authentication::check_local_id(key, &auth, &local_id)?;
    let remote_id = match raw.remote.id.as_deref() {
        None => IdentityPattern::Any,
        Some(text) => identity(&format!("{key}.remote.id"), text)?,
    };
    let connection = Connection {
        name,
        local_addrs,
        remote_addrs: remote_addresses(&format!("{key}.remote_addrs"), &raw.remote_addrs)?,
        proposals: suites(
            &format!("{key}.proposals"),
            &raw.proposals,
            IKE_EXAMPLE,
            IkeProposal::parse,
            IkeProposal::defaults,
        )?,
        local_id,
        remote_id,
        auth,
        children: check_children(key, raw.children)?,
        rekey_time: times.rekey_time,
        over_time: times.over_time,
        rand_time: times.rand_time,
        dpd_delay: times.dpd_delay,
        unique: match raw.unique {
            raw::Unique::Never => Uniqueness::Never,
            raw::Unique::No => Uniqueness::No,
            raw::Unique::Keep => Uniqueness::Keep,
            raw::Unique::Replace => Uniqueness::Replace,
        },
        transport,
        initiation: Initiation {
            source_addrs,
            keyingtries: raw.keyingtries,
            reauth_time: times.reauth_time,
        },
    };
    can_be_initiated(key, &connection)?;
    Ok(connection)
}

/// What is to be started needs somebody to start it with.
fn can_be_initiated(key: &str, connection: &Connection) -> Result<(), ConfigError> {
    let begins = |child: &&Arc<ChildConfig>| {
        let Actions { start, close, dpd } = child.actions;
        start != StartAction::None || close == CloseAction::Start || dpd == DpdAction::Restart
    };
    match connection.children.iter().find(begins) {
        Some(child) if connection.destinations().is_empty() => Err(ConfigError::new(
            format!("{key}.remote_addrs"),
            format!(
                "has no single address to which children.{} could be started",
                child.name
            ),
            "an address of a family of which we have one, too",
        )),
        _ => traps_are_known(key, connection),
    }
}

/// A trap is a policy that stands before its tunnel does: with the tunnel's own addresses as
/// selectors there may be no choice of them.
fn traps_are_known(key: &str, connection: &Connection) -> Result<(), ConfigError> {
    let trapped = |child: &&Arc<ChildConfig>| {
        let mut selectors = child.local_ts.iter().chain(&child.remote_ts);
        child.actions.start == StartAction::Trap && selectors.any(SelectorConfig::is_dynamic)
    };
    match connection.children.iter().find(trapped) {
        Some(child) if connection.destinations().len() != 1 => Err(ConfigError::new(
            format!("{key}.children.{}.start_action", child.name),
            "is \"trap\", and with \"dynamic\" selectors nobody knows what to catch: remote_addrs \
             has several addresses",
            "a single address in remote_addrs, networks in local_ts and remote_ts, or start",
        )),
        _ => Ok(()),
    }
}

fn check_children(
    key: &str,
    raw: BTreeMap<String, raw::Child>,
) -> Result<Vec<Arc<ChildConfig>>, ConfigError> {
    raw.into_iter()
        .map(|(name, child)| {
            let key = format!("{key}.children.{name}");
            let name = value::name(&key, name)?;
            check_child(&key, name, &child).map(Arc::new)
        })
        .collect()
}

fn check_child(key: &str, name: String, raw: &raw::Child) -> Result<ChildConfig, ConfigError> {
    let local_ts = selectors(&format!("{key}.local_ts"), &raw.local_ts)?;
    let remote_ts = selectors(&format!("{key}.remote_ts"), &raw.remote_ts)?;
    selector::validate(&local_ts, &remote_ts).map_err(|error| {
        ConfigError::new(
            key,
            error.to_string(),
            "selectors that one CHILD_SA can carry",
        )
    })?;
    let marks = marks::check(key, raw)?;
    let mut fixed = remote_ts.iter().filter_map(SelectorConfig::fixed);
    let everything = fixed.any(|ts| is_everything(&ts));
    let chosen = raw.if_id_out != 0 || !marks.outbound.is_none();
    if matches!(raw.start_action, raw::StartAction::Trap) && !chosen && everything {
        return Err(ConfigError::new(
            format!("{key}.start_action"),
            "is \"trap\", and remote_ts is everything: packets to the other members would be caught, \
             too",
            "an if_id_out or mark_out, narrower remote_ts, or start",
        ));
    }
    let times = lifetimes::child(key, raw)?;
    refuse_offload(key, raw.hw_offload)?;
    let mut esp_proposals = suites(
        &format!("{key}.esp_proposals"),
        &raw.esp_proposals,
        ESP_EXAMPLE,
        EspProposal::parse,
        EspProposal::defaults,
    )?;
    if raw.replay_window == 0 && raw.esp_proposals.is_empty() {
        // Only those that the operator asks for by name contradict it.
        esp_proposals.retain(|suite| !suite.esn);
    }
    Ok(ChildConfig {
        name,
        local_ts,
        remote_ts,
        life_time: times.life_time,
        rekey_time: times.rekey_time,
        rand_time: times.rand_time,
        replay_window: replay_window(key, raw.replay_window, &esp_proposals)?,
        esp_proposals,
        if_id_in: raw.if_id_in,
        if_id_out: raw.if_id_out,
        marks,
        actions: actions(key, raw)?,
        volume: lifetimes::volume(key, raw)?,
    })
}

/// Whether all addresses of a family are in it.
fn is_everything(ts: &TrafficSelector) -> bool {
    ts.prefixes().iter().any(|prefix| prefix.len == 0)
}

/// 0 switches the protection against replays off, which extended sequence numbers do not allow: the
/// window tells their upper half (RFC 4303 §3.4.3).
fn replay_window(key: &str, window: u32, suites: &[EspProposal]) -> Result<u32, ConfigError> {
    let key = format!("{key}.replay_window");
    if window == 0 && suites.iter().any(|suite| suite.esn) {
        return Err(ConfigError::new(
            key,
            "is 0, and an esp_proposal has esn",
            "1 to 4096 with extended sequence numbers",
        ));
    }
    value::in_range(&key, window, 0, 4096)
}

/// A NIC that does ESP counts sequence numbers by itself: the other members could not tell after
/// which one they have to go on, and would send numbers twice.
fn refuse_offload(key: &str, offload: raw::HwOffload) -> Result<(), ConfigError> {
    match offload {
        raw::HwOffload::No => Ok(()),
        raw::HwOffload::Yes
        | raw::HwOffload::Auto
        | raw::HwOffload::Crypto
        | raw::HwOffload::Packet => Err(ConfigError::new(
            format!("{key}.hw_offload"),
            "is not possible in a cluster: a NIC counts sequence numbers by itself, and a member \
             that takes over would repeat them",
            "\"no\"",
        )),
    }
}

fn actions(key: &str, raw: &raw::Child) -> Result<Actions, ConfigError> {
    // The trap stands as long as it is configured, so that it is there again after any end.
    let trapped = matches!(raw.start_action, raw::StartAction::Trap);
    let trap = |name: &str, allowed: &str| {
        ConfigError::new(
            format!("{key}.{name}"),
            "is \"trap\", and start_action is not: a trap stands from the start or never",
            allowed,
        )
    };
    Ok(Actions {
        start: match raw.start_action {
            raw::StartAction::None => StartAction::None,
            raw::StartAction::Start => StartAction::Start,
            raw::StartAction::Trap => StartAction::Trap,
        },
        close: match raw.close_action {
            raw::CloseAction::None => CloseAction::None,
            raw::CloseAction::Start => CloseAction::Start,
            raw::CloseAction::Trap if trapped => CloseAction::None,
            raw::CloseAction::Trap => return Err(trap("close_action", "none or start")),
        },
        dpd: match raw.dpd_action {
            raw::DpdAction::Clear => DpdAction::Clear,
            raw::DpdAction::Restart => DpdAction::Restart,
            raw::DpdAction::Trap if trapped => DpdAction::Clear,
            raw::DpdAction::Trap => return Err(trap("dpd_action", "clear or restart")),
        },
    })
}

fn selectors(key: &str, texts: &[String]) -> Result<Vec<SelectorConfig>, ConfigError> {
    if texts.is_empty() {
        return Err(ConfigError::new(
            key,
            "is empty",
            "at least one prefix, like \"10.1.0.0/16\", or \"dynamic\"",
        ));
    }
    parse_list(key, texts, TS_EXAMPLE, str::parse)
}

/// Parses every string of a list.
fn parse_list<T, E: Display>(
    key: &str,
    texts: &[String],
    allowed: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, ConfigError> {
    let parse = |(index, text): (usize, &String)| {
        parse(text).map_err(|error| {
            ConfigError::new(
                format!("{key}[{index}]"),
                format!("\"{text}\": {error}"),
                allowed,
            )
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

/// Suites by preference: those of the list, or `defaults` if there is none.
fn suites<T, E: Display>(
    key: &str,
    texts: &[String],
    allowed: &str,
    parse: impl Fn(&str) -> Result<Vec<T>, E>,
    defaults: impl Fn() -> Vec<T>,
) -> Result<Vec<T>, ConfigError> {
    if texts.is_empty() {
        return Ok(defaults());
    }
    // swanctl's word for what it takes without a list.
    let parse = |text: &str| match text {
        "default" => Ok(defaults()),
        _ => parse(text),
    };
    Ok(parse_list(key, texts, allowed, parse)?
        .into_iter()
        .flatten()
        .collect())
}

fn identity<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|error: T::Err| {
        ConfigError::new(
            key,
            format!("\"{text}\": {error}"),
            "an IP address, a domain name, user@domain, a distinguished name like \"C=DE, CN=gw\", \
             or keyid:0x…",
        )
    })
}

fn remote_addresses(key: &str, texts: &[String]) -> Result<Vec<RemoteAddress>, ConfigError> {
    if texts.is_empty() {
        return Ok(vec![RemoteAddress::Any]);
    }
    let parse = |(index, text): (usize, &String)| {
        if text == "%any" {
            return Ok(RemoteAddress::Any);
        }
        let network = text
            .parse::<ipnet::IpNet>()
            .ok()
            .or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from));
        let Some(network) = network else {
            return Err(ConfigError::new(
                format!("{key}[{index}]"),
                format!("is \"{text}\""),
                "an address, a prefix, or %any",
            ));
        };
        Ok(RemoteAddress::Network {
            address: network.addr(),
            prefix_len: network.prefix_len(),
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

pub(super) fn check_secrets(
    raw: Vec<raw::Secret>,
    folder: Folder<'_>,
) -> Result<Vec<Secret>, ConfigError> {
    raw.into_iter()
        .enumerate()
        .map(|(index, raw)| {
            let key = format!("secret[{index}]");
            let ids = raw
                .ids
                .iter()
                .enumerate()
                .map(|(i, text)| identity(&format!("{key}.ids[{i}]"), text))
                .collect::<Result<_, _>>()?;
            Ok(Secret {
                ids,
                secret: secret(&key, folder, raw.secret, raw.secret_file)?,
            })
        })
        .collect()
}

/// What stands in the file, or in another one.
pub(super) fn secret(
    key: &str,
    folder: Folder<'_>,
    text: Option<String>,
    file: Option<PathBuf>,
) -> Result<SecretBytes, ConfigError> {
    let text = match (text, file) {
        (Some(text), None) => Zeroizing::new(text),
        (None, Some(file)) => read_secret(
            key,
            &folder.secret_path(&format!("{key}.secret_file"), &file)?,
        )?,
        _ => {
            return Err(ConfigError::new(
                key,
                "has not exactly one of secret and secret_file",
                "one of the two",
            ));
        }
    };
    decode_secret(&format!("{key}.secret"), &text)
}

fn read_secret(key: &str, file: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::new(
            format!("{key}.secret_file"),
            format!("{}: {error}", file.display()),
            "a readable file that holds the secret",
        )
    })?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(
        text.trim_end_matches(['\n', '\r']).to_owned(),
    ))
}

/// swanctl's forms: `0x…` hexadecimal, `0s…` base64, anything else as it stands. The text itself
/// is never quoted in an error.
fn decode_secret(key: &str, text: &str) -> Result<SecretBytes, ConfigError> {
    let decoded = if let Some(hex) = text.strip_prefix("0x") {
        HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()
    } else if let Some(base64) = text.strip_prefix("0s") {
        BASE64.decode(base64.as_bytes()).ok()
    } else {
        Some(text.as_bytes().to_vec())
    };
    decoded
        .filter(|bytes| !bytes.is_empty())
        .map(SecretBytes::new)
        .ok_or_else(|| {
            ConfigError::new(
                key,
                "is empty or not what its prefix says",
                "text, 0x and hexadecimal digits, or 0s and base64",
            )
        })
}

/// A connection that can never authenticate is a mistake in the file, not in the peer.
pub(super) fn check_every_connection_has_a_secret(
    connections: &[Arc<Connection>],
    secrets: &[Secret],
) -> Result<(), ConfigError> {
    for connection in connections {
        if connection.auth.local != LocalAuth::Psk && connection.auth.remote != RemoteAuth::Psk {
            continue;
        }
        let local = &connection.local_id;
        let fits = |secret: &Secret| {
            let is_peer = |id: &Identity| connection.remote_id.matches(id);
            let has_local = secret.ids.contains(local);
            match (connection.remote_id.exact(), secret.ids.len()) {
                (_, 0) => true,
                (Some(remote), 1) => secret.ids.contains(remote) || has_local,
                (Some(remote), _) => secret.ids.contains(remote) && has_local,
                (None, 1) => has_local || secret.ids.iter().any(is_peer),
                (None, _) => has_local && secret.ids.iter().any(|id| id != local && is_peer(id)),
            }
        };
        if !secrets.iter().any(fits) {
            let (local, remote) = (&connection.local_id, &connection.remote_id);
            return Err(ConfigError::new(
                format!("connection \"{}\"", connection.name),
                format!("has no [[secret]] for {local} and {remote}"),
                "a [[secret]] whose ids hold both identities, the peer's alone, or none",
            ));
        }
    }
    Ok(())
}
