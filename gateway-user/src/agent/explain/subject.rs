//! What somebody wants explained.

use std::net::IpAddr;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::agent::pages::invalid;
use crate::api::model::{MAX_SUBJECT, Refusal};

/// Digits of the shortest packet: the header of an IKE message.
const PACKET: usize = 2 * 28;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Address(IpAddr),
    Connection(String),
    Identity(String),
    Cookie([u8; 8]),
    Spi([u8; 4]),
    /// In hexadecimal digits.
    Packet(String),
}

impl Subject {
    /// What `text` names. A connection's name comes first: an operator gave it.
    pub(super) fn of(text: &str, is_connection: impl Fn(&str) -> bool) -> Result<Self, Refusal> {
        let length = text.chars().count();
        if length > MAX_SUBJECT {
            return Err(invalid(format!(
                "the subject has {length} characters, {MAX_SUBJECT} are allowed: of a packet, its first \
                 octets say where it goes"
            )));
        }
        if is_connection(text) {
            return Ok(Self::Connection(text.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let digits: String = text.strip_prefix("0x").unwrap_or(text).into();
        if !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Self::of_digits(digits);
        }
        if text.is_empty() {
            return Err(invalid("the subject is empty".into()));
        }
        Ok(Self::Identity(text.into()))
    }

    fn of_digits(digits: String) -> Result<Self, Refusal> {
        let octets = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
        let octets = octets.unwrap_or_default();
        if let Ok(spi) = <[u8; 4]>::try_from(octets.as_slice()) {
            return Ok(Self::Spi(spi));
        }
        if let Ok(cookie) = <[u8; 8]>::try_from(octets.as_slice()) {
            return Ok(Self::Cookie(cookie));
        }
        if digits.len() >= PACKET && !octets.is_empty() {
            return Ok(Self::Packet(digits));
        }
        Err(invalid(format!(
            "{digits:?} has {} hexadecimal digits: an SPI has 8, a cookie 16, a packet an even number \
             from {PACKET} on",
            digits.len()
        )))
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Connection(_) => "connection",
            Self::Identity(_) => "identity",
            Self::Cookie(_) => "cookie",
            Self::Spi(_) => "spi",
            Self::Packet(_) => "packet",
        }
    }

    /// Why there is nothing to say about it.
    pub(super) fn unknown(&self) -> String {
        match self {
            Self::Identity(id) => format!(
                "{id:?} is no address, no connection's name, and no peer with this identity has an \
                 IKE SA"
            ),
            _ => "nothing in the cluster has to do with it".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_told_apart() {
        let of = |text: &str| Subject::of(text, |name| name == "site-a" || name == "deadbeef");
        for (text, kind) in [
            ("site-a", "connection"),
            // It could be an SPI, too.
            ("deadbeef", "connection"),
            ("DEADBEE0", "spi"),
            ("0xdeadbee0", "spi"),
            ("00112233445566ff", "cookie"),
            ("192.0.2.1", "address"),
            ("2001:db8::1", "address"),
            ("site-b.example.org", "identity"),
            ("C=DE, CN=x", "identity"),
            (&"0a".repeat(28), "packet"),
        ] {
            assert_eq!(of(text).unwrap().kind(), kind, "{text}");
        }
        let long = "0a".repeat(MAX_SUBJECT / 2 + 1);
        for wrong in [
            "",
            "abc",
            "0011223344",
            &"0a".repeat(27),
            &"a".repeat(57),
            &long,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
