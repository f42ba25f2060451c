//! Identities (RFC 7296 §3.5) in the notation of swanctl.conf.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::wire::IdType;
use crate::x509::{DnPattern, Name, NameError};

/// Most octets of text or opaque data an identity may have. A certificate's name or a FQDN is far
/// shorter; the bound keeps records and log lines small.
pub const MAX_IDENTITY_LEN: usize = 512;

/// Who somebody claims to be. Two are equal when they mean the same: names compare without regard
/// to ASCII case, distinguished names without regard to how their strings are encoded.
#[derive(Clone, Debug)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Ip(IpAddr),
    /// ID_FQDN, without terminators.
    Fqdn(String),
    /// ID_RFC822_ADDR: user@domain.
    Rfc822(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// ID_DER_ASN1_DN: a distinguished name, DER.
    Dn(Vec<u8>),
}

/// A text or payload that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing there.
    #[error("an identity may not be empty; expected a name, user@name, an IP address or keyid:0x…")]
    Empty,
    /// More than [`MAX_IDENTITY_LEN`] octets.
    #[error("an identity of {0} octets is too long; at most {MAX_IDENTITY_LEN} are allowed")]
    TooLong(usize),
    /// Text that does not fit its type.
    #[error("\"{text}\" is not {expected}")]
    Malformed {
        /// The text.
        text: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// The data of an ID payload do not fit its type.
    #[error("the data of an ID payload of type {0} are malformed")]
    Payload(IdType),
    /// Text with `=` that is no distinguished name.
    #[error("not a distinguished name: {0}")]
    Name(#[from] NameError),
    /// An ID payload of a type that we do not know.
    #[error("ID payload of unsupported type {0}")]
    UnknownType(IdType),
}

impl Identity {
    /// From the ID payload's type and data.
    pub fn from_payload(id_type: IdType, data: &[u8]) -> Result<Self, IdentityError> {
        if data.is_empty() {
            return Err(IdentityError::Empty);
        }
        if data.len() > MAX_IDENTITY_LEN {
            return Err(IdentityError::TooLong(data.len()));
        }
        let malformed = |_| IdentityError::Payload(id_type);
        match id_type {
            IdType::ID_IPV4_ADDR => {
                let octets: [u8; 4] = data.try_into().map_err(malformed)?;
                Ok(Self::Ip(Ipv4Addr::from(octets).into()))
            }
            IdType::ID_IPV6_ADDR => {
                let octets: [u8; 16] = data.try_into().map_err(malformed)?;
                Ok(Self::Ip(Ipv6Addr::from(octets).into()))
            }
            // RFC 7296 §3.5: the string MUST not contain terminators (NUL, CR, etc.).
            IdType::ID_FQDN => printable(data)
                .map(Self::Fqdn)
                .ok_or(IdentityError::Payload(id_type)),
            IdType::ID_RFC822_ADDR => printable(data)
                .map(Self::Rfc822)
                .ok_or(IdentityError::Payload(id_type)),
            IdType::ID_DER_ASN1_DN => Ok(Self::Dn(data.to_vec())),
            IdType::ID_KEY_ID => Ok(Self::KeyId(data.to_vec())),
            other => Err(IdentityError::UnknownType(other)),
        }
    }

    /// ID type and data for an ID payload.
    pub fn to_payload(&self) -> (IdType, Vec<u8>) {
        match self {
            Self::Ip(IpAddr::V4(address)) => (IdType::ID_IPV4_ADDR, address.octets().to_vec()),
            Self::Ip(IpAddr::V6(address)) => (IdType::ID_IPV6_ADDR, address.octets().to_vec()),
            Self::Fqdn(name) => (IdType::ID_FQDN, name.clone().into_bytes()),
            Self::Rfc822(name) => (IdType::ID_RFC822_ADDR, name.clone().into_bytes()),
            Self::KeyId(octets) => (IdType::ID_KEY_ID, octets.clone()),
            Self::Dn(der) => (IdType::ID_DER_ASN1_DN, der.clone()),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::Rfc822(a), Self::Rfc822(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            (Self::KeyId(a), Self::KeyId(b)) => a == b,
            (Self::Dn(a), Self::Dn(b)) => {
                let names = Name::from_der(a).and_then(|a| Ok((a, Name::from_der(b)?)));
                a == b || names.is_ok_and(|(a, b)| a == b)
            }
            _ => false,
        }
    }
}

impl Eq for Identity {}

impl std::hash::Hash for Identity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        if let Self::Dn(der) = self
            && let Ok(name) = Name::from_der(der)
        {
            return name.hash(state);
        }
        let (id_type, mut data) = self.to_payload();
        if matches!(self, Self::Fqdn(_) | Self::Rfc822(_)) {
            data.make_ascii_lowercase();
        }
        (id_type, data).hash(state);
    }
}

