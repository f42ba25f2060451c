//! Encryption and integrity algorithms for SK payloads and ESP.

/// How SK payloads and ESP packets are protected (IANA "Transform Type 1" and, where it is not a
/// combined-mode algorithm, "Transform Type 3"). Encryption without integrity does not exist here,
/// so the two are one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// AES-GCM with a 16-octet ICV and a 128-bit key: ENCR 20, key length 128 (RFC 4106, RFC 5282).
    /// SHOULD for IKE (RFC 8247 §2.1), MUST for ESP (RFC 8221 §5).
    AesGcm16Key128,
    /// AES-GCM with a 16-octet ICV and a 192-bit key: ENCR 20, key length 192. MAY, for IKE and ESP.
    AesGcm16Key192,
    /// AES-GCM with a 16-octet ICV and a 256-bit key: ENCR 20, key length 256. SHOULD for IKE, MUST
    /// for ESP.
    AesGcm16Key256,
    /// ChaCha20-Poly1305: ENCR 28 (RFC 7634). SHOULD, for IKE and ESP.
    ChaCha20Poly1305,
    /// AES-CBC, ENCR 12 (RFC 3602), and an integrity algorithm over the ciphertext. MUST for IKE and
    /// ESP with 128 and 256 bits, MAY with 192.
    AesCbc(AesKey, Integrity),
}

/// Length of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AesKey {
    /// 128 bits.
    Bits128,
    /// 192 bits.
    Bits192,
    /// 256 bits.
    Bits256,
}

impl AesKey {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bits128, Self::Bits192, Self::Bits256];

    /// Length in bits.
    pub const fn bits(self) -> u16 {
        match self {
            Self::Bits128 => 128,
            Self::Bits192 => 192,
            Self::Bits256 => 256,
        }
    }
}

/// Integrity algorithms (IANA "Transform Type 3"), all HMAC with a truncated output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// AUTH_HMAC_SHA1_96, id 2 (RFC 2404). MUST- for IKE and ESP: on its way out, so only used
    /// where the configuration names it.
    HmacSha1_96,
    /// AUTH_HMAC_SHA2_256_128, id 12 (RFC 4868). MUST for IKE and ESP.
    HmacSha256_128,
    /// AUTH_HMAC_SHA2_384_192, id 13 (RFC 4868). Without a status of its own.
    HmacSha384_192,
    /// AUTH_HMAC_SHA2_512_256, id 14 (RFC 4868). SHOULD for IKE and ESP.
    HmacSha512_256,
}

impl Integrity {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::HmacSha1_96,
        Self::HmacSha256_128,
        Self::HmacSha384_192,
        Self::HmacSha512_256,
    ];

    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::HmacSha1_96 => 2,
            Self::HmacSha256_128 => 12,
            Self::HmacSha384_192 => 13,
            Self::HmacSha512_256 => 14,
        }
    }

    /// The algorithm with this transform id, if we have it.
    pub fn from_transform_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.transform_id() == id)
    }

    /// Octets of key: as many as the hash has output (RFC 4868 §2.1.1).
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 20,
            Self::HmacSha256_128 => 32,
            Self::HmacSha384_192 => 48,
            Self::HmacSha512_256 => 64,
        }
    }

    /// Octets of integrity check value: the first ones of the HMAC.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 12,
            Self::HmacSha256_128 => 16,
            Self::HmacSha384_192 => 24,
            Self::HmacSha512_256 => 32,
        }
    }
}

/// Octets of an AES block.
const AES_BLOCK: usize = 16;

impl Encryption {
    /// All of them, combined-mode algorithms first.
    pub fn all() -> impl Iterator<Item = Self> {
        let combined = [
            Self::AesGcm16Key128,
            Self::AesGcm16Key192,
            Self::AesGcm16Key256,
            Self::ChaCha20Poly1305,
        ];
        let cbc = AesKey::ALL
            .into_iter()
            .flat_map(|key| Integrity::ALL.map(|integrity| Self::AesCbc(key, integrity)));
        combined.into_iter().chain(cbc)
    }

    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::AesGcm16Key128 | Self::AesGcm16Key192 | Self::AesGcm16Key256 => 20,
            Self::ChaCha20Poly1305 => 28,
            Self::AesCbc(..) => 12,
        }
    }

    /// Length of the encryption key in bits.
    pub const fn key_bits(self) -> u16 {
        match self {
            Self::AesGcm16Key128 => 128,
            Self::AesGcm16Key192 => 192,
            Self::AesGcm16Key256 | Self::ChaCha20Poly1305 => 256,
            Self::AesCbc(key, _) => key.bits(),
        }
    }

    /// Key Length attribute in bits. AES must have it; ChaCha20 with its one length must not
    /// (RFC 7634 §4, RFC 7296 §3.3.5).
    pub const fn key_length_attribute(self) -> Option<u16> {
        match self {
            Self::ChaCha20Poly1305 => None,
            other => Some(other.key_bits()),
        }
    }

    /// The integrity algorithm; `None` for combined-mode algorithms, which bring their own.
    pub const fn integrity(self) -> Option<Integrity> {
        match self {
            Self::AesCbc(_, integrity) => Some(integrity),
            _ => None,
        }
    }

    /// Whether it is a combined-mode algorithm: its IVs must never repeat. Others need IVs that
    /// nobody can predict (RFC 7296 §3.14).
    pub const fn is_combined_mode(self) -> bool {
        self.integrity().is_none()
    }

    /// Octets of the encryption key.
    pub const fn key_len(self) -> usize {
        self.key_bits() as usize / 8
    }

    /// Octets of key material: the encryption key and behind it the salt (RFC 5282 §7.1, RFC 4106
    /// §8.1, RFC 7634 §2) or the integrity key (RFC 7296 §2.17).
    pub const fn keymat_len(self) -> usize {
        self.key_len() + self.salt_len() + self.integrity_key_len()
    }

    /// Octets of salt at the end of the key material.
    pub const fn salt_len(self) -> usize {
        if self.is_combined_mode() { 4 } else { 0 }
    }

    /// Octets of integrity key at the end of the key material.
    pub const fn integrity_key_len(self) -> usize {
        match self.integrity() {
            Some(integrity) => integrity.key_len(),
            None => 0,
        }
    }

    /// Octets of explicit IV.
    pub const fn iv_len(self) -> usize {
        if self.is_combined_mode() {
            8
        } else {
            AES_BLOCK
        }
    }

    /// Octets of integrity check value.
    pub const fn icv_len(self) -> usize {
        match self.integrity() {
            Some(integrity) => integrity.icv_len(),
            None => 16,
        }
    }

    /// What the length of a plaintext, padding included, must be a multiple of.
    pub const fn block_len(self) -> usize {
        if self.is_combined_mode() {
            1
        } else {
            AES_BLOCK
        }
    }
}
