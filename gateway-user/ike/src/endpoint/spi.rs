//! SPIs: unpredictable, unique in the cluster by partition, unique here by table.

use std::collections::BTreeMap;

use gateway_common::member::MemberId;

use crate::crypto::CryptoProvider;

/// The bits of an SPI's last octet that carry the member that drew it.
const MEMBER_BITS: u8 = 0x3f;

/// SPIs up to 255 are reserved by IANA (RFC 4303 §2.1).
pub(crate) const FIRST_ESP_SPI: u32 = 256;

/// How often a draw is repeated before the caller is told that there is no free SPI. With 2^26
/// ESP SPIs per member even a million live SAs make a single collision a 1.5 % event.
const ATTEMPTS: usize = 16;

/// Draws an IKE SPI: 8 random octets, the member in the low 6 bits of the last one. Never zero
/// (RFC 7296 §3.1), because a member id never is. `None` if `taken` refuses every draw.
pub(crate) fn draw_ike(
    crypto: &dyn CryptoProvider,
    member: MemberId,
    taken: impl Fn(&[u8; 8]) -> bool,
) -> Option<[u8; 8]> {
    (0..ATTEMPTS).find_map(|_| {
        let mut spi = [0; 8];
        crypto.random(&mut spi);
        stamp(&mut spi[7], member);
        (!taken(&spi)).then_some(spi)
    })
}

/// Live inbound ESP SPIs of this endpoint and the IKE SA (our SPI) that each belongs to.
#[derive(Debug, Default)]
pub(crate) struct EspSpis {
    owner: BTreeMap<[u8; 4], [u8; 8]>,
}

impl EspSpis {
    /// Draws a free inbound SPI, at least 256, the member in the low 6 bits of its last octet, and
    /// books it for the IKE SA `owner`. `None` if no free one was found.
    pub(crate) fn draw(
        &mut self,
        crypto: &dyn CryptoProvider,
        member: MemberId,
        owner: [u8; 8],
    ) -> Option<[u8; 4]> {
        let spi = (0..ATTEMPTS).find_map(|_| {
            let mut spi = [0; 4];
            crypto.random(&mut spi);
            stamp(&mut spi[3], member);
            let usable = u32::from_be_bytes(spi) >= FIRST_ESP_SPI;
            (usable && !self.owner.contains_key(&spi)).then_some(spi)
        })?;
        self.owner.insert(spi, owner);
        Some(spi)
    }

    /// Books an SPI that an import or a rekeyed IKE SA brings along.
    pub(crate) fn assign(&mut self, spi: [u8; 4], owner: [u8; 8]) {
        self.owner.insert(spi, owner);
    }

    /// Frees an SPI.
    pub(crate) fn release(&mut self, spi: &[u8; 4]) {
        self.owner.remove(spi);
    }

    /// The IKE SA that an inbound SPI belongs to.
    pub(crate) fn owner(&self, spi: &[u8; 4]) -> Option<[u8; 8]> {
        self.owner.get(spi).copied()
    }

    /// How many are live.
    pub(crate) fn len(&self) -> usize {
        self.owner.len()
    }
}

fn stamp(octet: &mut u8, member: MemberId) {
    *octet = (*octet & !MEMBER_BITS) | member.get();
}
