//! Key exchange methods: Diffie-Hellman groups and key encapsulation mechanisms.

use super::CryptoError;
use crate::secret::SecretBytes;

/// Key exchange methods (IANA "Transform Type 4", and types 6 to 12 of RFC 9370).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyExchangeMethod {
    /// Curve25519, id 31 (RFC 8031). Newer than RFC 8247, which expects it to be recommended.
    X25519,
    /// 256-bit random ECP group, id 19 (RFC 5903). SHOULD (RFC 8247 §2.4).
    Ecp256,
    /// 384-bit random ECP group, id 20 (RFC 5903). MAY.
    Ecp384,
    /// 521-bit random ECP group, id 21 (RFC 5903). MAY.
    Ecp521,
    /// 2048-bit MODP group, id 14 (RFC 3526). MUST.
    Modp2048,
    /// 3072-bit MODP group, id 15 (RFC 3526). MAY.
    Modp3072,
    /// 4096-bit MODP group, id 16 (RFC 3526). MAY.
    Modp4096,
    /// ML-KEM-512, id 35 (FIPS 203). Meant as an additional key exchange (RFC 9370).
    MlKem512,
    /// ML-KEM-768, id 36 (FIPS 203).
    MlKem768,
    /// ML-KEM-1024, id 37 (FIPS 203).
    MlKem1024,
}

impl KeyExchangeMethod {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::X25519,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::MlKem512,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::X25519 => 31,
            Self::MlKem512 => 35,
            Self::MlKem768 => 36,
            Self::MlKem1024 => 37,
        }
    }

    /// The method with this transform id, if we have it.
    pub fn from_transform_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.transform_id() == id)
    }

    /// Octets of the initiator's Key Exchange Data: a public value, or an encapsulation key.
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Octets of the responder's Key Exchange Data: a public value, or a ciphertext.
    pub const fn answer_len(self) -> usize {
        match self {
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
            other => other.public_len(),
        }
    }

    /// Octets of the secret that both sides have in the end.
    pub const fn shared_len(self) -> usize {
        match self {
            Self::X25519 | Self::Ecp256 | Self::MlKem512 | Self::MlKem768 | Self::MlKem1024 => 32,
            Self::Ecp384 => 48,
            Self::Ecp521 => 66,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
        }
    }

    /// Whether it is a key encapsulation mechanism, whose two sides do different things, and not a
    /// Diffie-Hellman group.
    pub const fn is_kem(self) -> bool {
        matches!(self, Self::MlKem512 | Self::MlKem768 | Self::MlKem1024)
    }
}

/// The initiator's half of a key exchange: a private value whose public half is on its way to the
/// peer.
pub trait KeyExchange: Send {
    /// Which method.
    fn method(&self) -> KeyExchangeMethod;

    /// Key Exchange Data as it stands in a KE payload, [`KeyExchangeMethod::public_len`] octets:
    /// for ECP x ‖ y (RFC 5903 §7), for MODP big endian with leading zeros (RFC 7296 §3.4), for
    /// ML-KEM the encapsulation key.
    fn public_value(&self) -> &[u8];

    /// The shared secret, from the Key Exchange Data of the answer: g^ir, with leading zeros. For
    /// ECP the x coordinate only (RFC 5903 §7); an all-zero X25519 result, an ECP point that is not
    /// on the curve, a MODP value outside 2..p−1 and data of the wrong length are
    /// [`CryptoError::InvalidPublicValue`] (RFC 6989 §2). An ML-KEM ciphertext that was not made
    /// for this key gives a secret that nobody else has (FIPS 203: implicit rejection).
    fn agree(&self, answer: &[u8]) -> Result<SecretBytes, CryptoError>;

    /// The private value, for a record that another member can resume from.
    fn export(&self) -> SecretBytes;
}

/// The responder's half of a key exchange, which ends with it.
#[derive(Debug)]
pub struct KeyExchangeAnswer {
    /// Key Exchange Data for the answer, [`KeyExchangeMethod::answer_len`] octets.
    pub public: Vec<u8>,
    /// The shared secret.
    pub shared: SecretBytes,
}
