//! `mark_in`, `mark_out` and their kin: swanctl's, beside the bits that the fence needs.

use gateway_common::abi::MARK_MASK;
use gateway_ike::mark::{Mark, Marks};

use super::error::ConfigError;
use super::raw;

const EXAMPLE: &str = "a mark like \"42\" or \"0x2a/0xff\"";

/// The marks of a child.
pub(super) fn check(key: &str, raw: &raw::Child) -> Result<Marks, ConfigError> {
    let inbound = matched(&format!("{key}.mark_in"), raw.mark_in.as_deref())?;
    let outbound = matched(&format!("{key}.mark_out"), raw.mark_out.as_deref())?;
    if raw.mark_in_sa && inbound.is_none() {
        return Err(ConfigError::new(
            format!("{key}.mark_in_sa"),
            "is set, and there is no mark_in",
            "a mark_in, or no",
        ));
    }
    let set_in_key = format!("{key}.set_mark_in");
    let set_in = set(&set_in_key, raw.set_mark_in.as_deref(), inbound)?;
    free_value(&set_in_key, set_in)?;
    let set_out_key = format!("{key}.set_mark_out");
    let set_out = set(&set_out_key, raw.set_mark_out.as_deref(), outbound)?;
    if set_out.mask & MARK_MASK != 0 {
        return Err(ConfigError::new(
            set_out_key,
            format!(
                "is {set_out}: the bits {MARK_MASK:#x} of encrypted packets are the gateway's own, \
                 without which none leaves"
            ),
            format!(
                "a mask of the free bits, like \"{:#x}/{:#x}\", and the same mask where the mark is \
                 looked at",
                set_out.value & !MARK_MASK,
                !MARK_MASK
            ),
        ));
    }
    Ok(Marks {
        inbound,
        inbound_sa: raw.mark_in_sa,
        outbound,
        set_in,
        set_out,
    })
}

/// A mark that packets have to have. Its mask may be all ones: what is not encrypted yet has none of
/// our bits.
fn matched(key: &str, text: Option<&str>) -> Result<Mark, ConfigError> {
    let Some(text) = text else {
        return Ok(Mark::NONE);
    };
    if text.starts_with("%unique") {
        return Err(ConfigError::new(
            key,
            format!(
                "is \"{text}\": every CHILD_SA would have a mark that nobody knows before, and each \
                 member needs its rules for it before a takeover"
            ),
            "a mark of its own for each child, like \"42\", or if_id_in and if_id_out",
        ));
    }
    let mark = parse(key, text)?;
    free_value(key, mark)?;
    Ok(mark)
}

/// A mark that packets get; `%same` is the value of the one that they had to have.
fn set(key: &str, text: Option<&str>, matched: Mark) -> Result<Mark, ConfigError> {
    match text {
        None => Ok(Mark::NONE),
        Some(text) => match text.strip_prefix("%same") {
            Some(mask) => parse(key, &format!("{}{mask}", matched.value)),
            None => parse(key, text),
        },
    }
}

fn parse(key: &str, text: &str) -> Result<Mark, ConfigError> {
    text.parse()
        .map_err(|error| ConfigError::new(key, format!("\"{text}\": {error}"), EXAMPLE))
}

/// The fence takes a packet with one of its bits for one that the gateway has made.
fn free_value(key: &str, mark: Mark) -> Result<(), ConfigError> {
    if mark.value & MARK_MASK == 0 {
        return Ok(());
    }
    Err(ConfigError::new(
        key,
        format!("is {mark}: the bits {MARK_MASK:#x} mark the gateway's own packets"),
        format!("values of the free bits, {:#x}", !MARK_MASK),
    ))
}
