//! Pseudorandom functions.

/// Pseudorandom functions (IANA "Transform Type 2", RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA1, id 2 (RFC 2104). MUST- (RFC 8247 §2.2): on its way out, so only used where the
    /// configuration names it.
    HmacSha1,
    /// PRF_HMAC_SHA2_256, id 5. MUST.
    HmacSha256,
    /// PRF_HMAC_SHA2_384, id 6. Without a status of its own.
    HmacSha384,
    /// PRF_HMAC_SHA2_512, id 7. SHOULD+.
    HmacSha512,
}

impl Prf {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
    ];

    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::HmacSha1 => 2,
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// The function with this transform id, if we have it.
    pub fn from_transform_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.transform_id() == id)
    }

    /// Output, and preferred key, in octets.
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}
