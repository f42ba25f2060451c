//! Octets to trees.

use crate::section::{Item, Section, Value};
use crate::{MAX_DEPTH, MAX_ELEMENTS, ParseError, wire};

/// Reads from the front of what is left.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ParseError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Behind its length in one octet.
    pub(crate) fn name(&mut self) -> Result<String, ParseError> {
        let len = self.octet().ok_or(ParseError::Truncated)?;
        let octets = self.take(usize::from(len))?;
        let text = std::str::from_utf8(octets).map_err(|_| ParseError::Name)?;
        Ok(text.to_owned())
    }

    /// Behind its length in two octets.
    fn value(&mut self) -> Result<Value, ParseError> {
        let len = self.take(2)?;
        let len = len
            .iter()
            .fold(0, |len, octet| len << 8 | usize::from(*octet));
        self.take(len).map(Value::from)
    }
}

/// A whole message.
pub(crate) fn message(octets: &[u8]) -> Result<Section, ParseError> {
    let mut reader = Reader(octets);
    let mut elements = 0;
    // What is open, the innermost last, each with the name that it will get.
    let mut open: Vec<(String, Section)> = Vec::new();
    let mut current = Section::new();
    while let Some(element) = reader.octet() {
        count(&mut elements)?;
        match element {
            wire::SECTION_START => {
                if open.len() >= MAX_DEPTH {
                    return Err(ParseError::TooDeep);
                }
                let name = reader.name()?;
                open.push((name, std::mem::take(&mut current)));
            }
            wire::SECTION_END => {
                let (name, outer) = open.pop().ok_or(ParseError::Unbalanced)?;
                let inner = std::mem::replace(&mut current, outer);
                current.push(name, Item::Section(inner));
            }
            wire::KEY_VALUE => {
                let name = reader.name()?;
                current.push(name, Item::Value(reader.value()?));
            }
            wire::LIST_START => {
                let name = reader.name()?;
                let list = list(&mut reader, &mut elements)?;
                current.push(name, Item::List(list));
            }
            other => return Err(ParseError::Element(other)),
        }
    }
    if open.is_empty() {
        Ok(current)
    } else {
        Err(ParseError::Unbalanced)
    }
}

/// The rest of a list, its end included.
fn list(reader: &mut Reader<'_>, elements: &mut usize) -> Result<Vec<Value>, ParseError> {
    let mut values = Vec::new();
    loop {
        count(elements)?;
        match reader.octet().ok_or(ParseError::Unbalanced)? {
            wire::LIST_ITEM => values.push(reader.value()?),
            wire::LIST_END => return Ok(values),
            other => return Err(ParseError::Element(other)),
        }
    }
}

fn count(elements: &mut usize) -> Result<(), ParseError> {
    *elements += 1;
    if *elements > MAX_ELEMENTS {
        return Err(ParseError::TooMany);
    }
    Ok(())
}
