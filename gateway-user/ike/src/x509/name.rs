//! Distinguished names: comparing them, reading and writing swanctl's notation.

use std::fmt;
use std::str::FromStr;

use der::asn1::{Any, Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// Attribute types by the short names that swanctl knows; the first name of a type is the one that
/// is written.
const TYPES: [(&str, &str); 27] = [
    ("C", "2.5.4.6"),
    ("ST", "2.5.4.8"),
    ("L", "2.5.4.7"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.5"),
    ("serialNumber", "2.5.4.5"),
    ("S", "2.5.4.4"),
    ("T", "2.5.4.12"),
    ("D", "2.5.4.13"),
    ("postalCode", "2.5.4.17"),
    ("N", "2.5.4.41"),
    ("G", "2.5.4.42"),
    ("I", "2.5.4.43"),
    ("ID", "2.5.4.45"),
    ("dnQualifier", "2.5.4.46"),
    ("pseudonym", "2.5.4.65"),
    ("organizationIdentifier", "2.5.4.97"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("E", "1.2.840.113549.1.9.1"),
    ("Email", "1.2.840.113549.1.9.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("unstructuredName", "1.2.840.113549.1.9.2"),
    ("unstructuredAddress", "1.2.840.113549.1.9.8"),
];

/// Most relative distinguished names in a name that is compared or written.
const MAX_RDNS: usize = 64;

/// Most attributes in one of them; more than one is rare, none is forbidden.
const MAX_ATTRIBUTES: usize = 8;

/// A distinguished name.
#[derive(Clone)]
pub struct Name {
    der: Box<[u8]>,
    rdns: Vec<RelativeDistinguishedName>,
}

/// Text that is no distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An attribute without `=`, or an unfinished quotation.
    #[error("\"{0}\" is not TYPE=value")]
    Attribute(String),
    /// A type that is neither an OID nor one of the known names.
    #[error("\"{0}\" is not a type of attribute: use C, ST, L, O, OU, CN, E, DC, UID or an OID")]
    Type(String),
    /// Octets that are not the DER of a name.
    #[error("malformed distinguished name")]
    Der,
}

impl Name {
    /// From DER.
    ///
    /// # Errors
    /// [`NameError::Der`].
    pub fn from_der(der: &[u8]) -> Result<Self, NameError> {
        let RdnSequence(rdns) = RdnSequence::from_der(der).map_err(|_| NameError::Der)?;
        let odd = |rdn: &RelativeDistinguishedName| {
            !(1..=MAX_ATTRIBUTES).contains(&rdn.0.len())
                || rdn.0.iter().any(|attribute| is_padded(&attribute.oid))
        };
        if rdns.len() > MAX_RDNS || rdns.iter().any(odd) {
            return Err(NameError::Der);
        }
        Ok(Self {
            der: der.into(),
            rdns,
        })
    }

    pub(super) fn from_sequence(sequence: &RdnSequence) -> der::Result<Self> {
        let der = sequence.to_der()?;
        Self::from_der(&der).map_err(|_| Tag::Sequence.value_error())
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// Whether both mean the same: the types of strings, case and superfluous blanks do not matter
    /// (RFC 5280 §7.1).
    pub fn matches(&self, other: &Self) -> bool {
        self.der == other.der || (self.rdns.len() == other.rdns.len() && self.starts_with(other))
    }

    /// Whether the first relative distinguished names are those of `other`: its subtree.
    pub(super) fn starts_with(&self, other: &Self) -> bool {
        let pairs = self.rdns.iter().zip(&other.rdns);
        self.rdns.len() >= other.rdns.len() && pairs.into_iter().all(|(a, b)| same_rdn(a, b, false))
    }
}

/// A distinguished name whose values may be `*`, which stands for any value (swanctl's `id`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DnPattern(Name);

impl DnPattern {
    /// Whether `name` has the same types in the same order, and the same values but where the
    /// pattern has `*`.
    pub fn matches(&self, name: &Name) -> bool {
        self.0.rdns.len() == name.rdns.len()
            && (self.0.rdns.iter().zip(&name.rdns)).all(|(a, b)| same_rdn(a, b, true))
    }

    /// The name without any wildcard, if that is what it is.
    pub fn exact(&self) -> Option<&Name> {
        let mut values = self.0.rdns.iter().flat_map(|rdn| rdn.0.iter());
        let wild = values.any(|attribute| text(&attribute.value).as_deref() == Some("*"));
        (!wild).then_some(&self.0)
    }
}

/// X.690 §8.19.2: no number in an object identifier begins with 0x80. Otherwise one identifier would
/// have many encodings, and two names would differ that read the same.
fn is_padded(oid: &ObjectIdentifier) -> bool {
    let octets = oid.as_bytes();
    let before = [0].iter().chain(octets);
    let mut pairs = before.zip(octets);
    pairs.any(|(before, octet)| before & 0x80 == 0 && *octet == 0x80)
}

fn same_rdn(
    pattern: &RelativeDistinguishedName,
    other: &RelativeDistinguishedName,
    wild: bool,
) -> bool {
    // In a set the order is that of the encoding, which two encodings of a name need not share.
    pattern.0.len() == other.0.len()
        && pattern.0.iter().all(|a| {
            let mut others = other.0.iter();
            others.any(|b| same_attribute(a, b, wild))
        })
}

fn same_attribute(
    pattern: &AttributeTypeAndValue,
    other: &AttributeTypeAndValue,
    wild: bool,
) -> bool {
    if pattern.oid != other.oid {
        return false;
    }
    match (text(&pattern.value), text(&other.value)) {
        (Some(a), Some(b)) => (wild && a == "*") || folded(&a) == folded(&b),
        _ => pattern.value == other.value,
    }
}

/// Lower case, blanks compressed.
fn folded(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// The text of a string type.
fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(value.value().to_vec()).ok()
        }
        Tag::TeletexString => Some(value.value().iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units = value.value().chunks(2).map(|pair| {
                let [high, low] = <[u8; 2]>::try_from(pair).unwrap_or_default();
                u16::from_be_bytes([high, low])
            });
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for Name {}

/// Agrees with `==`, which does not look at how strings are encoded.
impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.rdns.len().hash(state);
        for attribute in self
            .rdns
            .iter()
            .filter_map(|rdn| rdn.0.iter().next().filter(|_| rdn.0.len() == 1))
        {
            attribute.oid.hash(state);
            text(&attribute.value).map(|text| folded(&text)).hash(state);
        }
    }
}

/// `C=DE, O=Example, CN=gw`, in the order in which it stands in the certificate. Reads back as a
/// name that is equal.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rdn) in self.rdns.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            for (index, attribute) in rdn.0.iter().enumerate() {
                if index > 0 {
                    f.write_str(" + ")?;
                }
                write_attribute(f, attribute)?;
            }
        }
        Ok(())
    }
}

