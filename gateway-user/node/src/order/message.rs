//! What members say to each other about orders, in octets.

use gateway_common::slot::Slot;

use super::{Only, Order, What};

/// What members say to each other about orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// See to this.
    Do {
        /// Answered with it.
        number: u64,
        /// How many members have passed it on.
        hops: u8,
        /// Which slots' SAs it is about.
        slots: Vec<Slot>,
        order: Order,
    },
    /// The order of this number is seen to.
    Taken { number: u64 },
}

/// First octet of an answer; those of orders are 4 to 7.
const TAKEN: u8 = 16;

impl Message {
    /// `Do`: what, number, hops, count of slots and slots, length of the connection's name, the
    /// name, the child's name, and behind a zero the SPI, if there is one.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Taken { number } => {
                let mut octets = vec![TAKEN];
                octets.extend_from_slice(&number.to_be_bytes());
                octets
            }
            Self::Do {
                number,
                hops,
                slots,
                order,
            } => {
                let what = match order.what {
                    What::Initiate => 4,
                    What::Terminate => 5,
                    What::Rekey => 6,
                    What::Acquire => 7,
                };
                let mut octets = vec![what];
                octets.extend_from_slice(&number.to_be_bytes());
                octets.push(*hops);
                octets.extend_from_slice(&(slots.len() as u16).to_be_bytes());
                octets.extend(slots.iter().map(|slot| slot.0));
                octets.extend_from_slice(&(order.connection.len() as u32).to_be_bytes());
                octets.extend_from_slice(order.connection.as_bytes());
                octets.extend_from_slice(order.child.as_deref().unwrap_or_default().as_bytes());
                if let Some(only) = &order.only {
                    octets.push(0);
                    octets.extend_from_slice(only.octets());
                }
                octets
            }
        }
    }

    /// `None` for what another release has written.
    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let (kind, rest) = octets.split_first()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        let what = match *kind {
            4 => What::Initiate,
            5 => What::Terminate,
            6 => What::Rekey,
            7 => What::Acquire,
            TAKEN => return rest.is_empty().then_some(Self::Taken { number }),
            _ => return None,
        };
        let (hops, rest) = rest.split_first()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let (slots, rest) = rest.split_at_checked(u16::from_be_bytes(*count).into())?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (connection, rest) = rest.split_at_checked(len)?;
        // Names have no zero in them.
        let (child, only) = match rest.iter().position(|octet| *octet == 0) {
            Some(end) => (&rest[..end], Some(Only::from_octets(&rest[end + 1..])?)),
            None => (rest, None),
        };
        let text = |octets: &[u8]| std::str::from_utf8(octets).ok().map(str::to_owned);
        Some(Self::Do {
            number,
            hops: *hops,
            slots: slots.iter().map(|slot| Slot(*slot)).collect(),
            order: Order {
                what,
                connection: text(connection)?,
                child: text(child).filter(|child| !child.is_empty()),
                only,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_encoding() {
        let only = [None, Some(Only::Ike([0; 8])), Some(Only::Child([7; 4]))];
        let children = [None, Some("net".to_owned())];
        for (child, only) in children
            .into_iter()
            .flat_map(|c| only.map(|o| (c.clone(), o)))
        {
            let order = Order {
                what: What::Rekey,
                connection: "site".to_owned(),
                child,
                only,
            };
            let message = Message::Do {
                number: 7,
                hops: 2,
                slots: vec![Slot(0), Slot(255)],
                order,
            };
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        let taken = Message::Taken { number: u64::MAX };
        assert_eq!(Message::decode(&taken.encode()), Some(taken));
        // Of another release, and truncated.
        assert_eq!(Message::decode(&[1, 0, 0, 0, 0, b'x']), None);
        assert_eq!(Message::decode(&[4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 9]), None);
    }
}
