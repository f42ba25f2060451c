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

pub(super) fn port(key: &str, value: u32) -> Result<u16, ConfigError> {
    let port = in_range(key, value, 1, 65_535)?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
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
        DurationText::Seconds(seconds) => {
            (seconds.to_string(), Some(Duration::from_secs(*seconds)))
        }
        DurationText::Text(text) => (text.clone(), parse_duration(text)),
    };
    parsed
        .filter(|duration| (low..=high).contains(duration))
        .ok_or_else(|| {
            ConfigError::new(
                key,
                format!("is \"{shown}\""),
                format!(
                    "{} to {}, written as 50ms, 30s, 5m, 4h or 1d",
                    show(low),
                    show(high)
                ),
            )
        })
}

/// In the largest unit of seconds and milliseconds that needs no fraction.
pub(super) fn show(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_micros().div_ceil(1000))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        digit if digit.is_ascii_digit() => return text.parse().ok().map(Duration::from_secs),
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(factor).map(Duration::from_secs)
}

pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
