//! A heartbeat's envelope.
//!
//! ```text
//!  0      4        5        6        7        8       12
//!  | magic | version | cluster | from   | to     | key id | body …   | tag (16) |
//! ```

use super::keys::TAG;

/// Not 0x1A90, which packet analysers take for another product's protocol.
const MAGIC: [u8; 4] = *b"gwhb";
const VERSION: u8 = 1;
const HEADER: usize = 12;

/// Longest datagram, in octets. Most fit an Ethernet frame with IPv6 and a VLAN tag (1,452); views of
/// more than 50 members, or of slots that changed hands very unequally, may come in fragments.
pub(super) const MAX_DATAGRAM: usize = 2500;

/// Member ids in envelopes; the witness has none.
pub(super) const WITNESS: u8 = 0;

/// What stands before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster: u8,
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) key: u32,
}

/// A datagram taken apart. Nothing in it is authentic yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) header: Header,
    pub(super) body: &'a [u8],
    /// What the tag is made over: header and body.
    pub(super) signed: &'a [u8],
    pub(super) tag: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None` if it is something else.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
        let (header, body) = signed.split_first_chunk::<HEADER>()?;
        let [m0, m1, m2, m3, version, cluster, from, to, key @ ..] = *header;
        if [m0, m1, m2, m3] != MAGIC || version != VERSION {
            return None;
        }
        let header = Header {
            cluster,
            from,
            to,
            key: u32::from_be_bytes(key),
        };
        Some(Self {
            header,
            body,
            signed,
            tag,
        })
    }
}

/// The datagram for `body`; `None` if it would be longer than [`MAX_DATAGRAM`].
pub(super) fn seal(
    header: Header,
    body: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; TAG],
) -> Option<Vec<u8>> {
    let length = HEADER + body.len() + TAG;
    if length > MAX_DATAGRAM {
        return None;
    }
    let mut datagram = Vec::with_capacity(length);
    datagram.extend_from_slice(&MAGIC);
    datagram.extend_from_slice(&[VERSION, header.cluster, header.from, header.to]);
    datagram.extend_from_slice(&header.key.to_be_bytes());
    datagram.extend_from_slice(body);
    let tag = sign(&datagram);
    datagram.extend_from_slice(&tag);
    Some(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Header = Header {
        cluster: 7,
        from: 1,
        to: 2,
        key: 0x0102_0304,
    };

    #[test]
    fn what_is_sealed_is_taken_apart() {
        let datagram = seal(OWN, b"body", |signed| {
            assert_eq!(signed.len(), HEADER + 4);
            [9; TAG]
        })
        .unwrap();
        let envelope = Envelope::parse(&datagram).unwrap();
        assert_eq!((envelope.header, envelope.body), (OWN, &b"body"[..]));
        assert_eq!(envelope.tag, [9; TAG]);
        assert_eq!(seal(OWN, &[0; MAX_DATAGRAM], |_| [0; TAG]), None);
    }

    #[test]
    fn cut_and_foreign_datagrams_are_something_else() {
        let datagram = seal(OWN, &[], |_| [0; TAG]).unwrap();
        for length in 0..datagram.len() {
            assert_eq!(Envelope::parse(&datagram[..length]), None);
        }
        for index in 0..5 {
            let mut other = datagram.clone();
            other[index] ^= 1;
            assert_eq!(Envelope::parse(&other), None);
        }
    }
}
