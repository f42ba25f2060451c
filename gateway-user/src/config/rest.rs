//! `[rest]`: where the REST API is served, and to whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gateway_ike::secret::SecretBytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::ConfigError;
use super::files::Folder;
use super::value;

/// Fewest octets of a bearer token: nobody guesses 128 bits in hexadecimal digits.
const TOKEN_MIN: usize = 32;

/// What somebody may do; each may what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything that is not a secret.
    Read,
    /// Bring tunnels up and down, move slots.
    Operate,
    /// Change single entries of the tables, inject packets.
    Admin,
}

impl Role {
    /// Its name in the configuration and in the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// `[rest]`.
#[derive(Debug)]
pub struct Rest {
    /// The Unix socket; `None`: there is none.
    pub socket: Option<PathBuf>,
    /// Its mode: 0o600, or 0o660 with `group`.
    pub mode: u32,
    /// The group that may open it.
    pub group: Option<u32>,
    /// TCP with TLS 1.3; `None`: there is none.
    pub tls: Option<RestTls>,
    /// Who may do what.
    pub access: RestAccess,
    /// Requests per second and principal, 1..=10,000.
    pub rate: u32,
    /// Whether `/metrics` has series for each SA.
    pub per_sa_metrics: bool,
    /// Whether packets may be injected over TLS, too.
    pub inject_over_tls: bool,
}

/// `[rest] listen` and its certificates.
#[derive(Clone, Debug)]
pub struct RestTls {
    /// Address and port.
    pub listen: SocketAddr,
    /// Our certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of the clients' certificates, PEM; `None`: no client certificates, only tokens.
    pub client_ca: Option<PathBuf>,
}

/// Who may do what.
#[derive(Debug, Default)]
pub struct RestAccess {
    /// Users other than root that can open the Unix socket; `None`: nothing.
    pub group_role: Option<Role>,
    /// `[[rest.token]]`.
    pub tokens: Vec<RestToken>,
    /// `[[rest.client]]`, in the file's order; the first that matches counts.
    pub clients: Vec<RestClient>,
}

/// A bearer token (RFC 6750). Only taken over TLS.
pub struct RestToken {
    /// For the audit log.
    pub name: String,
    /// What its bearer may.
    pub role: Role,
    /// The token.
    pub secret: SecretBytes,
}

impl std::fmt::Debug for RestToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RestToken {{ {}: {:?} }}", self.name, self.role)
    }
}

/// A client certificate; what is given has to match all together.
#[derive(Clone, Debug)]
pub struct RestClient {
    /// SHA-256 of the certificate, lower-case hexadecimal digits.
    pub fingerprint: Option<String>,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// One of the subject's organizational units.
    pub unit: Option<String>,
    /// What the client may.
    pub role: Role,
}