fn write_attribute(f: &mut fmt::Formatter<'_>, attribute: &AttributeTypeAndValue) -> fmt::Result {
    let oid = attribute.oid.to_string();
    let short = TYPES.iter().find(|(_, known)| *known == oid);
    write!(f, "{}=", short.map_or(oid.as_str(), |(short, _)| short))?;
    // Superfluous blanks do not count, so they need no care.
    match text(&attribute.value).filter(|text| !text.contains(char::is_control)) {
        Some(text) => {
            let special = |c: char| matches!(c, ',' | '+' | '"' | '\\' | '=' | '#' | '/');
            for c in text.chars() {
                if special(c) {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            Ok(())
        }
        None => write!(
            f,
            "#{}",
            super::hex(&attribute.value.to_der().unwrap_or_default())
        ),
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for DnPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DnPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DnPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Reads `C=DE, O=Example, CN=gw` or `/C=DE/O=Example/CN=gw`. A value may stand in double quotes,
/// and a backslash takes the next character as it is.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (separator, text) = match text.strip_prefix('/') {
            Some(rest) => ('/', rest),
            None => (',', text),
        };
        let mut rdns = Vec::new();
        for part in split(text, separator)? {
            let mut attributes = Vec::new();
            for attribute in split(&part, '+')? {
                attributes.push(parse_attribute(&attribute)?);
            }
            let set = der::asn1::SetOfVec::try_from(attributes).map_err(|_| NameError::Der)?;
            rdns.push(RelativeDistinguishedName(set));
        }
        let sequence = RdnSequence(rdns);
        Self::from_sequence(&sequence).map_err(|_| NameError::Der)
    }
}

/// Splits at `separator` where it is neither quoted nor escaped. Quotes and backslashes stay.
fn split(text: &str, separator: char) -> Result<Vec<String>, NameError> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if c == separator && !quoted && !escaped {
            parts.push(String::new());
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    if quoted || escaped {
        return Err(NameError::Attribute(text.to_owned()));
    }
    Ok(parts)
}

fn parse_attribute(part: &str) -> Result<AttributeTypeAndValue, NameError> {
    let (kind, value) = part
        .split_once('=')
        .ok_or_else(|| NameError::Attribute(part.trim().to_owned()))?;
    let kind = kind.trim();
    let known = TYPES
        .iter()
        .find(|(short, _)| short.eq_ignore_ascii_case(kind));
    let oid = ObjectIdentifier::new(known.map_or(kind, |(_, oid)| oid))
        .map_err(|_| NameError::Type(kind.to_owned()))?;
    let value = value.trim();
    if let Some(digits) = value.strip_prefix('#') {
        let value = from_hex(digits).and_then(|der| Any::from_der(&der).ok());
        return Ok(AttributeTypeAndValue {
            oid,
            value: value.ok_or_else(|| NameError::Attribute(part.trim().to_owned()))?,
        });
    }
    let value = unescape(value);
    encode(oid, &value)
        .map(|value| AttributeTypeAndValue { oid, value })
        .map_err(|_| NameError::Attribute(part.trim().to_owned()))
}

/// In the string type that authorities use for it.
fn encode(oid: ObjectIdentifier, value: &str) -> der::Result<Any> {
    let ia5 = ["1.2.840.113549.1.9.1", "0.9.2342.19200300.100.1.25"];
    if ia5.contains(&oid.to_string().as_str())
        && let Ok(ia5) = Ia5StringRef::new(value)
    {
        return Any::encode_from(&ia5);
    }
    match PrintableStringRef::new(value) {
        Ok(printable) => Any::encode_from(&printable),
        Err(_) => Any::encode_from(&Utf8StringRef::new(value)?),
    }
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut escaped = false;
    for c in value.chars() {
        if !escaped && (c == '\\' || c == '"') {
            escaped = c == '\\';
            continue;
        }
        escaped = false;
        out.push(c);
    }
    out
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[a, b]| a << 4 | b).collect())
}