/// Visible ASCII or well-formed UTF-8 without control characters and blanks.
fn printable(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok()?;
    let bad = |c: char| c.is_control() || c.is_whitespace();
    (!text.contains(bad)).then(|| text.to_owned())
}

/// An octet string in hexadecimal, without prefix.
fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| {
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

/// The text after `prefix` as octets: hexadecimal after `0x`, or #, else the text itself.
fn octets(rest: &str, whole: &str) -> Result<Vec<u8>, IdentityError> {
    match rest.strip_prefix("0x").or_else(|| rest.strip_prefix('#')) {
        Some(digits) => from_hex(digits).ok_or(IdentityError::Malformed {
            text: whole.to_owned(),
            expected: "an even number of hexadecimal digits after its prefix",
        }),
        None => Ok(rest.as_bytes().to_vec()),
    }
}

/// Reads what swanctl.conf has: an explicit type (`ipv4:`, `ipv6:`, `fqdn:`, `dns:`, `rfc822:`,
/// `email:`, `userfqdn:`, `keyid:`, `asn1dn:`), `@name` (FQDN), `@#hex` (KEY_ID), `@@user@name`
/// (RFC822), `C=DE, CN=name` (DN), and without any of these: an address, `user@name`, or else an
/// FQDN.
impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let identity = match text.split_once(':') {
            _ if is_dn(text) => dn(text)?,
            Some((kind, rest)) if text.parse::<Ipv6Addr>().is_err() => typed(kind, rest, text)?,
            _ => untyped(text)?,
        };
        let (_, data) = identity.to_payload();
        match data.len() {
            0 => Err(IdentityError::Empty),
            1..=MAX_IDENTITY_LEN => Ok(identity),
            len => Err(IdentityError::TooLong(len)),
        }
    }
}

/// Whether it is written `TYPE=value…`: no type of identity has `=` in its name.
fn is_dn(text: &str) -> bool {
    text.find('=')
        .is_some_and(|at| !text.starts_with('@') && !text[..at].contains([':', '@']))
}

fn dn(text: &str) -> Result<Identity, IdentityError> {
    let name: Name = text.parse()?;
    Ok(Identity::Dn(name.der().to_vec()))
}

fn typed(kind: &str, rest: &str, text: &str) -> Result<Identity, IdentityError> {
    let malformed = |expected| IdentityError::Malformed {
        text: text.to_owned(),
        expected,
    };
    match kind.to_ascii_lowercase().as_str() {
        "ipv4" => rest
            .parse::<Ipv4Addr>()
            .map(|address| Identity::Ip(address.into()))
            .map_err(|_| malformed("an IPv4 address")),
        "ipv6" => rest
            .parse::<Ipv6Addr>()
            .map(|address| Identity::Ip(address.into()))
            .map_err(|_| malformed("an IPv6 address")),
        "fqdn" | "dns" => unblank(rest, text).map(Identity::Fqdn),
        "rfc822" | "email" | "userfqdn" => unblank(rest, text).map(Identity::Rfc822),
        "keyid" => octets(rest, text).map(Identity::KeyId),
        "asn1dn" if is_dn(rest) => dn(rest),
        "asn1dn" => octets(rest, text).map(Identity::Dn),
        _ => Err(malformed(
            "an identity: known types are ipv4, ipv6, fqdn, dns, rfc822, email, userfqdn, keyid \
             and asn1dn",
        )),
    }
}

fn untyped(text: &str) -> Result<Identity, IdentityError> {
    if let Some(rest) = text.strip_prefix("@#") {
        return octets(&format!("#{rest}"), text).map(Identity::KeyId);
    }
    if let Some(rest) = text.strip_prefix("@@") {
        return name(rest, text).map(Identity::Rfc822);
    }
    if let Some(rest) = text.strip_prefix('@') {
        return name(rest, text).map(Identity::Fqdn);
    }
    if let Ok(address) = text.parse() {
        return Ok(Identity::Ip(address));
    }
    let name = name(text, text)?;
    Ok(if name.contains('@') {
        Identity::Rfc822(name)
    } else {
        Identity::Fqdn(name)
    })
}

