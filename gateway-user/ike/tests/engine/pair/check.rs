//! What must hold on the wire at any time, and between the sides in the end.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::time::Instant;
use gateway_ike::wire::{Body, ExchangeType, HeaderRepr, Message};

use super::Side;

/// A side and the SPIs of an IKE SA.
type Sender = (usize, [u8; 8], [u8; 8]);

/// Everything that was sent.
#[derive(Default)]
pub(crate) struct Wire {
    /// Octets by sender, SPIs, Message ID, direction and fragment (0 = none): the same message is always the same
    /// octets, whoever sends it.
    messages: BTreeMap<(Sender, u32, bool, u16), Vec<u8>>,
    /// IVs by sender and SPIs.
    ivs: BTreeMap<(Sender, Vec<u8>), Vec<u8>>,
    /// By who asks, SPIs and Message ID.
    exchanges: BTreeMap<(Sender, u32), Traffic>,
    /// How often a message was sent again.
    pub(crate) repeated: usize,
    /// How many fragments were sent.
    pub(crate) fragments: usize,
    /// What is being tried.
    pub(crate) context: String,
}

/// Copies of an exchange's messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Requests that were sent, and that reached a member that lived to take them.
    asked: usize,
    heard: usize,
    /// The same of the responses.
    answered: usize,
    returned: usize,
}

impl Wire {
    fn traffic(&mut self, asks: usize, header: &HeaderRepr) -> &mut Traffic {
        let sender = (asks, header.initiator_spi, header.responder_spi);
        let key = (sender, header.message_id);
        self.exchanges.entry(key).or_default()
    }

    /// A message reaches side `to`.
    pub(super) fn arrived(&mut self, to: usize, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        let header = message.header();
        if header.response {
            self.traffic(to, header).returned += 1;
        } else {
            self.traffic(1 - to, header).heard += 1;
        }
    }

    /// Whether a request of side `asks` was sent `times` times without any response's coming back,
    /// though each that was heard was answered, but for one with each of the `deaths` of the peer's
    /// members: nobody could have told the peer from a dead one.
    pub(crate) fn unlucky(&self, asks: usize, times: usize, deaths: usize) -> bool {
        let mut exchanges = self.exchanges.iter();
        exchanges.any(|(((side, ..), _), traffic)| {
            *side == asks
                && traffic.asked >= times
                && traffic.returned == 0
                && traffic.answered + deaths >= traffic.heard
        })
    }

    pub(super) fn saw(&mut self, from: usize, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        let header = message.header();
        if header.response {
            self.traffic(1 - from, header).answered += 1;
        } else {
            self.traffic(from, header).asked += 1;
        }
        // It may come again with a cookie, and has no keys.
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return;
        }
        let (encrypted, fragment) = match message.body() {
            Body::Encrypted(encrypted) => (encrypted, 0),
            Body::Fragment(fragment, sealed) => {
                self.fragments += 1;
                (sealed, fragment.number())
            }
            Body::Clear(_) => panic!("a message in clear"),
        };
        let sender = (from, header.initiator_spi, header.responder_spi);
        let iv = encrypted.body()[..8].to_vec();
        let known = self
            .ivs
            .entry((sender, iv))
            .or_insert_with(|| bytes.to_vec());
        assert!(
            known == bytes,
            "{}: side {from}: an IV came twice: {:?}, {header:?}",
            self.context,
            Message::parse(known).unwrap().header()
        );
        // RFC 6311 gives Message ID 0 a second meaning.
        if header.message_id == 0 && is_sync(bytes) {
            return;
        }
        let key = (sender, header.message_id, header.response, fragment);
        match self.messages.get(&key) {
            Some(known) => {
                assert!(
                    known == bytes,
                    "{}: side {from}: another message under the same Message ID: {header:?}, {} and {} \
                     octets",
                    self.context,
                    known.len(),
                    bytes.len()
                );
                self.repeated += 1;
            }
            None => {
                self.messages.insert(key, bytes.to_vec());
            }
        }
    }
}

/// Sync messages stand beside the ordinary ones with Message ID 0; they are recognised by their
/// length, since nobody here has the keys: one notification of 12 octets. With a block cipher, IV and
/// content are whole blocks.
fn is_sync(bytes: &[u8]) -> bool {
    [28 + 4 + 8 + (8 + 12) + 1 + 16, 28 + 4 + 16 + 32 + 16].contains(&bytes.len())
}

/// Both sides have the one IKE SA and the same children; kernel, replica and member agree.
pub(super) fn agree(sides: &[Side; 2], now: Instant, context: &str) {
    let logs = || format!("{context}\n{:#?}\n{:#?}", sides[0].log, sides[1].log);
    let [a, b] = [0, 1].map(|at| sides[at].records(now));
    assert_eq!((a.len(), b.len()), (1, 1), "one IKE SA each: {}", logs());
    let (a, b) = (&a[0], &b[0]);
    assert_eq!(a.local_spi, b.remote_spi, "{}", logs());
    assert_eq!(a.remote_spi, b.local_spi, "{}", logs());
    assert!(a.keys == b.keys, "{}", logs());
    assert_ne!(a.role, b.role, "{}", logs());
    assert_eq!(a.next_request, b.expected_request, "{}", logs());
    assert_eq!(b.next_request, a.expected_request, "{}", logs());
    for record in [a, b] {
        assert!(record.outstanding.is_none(), "{}", logs());
        assert!(!record.replaced && !record.closing, "{}", logs());
        assert_eq!(record.children.len(), 1, "{}", logs());
    }
    let (x, y) = (&a.children[0].sa, &b.children[0].sa);
    assert_eq!((x.spi_in, x.spi_out), (y.spi_out, y.spi_in), "{}", logs());
    assert_eq!(
        (&x.key_in, &x.key_out),
        (&y.key_out, &y.key_in),
        "{}",
        logs()
    );
    assert_eq!(x.local_ts, y.remote_ts, "{}", logs());
    for (side, record) in sides.iter().zip([a, b]) {
        let installed: BTreeSet<_> = side.kernel.keys().copied().collect();
        let accounted = record.children.iter().map(|child| child.sa.id()).collect();
        assert_eq!(installed, accounted, "{}", logs());
        let replica = side.replica();
        assert_eq!(replica.len(), 1, "{}", logs());
        assert_eq!(replica[0].next_request, record.next_request, "{}", logs());
        assert_eq!(
            replica[0].expected_request,
            record.expected_request,
            "{}",
            logs()
        );
    }
}
