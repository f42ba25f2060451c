//! Checks of single values.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::member::MemberId;

use super::error::ConfigError;
use super::raw::DurationText;

pub(super) fn in_range(key: &str, value: u32, low: u32, high: u32) -> Result<u32, ConfigError> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::new(
            key,
            format!("is {value}"),
            format!("{low} to {high}"),
        ))
    }
}

pub(super) fn member_id(key: &str, value: u32) -> Result<MemberId, ConfigError> {
    u8::try_from(value)
        .ok()
        .and_then(MemberId::new)
        .ok_or_else(|| {
            ConfigError::new(
                key,
                format!("is {value}"),
                format!("1 to {}", MemberId::MAX),
            )
        })
}

pub(super) fn address(key: &str, text: &str) -> Result<IpAddr, ConfigError> {
    text.parse()
        .ok()
        .filter(|address: &IpAddr| !address.is_unspecified())
        .ok_or_else(|| ConfigError::new(key, format!("is \"{text}\""), "an IPv4 or IPv6 address"))
}

pub(super) fn addresses(key: &str, texts: &[String]) -> Result<Vec<IpAddr>, ConfigError> {
    let mut found = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let address = address(&format!("{key}[{index}]"), text)?;
        if found.contains(&address) {
            return Err(ConfigError::new(
                key,
                format!("has {address} twice"),
                "each address once",
            ));
        }
        found.push(address);
    }
    Ok(found)
}

pub(super) fn name(key: &str, text: String) -> Result<String, ConfigError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        Ok(text)
    } else {
        Err(ConfigError::new(
            key,
            format!("is \"{text}\""),
            "1 to 64 ASCII letters, digits, '-', '_' and '.'",
        ))
    }
}

pub(super) fn duration(
    key: &str,
    text: &DurationText,
    low: Duration,
    high: Duration,
) -> Result<Duration, ConfigError> {
    let (shown, parsed) = match text {
        DurationText::Seconds(seconds) => (seconds.to_string(), Some(*seconds)),
        DurationText::Text(text) => (text.clone(), parse_seconds(text)),
    };
    parsed
        .map(Duration::from_secs)
        .filter(|duration| (low..=high).contains(duration))
        .ok_or_else(|| {
            ConfigError::new(
                key,
                format!("is \"{shown}\""),
                format!(
                    "{}s to {}s, written as 30s, 5m, 4h or 1d",
                    low.as_secs(),
                    high.as_secs()
                ),
            )
        })
}

fn parse_seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        digit if digit.is_ascii_digit() => return text.parse().ok(),
        _ => return None,
    };
    text[..text.len() - 1]
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
}

pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