fn name(rest: &str, whole: &str) -> Result<String, IdentityError> {
    // `%any` is a pattern, and "C=DE, O=…" a distinguished name: a typing error is more likely
    // than a host of that name.
    if rest.contains(['%', '=', '*', '"']) {
        return Err(IdentityError::Malformed {
            text: whole.to_owned(),
            expected: "a name: wildcards are %any, alone, and an asterisk at the beginning, where \
                       more than one identity may do, and = makes a distinguished name, like \
                       \"C=DE, O=Example, CN=gw\"",
        });
    }
    unblank(rest, whole)
}

/// Any text that an ID payload may carry as a name.
fn unblank(rest: &str, whole: &str) -> Result<String, IdentityError> {
    printable(rest.as_bytes()).ok_or_else(|| IdentityError::Malformed {
        text: whole.to_owned(),
        expected: "a name without blanks and control characters",
    })
}

/// In a form that [`Identity::from_str`] reads back as the same identity.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            // Names from a payload may look like something else; then the type says what they are.
            Self::Fqdn(name) if plain(name, self) => f.write_str(name),
            Self::Fqdn(name) => write!(f, "fqdn:{name}"),
            Self::Rfc822(name) if plain(name, self) => f.write_str(name),
            Self::Rfc822(name) => write!(f, "rfc822:{name}"),
            Self::KeyId(octets) => write!(f, "keyid:0x{}", hex(octets)),
            Self::Dn(der) => match Name::from_der(der) {
                Ok(name) if !name.is_empty() => write!(f, "{name}"),
                _ => write!(f, "asn1dn:#{}", hex(der)),
            },
        }
    }
}

fn plain(name: &str, identity: &Identity) -> bool {
    !name.contains(':') && untyped(name).as_ref() == Ok(identity)
}

/// Whom a connection accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdentityPattern {
    /// `%any`: everybody who authenticates.
    Any,
    /// Only this one.
    Exactly(Identity),
    /// A FQDN that ends like this, and has something before it: `*.example.org`.
    FqdnSuffix(String),
    /// An RFC822 address that ends like this, and has something before it: `*@example.org`.
    Rfc822Suffix(String),
    /// A distinguished name in which some values may be any: `C=DE, O=Example, CN=*`.
    Dn(DnPattern),
}

impl IdentityPattern {
    /// Whether `identity` may be there.
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(expected) => expected == identity,
            Self::FqdnSuffix(suffix) => {
                matches!(identity, Identity::Fqdn(name) if ends_with(name, suffix))
            }
            Self::Rfc822Suffix(suffix) => {
                matches!(identity, Identity::Rfc822(name) if ends_with(name, suffix))
            }
            Self::Dn(pattern) => match identity {
                Identity::Dn(der) => Name::from_der(der).is_ok_and(|name| pattern.matches(&name)),
                _ => false,
            },
        }
    }

    /// The only identity that fits, if there is just one.
    pub fn exact(&self) -> Option<&Identity> {
        match self {
            Self::Exactly(identity) => Some(identity),
            _ => None,
        }
    }

    /// 0 if only one identity fits, 1 for wildcards, 2 for `%any`: of several patterns that fit a
    /// peer the one with the lowest rank is for it.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Exactly(_) => 0,
            Self::FqdnSuffix(_) | Self::Rfc822Suffix(_) | Self::Dn(_) => 1,
            Self::Any => 2,
        }
    }
}

fn ends_with(name: &str, suffix: &str) -> bool {
    let start = name.len().checked_sub(suffix.len()).filter(|at| *at > 0);
    start
        .and_then(|at| name.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// Reads `%any`, a name with `*` at its beginning, a distinguished name with `*` for values, or what
/// [`Identity::from_str`] reads.
impl FromStr for IdentityPattern {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("%any") {
            return Ok(Self::Any);
        }
        let text = text.trim();
        if is_dn(text) {
            let pattern: DnPattern = text.parse()?;
            return Ok(match pattern.exact() {
                Some(name) => Self::Exactly(Identity::Dn(name.der().to_vec())),
                None => Self::Dn(pattern),
            });
        }
        if let Some(rest) = text.strip_prefix('*') {
            let suffix = name(rest, text)?;
            return match suffix.chars().next() {
                None => Err(IdentityError::Empty),
                Some('@') => Ok(Self::Rfc822Suffix(suffix)),
                Some(_) => Ok(Self::FqdnSuffix(suffix)),
            };
        }
        text.parse().map(Self::Exactly)
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Exactly(identity) => write!(f, "{identity}"),
            Self::FqdnSuffix(suffix) | Self::Rfc822Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Dn(pattern) => write!(f, "{pattern}"),
        }
    }
}
