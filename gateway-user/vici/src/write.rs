//! Trees to octets.

use crate::section::{Item, Section};
use crate::{WriteError, wire};

/// Behind its length in one octet.
pub(crate) fn name(out: &mut Vec<u8>, name: &str) -> Result<(), WriteError> {
    let len = u8::try_from(name.len()).map_err(|_| WriteError::Name(name.len()))?;
    out.push(len);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

/// Behind its length in two octets.
fn value(out: &mut Vec<u8>, octets: &[u8]) -> Result<(), WriteError> {
    let len = u16::try_from(octets.len()).map_err(|_| WriteError::Value(octets.len()))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(octets);
    Ok(())
}

pub(crate) fn message(out: &mut Vec<u8>, section: &Section) -> Result<(), WriteError> {
    for (key, item) in section.entries() {
        match item {
            Item::Value(octets) => {
                out.push(wire::KEY_VALUE);
                name(out, key)?;
                value(out, octets.octets())?;
            }
            Item::List(values) => {
                out.push(wire::LIST_START);
                name(out, key)?;
                for octets in values {
                    out.push(wire::LIST_ITEM);
                    value(out, octets.octets())?;
                }
                out.push(wire::LIST_END);
            }
            Item::Section(inner) => {
                out.push(wire::SECTION_START);
                name(out, key)?;
                message(out, inner)?;
                out.push(wire::SECTION_END);
            }
        }
    }
    Ok(())
}
