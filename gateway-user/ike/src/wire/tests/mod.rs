//! Tests of the wire format.

mod arbitrary;
mod hostile;
mod limits;
mod recorded;
mod round_trip;
mod rules;
mod sealed;

use super::{ExchangeType, HeaderRepr};

/// Octets from hexadecimal digits; white space does not count.
fn hex(digits: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = digits
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    let (octets, rest) = nibbles.as_chunks();
    assert!(rest.is_empty(), "an odd number of digits");
    octets.iter().map(|[high, low]| high << 4 | low).collect()
}

/// The header of a request on an established IKE SA.
fn header() -> HeaderRepr {
    HeaderRepr {
        initiator_spi: [1, 2, 3, 4, 5, 6, 7, 8],
        responder_spi: [9, 10, 11, 12, 13, 14, 15, 16],
        exchange: ExchangeType::INFORMATIONAL,
        from_initiator: true,
        response: false,
        message_id: 7,
    }
}

/// A message in clear of one payload with this body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap();
    let payload = [&[0, 0], length.to_be_bytes().as_slice(), body].concat();
    frame(kind, &payload)
}

/// A message of these payloads.
fn frame(first: u8, payloads: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payloads.len() + 28).unwrap();
    let header = header().encode(super::PayloadType(first), length);
    [&header, payloads].concat()
}