impl Default for RestClient {
    fn default() -> Self {
        Self {
            fingerprint: None,
            common_name: None,
            unit: None,
            role: Role::Read,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRest {
    /// The Unix socket; "" = none. Root is "admin".
    socket: PathBuf,
    /// Id of the group that may open the socket, too (mode 0660).
    group: Option<u32>,
    /// What that group's users may.
    group_role: Role,
    /// Address and port for TCP, with TLS 1.3 only, for who shows a client certificate or a token.
    listen: Option<SocketAddr>,
    /// File with our certificate chain.
    certificate: Option<PathBuf>,
    /// File with its private key; mode 0600, or `credential:NAME`.
    key: Option<PathBuf>,
    /// File with the authorities of the clients' certificates. Absent: only tokens.
    client_ca: Option<PathBuf>,
    /// Requests per second of each user, certificate or token; beyond it the answer is 429.
    #[schemars(range(min = 1, max = 10_000))]
    rate: u32,
    /// Series of each CHILD_SA in /metrics: with 100,000 SAs that is much.
    per_sa_metrics: bool,
    /// Packets may be injected (local-handling, remote-forward) over TLS, too, and not only over the socket.
    inject_over_tls: bool,
    /// Bearer tokens.
    token: Vec<RawToken>,
    /// Client certificates; the first that matches counts.
    client: Vec<RawClient>,
}

impl Default for RawRest {
    fn default() -> Self {
        Self {
            socket: crate::rest::DEFAULT_SOCKET.into(),
            group: None,
            group_role: Role::Read,
            listen: None,
            certificate: None,
            key: None,
            client_ca: None,
            rate: 200,
            per_sa_metrics: false,
            inject_over_tls: false,
            token: Vec::new(),
            client: Vec::new(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawToken {
    /// Its name in the audit log.
    name: String,
    /// What its bearer may.
    role: Role,
    /// File with the token: one line of at least 32 characters; mode 0600, or `credential:NAME`.
    file: PathBuf,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawClient {
    /// SHA-256 of the certificate in hexadecimal digits. All that is given has to match.
    fingerprint: Option<String>,
    /// The subject's common name.
    cn: Option<String>,
    /// One of the subject's organizational units.
    ou: Option<String>,
    /// What the client may.
    role: Role,
}

pub(super) fn check(raw: RawRest, folder: Folder<'_>) -> Result<Rest, ConfigError> {
    let tls = check_tls(&raw, folder)?;
    if tls.is_none() && !(raw.token.is_empty() && raw.client.is_empty()) {
        return Err(ConfigError::new(
            "rest.token",
            "tokens and client certificates are only taken over TLS, and `rest.listen` is missing",
            "`listen`, `certificate` and `key`, or no [[rest.token]] and [[rest.client]]",
        ));
    }
    let tokens = raw.token.into_iter().enumerate();
    let clients = raw.client.into_iter().enumerate();
    Ok(Rest {
        socket: (!raw.socket.as_os_str().is_empty()).then_some(raw.socket),
        mode: if raw.group.is_some() { 0o660 } else { 0o600 },
        group: raw.group,
        tls,
        access: RestAccess {
            group_role: raw.group.map(|_| raw.group_role),
            tokens: tokens
                .map(|(index, token)| check_token(index, token, folder))
                .collect::<Result<_, _>>()?,
            clients: clients
                .map(|(index, client)| check_client(index, client))
                .collect::<Result<_, _>>()?,
        },
        rate: value::in_range("rest.rate", raw.rate, 1, 10_000)?,
        per_sa_metrics: raw.per_sa_metrics,
        inject_over_tls: raw.inject_over_tls,
    })
}

fn check_tls(raw: &RawRest, folder: Folder<'_>) -> Result<Option<RestTls>, ConfigError> {
    let Some(listen) = raw.listen else {
        return Ok(None);
    };
    let (Some(certificate), Some(key)) = (&raw.certificate, &raw.key) else {
        return Err(ConfigError::new(
            "rest.listen",
            "TCP without TLS is not served",
            "`certificate` and `key` beside `listen`",
        ));
    };
    if raw.client_ca.is_none() && raw.token.is_empty() {
        return Err(ConfigError::new(
            "rest.listen",
            "nobody could authenticate",
            "`client_ca` with [[rest.client]], or [[rest.token]]",
        ));
    }
    if raw.client_ca.is_none() && !raw.client.is_empty() {
        return Err(ConfigError::new(
            "rest.client",
            "no client certificate would be accepted",
            "`rest.client_ca`: the authority that issued them",
        ));
    }
    Ok(Some(RestTls {
        listen,
        certificate: folder.path(certificate),
        key: folder.later_secret_path("rest.key", key)?,
        client_ca: raw.client_ca.as_ref().map(|path| folder.path(path)),
    }))
}

fn check_token(index: usize, raw: RawToken, folder: Folder<'_>) -> Result<RestToken, ConfigError> {
    let key = format!("rest.token[{index}].file");
    let path = folder.secret_path(&key, &raw.file)?;
    let secret = read_token(&path).map_err(|problem| {
        ConfigError::new(
            &key,
            format!("{}: {problem}", path.display()),
            "a file with one line of at least 32 visible characters, mode 0600: `openssl rand -hex 32 > FILE; chmod 600 FILE`",
        )
    })?;
    Ok(RestToken {
        name: raw.name,
        role: raw.role,
        secret,
    })
}

fn read_token(path: &Path) -> Result<SecretBytes, String> {
    let text = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| error.to_string())?;
    let token = text.trim_ascii();
    if token.len() < TOKEN_MIN || !token.iter().all(u8::is_ascii_graphic) {
        return Err("is no token".into());
    }
    Ok(SecretBytes::from(token))
}

fn check_client(index: usize, raw: RawClient) -> Result<RestClient, ConfigError> {
    let fingerprint = raw.fingerprint.map(|text| {
        let digits = text.strip_prefix("sha256:").unwrap_or(&text);
        digits.replace(':', "").to_ascii_lowercase()
    });
    let wrong = fingerprint
        .as_ref()
        .is_some_and(|f| f.len() != 64 || !f.bytes().all(|octet| octet.is_ascii_hexdigit()));
    if wrong || (fingerprint.is_none() && raw.cn.is_none() && raw.ou.is_none()) {
        return Err(ConfigError::new(
            format!("rest.client[{index}]"),
            "does not say which certificate it is about",
            "`fingerprint` (SHA-256, 64 hexadecimal digits), `cn` or `ou`",
        ));
    }
    Ok(RestClient {
        fingerprint,
        common_name: raw.cn,
        unit: raw.ou,
        role: raw.role,
    })
}
